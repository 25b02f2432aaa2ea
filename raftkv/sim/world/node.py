"""One node of a virtual cluster: the replica and the pump that ship, over a disk and a process that can fail.

The disk keeps what is durable apart from what is merely handed to it: a crash keeps a prefix of the
unfinished writes, in their order, since a write is begun only when the one before is synced.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from raftkv.core.effects import DiskWrite, LogBase
from raftkv.core.raft import Raft
from raftkv.core.settings import RaftSettings
from raftkv.core.state import Identity
from raftkv.core.types import Incarnation, Index, NodeId
from raftkv.forming import Forming
from raftkv.pump import Pump
from raftkv.replica import Replica, ReplicaSettings, Work
from raftkv.sim.world.disk import SimulatedDirectory
from raftkv.sim.world.process import Clock as Clock
from raftkv.sim.world.process import Process
from raftkv.sim.world.shadow import Shadow
from raftkv.sim.world.snapshot_files import Job, SnapshotFiles, open_snapshots, restore
from raftkv.snapshotting import SnapshotSettings
from raftkv.state_machine import StateMachine
from raftkv.storage.snapshots import Snapshots, StoredSnapshot


class Disk(Shadow):
    """Where a node keeps its log; what may be wrong with it."""

    def __init__(self, base: LogBase) -> None:
        super().__init__(base)
        self.hangs = False
        """Nothing is finished while this holds."""
        self.is_spoiled = False
        """A bit of it was flipped."""
        self.trimmed_through = 0
        """Up to here nobody needs the log any more."""
        self.promised_snapshot = 0
        """A snapshot of all up to here was said to be in place."""
        self.incarnation: Incarnation | None = None
        """Whose directory this is, as far as any process has known; None: it is empty, or a model has none."""
        self.is_lost = False
        """A start has said that it cannot be used."""
        self.slowness = 1
        """So many times longer than usual does everything take."""
        self.syncs = 0
        """Begun so far; only the newest can end."""
        self.under_way = 0
        """So many of the unfinished writes, the oldest, are being written and synced now, as one batch."""

    def snapshot_is_in_place(self, base: LogBase) -> None:
        """That was said to be on stable storage."""
        self.promised_snapshot = max(self.promised_snapshot, base.index)

    def trim_log(self, through: Index) -> None:
        """Nobody needs the log up to there; how much of it goes is the disk's affair."""
        self.trimmed_through = max(self.trimmed_through, through)

    def finish(self) -> list[DiskWrite]:
        """The batch that is under way is durable now; returned. Raises DiskFailed."""
        count, self.under_way = self.under_way, 0
        return [self.finish_one() for _ in range(count)]

    def crash(self, rng: Random, *, power_fails: bool = False) -> None:
        """Some of the unfinished writes, the oldest ones, happen to be durable."""
        for _ in range(rng.randrange(len(self.unfinished) + 1)):
            self.finish_one()
        self.forget()

    def forget(self) -> None:
        """Whoever was to finish them is gone."""
        self.unfinished.clear()
        self.under_way = 0
        self.hangs = False


