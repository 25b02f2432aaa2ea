"""A client belongs to one process, and the asynchronous one to one event loop; the waiting one to any thread."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import signal
import threading
from collections.abc import Callable

import pytest

from raftkv import errors
from raftkv.client import OutcomeUnknown, Unreachable, sync
from raftkv.problems import Code
from tests.client.fake import QUICK, client, faked, refuse, until


async def test_a_client_in_another_loop_is_refused_before_anything_is_sent():
    """A program that calls ``asyncio.run`` twice."""
    async with faked() as cluster:
        c = client(cluster.urls)
        await c.put("k", "v")
        asked = len(cluster.nodes[0].asked)

        def program() -> None:
            for use in (c.put("k", "v"), c.get("k"), c.close()):
                with pytest.raises(RuntimeError, match="event loop"):
                    asyncio.run(use)

        await asyncio.to_thread(program)
        assert len(cluster.nodes[0].asked) == asked
        await c.put("k", "v")
        await c.close()
        assert cluster.executed["k"] == 2


async def test_a_client_may_be_made_before_there_is_a_loop():
    async with faked() as cluster:
        c = await asyncio.to_thread(client, cluster.urls)
        async with c:
            await c.put("k", "v")


def in_a_child(act: Callable[[], str]) -> str:
    """What a forked child's act came to; it is killed where it hangs."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = act()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent is told
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    timer = threading.Timer(3.0, os.kill, (child, signal.SIGKILL))
    timer.start()
    with os.fdopen(reader) as told:
        said = told.read()
    os.waitpid(child, 0)
    timer.cancel()
    return said


async def test_a_forked_child_is_told_that_the_client_is_its_parent_s():
    """Its thread is not there: every call would wait for ever. And two processes would give out the same numbers."""
    async with faked() as cluster:

        def program() -> list[str]:
            with sync.Client(cluster.urls, settings=QUICK) as c:
                c.put("k", "v")

                def closes() -> str:
                    c.close()
                    return "closed"

                said = [in_a_child(lambda: str(c.put("k", "v"))), in_a_child(closes)]
                c.put("k", "v")
            return said

        put, closed = await asyncio.to_thread(program)
        assert put.startswith("RuntimeError: ")
        assert "process" in put
        assert closed == "closed"
        assert cluster.executed["k"] == 2


async def test_the_waiting_client_serves_many_threads():
    async with faked() as cluster:

        def program() -> None:
            with sync.Client(cluster.urls, settings=QUICK) as c:
                threads = [threading.Thread(target=c.put, args=("k", "v")) for _ in range(20)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert c.figures.sessions == 1

        await asyncio.to_thread(program)
        assert cluster.executed["k"] == 20
        assert not [thread for thread in threading.enumerate() if thread.name == "raftkv client"]


@pytest.mark.parametrize("is_in_doubt", [True, False])
async def test_closing_the_waiting_client_tells_other_threads_the_truth(is_in_doubt):
    async with faked() as cluster:
        c = sync.Client(cluster.urls, settings=QUICK)
        await asyncio.to_thread(c.put, "k", "v")
        cluster.nodes[0].always = refuse(Code.OUTCOME_UNKNOWN if is_in_doubt else Code.SUPERSEDED)
        writing = asyncio.create_task(asyncio.to_thread(c.put, "k", "v"))
        await until(lambda: c.figures.retries > 3)
        await asyncio.to_thread(c.close)
        with pytest.raises(OutcomeUnknown if is_in_doubt else Unreachable):
            await writing
        with pytest.raises(RuntimeError, match="closed"):
            c.put("k", "v")
        c.close()


ERRORS: list[errors.RaftkvError] = [
    errors.Rejected("too much", code="too_large"),
    errors.NotLeader(leader_id="n2", leader_url="http://b:1", term=7),
    errors.ConditionFailed(mod_revision=3, revision=9),
    errors.OutcomeUnknown("who knows"),
    errors.Unreachable("nobody"),
    errors.ConfigError(["one", "two"]),
    errors.FrameError("short", offset=3),
    errors.UnsoundRequest("no", status=431, code="head_too_large"),
    errors.DirectoryLocked("/x"),
    errors.DiskFailed(path="/x", operation="sync", cause=OSError(5, "Input/output error")),
    errors.DataDamaged(path="/x", offset=3, why="torn"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_cross_to_other_processes_as_they_are(error):
    """One that cannot be unpickled breaks the pool of processes whose worker raised it."""
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - bytes of our own
        assert type(other) is type(error)
        assert (str(other), other.args) == (str(error), error.args)
        assert {k: str(v) for k, v in vars(other).items()} == {k: str(v) for k, v in vars(error).items()}
