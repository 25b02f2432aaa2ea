"""Sessions: ``POST /v1/sessions``, ``POST /v1/sessions/{id}/keepalive``, ``DELETE /v1/sessions/{id}``.

Told: requests. Tells: commands to the replica, answers to the client. May never know: when a session ends by
itself; the log's time decides that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from raftkv.api.actions import APPLIED_INDEX, WRITES, Action, Answer, Opening
from raftkv.api.bodies import structured
from raftkv.api.exchange import Context, Decision, Pending, away_from_leader, written
from raftkv.api.posts import post
from raftkv.api.problems import bad_request
from raftkv.api.requests import Request, percent_decoded, session_of
from raftkv.api.responses import Respond, Response, json_response
from raftkv.api.schemas import SESSION, structure
from raftkv.kv.answers import SessionAlive, SessionClosed, SessionOpened
from raftkv.kv.commands import (
    TTL_MS_DEFAULT,
    TTL_MS_MAX,
    TTL_MS_MIN,
    CloseSession,
    Command,
    KeepAlive,
    OpenSession,
    encode,
)
from raftkv.outcomes import WriteOutcome
from raftkv.problems import Code

_TTL: Final = {"type": "integer", "minimum": TTL_MS_MIN, "maximum": TTL_MS_MAX, "default": TTL_MS_DEFAULT}
_ALIVE: Final = structure({"session": SESSION, "ttl_ms": _TTL})


def open_session(context: Context, request: Request, _: bytes) -> Decision:
    """A new session exists."""

    def command(fields: dict[str, Any]) -> Command:
        return OpenSession(context.service.new_session_id(), _ttl_ms(fields.get("ttl_ms", TTL_MS_DEFAULT)))

    return _session_post(context, request, command)


def keep_alive(context: Context, request: Request, raw_session: bytes) -> Decision:
    """The session lives for another whole time to live."""
    session = session_of(percent_decoded(raw_session))
    return _session_post(context, request, lambda _: KeepAlive(session))


def close_session(context: Context, request: Request, raw_session: bytes) -> Decision:
    """The session and its stored answers are gone."""
    session = session_of(percent_decoded(raw_session))
    away = away_from_leader(context, request)
    if away is not None:
        return away

    def act(_: bytes, respond: Respond) -> None:
        _submit(context, request, CloseSession(session), respond)

    return Pending(0, act)


def _session_post(context: Context, request: Request, command: Callable[[dict[str, Any]], Command]) -> Decision:
    def act(fields: dict[str, Any], respond: Respond) -> None:
        _submit(context, request, command(fields), respond)

    return post(context, request, act)


def _submit(context: Context, request: Request, command: Command, respond: Respond) -> None:
    def done(outcome: WriteOutcome) -> None:
        respond(written(context, request, outcome, _session_answer))

    context.service.submit(encode(command), done, frees_space=isinstance(command, CloseSession))


def _ttl_ms(value: Any) -> int:
    if type(value) is not int or not TTL_MS_MIN <= value <= TTL_MS_MAX:
        raise bad_request(f"ttl_ms is a whole number between {TTL_MS_MIN} and {TTL_MS_MAX}")
    return value


def _session_answer(answer: Any) -> Response:
    assert type(answer) in (SessionOpened, SessionAlive, SessionClosed), answer
    session = answer.session.hex()
    if type(answer) is SessionClosed:
        return json_response(200, {"session": session})
    fields = {"session": session, "ttl_ms": answer.ttl_ms}
    return json_response(201 if type(answer) is SessionOpened else 200, fields)


ID: Final[Opening] = Opening("session", rb"[^/]+", SESSION, "The session's id.")
OPEN: Final[Action] = Action(
    open_session,
    "Opens a session, whose writes are executed at most once.",
    (Answer(201, "The session exists.", _ALIVE, fields=(APPLIED_INDEX,)),),
    WRITES,
    body=structured({"ttl_ms": _TTL}, "How long the session lives after its last write or keepalive."),
)
KEEP_ALIVE: Final[Action] = Action(
    keep_alive,
    "Keeps a session alive.",
    (Answer(200, "The session lives for another whole time to live.", _ALIVE, fields=(APPLIED_INDEX,)),),
    (*WRITES, Code.SESSION_EXPIRED),
    body=structured({}, "An empty object, or nothing."),
)
CLOSE: Final[Action] = Action(
    close_session,
    "Ends a session.",
    (
        Answer(
            200,
            "The session and its stored answers are gone.",
            structure({"session": SESSION}),
            fields=(APPLIED_INDEX,),
        ),
    ),
    (*WRITES, Code.SESSION_EXPIRED),
)
