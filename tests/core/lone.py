"""One core whose peers, disk and clock are played by the test: every message is made by hand.

lone = Lone("a", "abc", log=[1, 1, 2])     a of three, its disk holds entries of these terms
lone.lead()                                elected by b
lone.says("b", HeartbeatReply(…))          b's message arrives, and a turn passes
lone.replies, lone.requests                what left since they were last looked at
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, TypeVar

from raftkv import frames as framing
from raftkv.core.effects import DiskWrite, Effects, LogBase
from raftkv.core.messages import (
    REQUEST_TYPES,
    AppendEntries,
    AppendEntriesReply,
    Envelope,
    Message,
    PreVoteReply,
    RequestVoteReply,
)
from raftkv.core.raft import Raft
from raftkv.core.settings import RaftSettings
from raftkv.core.state import Identity, Office, Saved
from raftkv.core.types import (
    ClusterId,
    Configuration,
    Incarnation,
    Index,
    Member,
    NodeId,
    Role,
    Term,
    membership_of,
)

CLUSTER_ID = ClusterId(b"a lone cluster..")
E_US = 300_000
NONE: Index = Index(0)
NO_TERM: Term = Term(0)
A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
Kind = TypeVar("Kind")
_LISTS = ("apply", "read_log", "reads_ready", "reads_failed", "notes", "snapshot_reads", "snapshot_writes")


def incarnation_of(name: str) -> Incarnation:
    """Of the node that has always been there under that name."""
    return Incarnation(name.encode().ljust(16, b"."))


def voters(*names: str) -> Configuration:
    """The configuration in which exactly these vote."""
    return Configuration(membership_of(Member(NodeId(n), incarnation_of(n), f"http://{n}") for n in names))


def entry(index: int, term: int, body: str = "") -> bytes:
    """One command's frame."""
    text = body or f"{index:05} of term {term:03}"
    return framing.encode(framing.EntryKind.COMMAND, term=term, index=index, body=text.encode())


def entries(terms: Iterable[int], *, first: int = 1) -> list[bytes]:
    """Frames of these terms, from index ``first`` on."""
    return [entry(index, term) for index, term in enumerate(terms, first)]


def configuration_entry(index: int, term: int, configuration: Configuration) -> bytes:
    """A configuration's frame."""
    return framing.encode(framing.EntryKind.CONFIGURATION, term=term, index=index, body=configuration.encode())


def runs_of(frames: Sequence[bytes]) -> list[tuple[Index, Term]]:
    """The term runs that a recovery would find."""
    runs: list[tuple[Index, Term]] = []
    for term, index in map(framing.term_and_index, frames):
        if not runs or runs[-1][1] != term:
            runs.append((Index(index), Term(term)))
    return runs


