"""http-api "Status and administration": the node about itself, and the leader's office."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raftkv.api.service import Health, MembersChange, Unready
from raftkv.outcomes import (
    Transferred,
    TransferRefused,
    TransferWhy,
)
from tests.api.conftest import METRICS
from tests.api.fronts import Client
from tests.api.service import FOLLOWS, LEADERLESS, STATUS

ABOUT_THIS_NODE = ["/v1/status", "/v1/cluster", "/v1/diagnostics", "/healthz", "/readyz", "/metrics"]


def test_status_shows_this_node(client: Client) -> None:
    answer = client.ask("GET", "/v1/status")
    assert (answer.status, answer["Content-Type"]) == (200, "application/json")
    assert answer.json == {
        "id": "n1", "cluster_id": "000102030405060708090a0b0c0d0e0f", "role": "leader", "term": 7, "leader_id": "n1",
        "leader_url": "http://n1.test:7401", "commit_index": 12, "applied_index": 12, "last_index": 13,
        "snapshot_index": 0, "log_bytes": 4096, "revision": 5, "state_hash": f"{0xFEED:032x}", "version": "0.1.0",
        "uptime_ms": 123_456, "removed_at": None,
    }  # fmt: skip


def test_what_a_node_cannot_know_is_null(client: Client) -> None:
    client.service.now = replace(
        STATUS, cluster_id=None, leader_id=None, leader_url=None, log_bytes=None, state_hash=None
    )
    shown = client.ask("GET", "/v1/status").json
    for name in ("cluster_id", "leader_id", "leader_url", "log_bytes", "state_hash"):
        assert shown[name] is None


def test_cluster_shows_the_members(client: Client) -> None:
    answer = client.ask("GET", "/v1/cluster")
    assert list(answer.json) == ["cluster_id", "term", "leader_id", "voters", "learners", "change"]
    assert answer.json["voters"][1:] == [
        {"id": "n2", "url": "http://n2.test:7402", "match_index": 12, "last_contact_ms": 40},
        {"id": "n3", "url": "http://n3.test:7403", "match_index": None, "last_contact_ms": None},
    ]
    assert [learner["id"] for learner in answer.json["learners"]] == ["n4"]
    assert answer.json["change"] is None
    change = MembersChange("catching_up", (("n4", 2),), ("n3",), (), 9_000, 13)
    client.service.now = replace(STATUS, change=change)
    assert client.ask("GET", "/v1/cluster").json["change"] == {
        "phase": "catching_up", "joining": [{"id": "n4", "match_index": 2}], "leaving": ["n3"], "demoted": [],
        "remaining_ms": 9_000, "last_index": 13,
    }  # fmt: skip


def test_a_removed_node_says_so(client: Client) -> None:
    client.service.now = replace(STATUS, role="learner", removed_at=11)
    assert client.ask("GET", "/v1/status").json["removed_at"] == 11


@pytest.mark.parametrize("path", ABOUT_THIS_NODE)
@pytest.mark.parametrize("led", [FOLLOWS, LEADERLESS])
def test_what_is_about_the_node_asked_is_never_redirected(client: Client, path: str, led: object) -> None:
    client.service.led = led  # type: ignore[assignment]
    assert client.ask("GET", path).status == 200


@pytest.mark.parametrize("path", ABOUT_THIS_NODE)
def test_head_works_there_too(client: Client, path: str) -> None:
    head, get = client.ask("HEAD", path), client.ask("GET", path)
    assert head.comparable()[:2] == get.comparable()[:2] and head.body == b""


def test_metrics_come_as_they_are(client: Client) -> None:
    answer = client.ask("GET", "/metrics")
    assert (answer.body, answer["Content-Type"]) == (METRICS, "text/plain; version=0.0.4; charset=utf-8")


def test_probes_say_why_not(client: Client) -> None:
    client.service.set_health(
        Health(unready=((Unready.NO_LEADER, "no leader heard"), (Unready.CATCHING_UP, "900 entries behind")))
    )
    answer = client.ask("GET", "/readyz")
    assert (answer.status, answer.code, answer["Retry-After"]) == (503, "no_leader", "1")
    assert answer.json["detail"] == "no leader heard; 900 entries behind"
    assert [reason["code"] for reason in answer.json["reasons"]] == ["no_leader", "too_stale"]
    assert client.ask("GET", "/healthz").status == 200
    client.service.set_health(Health(dead_because="the state machine halted"))
    dead = client.ask("GET", "/healthz")
    assert (dead.status, dead.code, dead.json["detail"]) == (500, "internal", "the state machine halted")


@pytest.mark.parametrize("reason", list(Unready))
def test_every_reason_has_its_code(client: Client, reason: Unready) -> None:
    client.service.set_health(Health(unready=((reason, "because"),)))
    answer = client.ask("GET", "/readyz")
    assert (answer.status, answer.code) == (503, reason.value)


def test_leadership_is_handed_over(client: Client) -> None:
    answer = client.post("/v1/admin/leader", {"id": "n3"})
    assert answer.status == 200
    assert answer.json == {"changed": True, "leader": {"id": "n3", "url": "http://n2.test:7402"}, "term": 8}
    client.post("/v1/admin/leader", {})
    assert client.service.transfers == ["n3", None]


def test_a_transfer_to_the_leader_changes_nothing(client: Client) -> None:
    client.service.forced_transfers.append(Transferred("n1", "http://n1.test:7401", 7, changed=False))
    answer = client.post("/v1/admin/leader", {"id": "n1"})
    assert (answer.status, answer.json["changed"]) == (200, False)


@pytest.mark.parametrize(
    ("why", "status", "code"),
    [
        (TransferWhy.NO_SUCH_MEMBER, 404, "member_not_found"),
        (TransferWhy.NOT_A_VOTER, 400, "bad_request"),
        (TransferWhy.NO_OTHER_VOTER, 409, "member_unreachable"),
        (TransferWhy.IN_PROGRESS, 409, "membership_change_in_progress"),
        (TransferWhy.TIMED_OUT, 504, "outcome_unknown"),
        (TransferWhy.NOT_LEADER, 503, "no_leader"),
    ],
)
def test_a_transfer_that_fails_says_why(client: Client, why: TransferWhy, status: int, code: str) -> None:
    client.service.forced_transfers.append(TransferRefused(why))
    answer = client.post("/v1/admin/leader", {"id": "n9"})
    assert (answer.status, answer.code) == (status, code)


@pytest.mark.parametrize("fields", [{"id": 1}, {"id": ""}, {"id": None}, {"id": ["n1"]}, {"ID": "n1"}, {"x": 1}, []])
def test_a_transfer_to_nobody_is_refused(client: Client, fields: object) -> None:
    assert client.post("/v1/admin/leader", fields).status == 400
    assert client.service.transfers == []


def test_a_node_whose_cluster_is_not_formed_says_for_whom_it_waits(client: Client) -> None:
    client.service.led = LEADERLESS
    why = "the cluster is not formed yet: waiting for n2, n3"
    client.service.set_health(Health(unready=((Unready.NO_LEADER, why),)))
    for method, path in (("PUT", "/v1/kv/a"), ("GET", "/v1/kv"), ("POST", "/v1/txn"), ("GET", "/v1/admin/members")):
        answer = client.ask(method, path)
        assert (answer.status, answer.code, answer.json["retry_after_ms"]) == (503, "no_leader", 300)
        assert why in answer.json["detail"]
