"""Ranges of keys: ``GET``, ``HEAD`` and ``DELETE /v1/kv?…``.

Told: requests. Tells: queries and commands to the replica, pages to the client. May never know: which keys there
are.

Each page is a read by itself. A cursor says where the last one ended, so a key that is there throughout comes
exactly once, whatever is put and deleted in between.
"""

from __future__ import annotations

from typing import Any, Final

import msgpack

from raftkv.api.actions import APPLIED_INDEX, NUMBERED, READS, Action, Answer, Numbering
from raftkv.api.cursors import CURSOR_CHARS_MAX, Cursor, cursor_after, digest_of, read_cursor, write_cursor
from raftkv.api.exchange import Context, Decision, Pending, away_from_leader, written
from raftkv.api.items import Form, form_of, item_raw, items_json
from raftkv.api.parameters import Octets, OneOf, Parameter, Schema, Switch, WholeNumber
from raftkv.api.problems import bad_request
from raftkv.api.reads import PROVENANCE, READ_PARAMETERS, freshness, read
from raftkv.api.requests import Request, numbering
from raftkv.api.responses import JSON, MSGPACK, Respond, Response, json_bytes, json_response
from raftkv.api.schemas import BOOLEAN, NUMBER, REVISION, list_of, nullable, reference, structure
from raftkv.kv.answers import DeleteRangeDone
from raftkv.kv.commands import BOUND_BYTES_MAX, COMMAND_KEYS_MAX, KEY_BYTES_MAX, DeleteRange, encode
from raftkv.kv.queries import Page, Range
from raftkv.kv.ranges import Bounds, prefix_bounds
from raftkv.outcomes import WriteOutcome

PAGE_ITEMS_MAX: Final = 10_000
PAGE_ITEMS: Final = 1_000
"""Where the client does not say how many."""
PAGE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of keys and values."""
PAGE_CHARS_MAX: Final = 8 * 1024 * 1024
"""Of JSON: 4 MiB of control characters are 24 MiB of it, which took 90 ms of the event loop's time."""


class _CursorText:
    """A cursor as the answer before gave it."""

    def read(self, raw: bytes, *, name: str) -> Cursor:
        """The place."""
        return read_cursor(raw)

    @property
    def schema(self) -> Schema:
        """Opaque."""
        return {"type": "string", "pattern": "^[A-Za-z0-9_-]+$", "maxLength": CURSOR_CHARS_MAX}


PREFIX: Final[Parameter[bytes | None]] = Parameter(
    "prefix", Octets(0, KEY_BYTES_MAX), "Keys that begin with it; not together with start or end.", None
)
START: Final[Parameter[bytes | None]] = Parameter(
    "start", Octets(0, BOUND_BYTES_MAX), "The first key; without it, from the first key of all.", None
)
END: Final[Parameter[bytes | None]] = Parameter(
    "end", Octets(1, BOUND_BYTES_MAX), "Where the range ends, itself excluded; without it, behind the last key.", None
)
LIMIT: Final = Parameter("limit", WholeNumber(1, PAGE_ITEMS_MAX), "How many items the page has at most.", PAGE_ITEMS)
KEYS_ONLY: Final = Parameter("keys_only", Switch(), "Items come without their values.", default=False)
REVERSE: Final[Parameter[bool | None]] = Parameter(
    "reverse", Switch(), "From the last key downwards; a cursor keeps its direction.", None
)
ENCODING: Final[Parameter[str | None]] = Parameter(
    "encoding", OneOf(("base64",)), "Keys and values all come in base64. In msgpack they are raw bytes anyway.", None
)
CURSOR: Final[Parameter[Cursor | None]] = Parameter(
    "cursor",
    _CursorText(),
    "Goes on behind the page that gave it as next. Bounds and direction may be left out, or must be the same.",
    None,
)
DELETE_LIMIT: Final = Parameter(
    "limit", WholeNumber(1, COMMAND_KEYS_MAX), "How many keys go at most.", COMMAND_KEYS_MAX
)
ALL: Final = Parameter("all", Switch(), "Every key there is: demanded where no bound is given.", default=False)


def get_range(context: Context, request: Request, _: bytes) -> Decision:
    """One page of the keys within the bounds."""
    wanted = freshness(request)
    form = form_of(request, encoding=ENCODING.of(request))
    keys_only, limit = KEYS_ONLY.of(request), LIMIT.of(request)
    bounds, cursor, reverse = bounds_given(request), CURSOR.of(request), REVERSE.of(request)
    if cursor is None:
        whole = bounds or Bounds(b"", None)
        begun = cursor_after(whole, reverse=bool(reverse), last_key=b"")
        rest = whole
    else:
        _refuse_other_range(cursor, bounds, reverse)
        begun, rest = cursor, cursor.rest
    query = Range(rest.start, rest.end, limit, PAGE_BYTES_MAX, begun.reverse, keys_only)
    return read(context, request, query, wanted, lambda page: _page(page, begun, keys_only=keys_only, form=form))


def bounds_given(request: Request) -> Bounds | None:
    """Those in the query; None: there are none."""
    prefix, start, end = PREFIX.of(request), START.of(request), END.of(request)
    return None if prefix is None and start is None and end is None else bounds_of(prefix, start, end)


