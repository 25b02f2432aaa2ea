"""One node of a virtual cluster: the replica that ships, over a disk and a process that can fail.

The disk keeps what is durable apart from what is merely handed to it: a crash keeps a prefix of the
unfinished writes, in their order, since a write is begun only when the one before is synced.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from raftkv import frames as framing
from raftkv.core.effects import DiskWrite, LogBase, LogRead
from raftkv.core.raft import Raft
from raftkv.core.settings import RaftSettings
from raftkv.core.state import Identity, Saved
from raftkv.core.types import Configuration, Index, NodeId, Term
from raftkv.replica import Replica, ReplicaSettings
from raftkv.state_machine import StateMachine


class ModelDisk:
    """A log on a disk that forgets what it has not finished."""

    def __init__(self, base: LogBase) -> None:
        self.base = base
        self.vote: tuple[Term, NodeId | None] = (Term(0), None)
        self.frames: list[bytes] = []
        self.unfinished: deque[DiskWrite] = deque()
        self.hangs = False
        """Nothing is finished while this holds."""
        self.syncs = 0
        """Begun so far; only the newest can end."""

    def finish_one(self) -> DiskWrite:
        """The oldest write is durable now."""
        write = self.unfinished.popleft()
        if write.vote is not None:
            self.vote = write.vote
        if write.base is not None:
            self.base, self.frames = write.base, []
        if write.truncate_from is not None:
            del self.frames[write.truncate_from - self.base.index - 1 :]
        if write.frames:
            first = framing.term_and_index(write.frames[0])[1]
            assert first == self.base.index + len(self.frames) + 1, "a gap on disk"
            self.frames.extend(write.frames)
        return write

    def crash(self, rng: Random) -> None:
        """Some of the unfinished writes, the oldest ones, happen to be durable."""
        for _ in range(rng.randrange(len(self.unfinished) + 1)):
            self.finish_one()
        self.unfinished.clear()
        self.hangs = False

    def read(self, read: LogRead) -> list[bytes]:
        """The frames first … last, cut as the read says."""
        found: list[bytes] = []
        size = 0
        for frame in self.frames[read.first - self.base.index - 1 : read.last - self.base.index]:
            found.append(frame)
            size += len(frame)
            if size >= read.bytes_max:
                break
        return found

    def recover(self) -> Saved:
        """What a start finds."""
        runs: list[tuple[Index, Term]] = []
        configurations: list[tuple[Index, Configuration]] = []
        for frame in self.frames:
            term, index = framing.term_and_index(frame)
            if not runs or runs[-1][1] != term:
                runs.append((Index(index), Term(term)))
            if framing.kind(frame) == framing.EntryKind.CONFIGURATION:
                configurations.append((Index(index), Configuration.decode(framing.body(frame))))
        return Saved(
            base=self.base,
            term=self.vote[0],
            voted_for=self.vote[1],
            term_runs=runs,
            tail=list(self.frames),
            configurations=configurations,
        )


@dataclass(slots=True)
class Clock:
    """A node's monotonic clock: it began at any number, and runs a little fast or slow."""

    offset_us: int = 0
    per_mille: int = 1000
    """Of its own microseconds in a thousand of the world's."""

    def local_us(self, world_us: int) -> int:
        """What the node's clock shows at that time."""
        return self.offset_us + world_us * self.per_mille // 1000

    def world_us(self, local_us: int) -> int:
        """The first moment at which the clock shows that."""
        return -((self.offset_us - local_us) * 1000 // self.per_mille)


class VirtualNode:
    """A process that can crash, restart, pause; its disk outlives it."""

    def __init__(
        self,
        me: Identity,
        base: LogBase,
        *,
        raft_settings: RaftSettings,
        replica_settings: ReplicaSettings,
        make_machine: Callable[[], StateMachine],
        world_us: Callable[[], int],
    ) -> None:
        self.me = me
        self.disk = ModelDisk(base)
        self.replica: Replica | None = None
        self.life = 0
        """Counts the starts: what was addressed to an earlier life is void."""
        self.clock = Clock()
        self.paused = False
        self.stall_us = 0
        """For so long the process will be stopped in the middle of its next turn, when it has read its clock."""
        self.stalled_at_us: int | None = None
        """What its clock showed in the turn in which it is stopped."""
        self.unheard: list[Callable[[], None]] = []
        """What happened to the process while it was paused, in order."""
        self.turn_due_us: int | None = None
        """When the pump wants its next turn at the latest, on the world's clock."""
        self.timer_at_us: int | None = None
        """The event that will give it one, or look again."""
        self.turn_is_coming = False
        self._raft_settings = raft_settings
        self._replica_settings = replica_settings
        self._make_machine = make_machine
        self._world_us = world_us

    @property
    def id(self) -> NodeId:
        """Its name."""
        return self.me.id

    @property
    def running(self) -> Replica:
        """The replica of a node that is up."""
        assert self.replica is not None, f"{self.id} is down"
        return self.replica

    @property
    def raft(self) -> Raft:
        """The core of a node that is up."""
        return self.running.raft

    @property
    def is_up(self) -> bool:
        """Whether the process runs (it may be paused)."""
        return self.replica is not None

    def read_clock_us(self) -> int:
        """What this node's clock shows now."""
        return self.clock.local_us(self._world_us())

    def start(self, rng: Random) -> None:
        """The process begins with what its disk holds."""
        assert self.replica is None
        self.life += 1
        raft = Raft(self.me, self._raft_settings, self.disk.recover(), Random(rng.randrange(2**32)))
        self.replica = Replica(raft, self._make_machine(), self._replica_settings, clock=self.read_clock_us)

    def crash(self, rng: Random) -> None:
        """The process is gone, with all that it had not synced."""
        self.replica = None
        self.paused = self.turn_is_coming = False
        self.stall_us, self.stalled_at_us = 0, None
        self.unheard.clear()
        self.turn_due_us = self.timer_at_us = None
        self.disk.crash(rng)
