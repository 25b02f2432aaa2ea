"""What the clients do, and everything they were told, written down.

Told: members, a seed. Tells: a history for the checker, and what each session numbered. Each client has a
session and one to three lanes that share it, so that several numbers are in flight; the keys that all fight
over change every few seconds, so that the search for an order stays short, and stay readable to the end.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from random import Random
from typing import Final
from urllib.parse import quote

from raftkv.kv.commands import ABSENT, ANY, PRESENT, Delete, Expect, Put
from raftkv.kv.queries import Get
from raftkv.sim.checks.history import Absent, Deleted, Done, Operation, Refused, Request, Result, Seen
from tests.live.client import Ask, Client, Members, Settled, now_ms, problem_of
from tests.live.wire import Answer, Connections

SLOTS: Final = 4
"""Keys that all clients fight over at one time."""
GENERATION_MS: Final = 3_000
ACKNOWLEDGED_LAG: Final = 40
"""So many of the newest answers of a session are kept by the nodes, and can be asked for again."""
SESSION_TTL_MS: Final = 3_600_000
ATTEMPT_TIMEOUTS_S: Final = (0.5, 1.0, 7.0)
"""The nodes give up a request after 5 s: the last of these hears it from them."""
THINK_S: Final = (0.0, 0.05)


@dataclass(slots=True)
class FirstAnswer:
    """What a numbered write was answered first."""

    ask: Ask
    answer: Answer

    def is_told_again_by(self, repeat: Answer) -> bool:
        """Whether a repeat of the number got the same."""
        first = self.answer
        same = all(first.headers.get(name) == repeat.headers.get(name) for name in ("etag", "raftkv-applied-index"))
        return same and (first.status, first.body) == (repeat.status, repeat.body)


@dataclass(slots=True)
class Tally:
    """The puts of one client to a key that only it writes, each unconditional."""

    key: bytes
    is_numbered: bool
    """Each settled one was executed exactly once; of the others, each unknown one at most once."""
    unknown_count: int = 0
    versions: list[int] = field(default_factory=list)
    """As the answers had them."""


@dataclass(slots=True)
class Story:
    """All that the clients of a run did and were told."""

    operations: list[Operation] = field(default_factory=list)
    tallies: list[Tally] = field(default_factory=list)
    acknowledged_at: list[float] = field(default_factory=list)
    """When each write's success was heard; milliseconds."""
    repeats_count: int = 0
    duplicates_count: int = 0
    """Answers that had been stored before."""
    unknown_count: int = 0
    findings: list[str] = field(default_factory=list)

    def record(self, client: str, request: Request, settled: Settled, result: Result | None) -> None:
        """One operation more."""
        returned_at = None if result is None else settled.returned_at
        self.operations.append(Operation(client, request, result, settled.invoked_at, returned_at))
        if isinstance(result, Done | Deleted):
            self.acknowledged_at.append(settled.returned_at)
        if result is None:
            self.unknown_count += 1

    def keys(self) -> list[bytes]:
        """Every key that was ever asked for."""
        return sorted({operation.request.key for operation in self.operations})