class ModelDisk(Disk):
    """A log on a disk that forgets what it has not finished: no files, no bytes, but for those of snapshots."""

    def __init__(self, base: LogBase) -> None:
        super().__init__(base)
        self.directory = SimulatedDirectory(Random(0))
        """Of the snapshots. What storage says is in place there is."""

    def trim_log(self, through: Index) -> None:
        """At once, what is durable of it."""
        super().trim_log(through)
        self.trim(min(through, self.base.index + len(self.frames)))


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
        disk: Disk | None = None,
        snapshot_settings: SnapshotSettings | None = None,
    ) -> None:
        """``disk`` None: a model of one."""
        self.me = me
        """Who it is, where no cluster is to be formed first."""
        self.disk = ModelDisk(base) if disk is None else disk
        self.joins = False
        """Its data is gone, and it is started to join its cluster as somebody new."""
        self.process: Process | None = None
        """None: it is down."""
        self.forming: Forming | None = None
        """Its way into the cluster, where one is to be formed first."""
        self.replica: Replica | None = None
        self.pump: Pump | None = None
        self.work = Work()
        """What the turn that it is in wants done."""
        self.life = 0
        """Counts the starts: what was addressed to an earlier life is void."""
        self.clock = Clock()
        self.unheard: list[Callable[[], None]] = []
        """What happened to the process while it stood still, in order."""
        self.disk_goes_on = False
        """While the process stands still, only its event loop does; its disk thread works."""
        self.waits_for = ""
        """Why it does not take part yet, as it says itself."""
        self.complaints: dict[NodeId, str] = {}
        """What is wrong with other members, as it says itself."""
        self.files: SnapshotFiles | None = None
        """Of the snapshots, while the node takes part."""
        self.waiting_jobs: dict[str, list[Job]] = {}
        """What its snapshot thread has still to do, by kind, oldest first."""
        self.slowed: list[Callable[[], None]] = []
        """What its slow disk is at, or was; done at once when it is fast again, each of them once."""
        self.raft_settings, self._replica_settings = raft_settings, replica_settings
        self._snapshot_settings = snapshot_settings
        self._make_machine = make_machine
        self._world_us = world_us

    @property
    def id(self) -> NodeId:
        """Its name."""
        return self.me.id

    @property
    def incarnation(self) -> Incarnation | None:
        """Who its data makes it; None: it is emptied, and nobody yet."""
        return self.me.incarnation if isinstance(self.disk, ModelDisk) else self.disk.incarnation

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
        """Whether it takes part: the process runs (it may be paused), and its cluster is formed."""
        return self.replica is not None

    @property
    def runs(self) -> bool:
        """Whether there is a process, be it that it only waits for its cluster to be formed."""
        return self.process is not None

    @property
    def paused(self) -> bool:
        """Whether its process stands still."""
        return self.process is not None and self.process.stands_still

    @property
    def stall_us(self) -> int:
        """For so long the process will be stopped in the middle of its next turn, when it has read its clock."""
        return 0 if self.process is None else self.process.stall_us

    def read_clock_us(self) -> int:
        """What this node's clock shows now."""
        return self.clock.local_us(self._world_us())

    def start(self, rng: Random) -> None:
        """The process begins with what its disk holds."""
        assert isinstance(self.disk, ModelDisk)
        self.life += 1
        snapshots = open_snapshots(self.disk.directory, self.me.cluster_id)
        saved = self.disk.recover(None if snapshots.newest is None else snapshots.newest.meta.base)
        self.begin(Raft(self.me, self.raft_settings, saved, Random(rng.randrange(2**32))), snapshots, snapshots.newest)

    def begin(self, raft: Raft, snapshots: Snapshots, restored: StoredSnapshot | None) -> None:
        """The node takes part; its machine is restored from that snapshot."""
        assert self.replica is None
        machine = self._make_machine()
        self.replica = Replica(
            raft,
            machine,
            self._replica_settings,
            clock=self.read_clock_us,
            snapshot_settings=self._snapshot_settings,
            restored=None if restored is None else restore(machine, snapshots, restored),
        )
        self.files = SnapshotFiles(
            snapshots, self.replica, raft.state.me.cluster_id, in_place=self.disk.snapshot_is_in_place
        )

    def crash(self, rng: Random, *, power_fails: bool = False) -> None:
        """The process is gone, with all that it had not synced."""
        self.end()
        self.disk.crash(rng, power_fails=power_fails)

    def end(self) -> None:
        """There is no process any more."""
        if self.pump is not None:
            self.pump.stop()
        if self.forming is not None:
            self.forming.stop()
        if self.process is not None:
            self.process.end()
        if self.files is not None:
            self.files.snapshots.close()
        self.replica = self.pump = self.forming = self.process = self.files = None
        self.waiting_jobs = {}
        self.slowed = []
        self.unheard.clear()
        self.disk_goes_on = False
