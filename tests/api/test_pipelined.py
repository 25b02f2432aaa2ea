"""Requests that come one behind the other, plain ones and others: answered as if each had come alone, byte for byte."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.api.conftest import api_of
from tests.api.fronts import Header, LeanClient, MakeClient, PureClient, request_bytes
from tests.api.service import FOLLOWS, LEADERLESS, LEADS, FakeService

SEED = 20_261
ROUNDS = 150
SESSIONS = [f"{number:032x}" for number in (1, 2, 9)]
"""Of which the last one never was."""
KEYS = [b"a", b"b", b"k-7", b"a%2Fb", b"a/b", b"%00", b'a"b', b"a?x=1", b"%g0", b"", b"x" * 4_097]
NUMBERS = ["1", "2", "3", "9", "0", "007", "+1", "9" * 18, "9" * 19, "1x", ""]
Request = tuple[str, bytes, list[Header], bytes | None]


def numbering(rng: random.Random) -> list[Header]:
    """Mostly as our own client sends it."""
    good = rng.random() < 0.8
    numbers = [rng.choice(NUMBERS[:4]) for _ in range(2)] if good else rng.choices(NUMBERS, k=2)
    session = rng.choice(SESSIONS if rng.random() < 0.95 else ["x", "", SESSIONS[0].upper()])
    fields = [("Raftkv-Session", session), ("Raftkv-Sequence", numbers[0])]
    if rng.random() < 0.3:
        fields.append(("Raftkv-Acknowledged", "0" if rng.random() < 0.7 else numbers[1]))
    if not good:
        fields = rng.sample(fields, rng.randint(1, len(fields)))
        fields = [(name.lower() if rng.random() < 0.2 else name, value) for name, value in fields]
    return fields


def drawn(rng: random.Random) -> Request:
    method = rng.choice(["PUT", "PUT", "PUT", "GET", "GET", "DELETE", "HEAD"])
    key = rng.choice(KEYS[:3] * 8 + KEYS)
    headers: list[Header] = numbering(rng) if rng.random() < 0.6 else []
    if rng.random() < 0.1:
        headers.append(rng.choice([("If-Match", "*"), ("If-None-Match", '"3"'), ("X", "y"), ("Content-Encoding", "x")]))
    body = rng.choice([b"", b"v", b"\r\n\r\n", b"x" * 300]) if method == "PUT" else rng.choice([None, None, None, b""])
    return method, b"/v1/kv/" + key, headers, body


def disturb(rng: random.Random, *services: FakeService) -> None:
    led = rng.choices([LEADS, FOLLOWS, LEADERLESS], [15, 1, 1])[0]
    passes_ms = rng.choice([0, 0, 0, 4_000])
    for service in services:
        service.led = led
        service.stamp_ms += passes_ms


def begun(service: FakeService) -> FakeService:
    """Two sessions are open."""
    pure = PureClient(api_of(service), service)
    for _ in SESSIONS[:2]:
        assert pure.post("/v1/sessions", {"ttl_ms": 60_000}).status == 201
    return service


def story(seed: int) -> Iterator[tuple[random.Random, list[Request]]]:
    rng = random.Random(seed)
    for _ in range(ROUNDS):
        yield rng, [drawn(rng) for _ in range(rng.choice([1, 2, 5, 40]))]


@pytest.mark.parametrize("holds", [False, True])
def test_a_pipeline_is_answered_as_one_request_after_the_other(open_lean: MakeClient, holds: bool) -> None:
    """``holds``: writes are answered later, and never in the order in which they came."""
    client = open_lean()
    assert isinstance(client, LeanClient)
    service, pure_service = begun(client.service), begun(FakeService())
    pure, wire, statuses = PureClient(api_of(pure_service), pure_service), client.wire(), set[int]()
    service.holds = holds

    def let_go(order: random.Random) -> None:
        order.shuffle(service.held)
        held, service.held = service.held, []
        for done in held:
            done()

    for rng, requests in story(SEED + holds):
        expected = [pure.ask_raw(*request) for request in requests]
        raw = b"".join(request_bytes(*request) for request in requests)
        cut = rng.choice([0, 0, rng.randrange(len(raw))])
        wire.send(raw[:cut])
        wire.send(raw[cut:])
        order = random.Random(rng.random())
        for request, answer in zip(requests, expected, strict=True):
            while holds and not wire.has_answer(method=request[0]):
                client.thread.call(lambda: let_go(order))  # noqa: B023  # done within the turn
            came = wire.receive(method=request[0])
            assert came.comparable() == answer.comparable(), request
            assert "Connection" not in came
            statuses.add(came.status)
        disturb(rng, service, pure_service)
    assert service.machine.state_hash() == pure_service.machine.state_hash()
    assert service.submitted == pure_service.submitted and len(service.submitted) > 3 * ROUNDS
    assert statuses >= {200, 201, 307, 400, 404, 409, 410, 412, 415, 422, 503}


def test_answers_carry_the_time_at_which_they_are_given(open_lean: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client = open_lean()
    seconds = [0, 0.9, 1, 1, 3_600]
    dates = []
    for second in seconds:
        monkeypatch.setattr("time.time", lambda: second)  # noqa: B023  # asked within the turn
        dates += [{client.put("a", b"v")["Date"], client.get("a")["Date"], client.get("%20")["Date"]}]
    assert dates == [{f"Thu, 01 Jan 1970 {time} GMT"} for time in ("00:00:00",) * 2 + ("00:00:01",) * 2 + ("01:00:00",)]
