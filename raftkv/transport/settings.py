"""The settings of the links between peers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """Bounds of one link; times in seconds."""

    control_timeout_s: float = 1.0
    """For votes, heartbeats, read rounds and introductions: beyond it the core has long asked again."""
    bulk_timeout_s: float = 5.0
    """For appends: the follower's disk is in it, and up to 18 MiB on a slow network."""
    snapshot_timeout_s: float = 10.0
    """For pieces of a snapshot: with the last one the follower proves the whole file."""
    control_outstanding_max: int = 64
    bulk_outstanding_max: int = 8
    """Above what the core has in flight to one peer, so that in order it is the core that waits."""
    snapshot_outstanding_max: int = 2
    """The core has one on its way; another where it has given that up."""
    control_unsent_bytes_max: int = 256 * 1024
    bulk_unsent_bytes_max: int = 8 * 1024 * 1024
    """Appends are pipelined: several of 1 MiB may be on their way."""
    connect_timeout_s: float = 1.0
    reconnect_first_s: float = 0.02
    """A peer that restarts should hear from us before it starts an election."""
    reconnect_max_s: float = 0.5
    """The wait doubles up to this; each wait is drawn between half of it and all of it."""
    answer_bytes_max: int = 256 * 1024
