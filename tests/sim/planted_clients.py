"""Bugs to plant between a caller and the log: in the client that ships, in the API, in the replica's words to clients.

Each is what somebody might write. Runs whose clients are the library must find every one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from raftkv.api import cursors, exchange, keys, ranges, reads, requests, txns
from raftkv.client import attempts, course, session, wishes
from raftkv.client.attempts import Call
from raftkv.client.course import Courses
from raftkv.client.routing import Routing
from raftkv.client.session import Arrival, Next, Numbered, Session
from raftkv.core import reads as read_rounds
from raftkv.core.messages import Heartbeat
from raftkv.core.state import State
from raftkv.errors import OutcomeUnknown, Rejected, Unreachable
from raftkv.kv import answers
from raftkv.kv.answers import DeleteDone, Repeated
from raftkv.kv.sessions import _STORED, Sessions
from raftkv.outcomes import Consistency, Refused, Superseded, Transferred, Unknown, Why
from raftkv.problems import Code
from raftkv.replica import Replica
from raftkv.waiting import WaitingReads, WaitingWrites

Plant = Callable[[pytest.MonkeyPatch], None]
PLANTED: dict[str, Plant] = {}


def plant(act: Plant) -> Plant:
    PLANTED[act.__name__] = act
    return act


# ------------------------------------------------------------------------------------------ the client


@plant
def no_answer_means_that_nothing_happened(patch: pytest.MonkeyPatch) -> None:
    original = Call._try_again
    patch.setattr(
        Call, "_try_again", lambda self, arrival, *rest, **named: original(self, _hopeful(arrival), *rest, **named)
    )


def _hopeful(arrival: Arrival) -> Arrival:
    return Arrival.NOTHING if arrival is Arrival.PERHAPS else arrival


@plant
def a_new_number_after_perhaps(patch: pytest.MonkeyPatch) -> None:
    original = Numbered.after
    patch.setattr(
        Numbered, "after", lambda self, arrival: Next.ANEW if arrival is Arrival.PERHAPS else original(self, arrival)
    )


@plant
def an_arrival_in_doubt_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Numbered, "after", lambda self, arrival: _without_doubts(self, arrival))


def _without_doubts(self: Numbered, arrival: Arrival) -> Next:
    if arrival is Arrival.EXPIRED:
        self.session.is_over = True
    return Next.ANEW if self.session.is_over else Next.SAME


@plant
def what_was_in_doubt_is_sent_anew_when_the_session_is_over(patch: pytest.MonkeyPatch) -> None:
    def next_(self: Numbered) -> Next:
        if not self.session.is_over:
            return Next.SAME
        self.may_have_happened = False
        return Next.ANEW

    patch.setattr(Numbered, "next", property(next_))


@plant
def what_is_still_wanted_is_acknowledged(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "acknowledged", property(lambda self: next(iter(self._unsettled), self._last)))


@plant
def numbers_are_acknowledged_out_of_order(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "acknowledged", property(lambda self: self._last - len(self._unsettled)))


@plant
def a_number_is_given_twice(patch: pytest.MonkeyPatch) -> None:
    original = Session.give

    def give(self: Session) -> Numbered:
        given = original(self)
        if given.number == 3:
            self._last = 2
        return given

    patch.setattr(Session, "give", give)


@plant
def an_unknown_outcome_is_a_refusal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(attempts, "_REFUSED", attempts._REFUSED | {Code.OUTCOME_UNKNOWN})


@plant
def time_over_means_that_nothing_happened(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Call, "out_of_time", lambda self, why="", *, hint="": Unreachable(why))


@plant
def a_final_refusal_speaks_of_all_arrivals(patch: pytest.MonkeyPatch) -> None:
    original = Call._problem

    def problem(self: Call, answer: Any, told: Any, at: Any, now_us: int) -> Any:
        step = original(self, answer, told, at, now_us)
        if isinstance(step, attempts.Over) and isinstance(step.error, OutcomeUnknown):
            return attempts.Over(Rejected("no", code=Code.SEQUENCE_TOO_OLD.text))
        return step

    patch.setattr(Call, "_problem", problem)


@plant
def every_failure_is_in_doubt(patch: pytest.MonkeyPatch) -> None:
    """Too careful: callers are told that nobody knows where it is known that nothing was done."""
    patch.setattr(Call, "out_of_time", lambda self, why="", *, hint="": OutcomeUnknown(why))


def _believe_no_lost_leader(hear_of_leader: Any) -> Any:
    def believe(self: Routing, address: Any, term: int, now_us: int) -> bool:
        return address not in self._shunned and hear_of_leader(self, address, term, now_us)

    return believe


@plant
def a_lost_leader_is_never_believed_in_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Routing, "hear_of_leader", _believe_no_lost_leader(Routing.hear_of_leader))
    patch.setattr(Routing, "find", lambda self, address: None)
    patch.setattr(Routing, "reach", lambda self, address: None)


@plant
def nobody_is_asked_who_leads(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Courses, "hear_view", lambda self, at, heard: None)


@plant
def min_index_is_not_sent(patch: pytest.MonkeyPatch) -> None:
    original = vars(wishes.Freshness)["parameters"].fget
    patch.setattr(wishes.Freshness, "parameters", property(lambda self: {**original(self), "min_index": None}))


@plant
def what_writes_have_shown_is_not_seen(patch: pytest.MonkeyPatch) -> None:
    original = Courses._read

    def read(self: Courses, call: Call, *rest: Any) -> Any:
        seen = self.seen_index
        try:
            return original(self, call, *rest)
        finally:
            if call.numbered is not None:
                self.seen_index = seen

    patch.setattr(Courses, "_read", read)


@plant
def a_repeat_leaves_its_condition_out(patch: pytest.MonkeyPatch) -> None:
    def fields_of(call: Call, wish: Any) -> bytes:
        if call.numbered is None:
            return bytes(wish.fields)
        fields = b"" if call._failures and wish.fields.startswith(b"If-") else wish.fields
        return bytes(fields + course.numbering(call.numbered))

    patch.setattr("raftkv.sim.clients.shell.fields_of", fields_of)


@plant
def the_session_is_never_kept_alive_and_nobody_hears_that_it_is_over(patch: pytest.MonkeyPatch) -> None:
    """Expiry is ignored: writes go on under the dead session's numbers as if each were new there."""
    patch.setattr(Numbered, "next", property(lambda self: Next.UNKNOWN if self.session.is_over else Next.SAME))
    patch.setattr(session.Session, "keepalive_due_us", property(lambda self: self._alive_at_us + 10 * self._ttl_us))


