"""What an embedder implements to have a state machine of their own replicated.

The machine is deterministic: the same entries give the same answers and the same state on every node. It
may not read a clock, draw a random number, or let the order of a set or a hash be seen; the time it may
use is ``stamp_ms``, the cluster's time, which the log carries and which never falls.

A machine begins empty each time a node starts: what the log holds is applied to it anew. So it keeps nothing
on disk itself, and an object that has served a node once serves no second one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

SUBMITTED_BYTES_MAX: Final = 4 * 1024 * 1024
"""The largest command that an embedder may submit."""
BLOCK_BYTES: Final = 1024 * 1024
"""Of the blocks into which a snapshot is cut whose machine does not cut it itself."""


class LogEntry(NamedTuple):
    """One committed command, as the machine sees it."""

    log_index: int
    """Its place in the log; strictly rising, with gaps (the log holds other things too)."""
    stamp_ms: int
    """Cluster time: milliseconds that the leaders' clocks have counted, never falling, no calendar."""
    command: bytes
    """What was submitted."""


class Capture(Protocol):
    """The state as it was at one moment, while the machine goes on.

    On the loop it is made and folded; in between, a thread reads its blocks.
    """

    @abstractmethod
    def blocks(self) -> Iterator[bytes]:
        """The state as it was, in blocks for ``Loading.add``; runs in a thread, once.

        Each block costs the loop little, and the next one is made only when it is asked for: whoever asks gives way
        in between. Raises SnapshotError once it is folded.
        """
        ...

    @abstractmethod
    def fold(self, budget_us: int) -> bool:
        """Lets go of the moment, about so many microseconds of it; whether all is done.

        On the loop, again and again until it is true, whether the blocks were read to the end or not: until then
        the machine remembers what it has replaced since.
        """
        ...


class Loading(Protocol):
    """A state that comes in, block by block, beside the one that the machine has."""

    @abstractmethod
    def add(self, block: bytes) -> None:
        """The next of the blocks; runs in a thread. Raises SnapshotError: they are no state, and this is over."""
        ...

    @abstractmethod
    def finish(self) -> None:
        """The machine has the new state; on the loop, at once. Raises SnapshotError, and then nothing has changed."""
        ...

    @abstractmethod
    def free(self) -> Iterator[None]:
        """Lets go of the state that was replaced, or of the new one that was given up, a piece at a time.

        In a thread, once nothing else is called here any more; whoever asks for the next piece gives way in between.
        To forget the object instead is right too, and may stall the loop.
        """
        ...


class WholeCapture(Capture):
    """A snapshot that was made at once, cut into blocks."""

    def __init__(self, snapshot: bytes) -> None:
        self._snapshot = snapshot

    def blocks(self) -> Iterator[bytes]:
        """Its bytes, in order."""
        snapshot = self._snapshot
        return (snapshot[start : start + BLOCK_BYTES] for start in range(0, len(snapshot), BLOCK_BYTES))

    def fold(self, budget_us: int) -> bool:
        """Nothing was remembered."""
        return True


class WholeLoading(Loading):
    """Blocks that are restored at once when the last one is there."""

    def __init__(self, machine: StateMachine) -> None:
        self._machine = machine
        self._blocks: list[bytes] = []

    def add(self, block: bytes) -> None:
        """It is kept."""
        self._blocks.append(block)

    def finish(self) -> None:
        """The machine's own ``restore``, with all that it raises."""
        self._machine.restore(b"".join(self._blocks))

    def free(self) -> Iterator[None]:
        """What ``restore`` replaced is gone already."""
        self._blocks.clear()
        return iter(())


class StateMachine(Protocol):
    """The replicated state. Inherit from it, and four methods are yours to write; the others have defaults.

    Every method is called on the event loop, so it must return soon, and never awaits. ``snapshot`` and ``restore``
    belong to the four from the beginning: the log of a cluster whose machine had none could never be cut.
    """

    @abstractmethod
    def apply_batch(self, entries: Sequence[LogEntry]) -> Sequence[Any]:
        """Executes the commands in order; answers one result for each, ``entries`` may be empty.

        Total: a command that it cannot execute gets an answer that says so. An exception means that this
        machine is broken; the node halts rather than skip an entry, and so, soon, does every other one.
        """
        ...

    @abstractmethod
    def query(self, query: Any) -> Any:
        """Answers from the state as it is now; changes nothing. What it raises goes to whoever asked."""
        ...

    @abstractmethod
    def snapshot(self) -> bytes:
        """The whole state, to be read back by ``restore``. Equal states should give equal bytes."""
        ...

    @abstractmethod
    def restore(self, snapshot: bytes) -> None:
        """Replaces the state by what ``snapshot`` returned on some node, perhaps one of an older version."""
        ...

    def capture(self) -> Capture:
        """The state as it is now, to be read in a thread while the machine goes on; on the loop.

        Unless it is written anew, it is ``snapshot()``, made at once: as long as that takes, the loop stands still.
        """
        return WholeCapture(self.snapshot())

    def loading(self) -> Loading:
        """Begins to replace the state by that of a capture, perhaps another node's; until the end nothing has changed.

        Unless it is written anew, it ends with one ``restore()``.
        """
        return WholeLoading(self)

    def discard(self) -> Iterator[None]:
        """The machine may be emptied, at once; the rest, run in a thread, frees what it held, a piece at a time.

        For whoever is about to load a state, and holds one so large that memory has no room for two: nothing is
        applied or asked until the new one is there. Unless it is written anew, it does nothing.
        """
        return iter(())

    def tick_due_ms(self) -> int | None:
        """The cluster time at which something of the machine runs out by itself; None: nothing will.

        Once that time has come the leader proposes ``tick_command()``.
        """
        return None

    def tick_command(self) -> bytes:
        """A command that does nothing but let the machine see the time; asked for only when a tick is due."""
        return b""

    def state_hash(self) -> int | None:
        """128 bits over the whole state: equal on two nodes exactly when their states are equal.

        None: it is not known, and replicas are not compared. Never Python's own ``hash``, which differs from
        one process to the next. Asked for at every 1,024th entry, where nothing comes for a heartbeat interval, and
        when a snapshot is taken: better kept up while entries are applied than reckoned each time.
        """
        return None
