"""What the API can do, said once: the code that serves goes by it, and the OpenAPI document is made of it.

Told: nothing. Tells: the words of which the route table is written. May never know: which routes there are.

A query parameter, a condition, a numbering or a body that an action does not list is refused before the action
hears of the request, so what is documented is what is taken. That what is answered is documented, the contract
tests see to: they hold every answer that they get against the document.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, NamedTuple

from raftkv.api.exchange import Context, Decision
from raftkv.api.parameters import Parameter, Schema
from raftkv.api.requests import Body, Request
from raftkv.api.responses import JSON
from raftkv.api.schemas import NUMBER
from raftkv.problems import Code


class Conditions(Enum):
    """Which of HTTP's conditions an action takes; others are refused, never ignored."""

    NONE = "none"
    READ = "read"
    """``If-None-Match: "<revision>"``: what the client has already."""
    CONFIGURATION = "configuration"
    """``If-Match: "<configuration index>"`` or ``*``: which membership is to be replaced."""
    WRITE = "write"
    """``If-Match: "<revision>"`` or ``*``, ``If-None-Match: *``: what the key must be."""


class Numbering(Enum):
    """What an action does with ``Raftkv-Session``, ``Raftkv-Sequence`` and ``Raftkv-Acknowledged``."""

    IGNORED = "ignored"
    REFUSED = "refused"
    TAKEN = "taken"


class Field(NamedTuple):
    """A header field of an answer."""

    name: str
    schema: Schema
    description: str
    always: bool = True
    """Whether it is there every time."""


class Answer(NamedTuple):
    """One way in which an action succeeds."""

    status: int
    description: str
    schema: Schema | None = None
    """Of the body as JSON, or as msgpack with raw bytes where that is among the types; None: it has no such form."""
    content_types: tuple[str, ...] = (JSON,)
    """Empty: there is no body."""
    fields: tuple[Field, ...] = ()


class Action(NamedTuple):
    """What one method does on a route."""

    decide: Callable[[Context, Request, bytes], Decision]
    """Told the part of the path that the route left open, as it came."""
    summary: str
    answers: tuple[Answer, ...]
    codes: tuple[Code, ...] = ()
    """Of what can go wrong, besides ``ALWAYS_POSSIBLE``."""
    parameters: tuple[Parameter[Any], ...] = ()
    conditions: Conditions = Conditions.NONE
    numbering: Numbering = Numbering.REFUSED
    body: Body | None = None
    description: str = ""


class Opening(NamedTuple):
    """The part of a path that a route leaves open."""

    name: str
    pattern: bytes
    """Of the raw bytes for which the route is meant at all; what they hold is for the action to judge."""
    schema: Schema
    description: str


class Route(NamedTuple):
    """A path and what can be done there."""

    path: str
    """As OpenAPI writes it."""
    actions: dict[str, Action]
    opening: Opening | None = None

    def matcher(self) -> re.Pattern[bytes]:
        """Matches the whole raw path; its one group, if any, is what is left open."""
        if self.opening is None:
            return re.compile(re.escape(self.path.encode()))
        before, after = self.path.encode().split(b"{%s}" % self.opening.name.encode())
        return re.compile(b"%s(%s)%s" % (re.escape(before), self.opening.pattern, re.escape(after)))


def reading(action: Action) -> dict[str, Action]:
    """The same for GET and for HEAD."""
    return {"GET": action, "HEAD": action}


APPLIED_INDEX: Final = Field("Raftkv-Applied-Index", NUMBER, "The log index that the answer reflects.")
DUPLICATE: Final = Field(
    "Raftkv-Duplicate",
    {"const": "true"},
    "The number was executed before: this is the answer that it had then.",
    always=False,
)

ALWAYS_POSSIBLE: Final = (
    Code.BAD_REQUEST,
    Code.REQUEST_TIMEOUT,
    Code.URI_TOO_LONG,
    Code.UNSUPPORTED_MEDIA_TYPE,
    Code.OVERLOADED,
    Code.HEAD_TOO_LARGE,
    Code.INTERNAL,
    Code.SHUTTING_DOWN,
)
"""What a front may answer to anything."""
LEADERS: Final = (Code.NOT_LEADER, Code.NO_LEADER)
"""Where a leader is needed."""
READS: Final = (*LEADERS, Code.TOO_STALE, Code.REPLICAS_DISAGREE, Code.READ_TIMEOUT)
"""Of a read at any level of consistency."""
WRITES: Final = (
    *LEADERS,
    Code.TOO_LARGE,
    Code.SUPERSEDED,
    Code.REPLICAS_DISAGREE,
    Code.OUTCOME_UNKNOWN,
    Code.DISK_FULL,
)
"""Of whatever is replicated."""
NUMBERED: Final = (
    *WRITES,
    Code.SEQUENCE_TOO_OLD,
    Code.SESSION_EXPIRED,
    Code.SEQUENCE_REUSED,
    Code.TOO_MANY_UNACKNOWLEDGED,
)
"""Of a write that can be numbered."""
