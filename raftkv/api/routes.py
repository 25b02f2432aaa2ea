"""The route table, and the way of a request through it.

Told: heads from a front. Tells: at once an answer, or what is still needed for one. May never know: which front.

    decision = api.begin(head)              redirects, 4xx: before a byte of the body is read
    decision.finish(body, respond)          the rest, answered at once or later
    api.encode(response, …)                 the bytes on the wire
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from raftkv.api import admin, keys, reads, sessions, status
from raftkv.api.exchange import Context, Decision, pending_without_body
from raftkv.api.problems import RequestRefused, refused_response
from raftkv.api.requests import (
    Head,
    Request,
    query_parameters,
    read_head,
    refuse_body,
    refuse_conditions,
    refuse_encoded_body,
)
from raftkv.api.responses import Response, common_header_bytes, encode, without_body
from raftkv.api.service import Service
from raftkv.api.settings import ApiSettings
from raftkv.problems import Code

_NO_PARAMETERS: Final[frozenset[bytes]] = frozenset()


class Action(NamedTuple):
    """What one method does on a route."""

    decide: Callable[[Context, Request, bytes], Decision]
    """Told the part of the path that the route left open, as it came."""
    parameters: frozenset[bytes] = _NO_PARAMETERS
    """The query parameters that it knows."""
    takes_body: bool = False


class Route(NamedTuple):
    """Paths and what can be done there."""

    pattern: re.Pattern[bytes]
    """Matched against the whole raw path; its one group, if any, is what it leaves open."""
    actions: dict[str, Action]
    takes_conditions: bool = False


def _reading(decide: Callable[[Context, Request, bytes], Decision]) -> dict[str, Action]:
    return {"GET": Action(decide), "HEAD": Action(decide)}


ROUTES: Final = (
    Route(
        re.compile(rb"/v1/kv/(.*)"),
        {
            "GET": Action(reads.get, reads.READ_PARAMETERS),
            "HEAD": Action(reads.get, reads.READ_PARAMETERS),
            "PUT": Action(keys.put, takes_body=True),
            "DELETE": Action(keys.delete),
        },
        takes_conditions=True,
    ),
    Route(re.compile(rb"/v1/sessions"), {"POST": Action(sessions.open_session, takes_body=True)}),
    Route(re.compile(rb"/v1/sessions/([^/]+)"), {"DELETE": Action(sessions.close_session)}),
    Route(re.compile(rb"/v1/sessions/([^/]+)/keepalive"), {"POST": Action(sessions.keep_alive, takes_body=True)}),
    Route(re.compile(rb"/v1/status"), _reading(status.status)),
    Route(re.compile(rb"/v1/cluster"), _reading(status.cluster)),
    Route(re.compile(rb"/v1/admin/leader"), {"POST": Action(admin.transfer_leadership, takes_body=True)}),
    Route(re.compile(rb"/healthz"), _reading(status.healthz)),
    Route(re.compile(rb"/readyz"), _reading(status.readyz)),
    Route(re.compile(rb"/metrics"), _reading(status.metrics)),
)


class Api:
    """Every route of one node."""

    def __init__(self, service: Service, *, node_id: str, settings: ApiSettings, metrics: Callable[[], bytes]) -> None:
        self.settings = settings
        self._context = Context(service, settings, node_id, metrics)
        self._common_header_bytes = common_header_bytes(node_id)

    def begin(self, head: Head) -> Decision:
        """The answer where the head settles it, otherwise what to do with the body."""
        try:
            decision = self._decide(read_head(head))
        except RequestRefused as refused:
            decision = refused_response(refused)
        if head.method != "HEAD":
            return decision
        return without_body(decision) if isinstance(decision, Response) else pending_without_body(decision)

    def encode(self, response: Response, *, connection: str | None, date: str) -> bytes:
        """The answer as it goes out; ``connection`` and ``date`` are the values of those headers."""
        return encode(response, common=self._common_header_bytes, connection=connection, date=date)

    def _decide(self, request: Request) -> Decision:
        route, rest = _route_of(request.path)
        action = route.actions.get(request.method)
        if action is None:
            allowed = ", ".join(route.actions)
            raise RequestRefused(Code.METHOD_NOT_ALLOWED, f"this route takes {allowed}", (("Allow", allowed),))
        request.parameters = query_parameters(request.query, known=action.parameters)
        if not route.takes_conditions:
            refuse_conditions(request)
        if not action.takes_body:
            refuse_body(request)
        refuse_encoded_body(request)
        return action.decide(self._context, request, rest)


def _route_of(path: bytes) -> tuple[Route, bytes]:
    for route in ROUTES:
        found = route.pattern.fullmatch(path)
        if found is not None:
            return route, found[1] if route.pattern.groups else b""
    raise RequestRefused(Code.NOT_FOUND, "there is no such route")
