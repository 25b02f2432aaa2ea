"""One replica whose peers, disk and clock are played by the test, over a machine that remembers what it saw."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

from raftkv import frames as framing
from raftkv.core.effects import Note
from raftkv.core.messages import (
    REQUEST_TYPES,
    AppendEntries,
    AppendEntriesReply,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVoteReply,
    RequestVoteReply,
)
from raftkv.core.settings import RaftSettings
from raftkv.core.types import Index, NodeId, Role, Round, Term
from raftkv.outcomes import Consistency, Refused, Why
from raftkv.replica import Replica, ReplicaSettings, Work
from raftkv.snapshotting import SnapshotSettings
from raftkv.state_machine import LogEntry, StateMachine
from tests.core.lone import NO_TERM, NONE, Lone


class Remembering(StateMachine):
    """A machine that keeps every entry it was given, and can be told that something runs out."""

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []
        self.batches: list[int] = []
        self.due_ms: int | None = None

    def apply_batch(self, entries: Sequence[LogEntry]) -> list[str]:
        self.batches.append(len(entries))
        self.entries += entries
        if self.due_ms is not None and any(entry.stamp_ms >= self.due_ms for entry in entries):
            self.due_ms = None
        return [f"did {entry.command.decode()}" for entry in entries]

    def query(self, query: Any) -> str:
        return f"{query} after {len(self.entries)}"

    def tick_due_ms(self) -> int | None:
        return self.due_ms

    def tick_command(self) -> bytes:
        return b"tick"

    def state_hash(self) -> int:
        return len(self.entries)

    def snapshot(self) -> bytes:
        return b"\n".join(entry.command for entry in self.entries)

    def restore(self, snapshot: bytes) -> None:
        self.entries = [LogEntry(index, 0, command) for index, command in enumerate(snapshot.split(b"\n"), 1)]

    def discard(self) -> Iterator[None]:
        self.entries = []
        return iter(())

    @property
    def commands(self) -> list[str]:
        return [entry.command.decode() for entry in self.entries]


class LoneReplica:
    """A replica of three (or of those that are named), and all that it told its clients."""

    def __init__(
        self,
        others: str = "abc",
        *,
        settings: ReplicaSettings | None = None,
        raft_settings: RaftSettings | None = None,
        snapshot_settings: SnapshotSettings | None = None,
        log: Sequence[int] = (),
    ) -> None:
        self.lone = Lone("a", others, settings=raft_settings, log=log)
        self.raft = self.lone.raft
        self.machine = Remembering()
        self.stopped_us = 0
        """For so long the process is stopped between the reading of its clock and the end of each turn."""
        self.replica = Replica(
            self.raft,
            self.machine,
            settings,
            clock=lambda: self.now_us + self.stopped_us,
            snapshot_settings=snapshot_settings,
        )
        self.told: list[tuple[str, Any]] = []
        self.disk_answers = True
        self.now_us = 0
        self.round = 0
        self.works: list[Work] = []
        self.deadline_us: int | None = None
        self._unsynced: list[Any] = []

    def turn(self, duration_us: int = 0) -> None:
        """Time passes, and everything that can be done is."""
        self.now_us += duration_us
        while True:
            work = self.replica.turn(self.now_us)
            self.works.append(work)
            self._unsynced += work.persist
            self.deadline_us = work.deadline_us
            if not self._unsynced or not self.disk_answers:
                return
            written, self._unsynced = self._unsynced, []
            self.replica.persisted(written[-1].ticket)

    def says(self, sender: str, message: Message, *, then_turn: bool = True) -> None:
        exchange = object() if isinstance(message, REQUEST_TYPES) else None
        self.replica.receive(self.lone.envelope(sender, message), exchange)
        if then_turn:
            self.turn()

    # -- ways to get somewhere

    def lead(self) -> None:
        """Elected, its no-op committed, in contact with everybody."""
        self.win()
        self.acknowledge()

    def win(self) -> None:
        """Elected, its no-op not committed yet."""
        self.turn(2 * self.raft.state.settings.election_timeout_us)
        for voter in self.raft.state.other_voters():
            proposed = Term(self.raft.term + 1)
            if self.raft.state.campaign is not None and self.raft.state.campaign.is_pre_vote:
                self.says(voter, PreVoteReply(proposed, proposed, granted=True))
        for voter in self.raft.state.other_voters():
            self.says(voter, RequestVoteReply(self.raft.term, granted=True))
        assert self.raft.role is Role.LEADER

    def acknowledge(self, *names: str) -> None:
        """They (or all) hold the leader's log, and have echoed its newest round."""
        for name in names or self.raft.state.other_voters():
            self.says(name, AppendEntriesReply(self.raft.term, True, NONE, self.raft.last_index, NO_TERM, NONE))
            self.echo(name)

    def echo(self, *names: str, withholds_ms: int = 0) -> None:
        """They have echoed its newest round."""
        office = self.raft.state.office
        assert office is not None
        for name in names:
            self.says(name, HeartbeatReply(self.raft.term, office.last_round, NONE, b"", withholds_ms))

    def promise(self, *names: str) -> None:
        """The same, and they withhold their votes for as long as this node would."""
        self.echo(*names, withholds_ms=self.raft.state.settings.election_timeout_ms)

    def follow(self, leader: str, term: int, *, age_ms: int = 0) -> None:
        """That node leads in that term; then so much time passes since the newest round that it has confirmed."""
        self.round += 1
        self.says(leader, Heartbeat(Term(term), NONE, self.raft.commit_index, Round(self.round), 0, 0))
        life, heard_us = self.raft.state.life, self.now_us
        self.turn(age_ms * 1000)
        self.round += 1
        self.says(leader, Heartbeat(Term(term), NONE, self.raft.commit_index, Round(self.round), life, heard_us))

    def append(self, leader: str, term: int, bodies: Sequence[bytes | None], *, prev: int, commit: int) -> None:
        """That leader's entries arrive: commands with these bodies, a no-op for None."""
        frames = [
            framing.encode(
                framing.EntryKind.NOOP if body is None else framing.EntryKind.COMMAND,
                term=term,
                index=index,
                body=body or b"",
            )
            for index, body in enumerate(bodies, prev + 1)
        ]
        prev_term = self.raft.term_at(prev) or NO_TERM
        self.says(leader, AppendEntries(Term(term), Index(prev), prev_term, Index(commit), frames))

    # -- clients

    def submit(self, name: str, *, frees_space: bool = False, then_turn: bool = True) -> None:
        self.replica.submit(name.encode(), lambda outcome: self.told.append((name, outcome)), frees_space=frees_space)
        if then_turn:
            self.turn()

    def read(
        self,
        name: str,
        consistency: Consistency = Consistency.LINEARIZABLE,
        *,
        min_index: int = 0,
        max_staleness_ms: int | None = None,
    ) -> None:
        self.replica.read(
            name,
            consistency,
            lambda outcome: self.told.append((name, outcome)),
            min_index=min_index,
            max_staleness_ms=max_staleness_ms,
        )
        self.turn()

    def transfer(self, target: str | None = None) -> None:
        wanted = None if target is None else NodeId(target)
        self.replica.transfer_leadership(wanted, lambda outcome: self.told.append(("transfer", outcome)))
        self.turn()

    def outcome(self, name: str) -> Any:
        """What that client was told; None: nothing yet. Never more than once."""
        outcomes = [outcome for told, outcome in self.told if told == name]
        assert len(outcomes) <= 1, f"{name} was told {outcomes}"
        return outcomes[0] if outcomes else None

    @property
    def notes(self) -> list[Note]:
        return [note for work in self.works for note in work.notes]

    def requests(self, kind: type[Any]) -> list[Any]:
        return [one for work in self.works for one in work.requests if isinstance(one.message, kind)]


def leading(**how) -> LoneReplica:
    lone = LoneReplica(**how)
    lone.lead()
    return lone


def stamped(stamp_ms: int, command: bytes) -> bytes:
    return struct.pack("<Q", stamp_ms) + command


def why(outcome) -> Why:
    assert isinstance(outcome, Refused), outcome
    return outcome.why