class Worker:
    """One client with its session."""

    def __init__(self, name: str, members: Members, story: Story, seed: str, *, lanes_count: int) -> None:
        self.name = name
        self._members, self._story, self._seed, self._lanes_count = members, story, seed, lanes_count
        self._rng = Random(seed)
        self._connections = Connections()
        self._session = ""
        self._sequence = 0
        self._settled_up_to = 0
        self._answers: dict[int, FirstAnswer] = {}
        self._repeating: list[int] = []
        self._revisions: dict[bytes, int] = {}
        self._counted = Tally(b"tally/numbered/%b" % name.encode(), is_numbered=True)
        self._uncounted = Tally(b"tally/plain/%b" % name.encode(), is_numbered=False)
        story.tallies += [self._counted, self._uncounted]

    async def run(self) -> None:
        """Works until the members say that it stops, and on until everything that it began is settled."""
        try:
            if await self._open_session():
                await asyncio.gather(*(self._lane(number) for number in range(self._lanes_count)))
        finally:
            self._connections.close()

    async def _open_session(self) -> bool:
        client = self._client(self._rng)
        body = json.dumps({"ttl_ms": SESSION_TTL_MS}).encode()
        ask = Ask("POST", "/v1/sessions", body, {"Content-Type": "application/json"}, is_repeatable=True)
        settled = await client.settle(ask)
        if settled.answer is None:
            self._story.findings.append(f"{self.name} got no session")
            return False
        self._session = json.loads(settled.answer.body)["session"]
        return True

    def _client(self, rng: Random) -> Client:
        return Client(self._members, rng, self._connections, timeout_s=rng.choice(ATTEMPT_TIMEOUTS_S))

    async def _lane(self, number: int) -> None:
        rng = Random(f"{self._seed}.{number}")
        lane = _Lane(self, f"{self.name}.{number}", rng, self._client(rng))
        while now_ms() < self._members.stops_at:
            await lane.act()
            await asyncio.sleep(rng.uniform(*THINK_S))

    # ------------------------------------------------------------------------------------- numbering

    def next_number(self, headers: dict[str, str]) -> int:
        """The number that this write gets, and what it acknowledges, in the headers."""
        self._sequence += 1
        headers |= {"Raftkv-Session": self._session, "Raftkv-Sequence": str(self._sequence)}
        acknowledged = min([self._settled_up_to - ACKNOWLEDGED_LAG, *(number - 1 for number in self._repeating)])
        if acknowledged > 0:
            headers["Raftkv-Acknowledged"] = str(acknowledged)
            self._answers = {number: first for number, first in self._answers.items() if number > acknowledged}
        return self._sequence

    def was_answered(self, number: int, ask: Ask, settled: Settled) -> None:
        """The number's first answer; a stored one must have a reason."""
        answer = settled.answer
        if answer is None:
            return
        self._answers[number] = FirstAnswer(ask, answer)
        while self._settled_up_to + 1 in self._answers:
            self._settled_up_to += 1
        if "raftkv-duplicate" in answer.headers:
            self._story.duplicates_count += 1
            if settled.unknown_before == 0:
                self._story.findings.append(f"{ask} was executed by an arrival that should have changed nothing")

    async def repeat(self, client: Client, rng: Random) -> None:
        """Some number that was answered is asked again: the first answer comes back."""
        if not self._answers:
            return
        number = rng.choice(sorted(self._answers))
        first = self._answers[number]
        self._repeating.append(number)
        settled = await client.settle(first.ask)
        self._repeating.remove(number)
        self._story.repeats_count += 1
        answer = settled.answer
        if answer is None:
            return
        if not first.is_told_again_by(answer) or answer.headers.get("raftkv-duplicate") != "true":
            self._story.findings.append(f"{first.ask} was answered {first.answer}, and when repeated {answer}")

    async def tally(self, client: Client, value: bytes, rng: Random) -> None:
        """One more put to one of the two keys that only this client writes."""
        tally = self._counted if rng.random() < 0.7 else self._uncounted
        request = Put(tally.key, value)
        settled = await self.write(client, request, is_numbered=tally.is_numbered)
        if settled.answer is None:
            tally.unknown_count += 1
        else:
            tally.versions.append(json.loads(settled.answer.body)["version"])

    # ---------------------------------------------------------------------------------------- requests

    async def write(self, client: Client, request: Put | Delete, *, is_numbered: bool) -> Settled:
        """A write, settled and recorded."""
        headers = _condition(request.expect)
        number = self.next_number(headers) if is_numbered else 0
        is_put = isinstance(request, Put)
        ask = Ask(
            "PUT" if is_put else "DELETE",
            target_of(request.key),
            request.value if isinstance(request, Put) else b"",
            headers,
            is_repeatable=is_numbered,
        )
        settled = await client.settle(ask)
        if is_numbered:
            self.was_answered(number, ask, settled)
        result = None if settled.answer is None else written(request, settled.answer)
        self._story.record(self.name, request, settled, result)
        if isinstance(result, Done) and result.revision is not None:
            self._revisions[request.key] = result.revision
        return settled

    async def read(self, client: Client, key: bytes, *, at_follower: bool) -> None:
        """A read, recorded."""
        answer = await read(self._story, self.name, client, key, at_follower=at_follower)
        if answer is not None and answer.status == 200:
            self._revisions[key] = revision_of(answer)

    def last_revision(self, key: bytes) -> int | None:
        """The newest that this client saw."""
        return self._revisions.get(key)