class Lone:
    """A core, and everything around it."""

    def __init__(
        self,
        name: str = "a",
        others: str = "abc",
        *,
        log: Sequence[int] = (),
        base: tuple[int, int] = (0, 0),
        term: int | None = None,
        voted_for: str | None = None,
        settings: RaftSettings | None = None,
        tail_first: int | None = None,
    ) -> None:
        frames = entries(log, first=base[0] + 1)
        newest = max([*log, base[1]])
        self.saved = Saved(
            base=LogBase(Index(base[0]), Term(base[1]), voters(*others)),
            term=Term(newest if term is None else term),
            voted_for=None if voted_for is None else NodeId(voted_for),
            term_runs=runs_of(frames),
            tail_first=None if tail_first is None else Index(tail_first),
            tail=frames[0 if tail_first is None else tail_first - base[0] - 1 :],
        )
        self.me = Identity(NodeId(name), incarnation_of(name), CLUSTER_ID)
        self.raft = Raft(self.me, settings or RaftSettings(), self.saved, Random(1))
        self.now_us = 0
        self.disk_answers = True
        self.writes: list[DiskWrite] = []
        self.effects = Effects()
        self._replies: list[Envelope] = []
        self._requests: list[Envelope] = []
        self._exchange = 0
        self.exchanges: list[object] = []
        self.elapse(0)

    # -- the world

    def turn(self) -> Effects:
        """Whatever the core wants done is taken; the disk does its part, if it answers."""
        found = Effects()
        while True:
            effects = self.raft.take()
            self.writes += effects.persist
            self._requests += effects.requests
            self._replies += [envelope for _, envelope in effects.replies]
            self.exchanges += [exchange for exchange, _ in effects.replies]
            for name in _LISTS:
                getattr(found, name).extend(getattr(effects, name))
            found.load_snapshot = effects.load_snapshot or found.load_snapshot
            found.drop_log_through = effects.drop_log_through or found.drop_log_through
            for committed in effects.apply:
                self.raft.applied(Index(committed.first + len(committed.frames) - 1))
            if not self.writes or not self.disk_answers:
                found.deadline_us = effects.deadline_us
                break
            self.sync()
        self.effects = found
        return found

    def sync(self) -> None:
        """The disk finishes everything that it was given."""
        writes, self.writes = self.writes, []
        self.raft.persisted(writes[-1].ticket)

    def elapse(self, duration_us: int) -> Effects:
        """Time passes, in one jump."""
        self.now_us += duration_us
        self.raft.elapse(self.now_us)
        return self.turn()

    def envelope(self, sender: str, message: Message, *, incarnation: str | None = None) -> Envelope:
        """What that node would send here."""
        return Envelope(
            CLUSTER_ID,
            NodeId(sender),
            incarnation_of(incarnation or sender),
            self.me.id,
            self.me.incarnation,
            message,
        )

    def hears(self, sender: str, message: Message) -> None:
        """The message arrives, and nothing is done yet."""
        exchange = None
        if isinstance(message, REQUEST_TYPES):
            self._exchange += 1
            exchange = self._exchange
        self.raft.receive(self.envelope(sender, message), exchange)

    def says(self, sender: str, message: Message) -> Effects:
        """The message arrives, and a turn passes."""
        self.hears(sender, message)
        return self.turn()

    # -- ways to get somewhere

    def stand(self) -> None:
        """The election timeout passes, and every other voter would vote for this node."""
        self.elapse(2 * self.raft.state.settings.election_timeout_us)
        if self.raft.role is Role.CANDIDATE and self.raft.state.campaign is not None:
            proposed = Term(self.raft.term + 1)
            for voter in self.raft.state.other_voters():
                self.says(voter, PreVoteReply(proposed, proposed, granted=True))

    def lead(self) -> Term:
        """Elected in the next term, with nothing of its own committed yet."""
        self.stand()
        for voter in self.raft.state.other_voters():
            self.says(voter, RequestVoteReply(self.raft.term, granted=True))
        assert self.raft.role is Role.LEADER
        self.forget()
        return self.raft.term

    def acknowledge(self, *names: str, match: int | None = None) -> None:
        """These followers hold the log up to there (all of it, if nothing is said)."""
        last = Index(self.raft.last_index if match is None else match)
        for name in names:
            self.says(name, AppendEntriesReply(self.raft.term, True, NONE, last, NO_TERM, NONE))

    def follow(self, leader: str, term: int) -> None:
        """That node leads in that term, and says so with an empty append at the end of this log."""
        last = self.raft.last_index
        message = AppendEntries(Term(term), last, self.raft.term_at(last) or NO_TERM, NONE, [])
        self.says(leader, message)
        assert self.raft.leader_id == leader
        self.forget()

    # -- what left

    def forget(self) -> None:
        """What left so far is of no interest."""
        self._replies, self._requests, self.exchanges = [], [], []

    @property
    def replies(self) -> list[Any]:
        """The replies that left since the last look."""
        replies, self._replies = self._replies, []
        return [envelope.message for envelope in replies]

    @property
    def reply(self) -> Any:
        """The one reply that left since the last look."""
        (only,) = self.replies
        return only

    def requests(self, kind: type[Kind], to: str | None = None) -> list[Kind]:
        """The requests of that kind that left since the last ``forget``."""
        return [
            envelope.message
            for envelope in self._requests
            if isinstance(envelope.message, kind) and to in (None, envelope.receiver)
        ]

    def sent(self, kind: type[Any]) -> list[Envelope]:
        """The same, with who speaks to whom."""
        return [envelope for envelope in self._requests if isinstance(envelope.message, kind)]

    @property
    def office(self) -> Office:
        """Of a node that leads."""
        office = self.raft.state.office
        assert office is not None
        return office

    @property
    def role(self) -> str:
        """Its role's name."""
        return self.raft.role.value

    @property
    def terms(self) -> list[int]:
        """The terms of the log's entries."""
        return [self.raft.term_at(i) or 0 for i in range(self.raft.state.log.base_index + 1, self.raft.last_index + 1)]
