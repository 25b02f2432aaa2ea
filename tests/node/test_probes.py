"""/healthz and /readyz mean what they say: the one, when it fails, that a start would help, the other that no traffic
should come. Both are about the node asked, whatever becomes of the others.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from raftkv import Node
from raftkv.core import hashes
from raftkv.core.state import State
from raftkv.core.types import Index
from raftkv.kv.machine import KeyValueMachine
from raftkv.node import diagnostics
from raftkv.node.running import RunningNode
from raftkv.outcomes import Leadership
from raftkv.replica import Replica
from raftkv.storage.directory import PosixFile
from tests.live.wire import Address, Connections
from tests.node.nodes import Adder, configs, leader_of, lone_node, running

PATIENCE_S = 10.0


async def probe(node: Node, path: str) -> tuple[int, str]:
    """Status, and the words of a problem."""
    answer = await Connections().exchange(Address(*node.config.listen), "GET", path, timeout_s=5.0, kept=False)
    return answer.status, json.loads(answer.body).get("detail", "")


async def until_probed(node: Node, path: str, status: int, words: str = "") -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await probe(node, path)
            if found[0] == status and words in found[1]:
                return
            await asyncio.sleep(0.01)


async def test_a_node_that_waits_for_others_to_form_is_alive_and_says_for_whom(tmp_path: Path) -> None:
    first, *_ = configs(tmp_path, 3)
    async with Node(first, state_machine=Adder()) as node:
        assert await probe(node, "/healthz") == (200, "")
        assert await probe(node, "/readyz") == (503, "the cluster is not formed yet: waiting for n2, n3")


async def test_without_a_majority_a_node_is_alive_and_not_ready(tmp_path: Path) -> None:
    """Whoever restarted it for that would make things worse."""
    async with running(configs(tmp_path, 3)) as nodes:
        leader = await leader_of(nodes)
        assert (await probe(leader, "/readyz"))[0] == 200
        await asyncio.gather(*(node.stop() for node in nodes if node is not leader))
        await until_probed(leader, "/readyz", 503, "no leader is known")
        assert await probe(leader, "/healthz") == (200, "")


async def test_a_disk_that_hangs_is_borne_for_a_while_and_then_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_return, sync_data = threading.Event(), PosixFile.sync_data

    def held(file: PosixFile) -> None:
        may_return.wait(PATIENCE_S)
        sync_data(file)

    async with lone_node(tmp_path, KeyValueMachine()) as node:
        monkeypatch.setattr(PosixFile, "sync_data", held)
        write = asyncio.create_task(
            Connections().exchange(
                Address(*node.config.listen), "PUT", "/v1/kv/a", body=b"v", timeout_s=PATIENCE_S, kept=False
            )
        )
        try:
            await until_probed(node, "/readyz", 503)
            assert await probe(node, "/healthz") == (200, "")
            monkeypatch.setattr(diagnostics, "DISK_HANGS_US_MAX", 1000)
            await until_probed(node, "/healthz", 500, "the disk has not finished a write for")
        finally:
            may_return.set()
        await until_probed(node, "/healthz", 200)
        await write


async def test_a_disk_thread_that_is_gone_is_no_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with lone_node(tmp_path) as node:
        assert node._running is not None and node._running._disk is not None
        monkeypatch.setattr(type(node._running._disk), "is_alive", property(lambda _: False))
        assert await probe(node, "/healthz") == (500, "the thread that writes the log has ended")


async def test_a_leader_whose_state_is_nobody_elses_takes_no_traffic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(configs(tmp_path, 3)) as nodes:
        leader = await leader_of(nodes)
        others = [node for node in nodes if node is not leader]
        assert leader._running is not None
        raft = leader._running.service.replica.raft  # type: ignore[union-attr]
        raft.machine_hash(Index(1024), b"mine")
        assert raft.state.office is not None
        raft.state.office.progress[others[0].config.id].hashes.note(Index(1024), b"theirs")
        assert diagnostics.disagreeing(raft) == (others[0].config.id,)
        assert (await probe(leader, "/readyz"))[0] == 200, "one of three may be the wrong one itself"
        hashes.compare(raft.state, Index(1024), b"theirs")
        await until_probed(leader, "/readyz", 503, "this node's state differs from the majority's at log index 1024")
        assert (await probe(leader, "/healthz"))[0] == 200


# ------------------------------------------------------------------------- every situation, set up by hand


class Situation(NamedTuple):
    """Something that befalls a node, and what is read off it then."""

    befalls: Callable[[RunningNode, pytest.MonkeyPatch], None]
    dead_because: str = ""
    """What /healthz says; empty: it lives."""
    code: str = ""
    """What /readyz says first; empty: it is ready."""
    words: str = ""
    """All of what it says."""


def no_leader(running: RunningNode, patch: pytest.MonkeyPatch) -> None:
    nobody = Leadership(leads=False, term=7, leader_id=None, leader_url=None)
    patch.setattr(Replica, "leadership", lambda _: nobody)


def stale(age_us: int | None) -> Callable[[RunningNode, pytest.MonkeyPatch], None]:
    return lambda running, patch: patch.setattr(State, "staleness_us", property(lambda _: age_us))


def told(**what: Any) -> Callable[[RunningNode, pytest.MonkeyPatch], None]:
    """The service's own word."""

    def befalls(running: RunningNode, patch: pytest.MonkeyPatch) -> None:
        for name, value in what.items():
            patch.setattr(running.service, name, value)

    return befalls


