"""A node's log as storage writes it, on a simulated disk, and beside it what must be there.

Told: writes to finish, when the process dies and how, what to spoil. Tells: whatever storage says of its files; and the
same from memory, so that somebody else can compare. Whatever dies, dies inside an operation of the disk as well as
between two of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from itertools import islice
from random import Random
from typing import Final

from raftkv.core.effects import DiskWrite, LogRead
from raftkv.core.types import ID_BYTES, Incarnation, Index, NodeId
from raftkv.errors import DataDamaged, DiskFailed
from raftkv.sim.world.disk import Crash, Moment, SimulatedDirectory
from raftkv.sim.world.node import Disk
from raftkv.sim.world.shadow import Shadow
from raftkv.sim.world.watching import Recovery
from raftkv.storage.identity import IDENTITY_NAME, Identity, IdentityFile, read_identity
from raftkv.storage.recovery import Recovered
from raftkv.storage.segments import Segment, segment_name, segment_numbers
from raftkv.storage.snapshots import Snapshots
from raftkv.storage.standing import BEGINNING
from raftkv.storage.wal import Wal

_READ_ALL_ONE_IN: Final = 8
"""So often a start's log is read back as a whole, also where all of it is in memory."""
_MOMENTS: Final = tuple(Moment)
_OPERATIONS_OF_A_ROLL: Final = 16


