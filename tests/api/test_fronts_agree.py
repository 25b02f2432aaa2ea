"""All fronts answer the same, byte for byte, apart from Date and Connection."""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgpack
import pytest

from tests.api.conftest import api_of
from tests.api.fronts import Answer, Client, Header, PureClient
from tests.api.service import FOLLOWS, LEADERLESS, LEADS, FakeService

EXCHANGES = 3_000
SEED = 20_260
SESSIONS = [f"{number:032x}" for number in (1, 2, 9)]
KEYS = [b"a", b"b", b"a%2Fb", b"a/b", b"%2e%2e", b"%00", b"%ff", b"//", b"a?b", b"%3F", b"a+b", b"%", b"%g0", b""]
QUERIES = [b"", b"", b"", b"", b"?", b"?consistency=stale", b"?consistency=stale&min_index=1", b"?consistency=lease",
           b"?consistency=follower", b"?x=1", b"?consistency=none", b"?min_index=1", b"?%zz"]  # fmt: skip
PATHS = [b"/v1/sessions", b"/v1/status", b"/v1/cluster", b"/healthz", b"/readyz", b"/metrics", b"/v1/admin/leader",
         b"/v1/admin/members", b"/v1/admin/members", b"/v1/admin/members/n4", b"/v1/admin/members/n%204",
         b"/", b"/v1/kv", b"/v1/txn", *(b"/v1/sessions/" + session.encode() for session in SESSIONS),
         *(b"/v1/sessions/%s/keepalive" % session.encode() for session in SESSIONS)]  # fmt: skip
HEADERS: list[Header] = [
    ("If-Match", '"1"'), ("If-Match", '"3"'), ("If-Match", "*"), ("If-Match", 'W/"1"'), ("If-None-Match", "*"),
    ("If-None-Match", '"2"'), ("Content-Encoding", "gzip"), ("Content-Encoding", "identity"),
    ("Raftkv-Sequence", "1"), ("Raftkv-Sequence", "2"), ("raftkv-sequence", "+1"), ("Raftkv-Acknowledged", "1"),
    ("Content-Type", "application/json"), ("content-type", "application/msgpack"), ("Accept", "x"),
    *(("Raftkv-Session", session) for session in SESSIONS),
]  # fmt: skip
MEMBER = b'{"id":"n4","url":"http://n4.test:7404"}'
BODIES = [b"", b"v", b"\x00\xff", b"{}", b'{"ttl_ms":5000}', b'{"ttl_ms":1}', b'{"id":"n3"}', b"{", b"\x80",
          msgpack.packb({"ttl_ms": 7_000}), b"\xdd\xff\xff\xff\xff", b"x" * 70_000, MEMBER,
          b'{"voters":[%s]}' % MEMBER, b'{"role":"voter"}']  # fmt: skip


Request = tuple[str, bytes, list[Header], bytes | None]


def sensible(rng: random.Random) -> Request:
    """A request that goes well, most of the time."""
    method = rng.choice(["PUT", "PUT", "GET", "HEAD", "DELETE", "POST"])
    if method == "POST":
        return method, b"/v1/sessions", [("Content-Type", "application/json")], rng.choice([*BODIES, b"{}"])
    numbering = [("Raftkv-Session", rng.choice(SESSIONS)), ("Raftkv-Sequence", str(rng.randint(1, 9)))]
    if rng.random() < 0.1:
        numbering.append(("Raftkv-Acknowledged", "2"))
    name = "If-Match" if method in ("PUT", "DELETE") else "If-None-Match"
    condition = [(name, f'"{rng.randint(1, 40)}"')]
    headers = rng.choice([[], numbering, condition, [*numbering, *condition]])
    return (
        method,
        b"/v1/kv/" + rng.choice(KEYS[:3] * 3 + KEYS[3:8]),
        headers,
        rng.choice(BODIES) if method == "PUT" else None,
    )


