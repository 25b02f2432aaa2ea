"""Routes, methods, heads and the closed list of codes."""

from __future__ import annotations

import re

import pytest

from raftkv.api.requests import Head
from raftkv.api.responses import Response
from raftkv.api.routes import ROUTES, Api
from raftkv.api.settings import VALUE_BYTES_MAX, ApiSettings
from raftkv.errors import ConfigError
from raftkv.problems import Code
from tests.api.conftest import api_of
from tests.api.fronts import AiohttpClient, Client, MakeClient, request_bytes
from tests.api.service import FakeService

PUBLISHED = """`not_leader` 307,
`bad_request`, `duplicate_key` 400, `unauthorized` 401, `forbidden` 403, `key_not_found`, `not_found` (no such
route), `member_not_found` 404, `method_not_allowed` 405, `request_timeout` 408, `sequence_too_old`,
`membership_change_in_progress`, `member_exists`, `member_unreachable`, `wrong_cluster`, `catch_up_failed`,
`quorum_at_risk` 409, `session_expired` 410, `precondition_failed` 412, `too_large` 413, `uri_too_long` 414,
`unsupported_media_type` 415, `sequence_reused` 422, `overloaded`, `too_many_unacknowledged` 429,
`head_too_large` 431, `internal` 500, `no_leader`, `too_stale`, `superseded`, `replicas_disagree`,
`shutting_down` 503, `outcome_unknown`, `read_timeout` 504, `disk_full` 507"""


def published_codes() -> dict[str, int]:
    found: dict[str, int] = {}
    waiting: list[str] = []
    for code, status in re.findall(r"`(\w+)`|\b(\d{3})\b", PUBLISHED):
        waiting += [code] if code else []
        if status:
            found.update(dict.fromkeys(waiting, int(status)))
            waiting = []
    return found


def test_the_codes_are_the_published_ones() -> None:
    assert {code.text: code.status for code in Code} == published_codes()
    assert len(published_codes()) == 35


def test_a_problem_has_all_its_members(client: Client) -> None:
    answer = client.get("absent")
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json == {
        "type": "urn:raftkv:problem:key_not_found",
        "title": "There is no such key",
        "status": 404,
        "detail": "the key is absent",
        "code": "key_not_found",
        "revision": 0,
    }


@pytest.mark.parametrize(
    ("method", "target"),
    [("PUT", "/v1/kv/a"), ("GET", "/v1/kv/a"), ("GET", "/v1/kv/b"), ("HEAD", "/v1/kv/a"), ("DELETE", "/v1/kv/a"),
     ("POST", "/v1/sessions"), ("GET", "/v1/status"), ("GET", "/metrics"), ("GET", "/nothing"), ("PATCH", "/healthz"),
     ("GET", "/v1/kv/%"), ("POST", "/v1/admin/leader")],
)  # fmt: skip
def test_every_answer_forbids_caching_and_guessing(client: Client, method: str, target: str) -> None:
    answer = client.ask(method, target)
    assert (answer["Cache-Control"], answer["X-Content-Type-Options"]) == ("no-store", "nosniff")
    assert answer["Raftkv-Node"] == "n1"
    assert answer["Date"].endswith("GMT")


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/", "/v2/kv", "/v2/kv/a", "//v1/kv/a", "/v1//kv/a", "/V1/kv/a", "/v1/KV/a", "/%761/kv/a",
     "/v1%2Fkv/a", "/v1/kv%2Fa", "/v1/../v1/kv/a", "/v1/./kv/a", "/v1/sessions/", "/v1/sessions//keepalive",
     "/v1/sessions/x/y", "/v1/sessions/x/keepalive/", "/v1/status/", "/v1/admin/members//", "/v1/admin/members/n1/x",
     "/v1/admin", "/healthz/",
     "/metrics%", "/v1/txn/", "/raft"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
def test_no_other_path_is_a_route(client: Client, path: str, method: str) -> None:
    """faults 64: no path that looks like a route is taken for it, and no key for another path."""
    answer = client.ask(method, path)
    assert (answer.status, answer.code) == (404, "not_found")
    assert client.service.submitted == []