class WalDisk(Disk):
    """A directory with an identity and a log."""

    def __init__(self, name: NodeId, rng: Random, *, segment_bytes: int) -> None:
        super().__init__(BEGINNING)
        self.name, self._rng, self._segment_bytes = name, rng, segment_bytes
        self.directory = SimulatedDirectory(Random(rng.randrange(2**32)), path=name)
        self.identity: IdentityFile | None = None
        """Of the process that runs."""
        self.wipes = 0
        self._openings = 0
        self._wal: Wal | None = None
        self._in_doubt: list[DiskWrite] = []
        """What was being written when the process last died: each beginning of it may be found."""

    # ------------------------------------------------------------------------------------- a process

    def open_identity(self) -> IdentityFile:
        """Whose directory this is. Raises DataError."""
        self._openings += 1
        text = f"{self.name} {self._openings}"
        drawn = Incarnation(text.encode()[-ID_BYTES:].ljust(ID_BYTES, b"."))
        self.identity = IdentityFile.open(self.directory, node_id=self.name, new_incarnation=drawn)
        self.incarnation = self.identity.identity.incarnation
        return self.identity

    def stored(self) -> Identity | None:
        """What the directory says of whose it is, whether or not anybody runs; None: nothing, or nothing sound."""
        if self.identity is not None:
            return self.identity.identity
        try:
            return read_identity(self.directory) if self.directory.exists(IDENTITY_NAME) else None
        except DataDamaged:
            return None

    def open_log(self, snapshots: Snapshots, *, tail_bytes_max: int) -> Recovery:
        """The log is read, and can be written. Raises DataError."""
        assert self.identity is not None, "an identity comes before a log"
        wal, recovered = Wal.open(
            self.directory,
            self.identity,
            segment_bytes=self._segment_bytes,
            tail_bytes_max=tail_bytes_max,
            snapshots=snapshots,
        )
        found = Recovery(recovered, self._frames(wal, recovered), self._admissible(recovered))
        self._wal = wal
        self._in_doubt = []
        self.vote, self.base = (recovered.term, recovered.voted_for), recovered.base
        self.frames = list(found.frames)
        return found

    def trim_log(self, through: Index) -> None:
        """See Disk and Wal."""
        super().trim_log(through)
        self._open_wal().trim(through)

    def finish(self) -> list[DiskWrite]:
        """See Disk. Raises DiskFailed or Crash; then nobody knows what is on the disk."""
        wal, self._in_doubt = self._open_wal(), list(islice(self.unfinished, self.under_way))
        self._wal = None
        wal.write(self._in_doubt)
        self._wal, self._in_doubt = wal, []
        return super().finish()

    @property
    def is_open(self) -> bool:
        """Whether there is a log that can be written."""
        return self._wal is not None

    @property
    def is_unmarked(self) -> bool:
        """``mark`` has something to do."""
        return self._open_wal().is_unmarked

    @property
    def wants_spare(self) -> bool:
        """``prepare_spare`` has something to do."""
        return self._open_wal().wants_spare

    @property
    def room_is_short(self) -> bool:
        """The disk has no room for another segment."""
        return self._open_wal().room_is_short

    def mark(self) -> None:
        """See Wal."""
        self._open_wal().mark()

    def prepare_spare(self) -> None:
        """See Wal."""
        self._open_wal().prepare_spare()

    def read_back(self, read: LogRead) -> list[bytes]:
        """From the files, what ``read`` has from memory."""
        return self._open_wal().read(read.first, read.last, bytes_max=read.bytes_max)

    # ----------------------------------------------------------------------------- what befalls it

    def crash(self, rng: Random, *, power_fails: bool = False) -> None:
        """The process dies, in the middle of what its disk does; with the power, what was not synced is in doubt."""
        if self._wal is not None:
            self._die(self._wal, rng)
        self.end(rng, power_fails=power_fails)

    def end(self, rng: Random, *, power_fails: bool = False) -> None:
        """Nobody writes any more. What was written and not synced stays in the system's cache, unless power fails."""
        self.directory = self.directory.survivor(rng) if power_fails else self.directory.restarted()
        self._wal = self.identity = None
        self.forget()

    def dies_at(self, operation: int, moment: Moment) -> None:
        """The process dies at this operation of its disk, counted from now; 0: it does not."""
        self.directory.crash_at(self.directory.operations + operation if operation else 0, moment)

    def fail_syncs(self, count: int) -> None:
        """That sync of a file, counted from now, fails; 0: none does any more."""
        failing = self.directory.failing_syncs
        failing.clear()
        if count:
            failing.add(self.directory.syncs + count)

    def fail_operation(self, count: int) -> None:
        """That operation, counted from now, fails, having done part of its work; 0: none does any more."""
        failing = self.directory.failing_operations
        failing.clear()
        if count:
            failing.add(self.directory.operations + count)

    def fill(self, *, left_bytes: int | None) -> None:
        """The disk has only so much room left; None: as much as one likes."""
        self.directory.capacity_bytes = None
        if left_bytes is not None:
            used_bytes = sum(len(self.directory.content(name)) for name in self.directory.names())
            self.directory.capacity_bytes = used_bytes + left_bytes

    def mend(self) -> None:
        """Nothing fails any more, and there is room."""
        self.dies_at(0, Moment.BEFORE)
        self.fail_syncs(0)
        self.fail_operation(0)
        self.fill(left_bytes=None)

    def wipe(self) -> None:
        """The directory is empty: what was promised from here is gone."""
        self.wipes += 1
        self.emptied.append(self.copy())
        self.directory = SimulatedDirectory(Random(self._rng.randrange(2**32)), path=self.name)
        self._in_doubt = []
        self.incarnation, self.is_spoiled, self.is_lost = None, False, False
        self.trimmed_through = self.promised_snapshot = 0
        self.base, self.vote, self.frames = BEGINNING, (BEGINNING.term, None), []

    def flip_a_bit(self, rng: Random) -> str | None:
        """One bit of the identity, or of what the log proves to have been synced, is another; where, if anywhere.

        The last batch is left alone: damage to it looks like a torn write, unless something was written behind it.
        """
        places = [(name, bytes_count) for name, bytes_count in self._proved() if bytes_count]
        if not places:
            return None
        name, bytes_count = rng.choice(places)
        bit = rng.randrange(8 * bytes_count)
        self.directory.flip_bit(name, bit)
        self.is_spoiled = True
        return f"{name}, bit {bit}"

    # ----------------------------------------------------------------------------------------- leaves

    def _open_wal(self) -> Wal:
        assert self._wal is not None, f"{self.name}'s log is not open"
        return self._wal

    def _frames(self, wal: Wal, recovered: Recovered) -> list[bytes]:
        first = Index(recovered.base.index + 1)
        if recovered.tail_first == first and self._rng.randrange(_READ_ALL_ONE_IN):
            return recovered.tail
        return wal.read(first, recovered.last_index, bytes_max=1 << 40)

    def _admissible(self, recovered: Recovered) -> list[Shadow]:
        """A log that was never begun has the configuration that its cluster was formed with.

        Whoever was let in later has none from there: what is known of its log begins at its first entry for good,
        however much of it a start has found trimmed.
        """
        if self.base is BEGINNING and recovered.base.index == BEGINNING.index:
            self.base = recovered.base
        states = [self.copy()]
        for write in self._in_doubt:
            state = states[-1].copy()
            state.apply(write)
            states.append(state)
        return states

    def _die(self, wal: Wal, rng: Random) -> None:
        """Before, in the middle of, or after any operation of what is under way, or of what would have come next."""
        act: Callable[[], object] | None = None
        if self.under_way:
            writes = list(islice(self.unfinished, self.under_way))
            act = lambda: wal.write(writes)  # noqa: E731 - a branch of the choice between three
        elif wal.is_unmarked and rng.randrange(2):
            act, writes = wal.mark, []
        elif wal.wants_spare and rng.randrange(2):
            act, writes = wal.prepare_spare, []
        if act is None or rng.randrange(4) == 0:
            return
        self._in_doubt = writes
        self.dies_at(rng.choice((1, 2, rng.randrange(1, _OPERATIONS_OF_A_ROLL))), rng.choice(_MOMENTS))
        with contextlib.suppress(Crash, DiskFailed):
            act()

    def _proved(self) -> list[tuple[str, int]]:
        """Names of files, and how much at the beginning of each something behind it proves to have been synced."""
        found = []
        if self.directory.exists(IDENTITY_NAME):
            found.append((IDENTITY_NAME, len(self.directory.content(IDENTITY_NAME))))
        numbers = segment_numbers(self.directory)
        for number in numbers:
            name = segment_name(number)
            if number != numbers[-1]:
                found.append((name, len(self.directory.content(name))))
            else:
                segment = Segment.open(self.directory, number)
                last = max((batch.offset for batch in segment.batches()), default=segment.batches_offset)
                found.append((name, last))
        return found
