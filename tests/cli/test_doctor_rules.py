"""What the doctor says first, case by case: a table from evidence to the line that names the cause."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from raftkv.cli.diagnosis import evidence as vocabulary
from raftkv.cli.diagnosis.diagnose import diagnose
from raftkv.cli.diagnosis.evidence import (
    Asked,
    Candidate,
    Evidence,
    Formation,
    Member,
    Reach,
    Reason,
    Settings,
    View,
)
from raftkv.cli.main import main
from tests.cli.clusters import (
    THEIRS,
    change,
    changes,
    cut,
    disk,
    farewell,
    gone,
    healthy,
    link,
    links_to,
    outages,
    refused,
    stalls,
    unformed,
    url_of,
)

_BLOCKS = (Path(__file__).parent / "doctor_first_lines.txt").read_text().strip().split("\n\n")
FIRST_LINES = {name: line.strip() for name, line in (block.split("\n", 1) for block in _BLOCKS)}
WELL, LEADERLESS = healthy(), healthy(leader=None)
SILENT: dict[str, Any] = {"reach": Reach.SILENT, "detail": "timed out"}
TIMED_OUT: dict[str, Any] = {"reach": Reach.TIMED_OUT, "detail": "timed out"}
GONE_TEXT = "n3's data is gone; run raftkv member replace n3"
EMPTIED = change(
    WELL, "n3", cluster_id=None, term=0, state_hash=None, disk=None, formation=Formation(False, ("n1",), GONE_TEXT)
)
THEIR_N2 = change(healthy(1, leader="n1", cluster_id=THEIRS), "n1", id="n2", url=url_of("n2"))[0]


NO_ROOM = "write of /data/snapshot.new failed: No space left on device"
NONE_HERE = "n2 takes only peers that share its secret, and this node has none: --peer-secret-file"
NONE_THERE = "n3 has no peer secret, and this node has one: give it --peer-secret-file"
REACHED: dict[str, Any] = {"connected": True, "answer_age_ms": 50, "trouble": None}
ALL_WAIT = {"n1": ("n3",), "n2": ("n3",), "n3": ("n1", "n2")}
STRANGER = healthy(1, leader="m1", cluster_id=THEIRS, prefix="m")[0]
STRANGER_AMONG_UNFORMED = (
    *unformed("n1", "n2", waits_for={"n1": ("n3",), "n2": ("n3",)})[:2],
    replace(STRANGER, url=url_of("n3")),
)
LEARNER = change(
    WELL, "n1", members=(*[Member(f"n{i}", url_of(f"n{i}")) for i in (1, 2, 3)], Member("n4", None, "learner"))
)


def far(evidence: Evidence, *ids: str) -> Evidence:
    """The same, but these cannot be reached from here, and their peers reach them."""
    for id in ids:
        evidence = links_to(gone(evidence, id, **TIMED_OUT), id, **REACHED)
    return evidence


def nowhere(evidence: Evidence, *ids: str) -> Evidence:
    """The same, but nobody knows where these are, nor reaches them."""
    left = tuple(asked for asked in gone(evidence, *ids) if asked.view is not None)
    for asked in left:
        assert asked.view is not None
        members = tuple(replace(each, url=None) if each.id in ids else each for each in asked.view.members)
        left = change(left, asked.view.id, members=members)
    return left


def twin(asked: Asked, url: str, **fields: Any) -> Asked:
    """The same id of the same cluster, elsewhere."""
    assert asked.view is not None
    return replace(asked, url=url, view=replace(asked.view, **fields))


def wrong(evidence: Evidence, id: str) -> Evidence:
    """The same, but that one was told that its state is wrong; the others lead and serve."""
    reason = Reason("replicas_disagree", "this node's state differs from the majority's at log index 1024")
    return change(evidence, id, state_hash="bb" * 16, unready=(reason,))


def newcomer(id: str, other: str) -> Asked:
    """A node that was started with a list of itself and that other one, and has formed nothing."""
    (asked,) = unformed("n1", waits_for={"n1": (other,)})[:1]
    assert asked.view is not None
    members = (Member(id, url_of(id)), Member(other, url_of(other)))
    return replace(asked, url=url_of(id), view=replace(asked.view, id=id, members=members, links=()))


def at_clock(evidence: Evidence, id: str, ahead_ms: float) -> Evidence:
    """The same, but that one's clock is wrong."""
    return tuple(replace(asked, clock_ahead_ms=ahead_ms) if asked.id == id else asked for asked in evidence)


