"""A bug of ours in answering a request: the client is told 500, the log why, once, and nothing of what was asked."""

from __future__ import annotations

from typing import Any

import pytest

from raftkv.api import plain
from raftkv.api.exchange import Pending
from raftkv.api.plain import PlainKeys
from raftkv.api.routes import Api
from raftkv.node.logs import formatter
from tests.api.fronts import AiohttpClient, LeanClient, MakeClient

MARK = "m4rk3d"
CONDITION = {"If-None-Match": "*"}
"""With it a request is not plain."""


def fails(monkeypatch: pytest.MonkeyPatch, of: Any, name: str) -> None:
    def raising(*_: Any, **__: Any) -> Any:
        raise KeyError(MARK)

    monkeypatch.setattr(of, name, raising)


def acting_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def act(body: bytes, respond: Any) -> None:
        raise KeyError(MARK)

    finish = Pending.finish

    def finishes(pending: Pending, body: bytes, respond: Any) -> None:
        pending._act = act
        finish(pending, body, respond)

    monkeypatch.setattr(Pending, "finish", finishes)


def is_told(client: AiohttpClient, caplog: pytest.LogCaptureFixture, headers: dict[str, str]) -> None:
    answer = client.put(MARK, MARK.encode(), headers)
    assert (answer.status, answer.code, answer["Content-Type"]) == (500, "internal", "application/problem+json")
    assert (answer["Connection"], answer["Raftkv-Node"]) == ("close", "n1")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert (record.event, record.fields) == ("request_failed", {"method": "PUT", "route": "/v1/kv"})  # type: ignore[attr-defined]
    assert [MARK in formatter("n1", log_format).format(record) for log_format in ("text", "json")] == [False, False]


@pytest.mark.parametrize("what", ["begin", "act"])
def test_what_raises_in_the_general_way_is_told(
    wired: AiohttpClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    with monkeypatch.context() as patched:
        if what == "begin":
            fails(patched, Api, "begin")
        else:
            acting_fails(patched)
        is_told(wired, caplog, CONDITION)
    assert wired.put("a", b"1").status == 201, "the node goes on"


@pytest.mark.parametrize(("of", "name"), [(PlainKeys, "_put"), (plain, "encode_put")])
def test_what_raises_in_a_request_that_is_taken_at_a_glance_is_told(
    open_wired: MakeClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, of: Any, name: str
) -> None:
    client = open_wired()
    with monkeypatch.context() as patched:
        fails(patched, of, name)
        is_told(client, caplog, {})
    assert client.put("a", b"1").status == 201, "the node goes on"


@pytest.mark.parametrize("headers", [{}, CONDITION])
def test_what_failed_and_ends_later_all_the_same_is_answered_once(
    open_lean: MakeClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, headers: dict[str, str]
) -> None:
    """The write was begun; whoever has it done must not be told that its client heard something else already."""
    client = open_lean()
    service, submit = client.service, client.service.submit

    def submits_and_raises(*command: Any, **terms: Any) -> None:
        submit(*command, **terms)
        raise KeyError(MARK)

    service.holds = True
    with monkeypatch.context() as patched:
        patched.setattr(service, "submit", submits_and_raises)
        is_told(client, caplog, headers)
    (done,) = service.held
    client.thread.run(_called(done))
    assert isinstance(client, LeanClient)
    assert client.lean._unanswered_count == 0, "a stop waits for nothing"


async def _called(done: Any) -> None:
    done()
