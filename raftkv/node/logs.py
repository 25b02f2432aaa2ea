"""Log lines on standard error: one line an event, UTC with milliseconds, key=value or JSON.

    2026-01-31T12:00:00.123Z INFO node=n1 event=became_leader term=4 msg="n1: leader in term 4"

Every line of ours has the name of its event, which is one of ``EVENTS``, and whatever one may want to search for as
fields of its own. A line is one line, whatever it tells: what does not print is escaped as JSON does it. No secret, no
value and no key of a client's is ever in one; so of an exception that nobody foresaw its type and its way are told, and
not its words, which may quote what it failed at.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from asyncio import AbstractEventLoop
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from raftkv.errors import CommandError, RaftkvError, SnapshotError

_LOG: Final = logging.getLogger("raftkv.node")
ROOT: Final = "raftkv"
CORE_EVENTS: Final[Mapping[str, str]] = {
    "became_leader": "this node leads in `term`",
    "stepped_down": "it leads no more; the text says why",
    "follows": "it follows another leader",
    "stands": "it stands for election in `term`",
    "voted": "it has given its vote",
    "refused_vote": "it has refused a vote; the text says why",
    "append_refused": "a follower's log does not match this leader's there: it is searched further back",
    "truncated": "entries that were never committed gave way to the leader's",
    "snapshot_needed": "a follower needs entries that this log no longer has: it is sent a snapshot",
    "snapshot_installed": "a leader's snapshot has come and counts: this node's log begins anew after it",
    "snapshot_unproved": "no majority said in time that it has the state of a snapshot, which counts all the same",
    "capture_failed": "the state machine raised when its state was to be captured: no snapshot, and the log grows",
    "refused_message": "a message that no node of this cluster sends",
    "transfer_began": "leadership is being handed over",
    "transfer_gave_up": "it was not taken over in time; this node goes on leading",
    "disk_stalled": "this leader's disk does not answer: it hands over, or says that nobody could",
    "members_change": "another configuration is in this leader's log; the text says who is in it",
    "members_called_off": "whoever asked has ended the change by which these were to vote; the members are as before",
    "members_gave_up": "too late: who was to vote is behind, or most are away; the members are to be as before",
    "removed": "this node is no member of the cluster any more",
    "replicas_disagree": "a follower had another state at the same log index",
    "state_is_wrong": "a majority has another state than this node, which serves nothing until it is started anew",
}
"""What the core notes; each is counted too, by ``raftkv_core_events_total``. All have the `term`."""
EVENTS: Final[Mapping[str, str]] = {
    **CORE_EVENTS,
    # the node
    "not_formed": "it waits for others to form the cluster, or cannot; the text says for whom, or why",
    "not_joined": "a cluster that was asked to let this node in has not, or not yet; the text says why",
    "let_go": "somebody has called it off that this node joins; it asks no more, the text says what to do",
    "joined": "the cluster has let this node in",
    "no_member": "this node knows by its log up to `index` that it is no member any more; the text says what to do",
    "let_in_again": "it is a member again",
    "not_moved": "`peer` says that it is at `url` now, and the log does not say so; the text says why",
    "takes_part": "its log is read, and it takes part in `cluster` from `term` and `last_index` on",
    "replaced": "at its start it has finished what a killed `raftkv recover` or `raftkv restore` had begun",
    "recovered": "what was found in the log when it was opened, and is not as a clean stop leaves it",
    "peer_moved": "`peer` is reached at `url` now",
    "peer_refuses": "`peer` refuses this node",
    "peer_is_another": "`peer` is emptied, or of another cluster, or somebody else answers at its address",
    "peer_left": "`peer` stops, and said why",
    "stranger_refused": "somebody who is no peer was refused",
    "clients_unproved": "this node's port for clients is open to whoever reaches it",
    "disk_full": "there is no room for another segment: puts are refused",
    "disk_has_room": "there is room again",
    "snapshot_taken": "a snapshot of everything up to `index` is in place; `bytes`, and `duration_ms` it took",
    "snapshot_failed": "no snapshot was taken, the text says why; the log grows until the next attempt",
    "snapshot_restored": "at its start the state came from the snapshot at `index`, of `bytes`",
    "snapshot_received": "the leader has sent the snapshot at `index`, of `bytes`, whole",
    "snapshot_loads": "the snapshot at `index` that was sent takes the place of the state; nothing is read meanwhile",
    "snapshot_loaded": "it has, in `duration_ms`; the log goes on after `index`",
    "snapshot_trouble": "a file of a snapshot that was sent or received is not as it should be; the text says more",
    "loop_stalled": "the event loop stood still for `duration_ms`",
    "halted": "this node stops, because of what the text says",
    "unforeseen": "an exception that nobody waited for; the node goes on",
    # the API
    "request_failed": "an exception that nobody foresaw, in answering a request by `method` and `route`",
    "stream_failed": "the same, in a stream",
}
"""Every event by its name: what has happened. A line of another library bears that library's name."""
_OWN_FIELDS: Final = ("time", "level", "node", "event", "msg", "exception")
_PLAIN: Final = re.compile(r"[\w.:/+\[\]-]+", re.ASCII)
_FRAMES_MAX: Final = 40
"""Of a traceback, the innermost: a recursion without end has a thousand."""


