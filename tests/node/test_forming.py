"""A node that forms its cluster stores before it speaks, and ends where it cannot store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from raftkv.config import load
from raftkv.core.messages import Envelope, Introduction, TimeoutNow
from raftkv.core.types import ID_BYTES, ClusterId, Incarnation, NodeId, Term, cluster_id_of
from raftkv.errors import DiskFailed
from raftkv.kv.machine import KeyValueMachine
from raftkv.node.running import Owner, RunningNode
from raftkv.storage.directory import PosixFile

URLS = {NodeId(f"n{number}"): f"http://127.0.0.1:{7890 + number}" for number in (1, 2, 3)}
ME = NodeId("n1")


class HeardExchange:
    """A peer's open exchange."""

    def __init__(self) -> None:
        self.introductions: list[Introduction] = []
        self.refusals: list[tuple[int, str, str]] = []

    def introduce(self, introduction: Introduction) -> None:
        self.introductions.append(introduction)

    def refuse(self, *, status: int, code: str, detail: str) -> None:
        self.refusals.append((status, code, detail))


@pytest.fixture
def failures() -> list[BaseException]:
    return []


@pytest.fixture
async def node(tmp_path: Path, failures: list[BaseException]) -> AsyncIterator[RunningNode]:
    listed = ",".join(f"{id}={url}" for id, url in URLS.items())
    flags = {"id": ME, "data-dir": str(tmp_path / "n1"), "url": URLS[ME], "initial-cluster": listed}
    config = load(flags=flags, environment={}, file=None)
    owner = Owner(turned=lambda: None, failed=failures.append)
    made = RunningNode(config, KeyValueMachine(), asyncio.get_running_loop(), owner)
    yield made
    await made.stop()


def _incarnation_of(id: NodeId) -> Incarnation:
    return Incarnation(id.encode().ljust(ID_BYTES, b"*"))


def _said_by(id: NodeId) -> Introduction:
    """By somebody who has not heard anybody else yet."""
    members = [(each, _incarnation_of(each) if each == id else Incarnation(b"")) for each in sorted(URLS)]
    return Introduction(id, _incarnation_of(id), URLS[id], None, False, members)


def _introduce(node: RunningNode, id: str) -> Introduction:
    exchange = HeardExchange()
    node.on_introduction(_said_by(NodeId(id)), exchange)  # type: ignore[arg-type]
    (answer,) = exchange.introductions
    return answer


def _cluster_with(mine: Incarnation) -> ClusterId:
    return cluster_id_of((id, mine if id == ME else _incarnation_of(id)) for id in URLS)


async def test_a_node_says_its_cluster_once_it_has_heard_everybody(node):
    assert _introduce(node, "n2").cluster_id is None
    answer = _introduce(node, "n3")
    assert answer.cluster_id == _cluster_with(answer.incarnation)
    assert not answer.formed, "the others have not said that they stored it"


async def test_an_identity_that_cannot_be_stored_ends_the_node_unsaid(node, failures, monkeypatch):
    """faults 55, 31: the store is not tried again, and nobody hears of a cluster that is not on stable storage."""
    _introduce(node, "n2")
    syncs = []

    def sync(file: PosixFile) -> None:
        syncs.append(file.path)
        if len(syncs) == 1:
            raise DiskFailed(path=file.path, operation="fsync", cause=OSError(5, "Input/output error"))

    monkeypatch.setattr(PosixFile, "sync", sync)
    assert _introduce(node, "n3").cluster_id is None
    assert [type(failure) for failure in failures] == [DiskFailed]
    assert _introduce(node, "n2").cluster_id is None
    assert len(syncs) == 1, "a failed sync is not tried again"


@pytest.mark.parametrize(("is_ours", "code"), [(False, "wrong_cluster"), (True, "no_leader")])
async def test_only_a_message_of_its_own_cluster_tells_a_node_that_it_is_formed(node, is_ours, code):
    """faults 32: before a node takes part, any message of Raft could otherwise end its waiting for the members."""
    for id in ("n2", "n3"):
        mine = _introduce(node, id).incarnation
    cluster_id = _cluster_with(mine) if is_ours else ClusterId(b"another cluster.")
    two = NodeId("n2")
    exchange = HeardExchange()
    node.on_message(Envelope(cluster_id, two, _incarnation_of(two), ME, mine, TimeoutNow(Term(1))), exchange)
    assert [refused for _, refused, _ in exchange.refusals] == [code]
    assert node._forming.is_formed is is_ours
