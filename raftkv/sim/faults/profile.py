"""One run's kind of bad luck: what breaks, how often, at whom; and what the cluster is made of."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from raftkv.core.settings import RaftSettings
from raftkv.replica import HASH_INTERVAL, ReplicaSettings
from raftkv.sim.world.cluster import DiskFaults, Plan
from raftkv.sim.world.network import NetworkFaults
from raftkv.snapshotting import SnapshotSettings

CALM: Final = NetworkFaults()
LOSSY: Final = NetworkFaults(loss_per_mille=80, doubling_per_mille=30, failure_told_per_mille=500)
LATE: Final = NetworkFaults(
    delay_us_max=5_000, late_per_mille=50, late_us_max=900_000, doubling_per_mille=60, loss_per_mille=10
)
VERY_LATE: Final = replace(LATE, late_us_max=3_000_000)
"""Later than elections, transfers and their time-outs take."""
SLOW: Final = NetworkFaults(delay_us_min=5_000, delay_us_max=60_000, loss_per_mille=5)


@dataclass(frozen=True, slots=True)
class Profile:
    """One run's kind of bad luck."""

    voters: int
    weather: NetworkFaults
    kinds: tuple[str, ...]
    """Names in ``KINDS``; what happens is drawn from them, each as likely as it is often there."""
    pause_us_max: int
    """At most this long passes between one fault and the next."""
    aim: str | None
    """The node that everything happens to; None: anybody."""
    raft: RaftSettings
    disk: DiskFaults
    gathering_us_max: int
    clocks_differ: bool
    segment_bytes: int = 0
    """Of each node's log in files; 0: disks are models, and the cluster is formed from the beginning."""
    spares: int = 0
    """Nodes that are no members at first, where members change."""
    snapshots: SnapshotSettings = field(default_factory=SnapshotSettings)
    """When they are due; as it ships, never in so short a run."""
    catch_up_timeout_ms: int = 300_000
    """Who is to vote and has not caught up by then is let go."""
    request_timeout_ms: int = 2_000
    """After that a node tells who waits that it does not know."""

    def plan(self) -> Plan:
        """What the cluster is made of."""
        return Plan(
            voters=names_of(self.voters),
            members_change="change_members" in self.kinds,
            spares=names_of(self.voters + self.spares)[self.voters :],
            raft=self.raft,
            snapshots=self.snapshots,
            replica=ReplicaSettings(
                request_timeout_ms=self.request_timeout_ms,
                member_catch_up_timeout_ms=self.catch_up_timeout_ms,
                # Several comparisons to a snapshot, as where they ship.
                hash_interval_entries=min(HASH_INTERVAL, max(1, self.snapshots.snapshot_log_entries // 3)),
            ),
            network=self.weather,
            disk=self.disk,
            gathering_us_max=self.gathering_us_max,
            segment_bytes=self.segment_bytes,
        )


def names_of(count: int) -> tuple[str, ...]:
    """The first so many names."""
    return tuple("abcdefg"[:count])
