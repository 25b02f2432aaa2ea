"""The life of a serving process: one node, one event loop, two signals."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import sys
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Final

from raftkv.config import NodeConfig
from raftkv.kv.machine import KeyValueMachine
from raftkv.node import logs
from raftkv.node.garbage import short_collections
from raftkv.node.node import Node

_DESCRIPTORS_WANTED: Final = 16_384
"""For as many connections as a node takes at most, and its log. Many systems begin with 1,024 and allow more."""


def serve(config: NodeConfig) -> int:
    """Serves the key-value store until SIGTERM or SIGINT; returns the exit code 0.

    Raises what ended the node otherwise: a DataError (with the exit code that it stands for), OSError where
    the port cannot be bound, or a bug of ours.
    """
    logs.configure(config.id, config.log_format, config.log_level)
    _allow_descriptors()
    with short_collections(), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        failure = runner.run(_serve(config))
    if failure is not None:
        raise failure
    return 0


def _allow_descriptors() -> None:
    """This process may open as many files and connections as it can use, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _loop_factory() -> Callable[[], AbstractEventLoop] | None:
    """Uvloop where the platform has it."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _serve(config: NodeConfig) -> BaseException | None:
    """What the node failed with; None: it was told to stop."""
    node = Node(config, state_machine=KeyValueMachine())
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(logs.on_unforeseen)
    told_to_stop: asyncio.Future[BaseException | None] = loop.create_future()

    def stop() -> None:
        if not told_to_stop.done():
            told_to_stop.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await node.start()
    try:
        print(f"raftkv {config.id} serving on {config.url}", flush=True)  # noqa: T201 - the contract's one line
        gc.freeze()
        ended = node.ended
        await asyncio.wait([ended, told_to_stop], return_when=asyncio.FIRST_COMPLETED)
        return ended.result() if ended.done() else None
    finally:
        await node.stop()
        sys.stderr.flush()