def wrong_state(running: RunningNode, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(running.service.replica.raft.state, "disagrees_at", Index(1024))  # type: ignore[union-attr]


def full_disk(running: RunningNode, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(running.service.replica, "disk_is_short", True)


def all_at_once(*several: Callable[[RunningNode, pytest.MonkeyPatch], None]) -> Any:
    return lambda running, patch: [each(running, patch) for each in several]


HANGS: Final = "the disk has not finished a write for 121 s"
BEHIND: Final = "this node has not yet applied what its leader has committed"
SITUATIONS: Final = {
    "all is well": Situation(lambda *_: None),
    "a little behind": Situation(stale(2_000_000)),
    "too far behind": Situation(stale(2_000_001), "", "too_stale", BEHIND),
    "not known how far behind": Situation(stale(None), "", "too_stale", BEHIND),
    "nobody leads": Situation(no_leader, "", "no_leader", "no leader is known in this term"),
    "nobody leads, and behind": Situation(
        all_at_once(no_leader, stale(None)), "", "no_leader", "no leader is known in this term"
    ),
    "the disk is full": Situation(full_disk),
    "the disk hangs": Situation(
        told(disk_trouble=lambda: HANGS), HANGS, "shutting_down", f"this node has to be started anew: {HANGS}"
    ),
    "the disk hangs as it stops": Situation(
        told(disk_trouble=lambda: HANGS, stopping=True), HANGS, "shutting_down", "this node is stopping"
    ),
    "it stops": Situation(told(stopping=True), "", "shutting_down", "this node is stopping"),
    "it has failed": Situation(told(failure="the disk"), "the disk", "shutting_down", "this node has halted: the disk"),
    "its state is wrong": Situation(
        wrong_state,
        "",
        "replicas_disagree",
        "this node's state differs from the majority's at log index 1024; "
        "start it again, and it is built anew from its snapshot and the log; "
        "if that comes to the same, run raftkv member replace n1",
    ),
    "its log is being read": Situation(told(replica=None), "", "no_leader", "this node is starting"),
}


@pytest.mark.parametrize("name", SITUATIONS)
async def test_in_every_situation_both_probes_say_what_is_so(tmp_path: Path, monkeypatch, name: str) -> None:
    befalls, dead_because, code, words = SITUATIONS[name]
    async with lone_node(tmp_path, KeyValueMachine()) as node:
        connections, address = Connections(), Address(*node.config.listen)

        async def ask(method: str, path: str) -> Any:
            return await connections.exchange(address, method, path, timeout_s=5.0)

        assert node._running is not None
        with monkeypatch.context() as patch:
            befalls(node._running, patch)
            alive, ready, metrics = [await ask("GET", path) for path in ("/healthz", "/readyz", "/metrics")]
            heads = [await ask("HEAD", path) for path in ("/healthz", "/readyz")]
        connections.close()
    if dead_because:
        told = json.loads(alive.body)
        assert (alive.status, told["code"], told["detail"]) == (500, "internal", dead_because)
    else:
        assert (alive.status, json.loads(alive.body)) == (200, {"alive": True})
    told = json.loads(ready.body)
    if code:
        assert (ready.status, told["code"], told["detail"]) == (503, code, words)
        assert ready.headers["retry-after"] and told["retry_after_ms"] > 0 and told["reasons"][0]["code"] == code
    else:
        assert (ready.status, told) == (200, {"ready": True})
    assert [head.status for head in heads] == [alive.status, ready.status]
    assert all(answer.headers["cache-control"] == "no-store" for answer in (alive, ready, *heads))
    gauges = dict(line.rsplit(" ", 1) for line in metrics.body.decode().splitlines() if "_node_is_" in line[:20])
    assert gauges["raftkv_node_is_alive"] == f"{float(not dead_because)}", "alerts read the same"
    assert gauges["raftkv_node_is_ready"] == f"{float(not code)}"


async def test_followers_answer_for_themselves_also_when_their_leader_is_gone(tmp_path: Path) -> None:
    """A balancer that asks a follower is not sent to the leader; and whoever has just lost it is not ready."""
    async with running(configs(tmp_path, 3)) as nodes:
        leader = await leader_of(nodes)
        followers = [node for node in nodes if node is not leader]
        for node in followers:
            assert (await probe(node, "/healthz"))[0] == (await probe(node, "/readyz"))[0] == 200
        await asyncio.gather(leader.stop(), followers[0].stop())
        await until_probed(followers[1], "/readyz", 503, "no leader is known")
        assert await probe(followers[1], "/healthz") == (200, "")


async def test_a_node_that_is_told_to_stop_takes_no_more_traffic_and_is_not_killed_for_it(tmp_path: Path) -> None:
    """While what is in flight is answered: here a write that its disk holds up."""
    may_return, sync_data = threading.Event(), PosixFile.sync_data

    def held(file: PosixFile) -> None:
        may_return.wait(PATIENCE_S)
        sync_data(file)

    async with lone_node(tmp_path, KeyValueMachine()) as node:
        address = Address(*node.config.listen)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PosixFile, "sync_data", held)
            put = Connections().exchange(address, "PUT", "/v1/kv/a", body=b"v", timeout_s=PATIENCE_S, kept=False)
            write = asyncio.create_task(put)
            await until_probed(node, "/readyz", 503)
            stopping = asyncio.create_task(node.stop())
            try:
                await until_probed(node, "/readyz", 503, "this node is stopping")
                assert await probe(node, "/healthz") == (200, "")
            finally:
                may_return.set()
            await stopping
        assert (await write).status == 201, "and it was answered"