def emptied(evidence: Evidence, id: str) -> Evidence:
    """The same, but that one came back without its data."""
    text = f"{id}'s data is gone; and what to do"
    formation = Formation(False, ("n1",), text)
    return change(evidence, id, cluster_id=None, term=0, state_hash=None, disk=None, formation=formation)


def in_place_of_n2(stranger: Asked) -> Evidence:
    return (WELL[0], replace(stranger, url=url_of("n2")), WELL[2])


CASES: dict[str, tuple[Evidence, int]] = {
    "all is well": (WELL, 0),
    "no process": (gone(WELL, "n3"), 4),
    "a process that ended by itself": (
        farewell(gone(WELL, "n3"), "n3", "its disk failed: fdatasync of log failed: Input/output error"),
        4,
    ),
    "a process that was stopped": (farewell(gone(WELL, "n3"), "n3", "it was told to stop"), 4),
    "a paused process": (gone(WELL, "n3", **SILENT), 4),
    "a process that was paused a moment ago": (links_to(gone(WELL, "n3", **SILENT), "n3", **REACHED), 4),
    "a paused process of this machine that is asked by many": (
        gone(WELL, "n3", **TIMED_OUT, process_state="stopped", pid=4711),
        4,
    ),
    "a paused process of this machine": (gone(WELL, "n3", **SILENT, process_state="stopped", pid=4711), 4),
    "a machine that is down": (gone(WELL, "n3", **TIMED_OUT), 4),
    "a machine that only others reach": (
        links_to(gone(WELL, "n3", **TIMED_OUT), "n3", connected=True, answer_age_ms=50, trouble=None),
        4,
    ),
    "a name that nobody knows": (gone(WELL, "n3", reach=Reach.UNREACHABLE, detail="Name or service not known"), 4),
    "something else answers": (gone(WELL, "n3", reach=Reach.STRANGE, detail="it answers 404"), 4),
    "nobody runs": (gone(WELL, "n1", "n2", "n3"), 3),
    "nobody answers": (gone(gone(WELL, "n1"), "n2", "n3", **SILENT), 3),
    "a process that was killed a moment ago": (
        links_to(gone(WELL, "n3"), "n3", connected=False, answer_age_ms=200, trouble="connection lost"),
        4,
    ),
    "a port that is closed to us only": (links_to(gone(WELL, "n3"), "n3", **REACHED), 4),
    "one node is reachable from here": (far(healthy(leader="n2"), "n2", "n3"), 4),
    "one node is reachable, and another is dead": (
        links_to(gone(far(healthy(5, leader="n2"), "n2", "n3", "n4"), "n5"), "n2", **REACHED),
        4,
    ),
    "members whose addresses nobody knows": (nowhere(LEADERLESS, "n2", "n3"), 4),
    "an endpoint that is nobody's": (
        (*WELL, Asked("http://n7.test:7401", Reach.REFUSED, None, None, "Connection refused")),
        4,
    ),
    "an endpoint that may be a member's": (
        (*nowhere(WELL, "n3"), Asked("http://tunnel.test:7401", Reach.REFUSED, None, None, "Connection refused")),
        4,
    ),
    "an endpoint of something else": (
        (*WELL, Asked("http://n7.test:2379", Reach.STRANGE, None, None, "it answers 404")),
        4,
    ),
    "two processes with one id": ((*WELL, twin(WELL[1], "http://copy.test:7401", uptime_ms=5_000)), 4),
    "the majority is down": (gone(LEADERLESS, "n2", "n3"), 4),
    "the majority is down in two ways": (gone(gone(healthy(5, leader=None), "n2", "n4"), "n3", **SILENT), 4),
    "disks of a majority hang": (disk(WELL, "n2", "n3", oldest_wait_ms=12_000), 4),
    "one down, another's disk hangs": (disk(gone(LEADERLESS, "n3"), "n2", oldest_wait_ms=5_000), 4),
    "one down, another emptied": (
        gone(change(change(EMPTIED, "n1", role="follower", leader_id=None), "n2", leader_id=None), "n2"),
        4,
    ),
    "every link is cut": (cut(LEADERLESS, "n1-n2", "n1-n3", "n2-n3"), 4),
    "links that leave nobody a majority": (
        cut(healthy(5, leader=None), "n1-n3", "n1-n4", "n1-n5", "n2-n3", "n2-n4", "n2-n5", "n3-n4", "n4-n5", "n5-n3"),
        4,
    ),
    "an election is under way": (
        change(change(LEADERLESS, "n2", role="candidate"), "n1", candidates=(Candidate("n2", 5, True, 200),)),
        4,
    ),
    "never formed": (unformed("n1", "n2", waits_for={"n1": ("n3",), "n2": ("n3",)}), 4),
    "never formed, though all run": (
        cut(unformed("n1", "n2", "n3", waits_for={"n1": ("n3",), "n3": ("n1",)}), "n1-n3"),
        4,
    ),
    "never formed, for want of a secret": (
        refused(unformed("n1", "n2", "n3", waits_for=ALL_WAIT), "n1", "n3", "unauthorized", NONE_THERE),
        4,
    ),
    "never formed, and a stranger in one's place": (STRANGER_AMONG_UNFORMED, 4),
    "a node that a formed cluster does not list": ((*WELL, newcomer("n9", "n1")), 4),
    "a node that the one node of a cluster does not list": ((newcomer("n9", "n1"), healthy(1)[0]), 4),
    "nodes that are to form another cluster": (
        (newcomer("n8", "n9"), newcomer("n9", "n8"), healthy(1)[0]),
        4,
    ),
    "lists that differ": (
        change(
            unformed("n1", "n2", "n3", waits_for={}, problem="n3 was started with another --initial-cluster (n3)"),
            "n1",
            formation=Formation(False, (), "n2 was started with another --initial-cluster (n2)"),
        ),
        4,
    ),
    "an emptied node": (EMPTIED, 4),
    "an emptied node that only others tell of": (
        change(gone(WELL, "n3"), "n1", formation=Formation(True, complaint=GONE_TEXT)),
        4,
    ),
    "another cluster's node of the same id": (in_place_of_n2(THEIR_N2), 4),
    "another cluster's node of another id": (
        in_place_of_n2(healthy(1, leader="m1", cluster_id=THEIRS, prefix="m")[0]),
        4,
    ),
    "endpoints of two clusters": ((*WELL, *healthy(1, leader="m1", cluster_id=THEIRS, prefix="m")), 4),
    "another secret": (
        refused(
            refused(WELL, "n1", "n3", "forbidden", "n3 does not have the same peer secret"),
            "n3",
            "n2",
            "forbidden",
            "…",
        ),
        4,
    ),
    "no secret at one": (
        refused(refused(WELL, "n1", "n3", "unauthorized", NONE_THERE), "n3", "n2", "unauthorized", NONE_HERE),
        4,
    ),
    "a secret at one only": (
        refused(refused(WELL, "n1", "n3", "unauthorized", NONE_HERE), "n3", "n2", "unauthorized", NONE_THERE),
        4,
    ),
    "a secret of each one's own": (
        refused(
            refused(refused(WELL, "n1", "n3", "forbidden", "…"), "n1", "n2", "forbidden", "…"),
            "n2",
            "n3",
            "forbidden",
            "…",
        ),
        4,
    ),
    "another secret of two": (refused(healthy(2), "n1", "n2", "forbidden", "…"), 4),
    "a link cut both ways": (cut(WELL, "n2-n3"), 4),
    "a link cut one way": (cut(WELL, "n1>n3"), 4),
    "two links cut": (cut(healthy(5), "n2-n3", "n4>n5"), 4),
    "a node without links": (cut(WELL, "n1-n3", "n2-n3"), 4),
    "a link that comes and goes": (outages(WELL, "n2-n3", count=3), 4),
    "a node whose links come and go": (outages(WELL, "n1-n3", "n2-n3", count=4), 4),
    "a link that comes and goes, and stalls at other times": (
        stalls(stalls(outages(WELL, "n2-n3", count=3), "n2", 900, age_ms=55_000), "n3", 900, age_ms=1_000),
        4,
    ),
    "a disk that hangs": (disk(WELL, "n2", oldest_wait_ms=12_300), 4),
    "a full disk of a follower": (disk(WELL, "n2", room_is_short=True, free_bytes=0), 4),
    "a full disk of the leader": (disk(WELL, "n1", room_is_short=True, free_bytes=0), 4),
    "a disk without room for a snapshot": (disk(WELL, "n2", snapshot_failure=NO_ROOM, log_bytes=9 * 2**30), 4),
    "no room for one that is sent": (disk(WELL, "n2", snapshot_failure="a piece of a snapshot was not stored"), 4),
    "a slow disk": (disk(WELL, "n2", sync_p50_us=104_000, sync_p99_us=140_000), 4),
    "a disk that is slow now and then": (disk(WELL, "n2", syncs_count=400, sync_p99_us=900_000), 4),
    "a node that halted": (change(WELL, "n2", dead_because="the thread that writes the log has ended"), 4),
    "a loop that stands still for long": (
        link(
            stalls(WELL, "n2", 3_000, 3_000, 3_000, age_ms=900),
            "n1",
            "n2",
            answer_age_ms=4_000,
            trouble="no answer within 1 s",
        ),
        4,
    ),
    "a loop that stands still": (stalls(WELL, "n2", 500, 1_200, 700), 4),
    "leadership that changes, and stalls": (
        change(
            stalls(WELL, "n1", 1_200),
            "n2",
            leadership=changes(
                (1, "became_leader", ""),
                (2, "follows", "n2: follows n1 in term 2"),
                (3, "became_leader", ""),
                (4, "follows", "n2: follows n1 in term 4"),
            ),
        ),
        4,
    ),
    "leadership that changes for nothing": (
        change(WELL, "n2", leadership=changes(*[(term, "became_leader", "") for term in range(1, 6)])),
        4,
    ),
    "leadership that changes, and a link": (
        change(
            outages(WELL, "n1-n2", count=2),
            "n2",
            leadership=changes(*[(term, "became_leader", "") for term in range(1, 6)]),
        ),
        4,
    ),
    "leadership that changes, and a disk": (
        change(
            WELL,
            "n2",
            leadership=changes(
                *[(term, "became_leader", "") for term in range(1, 6)], (5, "disk_stalled", "n2: its disk …")
            ),
        ),
        4,
    ),
    "a follower that lags": (change(WELL, "n1", commit_index=30_000), 4),
    "a follower that is stale": (change(WELL, "n3", staleness_ms=9_000), 4),
    "a state that is wrong": (wrong(WELL, "n3"), 4),
    "a leader's state that was wrong": (wrong(LEADERLESS, "n1"), 4),
    "states that differ, and nobody knows which is right": (gone(change(WELL, "n2", state_hash="bb" * 16), "n3"), 4),
    "states that differ": (change(WELL, "n3", state_hash="bb" * 16), 4),
    "states that differ by the leader's word": (
        change(change(WELL, "n1", disagreeing=("n2",)), "n2", applied_index=1199),
        4,
    ),
    "settings that differ": (change(WELL, "n3", settings=Settings(300, 150, None)), 4),
    "leases here and not there": (change(WELL, "n3", settings=Settings(300, 100, True)), 4),
    "a clock that is wrong": (
        at_clock(WELL, "n2", -5_000.0),
        4,
    ),
    "a clock that is wrong, of two": (
        at_clock(healthy(2), "n1", 9_000.0),
        4,
    ),
    "not ready": (
        change(
            WELL, "n3", unready=(Reason("too_stale", "this node has not yet applied what its leader has committed"),)
        ),
        4,
    ),
    "a peer that refuses": (refused(WELL, "n1", "n3", "bad_request", "it is too hot"), 4),
    "a peer of another version that refuses": (
        change(refused(WELL, "n1", "n3", "bad_request", "unknown version 2"), "n1", version="0.2.0"),
        4,
    ),
    "one voter": (healthy(1), 0),
    "an even number of voters": (healthy(4), 0),
    "versions that differ": (change(WELL, "n2", version="0.2.0"), 0),
    "a learner whose address nobody knows": (LEARNER, 0),
}