# --------------------------------------------------------------------------------------------- the API


@plant
def no_leader_is_told_of_what_was_appended(patch: pytest.MonkeyPatch) -> None:
    """faults 50"""
    original = exchange.written

    def written(context: Any, request: Any, outcome: Any, answered: Any) -> Any:
        if isinstance(outcome, Unknown):
            outcome = Refused(Why.NOT_LEADER, context.service.leadership()._replace(leader_url=None))
        return original(context, request, outcome, answered)

    for module in (keys, ranges, txns):
        patch.setattr(module, "written", written)


@plant
def a_repeat_tells_its_own_index(patch: pytest.MonkeyPatch) -> None:
    original = exchange._applied

    def applied(index: int, answer: Any, answered: Any) -> Any:
        return original(index, answer.answer if isinstance(answer, Repeated) else answer, answered)

    patch.setattr(exchange, "_applied", applied)


@plant
def deletes_ignore_their_condition(patch: pytest.MonkeyPatch) -> None:
    original = requests.write_condition
    patch.setattr(keys, "write_condition", lambda request: -1 if request.method == "DELETE" else original(request))


@plant
def keys_are_decoded_twice(patch: pytest.MonkeyPatch) -> None:
    """faults 64"""
    for module in (keys, reads):
        patch.setattr(module, "key_of", lambda raw: requests.key_of(unquote_to_bytes(raw).replace(b"#", b"")))


@plant
def a_slash_at_the_end_is_left_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(keys, "key_of", lambda raw: requests.key_of(raw).rstrip(b"/"))


@plant
def transactions_are_not_numbered(patch: pytest.MonkeyPatch) -> None:
    """faults 46"""
    patch.setattr(txns, "numbering", lambda request: None)


