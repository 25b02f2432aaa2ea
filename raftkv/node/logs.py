"""Log lines on standard error: one line an event, UTC with milliseconds, key=value or JSON."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

ROOT: Final = "raftkv"


class _TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.123Z INFO node=n1 event=became_leader msg="…"``"""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        event = getattr(record, "event", record.name.removeprefix("raftkv."))
        message = json.dumps(record.getMessage(), ensure_ascii=False)
        line = f"{_utc(record)} {record.levelname} node={self._node} event={event} msg={message}"
        return line if not record.exc_info else f"{line}\n{self.formatException(record.exc_info)}"


class _JsonFormatter(logging.Formatter):
    """The same fields as one JSON object."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _utc(record),
            "level": record.levelname,
            "node": self._node,
            "event": getattr(record, "event", record.name.removeprefix("raftkv.")),
            "msg": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def configure(node: str, log_format: str) -> None:
    """From now on raftkv's own lines look so; other libraries' warnings too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter(node) if log_format == "json" else _TextFormatter(node))
    logging.root.handlers = [handler]
    logging.root.setLevel(logging.WARNING)
    logging.getLogger(ROOT).setLevel(logging.INFO)


def _utc(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