def odd(rng: random.Random) -> Request:
    """A request that any HTTP parser takes; what it means is another question."""
    if rng.random() < 0.6:
        method = rng.choice(["GET", "HEAD", "PUT", "PUT", "DELETE", "POST", "PATCH"])
        target = b"/v1/kv/" + rng.choice(KEYS) + rng.choice(QUERIES)
    else:
        method = rng.choice(["GET", "POST", "POST", "POST", "DELETE", "PUT", "HEAD", "PATCH"])
        target = rng.choice(PATHS) + (rng.choice(QUERIES) if rng.random() < 0.1 else b"")
    headers = rng.sample(HEADERS, rng.choice([0, 0, 1, 1, 2, 3]))
    body = rng.choice(BODIES) if method in ("PUT", "POST", "PATCH") else rng.choice([None, None, None, b"", b"x"])
    return method, target, list({name.lower(): (name, value) for name, value in headers}.values()), body


def story(seed: int) -> Iterator[Request]:
    """The requests of a long day; the first one puts a key that nobody touches again."""
    rng = random.Random(seed)
    yield "PUT", b"/v1/kv/quiet", [], b"v"
    for _ in range(EXCHANGES):
        if rng.random() < 0.02:
            yield rng.choice(["GET", "HEAD"]), b"/v1/kv/quiet", [("If-None-Match", '"1"')], None
        yield sensible(rng) if rng.random() < 0.5 else odd(rng)


def disturb(rng: random.Random, *clients: Client) -> None:
    """The world changes under both in the same way."""
    led = rng.choices([LEADS, FOLLOWS, LEADERLESS], [20, 1, 1])[0]
    passes_ms = rng.choice([0, 0, 0, 0, 3_000])
    for client in clients:
        client.service.led = led
        client.service.stamp_ms += passes_ms


def first_difference(one: Client, other: Client) -> str | None:
    """The first exchange of the story that the two answer differently."""
    rng = random.Random(SEED + 1)
    for number, request in enumerate(story(SEED)):
        answers = [client.ask_raw(*request).comparable() for client in (one, other)]
        if answers[0] != answers[1]:
            return f"exchange {number}: {request}: {answers}"
        disturb(rng, one, other)
    return None


def pure_client() -> PureClient:
    service = FakeService()
    return PureClient(api_of(service), service)


@pytest.mark.parametrize("front", ["aiohttp", "door", "lean", "stream"])
def test_fronts_answer_byte_for_byte_the_same(front: str, request: pytest.FixtureRequest) -> None:
    pure, wired = pure_client(), request.getfixturevalue(f"open_{front}")()
    assert first_difference(pure, wired) is None
    assert pure.service.machine.state_hash() == wired.service.machine.state_hash()
    assert pure.service.submitted == wired.service.submitted and len(pure.service.submitted) > EXCHANGES // 10


@pytest.mark.parametrize(("written", "rewritten"), [(b"//", b"/"), (b"%2e%2e", b""), (b"+", b"%20"), (b"%2F", b"/")])
def test_a_front_that_rewrites_targets_is_found_out(written: bytes, rewritten: bytes) -> None:
    """Planted: fronts that normalise as URL libraries do."""

    class Rewriting(PureClient):
        def ask_raw(self, method: str, target: bytes, headers: list[Header], body: bytes | None) -> Answer:
            return super().ask_raw(method, target.replace(written, rewritten), headers, body)

    service = FakeService()
    rewriting = Rewriting(api_of(service), service)
    assert first_difference(rewriting, pure_client()) is not None


def test_the_story_reaches_every_kind_of_answer() -> None:
    """The comparison is worth what its story covers."""
    rng, client = random.Random(SEED + 1), pure_client()
    statuses = set()
    for request in story(SEED):
        statuses.add(client.ask_raw(*request).status)
        disturb(rng, client)
    assert statuses >= {200, 201, 304, 307, 400, 404, 405, 409, 410, 412, 413, 415, 422, 503}
