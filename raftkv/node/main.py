"""The life of a serving process: one node, one event loop, two signals."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from asyncio import AbstractEventLoop
from collections.abc import Callable

from raftkv.config import NodeConfig
from raftkv.kv.machine import KeyValueMachine
from raftkv.node import logs
from raftkv.node.node import Node


def serve(config: NodeConfig) -> int:
    """Serves the key-value store until SIGTERM or SIGINT; returns the exit code 0.

    Raises what ended the node otherwise: a DataError (with the exit code that it stands for), OSError where
    the port cannot be bound, or a bug of ours.
    """
    logs.configure(config.id, config.log_format, config.log_level)
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
