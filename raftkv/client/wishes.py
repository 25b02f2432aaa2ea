"""What each method asks of a node, as bytes, and what it makes of the answer (http-api.md).

Told: what the program wants; an answer. Tells: a request; a result. It never learns whom it goes to, under which
number, or how often.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar
from urllib.parse import quote

import msgpack

from raftkv.client.attempts import Kind, Lane, Whom
from raftkv.client.results import (
    ClusterStatus,
    DeleteDone,
    DeleteRangeDone,
    Item,
    LeaderDone,
    Member,
    NodeStatus,
    Page,
    PutDone,
    TxnDelete,
    TxnDeleteRange,
    TxnDone,
    TxnGet,
    TxnOutcome,
    TxnPut,
    TxnRange,
)
from raftkv.client.txn import Compare, Op
from raftkv.errors import ConditionFailed, WireError
from raftkv.http.exchange import HttpAnswer
from raftkv.kv.commands import NUMBER_MAX, TTL_MS_MIN
from raftkv.values import Address

Consistency = Literal["linearizable", "follower", "lease", "stale"]
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

CONSISTENCIES: Final[tuple[Consistency, ...]] = ("linearizable", "follower", "lease", "stale")
_FROM_ANYBODY: Final = ("follower", "stale")
_LANES: Final[dict[Consistency, Lane]] = {
    "linearizable": Lane.ROUNDS,
    "lease": Lane.ROUNDS,
    "follower": Lane.FOLLOWING,
    "stale": Lane.STALE,
}
SHARED_VALUE_BYTES_MAX: Final = 16 * 1024
"""A longer value has a connection for itself: on a shared one it would hold up the others."""
_JSON: Final = json.JSONDecoder()
_MSGPACK: Final = b"application/msgpack"
_STRUCTURED: Final = b"Content-Type: " + _MSGPACK + b"\r\nAccept: " + _MSGPACK + b"\r\n"
_STANDS_FOR_ITSELF: Final = re.compile(rb"[0-9A-Za-z_.~-]+")
"""A key without an escape in a path."""
_NOT_IN_A_PATH: Final = (b".", b"..")
"""What stands between us and a node may take these keys for a way up: they go in bodies."""
_INDEX_MAX: Final = NUMBER_MAX
"""As ``min_index`` no node takes a larger one: believed once, it would have every later stale read refused."""
_SESSION_DIGITS: Final = frozenset("0123456789abcdef")


class Unintelligible(WireError):
    """The answer is none that a node of ours gives: who knows what was done."""


class DoesNotLead(Unintelligible):
    """The answer is a node's own word, and the leader's was asked for."""


class Wish(NamedTuple, Generic[T_co]):
    """A request, and how its answer is read."""

    method: bytes
    target: bytes
    kind: Kind
    read: Callable[[HttpAnswer], T_co]
    """Of an answer that decides. Raises ConditionFailed, or Unintelligible."""
    fields: bytes = b""
    """Further header lines, each ended by CRLF."""
    body: bytes = b""
    whom: Whom | Address = Whom.LEADER
    lane: Lane | None = None
    """With whom it may share a connection; None: it has one for itself."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What a write demands of its key; at most one of them."""

    revision: int | None = None
    """The mod revision that it must have; 0: it must be absent."""
    absent: bool = False
    present: bool = False

    def __post_init__(self) -> None:
        if (self.revision is not None) + self.absent + self.present > 1:
            raise ValueError("a write has one condition at most")
        if self.revision is not None and (type(self.revision) is not int or self.revision < 0):
            raise ValueError(f"a revision is a whole number of at least 0, not {self.revision!r}")

    @property
    def fields(self) -> bytes:
        """In HTTP's words."""
        if self.absent or self.revision == 0:
            return b"If-None-Match: *\r\n"
        if self.revision is not None:
            return b'If-Match: "%d"\r\n' % self.revision
        return b"If-Match: *\r\n" if self.present else b""

    def compares(self, key: bytes) -> list[Compare]:
        """In a transaction's words."""
        if self.absent or self.revision == 0:
            return [Compare.absent(key)]
        if self.revision is not None:
            return [Compare.mod_revision(key, "==", self.revision)]
        return [Compare.present(key)] if self.present else []


