"""http-api "Status and administration": ``POST /v1/admin/snapshot``, about the node asked."""

from __future__ import annotations

import pytest

from raftkv.outcomes import SnapshotRefused, SnapshotTaken, SnapshotUnderWay, SnapshotWhy
from tests.api.fronts import Client
from tests.api.service import FOLLOWS, LEADERLESS

SNAPSHOT = "/v1/admin/snapshot"


def test_a_snapshot_is_told_by_its_index_and_size(client: Client) -> None:
    answer = client.post(SNAPSHOT, {})
    assert (answer.status, answer.json) == (200, {"changed": True, "index": 12, "bytes": 4096})
    assert client.service.snapshots == [30_000]


def test_one_that_was_there_is_no_change(client: Client) -> None:
    client.service.forced_snapshots.append(SnapshotTaken(12, 4096, changed=False))
    assert client.post(SNAPSHOT, {}).json == {"changed": False, "index": 12, "bytes": 4096}


def test_who_does_not_want_to_wait_hears_for_which_index(client: Client) -> None:
    client.service.forced_snapshots.append(SnapshotUnderWay(12))
    answer = client.post(SNAPSHOT + "?wait_ms=0", {})
    assert (answer.status, answer.json) == (202, {"index": 12})
    assert client.service.snapshots == [0]


@pytest.mark.parametrize("led", [FOLLOWS, LEADERLESS])
def test_it_is_about_the_node_asked_and_never_redirected(client: Client, led: object) -> None:
    client.service.led = led  # type: ignore[assignment]
    assert client.post(SNAPSHOT, {}).status == 200


@pytest.mark.parametrize(
    ("why", "status", "code"),
    [
        (SnapshotWhy.NOTHING_APPLIED, 503, "no_leader"),
        (SnapshotWhy.LOADING, 503, "too_stale"),
        (SnapshotWhy.DISK_FULL, 507, "disk_full"),
        (SnapshotWhy.FAILED, 500, "internal"),
        (SnapshotWhy.REPLICAS_DISAGREE, 503, "replicas_disagree"),
        (SnapshotWhy.SHUTTING_DOWN, 503, "shutting_down"),
    ],
)
def test_where_none_was_taken_the_answer_says_why(client: Client, why: SnapshotWhy, status: int, code: str) -> None:
    client.service.forced_snapshots.append(SnapshotRefused(why, "because of that"))
    answer = client.post(SNAPSHOT, {})
    assert (answer.status, answer.code) == (status, code)
    assert "because of that" in answer.json["detail"]


def test_every_reason_is_in_that_table() -> None:
    assert len(SnapshotWhy) == 6


@pytest.mark.parametrize("fields", [{"index": 1}, [], 7])
def test_its_body_is_an_empty_object(client: Client, fields: object) -> None:
    assert client.post(SNAPSHOT, fields).status == 400
    assert client.service.snapshots == []


@pytest.mark.parametrize("wait_ms", ["-1", "600001", "1.5", "soon", ""])
def test_it_waits_for_a_whole_number_of_milliseconds(client: Client, wait_ms: str) -> None:
    assert client.post(f"{SNAPSHOT}?wait_ms={wait_ms}", {}).status == 400
    assert client.service.snapshots == []


def test_no_page_of_another_site_can_ask_for_one(client: Client) -> None:
    """A form cannot set this type, and without it an empty body is refused too."""
    assert client.ask("POST", SNAPSHOT).status == 415
    assert client.ask("POST", SNAPSHOT, {"Content-Type": "text/plain"}, b"{}").status == 415
    assert client.service.snapshots == []
