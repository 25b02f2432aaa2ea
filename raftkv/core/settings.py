"""What an operator may choose about consensus. Everything else is a rule, not a setting."""

from __future__ import annotations

from dataclasses import dataclass

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
    apply_entries_max: int = 1000
    """Entries handed to the state machine in one turn, so that a long catch-up stalls nothing."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be at least 1"
            for name in self.__slots__
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1
        ]
        if self.heartbeat_ms * 2 > self.election_timeout_ms:
            problems.append(
                f"heartbeat_ms ({self.heartbeat_ms}) must be at most half of election_timeout_ms "
                f"({self.election_timeout_ms}): else one lost heartbeat is an election"
            )
        if problems:
            raise ConfigError(problems)

    @property
    def election_timeout_us(self) -> int:
        """E in microseconds, the core's unit."""
        return self.election_timeout_ms * 1000

    @property
    def heartbeat_us(self) -> int:
        """The heartbeat interval in microseconds."""
        return self.heartbeat_ms * 1000
