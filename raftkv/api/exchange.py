"""One exchange from a judged head to its answer, and the ends that all routes share.

Told: outcomes. Tells: answers. May never know: which route asked.

Only ``Refused`` may become a redirect or a refusal (faults 50): every other outcome speaks of a write that was
appended, and of that only "done", "superseded" and "unknown" can be said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from raftkv.api.metering import Kind, Meter, measured
from raftkv.api.problems import RequestRefused, problem, refused_response
from raftkv.api.requests import Request, too_large
from raftkv.api.responses import Headers, Respond, Response, with_headers, without_body
from raftkv.api.service import Service, Unready
from raftkv.api.settings import ApiSettings
from raftkv.kv.answers import (
    Malformed,
    Repeated,
    SequenceReused,
    SequenceTooOld,
    SessionExpired,
    TooLarge,
    TooManySessions,
    TooManyUnacknowledged,
)
from raftkv.outcomes import Applied, Leadership, Refused, Superseded, Unknown, Why, WriteOutcome
from raftkv.problems import Code


@dataclass(frozen=True, slots=True)
class Context:
    """What every route may use."""

    service: Service
    settings: ApiSettings
    node_id: str
    metrics: Callable[[], bytes]
    """The Prometheus text of this node, as it is now."""
    document: Callable[[], bytes]
    """What ``/v1/openapi.json`` shows."""


class Pending:
    """A request whose head is in order: once its body is read, ``finish`` has it answered."""

    __slots__ = ("_act", "body_bytes_max", "measured_by")

    def __init__(self, body_bytes_max: int, act: Callable[[bytes, Respond], None]) -> None:
        self.body_bytes_max = body_bytes_max
        """A front stops reading beyond it, and answers with ``too_large``."""
        self._act = act
        self.measured_by: tuple[Meter, Kind, int] | None = None
        """Who is told of the answer: of what kind the request is, and when it began."""

    def finish(self, body: bytes, respond: Respond) -> None:
        """``respond`` is called exactly once, now or later."""
        if self.measured_by is not None:
            respond = measured(respond, *self.measured_by)
        if len(body) > self.body_bytes_max:
            respond(self.too_large())
            return
        try:
            self._act(body, respond)
        except RequestRefused as refused:
            respond(refused_response(refused))

    def too_large(self) -> Response:
        """The answer to a body that did not end within ``body_bytes_max``."""
        return refused_response(too_large(self.body_bytes_max))

    def given_up(self, refused: RequestRefused) -> Response:
        """The answer where a front could not read the body; ``finish`` is not called then."""
        if self.measured_by is not None:
            meter, kind, began_ns = self.measured_by
            meter.answered(kind, refused.code.status, began_ns)
        return refused_response(refused)


def pending_without_body(pending: Pending) -> Pending:
    """The same for a HEAD."""
    return Pending(
        pending.body_bytes_max,
        lambda body, respond: pending.finish(body, lambda response: respond(without_body(response))),
    )


Decision = Response | Pending
"""What a head leads to."""


def away_from_leader(context: Context, request: Request) -> Response | None:
    """The way to the leader, for what only a leader can do; None: this node leads."""
    leadership = context.service.leadership()
    return None if leadership.leads else to_leader(context, request, leadership)


def to_leader(context: Context, request: Request, leadership: Leadership) -> Response:
    """307 with the target's bytes as they came, or 503 where no other leader is known."""
    url = leadership.leader_url
    if url is None or leadership.leader_id in (None, context.node_id):
        return _no_leader(context, leadership)
    location = url.rstrip("/") + request.path_and_query.decode("ascii")
    return problem(
        Code.NOT_LEADER,
        f"{leadership.leader_id} leads; ask there",
        headers=(("Location", location),),
        extra={"leader": {"id": leadership.leader_id, "url": url}, "term": leadership.term},
    )


