"""What an embedder hears: the replica's outcomes as answers and exceptions; and a machine that may be asked badly.

Told: outcomes, an embedder's machine. Tells: the machine's own answers, or the exception that says what became of
the call. May never know: how the replica came to an outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from raftkv.errors import NotLeader, OutcomeUnknown, Rejected, RequestError, Unreachable
from raftkv.kv.machine import KeyValueMachine
from raftkv.outcomes import (
    Answered,
    Applied,
    Leadership,
    ReadOutcome,
    ReadTimedOut,
    Refused,
    Superseded,
    TooStale,
    TransferOutcome,
    Transferred,
    TransferWhy,
    Unknown,
    Why,
    WriteOutcome,
)
from raftkv.state_machine import SUBMITTED_BYTES_MAX, Capture, Loading, LogEntry, StateMachine

_REFUSALS: Final = {
    Why.OVERLOADED: "as much waits here as this node takes; ask again soon",
    Why.SHUTTING_DOWN: "this node is stopping",
    Why.DISK_FULL: "the disk is short of space",
    Why.REPLICAS_DISAGREE: "this node's state differs from the majority's; it serves nothing",
}
_TRANSFER_REFUSALS: Final = {
    TransferWhy.NO_SUCH_MEMBER: ("member_not_found", "no member has this id"),
    TransferWhy.NOT_A_VOTER: ("bad_request", "a learner cannot lead; promote it first"),
    TransferWhy.NO_OTHER_VOTER: ("member_unreachable", "no other voter could take over now"),
    TransferWhy.IN_PROGRESS: ("membership_change_in_progress", "another change is running"),
}


NOTHING: Final = object()
"""A query of our own that only waits for its turn: no machine is asked."""


def refuse_command(command: bytes) -> None:
    """What is no command that the log could carry is refused before anything is done with it."""
    if type(command) is not bytes:
        raise Rejected(f"a command is bytes, not {type(command).__name__}")
    if len(command) > SUBMITTED_BYTES_MAX:
        raise Rejected(f"a command has at most {SUBMITTED_BYTES_MAX} bytes, not {len(command)}", code="too_large")


def applied_answer(outcome: WriteOutcome, *, why_no_leader: Callable[[], str]) -> Any:
    """The machine's own answer; raises what became of the command otherwise."""
    match outcome:
        case Applied():
            return outcome.answer
        case Refused():
            raise _refused(outcome, why_no_leader)
        case Superseded():
            raise Rejected("another leader's entry stands in its place; it was not executed", code="superseded")
        case Unknown():
            raise OutcomeUnknown("no majority confirmed it in time; it may have happened, or may happen yet")


def read_answer(outcome: ReadOutcome, *, why_no_leader: Callable[[], str]) -> Any:
    """The machine's own answer, or what its ``query`` raised; raises why there is none otherwise."""
    match outcome:
        case Answered(answer=Raised(error)):
            raise error
        case Answered():
            return outcome.answer
        case Refused():
            raise _refused(outcome, why_no_leader)
        case TooStale():
            raise Rejected(_how_stale(outcome), code="too_stale")
        case ReadTimedOut():
            raise Unreachable("no majority confirmed the read in time; ask again")


def transferred(outcome: TransferOutcome, leadership: Leadership) -> Transferred:
    """Who leads now; raises why nobody else does."""
    if isinstance(outcome, Transferred):
        return outcome
    if outcome.why is TransferWhy.NOT_LEADER:
        raise not_leader(leadership)
    if outcome.why is TransferWhy.TIMED_OUT:
        raise OutcomeUnknown("the other node did not take over in time; it still may")
    code, detail = _TRANSFER_REFUSALS[outcome.why]
    raise Rejected(detail, code=code)


def not_leader(leadership: Leadership, why_no_leader: Callable[[], str] | None = None) -> NotLeader:
    """To be raised; ``why_no_leader`` says more where nobody is known to lead."""
    return NotLeader(
        why_no_leader() if why_no_leader is not None and leadership.leader_id is None else "",
        leader_id=leadership.leader_id,
        leader_url=leadership.leader_url,
        term=leadership.term,
    )


def _refused(outcome: Refused, why_no_leader: Callable[[], str]) -> RequestError:
    if outcome.why is Why.NOT_LEADER:
        return not_leader(outcome.leadership, why_no_leader)
    return Rejected(_REFUSALS[outcome.why], code=outcome.why.value)


def _how_stale(outcome: TooStale) -> str:
    if outcome.is_loading:
        return "a snapshot is being loaded here; there is nothing to read until that is done"
    if outcome.applied_index < outcome.min_index:
        return f"index {outcome.min_index} was asked for, {outcome.applied_index} is applied here"
    age = "of unknown age" if outcome.staleness_ms is None else f"{outcome.staleness_ms} ms old"
    return f"what is here is {age}, at most {outcome.max_staleness_ms} ms were asked for"


@dataclass(frozen=True, slots=True)
class Raised:
    """In place of an answer: what the machine's ``query`` raised."""

    error: Exception


class CarefulMachine(StateMachine):
    """An embedder's machine, of which a bad query harms only whoever asked it."""

    def __init__(self, machine: StateMachine) -> None:
        self._machine = machine

    def apply_batch(self, entries: Sequence[LogEntry]) -> Sequence[Any]:
        """The machine's own."""
        return self._machine.apply_batch(entries)

    def query(self, query: Any) -> Any:
        """The machine's own answer, or what it raised."""
        if query is NOTHING:
            return None
        try:
            return self._machine.query(query)
        except Exception as error:  # noqa: BLE001 - raised again where the query came from
            return Raised(error)

    def snapshot(self) -> bytes:
        """The machine's own."""
        return self._machine.snapshot()

    def restore(self, snapshot: bytes) -> None:
        """The machine's own."""
        self._machine.restore(snapshot)

    def capture(self) -> Capture:
        """The machine's own."""
        return self._machine.capture()

    def loading(self) -> Loading:
        """The machine's own."""
        return self._machine.loading()

    def discard(self) -> Iterator[None]:
        """The machine's own."""
        return self._machine.discard()

    def tick_due_ms(self) -> int | None:
        """The machine's own."""
        return self._machine.tick_due_ms()

    def tick_command(self) -> bytes:
        """The machine's own."""
        return self._machine.tick_command()

    def state_hash(self) -> int | None:
        """The machine's own."""
        return self._machine.state_hash()


def careful(machine: StateMachine) -> StateMachine:
    """The machine as a node runs it: the store's queries come from our own API and need no care."""
    return machine if isinstance(machine, KeyValueMachine) else CarefulMachine(machine)
