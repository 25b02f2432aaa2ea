"""What somebody could do wrongly with files, identities and full disks is found by whole runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from raftkv.core import raft, replication
from raftkv.core.formation import Formation
from raftkv.errors import DiskFailed
from raftkv.outcomes import Why
from raftkv.replica import Replica
from raftkv.sim.checks.invariants import Violated
from raftkv.storage import identity as identities
from raftkv.storage import recovery, wal
from raftkv.storage.identity import IdentityFile
from raftkv.storage.segments import segment_name
from raftkv.storage.wal import Wal
from tests.sim.worlds import first_failure

SEEDS_MAX = 40

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Planted:
    kinds: tuple[str, ...]
    found_as: tuple[str, ...]
    """Properties of which one is said to be violated."""


PLANTED: dict[Plant, Planted] = {}
TRUTH = "recovery tells the truth"


def plant(*kinds: str, found_as: tuple[str, ...]) -> Callable[[Plant], Plant]:
    def planted(act: Plant) -> Plant:
        PLANTED[act] = Planted(kinds, found_as)
        return act

    return planted


@plant("flip_bit", found_as=(TRUTH,))
def recovery_cuts_damage(patch: pytest.MonkeyPatch) -> None:
    """faults 53"""
    patch.setattr(recovery, "_refuse_damage", lambda *_: None)


@plant("die_at_the_disk", found_as=(TRUTH, "what was stored can be used"))
def a_new_segment_whose_name_is_not_synced(patch: pytest.MonkeyPatch) -> None:
    """faults 54"""

    def begin(directory, spare, header, *, room_bytes):
        header_bytes = len(header.encode())
        with spare.taken(size_bytes=header_bytes + room_bytes) as (name, file):
            file.pwrite(replace(header, size_bytes=file.size_bytes()).encode(), offset=0)
            file.sync()
            directory.rename(name, segment_name(header.number))
        return file, header_bytes

    patch.setattr(wal, "_begin_segment", begin)


@plant("die_at_the_disk", found_as=(TRUTH, "what was stored can be used"))
def a_new_segment_is_named_before_its_header_is_synced(patch: pytest.MonkeyPatch) -> None:
    def begin(directory, spare, header, *, room_bytes):
        header_bytes = len(header.encode())
        with spare.taken(size_bytes=header_bytes + room_bytes) as (name, file):
            file.pwrite(replace(header, size_bytes=file.size_bytes()).encode(), offset=0)
            directory.rename(name, segment_name(header.number))
            directory.sync()
            file.sync()
        return file, header_bytes

    patch.setattr(wal, "_begin_segment", begin)


@plant("crash_all", "reboot", found_as=(TRUTH, "what was stored can be used"))
def writes_are_acknowledged_before_they_are_synced(patch: pytest.MonkeyPatch) -> None:
    """faults 1, 2: only what was written before is."""

    def put(self, draft, runs, checksums):
        self._file.sync_data()
        with patch.context() as unsynced:
            unsynced.setattr(type(self._file), "sync_data", lambda _: None)
            original(self, draft, runs, checksums)

    original = Wal._put
    patch.setattr(Wal, "_put", put)


@plant("fail_sync", "reboot", found_as=(TRUTH, "what was stored can be used"))
def a_sync_that_failed_is_tried_again(patch: pytest.MonkeyPatch) -> None:
    """faults 55"""

    def put(self, draft, runs, checksums):
        sync = type(self._file).sync_data

        def again(file):
            try:
                sync(file)
            except DiskFailed:
                sync(file)

        with patch.context() as retried:
            retried.setattr(type(self._file), "sync_data", again)
            original(self, draft, runs, checksums)

    original = Wal._put
    patch.setattr(Wal, "_put", put)


@plant("fail_sync", "reboot", found_as=(TRUTH, "what was stored can be used"))
def what_a_failed_sync_left_is_not_written_anew(patch: pytest.MonkeyPatch) -> None:
    """faults 55: the system's cache calls it clean."""
    patch.setattr(Wal, "_settle", lambda self, found: [])


@plant("wipe", found_as=("an emptied node takes no part",))
def a_second_incarnation_is_taken_for_the_first(patch: pytest.MonkeyPatch) -> None:
    """faults 31"""
    patch.setattr(
        Formation,
        "_lists_me",
        lambda self, said: self.me.id in dict(said.initial_members),
    )


@plant("wipe", "flap", found_as=("one cluster id", "an emptied node takes no part"))
def a_cluster_votes_as_soon_as_one_node_has_heard_all(patch: pytest.MonkeyPatch) -> None:
    """faults 31: the second step of forming is left out."""
    patch.setattr(Formation, "_everybody_stored", lambda self: True)


@plant("die_at_the_disk", "crash_one", found_as=("a cluster forms", "an emptied node takes no part"))
def a_node_introduces_itself_before_its_identity_is_stored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(IdentityFile, "_create", classmethod(lambda cls, directory, identity: cls(directory, identity)))


@plant("reboot", "crash_all", found_as=("a cluster forms", "an emptied node takes no part", "sound nodes take part"))
def an_identity_is_not_synced(patch: pytest.MonkeyPatch) -> None:
    def replaced(directory, data):
        with patch.context() as unsynced:
            unsynced.setattr(type(directory), "sync", lambda _: None)
            original(directory, data)

    original = identities._replace
    patch.setattr(identities, "_replace", replaced)


@plant("fill_disk", found_as=("a full disk takes no puts",))
def a_full_disk_takes_everything(patch: pytest.MonkeyPatch) -> None:
    """faults 56"""

    def why_not_now(self, command_bytes, *, frees_space):
        why = original(self, command_bytes, frees_space=frees_space)
        return None if why is Why.DISK_FULL else why

    original = Replica._why_not_now
    patch.setattr(Replica, "_why_not_now", why_not_now)


@plant("stranger", found_as=("strangers are refused", "strangers move no term"))
def anybody_is_heard(patch: pytest.MonkeyPatch) -> None:
    """faults 19, 32"""
    patch.setattr(raft.Raft, "_prove_address", lambda self, envelope: None)


@plant(found_as=("a write needs no other after it",))
def what_was_lost_waits_for_something_new(patch: pytest.MonkeyPatch) -> None:
    """faults 63"""

    def append_failed(state, peer):
        if state.office is not None:
            progress = state.office.progress[peer]
            progress.probe_from(progress.next_index)
            progress.blocked_until_us = state.now_us + state.settings.heartbeat_us

    patch.setattr(replication, "append_failed", append_failed)
    patch.setattr(replication, "_ask_where_it_is", lambda *_: False)


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    planted = PLANTED[plant]
    failure: Any = first_failure(range(SEEDS_MAX), *planted.kinds)
    assert failure is not None
    assert isinstance(failure.cause, Violated), failure
    assert failure.cause.name in planted.found_as, failure
