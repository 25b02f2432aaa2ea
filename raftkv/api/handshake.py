"""``GET /v1/stream``: who may open a stream, and what a request that is no handshake is answered.

Told: what the handshake says of its origin. Tells: why no stream is opened, or that it may be. May never know: what
is said on it (``stream``), or on what it is carried.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from raftkv.api.actions import Action, Answer, Numbering
from raftkv.api.exchange import Context, Decision
from raftkv.api.problems import bad_request, problem
from raftkv.api.requests import Request
from raftkv.api.responses import Response
from raftkv.problems import Code

TARGET: Final = b"/v1/stream"

_FRAMES: Final = """\
A WebSocket (RFC 6455, version 13, no extension) on which the requests under /v1/kv, /v1/txn and /v1/sessions are \
pipelined. Each message is binary, one msgpack array:

    client: [id, method, target, headers, body]
    node:   [id, status, headers, body]

id is a whole number from 0 to number_max, not that of a request that has no answer yet. method is text; target is \
text or bytes: path and query as in HTTP, percent-encoded; headers is a map from text to text; body is bytes, or nil \
where there is none. What a request means, and every status, code, header and body of its answer, is as over HTTP, but \
for what HTTP needs to carry them: Content-Length and Transfer-Encoding are refused, and the answers' common headers \
are left out (Raftkv-Node stands in the answer to the handshake; an answer to HEAD tells its Content-Length). A 307 \
names the leader: open a stream there.

Answers come as they are ready, in any order. Requests without an answer are concurrent: a read sees a write for \
certain only if it is sent after the write's answer came. While too many wait, or their answers are not taken, nothing \
more is read. Pings are answered. A client that says nothing for two thirds of the time that a connection may be idle \
is pinged, and cut off at the end of that time.

The node closes with 1001 when it stops, after what it had taken is answered; 1003 for a text message; 1007 for a \
message that is no such array; 1008 for an id in use; 1002, 1009 for broken or too long (x-raftkv-limits: \
stream_message_bytes_max) messages. What has no answer when a stream ends may have happened, or may happen yet."""


def handshake_wanted(_context: Context, _request: Request, _rest: bytes) -> Decision:
    """What a front answers that was not asked for a WebSocket, or cannot carry one."""
    raise bad_request("this is a WebSocket: ask with Upgrade: websocket and Sec-WebSocket-Version: 13")


OPEN: Final[Action] = Action(
    handshake_wanted,
    "Opens a stream: many requests to the store on one connection.",
    (Answer(101, "The stream is open.", content_types=()),),
    (Code.FORBIDDEN,),
    numbering=Numbering.IGNORED,
    description=_FRAMES,
)


def foreign_origin(context: Context, *, origins: list[str], host: str) -> Response | None:
    """A refusal where a web page of somebody else's asks (browsers say whose); None: it may be served.

    Without this any page that a user visits could write: browsers ask nobody before they open a WebSocket. A name
    in ``host`` proves nothing, since whoever owns a name may have it lead here; an address does.
    """
    if not origins:
        return None
    status = context.service.status()
    known = {member.url for member in (*status.voters, *status.learners)}
    if _names_an_address(host):
        known.add(f"http://{host}")
    if len(origins) == 1 and origins[0] in known:
        return None
    return problem(Code.FORBIDDEN, "a page of this origin may open no stream here")


def _names_an_address(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ip_address(name))
    except ValueError:
        return False