SESSION = f"/v1/sessions/{1:032x}"
ALLOWED = {
    "/v1/kv": ("/v1/kv", "GET, HEAD, DELETE"),
    "/v1/kv/{key}": ("/v1/kv/a", "GET, HEAD, PUT, DELETE"),
    "/v1/txn": ("/v1/txn", "POST"),
    "/v1/sessions": ("/v1/sessions", "POST"),
    "/v1/sessions/{session}": (SESSION, "DELETE"),
    "/v1/sessions/{session}/keepalive": (SESSION + "/keepalive", "POST"),
    "/v1/stream": ("/v1/stream", "GET"),
    "/v1/status": ("/v1/status", "GET, HEAD"),
    "/v1/cluster": ("/v1/cluster", "GET, HEAD"),
    "/v1/admin/members": ("/v1/admin/members", "GET, HEAD, POST, PUT"),
    "/v1/admin/members/{id}": ("/v1/admin/members/n1", "DELETE, PATCH"),
    "/v1/admin/leader": ("/v1/admin/leader", "POST"),
    "/v1/admin/snapshot": ("/v1/admin/snapshot", "POST"),
    "/v1/admin/backup": ("/v1/admin/backup", "GET"),
    "/v1/diagnostics": ("/v1/diagnostics", "GET, HEAD"),
    "/v1/openapi.json": ("/v1/openapi.json", "GET, HEAD"),
    "/healthz": ("/healthz", "GET, HEAD"),
    "/readyz": ("/readyz", "GET, HEAD"),
    "/metrics": ("/metrics", "GET, HEAD"),
}
"""Each route, a path that it serves, and its methods."""


@pytest.mark.parametrize(("path", "allowed"), ALLOWED.values(), ids=ALLOWED)
def test_other_methods_are_refused_with_those_there_are(client: Client, path: str, allowed: str) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE", "POST", "PATCH", "OPTIONS", "TRACE", "MERGE", "BREW", "X" * 32):
        if method in allowed.split(", "):
            continue
        answer = client.ask(method, path)
        assert (answer.status, answer["Allow"]) == (405, allowed)
        assert method == "HEAD" or answer.code == "method_not_allowed"
    assert client.service.submitted == []


def test_a_method_that_nobody_knows_changes_no_other_request(wired: AiohttpClient) -> None:
    """A parser that knows no such method drops what it has read before in one piece with it."""
    wire = wired.wire()
    put = request_bytes("PUT", b"/v1/kv/a", [], b"v")
    wire.send(put + request_bytes("BREW", b"/v1/kv/a%2F?x", [], b"tea") + put)
    assert wire.receive().status == 201
    answer = wire.receive()
    assert (answer.status, answer["Allow"], answer["Connection"]) == (405, "GET, HEAD, PUT, DELETE", "close")
    assert wire.ended() and len(wired.service.submitted) == 1


def test_every_route_is_in_that_list() -> None:
    assert {route.path: ", ".join(route.actions) for route in ROUTES} == {
        path: allowed for path, (_, allowed) in ALLOWED.items()
    }


@pytest.mark.parametrize("path", ["/v1/status", "/healthz", "/metrics"])
def test_no_route_takes_unknown_parameters(client: Client, path: str) -> None:
    assert client.ask("GET", path + "?x=1").status == 400


@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/admin/leader", "/v1/admin/snapshot"])
def test_no_post_takes_unknown_parameters(client: Client, path: str) -> None:
    assert client.ask("POST", path + "?x=1").status == 400
    assert client.service.snapshots == []
    assert client.service.submitted == [] and client.service.transfers == []


@pytest.mark.parametrize("target", ["http://n1.test/v1/kv/a", "HTTP://n1.test/v1/kv/a", "https://n1.test", "*"])
def test_a_node_is_no_proxy(client: Client, target: str) -> None:
    assert client.ask("PUT", target, None, b"v").status == 400
    assert client.service.submitted == []


def test_heads_up_to_32_kib_are_taken(client: Client) -> None:
    assert client.put("a", headers={"X-Padding": "x" * (32 * 1024 - 200)}).status == 201
    many = [(f"X-{number}", "x" * 20) for number in range(990)]
    assert client.ask("PUT", "/v1/kv/a", many, b"v").status == 200
    assert client.ask("GET", "/v1/kv/a?x=" + "x" * (28 * 1024 - 11)).status == 400


def test_longer_heads_are_refused(client: Client) -> None:
    """faults 63: a head without end is not read to its end."""
    answer = client.put("a", headers={"X-Padding": "x" * 32 * 1024})
    assert (answer.status, answer.code) == (431, "head_too_large")
    many = [(f"X-{number}", "x" * 500) for number in range(90)]
    assert client.ask("PUT", "/v1/kv/a", many, b"v").code == "head_too_large"
    assert client.ask("GET", "/v1/kv/" + "x" * 28 * 1024).code == "uri_too_long"
    assert client.ask("GET", "/v1/kv/a?" + "x" * 28 * 1024).status == 414
    assert client.service.submitted == []


PURE_ONLY = [b"", b"*", b"v1/kv/a", b"a:1", b"/v1/kv/\xff", b"/v1/kv/a b", b"/v1/kv/\0", b"/v1/kv/a\n", b"/v1/kv/\x7f",
             b"http:///v1/kv/a", b"http://h/v1/kv/a", b"/v1/kv/a#b", b"#", b"?"]  # fmt: skip