@pytest.mark.parametrize("name", CASES)
def test_the_first_line_names_the_cause(name: str) -> None:
    evidence, exit_code = CASES[name]
    diagnosis = diagnose(evidence)
    assert diagnosis.findings[0].headline == FIRST_LINES[name]
    assert diagnosis.exit_code == exit_code


def test_every_case_has_its_line_and_every_line_its_case() -> None:
    assert list(FIRST_LINES) == list(CASES)


def test_every_name_of_a_finding_stands_for_one_thing() -> None:
    """Programs go by names; every wrong finding says what to do."""
    found = [finding for evidence, _ in CASES.values() for finding in diagnose(evidence).findings]
    assert {finding.name for finding in found if finding.is_wrong and not finding.do} == set()
    assert all(finding.headline.endswith((".", "….")) and "\n" not in finding.headline for finding in found)


ONE_A_SECOND = changes(*[(term, "became_leader", "") for term in range(9)])
WORSE_FIRST = [
    (
        "a cut link explains a node without a leader",
        cut(WELL, "n1-n3"),
        {"n3": {"leader_id": None, "unready": (Reason("no_leader", "no leader"),)}},
    ),
    (
        "a disk that hangs explains a lag",
        disk(WELL, "n2", oldest_wait_ms=9_000),
        {"n2": {"applied_index": 1, "staleness_ms": 60_000}},
    ),
    ("a node that is gone explains changes of leadership", gone(WELL, "n3"), {"n1": {"leadership": ONE_A_SECOND}}),
]