@plant
def a_condition_that_failed_is_told_as_done(patch: pytest.MonkeyPatch) -> None:
    original = keys.delete_answer
    patch.setattr(
        keys, "delete_answer", lambda answer: original(answer if isinstance(answer, DeleteDone) else DeleteDone(0, 1))
    )


@plant
def pages_forget_their_direction(patch: pytest.MonkeyPatch) -> None:
    original = cursors.cursor_after
    patch.setattr(
        ranges, "cursor_after", lambda bounds, *, reverse, last_key: original(bounds, reverse=False, last_key=b"")
    )


@plant
def a_follower_answers_as_if_it_were_asked_for_a_stale_state(patch: pytest.MonkeyPatch) -> None:
    original = reads.freshness

    def freshness(request: Any) -> Any:
        wanted = original(request)
        return wanted._replace(consistency=Consistency.STALE) if wanted.consistency is Consistency.FOLLOWER else wanted

    for module in (reads, ranges):
        patch.setattr(module, "freshness", freshness)


# ----------------------------------------------------------------------------------------- the replica


@plant
def what_timed_out_is_superseded(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("raftkv.waiting.Unknown", Superseded)


@plant
def who_loses_office_refuses_what_waits(patch: pytest.MonkeyPatch) -> None:
    """faults 69"""
    original = Replica._propose

    def propose(self: Replica) -> None:
        if not self.raft.takes_proposals and self.raft.state.office is None:
            for write in list(self._writes._by_index.values()):
                write.done(Refused(Why.NOT_LEADER, self.leadership()))
            self._writes = WaitingWrites()
        original(self)

    patch.setattr(Replica, "_propose", propose)


@plant
def the_bound_on_age_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replica, "_is_fresh_enough", lambda self, read: True)


@plant
def an_age_counts_from_when_the_leaders_word_came(patch: pytest.MonkeyPatch) -> None:
    """faults 36: no bound need be asked for, what is said of the age is untrue."""

    def note_freshness(state: State, request: Heartbeat) -> None:
        state.note_freshness(request.leader_commit, as_of_us=state.now_us)

    patch.setattr(read_rounds, "_note_freshness", note_freshness)


@plant
def stale_reads_do_not_wait_for_their_index(patch: pytest.MonkeyPatch) -> None:
    original = WaitingReads.add
    patch.setattr(
        WaitingReads,
        "add",
        lambda self, found, *, need: original(
            self, found, need=0 if found[0].consistency is Consistency.STALE else need
        ),
    )


@plant
def a_repeat_has_another_numbers_answer(patch: pytest.MonkeyPatch) -> None:
    """faults 48"""
    original = Sessions.judge

    def judge(self: Sessions, numbered: Any, request_hash: bytes, now_ms: int) -> Any:
        found = original(self, numbered, request_hash, now_ms)
        if isinstance(found, Repeated):
            stored = self._sessions[numbered.session].stored
            newest = stored[max(stored)]
            return Repeated(answers.unpack(newest[_STORED.size :]), _STORED.unpack_from(newest)[1])
        return found

    patch.setattr(Sessions, "judge", judge)


@plant
def a_session_that_ran_out_is_opened_by_whoever_names_it(patch: pytest.MonkeyPatch) -> None:
    """faults 49: its numbers are free again."""
    original = Sessions._find

    def find(self: Sessions, id: bytes, now_ms: int) -> Any:
        found = original(self, id, now_ms)
        if found is None:
            self.open(id, 60_000, now_ms)
            found = original(self, id, now_ms)
        return found

    patch.setattr(Sessions, "_find", find)


@plant
def a_transfer_is_told_as_done_when_it_begins(patch: pytest.MonkeyPatch) -> None:
    original = Replica.transfer_leadership

    def transfer(self: Replica, target: Any, done: Callable[[Any], None]) -> None:
        if self.raft.role.value == "leader" and target in self.raft.state.other_voters():
            original(self, target, lambda outcome: None)
            done(Transferred(target, f"http://{target}:7401", self.raft.term + 1))
        else:
            original(self, target, done)

    patch.setattr(Replica, "transfer_leadership", transfer)
