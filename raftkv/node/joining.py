"""``--join``: this node asks a cluster to let it in, until it is in.

Told: URLs of members. Tells: in words, what the cluster said last. It asks as any operator could, by
``POST /v1/admin/members``, and asks again whatever the answer: somebody else may have asked for the same, or may yet
mend what stands in the way.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol
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


async def ask_to_join(config: NodeConfig, joiner: Joiner, tell: Callable[[str], None]) -> None:
    """Returns when this node is a member; ``tell`` hears why it is not one yet.

    Somebody may have added it as a learner meanwhile: that is not this node's to change.
    """
    wish = json.dumps({"id": config.id, "url": config.peer_url, "role": "voter"}).encode()
    said = ""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
        while True:
            for url in config.join:
                status, why = await _ask(session, url, wish)
                if status == 200 or joiner.has_joined:
                    _LOG.info("this node has joined the cluster", extra=event("joined"))
                    return
                tell(why)
                if why != said:
                    said = why
                    _LOG.warning("not let in yet: %s", why, extra=event("not_joined"))
                if status != 202:
                    await asyncio.sleep(PAUSE_S)


async def _ask(session: aiohttp.ClientSession, url: str, wish: bytes) -> tuple[int, str]:
    """The status, and what was said; 0: there was no answer."""
    for _ in range(REDIRECTS_MAX + 1):
        try:
            status, location, body = await _post(session, url, wish)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return 0, f"{url} does not answer ({str(error) or type(error).__name__})"
        if status != 307:
            return status, _in_words(url, status, body)
        parts = urlsplit(location)
        led_by = f"{parts.scheme}://{parts.netloc}"
        if not is_url(led_by):
            return 0, f"{url} points to nowhere"
        url = led_by
    return 0, f"{url} points to yet another leader"


async def _post(session: aiohttp.ClientSession, url: str, wish: bytes) -> tuple[int, str, bytes]:
    target = f"{url}{_PATH}?wait_ms={WAIT_MS}"
    headers = {"Content-Type": "application/json"}
    async with session.post(target, data=wish, headers=headers, allow_redirects=False) as answer:
        return answer.status, answer.headers.get("Location", ""), await answer.read()


def _in_words(url: str, status: int, body: bytes) -> str:
    if status == 202:
        return "it is catching up"
    try:
        told: Any = json.loads(body)
        return f"{url} says: {str(told['detail'])[:_TEXT_MAX]}"
    except (ValueError, KeyError, TypeError):
        return f"{url} answers {status}"
