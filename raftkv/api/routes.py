"""The route table, and the way of a request through it.

Told: heads from a front. Tells: at once an answer, or what is still needed for one. May never know: which front.

    decision = api.begin(head)              redirects, 4xx: before a byte of the body is read
    decision.finish(body, respond)          the rest, answered at once or later
    api.encode(response, …)                 the bytes on the wire
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

from raftkv.api import (
    admin,
    backup,
    diagnostics,
    handshake,
    keys,
    members,
    openapi,
    ranges,
    reads,
    sessions,
    snapshots,
    status,
    txns,
)
from raftkv.api.actions import Action, Conditions, Numbering, Route, reading
from raftkv.api.exchange import Context, Decision, pending_without_body
from raftkv.api.metering import NO_ACTION, Meter
from raftkv.api.parameters import read_query
from raftkv.api.plain import PlainKeys
from raftkv.api.problems import RequestRefused, problem, refused_response
from raftkv.api.requests import (
    Head,
    Request,
    read_head,
    refuse_body,
    refuse_conditions,
    refuse_encoded_body,
    refuse_numbering,
)
from raftkv.api.responses import Response, common_header_bytes, encode, json_bytes, without_body
from raftkv.api.service import Service
from raftkv.api.settings import ApiSettings
from raftkv.problems import Code

STORE_ROUTES: Final = (
    Route("/v1/kv", {"GET": ranges.GET, "HEAD": ranges.GET, "DELETE": ranges.DELETE}),
    Route(
        "/v1/kv/{key}",
        {"GET": reads.GET, "HEAD": reads.GET, "PUT": keys.PUT, "DELETE": keys.DELETE},
        keys.KEY,
    ),
    Route("/v1/txn", {"POST": txns.EXECUTE}),
    Route("/v1/sessions", {"POST": sessions.OPEN}),
    Route("/v1/sessions/{session}", {"DELETE": sessions.CLOSE}, sessions.ID),
    Route("/v1/sessions/{session}/keepalive", {"POST": sessions.KEEP_ALIVE}, sessions.ID),
    Route("/v1/stream", {"GET": handshake.OPEN}),
)
"""What only a node has that replicates the key-value store."""
NODE_ROUTES: Final = (
    Route("/v1/status", reading(status.STATUS)),
    Route("/v1/cluster", reading(status.CLUSTER)),
    Route("/v1/diagnostics", reading(diagnostics.DIAGNOSTICS)),
    Route("/v1/admin/members", {**reading(members.MEMBERS), "POST": members.ADD, "PUT": members.BECOME}),
    Route("/v1/admin/members/{id}", {"DELETE": members.REMOVE, "PATCH": members.ALTER}, members.ID),
    Route("/v1/admin/leader", {"POST": admin.TRANSFER}),
    Route("/v1/admin/snapshot", {"POST": snapshots.TAKE}),
    Route("/v1/admin/backup", {"GET": backup.GIVE}),
    Route("/v1/openapi.json", reading(openapi.DOCUMENT)),
    Route("/healthz", reading(status.HEALTHZ)),
    Route("/readyz", reading(status.READYZ)),
    Route("/metrics", reading(status.METRICS)),
)
"""What every node has, whatever it replicates."""
ROUTES: Final = (*STORE_ROUTES, *NODE_ROUTES)
"""Every route of the API. A new one is a line above; what it takes and answers stands beside its code."""

_MATCHERS: Final = tuple((route.matcher(), route) for route in ROUTES)


class Api:
    """Every route of one node."""

    def __init__(
        self,
        service: Service,
        *,
        node_id: str,
        settings: ApiSettings,
        metrics: Callable[[], bytes],
        meter: Meter | None = None,
        routes: tuple[Route, ...] = ROUTES,
    ) -> None:
        """``meter`` is told of every answer; None: nobody measures. ``routes`` are those that the node has."""
        self.settings, self.node_id = settings, node_id
        self._routes = routes
        self._meter = meter
        self._context = Context(
            service, settings, node_id, metrics, cache(lambda: json_bytes(openapi.render(routes, settings)))
        )
        self._common_header_bytes = common_header_bytes(node_id)
        self.plain_keys = PlainKeys(self._context, meter) if STORE_ROUTES[1] in routes else None
        """Takes what can be answered without looking closely; None: the node has no keys."""

    def begin(self, head: Head) -> Decision:
        """The answer where the head settles it, otherwise what to do with the body."""
        meter = self._meter
        began_ns = 0 if meter is None else meter.clock_ns()
        kind = NO_ACTION
        try:
            request = read_head(head)
            route, rest = self._route_of(request.path)
            action = _action_of(route, request.method)
            kind = (request.method, route.path)
            decision = self._decide(action, request, rest)
        except RequestRefused as refused:
            decision = refused_response(refused)
        if head.method == "HEAD":
            decision = without_body(decision) if isinstance(decision, Response) else pending_without_body(decision)
        if meter is not None:
            if isinstance(decision, Response):
                meter.answered(kind, decision.status, began_ns)
            else:
                decision.measured_by = (meter, kind, began_ns)
        return decision

    def encode(self, response: Response, *, connection: str | None, date: str) -> bytes:
        """The answer as it goes out; ``connection`` and ``date`` are the values of those headers."""
        return encode(response, common=self._common_header_bytes, connection=connection, date=date)

    def _decide(self, action: Action, request: Request, rest: bytes) -> Decision:
        request.parameters = read_query(request.query, action.parameters)
        request.body = action.body
        if action.conditions is Conditions.NONE:
            refuse_conditions(request)
        if action.numbering is Numbering.REFUSED:
            refuse_numbering(request)
        if action.body is None:
            refuse_body(request)
        refuse_encoded_body(request)
        return action.decide(self._context, request, rest)

    def why_no_stream(self, *, origins: list[str], host: str, open_count: int) -> Response | None:
        """Why a handshake opens no stream; None: it does. ``open_count`` streams are open."""
        if open_count >= self.settings.streams_max:
            return problem(Code.OVERLOADED, f"{open_count} streams are open here, as many as this node takes")
        return handshake.foreign_origin(self._context, origins=origins, host=host)

    def has_path(self, path: bytes) -> bool:
        """Whether the node has a route there."""
        return any(matcher.fullmatch(path) and route in self._routes for matcher, route in _MATCHERS)

    def _route_of(self, path: bytes) -> tuple[Route, bytes]:
        for matcher, route in _MATCHERS:
            found = matcher.fullmatch(path)
            if found is None:
                continue
            if self._routes is not ROUTES and route not in self._routes:
                raise RequestRefused(Code.NOT_FOUND, "this node replicates another state machine than the store")
            return route, found[1] if matcher.groups else b""
        raise RequestRefused(Code.NOT_FOUND, "there is no such route")


def _action_of(route: Route, method: str) -> Action:
    action = route.actions.get(method)
    if action is None:
        allowed = ", ".join(route.actions)
        raise RequestRefused(Code.METHOD_NOT_ALLOWED, f"this route takes {allowed}", (("Allow", allowed),))
    return action
