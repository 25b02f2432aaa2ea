"""What an operator may choose about consensus. Everything else is a rule, not a setting."""

from __future__ import annotations

from dataclasses import dataclass, fields

from raftkv.core import rules
from raftkv.core.messages import SNAPSHOT_CHUNK_BYTES_MAX
from raftkv.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RaftSettings:
    """Times and bounds of one node; validated when made."""

    election_timeout_ms: int = 300
    """The lower bound E of the randomized election timeout; the upper is twice that (paper §5.2)."""
    heartbeat_ms: int = 100
    """How often a leader speaks when it has nothing to send; at most half of E."""
    append_bytes_max: int = 1024 * 1024
    """Of entries in one AppendEntries; one entry always fits."""
    inflight_appends_max: int = 4
    """AppendEntries sent to one follower and not yet answered."""
    inflight_rounds_max: int = 4
    """Read rounds that wait for their majority; further reads gather for the next."""
    log_memory_bytes: int = 64 * 1024 * 1024
    """Entries kept in memory; what a slow follower needs from before is read from disk."""
    log_recent_bytes: int = 512 * 1024
    """Of these, what stays in memory though every member holds it, and what a start reads in advance."""
    snapshot_chunk_bytes: int = 1024 * 1024
    """Of a snapshot's file in one InstallSnapshot."""
    log_tail_entries: int = 10_000
    """Entries kept before a snapshot of our own, so that a follower that lags a little needs no snapshot …"""
    log_tail_bytes: int = 16 * 1024 * 1024
    """… or as many as are not larger than this in all, if these are fewer."""
    apply_entries_max: int = 1000
    """Entries handed to the state machine in one turn, so that a long catch-up stalls nothing."""
    lease_reads: bool = False
    """This node promises, as a voter, what a lease rests on, and, as a leader, answers lease reads on it."""
    clock_drift_max_per_mille: int = 100
    """No node's clock runs faster than another's by more than so many thousandths. Leases rest on it, and what is
    said of a stale read's age."""

    def __post_init__(self) -> None:
        numbers = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "lease_reads"}
        problems = [
            f"{name} must be at least 1" for name, value in numbers.items() if not isinstance(value, int) or value < 1
        ]
        if not problems and self.snapshot_chunk_bytes > SNAPSHOT_CHUNK_BYTES_MAX:
            problems.append(
                f"snapshot_chunk_bytes ({self.snapshot_chunk_bytes}) must be at most {SNAPSHOT_CHUNK_BYTES_MAX}: "
                "no node takes more at once"
            )
        if self.heartbeat_ms * 2 > self.election_timeout_ms:
            problems.append(
                f"heartbeat_ms ({self.heartbeat_ms}) must be at most half of election_timeout_ms "
                f"({self.election_timeout_ms}): else one lost heartbeat is an election"
            )
        if self.lease_reads and not problems and self.lease_us <= self.heartbeat_us:
            problems.append(
                f"clock_drift_max_per_mille ({self.clock_drift_max_per_mille}) leaves leases of "
                f"{self.lease_us // 1000} ms, which run out before the next heartbeat ({self.heartbeat_ms} ms)"
            )
        if problems:
            raise ConfigError(problems)

    @property
    def election_timeout_us(self) -> int:
        """E in microseconds, the core's unit."""
        return self.election_timeout_ms * 1000

    @property
    def lease_us(self) -> int:
        """How long a lease lasts when everybody promises E."""
        return rules.lease_duration_us(
            promised_us=self.election_timeout_us, clock_drift_max_per_mille=self.clock_drift_max_per_mille
        )

    @property
    def withholds_ms(self) -> int:
        """How long this voter promises not to vote after it has heard a leader, a restart included; 0: no promise."""
        return self.election_timeout_ms if self.lease_reads else 0

    @property
    def log_kept_bytes(self) -> int:
        """``log_recent_bytes``, if so much may be kept in memory at all."""
        return min(self.log_recent_bytes, self.log_memory_bytes)

    @property
    def heartbeat_us(self) -> int:
        """The heartbeat interval in microseconds."""
        return self.heartbeat_ms * 1000
