"""Log lines on standard error: one line an event, UTC with milliseconds, key=value or JSON.

    2026-01-31T12:00:00.123Z INFO node=n1 event=became_leader term=4 msg="n1: leader in term 4"

Every line of ours has the name of its event, which is one of ``EVENTS``, and whatever one may want to search for as
fields of its own. No secret, no value and no key of a client's is ever in one.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

ROOT: Final = "raftkv"
EVENTS: Final[Mapping[str, str]] = {
    # the core
    "became_leader": "this node leads in `term`",
    "stepped_down": "it leads no more; the text says why",
    "follows": "it follows another leader",
    "stands": "it stands for election in `term`",
    "voted": "it has given its vote",
    "refused_vote": "it has refused a vote; the text says why",
    "append_refused": "a follower's log does not match this leader's there: it is searched further back",
    "truncated": "entries that were never committed gave way to the leader's",
    "snapshot_needed": "a follower needs entries that this log no longer has",
    "refused_message": "a message that no node of this cluster sends",
    "transfer_began": "leadership is being handed over",
    "transfer_gave_up": "it was not taken over in time; this node goes on leading",
    "disk_stalled": "this leader's disk does not answer: it hands over, or says that nobody could",
    "replicas_disagree": "a follower had another state at the same log index",
    "state_is_wrong": "a majority has another state than this node, which serves nothing until it is started anew",
    # the node
    "not_formed": "it waits for others to form the cluster, or cannot; the text says for whom, or why",
    "takes_part": "its log is read, and it takes part in `cluster` from `term` and `last_index` on",
    "recovered": "what was found in the log when it was opened, and is not as a clean stop leaves it",
    "peer_moved": "`peer` is reached at `url` now",
    "peer_refuses": "`peer` refuses this node",
    "peer_is_another": "somebody is not who it should be: emptied, of another cluster, at another's address",
    "peer_left": "`peer` stops, and said why",
    "stranger_refused": "somebody who is no peer was refused",
    "clients_unproved": "this node's port for clients is open to whoever reaches it",
    "disk_full": "there is no room for another segment: puts are refused",
    "disk_has_room": "there is room again",
    "loop_stalled": "the event loop stood still for `duration_ms`",
    "halted": "this node stops, because of what the text says",
    # the API
    "request_failed": "an exception that nobody foresaw, in answering a request",
    "stream_failed": "the same, in a stream",
}
"""Every event by its name: what has happened. A line of another library bears that library's name."""
_OWN_FIELDS: Final = ("time", "level", "node", "event", "msg", "exception")
_PLAIN: Final = re.compile(r"[\w.:/+\[\]-]+", re.ASCII)


def event(name: str, **fields: str | int | None) -> dict[str, Any]:
    """The ``extra`` of a log call: which event it is, and its fields."""
    assert name in EVENTS, name
    return {"event": name, "fields": fields}


class _TextFormatter(logging.Formatter):
    """Fields first, the words last, a traceback in one line with the rest."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        told = _told(record, self._node, _traceback_of(record, self))
        head = f"{told.pop('time')} {told.pop('level')}"
        last = {name: told.pop(name) for name in ("msg", "exception") if name in told}
        fields = (f"{name}={_in_text(value)}" for name, value in told.items())
        return " ".join([head, *fields, *(f"{name}={_quoted(value)}" for name, value in last.items())])


class _JsonFormatter(logging.Formatter):
    """The same as one JSON object."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_told(record, self._node, _traceback_of(record, self)))


def configure(node: str, log_format: str) -> None:
    """From now on raftkv's own lines look so; other libraries' warnings too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(node, log_format))
    logging.root.handlers = [handler]
    logging.root.setLevel(logging.WARNING)
    logging.getLogger(ROOT).setLevel(logging.INFO)


def formatter(node: str, log_format: str) -> logging.Formatter:
    """How one line looks."""
    return _JsonFormatter(node) if log_format == "json" else _TextFormatter(node)


def _told(record: logging.LogRecord, node: str, traceback: str | None) -> dict[str, Any]:
    """What a line says, in its order; a field cannot take the place of what every line has."""
    told: dict[str, Any] = {
        "time": _utc(record),
        "level": record.levelname,
        "node": node,
        "event": getattr(record, "event", record.name.removeprefix("raftkv.")),
    }
    told |= {name: value for name, value in getattr(record, "fields", {}).items() if name not in _OWN_FIELDS}
    told["msg"] = record.getMessage()
    if traceback is not None:
        told["exception"] = traceback
    return told


def _traceback_of(record: logging.LogRecord, formatter: logging.Formatter) -> str | None:
    return formatter.formatException(record.exc_info) if record.exc_info else None


def _in_text(value: object) -> str:
    """As it is where that is one plain word, else quoted."""
    text = "" if value is None else str(value)
    return text if _PLAIN.fullmatch(text) else _quoted(text)


def _quoted(value: object) -> str:
    """In one line, whatever it holds."""
    return json.dumps(str(value), ensure_ascii=False)


def _utc(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