ANY: Final = Condition()


# ------------------------------------------------------------------------------------------------- writes


def put(key: bytes, value: bytes, condition: Condition) -> Wish[PutDone]:
    """The key gets the value."""
    if key in _NOT_IN_A_PATH:
        operations = [Op.put(key, value), Op.get(key)]
        return _in_a_txn(key, condition, operations, _put_in_a_txn)
    lane = Lane.WRITES if len(value) <= SHARED_VALUE_BYTES_MAX else None
    return Wish(b"PUT", _key_target(key), Kind.NUMBERED, _read_put, condition.fields, value, lane=lane)


def delete(key: bytes, condition: Condition) -> Wish[DeleteDone]:
    """The key is absent."""
    if key in _NOT_IN_A_PATH:
        return _in_a_txn(key, condition, [Op.delete(key)], _delete_in_a_txn)
    return Wish(b"DELETE", _key_target(key), Kind.NUMBERED, _read_delete, condition.fields, lane=Lane.WRITES)


def delete_range(bounds: dict[str, bytes], *, limit: int | None, all_keys: bool) -> Wish[DeleteRangeDone]:
    """Some keys within the bounds are absent."""
    query = _query({**bounds, "limit": limit, "all": True if all_keys else None})
    return Wish(b"DELETE", b"/v1/kv" + query, Kind.NUMBERED, _read_delete_range)


def txn(compare: Sequence[Compare], success: Sequence[Op], failure: Sequence[Op]) -> Wish[TxnDone]:
    """One branch is executed."""
    body = msgpack.packb(
        {
            "compare": [one.fields for one in compare],
            "success": [one.fields for one in success],
            "failure": [one.fields for one in failure],
        }
    )
    return Wish(b"POST", b"/v1/txn", Kind.NUMBERED, _read_txn, _STRUCTURED, body)


def _in_a_txn(key: bytes, condition: Condition, operations: list[Op], read: Callable[[TxnDone], T]) -> Wish[T]:
    wish = txn(condition.compares(key), operations, [Op.get(key)])

    def done(answer: HttpAnswer) -> T:
        found = _read_txn(answer)
        if found.succeeded:
            return read(found)
        held = _only(found.results, TxnGet).item
        raise ConditionFailed(mod_revision=0 if held is None else held.mod_revision, revision=found.revision)

    return Wish(wish.method, wish.target, wish.kind, done, wish.fields, wish.body)


def _put_in_a_txn(done: TxnDone) -> PutDone:
    item = _only(done.results[1:], TxnGet).item
    if item is None:
        raise Unintelligible("a key that was put is absent")
    return PutDone(item.mod_revision, item.create_revision, item.version)


def _delete_in_a_txn(done: TxnDone) -> DeleteDone:
    return DeleteDone(_only(done.results, TxnDelete).deleted, done.revision)


# -------------------------------------------------------------------------------------------------- reads


@dataclass(frozen=True, slots=True)
class Freshness:
    """How fresh a read must be."""

    consistency: Consistency = "linearizable"
    max_staleness_ms: int | None = None
    min_index: int | None = None
    whom: Whom = field(init=False)
    """Who can answer it."""
    lane: Lane | None = field(init=False)
    """With whom it may share a connection. How long a bound on its age makes it wait, nobody else waits."""

    def __post_init__(self) -> None:
        if self.consistency not in CONSISTENCIES:
            raise ValueError(f"consistency is one of {', '.join(CONSISTENCIES)}, not {self.consistency!r}")
        if self.max_staleness_ms is not None and self.consistency != "stale":
            raise ValueError("max_staleness_ms goes with consistency='stale'")
        object.__setattr__(self, "whom", Whom.ANYBODY if self.consistency in _FROM_ANYBODY else Whom.LEADER)
        object.__setattr__(self, "lane", _LANES[self.consistency] if self.max_staleness_ms is None else None)

    @property
    def parameters(self) -> dict[str, str | int | None]:
        """For the query."""
        return {
            "consistency": None if self.consistency == "linearizable" else self.consistency,
            "min_index": self.min_index or None,
            "max_staleness_ms": self.max_staleness_ms,
        }


LINEARIZABLE: Final = Freshness()