@pytest.mark.parametrize(
    ("evidence", "symptoms"), [row[1:] for row in WORSE_FIRST], ids=[row[0] for row in WORSE_FIRST]
)
def test_causes_come_before_symptoms(evidence: Evidence, symptoms: dict[str, dict[str, Any]]) -> None:
    before = diagnose(evidence).findings[0].headline
    for id, fields_ in symptoms.items():
        evidence = change(evidence, id, **fields_)
    after = diagnose(evidence).findings
    assert after[0].headline == before
    assert "not_ready" not in [finding.name for finding in after] and "lag" not in [finding.name for finding in after]


TWO_AT_ONCE = {
    "a killed node and a wrong clock": (gone(at_clock(WELL, "n1", 9_000), "n3"), "node_refused"),
    "a full disk and an endpoint that is nobody's": (
        (*disk(WELL, "n2", room_is_short=True), Asked("http://n7.test:1", Reach.REFUSED, None, None, "refused")),
        "disk_full",
    ),
    "a hanging disk, and all the rest out of reach": (
        far(disk(healthy(5), "n1", oldest_wait_ms=9_000), "n4", "n5"),
        "disk_hangs",
    ),
    "a paused node and a link that is cut elsewhere": (cut(gone(healthy(5), "n5", **SILENT), "n1-n2"), "node_silent"),
    "a hanging disk and leadership that changes": (
        change(disk(WELL, "n1", oldest_wait_ms=9_000), "n2", leadership=ONE_A_SECOND),
        "disk_hangs",
    ),
    "a cut link and leadership that changes": (change(cut(WELL, "n1-n2"), "n3", leadership=ONE_A_SECOND), "link_cut"),
    "a link that flaps and leadership that changes": (
        change(outages(WELL, "n1-n2", count=3), "n3", leadership=ONE_A_SECOND),
        "link_flaps",
    ),
    "a link that flaps and a disk that hangs": (
        disk(outages(WELL, "n1-n2", count=3), "n3", oldest_wait_ms=9_000),
        "disk_hangs",
    ),
    "a slow disk and leadership that changes": (
        change(disk(WELL, "n1", sync_p50_us=600_000), "n2", leadership=ONE_A_SECOND),
        "disk_slow",
    ),
    "stalls and leadership that changes": (
        change(stalls(WELL, "n1", 900, 900, 900), "n2", leadership=ONE_A_SECOND),
        "loop_stalls",
    ),
    "another secret and a node that is down": (
        refused(gone(healthy(5), "n5"), "n1", "n3", "forbidden", "…"),
        "secrets_differ",
    ),
    "a wrong state and no majority": (gone(wrong(LEADERLESS, "n1"), "n2", "n3"), "state_is_wrong"),
    "no majority, and settings that differ": (
        gone(change(healthy(5, leader=None), "n1", settings=Settings(600, 100, None)), "n3", "n4", "n5"),
        "no_majority",
    ),
    "an emptied node and one that is down": (gone(emptied(healthy(5), "n3"), "n5"), "data_gone"),
    "an emptied node and no majority": (gone(emptied(LEADERLESS, "n3"), "n2"), "no_majority"),
    "two processes with one id, and one that is down": (
        (*gone(WELL, "n3"), twin(WELL[1], "http://copy.test:7401", uptime_ms=5_000)),
        "twins",
    ),
}


