"""What the doctor says of members that come and go: a table from evidence to the line that names the cause."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from raftkv.cli.diagnosis.diagnose import diagnose
from raftkv.cli.diagnosis.evidence import (
    Asked,
    Evidence,
    Formation,
    Joining,
    Member,
    MembersChange,
    Reach,
    Reason,
    View,
)
from raftkv.cli.main import main
from tests.cli.clusters import change, cut, gone, healthy, url_of

WELL = healthy()
CATCHING_UP = MembersChange("catching_up", (Joining("n10", 7),), remaining_ms=200_000, last_index=1200, age_ms=9_000)
JOINT = MembersChange("joint", (), ("n3",), age_ms=30_000)


def left(id: str) -> Evidence:
    """Four nodes run, and that one knows itself to be no member any more."""
    why = (Reason("no_leader", "this node was removed from the cluster"),)
    evidence = change(healthy(4), id, removed_at=1100, role="learner", unready=why)
    for asked in evidence:
        assert asked.view is not None
        members = tuple(member for member in asked.view.members if member.id != id)
        evidence = change(evidence, asked.view.id, members=members)
    return evidence


def waiting() -> Evidence:
    """Three that are well, and a fourth that was started to join them."""
    view = View(
        id="n4",
        url=url_of("n4"),
        version="0.1.0",
        members=(Member("n4", url_of("n4")),),
        unready=(Reason("no_leader", "this node waits to be let into the cluster: n1 says: no"),),
        formation=Formation(False, (), None, None, joins=True),
    )
    return (*WELL, Asked(url_of("n4"), Reach.ANSWERS, None, view))


ANSWERING = replace(CATCHING_UP, joining=(Joining("n9", 7),))
CASES: list[tuple[Evidence, str, int, str]] = [
    (
        change(WELL, "n1", change=CATCHING_UP),
        "does_not_catch_up",
        4,
        "n10 does not catch up, so it does not vote yet: n1, which leads, has no answer from it.",
    ),
    (
        change(healthy(9), "n1", change=replace(ANSWERING, age_ms=90_000)),
        "does_not_catch_up",
        4,
        "n9 does not catch up, so it does not vote yet: n1, which leads, has been sending it the log for 90 s.",
    ),
    (
        change(WELL, "n2", change=JOINT),
        "change_hangs",
        4,
        "A change of members has been hanging for 30 s: all voters answer.",
    ),
    (
        change(healthy(5), "n2", change=replace(JOINT, phase="leaving")),
        "change_hangs",
        4,
        "A change of members has been hanging for 30 s: all voters answer.",
    ),
    (left("n2"), "was_removed", 0, "n2 was removed from the cluster, and still runs: it serves nobody."),
    (waiting(), "waits_outside", 4, "n4 waits to be let into the cluster: it was started with --join."),
]


@pytest.mark.parametrize(("evidence", "name", "code", "headline"), CASES, ids=[row[1] for row in CASES])
def test_who_comes_and_who_has_gone_is_told(evidence: Evidence, name: str, code: int, headline: str) -> None:
    diagnosis = diagnose(evidence)
    told = [finding for finding in diagnosis.findings if finding.name != "all_is_well"]
    assert [(finding.name, finding.headline) for finding in told] == [(name, headline)]
    assert diagnosis.exit_code == code


QUIET: list[tuple[str, Any]] = [
    ("just begun", change(WELL, "n1", change=replace(CATCHING_UP, age_ms=3_000))),
    ("it answers", change(healthy(9), "n1", change=ANSWERING)),
    ("joint for a moment", change(WELL, "n1", change=replace(JOINT, age_ms=2_000))),
    ("as a follower sees it", change(WELL, "n2", change=replace(CATCHING_UP, age_ms=90_000))),
]


@pytest.mark.parametrize("evidence", [row[1] for row in QUIET], ids=[row[0] for row in QUIET])
def test_a_change_that_takes_its_time_wakes_nobody(evidence: Evidence) -> None:
    assert diagnose(evidence).exit_code == 0


def test_a_change_that_hangs_for_voters_that_are_gone_is_told_by_those() -> None:
    diagnosis = diagnose(gone(change(healthy(5, leader=None), "n2", change=JOINT), "n3", "n4", "n5"))
    assert diagnosis.wrong[0].name == "no_majority"
    assert "change_hangs" not in [finding.name for finding in diagnosis.findings]


def test_a_node_that_was_removed_is_looked_at_by_no_other_rule() -> None:
    """Its leader is unknown, it lags, its links are closed: all that is as it should be."""
    late = change(left("n4"), "n4", staleness_ms=10**6, leader_id=None, commit_index=1, applied_index=1)
    diagnosis = diagnose(cut(late, "n1-n4"))
    assert diagnosis.exit_code == 0
    assert "`raftkv member add n4 http://n4.test:7401`" in diagnosis.findings[-1].do[1]


def test_an_emptied_member_can_be_replaced() -> None:
    text = "n3's data is gone; run raftkv member replace n3"
    formation = Formation(False, (), text, None, joins=True)
    emptied = change(WELL, "n3", cluster_id=None, term=0, state_hash=None, disk=None, formation=formation)
    (finding,) = diagnose(emptied).wrong
    assert finding.name == "data_gone"
    assert "`raftkv member replace n3`" in finding.do[1] and "--join" in finding.do[1]


def test_what_is_advised_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    told = [line for row in CASES for finding in diagnose(row[0]).findings for line in finding.do]
    commands = {words for line in told for words in re.findall(r"`raftkv ([^`]+)`", line)}
    assert {words.split()[1] for words in commands} == {"add", "list", "remove"}
    for words in commands:
        assert main([*words.split(), "--help"]) == 0, words
        assert "Usage" in capsys.readouterr().out