def get(key: bytes, fresh: Freshness) -> Wish[Item | None]:
    """What the key holds; None: it is absent."""
    if key in _NOT_IN_A_PATH:
        page = range_page({"start": key, "end": key + b"\0"}, fresh, limit=1)

        def first(answer: HttpAnswer) -> Item | None:
            return next(iter(page.read(answer).items), None)

        return Wish(b"GET", page.target, Kind.READ, first, page.fields, whom=page.whom)

    def read(answer: HttpAnswer) -> Item | None:
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise Unintelligible(f"status {answer.status} is no answer to this")
        return Item(
            key,
            answer.body,
            _number_field(answer, b"raftkv-create-revision"),
            _revision_of(answer),
            _number_field(answer, b"raftkv-version"),
        )

    target = _key_target(key)
    if fresh is not LINEARIZABLE:
        target += _query(fresh.parameters)
    return Wish(b"GET", target, Kind.READ, read, whom=fresh.whom, lane=fresh.lane)


def range_page(
    bounds: dict[str, bytes],
    fresh: Freshness,
    *,
    limit: int | None = None,
    reverse: bool = False,
    keys_only: bool = False,
    cursor: str | None = None,
) -> Wish[Page]:
    """Some items of a range, from its beginning or from a cursor on, which holds bounds and direction itself."""
    where: dict[str, bytes | str | bool | None] = {"cursor": cursor}
    if cursor is None:
        where = {**bounds, "reverse": True if reverse else None}
    query = _query({**where, "limit": limit, "keys_only": True if keys_only else None, **fresh.parameters})
    accept = b"Accept: " + _MSGPACK + b"\r\n"
    return Wish(b"GET", b"/v1/kv" + query, Kind.READ, _read_page, accept, whom=fresh.whom)


# ----------------------------------------------------------------------------- sessions, nodes, the cluster


@dataclass(frozen=True, slots=True)
class Opened:
    """A session exists."""

    id: str
    ttl_ms: int


def open_session(ttl_ms: int) -> Wish[Opened]:
    """A new session exists. Asked again, it is yet another one, and the first runs out."""
    return Wish(b"POST", b"/v1/sessions", Kind.REPEATABLE, _read_opened, _STRUCTURED, msgpack.packb({"ttl_ms": ttl_ms}))


def keep_alive(session: str) -> Wish[None]:
    """The session lives for another whole time to live."""
    target = f"/v1/sessions/{session}/keepalive".encode()
    return Wish(b"POST", target, Kind.REPEATABLE, _read_nothing)


def close_session(session: str) -> Wish[None]:
    """The session is gone."""
    return Wish(b"DELETE", f"/v1/sessions/{session}".encode(), Kind.REPEATABLE, _read_nothing)


def cluster(whom: Whom | Address) -> Wish[ClusterStatus]:
    """The cluster as a node sees it."""
    read = _read_cluster if isinstance(whom, Address) else _read_leaders_cluster
    return Wish(b"GET", b"/v1/cluster", Kind.READ, read, whom=whom)


def status(whom: Whom | Address) -> Wish[NodeStatus]:
    """What a node says of itself."""
    read = _read_status if isinstance(whom, Address) else _read_leaders_status
    return Wish(b"GET", b"/v1/status", Kind.READ, read, whom=whom)


def transfer_leadership(to: str | None) -> Wish[LeaderDone]:
    """That voter leads; None: the best placed of the others, and so another one each time that it is asked."""
    body = b"{}" if to is None else json.dumps({"id": to}).encode()
    kind = Kind.ONCE if to is None else Kind.REPEATABLE
    return Wish(b"POST", b"/v1/admin/leader", kind, _read_leader, b"Content-Type: application/json\r\n", body)


# ------------------------------------------------------------------------------------------ out of answers


def applied_index_of(answer: HttpAnswer) -> int:
    """The log index that the answer reflects; 0: it says none that a log can have."""
    value = answer.fields.get(b"raftkv-applied-index", b"")
    index = int(value) if value.isdigit() and len(value) < 20 else 0
    return index if index <= _INDEX_MAX else 0


def _read_put(answer: HttpAnswer) -> PutDone:
    fields = _decided(answer)
    return PutDone(_number(fields, "revision"), _number(fields, "create_revision"), _number(fields, "version"))


