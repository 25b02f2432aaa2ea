"""POSTs whose body is one JSON or msgpack map.

Told: a request; which fields it may have, its action says. Tells: the fields, once the body is there. May never
know: what they mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftkv.api.bodies import body_type, fields_of
from raftkv.api.exchange import Context, Decision, Pending, away_from_leader
from raftkv.api.requests import Request, refuse_large_body
from raftkv.api.responses import Respond


def post(
    context: Context,
    request: Request,
    act: Callable[[dict[str, Any], Respond], None],
) -> Decision:
    """To the leader: answered at once where the head settles it; otherwise ``act`` gets the fields, and answers."""
    pending = post_here(context, request, act)
    return away_from_leader(context, request) or pending


def post_here(
    context: Context,
    request: Request,
    act: Callable[[dict[str, Any], Respond], None],
) -> Decision:
    """The same to whichever node was asked."""
    taken = request.body
    assert taken is not None, "the action takes no body"
    written_in = body_type(request, empty_needs_none=taken.empty_needs_no_type)
    body_bytes_max = taken.bytes_max(context.settings)
    refuse_large_body(request, body_bytes_max=body_bytes_max)
    return Pending(body_bytes_max, lambda body, respond: act(fields_of(body, written_in, known=taken.fields), respond))
