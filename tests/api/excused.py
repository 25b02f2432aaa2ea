"""Hooks of schemathesis: what no schema of single parameters can say.

Rules of the page that tie parameters to each other, or to bytes instead of characters, are kept in most of what is
generated (``kept``). Where they are not, and the request is refused, that is excused by the words of the refusal;
whatever else is refused stays a finding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import schemathesis

RULES = (
    "If-Match and If-None-Match exclude each other",
    "Raftkv-Session and Raftkv-Sequence go together",
    "min_index and max_staleness_ms go with consistency=stale",
    "prefix goes without start and end",
    "all=true means every key, and goes without bounds",
    "no bound is given; to delete every key, say all=true",
    "a bound is empty; leave it out, and to delete every key say all=true",
    "this is no cursor of ours; take it from the answer as it is, or begin the range anew",
    "bytes, not",  # a key or bound within its characters, but not within its bytes
    "a target has at most",  # as many bytes as characters may take
    "a range counts with all that is within its bounds",  # duplicate_key
    "a transaction has at most 128 operations in all",  # of both branches together
    "is there twice",  # one id or URL of several members
    "nobody would vote any more",
    "say what is to change: role, url or both",
    "takes one strong tag",  # schemathesis makes tags up itself, whatever the schema says
)
EXCLUDED = (
    ("prefix", ("start", "end")),
    ("all", ("prefix", "start", "end", "limit")),
    ("If-Match", ("If-None-Match",)),
    ("", ("cursor", "Raftkv-Session", "Raftkv-Sequence", "Raftkv-Acknowledged")),
)
"""With the first (or always), without the others."""
MAY_BE_TOO_STALE = "too_stale"
MIN_INDEX_MAX = 3
"""Of a log that young; to wait for the deadline each time would teach nobody anything."""


def is_excused(kind: str, status: int, body: bytes) -> bool:
    problem = json.loads(body) if body else {}
    if kind == "RejectedPositiveData":
        return not body or any(rule in problem["detail"] for rule in RULES)
    return kind == "ServerError" and status == 503 and problem.get("code", MAY_BE_TOO_STALE) == MAY_BE_TOO_STALE


def kept(given: Mapping[str, Any]) -> dict[str, Any]:
    """The same parameters or headers, as a client that has read the page would send them."""
    found = dict(given)
    for name, others in EXCLUDED:
        if not name or name in found:
            found = {other: value for other, value in found.items() if other not in others}
    if found.get("consistency") != "stale":
        found.pop("min_index", None)
        found.pop("max_staleness_ms", None)
    elif isinstance(found.get("min_index"), int):
        found["min_index"] %= MIN_INDEX_MAX
    return found


def at_the_node_asked(case: Any) -> None:
    """A new member is asked who it is for up to 10 s: here it is the node itself that answers, and at once."""
    for named in _named_in(case.body):
        if isinstance(named.get("url"), str):
            named["url"] = case.operation.base_url.rstrip("/")


def _named_in(body: Any) -> list[dict[str, Any]]:
    if not isinstance(body, dict):
        return []
    lists = [one for name in ("voters", "learners") if isinstance(body.get(name), list) for one in body[name]]
    return [one for one in (body, *lists) if isinstance(one, dict)]


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    return not is_excused(type(failure).__name__, response.status_code, response.content)


@schemathesis.hook
def map_case(context: Any, case: Any) -> Any:
    if case.meta is None or case.meta.generation.mode.is_positive:
        case.query = kept(case.query or {})
        case.headers = kept(case.headers or {})
        if case.operation.path.startswith("/v1/admin/members"):
            at_the_node_asked(case)
    return case