def _read_delete(answer: HttpAnswer) -> DeleteDone:
    fields = _decided(answer)
    return DeleteDone(_number(fields, "deleted") > 0, _number(fields, "revision"))


def _read_delete_range(answer: HttpAnswer) -> DeleteRangeDone:
    fields = _decided(answer)
    return DeleteRangeDone(_number(fields, "deleted"), _of(fields, "more", bool), _number(fields, "revision"))


def _read_txn(answer: HttpAnswer) -> TxnDone:
    fields = _decided(answer)
    results = tuple(_txn_outcome(outcome) for outcome in _of(fields, "results", list))
    return TxnDone(_of(fields, "succeeded", bool), results, _number(fields, "revision"))


def _txn_outcome(outcome: Any) -> TxnOutcome:
    if not isinstance(outcome, dict) or len(outcome) != 1:
        raise Unintelligible("a transaction's result is a map of one")
    ((name, told),) = outcome.items()
    if name == "get":
        return TxnGet(None if told is None else _item(told))
    if not isinstance(told, dict):
        raise Unintelligible(f"the result of a {name} is no map")
    match name:
        case "put":
            return TxnPut(_number(told, "revision"), _number(told, "version"))
        case "delete":
            return TxnDelete(_number(told, "deleted") > 0)
        case "range":
            return TxnRange(tuple(map(_item, _of(told, "items", list))), _of(told, "more", bool))
        case "delete_range":
            return TxnDeleteRange(_number(told, "deleted"), _of(told, "more", bool))
    raise Unintelligible(f"the result of an unknown operation {name!r}")


def _only(results: Sequence[TxnOutcome], kind: type[T]) -> T:
    """The one result that there is, of the kind that it must be."""
    if len(results) != 1 or not isinstance(results[0], kind):
        raise Unintelligible("a transaction's results do not belong to its operations")
    return results[0]


def _read_page(answer: HttpAnswer) -> Page:
    fields = _decided(answer)
    items = tuple(map(_item, _of(fields, "items", list)))
    next_ = _of(fields, "next", str) if _of(fields, "more", bool) else None
    return Page(items, _number(fields, "revision"), next_)


def _item(told: Any) -> Item:
    if not isinstance(told, dict):
        raise Unintelligible("an item is no map")
    value = _octets(told, "value") if "value" in told or "value_base64" in told else b""
    revisions = (_number(told, "create_revision"), _number(told, "mod_revision"), _number(told, "version"))
    return Item(_octets(told, "key"), value, *revisions)


def _read_opened(answer: HttpAnswer) -> Opened:
    fields = _decided(answer)
    id = _of(fields, "session", str)
    if len(id) != 32 or not _SESSION_DIGITS.issuperset(id):
        raise Unintelligible(f"{id[:64]!r} is no session's id")
    ttl_ms = _number(fields, "ttl_ms")
    if ttl_ms < TTL_MS_MIN:
        raise Unintelligible(f"no session lives for {ttl_ms} ms only")  # It would want signs of life without pause.
    return Opened(id, ttl_ms)


def _read_nothing(answer: HttpAnswer) -> None:
    _decided(answer)


def _read_cluster(answer: HttpAnswer) -> ClusterStatus:
    fields = _decided(answer)
    return ClusterStatus(
        _or_none(fields, "cluster_id", str),
        _number(fields, "term"),
        _or_none(fields, "leader_id", str),
        tuple(map(_member, _of(fields, "voters", list))),
        tuple(map(_member, _of(fields, "learners", list))),
        fields.get("change") is not None,
    )


def _read_leaders_cluster(answer: HttpAnswer) -> ClusterStatus:
    told = _read_cluster(answer)
    if answer.fields.get(b"raftkv-node", b"").decode("latin-1") not in ("", told.leader_id):
        raise DoesNotLead("it does not lead")
    return told


def _member(told: Any) -> Member:
    if not isinstance(told, dict):
        raise Unintelligible("a member is no map")
    numbers = (_or_none(told, "match_index", int), _or_none(told, "last_contact_ms", int))
    return Member(_of(told, "id", str), _or_none(told, "url", str), *numbers)


