"""What a node's view is read from, and the words that findings are told in."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

import pytest

from raftkv.api import reports
from raftkv.cli.diagnosis import evidence as vocabulary
from raftkv.cli.diagnosis.evidence import NotAView, View, read_view
from raftkv.cli.diagnosis.finding import Weight, ago, listed, span
from tests.cli.clusters import OURS, THEIRS

PAIRS = {
    "Diagnostics": "View", "MemberReport": "Member", "RefusalReport": "Refusal", "FarewellReport": "Farewell",
    "LinkReport": "Link", "CandidateReport": "Candidate", "DiskReport": "Disk", "ChangeReport": "Change",
    "StallReport": "Stall", "LoopReport": "Loop", "FormationReport": "Formation", "SettingsReport": "Settings",
    "ReasonReport": "Reason", "OutageReport": "Outage", "JoiningReport": "Joining",
    "MembersChangeReport": "MembersChange",
}  # fmt: skip


def test_the_doctor_reads_every_field_that_a_node_tells() -> None:
    told = {name for name, kind in vars(reports).items() if is_dataclass(kind)}
    assert told == set(PAIRS)
    for theirs, ours in PAIRS.items():
        names = [each.name for each in fields(getattr(reports, theirs))]
        assert [each.name for each in fields(getattr(vocabulary, ours))] == names


def test_a_view_of_another_version_is_read_as_far_as_it_is_known() -> None:
    view = read_view({"id": "n1", "colour": "red", "links": [{"peer": "n2", "shape": "round"}], "disk": None})
    assert view == View(id="n1", links=(vocabulary.Link("n2"),))


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"id": 1},
        {"id": "n1", "term": "4"},
        {"id": "n1", "links": {}},
        {"id": "n1", "links": [{}]},
        {"id": "n1", "term": True},
        {"id": "n1;reboot"},
        {"id": ""},
        {"id": "n1", "members": [{"id": "$(reboot)"}]},
        {"id": "n1", "change": {"phase": "joint", "leaving": ["$(reboot)"]}},
        {"id": "n1", "change": {"phase": "joint", "joining": [{"id": "`reboot`"}]}},
        {"id": "n1", "members": [{"id": "n2", "url": "http://$(reboot):7401"}]},
        {"id": "n1", "members": [{"id": "n2", "url": "file:///etc/passwd"}]},
        {"id": "n1", "url": "http://n1.test:7401/`reboot`"},
    ],
    ids=str,
)
def test_what_is_no_view_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(NotAView):
        read_view(answer)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0.4, "400 µs"),
        (2.4, "2.4 ms"),
        (104, "104 ms"),
        (1_240, "1.2 s"),
        (12_300, "12 s"),
        (130_000, "2 min"),
        (10_800_000, "3 h"),
    ],
)
def test_times_are_told_as_somebody_would_say_them(ms: float, text: str) -> None:
    assert span(ms) == text


def test_words() -> None:
    assert (ago(None), listed([]), listed(["a"]), listed(["a", "b", "c"])) == ("never", "", "a", "a, b and c")


def test_weights_are_all_different() -> None:
    assert len({weight.value for weight in Weight}) == len(Weight)
    assert get_args(get_type_hints(View)["links"])[0] is vocabulary.Link
    assert OURS != THEIRS