def _no_leader(context: Context, leadership: Leadership) -> Response:
    """For whom a cluster waits that is not formed yet, the node says itself."""
    unready = context.service.status().health.unready
    why = next((why for reason, why in unready if reason is Unready.NO_LEADER), "no leader is known at present")
    return problem(
        Code.NO_LEADER,
        f"{why}; ask again soon",
        headers=retry_after(context),
        extra={"term": leadership.term, "retry_after_ms": context.settings.retry_after_ms},
    )


def retry_after(context: Context) -> Headers:
    """In whole seconds, as HTTP wants it; ``retry_after_ms`` in the body is exact."""
    return (("Retry-After", str(-(-context.settings.retry_after_ms // 1000))),)


_REFUSALS: Final = {
    Why.SHUTTING_DOWN: (Code.SHUTTING_DOWN, "this node is stopping; ask another one"),
    Why.DISK_FULL: (Code.DISK_FULL, "only deletes and ends of sessions are taken until there is space again"),
    Why.REPLICAS_DISAGREE: (Code.REPLICAS_DISAGREE, "this node's state differs from the majority's; it serves nothing"),
}


def refused(context: Context, request: Request, outcome: Refused) -> Response:
    """An arrival that changed nothing and never will."""
    if outcome.why is Why.NOT_LEADER:
        return to_leader(context, request, outcome.leadership)
    if outcome.why is Why.OVERLOADED:
        return problem(
            Code.OVERLOADED,
            "as many requests wait here as this node takes; ask again soon",
            headers=retry_after(context),
            extra={"retry_after_ms": context.settings.retry_after_ms},
        )
    return problem(*_REFUSALS[outcome.why])


_FAILURES: Final[dict[type[Any], tuple[Code, str]]] = {
    SessionExpired: (Code.SESSION_EXPIRED, "the session ran out, was closed or never was; nothing was executed"),
    SequenceReused: (Code.SEQUENCE_REUSED, "this number was used for another request; nothing was executed"),
    SequenceTooOld: (Code.SEQUENCE_TOO_OLD, "the answer to this number was acknowledged; nothing was executed now"),
    TooManyUnacknowledged: (
        Code.TOO_MANY_UNACKNOWLEDGED,
        "acknowledge answers with Raftkv-Acknowledged first; nothing was executed",
    ),
    TooManySessions: (Code.OVERLOADED, "no more sessions fit; end some, or wait until some run out"),
    Malformed: (Code.BAD_REQUEST, "the command is none that this cluster knows; nothing was executed"),
    TooLarge: (Code.TOO_LARGE, "the command touches too much; nothing was executed"),
}


def written(context: Context, request: Request, outcome: WriteOutcome, answered: Callable[[Any], Response]) -> Response:
    """What became of a write; ``answered`` puts the state machine's own answer into words."""
    match outcome:
        case Applied(index, answer):
            return _applied(index, answer, answered)
        case Refused():
            return refused(context, request, outcome)
        case Superseded():
            return problem(Code.SUPERSEDED, "another leader's entry stands in its place; it was not executed")
        case Unknown():
            return problem(
                Code.OUTCOME_UNKNOWN,
                "no majority confirmed it in time; repeat it only with the same session and number",
            )


def _applied(index: int, answer: Any, answered: Callable[[Any], Response]) -> Response:
    failure = _FAILURES.get(type(answer))
    if failure is not None:
        return with_headers(problem(*failure), applied_index(index))
    if type(answer) is Repeated:
        headers = (*applied_index(answer.index), ("Raftkv-Duplicate", "true"))
        return with_headers(answered(answer.answer), headers)
    return with_headers(answered(answer), applied_index(index))


def applied_index(index: int) -> Headers:
    """The log index that an answer reflects."""
    return (("Raftkv-Applied-Index", str(index)),)


def etag(revision: int) -> Headers:
    """A revision as the strong tag that conditions take."""
    return (("ETag", f'"{revision}"'),)
