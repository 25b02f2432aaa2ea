"""What becomes of a request whose answering raised what nobody foresaw: a bug of ours.

Told: the exception, and which request it was. Tells: the log, once, with the way and not the words of it; the client,
500. May never know: which front asked.
"""

from __future__ import annotations

import logging
from typing import Final

from raftkv.api.problems import problem
from raftkv.api.responses import Response
from raftkv.problems import Code

_LOG: Final = logging.getLogger("raftkv.api")


def request_failed(error: BaseException | None, method: str, raw_path: str) -> Response:
    """The answer; the log has the exception's traceback."""
    _LOG.error(
        "a request failed",
        exc_info=error,
        extra={"event": "request_failed", "fields": {"method": method, "route": _route_in(raw_path)}},
    )
    return problem(Code.INTERNAL, "see this node's log")


def _route_in(raw_path: str) -> str:
    """As much of it as is no client's key or session."""
    return "/".join(raw_path.partition("?")[0].split("/")[:3])
