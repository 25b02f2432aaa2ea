"""What is on stable storage, and the disk work that is to make more of it so.

Told: what changed (vote, truncation, entries), and which tickets are done. Tells: the disk work that has
gathered, ``durable_index`` and ``durable_vote``. Tickets are done in order. The rules:

- ``durable_index``: every entry up to it, as the log now stands, is on stable storage.
- A truncation at i takes it back to i - 1 at once, and a ticket that was handed out before can never
  raise it past i - 1 again. So does a new base at i, and its own ticket raises it to i.
- A change of term takes nothing back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from raftkv.core import rules
from raftkv.core.effects import DiskWrite, LogBase
from raftkv.core.types import Index, NodeId, Term, Ticket

Vote = tuple[Term, NodeId | None]


@dataclass(slots=True)
class _Outstanding:
    """A write that was handed out: what it will have made durable."""

    ticket: Ticket
    handed_out_us: int
    last_index: Index | None
    vote: Vote | None


class Durability:
    """Hands out disk work and keeps account of it."""

    __slots__ = ("_gathered", "_last_gathered", "_outstanding", "_ticket", "durable_index", "durable_vote")

    def __init__(self, *, durable_index: Index, durable_vote: Vote) -> None:
        self.durable_index = durable_index
        self.durable_vote = durable_vote
        self._ticket = 0
        self._gathered: list[DiskWrite] = []
        self._last_gathered: dict[Ticket, Index] = {}
        self._outstanding: deque[_Outstanding] = deque()

    def vote_changed(self, vote: Vote) -> None:
        """Term or vote are new and must be stored before anything that rests on them leaves."""
        self._write(before=("vote", "base", "truncate_from", "frames")).vote = vote

    def base_changed(self, base: LogBase) -> None:
        """The log starts anew after a snapshot: nothing of the old one counts, nor the base before it is stored."""
        self._take_back(base.index)
        write = self._write(before=("base", "truncate_from", "frames"))
        write.base = base
        self._last_gathered[write.ticket] = base.index

    def truncated(self, index: Index) -> None:
        """Entry ``index`` and all after it are gone from the log."""
        self._take_back(index)
        self._write(before=("truncate_from", "frames")).truncate_from = index

    def appended(self, frames: list[bytes], *, last_index: Index) -> None:
        """Entries were put at the end of the log."""
        write = self._write(before=())
        write.frames.extend(frames)
        self._last_gathered[write.ticket] = last_index

    def take(self, *, now_us: int) -> list[DiskWrite]:
        """The disk work since the last call, now handed out."""
        taken, self._gathered = self._gathered, []
        for write in taken:
            last_index = self._last_gathered.pop(write.ticket, None)
            self._outstanding.append(_Outstanding(write.ticket, now_us, last_index, write.vote))
        return taken

    def persisted(self, ticket: Ticket) -> None:
        """Everything handed out up to this ticket is on stable storage."""
        while self._outstanding and self._outstanding[0].ticket <= ticket:
            done = self._outstanding.popleft()
            if done.vote is not None:
                self.durable_vote = done.vote
            if done.last_index is not None and done.last_index > self.durable_index:
                self.durable_index = done.last_index

    @property
    def oldest_write_us(self) -> int | None:
        """When the oldest unfinished write was handed out; None: the disk is idle."""
        return self._outstanding[0].handed_out_us if self._outstanding else None

    def _take_back(self, index: Index) -> None:
        self.durable_index = rules.durable_index_after_truncation(durable=self.durable_index, truncated_from=index)
        for write in self._outstanding:
            if write.last_index is not None:
                write.last_index = min(write.last_index, Index(index - 1))
        for ticket, last_index in self._last_gathered.items():
            self._last_gathered[ticket] = min(last_index, Index(index - 1))

    def _write(self, *, before: tuple[str, ...]) -> DiskWrite:
        """The gathered write, or a new one if the last already holds what must come after."""
        if self._gathered and not any(_is_set(self._gathered[-1], name) for name in before):
            return self._gathered[-1]
        self._ticket += 1
        write = DiskWrite(Ticket(self._ticket))
        self._gathered.append(write)
        return write


def _is_set(write: DiskWrite, name: str) -> bool:
    value = getattr(write, name)
    return bool(value) if name == "frames" else value is not None
