"""The door of a virtual node: the API that ships, over the node's replica; bytes in, bytes out.

Told: requests as bytes, and on whose behalf they come. Tells: answers as bytes, each of them held against the log
first. May never know: how the bytes travel.

A new process has a new door, which forgets whatever the old one was asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from raftkv.api.exchange import Pending
from raftkv.api.problems import problem
from raftkv.api.reports import Diagnostics
from raftkv.api.requests import Head
from raftkv.api.responses import Response
from raftkv.api.routes import Api
from raftkv.api.service import BackupBusy, BackupOutcome, MemberStatus, Status
from raftkv.api.settings import ApiSettings
from raftkv.core.types import Member, NodeId
from raftkv.http import heads
from raftkv.http.exchange import HttpAnswer
from raftkv.members import MembersDone, Terms, Wish
from raftkv.outcomes import (
    Consistency,
    Leadership,
    ReadOutcome,
    SnapshotOutcome,
    TransferOutcome,
    WriteOutcome,
)
from raftkv.problems import Code
from raftkv.sim.checks.words import Behalf, Words
from raftkv.sim.world.node import VirtualNode
from raftkv.values import Address

PORT: Final = 7401
_DATE: Final = "Thu, 01 Jan 1970 00:00:00 GMT"
_SETTINGS: Final = ApiSettings()


def address_of(name: str) -> Address:
    """Where clients reach the node of that name."""
    return Address(name, PORT)


def url_of(member: Member) -> str:
    """The same as a URL."""
    return f"http://{member.id}:{PORT}"


class VirtualService:
    """Satisfies ``raftkv.api.service.Service`` for one life of a virtual node."""

    def __init__(self, node: VirtualNode, words: Words) -> None:
        self.behalf: Behalf | None = None
        """Of the request that is being taken."""
        self.answering: bytes | None = None
        """The command of which is just being told what became of it."""
        self.has_work = False
        """Something was enqueued at the replica: it wants a turn."""
        self._node, self._words = node, words
        self._began_us = node.read_clock_us()

    @property
    def is_stopping(self) -> bool:
        """SIGTERM came: what arrives from now on is refused, as the fronts do it."""
        return self._node.running.shutting_down

    def leadership(self) -> Leadership:
        """Who leads, as this node knows it now."""
        return self._node.running.leadership()

    def submit(self, command: bytes, done: Callable[[WriteOutcome], None], *, frees_space: bool = False) -> None:
        """Into the next proposal."""
        words, behalf = self._words, self.behalf
        words.write_arrives(command)

        def judged(outcome: WriteOutcome) -> None:
            words.write_was_answered(command, outcome, behalf)
            self.answering = command
            done(outcome)
            self.answering = None

        self._node.running.submit(command, judged, frees_space=frees_space)
        self.has_work = True

    def read(
        self,
        query: object,
        consistency: Consistency,
        done: Callable[[ReadOutcome], None],
        *,
        min_index: int = 0,
        max_staleness_ms: int | None = None,
    ) -> None:
        """Into the next read round."""
        words, behalf, node, arrived_us = self._words, self.behalf, self._node, self._words.now_us()

        def judged(outcome: ReadOutcome) -> None:
            words.read_was_answered(node, query, consistency, outcome, behalf, arrived_us)
            done(outcome)

        node.running.read(query, consistency, judged, min_index=min_index, max_staleness_ms=max_staleness_ms)
        self.has_work = True

    def transfer_leadership(self, target: str | None, done: Callable[[TransferOutcome], None]) -> None:
        """Has that voter lead; None: the best placed."""
        self._node.running.transfer_leadership(None if target is None else NodeId(target), done)
        self.has_work = True

    def take_snapshot(self, done: Callable[[SnapshotOutcome], None], *, wait_ms: int) -> None:
        """Of everything that is applied here now."""
        self._node.running.snapshots.ask(done, wait_us=wait_ms * 1000)
        self.has_work = True

    def open_backup(self, done: Callable[[BackupOutcome], None], *, wait_ms: int) -> None:
        """No simulated client asks for one: it would be a file in pieces."""
        done(BackupBusy())

    def change_members(self, wish: Wish, terms: Terms, done: MembersDone) -> None:
        """Nobody in the simulated world speaks to a new node beforehand, so nobody can be added by this way."""
        self._node.running.change_members(wish, {}, terms, done)
        self.has_work = True

    def new_session_id(self) -> bytes:
        """One that nobody had before."""
        return self._words.new_session_id()

    def status(self) -> Status:
        """This node as it is now, so far as clients go by it."""
        replica, raft = self._node.running, self._node.raft
        leadership, configurations = replica.leadership(), raft.state.configurations
        return Status(
            id=self._node.id,
            cluster_id=raft.state.me.cluster_id,
            role=raft.role.value,
            term=raft.term,
            leader_id=leadership.leader_id,
            leader_url=leadership.leader_url,
            commit_index=raft.commit_index,
            applied_index=raft.applied_index,
            last_index=raft.last_index,
            snapshot_index=replica.snapshots.index,
            log_bytes=None,
            revision=None,
            state_hash=None,
            version="virtual",
            uptime_ms=(self._node.read_clock_us() - self._began_us) // 1000,
            voters=tuple(
                MemberStatus(voter, replica.client_url_of(configurations.members[voter]))
                for voter in configurations.voters
            ),
            learners=tuple(
                MemberStatus(learner.member.id, replica.client_url_of(learner.member))
                for learner in raft.configuration.current.learners
            ),
            configuration_index=configurations.current_index,
        )

    def diagnostics(self) -> Diagnostics:
        """No client of the simulator asks for them."""
        raise NotImplementedError("a virtual node has no diagnostics")


class Door:
    """Takes requests as bytes for one life of a node."""

    def __init__(self, node: VirtualNode, words: Words) -> None:
        node.running.client_url_of = url_of
        self.service = VirtualService(node, words)
        self._words = words
        self._api = Api(self.service, node_id=node.id, settings=_SETTINGS, metrics=lambda: b"")

    def begin(self, request: bytes, behalf: Behalf | None) -> bytes | Callable[[Callable[[bytes], None]], None]:
        """The answer where the head settles it; or what has the whole request answered, now or later."""
        if self.service.is_stopping:
            return self._encoded(problem(Code.SHUTTING_DOWN, "this node is stopping; ask another one"))
        head = heads.read_head(request)
        assert head is not None, "a client sends whole heads"
        self.service.behalf = behalf
        decision = self._api.begin(_as_the_api_wants_it(request, head))
        if isinstance(decision, Response):
            return self._encoded(decision)
        body = request[head.end :]
        assert len(body) == head.content_length, "a client tells the length of its body"
        return lambda respond: self._finish(decision, body, behalf, respond)

    def _finish(self, pending: Pending, body: bytes, behalf: Behalf | None, respond: Callable[[bytes], None]) -> None:
        service = self.service

        def answered(response: Response) -> None:
            if service.answering is not None:
                self._words.write_was_told(service.answering, response.status)
            respond(self._encoded(response))

        service.behalf = behalf
        pending.finish(body, answered)

    def _encoded(self, response: Response) -> bytes:
        return self._api.encode(response, connection=None, date=_DATE)


def _as_the_api_wants_it(request: bytes, head: heads.Head) -> Head:
    """The fields as the server's parser would give them; that they are sound, ``read_head`` has seen to."""
    lines = request[: head.end - 4].split(b"\r\n")[1:]
    fields = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    return Head(head.method.decode(), head.target, fields, (1, head.minor_version))


def answer_in(encoded: bytes) -> HttpAnswer:
    """The answer as a client's parser would give it."""
    head, _, body = encoded.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    fields: dict[bytes, bytes] = {}
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip()
    length = fields.get(b"content-length")
    assert length is None or int(length) == len(body), "an answer is as long as it says"
    return HttpAnswer(int(lines[0][9:12]), fields, body)