@pytest.mark.parametrize(("evidence", "name"), TWO_AT_ONCE.values(), ids=list(TWO_AT_ONCE))
def test_of_two_faults_that_which_explains_more_comes_first(evidence: Evidence, name: str) -> None:
    diagnosis = diagnose(evidence)
    assert [finding.name for finding in diagnosis.findings][:1] == [name]
    assert diagnosis.exit_code == 4


@pytest.mark.parametrize("evidence", [gone(LEADERLESS, "n2", "n3"), gone(emptied(LEADERLESS, "n3"), "n2")])
def test_where_no_majority_is_left_the_last_resort_comes_last(evidence: Evidence) -> None:
    (finding,) = [each for each in diagnose(evidence).findings if each.name == "no_majority"]
    assert ["raftkv recover" in line for line in finding.do] == [*[False] * (len(finding.do) - 1), True]


NINE = healthy(9)
BY_WEIGHT: dict[str, Callable[[Evidence], Evidence]] = {
    "state_is_wrong": lambda all_: wrong(all_, "n2"),
    "twins": lambda all_: (*all_, twin(all_[0], "http://copy.test:7401", uptime_ms=5_000)),
    "data_gone": lambda all_: emptied(all_, "n3"),
    "secrets_differ": lambda all_: refused(all_, "n1", "n4", "forbidden", "…"),
    "node_failed": lambda all_: change(all_, "n5", dead_because="the thread that writes the log has ended"),
    "node_refused": lambda all_: gone(all_, "n9"),
    "disk_hangs": lambda all_: disk(all_, "n6", oldest_wait_ms=9_000),
    "disk_full": lambda all_: disk(all_, "n7", room_is_short=True),
    "link_cut": lambda all_: cut(all_, "n1-n8"),
    "link_flaps": lambda all_: outages(all_, "n2-n3", count=4),
    "disk_slow": lambda all_: disk(all_, "n4", sync_p50_us=90_000),
    "loop_stalls": lambda all_: stalls(all_, "n5", 900, 900, 900),
    "lag": lambda all_: change(all_, "n6", staleness_ms=9_000),
    "no_snapshots": lambda all_: disk(all_, "n1", snapshot_failure=NO_ROOM),
    "leadership_changes": lambda all_: change(all_, "n7", leadership=ONE_A_SECOND),
    "out_of_reach": lambda all_: far(all_, "n8"),
    "settings_differ": lambda all_: change(all_, "n3", settings=Settings(600, 100, None)),
    "not_ready": lambda all_: change(all_, "n4", unready=(Reason("catching_up", "not there yet"),)),
    "wrong_endpoint": lambda all_: (*all_, Asked("http://n0.test:1", Reach.REFUSED, None, None, "refused")),
    "clocks_differ": lambda all_: at_clock(all_, "n5", 9_000),
}
"""One fault each, on nodes that the next does not touch: that which explains most comes first."""


