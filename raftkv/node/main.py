"""The life of a serving process: one node, one event loop, two signals."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from asyncio import AbstractEventLoop
from collections.abc import Callable

from raftkv.config import NodeConfig
from raftkv.node import logs
from raftkv.node.node import Node


def serve(config: NodeConfig) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code 0.

    Raises what ended the node otherwise: a DataError (with the exit code that it stands for), OSError where
    the port cannot be bound, or a bug of ours.
    """
    logs.configure(config.id, config.log_format)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        failure = runner.run(_serve(config))
    if failure is not None:
        raise failure
    return 0


def _loop_factory() -> Callable[[], AbstractEventLoop] | None:
    """Uvloop where the platform has it."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _serve(config: NodeConfig) -> BaseException | None:
    loop = asyncio.get_running_loop()
    node = Node(config, loop)

    def stop() -> None:
        if not node.ended.done():
            node.ended.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await node.start()
        print(f"raftkv {config.id} serving on {config.url}", flush=True)  # noqa: T201 - the contract's one line
        gc.freeze()
        return await node.ended
    finally:
        await node.stop()
        sys.stderr.flush()