def bounds_of(prefix: bytes | None, start: bytes | None, end: bytes | None) -> Bounds:
    """One range out of both ways to name it; raises RequestRefused for both at once."""
    if prefix is None:
        return Bounds(start or b"", end)
    if start is not None or end is not None:
        raise bad_request("prefix goes without start and end")
    return prefix_bounds(prefix)


def _refuse_other_range(cursor: Cursor, bounds: Bounds | None, reverse: bool | None) -> None:
    if bounds is not None and digest_of(bounds) != cursor.digest:
        raise bad_request("the cursor is of a range with other bounds; leave them out beside it")
    if reverse is not None and reverse != cursor.reverse:
        raise bad_request("the cursor goes the other way; leave reverse out beside it")


def _page(page: Any, begun: Cursor, *, keys_only: bool, form: Form) -> Response:
    assert type(page) is Page, page
    if form is Form.RAW:
        fields = {
            "items": [item_raw(key, record, keys_only=keys_only) for key, record in page.items],
            "revision": page.revision,
            "more": page.more,
            "next": _next(page, begun, len(page.items)) if page.more else None,
        }
        return Response(200, MSGPACK, msgpack.packb(fields))
    shown = items_json(page.items, keys_only=keys_only, form=form, chars_max=PAGE_CHARS_MAX)
    more = page.more or len(shown) < len(page.items)
    following = json_bytes(
        {"revision": page.revision, "more": more, "next": _next(page, begun, len(shown)) if more else None}
    )
    return Response(200, JSON, b'{"items":[%b],%b' % (",".join(shown).encode(), following[1:]))


def _next(page: Page, begun: Cursor, shown_count: int) -> str:
    return write_cursor(begun._replace(last_key=page.items[shown_count - 1][0]))


def delete_range(context: Context, request: Request, _: bytes) -> Decision:
    """The first keys within the bounds are gone."""
    bounds, limit, numbered = _bounds_to_delete(request), DELETE_LIMIT.of(request), numbering(request)
    form = form_of(request, encoding=None)
    away = away_from_leader(context, request)
    if away is not None:
        return away

    def act(_: bytes, respond: Respond) -> None:
        def done(outcome: WriteOutcome) -> None:
            respond(written(context, request, outcome, lambda answer: _deleted(answer, form)))

        command = DeleteRange(bounds.start, bounds.end, limit)
        context.service.submit(encode(command, numbered), done, frees_space=True)

    return Pending(0, act)


def _bounds_to_delete(request: Request) -> Bounds:
    """Raises RequestRefused where nobody said that everything is meant (faults 70)."""
    prefix, start, end = PREFIX.of(request), START.of(request), END.of(request)
    return bounds_to_delete(prefix, start, end, everything=ALL.of(request))


def bounds_to_delete(prefix: bytes | None, start: bytes | None, end: bytes | None, *, everything: bool) -> Bounds:
    """Those of a deletion: an empty or missing bound may be a slip, and must be meant."""
    if everything:
        if prefix or start or end:
            raise bad_request("all=true means every key, and goes without bounds")
        return bounds_of(prefix, start, end)
    if prefix is None and start is None and end is None:
        raise bad_request("no bound is given; to delete every key, say all=true")
    if prefix == b"" or start == b"":
        raise bad_request("a bound is empty; leave it out, and to delete every key say all=true")
    return bounds_of(prefix, start, end)


def _deleted(answer: Any, form: Form) -> Response:
    assert type(answer) is DeleteRangeDone, answer
    fields = {"deleted": answer.deleted, "more": answer.more, "revision": answer.revision}
    return Response(200, MSGPACK, msgpack.packb(fields)) if form is Form.RAW else json_response(200, fields)


BOUNDS: Final[tuple[Parameter[Any], ...]] = (PREFIX, START, END)
GET: Final[Action] = Action(
    get_range,
    "Reads a page of keys.",
    (
        Answer(
            200,
            "Items in bytewise order. A page ends at its limit, at 4 MiB of keys and values, or at 8 MiB of JSON; "
            "more tells whether further keys follow, which next goes on to.",
            structure(
                {
                    "items": list_of(reference("Item")),
                    "revision": REVISION,
                    "more": BOOLEAN,
                    "next": nullable(_CursorText().schema),
                }
            ),
            (JSON, MSGPACK),
            PROVENANCE,
        ),
    ),
    READS,
    parameters=(*BOUNDS, LIMIT, CURSOR, REVERSE, KEYS_ONLY, ENCODING, *READ_PARAMETERS),
    numbering=Numbering.IGNORED,
    description="Every page is read by itself, and pages are not one snapshot: a key that is there throughout comes "
    "exactly once.",
)
DELETE: Final[Action] = Action(
    delete_range,
    "Deletes the first keys of a range.",
    (
        Answer(
            200,
            "So many keys are absent now; more tells whether further keys are within the bounds. One request touches "
            "at most 10,000 keys and 2 MiB of keys and values, and at least one key.",
            structure({"deleted": NUMBER, "more": BOOLEAN, "revision": REVISION}),
            (JSON, MSGPACK),
            (APPLIED_INDEX,),
        ),
    ),
    NUMBERED,
    parameters=(*BOUNDS, DELETE_LIMIT, ALL),
    numbering=Numbering.TAKEN,
)