@pytest.mark.parametrize(("first", "second"), list(pairwise(BY_WEIGHT)))
def test_of_two_neighbours_in_weight_the_heavier_comes_first(first: str, second: str) -> None:
    evidence = BY_WEIGHT[first](BY_WEIGHT[second](NINE))
    assert [finding.name for finding in diagnose(evidence).findings if finding.is_wrong] == [first, second]


def test_every_command_of_ours_that_is_advised_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    """What the doctor tells a person to type exists, with the words and options that it is given."""
    here = tuple(replace(asked, log="raftkv-data/n.log", pid=4711) for asked in gone(wrong(WELL, "n1"), "n3"))
    evidence = [here, *(row[0] for row in (*CASES.values(), *TWO_AT_ONCE.values()))]
    told = [line for each in evidence for finding in diagnose(each).findings for line in finding.do]
    commands = {words for line in told for words in re.findall(r"`raftkv ([^`]+)`", line)}
    assert commands >= {"doctor", "leader transfer", "cluster up --detach"}
    for words in commands:
        assert main([*words.split(), "--help"]) == 0, words
        assert "Usage" in capsys.readouterr().out


NOTICES = [
    (healthy(1), "one_voter"),
    (healthy(4), "even_voters"),
    (change(WELL, "n2", version="0.2.0"), "versions_differ"),
    (stalls(WELL, "n2", 700), "loop_stalled"),
    (disk(WELL, "n2", free_bytes=1_000_000), "little_room"),
]


