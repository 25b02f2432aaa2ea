"""Telling whoever measures what was asked, how it was answered, and how long that took.

Told: answers. Tells: a meter, once for each. May never know: what is made of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from raftkv.api.responses import Respond, Response

Kind = tuple[str, str]
"""Method and path of an action, as the route table writes them: never a client's own words."""
NO_ACTION: Final[Kind] = ("", "")
"""Of what met no route, or not with this method."""


class Meter(Protocol):
    """Whoever measures."""

    clock_ns: Callable[[], int]

    def answered(self, kind: Kind, status: int, began_ns: int) -> None:
        """One answer more, to what began then by ``clock_ns``."""
        ...


def measured(respond: Respond, meter: Meter, kind: Kind, began_ns: int) -> Respond:
    """The same, and the meter is told of the answer first."""

    def told(response: Response) -> None:
        meter.answered(kind, response.status, began_ns)
        respond(response)

    return told