class _Lane:
    """One request at a time of one client."""

    def __init__(self, worker: Worker, name: str, rng: Random, client: Client) -> None:
        self._worker, self._name, self._rng, self._client = worker, name, rng, client
        self._values_count = 0

    async def act(self) -> None:
        """One request, drawn at random."""
        worker, rng, client = self._worker, self._rng, self._client
        key = b"shared/%d/%d" % (int(now_ms()) // GENERATION_MS, rng.randrange(SLOTS))
        is_numbered = rng.random() < 0.7
        kind = rng.random()
        if kind < 0.35:
            await worker.read(client, key, at_follower=rng.random() < 0.4)
        elif kind < 0.55:
            await worker.tally(client, self._value(), rng)
        elif kind < 0.75:
            await worker.write(client, Put(key, self._value()), is_numbered=is_numbered)
        elif kind < 0.87:
            await worker.write(client, Put(key, self._value(), self._expect(key)), is_numbered=is_numbered)
        elif kind < 0.95:
            expect = ANY if rng.random() < 0.5 else self._expect(key)
            await worker.write(client, Delete(key, expect), is_numbered=is_numbered)
        else:
            await worker.repeat(client, rng)

    def _value(self) -> bytes:
        """Never the same twice; sometimes long."""
        self._values_count += 1
        value = b"%b:%d" % (self._name.encode(), self._values_count)
        return value + b"." * self._rng.choice([0, 0, 0, 300, 5000])

    def _expect(self, key: bytes) -> Expect:
        revision = self._worker.last_revision(key)
        if revision is None:
            return self._rng.choice([ABSENT, PRESENT])
        return Expect(revision)


async def read(story: Story, name: str, client: Client, key: bytes, *, at_follower: bool) -> Answer | None:
    """What the key is, recorded; None: nobody would say."""
    target = target_of(key) + ("?consistency=follower" if at_follower else "")
    ask = Ask("GET", target, is_repeatable=True, changes_nothing=True, any_node=at_follower)
    settled = await client.settle(ask)
    answer = settled.answer
    if answer is not None:
        result = Seen(answer.body, revision_of(answer)) if answer.status == 200 else Absent()
        story.record(name, Get(key), settled, result)
    return answer


def target_of(key: bytes) -> str:
    """The key's path, its slashes encoded too."""
    return f"/v1/kv/{quote(key, safe='')}"


def revision_of(answer: Answer) -> int:
    """The ETag's."""
    return int(answer.headers["etag"].strip('"'))


def written(request: Put | Delete, answer: Answer) -> Result:
    """The answer to a write, as the history has it."""
    if answer.status == 412:
        told = problem_of(answer)
        return Refused(told["mod_revision"], told["revision"])
    told = json.loads(answer.body)
    if isinstance(request, Delete):
        return Deleted(told["deleted"], told["revision"])
    return Done(told["revision"])


def _condition(expect: Expect) -> dict[str, str]:
    if expect == ANY:
        return {}
    if expect == ABSENT:
        return {"If-None-Match": "*"}
    return {"If-Match": "*" if expect == PRESENT else f'"{expect}"'}