def event(name: str, **fields: str | int | None) -> dict[str, Any]:
    """The ``extra`` of a log call: which event it is, and its fields."""
    assert name in EVENTS, name
    return {"event": name, "fields": fields}


def in_words(error: BaseException) -> str:
    """What went wrong, in words that are ours; of anybody else's exception its type and where it was raised."""
    words = _own_words(error)
    if words:
        return words
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    return type(error).__name__ + "".join(f" in {frame.name}, {frame.filename}:{frame.lineno}" for frame in frames)


def way_of(error: BaseException) -> str:
    """The traceback, without the words of exceptions that are not ours."""
    return "\nafter this:\n".join(reversed([_told_of(each) for each in _chain(error)]))


def on_unforeseen(_loop: AbstractEventLoop, context: dict[str, Any]) -> None:
    """The handler of an event loop's exceptions. The loop's own shows callbacks with what they were called with."""
    words = str(context.get("message", "")).partition("(")[0].strip()
    _LOG.error("%s", words, exc_info=context.get("exception"), extra=event("unforeseen"))


class _TextFormatter(logging.Formatter):
    """Fields first, the words last, a traceback in one line with the rest."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        told = _told(record, self._node)
        head = f"{told.pop('time')} {_in_text(told.pop('level'))}"
        last = {name: told.pop(name) for name in ("msg", "exception") if name in told}
        fields = (f"{name}={_in_text(value)}" for name, value in told.items())
        return " ".join([head, *fields, *(f"{name}={_quoted(value)}" for name, value in last.items())])


class _JsonFormatter(logging.Formatter):
    """The same as one JSON object, in ASCII."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_told(record, self._node), default=str)


def configure(node: str, log_format: str, log_level: str) -> None:
    """From now on raftkv's own lines of that level and graver ones look so; other libraries' warnings too."""
    level = logging.getLevelNamesMapping()[log_level.upper()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(node, log_format))
    logging.root.handlers = [handler]
    logging.root.setLevel(max(level, logging.WARNING))
    logging.getLogger(ROOT).setLevel(level)
    logging.captureWarnings(capture=True)


def formatter(node: str, log_format: str) -> logging.Formatter:
    """How one line looks."""
    return _JsonFormatter(node) if log_format == "json" else _TextFormatter(node)


def _told(record: logging.LogRecord, node: str) -> dict[str, Any]:
    """What a line says, in its order; a field cannot take the place of what every line has."""
    is_ours = record.name.startswith(f"{ROOT}.")
    name, fields = (getattr(record, "event", None), getattr(record, "fields", {})) if is_ours else (None, {})
    told: dict[str, Any] = {
        "time": _utc(record),
        "level": record.levelname,
        "node": node,
        "event": name or record.name.removeprefix(f"{ROOT}."),
    }
    told |= {name: value for name, value in fields.items() if name not in _OWN_FIELDS}
    told["msg"] = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        told["exception"] = way_of(record.exc_info[1])
    return told


def _own_words(error: BaseException) -> str:
    """An exception's words where they were written here, or by the operating system; else nothing.

    An assertion that shows an object, say an answer, shows what is in it.
    """
    if isinstance(error, AssertionError):
        return "".join(words for words in error.args if isinstance(words, str))
    is_ours = isinstance(error, (RaftkvError, OSError))
    return str(error) if is_ours and not isinstance(error, (CommandError, SnapshotError)) else ""


def _told_of(error: BaseException) -> str:
    frames = traceback.format_tb(error.__traceback__, limit=-_FRAMES_MAX)
    return "".join(frames) + ": ".join(filter(None, (type(error).__name__, _own_words(error))))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """It, and what it came of, the newest first."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)


def _in_text(value: object) -> str:
    """As it is where that is one plain word, else quoted."""
    text = "" if value is None else str(value)
    return text if _PLAIN.fullmatch(text) else _quoted(text)


def _quoted(value: object) -> str:
    """In one line, and as it looks, whatever it holds: what does not print, or turns the rest around, is escaped."""
    quoted = json.dumps(str(value), ensure_ascii=False)
    if quoted.isprintable():
        return quoted
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in quoted)


def _utc(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
