"""The link to one peer: lanes of their own, so that a bulk append never delays a vote, a heartbeat or a read round.

Pieces of a snapshot delay neither: they have a third lane, which is there from the first piece on. Most peers never
need it.

Told: requests to send, and where the peer is. Tells: the node each reply, or that there will be none,
exactly once for every request; who the peer says it is; and that it belongs to another cluster. It never
learns a term, and repeats nothing: the core does.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from raftkv.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    Envelope,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    InstallSnapshotReply,
    Introduction,
    Message,
    PreVoteReply,
    PreVoteRequest,
    ReadIndexReply,
    ReadIndexRequest,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
    TimeoutNowReply,
)
from raftkv.core.types import NodeId
from raftkv.errors import MessageError
from raftkv.http.client import ExchangeLimits
from raftkv.transport import codec, farewell
from raftkv.transport.farewell import Farewell
from raftkv.transport.lane import Lane
from raftkv.transport.routes import FAREWELL, INTRODUCE, TARGET_OF
from raftkv.transport.sealed import Credentials, Refusal
from raftkv.transport.settings import TransportSettings

_REPLY_TO: Final[dict[type[Any], type[Any]]] = {
    PreVoteRequest: PreVoteReply,
    RequestVote: RequestVoteReply,
    AppendEntries: AppendEntriesReply,
    Heartbeat: HeartbeatReply,
    ReadIndexRequest: ReadIndexReply,
    TimeoutNow: TimeoutNowReply,
    InstallSnapshot: InstallSnapshotReply,
}
_DETAIL_CHARACTERS_MAX: Final = 500


class LinkListener(Protocol):
    """The node, as its links see it.

    It may be told before the call that sent something returns: so it only enqueues.
    """

    def on_reply(self, envelope: Envelope) -> None:
        """A reply of the kind that belongs to its request, not yet checked for who sent it."""
        ...

    def on_failed(self, peer: NodeId, request: Envelope, why: str) -> None:
        """This request gets no reply; whether the peer acted on it is not known."""
        ...

    def on_introduced(self, peer: NodeId, introduction: Introduction) -> None:
        """Who answers at the peer's address."""
        ...

    def on_wrong_cluster(self, peer: NodeId, text: str) -> None:
        """The peer refuses us as another cluster's, or another incarnation; in its words."""
        ...

    def on_refused(self, peer: NodeId, text: str) -> None:
        """The peers' secret stands between us: not the same one, or only one of us has any. In our own words."""
        ...


class _Leave(NamedTuple):
    """A farewell on its way."""

    heard: asyncio.Future[None]


