"""Reads of keys: ``GET`` and ``HEAD /v1/kv/{key}``, at the level of consistency that the client asks for.

Told: a request with its key. Tells: queries to the replica, answers to the client. May never know: how a read
is made sure of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from raftkv.api.actions import APPLIED_INDEX, READS, Action, Answer, Conditions, Field, Numbering
from raftkv.api.exchange import (
    Context,
    Decision,
    Pending,
    applied_index,
    away_from_leader,
    etag,
    refused,
    retry_after,
)
from raftkv.api.keys import ETAG
from raftkv.api.parameters import OneOf, Parameter, WholeNumber
from raftkv.api.problems import bad_request, problem
from raftkv.api.requests import Request, key_of, read_condition
from raftkv.api.responses import OCTETS, Headers, Respond, Response, with_headers
from raftkv.api.schemas import NUMBER
from raftkv.kv.queries import Found, Get, Query
from raftkv.outcomes import Answered, Consistency, ReadOutcome, ReadTimedOut, Refused, TooStale
from raftkv.problems import Code

CONSISTENCY: Final = Parameter(
    "consistency",
    OneOf(tuple(level.value for level in Consistency)),
    "How fresh the answer is. linearizable: every write acknowledged before the read began is seen; the leader "
    "answers. follower: the same, from the node asked. lease: the leader answers, without a round where leases are "
    "on. stale: the node asked answers at once.",
    Consistency.LINEARIZABLE.value,
)
MIN_INDEX: Final[Parameter[int | None]] = Parameter(
    "min_index", WholeNumber(), "With consistency=stale: waits until this log index is applied here.", None
)
MAX_STALENESS_MS: Final[Parameter[int | None]] = Parameter(
    "max_staleness_ms", WholeNumber(), "With consistency=stale: how old the answer may be.", None
)
READ_PARAMETERS: Final[tuple[Parameter[Any], ...]] = (CONSISTENCY, MIN_INDEX, MAX_STALENESS_MS)

_ONLY_A_LEADER_ANSWERS: Final = (Consistency.LINEARIZABLE, Consistency.LEASE)


class Freshness(NamedTuple):
    """How fresh the client wants it."""

    consistency: Consistency
    min_index: int
    max_staleness_ms: int | None


def freshness(request: Request) -> Freshness:
    """Out of the query; the bounds go with ``consistency=stale`` only, the others meet any."""
    level = Consistency(CONSISTENCY.of(request))
    min_index, max_staleness_ms = MIN_INDEX.of(request), MAX_STALENESS_MS.of(request)
    if level is not Consistency.STALE and (min_index is not None or max_staleness_ms is not None):
        raise bad_request("min_index and max_staleness_ms go with consistency=stale")
    return Freshness(level, min_index or 0, max_staleness_ms)


def get(context: Context, request: Request, raw_key: bytes) -> Decision:
    """The key's value as it was put."""
    key, wanted, known_revision = key_of(raw_key), freshness(request), read_condition(request)
    return read(context, request, Get(key), wanted, lambda answer: found(answer, known_revision=known_revision))


def read(
    context: Context, request: Request, query: Query, wanted: Freshness, answered: Callable[[Any], Response]
) -> Decision:
    """The query's answer as fresh as it is wanted; ``answered`` puts the state machine's own into words."""
    if wanted.consistency in _ONLY_A_LEADER_ANSWERS:
        away = away_from_leader(context, request)
        if away is not None:
            return away

    def act(_: bytes, respond: Respond) -> None:
        def done(outcome: ReadOutcome) -> None:
            respond(read_answer(context, request, outcome, answered))

        context.service.read(
            query,
            wanted.consistency,
            done,
            min_index=wanted.min_index,
            max_staleness_ms=wanted.max_staleness_ms,
        )

    return Pending(0, act)


def read_answer(
    context: Context, request: Request, outcome: ReadOutcome, answered: Callable[[Any], Response]
) -> Response:
    """What became of a read; ``answered`` puts the state machine's own answer into words."""
    match outcome:
        case Answered():
            return with_headers(answered(outcome.answer), _provenance(outcome))
        case Refused():
            return refused(context, request, outcome)
        case TooStale():
            return _too_stale(context, outcome)
        case ReadTimedOut():
            return problem(Code.READ_TIMEOUT, "no majority confirmed the read in time; ask again")


def _too_stale(context: Context, outcome: TooStale) -> Response:
    """What was asked, and what this node has: whoever asks another node, or later, knows by how much."""
    if outcome.is_loading:
        short = "this node is loading a snapshot that its leader has sent, and has nothing to read until then"
    elif outcome.applied_index < outcome.min_index:
        short = f"log index {outcome.min_index} was asked, {outcome.applied_index} is applied here"
    else:
        age = "of unknown age" if outcome.staleness_ms is None else f"{outcome.staleness_ms} ms old"
        short = f"at most {outcome.max_staleness_ms} ms of age were asked, this node's state is {age}"
    return problem(
        Code.TOO_STALE,
        f"{short}; ask again soon, or another node",
        headers=retry_after(context),
        extra={
            "min_index": outcome.min_index,
            "max_staleness_ms": outcome.max_staleness_ms,
            "applied_index": outcome.applied_index,
            "staleness_ms": outcome.staleness_ms,
            "retry_after_ms": context.settings.retry_after_ms,
        },
    )


def found(answer: Any, *, known_revision: int | None) -> Response:
    """A key's record, or that there is none; ``known_revision`` is what the client has already."""
    assert type(answer) is Found, answer
    record = answer.record
    if record is None:
        return problem(Code.KEY_NOT_FOUND, "the key is absent", extra={"revision": answer.revision})
    headers = (
        *etag(record.mod_revision),
        ("Raftkv-Create-Revision", str(record.create_revision)),
        ("Raftkv-Version", str(record.version)),
    )
    if known_revision == record.mod_revision:
        return Response(304, OCTETS, b"", headers)
    return Response(200, OCTETS, record.value, headers)


def _provenance(outcome: Answered) -> Headers:
    headers = (*applied_index(outcome.index), ("Raftkv-Consistency", outcome.consistency.value))
    if outcome.consistency is Consistency.STALE and outcome.staleness_ms is not None:
        return (*headers, ("Raftkv-Staleness-Ms", str(outcome.staleness_ms)))
    return headers


PROVENANCE: Final = (
    Field(
        "Raftkv-Consistency",
        {"type": "string", "enum": [level.value for level in Consistency]},
        "What was really used.",
    ),
    Field("Raftkv-Staleness-Ms", NUMBER, "Of a stale read, where it is known: at most this old.", always=False),
    APPLIED_INDEX,
)
"""What an answer to a read says of itself."""
_RECORD: Final = (
    ETAG,
    Field("Raftkv-Create-Revision", NUMBER, "The revision at which the key was created."),
    Field("Raftkv-Version", NUMBER, "How often the key was put since then."),
    *PROVENANCE,
)
GET: Final[Action] = Action(
    get,
    "Reads a key.",
    (
        Answer(
            200,
            "The value as it was put.",
            content_types=(OCTETS,),
            fields=_RECORD,
        ),
        Answer(304, "The key still has the revision that the client named.", content_types=(), fields=_RECORD),
    ),
    (*READS, Code.KEY_NOT_FOUND),
    parameters=READ_PARAMETERS,
    conditions=Conditions.READ,
    numbering=Numbering.IGNORED,
)
