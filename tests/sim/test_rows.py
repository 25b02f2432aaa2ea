"""Where each known way to fail is held, by its number; and that short runs find what breaks some of them.

The bugs are those of ``tests/planted``, planted in this process: a function is made anew from its file with the bug in
it, and takes the place of the one that is there.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

from raftkv.sim.checks.invariants import Violated
from raftkv.sim.runs.short import ShortRun
from tests.planted.catalogue import Bug, load, planted

ROOT = Path(__file__).parents[2]
RUNS_MAX = 400

ROWS = {
    1: "tests/sim/planted.py",
    2: "tests/scenarios/crash_before_vote_is_stored.txt",
    3: "tests/scenarios/all_crash.txt",
    4: "tests/scenarios/figure_8_overwritten.txt",
    5: "tests/scenarios/figure_8_committed.txt",
    6: "tests/core/test_replication.py",
    7: "tests/core/test_replication.py",
    8: "tests/core/test_replication.py",
    9: "tests/scenarios/figure_7.txt",
    10: "tests/scenarios/replies_late_and_doubled.txt",
    11: "tests/sim/test_exhaustive.py",
    12: "tests/sim/planted.py",
    13: "tests/scenarios/figure_7.txt",
    14: "tests/sim/planted.py",
    15: "tests/scenarios/higher_term_rejoins.txt",
    16: "tests/scenarios/long_log_old_term.txt",
    17: "tests/scenarios/partial_partitions.txt",
    18: "tests/scenarios/one_way_loss.txt",
    19: "tests/scenarios/members_removed_with_higher_term.txt",
    20: "tests/scenarios/transfer_races.txt",
    21: "tests/core/test_elections.py",
    22: "tests/scenarios/disk_hangs.txt",
    23: "tests/scenarios/stopped_leader.txt",
    24: "tests/scenarios/members_two_at_once.txt",
    25: "tests/scenarios/members_leader_dies_joint.txt",
    26: "tests/scenarios/members_leader_leaves.txt",
    27: "tests/scenarios/members_unaware_voter.txt",
    28: "tests/scenarios/members_leader_dies_joint.txt",
    29: "tests/scenarios/members_dead_address.txt",
    30: "tests/scenarios/members_leader_dies_joint.txt",
    31: "tests/sim/test_world_faults.py",
    32: "tests/sim/test_world_faults.py",
    33: "tests/scenarios/reads.txt",
    34: "tests/scenarios/late_echo.txt",
    35: "tests/scenarios/reads.txt",
    36: "tests/scenarios/lease_clocks.txt",
    37: "tests/scenarios/members_reads_wait.txt",
    38: "tests/scenarios/snapshot_over_divergent_tail.txt",
    39: "tests/core/test_snapshots.py",
    40: "tests/scenarios/snapshot_over_divergent_tail.txt",
    41: "tests/scenarios/snapshot_pieces.txt",
    42: "tests/scenarios/snapshot_sender_compacts.txt",
    43: "tests/storage/test_snapshot_crash.py",
    44: "tests/kv/test_captures.py",
    45: "tests/node/test_snapshots.py",
    46: "tests/scenarios/waiting_writes.txt",
    47: "tests/sim/test_library_clients.py",
    48: "tests/sim/test_library_clients.py",
    49: "tests/sim/test_library_clients.py",
    50: "tests/scenarios/waiting_writes.txt",
    51: "tests/sim/test_library_clients.py",
    52: "tests/sim/test_world_faults.py",
    53: "tests/sim/test_world_faults.py",
    54: "tests/sim/test_world_faults.py",
    55: "tests/sim/test_world_faults.py",
    56: "tests/sim/test_world_faults.py",
    57: "tests/sim/test_world_faults.py",
    58: "tests/sim/test_world_faults.py",
}
"""Log, elections, members, reads, snapshots, clients, storage: the lowest place at which each can be shown."""

_NUMBERS = re.compile(r"faults((?:[ ,]|and|to|\d+)+)")


def rows_named_in(text: str) -> set[int]:
    """The numbers that stand behind the word "faults", spans too."""
    found: set[int] = set()
    for said in _NUMBERS.findall(text.replace("\n#", " ")):
        for first, last in re.findall(r"(\d+)(?: to (\d+))?", said):
            found.update(range(int(first), int(last or first) + 1))
    return found


@pytest.mark.parametrize("row", ROWS)
def test_every_known_way_to_fail_is_held_where_it_is_said_to_be(row):
    assert row in rows_named_in((ROOT / ROWS[row]).read_text()), ROWS[row]


def test_numbers_are_read_as_they_are_written():
    assert rows_named_in("(faults 3, 5 and 7 to 9), 11; faults 2") == {2, 3, 5, 7, 8, 9}
    assert set(ROWS) == set(range(1, 59))


FOUND_BY_SHORT_RUNS = (
    "truncates-what-does-not-conflict",
    "removals-need-no-joint-consensus",
    "an-uncommitted-change-is-over",
    "steps-on-what-is-not-committed",
    "a-change-is-its-leaders",
    "who-is-left-out-never-stands",
    "catching-up-is-no-change",
    "who-replaces-somebody-votes-at-once",
    "any-round-will-do",
    "the-old-majority-is-no-risk",
    "the-round-begins-where-it-ends",
    "what-is-called-off-does-half-of-it",
    "who-left-gets-the-log-after-it",
    "who-left-is-forgotten-at-once",
    "a-promoted-learner-does-not-know-its-role",
    "the-tails-configuration-stays",
    "the-new-voters-alone-give-a-lease",
)


def plant(bug: Bug, patch: pytest.MonkeyPatch) -> None:
    """The function with the bug in it takes the place of the one that is there."""
    source = (ROOT / bug.file).read_text()
    module = importlib.import_module(bug.file.removesuffix(".py").replace("/", "."))
    broken = ModuleType(module.__name__)
    vars(broken).update(vars(module))
    exec(compile(planted(bug, source), bug.file, "exec"), vars(broken))
    owner, _, name = bug.function.rpartition(".")
    if owner:
        patch.setattr(getattr(module, owner), name, vars(getattr(broken, owner))[name])
    else:
        patch.setattr(module, name, getattr(broken, name))


@pytest.mark.parametrize("name", FOUND_BY_SHORT_RUNS)
def test_short_runs_find(name, monkeypatch):
    plant(next(bug for bug in load() if bug.name == name), monkeypatch)
    found = next(
        (failure for seed in range(RUNS_MAX) if (failure := ShortRun(seed).failure()) is not None),
        None,
    )
    assert isinstance(found, Violated), found
