"""What a world tells whoever watches it. Everything has an empty default: a watcher overrides what it looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raftkv.core.effects import DiskWrite, LogRead
from raftkv.core.messages import Envelope
from raftkv.core.types import ClusterId
from raftkv.replica import Work
from raftkv.sim.world.node import VirtualNode
from raftkv.sim.world.shadow import Shadow
from raftkv.storage.recovery import Recovered


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a start found in a log, beside what it may have found."""

    said: Recovered
    frames: list[bytes]
    """All entries after the base, read back."""
    admissible: Sequence[Shadow]
    """What was durable for sure, and that with each beginning of what was being written."""


@dataclass(slots=True)
class Watcher:
    """Looks at the cluster after every step; overridden by checkers and story tellers."""

    def stepped(self, node: VirtualNode, work: Work) -> None:
        """This node has just had a turn."""

    def synced(self, node: VirtualNode, write: DiskWrite) -> None:
        """This write is durable on this node's disk now."""

    def crashed(self, node: VirtualNode) -> None:
        """This node took part, and its process is gone."""

    def started(self, node: VirtualNode) -> None:
        """This node takes part, for the first time or again."""

    def heard(self, node: VirtualNode, envelope: Envelope) -> None:
        """This message has just arrived at the node's process, which may be paused."""

    def broke(self, kind: str) -> None:
        """A fault of that name has just been made."""

    def formed(self, node: VirtualNode, cluster_id: ClusterId) -> None:
        """This node has stored that its cluster is formed, just now or long ago."""

    def recovered(self, node: VirtualNode, found: Recovery) -> None:
        """This node has read its log."""

    def was_read(self, node: VirtualNode, read: LogRead, frames: list[bytes]) -> None:
        """These entries were read back from its log."""

    def refused_to_start(self, node: VirtualNode, error: Exception) -> None:
        """This node says that its directory cannot be used."""

    def halted(self, node: VirtualNode, error: BaseException) -> None:
        """This node has ended itself: its disk failed."""

    def room_is_short(self, node: VirtualNode, *, short: bool) -> None:
        """This node was told that its disk is full, or has room again."""

    def answered_a_stranger(self, node: VirtualNode, stranger: Envelope, reply: Envelope) -> None:
        """This node took a message of another cluster for one of its own."""
