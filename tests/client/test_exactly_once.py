"""The pure decisions against the real store behind a bad network: every write once, and no false word about any.

The network may lose, delay, double and reorder arrivals; the cluster may refuse, forget, supersede, and let the
session run out. Each write puts to a key of its own, so its key's version counts how often it was executed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from raftkv.client import wishes
from raftkv.client.attempts import Again, Call, Figures, Follow, Kind, Over, Patience, Settled, Whom
from raftkv.client.results import PutDone
from raftkv.client.routing import Routing, View
from raftkv.client.session import Session
from raftkv.errors import ConditionFailed, OutcomeUnknown, Rejected, RequestError, Unreachable
from raftkv.http.exchange import Heard, HttpAnswer, NoAnswer, NotSent
from raftkv.kv import answers, sessions
from raftkv.kv.commands import ANY, Numbered, OpenSession, Put, encode
from raftkv.kv.machine import KeyValueMachine
from raftkv.kv.queries import Get
from raftkv.problems import Code
from raftkv.state_machine import LogEntry
from raftkv.values import Address
from tests.client.answers import problem, put_done, redirect

A, B = Address("a", 1), Address("b", 1)
TTL_MS = 10_000
NUMBERS_MAX, ANSWERS_MAX = 5, 3
"""The store has less room than the client believes, so that a full session is met often."""

REFUSALS = [
    problem(Code.NO_LEADER, retry_after_ms=300),
    problem(Code.SUPERSEDED),
    problem(Code.SHUTTING_DOWN),
    problem(Code.OVERLOADED),
    redirect(B),
    redirect(Address("x", 1)),
    NotSent("refused"),
]
FINAL_REFUSALS = [problem(Code.TOO_LARGE), problem(Code.DISK_FULL), problem(Code.BAD_REQUEST)]
SILENCES = [NoAnswer("reset"), problem(Code.OUTCOME_UNKNOWN), HttpAnswer(502, {}, b"<html>")]
REFUSED_WITH: dict[type[Any], Code] = {
    answers.SessionExpired: Code.SESSION_EXPIRED,
    answers.SequenceReused: Code.SEQUENCE_REUSED,
    answers.SequenceTooOld: Code.SEQUENCE_TOO_OLD,
    answers.TooManyUnacknowledged: Code.TOO_MANY_UNACKNOWLEDGED,
}


class Store:
    """The real state machine behind a log."""

    def __init__(self) -> None:
        self.machine, self.index, self.now_ms = KeyValueMachine(), 0, 0

    def execute(self, command: bytes) -> HttpAnswer:
        self.index += 1
        (answer,) = self.machine.apply_batch([LogEntry(self.index, self.now_ms, command)])
        if isinstance(answer, answers.Repeated):
            answer = answer.answer
        if type(answer) in REFUSED_WITH:
            return problem(REFUSED_WITH[type(answer)])
        assert isinstance(answer, answers.PutDone), answer
        return put_done(answer.revision, answer.version)

    def open(self, id: bytes) -> None:
        self.index += 1
        self.machine.apply_batch([LogEntry(self.index, self.now_ms, encode(OpenSession(id, TTL_MS)))])

    def version(self, key: bytes) -> int:
        record = self.machine.query(Get(key)).record
        return 0 if record is None else record.version


@dataclass
class Write:
    """One call, and what the network still holds of it."""

    key: bytes
    call: Call
    limbo: list[bytes] = field(default_factory=list)
    """Arrivals that may be executed yet."""
    was_in_doubt: bool = False
    """Some arrival was executed or held, and its answer not heard."""
    end: PutDone | RequestError | None = None


class Network(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(sessions, "ANSWERS_MAX", ANSWERS_MAX)
        self.store, self.opened = Store(), 0
        self.session: Session | None = None
        self.routing = Routing((A,), Random(0))
        self.routing.hear(View("k", 5, A, (A, B), ()), 0)
        self.writes: list[Write] = []
        self.commands: set[tuple[str, int, bytes]] = set()

    def teardown(self) -> None:
        """What the network still held arrives after everything was told."""
        for write in self.writes:
            for command in write.limbo:
                self.store.execute(command)
        self.no_false_word_was_said()
        self.patch.undo()

    # ------------------------------------------------------------------------------------- the client

    def current_session(self) -> Session:
        if self.session is None or self.session.is_over:
            self.opened += 1
            self.session = Session(f"{self.opened:032x}", ttl_us=TTL_MS * 1000, opened_at_us=0, numbers_max=NUMBERS_MAX)
            self.store.open(bytes.fromhex(self.session.id))
        return self.session

    def number(self, write: Write) -> bool:
        """Whether the write can be sent now."""
        call = write.call
        error = call.hear_of_session()
        if error is not None:
            self.ends(write, error)
            return False
        if call.numbered is None:
            session = self.current_session()
            if not session.can_give:
                return False
            call.numbered = session.give()
        return True

    def command(self, write: Write) -> bytes:
        numbered = write.call.numbered
        assert numbered is not None
        session = numbered.session
        assert session.acknowledged < numbered.number
        self.commands.add((session.id, numbered.number, write.key))
        numbering = Numbered(bytes.fromhex(session.id), numbered.number, session.acknowledged)
        return encode(Put(write.key, b"v", ANY), numbering)

    def hears(self, write: Write, heard: Heard) -> None:
        step = write.call.hear(heard, A, 0)
        self.routing.hear_of_leader(A, 5, 10**9)
        match step:
            case Over(error):
                self.ends(write, error)
            case Settled():
                assert isinstance(heard, HttpAnswer)
                self.ends(write, wishes.put(write.key, b"v", wishes.Condition()).read(heard))
            case _:
                assert isinstance(step, Again | Follow)

    def ends(self, write: Write, end: PutDone | RequestError) -> None:
        write.end = end
        if write.call.numbered is not None:
            write.call.numbered.settle()

    def running(self) -> list[Write]:
        return [write for write in self.writes if write.end is None]

    # -------------------------------------------------------------------------------------- what happens

    @precondition(lambda self: len(self.running()) < 7)
    @rule()
    def a_write_begins(self) -> None:
        self.begun()

    def begun(self) -> Write:
        call = Call(
            Kind.NUMBERED,
            whom=Whom.LEADER,
            routing=self.routing,
            rng=Random(0),
            figures=Figures(),
            patience=Patience(),
            deadline_us=1,
        )
        self.writes.append(Write(b"w%d" % len(self.writes), call))
        return self.writes[-1]

    @rule(count=st.integers(1, ANSWERS_MAX))
    def others_are_served(self, count: int) -> None:
        """While some number waits, the answers to these cannot be acknowledged, and take the room."""
        for _ in range(count):
            write = self.begun()
            if self.number(write):
                self.hears(write, self.store.execute(self.command(write)))

    @precondition(lambda self: self.running())
    @rule(data=st.data(), silence=st.sampled_from(SILENCES))
    def an_attempt(self, data: st.DataObject, silence: Heard) -> None:
        write = data.draw(st.sampled_from(self.running()))
        if not self.number(write):
            return
        command = self.command(write)
        how = data.draw(st.sampled_from(["answered", "answered", "lost", "held", "doubled", "never arrived"]))
        if how == "answered":
            self.hears(write, self.store.execute(command))
            return
        write.was_in_doubt = True
        if how in ("lost", "doubled"):
            self.store.execute(command)
        if how in ("held", "doubled"):
            write.limbo.append(command)
        self.hears(write, silence)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), refusal=st.sampled_from(REFUSALS))
    def an_attempt_is_refused(self, data: st.DataObject, refusal: Heard) -> None:
        write = data.draw(st.sampled_from(self.running()))
        if self.number(write):
            self.command(write)
            self.hears(write, refusal)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), refusal=st.sampled_from(FINAL_REFUSALS))
    def an_attempt_is_refused_for_good(self, data: st.DataObject, refusal: Heard) -> None:
        write = data.draw(st.sampled_from(self.running()))
        if self.number(write):
            self.command(write)
            self.hears(write, refusal)

    @precondition(lambda self: any(write.limbo for write in self.writes))
    @rule(data=st.data(), arrives=st.booleans())
    def what_was_held_is_executed_or_never(self, data: st.DataObject, arrives: bool) -> None:
        write = data.draw(st.sampled_from([write for write in self.writes if write.limbo]))
        command = write.limbo.pop(data.draw(st.integers(0, len(write.limbo) - 1)))
        if arrives:
            self.store.execute(command)

    @precondition(lambda self: self.session is not None)
    @rule(passes_ms=st.sampled_from([TTL_MS // 2, TTL_MS]))
    def time_passes(self, passes_ms: int) -> None:
        self.store.now_ms += passes_ms

    @precondition(lambda self: self.running())
    @rule(data=st.data(), is_cancelled=st.booleans())
    def a_caller_gives_up(self, data: st.DataObject, is_cancelled: bool) -> None:
        write = data.draw(st.sampled_from(self.running()))
        self.ends(write, OutcomeUnknown() if is_cancelled else write.call.out_of_time())
        write.was_in_doubt = write.was_in_doubt or is_cancelled

    # ------------------------------------------------------------------------------------ what must hold

    @invariant()
    def no_false_word_was_said(self) -> None:
        for write in self.writes:
            version = self.store.version(write.key)
            assert version <= 1, f"{write.key!r} was executed {version} times"
            match write.end:
                case PutDone():
                    assert version == 1
                    assert write.end.version == 1
                case Rejected() | Unreachable():
                    assert version == 0, f"{write.key!r} was executed, and its caller told: {write.end}"
                case OutcomeUnknown():
                    assert write.was_in_doubt, f"nothing was in doubt about {write.key!r}: {write.end}"
                case ConditionFailed():
                    raise AssertionError("no write here has a condition")

    @invariant()
    def no_number_has_two_writes(self) -> None:
        numbers = [(session, number) for session, number, _ in self.commands]
        assert len(numbers) == len(set(numbers))

    @invariant()
    def no_number_leaks(self) -> None:
        if self.session is not None:
            waiting = [write.call.numbered for write in self.running()]
            ours = [one for one in waiting if one is not None and one.session is self.session]
            assert self.session.unsettled_count == len(ours)


Network.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


TestNetwork = Network.TestCase