@pytest.mark.parametrize(("evidence", "name"), NOTICES, ids=[name for _, name in NOTICES])
def test_what_is_only_worth_knowing_leaves_all_well(evidence: Evidence, name: str) -> None:
    diagnosis = diagnose(evidence)
    assert [finding.name for finding in diagnosis.findings] == ["all_is_well", name]
    assert diagnosis.findings[0].headline.startswith("All is well")
    assert diagnosis.exit_code == 0


QUIET = [
    ("a link that was tried a moment ago", link(WELL, "n1", "n3", connected=False, trouble="connection lost")),
    ("a node that has just been started", cut(change(WELL, "n3", uptime_ms=500), "n1>n3")),
    ("a link that is idle and has no trouble", link(WELL, "n2", "n3", answer_age_ms=2_000)),
    ("a node at two addresses", (*WELL, twin(WELL[1], "http://localhost:7401"))),
    (
        "a link that is not yet well after its end stood still",
        link(stalls(WELL, "n2", 3_000, age_ms=900), "n1", "n2", answer_age_ms=4_500, trouble="no answer within 1 s"),
    ),
    (
        "a complaint about a node that has its data again",
        change(WELL, "n1", formation=Formation(True, complaint=GONE_TEXT)),
    ),
    ("a refusal of long ago", link(WELL, "n1", "n3", refusal=replace(vocabulary.Refusal("forbidden"), age_ms=60_000))),
    ("a link that was cut twice", outages(WELL, "n1-n2", count=2)),
    (
        "outages while a node stood still",
        outages(stalls(WELL, "n2", 30_000, age_ms=4_000), "n1-n2", count=3, duration_ms=4_000),
    ),
    ("outages of long ago", outages(WELL, "n1-n2", count=3, age_ms=60_000)),
    ("outages before a node was started", change(outages(WELL, "n1-n2", count=3), "n2", uptime_ms=6_500)),
    ("two changes of leadership", change(WELL, "n1", leadership=ONE_A_SECOND[:3])),
    (
        "changes of leadership of yesterday",
        change(WELL, "n1", leadership=tuple(replace(each, age_ms=10**8) for each in ONE_A_SECOND)),
    ),
    ("one slow sync of a few", disk(WELL, "n2", sync_p99_us=900_000)),
    ("two slow syncs", disk(WELL, "n2", syncs_count=2, sync_p50_us=90_000)),
    ("a write that has just begun", disk(WELL, "n2", oldest_wait_ms=300)),
    ("a few entries behind", change(WELL, "n1", commit_index=2_000)),
    ("states at different indexes", change(WELL, "n3", state_hash="bb" * 16, applied_index=1_199)),
]


