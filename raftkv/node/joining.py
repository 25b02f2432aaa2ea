"""``--join``: this node asks a cluster to let it in, until it is in.

Told: URLs of members. Tells: in words, what the cluster said last. It asks as any operator could, by
``POST /v1/admin/members``, and asks again whatever the answer: somebody else may have asked for the same, or may yet
mend what stands in the way. Only where somebody has called it off it asks no more: it would join against his will.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

import aiohttp

from raftkv.config import NodeConfig
from raftkv.node.logs import event
from raftkv.values import is_url

_LOG: Final = logging.getLogger("raftkv.node")
_PATH: Final = "/v1/admin/members"
WAIT_MS: Final = 5_000
"""For so long the cluster is asked to wait for the end of it."""
TIMEOUT_S: Final = 30.0
"""Of one request: the cluster asks this node who it is, for up to 10 s, and then waits."""
PAUSE_S: Final = 1.0
REDIRECTS_MAX: Final = 3
_TEXT_MAX: Final = 300


class Joiner(Protocol):
    """This node, as it sees itself."""

    @property
    def has_joined(self) -> bool:
        """It is a member, and no change is running that would make it another one."""
        ...

    @property
    def was_let_go(self) -> bool:
        """By its own log it is none, because the change that was to make it one was called off."""
        ...


class _Said(NamedTuple):
    """What the cluster answered; status 0: nothing."""

    status: int
    why: str
    called_off: bool = False


async def ask_to_join(config: NodeConfig, joiner: Joiner, tell: Callable[[str], None]) -> None:
    """Returns when this node is a member, or somebody has called it off; ``tell`` hears why it is not one.

    Somebody may have added it as a learner meanwhile: that is not this node's to change.
    """
    wish = json.dumps({"id": config.id, "url": config.peer_url, "role": "voter"}).encode()
    said = ""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
        while True:
            for url in config.join:
                if joiner.was_let_go:
                    return _ask_no_more(config, tell)
                status, why, called_off = await _ask(session, url, wish)
                if status == 200 or joiner.has_joined:
                    return _LOG.info("this node has joined the cluster", extra=event("joined"))
                if called_off:
                    return _ask_no_more(config, tell)
                tell(why)
                if why != said:
                    said = why
                    _LOG.warning("not let in yet: %s", why, extra=event("not_joined"))
                if status != 202:
                    await asyncio.sleep(PAUSE_S)


def _ask_no_more(config: NodeConfig, tell: Callable[[str], None]) -> None:
    """It stays as it is, and may be let in whenever somebody wants that."""
    mend = f"stop it, or let it in with raftkv member add {config.id} {config.peer_url}"
    why = f"it was called off that this node joins, and it asks no more; {mend}"
    tell(why)
    _LOG.error("%s", why, extra=event("let_go"))


async def _ask(session: aiohttp.ClientSession, url: str, wish: bytes) -> _Said:
    for _ in range(REDIRECTS_MAX + 1):
        try:
            status, location, body = await _post(session, url, wish)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return _Said(0, f"{url} does not answer ({str(error) or type(error).__name__})")
        if status != 307:
            return _read(url, status, body)
        parts = urlsplit(location)
        led_by = f"{parts.scheme}://{parts.netloc}"
        if not is_url(led_by):
            return _Said(0, f"{url} points to nowhere")
        url = led_by
    return _Said(0, f"{url} points to yet another leader")


async def _post(session: aiohttp.ClientSession, url: str, wish: bytes) -> tuple[int, str, bytes]:
    target = f"{url}{_PATH}?wait_ms={WAIT_MS}"
    headers = {"Content-Type": "application/json"}
    async with session.post(target, data=wish, headers=headers, allow_redirects=False) as answer:
        return answer.status, answer.headers.get("Location", ""), await answer.read()


def _read(url: str, status: int, body: bytes) -> _Said:
    if status == 202:
        return _Said(status, "it is catching up")
    try:
        told: Any = json.loads(body)
        called_off = status == 409 and told.get("called_off") is True
        return _Said(status, f"{url} says: {str(told['detail'])[:_TEXT_MAX]}", called_off)
    except (ValueError, KeyError, TypeError, AttributeError):
        return _Said(status, f"{url} answers {status}")
