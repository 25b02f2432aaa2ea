"""How a client behaves, validated once."""

from __future__ import annotations

from dataclasses import dataclass

from raftkv.errors import ConfigError
from raftkv.kv.commands import TTL_MS_MAX, TTL_MS_MIN


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Times and bounds of one client. Raises ConfigError with every problem at once."""

    timeout_s: float = 15.0
    """For a whole call, with all its attempts, where the call does not say otherwise; an election passes in it."""
    session_ttl_s: float = 60.0
    """How long the cluster remembers what a client has written when it hears no more of it: for so long a program
    may stand still, or be cut off, and still repeat a write safely."""
    monotonic_reads: bool = True
    """No ``stale`` read shows a state older than what this client has seen before, whichever node answers."""
    shared_connections_per_node_max: int = 4
    """Requests for single keys share connections: reads at most so many to each node, writes as many, ``follower`` and
    ``stale`` reads too, each with up to 32 requests under way. Calls beyond that wait their turn. 0: none is shared,
    for where something on the way carries out only one request of a connection at a time."""
    connections_per_node_max: int = 32
    """For all else, values above 16 KiB too: one request at a time on each."""
    connect_timeout_s: float = 1.0
    silence_s: float = 0.5
    """Without an answer for so long, others are asked who leads; a read that any node may answer goes to another."""
    answer_timeout_s: float = 7.0
    """For one attempt whose node is still said to lead. The nodes themselves give up after 5 s by default, and say
    what they know."""
    close_timeout_s: float = 1.0
    """For ending the session when the client is closed. One that is not ended expires."""

    def __post_init__(self) -> None:
        times = ("timeout_s", "connect_timeout_s", "silence_s", "answer_timeout_s", "close_timeout_s")
        problems = [
            f"{name} must be a time above 0, not {getattr(self, name)!r}"
            for name in times
            if not 0 < getattr(self, name) < 1e6
        ]
        if not TTL_MS_MIN <= self.session_ttl_s * 1000 <= TTL_MS_MAX:
            problems.append(f"session_ttl_s must be {TTL_MS_MIN // 1000} to {TTL_MS_MAX // 1000} seconds")
        if self.shared_connections_per_node_max < 0:
            problems.append("shared_connections_per_node_max must be at least 0")
        if self.connections_per_node_max < 1:
            problems.append("connections_per_node_max must be at least 1")
        if problems:
            raise ConfigError(problems)
