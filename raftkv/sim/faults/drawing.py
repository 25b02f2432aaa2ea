"""A profile from a seed: runs differ in kind, some are calm, some aim everything at one node."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Final

from raftkv.core.settings import RaftSettings
from raftkv.sim.faults.kinds import FILE_KINDS, KINDS
from raftkv.sim.faults.profile import CALM, LATE, LOSSY, SLOW, VERY_LATE, Profile, names_of
from raftkv.sim.world.cluster import DiskFaults
from raftkv.snapshotting import SnapshotSettings

_DRIFT_PER_MILLE: Final = 223
"""No more than the fastest of these clocks gains on the slowest: leases have nothing to spare."""
_SEGMENT_BYTES: Final = (0, 4_096, 4_096, 16_384, 65_536)
"""Small, so that logs go on in new segments often; 0: a model of a disk, which is faster."""

_PARTS_LEADERS: Final = "hand_over_unheard"
"""Of all kinds the one that most often brings about what clients must never see, and logs that part."""


_CHANGES_MEMBERS: Final = "change_members"
_REPLACES_MEMBERS: Final = "replace_member"
_CHANGE_MEMBERS: Final = {_CHANGES_MEMBERS, _REPLACES_MEMBERS}
_LOSE_DATA: Final = ("wipe", "flip_bit")


def _like(rng: Random) -> Random:
    """What is drawn from it leaves alone what the run draws after this: its seed is the same run but for that."""
    other = Random(0)
    other.setstate(rng.getstate())
    return Random(other.getrandbits(64))


def draw_profile(rng: Random) -> Profile:
    """A kind of run."""
    voters = rng.choice((1, 3, 3, 3, 3, 3, 5, 5))
    segment_bytes = rng.choice(_SEGMENT_BYTES)
    drawn = sorted(KINDS.keys() - _CHANGE_MEMBERS - (set() if segment_bytes else FILE_KINDS.keys()))
    kinds = rng.sample(drawn, rng.randrange(1, 5))
    if rng.randrange(4) == 0:
        kinds.append(_PARTS_LEADERS)
    raft = RaftSettings(election_timeout_ms=300, heartbeat_ms=rng.choice((50, 100, 150)))
    if rng.randrange(2):
        raft = replace(
            raft,
            append_bytes_max=rng.choice((1, 200, 2_000)),
            inflight_appends_max=rng.choice((1, 2, 4)),
            inflight_rounds_max=rng.choice((1, 2)),
            log_memory_bytes=rng.choice((1, 500, 5_000)),
            apply_entries_max=rng.choice((1, 5, 100)),
        )
        raft = replace(raft, log_recent_bytes=max(1, raft.log_memory_bytes // 10))
    clocks_differ = rng.randrange(2) == 0
    if rng.randrange(3) == 0:
        raft = replace(raft, lease_reads=True, clock_drift_max_per_mille=_DRIFT_PER_MILLE if clocks_differ else 1)
    snapshots = SnapshotSettings()
    if rng.randrange(2):
        snapshots = SnapshotSettings(snapshot_log_entries=rng.choice((3, 10, 40)), proof_wait_ms=500)
        raft = replace(
            raft, log_tail_entries=rng.choice((1, 1, 5, 50)), snapshot_chunk_bytes=rng.choice((100, 500, 4_000))
        )
    beside = _like(rng)
    spares, catch_up_timeout_ms = 0, 300_000
    if rng.randrange(3) == 0:
        # Whoever left may not be needed to bring back what a minority of those who are left has lost.
        kinds = [kind for kind in kinds if kind not in _LOSE_DATA] + [_CHANGES_MEMBERS] * rng.choice((1, 1, 3))
        spares = rng.randrange(3)
        catch_up_timeout_ms = beside.choice((1_000, 300_000))
    elif segment_bytes and voters > 1 and beside.randrange(3) == 0:
        # Nobody else's data may be lost where somebody's is on purpose.
        kinds = [kind for kind in kinds if kind not in _LOSE_DATA] + [_REPLACES_MEMBERS]
    return Profile(
        voters=voters,
        weather=rng.choice((CALM, CALM, LOSSY, LATE, VERY_LATE, SLOW)),
        kinds=() if rng.randrange(12) == 0 else tuple(kinds),
        pause_us_max=rng.choice((200_000, 800_000, 2_000_000)),
        aim=rng.choice(names_of(voters)) if rng.randrange(4) == 0 else None,
        raft=raft,
        disk=rng.choice((DiskFaults(), DiskFaults(sync_us_min=500, sync_us_max=30_000, read_us=5_000))),
        gathering_us_max=rng.choice((0, 300, 3_000)),
        clocks_differ=clocks_differ,
        segment_bytes=segment_bytes,
        snapshots=snapshots,
        spares=spares,
        catch_up_timeout_ms=catch_up_timeout_ms,
        request_timeout_ms=rng.choice((500, 2_000)),
    )