def _read_status(answer: HttpAnswer) -> NodeStatus:
    fields = _decided(answer)
    return NodeStatus(
        id=_of(fields, "id", str),
        role=_of(fields, "role", str),
        term=_number(fields, "term"),
        leader_id=_or_none(fields, "leader_id", str),
        leader_url=_or_none(fields, "leader_url", str),
        commit_index=_or_none(fields, "commit_index", int),
        applied_index=_or_none(fields, "applied_index", int),
        last_index=_or_none(fields, "last_index", int),
        snapshot_index=_or_none(fields, "snapshot_index", int),
        log_bytes=_or_none(fields, "log_bytes", int),
        revision=_or_none(fields, "revision", int),
        state_hash=_or_none(fields, "state_hash", str),
        version=_of(fields, "version", str),
        uptime_ms=_number(fields, "uptime_ms"),
    )


def _read_leaders_status(answer: HttpAnswer) -> NodeStatus:
    told = _read_status(answer)
    if told.role != "leader":
        raise DoesNotLead("it does not lead")
    return told


def _read_leader(answer: HttpAnswer) -> LeaderDone:
    fields = _decided(answer)
    leader = _of(fields, "leader", dict)
    return LeaderDone(
        _of(leader, "id", str), _of(leader, "url", str), _number(fields, "term"), _of(fields, "changed", bool)
    )


def _decided(answer: HttpAnswer) -> dict[str, Any]:
    """The map in the body; of a 412 it says what the key is instead."""
    fields = _map(answer)
    if answer.status == 412:
        raise ConditionFailed(mod_revision=_number(fields, "mod_revision"), revision=_number(fields, "revision"))
    if answer.status >= 300:
        raise Unintelligible(f"status {answer.status} is no answer to this")
    return fields


def _map(answer: HttpAnswer) -> dict[str, Any]:
    try:
        if answer.fields.get(b"content-type", b"").startswith(_MSGPACK):
            told = msgpack.unpackb(answer.body, strict_map_key=True)
        else:
            told = _JSON.decode(answer.body.decode())
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise Unintelligible(f"the body of a {answer.status} is not what its type says") from error
    if not isinstance(told, dict):
        raise Unintelligible(f"the body of a {answer.status} is no map")
    return told


def _of(fields: dict[str, Any], name: str, kind: type[T]) -> T:
    value = fields.get(name)
    if type(value) is not kind:
        raise Unintelligible(f"{name} is {value!r:.60}, not of {kind.__name__}")
    return value


def _or_none(fields: dict[str, Any], name: str, kind: type[T]) -> T | None:
    return None if fields.get(name) is None else _of(fields, name, kind)


def _number(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    return value if type(value) is int else _of(fields, name, int)


def _octets(fields: dict[str, Any], name: str) -> bytes:
    value = fields.get(name)
    if isinstance(value, bytes):
        return value
    try:
        if isinstance(value, str):
            return value.encode()
        return b64decode(_of(fields, f"{name}_base64", str), validate=True)
    except ValueError as error:
        raise Unintelligible(f"{name} is neither text nor base64") from error


def _number_field(answer: HttpAnswer, name: bytes) -> int:
    value = answer.fields.get(name, b"")
    if not value.isdigit() or len(value) > 19:
        raise Unintelligible(f"{name.decode()} is {value[:60]!r}, no number")
    return int(value)


def _revision_of(answer: HttpAnswer) -> int:
    tag = answer.fields.get(b"etag", b"")
    if len(tag) < 3 or len(tag) > 21 or tag[:1] + tag[-1:] != b'""' or not tag[1:-1].isdigit():
        raise Unintelligible(f"the ETag is {tag[:60]!r}, no revision")
    return int(tag[1:-1])


def _key_target(key: bytes) -> bytes:
    if _STANDS_FOR_ITSELF.fullmatch(key) is not None:
        return b"/v1/kv/" + key
    return b"/v1/kv/" + quote(key, safe="").encode()


def _query(parameters: dict[str, Any]) -> bytes:
    """Of those that are not None."""
    given = [f"{name}={_escaped(value)}" for name, value in parameters.items() if value is not None]
    return ("?" + "&".join(given)).encode() if given else b""


def _escaped(value: bytes | str | int | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return quote(value if isinstance(value, bytes) else str(value), safe="")
