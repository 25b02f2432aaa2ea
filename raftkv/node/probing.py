"""Asking a node that may become a member who it is, over a link of its own that is closed again.

Told: an id, a URL, for how long. Tells: what the node says of itself, or why it says nothing. May never know: whether
it is fit to be a member.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from raftkv.core.messages import Envelope, Introduction
from raftkv.core.types import NodeId
from raftkv.members import Named
from raftkv.transport.link import PeerLink
from raftkv.transport.sealed import Credentials
from raftkv.transport.settings import TransportSettings


class Prober:
    """Whoever asks in this node's name."""

    def __init__(
        self,
        settings: TransportSettings,
        rng: Random,
        introduction: Callable[[], Introduction],
        credentials: Credentials | None,
    ) -> None:
        self._settings, self._rng = settings, rng
        self._introduction, self._credentials = introduction, credentials

    async def ask(self, whom: Named, *, within_s: float) -> Introduction | str:
        """What the node there says of itself, whoever it is; in words, why nothing was heard.

        It need not listen yet: it is tried again and again until the time is over.
        """
        heard = _Heard()
        link = PeerLink(
            NodeId(whom.id),
            whom.url,
            settings=self._settings,
            rng=self._rng,
            introduction=self._introduction,
            listener=heard,
            credentials=self._credentials,
        )
        try:
            async with asyncio.timeout(within_s):
                return await heard.answer
        except TimeoutError:
            return link.trouble or f"no answer within {within_s:g} s"
        finally:
            await link.close()


class _Heard:
    """Listens for the first introduction."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Introduction | str] = asyncio.get_running_loop().create_future()

    def on_introduced(self, peer: NodeId, introduction: Introduction) -> None:
        """That is what was asked."""
        self._settle(introduction)

    def on_refused(self, peer: NodeId, text: str) -> None:
        """Secrets do not mend by waiting."""
        self._settle(text)

    def on_wrong_cluster(self, peer: NodeId, text: str) -> None:
        """Somebody else answers there, and will tomorrow."""
        self._settle(text)

    def on_reply(self, envelope: Envelope) -> None:
        """Never told: nothing but an introduction is sent."""

    def on_failed(self, peer: NodeId, request: Envelope, why: str) -> None:
        """Never told, for the same reason."""

    def _settle(self, answer: Introduction | str) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)