class PeerLink:
    """The link to one peer. Made inside a running loop; ended by ``close``."""

    def __init__(
        self,
        peer: NodeId,
        url: str,
        *,
        settings: TransportSettings,
        rng: random.Random,
        introduction: Callable[[], Introduction],
        listener: LinkListener,
        credentials: Credentials | None = None,
    ) -> None:
        """``introduction`` tells what this node says of itself now; it goes first on every new connection.

        ``credentials``: how this node proves itself to its peers and they to it; None: nobody proves anything.
        """
        self.peer = peer
        self.refusal: tuple[float, str, str] | None = None
        """When the peer refused us last, by the loop's clock, with which code, in which words; None: never."""
        self._introduction, self._listener = introduction, listener
        self._open_lane = partial(Lane, settings=settings, rng=rng, owner=self, peer=peer, credentials=credentials)
        self._settings, self._url = settings, url
        self._snapshots: Lane | None = None
        self._bulk = self._open_lane(
            url=url,
            limits=ExchangeLimits(
                timeout_s=settings.bulk_timeout_s,
                outstanding_max=settings.bulk_outstanding_max,
                answer_bytes_max=settings.answer_bytes_max,
                unsent_bytes_max=settings.bulk_unsent_bytes_max,
            ),
        )
        self._control = self._open_lane(
            url=url,
            limits=ExchangeLimits(
                timeout_s=settings.control_timeout_s,
                outstanding_max=settings.control_outstanding_max,
                answer_bytes_max=settings.answer_bytes_max,
                unsent_bytes_max=settings.control_unsent_bytes_max,
            ),
        )

    @property
    def is_connected(self) -> bool:
        """The lanes that every peer needs are up, as far as is known here."""
        return self._bulk.is_connected and self._control.is_connected

    @property
    def trouble(self) -> str:
        """Why a lane has no connection, or got no answer; empty: nothing is known to be wrong."""
        return self._control.trouble or self._bulk.trouble

    @property
    def answered_at_s(self) -> float | None:
        """When the peer last answered anything, by the loop's clock; None: never."""
        told = [lane.answered_at_s for lane in self._lanes() if lane.answered_at_s is not None]
        return max(told, default=None)

    def send(self, request: Envelope) -> None:
        """It is on its way; or the listener has been told that it failed."""
        message = request.message
        lane = self._lane_for(message)
        if lane.has_room:
            lane.post(TARGET_OF[type(message)], codec.encode(request), request)
        else:
            why = "too many requests are outstanding" if lane.is_connected else "not connected"
            self._listener.on_failed(self.peer, request, why)

    def _lane_for(self, message: Message) -> Lane:
        """What may be large travels apart from what must not wait, and what may wait long apart from both."""
        if isinstance(message, AppendEntries):
            return self._bulk
        if not isinstance(message, InstallSnapshot):
            return self._control
        if self._snapshots is None:
            self._snapshots = self._open_lane(
                url=self._url,
                limits=ExchangeLimits(
                    timeout_s=self._settings.snapshot_timeout_s,
                    outstanding_max=self._settings.snapshot_outstanding_max,
                    answer_bytes_max=self._settings.answer_bytes_max,
                    unsent_bytes_max=self._settings.bulk_unsent_bytes_max,
                ),
            )
        return self._snapshots

    def introduce(self) -> None:
        """Says again who we are, for what has changed since; if not connected, the next connection says it."""
        self._introduce(self._control)

    def take_leave(self, said: Farewell) -> asyncio.Future[None]:
        """Says that this node stops, and why; done when the peer has heard it, or cannot be told."""
        leave = _Leave(asyncio.get_running_loop().create_future())
        if self._control.has_room:
            self._control.post(FAREWELL, farewell.encode(said), leave)
        else:
            leave.heard.set_result(None)
        return leave.heard

    def move(self, url: str) -> None:
        """The peer is at ``url`` from now on."""
        self._url = url
        for lane in self._lanes():
            lane.move(url)

    def hurry(self) -> None:
        """The peer has come to us, so it can be reached: lanes that wait for their next attempt make it."""
        for lane in self._lanes():
            lane.hurry()

    async def close(self) -> None:
        """The link is down for good; everything outstanding has failed."""
        for lane in self._lanes():
            await lane.close()

    def _lanes(self) -> list[Lane]:
        return [lane for lane in (self._bulk, self._control, self._snapshots) if lane is not None]

    # What the lanes tell.

    def on_connected(self, lane: Lane) -> None:
        """The first thing said on a connection is who we are."""
        self._introduce(lane)

    def on_answer(self, context: Envelope | Introduction | _Leave, status: int, body: bytes) -> None:
        """The peer has answered a request, an introduction or a farewell."""
        if isinstance(context, _Leave):
            self.on_failed(context, "")
            return
        if status != 200:
            self._refused(context, status, body)
            return
        try:
            if isinstance(context, Introduction):
                self._listener.on_introduced(self.peer, codec.decode_introduction(body))
                return
            reply = codec.decode(body)
        except MessageError as error:
            self.on_failed(context, f"a reply that does not decode: {error}")
            return
        if not isinstance(reply.message, _REPLY_TO[type(context.message)]):
            self.on_failed(context, f"{type(reply.message).__name__} is no reply to this")
            return
        self._listener.on_reply(reply)

    def on_failed(self, context: Envelope | Introduction | _Leave, why: str) -> None:
        """No answer. An introduction is said again on the next connection, a farewell never."""
        if isinstance(context, _Leave) and not context.heard.done():
            context.heard.set_result(None)
        if isinstance(context, Envelope):
            self._listener.on_failed(self.peer, context, why)

    def on_refused(self, refusal: Refusal) -> None:
        """Kept, and told; whoever listens says it once."""
        self._keep_refusal(refusal.code, refusal.text)
        self._listener.on_refused(self.peer, refusal.text)

    def _introduce(self, lane: Lane) -> None:
        if lane.has_room:
            introduction = self._introduction()
            lane.post(INTRODUCE, codec.encode_introduction(introduction), introduction)

    def _refused(self, context: Envelope | Introduction, status: int, body: bytes) -> None:
        code, detail = _problem(body)
        self.on_failed(context, f"refused: {status} {code}: {detail}")
        if code == "unauthorized":
            text = f"{self.peer} takes only peers that share its secret, and this node has none: --peer-secret-file"
            self.on_refused(Refusal(code, text))
            return
        self._keep_refusal(code, detail)
        if code == "wrong_cluster":
            self._listener.on_wrong_cluster(self.peer, detail)

    def _keep_refusal(self, code: str, text: str) -> None:
        self.refusal = asyncio.get_running_loop().time(), code, text


def _problem(body: bytes) -> tuple[str, str]:
    """Code and detail of a problem; what is none is shown as far as it goes."""
    try:
        problem = json.loads(body)
        return str(problem["code"]), str(problem["detail"])[:_DETAIL_CHARACTERS_MAX]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "unknown", body[:_DETAIL_CHARACTERS_MAX].decode("utf-8", "replace")