@pytest.mark.parametrize("evidence", [row[1] for row in QUIET], ids=[row[0] for row in QUIET])
def test_what_passes_by_itself_wakes_nobody(evidence: Evidence) -> None:
    assert diagnose(evidence).exit_code == 0


def test_each_trouble_is_told_once() -> None:
    told = diagnose(cut(outages(WELL, "n1-n2", count=4), "n1-n2"))
    assert [finding.name for finding in told.findings] == ["link_cut"]
    told = diagnose(at_clock(gone(WELL, "n3"), "n1", -9_000.0))
    assert [finding.headline for finding in told.findings][1:] == ["n1's wall clock is 9.0 s behind n2's."]


def test_who_leads_is_known_by_the_word_of_others() -> None:
    (finding,) = diagnose(far(healthy(leader="n2"), "n2", "n3")).findings
    assert finding.seen == ("n2 leads, by the word of n1: the cluster serves",)
    (finding,) = diagnose(far(WELL, "n2", "n3")).findings
    assert finding.seen == ("n1 leads: the cluster serves",)


def test_nothing_is_said_to_work_where_nobody_leads() -> None:
    """n3 is refused and n1 is gone: two are there, and cannot make a majority together."""
    others = "n3 does not have the same peer secret"
    evidence = refused(refused(gone(LEADERLESS, "n1"), "n2", "n3", "unauthenticated", others), "n3", "n2", "x", others)
    evidence = link(evidence, "n3", "n1", answer_age_ms=None)
    told = [line for finding in diagnose(evidence).findings for line in finding.seen]
    assert not [line for line in told if "one more lost" in line]
    assert "2 of 3 voters run, but nobody leads: nothing is served" in told
    assert "n3 never had an answer (connection refused)" in told


def test_evidence_of_no_cluster_at_all_is_borne() -> None:
    assert diagnose(()).exit_code == 3
    bare = View(id="n1")
    assert diagnose((Asked("http://n1.test:7401", Reach.ANSWERS, None, bare),)).findings


def test_a_member_that_is_down_is_called_by_its_name_though_it_was_asked_by_url() -> None:
    nameless = tuple(replace(asked, name=None) for asked in gone(WELL, "n3"))
    assert diagnose(nameless).findings[0].headline.startswith("n3 does not run")