@pytest.mark.parametrize("target", PURE_ONLY)
def test_a_target_has_printable_ascii_only(service: FakeService, target: bytes) -> None:
    """What a parser in front may let through or not: the semantics let none of it through."""
    answer = api_of(service).begin(Head("PUT", target, ()))
    assert isinstance(answer, Response) and answer.status == 400


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        ((0, 9), []), ((2, 0), []), ((1, 2), []),
        ((1, 0), [(b"Transfer-Encoding", b"chunked")]),
        ((1, 1), [(b"Transfer-Encoding", b"gzip, chunked")]),
        ((1, 1), [(b"Transfer-Encoding", b"identity")]),
        ((1, 1), [(b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"3")]),
        ((1, 1), [(b"Transfer-Encoding", b"chunked"), (b"transfer-encoding", b"chunked")]),
        ((1, 1), [(b"Content-Length", b"3"), (b"content-length", b"3")]),
        ((1, 1), [(b"Content-Length", b"+3")]), ((1, 1), [(b"Content-Length", b"-3")]),
        ((1, 1), [(b"Content-Length", b"0x3")]), ((1, 1), [(b"Content-Length", b"")]),
        ((1, 1), [(b"Content-Length", b"9" * 400)]), ((1, 1), [(b"Content-Length", b"3 3")]),
    ],
)  # fmt: skip
def test_a_body_without_a_sure_end_is_refused(
    service: FakeService, version: tuple[int, int], headers: list[tuple[bytes, bytes]]
) -> None:
    """faults 66: whatever parser is in front, the semantics refuse a framing that can be read in two ways."""
    answer = api_of(service).begin(Head("PUT", b"/v1/kv/a", headers, version))
    assert isinstance(answer, Response) and answer.status == 400


@pytest.mark.parametrize(("method", "path"), [("PUT", b"/v1/kv/a"), ("POST", b"/v1/sessions")])
def test_a_body_that_is_said_to_be_too_large_is_refused_unread(service: FakeService, method: str, path: bytes) -> None:
    """faults 60: by the head alone."""
    headers = [(b"Content-Length", b"100000000"), (b"Content-Type", b"application/json")]
    answer = api_of(service).begin(Head(method, path, headers))
    assert isinstance(answer, Response) and answer.status == 413


def test_a_body_that_turns_out_too_large_is_refused(service: FakeService) -> None:
    """faults 60: a front that does not count is caught by the semantics."""
    pending = api_of(service).begin(Head("PUT", b"/v1/kv/a", [(b"Transfer-Encoding", b"chunked")]))
    assert not isinstance(pending, Response) and pending.body_bytes_max == 1024 * 1024
    answers: list[Response] = []
    pending.finish(b"x" * (1024 * 1024 + 1), answers.append)
    assert [answer.status for answer in answers] == [413]
    assert service.submitted == []


def test_an_answer_may_come_later(service: FakeService) -> None:
    service.holds = True
    pending = api_of(service).begin(Head("PUT", b"/v1/kv/a", ()))
    answers: list[Response] = []
    assert not isinstance(pending, Response)
    pending.finish(b"v", answers.append)
    assert answers == []
    service.held[0]()
    assert [answer.status for answer in answers] == [201]


@pytest.mark.parametrize(
    ("settings", "problems"),
    [
        ({"max_value_bytes": 0}, 1),
        ({"max_value_bytes": True}, 1),
        ({"max_value_bytes": 1.5, "retry_after_ms": -1}, 2),
        ({"max_value_bytes": VALUE_BYTES_MAX + 1}, 1),
        ({"bodies_bytes_max": 1024}, 1),
    ],
)
def test_settings_that_cannot_be_served_with_are_refused(settings: dict[str, int], problems: int) -> None:
    with pytest.raises(ConfigError) as caught:
        ApiSettings(**settings)
    assert len(caught.value.problems) == problems


def test_a_refused_body_is_read_on_up_to_8_mib_or_2_s() -> None:
    settings = ApiSettings()
    assert (settings.discard_bytes_max, settings.discard_timeout_ms) == (8 * 1024 * 1024, 2_000)


def test_the_largest_settings_are_taken() -> None:
    assert ApiSettings(max_value_bytes=VALUE_BYTES_MAX).max_value_bytes == 2 * 1024 * 1024 - 4096


def test_the_largest_value_fits_into_a_command() -> None:
    service = FakeService()
    api: Api = api_of(service, ApiSettings(max_value_bytes=VALUE_BYTES_MAX))
    pending = api.begin(Head("PUT", b"/v1/kv/" + b"k" * 4096, ()))
    answers: list[Response] = []
    assert not isinstance(pending, Response)
    pending.finish(b"x" * VALUE_BYTES_MAX, answers.append)
    assert [answer.status for answer in answers] == [201]


def test_clients_reach_no_route_of_peers_behind_the_lean_front(open_aiohttp: MakeClient) -> None:
    assert open_aiohttp().ask("POST", "/raft/v1/append-entries").status == 404
