"""Reads of keys: ``GET`` and ``HEAD /v1/kv/{key}``, at the level of consistency that the client asks for.

Told: a request with its key. Tells: queries to the replica, answers to the client. May never know: how a read
is made sure of.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from raftkv.api.exchange import Context, Decision, Pending, applied_index, away_from_leader, etag, refused
from raftkv.api.problems import bad_request, problem
from raftkv.api.requests import Request, key_of, number, read_condition
from raftkv.api.responses import OCTETS, Headers, Respond, Response, with_headers
from raftkv.kv.queries import Found, Get
from raftkv.outcomes import Answered, Consistency, ReadOutcome, ReadTimedOut, Refused, TooStale
from raftkv.problems import Code

CONSISTENCY: Final = b"consistency"
MIN_INDEX: Final = b"min_index"
MAX_STALENESS_MS: Final = b"max_staleness_ms"
READ_PARAMETERS: Final = frozenset({CONSISTENCY, MIN_INDEX, MAX_STALENESS_MS})

_LEVELS: Final = {level.value.encode(): level for level in Consistency}
_ONLY_A_LEADER_ANSWERS: Final = (Consistency.LINEARIZABLE, Consistency.LEASE)


class Freshness(NamedTuple):
    """How fresh the client wants it."""

    consistency: Consistency
    min_index: int
    max_staleness_ms: int | None


def freshness(request: Request) -> Freshness:
    """Out of the query; the bounds go with ``consistency=stale`` only, the others meet any."""
    raw_level = request.parameters.get(CONSISTENCY, Consistency.LINEARIZABLE.value.encode())
    level = _LEVELS.get(raw_level)
    if level is None:
        raise bad_request(f"consistency is one of {', '.join(level.value for level in Consistency)}")
    min_index = request.parameters.get(MIN_INDEX)
    staleness = request.parameters.get(MAX_STALENESS_MS)
    if level is not Consistency.STALE and (min_index is not None or staleness is not None):
        raise bad_request("min_index and max_staleness_ms go with consistency=stale")
    return Freshness(
        level,
        0 if min_index is None else number(min_index, name="min_index"),
        None if staleness is None else number(staleness, name="max_staleness_ms"),
    )


def get(context: Context, request: Request, raw_key: bytes) -> Decision:
    """The key's value as it was put."""
    key, wanted, known_revision = key_of(raw_key), freshness(request), read_condition(request)
    if wanted.consistency in _ONLY_A_LEADER_ANSWERS:
        away = away_from_leader(context, request)
        if away is not None:
            return away

    def act(_: bytes, respond: Respond) -> None:
        def done(outcome: ReadOutcome) -> None:
            respond(_read(context, request, outcome, known_revision=known_revision))

        context.service.read(
            Get(key),
            wanted.consistency,
            done,
            min_index=wanted.min_index,
            max_staleness_ms=wanted.max_staleness_ms,
        )

    return Pending(0, act)


def _read(context: Context, request: Request, outcome: ReadOutcome, *, known_revision: int | None) -> Response:
    match outcome:
        case Answered():
            return with_headers(_found(outcome.answer, known_revision=known_revision), _provenance(outcome))
        case Refused():
            return refused(context, request, outcome)
        case TooStale():
            return problem(Code.TOO_STALE, "this node has not got as far as the bounds demand")
        case ReadTimedOut():
            return problem(Code.READ_TIMEOUT, "no majority confirmed the read in time; ask again")


def _found(answer: Any, *, known_revision: int | None) -> Response:
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
