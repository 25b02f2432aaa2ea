"""Snapshots of one replica: when one is due, who waits for one, what became of it, and one that is loaded.

Told: what was applied, who asks for a snapshot, what the core says of snapshots, and by the shell what became of
files. Tells: a capture that is to be written, a file that is to be put in place, a state that is to be loaded, and
everybody who waits what became of it. May never know: files, threads, how a machine keeps its state.

    idle ──► a capture is written ──► what changed meanwhile is folded in, a slice a turn ──► idle
      └────► a received state is loaded: nothing is applied and nothing read until it is whole ──► idle

One thing at a time. A received snapshot goes before a capture of our own, which it makes useless.

A file that is whole has no name yet. It is put in place, to be sent to others and to take the place of the log, once a
majority of voters is known to have this node's state at its index or later; else a state that went wrong would be
everybody's before anybody compares it. Where that does not become known, it is put in place without: when four times
the log has come that makes one due (or logs would grow for ever), or when somebody who asked for it, or a full disk,
has waited for long enough. That is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Final, NamedTuple

from raftkv.comparing import STATE_HASH_BYTES
from raftkv.core.effects import Effects, LogBase, Note, SnapshotRead, SnapshotWrite
from raftkv.core.raft import Raft
from raftkv.core.types import Index, SnapshotId
from raftkv.errors import ConfigError
from raftkv.outcomes import SnapshotOutcome, SnapshotRefused, SnapshotTaken, SnapshotUnderWay, SnapshotWhy
from raftkv.state_machine import Capture, Loading, StateMachine

RETRY_US: Final = 30_000_000
"""So long after a failure the next snapshot is tried, unless somebody asks for one: a full disk is full for a while."""
UNPROVED_AFTER: Final = 4
"""So many times the log that makes a snapshot due may come before one counts whose state nobody has confirmed."""
FOLD_US: Final = 1_000
"""Of a turn, for what was written while a capture was under way …"""
FOLD_PAUSE_US: Final = 1_000
"""… and so long until the next slice, for everything else."""


@dataclass(frozen=True, slots=True)
class SnapshotSettings:
    """How much log there may be before a snapshot takes its place, and how fast files move."""

    snapshot_log_bytes: int = 64 * 1024 * 1024
    """A snapshot is due after so much log, or half of what the last one had, whichever is more …"""
    snapshot_log_entries: int = 500_000
    """… or after so many entries."""
    snapshot_bytes_per_s: int = 64 * 1024 * 1024
    """So fast is a snapshot written, and read for followers."""
    proof_wait_ms: int = 5_000
    """So long whoever asks for one waits, after it was written, for a majority's word on its state."""

    def __post_init__(self) -> None:
        problems = [f"{one.name} must be at least 1" for one in fields(self) if getattr(self, one.name) < 1]
        if problems:
            raise ConfigError(problems)


class Restored(NamedTuple):
    """The snapshot that a node began with; its machine holds it."""

    snapshot: SnapshotId
    stamp_ms: int
    """Cluster time as of it."""


@dataclass(slots=True)
class TakenCapture:
    """A state to be written to a file, block by block; answer with ``was_prepared`` or ``was_not_written``."""

    base: LogBase
    """What it stands for in the log."""
    stamp_ms: int
    state_hash: bytes
    """Empty: the machine has none."""
    capture: Capture = field(repr=False)


@dataclass(slots=True)
class BegunLoading:
    """A snapshot's file to be read into the machine, block by block; answer with ``was_loaded`` or otherwise."""

    index: Index
    discarding: Iterator[None] = field(repr=False)
    """Run to its end first: it frees what the machine held, for memory may have no room for both."""
    loading: Loading = field(repr=False)


@dataclass(slots=True)
class SnapshotWork:
    """What a turn wants done with snapshots' files. Empty, as nearly always: it is false."""

    take: TakenCapture | None = None
    abandon: bool = False
    """The capture that is being written, or the file of it that has no name yet, is wanted no more; it is answered with
    ``was_not_written`` all the same."""
    place: bool = False
    """The file that is whole is to be put in place; answer with ``was_written`` or ``was_not_written``."""
    reads: list[SnapshotRead] = field(default_factory=list)
    """Answer each with ``Raft.snapshot_was_read``, as late as the rate of all of them demands."""
    writes: list[SnapshotWrite] = field(default_factory=list)
    """Answer each with ``was_received``."""
    load: BegunLoading | None = None

    def __bool__(self) -> bool:
        return bool(self.take or self.abandon or self.place or self.reads or self.writes or self.load)


SnapshotDone = Callable[[SnapshotOutcome], None]


class _Waiting(NamedTuple):
    """Somebody who asked for a snapshot."""

    need: Index
    """What was applied when it was asked for."""
    done: SnapshotDone
    deadline_us: int


class _Stage(Enum):
    """What a capture of ours is at."""

    NONE = "none"
    WRITTEN = "written"
    """By the shell, now."""
    FOLDED = "folded"


@dataclass(slots=True)
class _File:
    """A capture's file that is whole, on stable storage, and has no name yet."""

    base: LogBase
    can_be_compared: bool
    """The machine tells hashes of its state."""
    since_us: int
    is_asked_for: bool = False
    is_let: bool = False
    """The shell was told to put it in place."""


def snapshot_is_due(settings: SnapshotSettings, *, log_bytes: int, entries: int, last_size_bytes: int) -> bool:
    """Whether what was applied since the last snapshot costs more at a restart than a new one costs now (paper §7).

    Half of the last one's size: else a large state would be written again and again for a little log.
    """
    enough_bytes = max(settings.snapshot_log_bytes, last_size_bytes // 2)
    return log_bytes > enough_bytes or entries >= settings.snapshot_log_entries


class Snapshotting:
    """The snapshots of one replica."""

    def __init__(
        self, raft: Raft, machine: StateMachine, settings: SnapshotSettings, restored: Restored | None = None
    ) -> None:
        self.newest: SnapshotId | None = None if restored is None else restored.snapshot
        """In place on this node's disk."""
        self.failure: str | None = None
        """Why the last attempt was none; None: it was one, or there was none yet."""
        self.room_is_short = False
        """The log has no room to grow, so nothing may come until a snapshot takes its place. Told by the replica."""
        self.receive_failure: str | None = None
        """Why the last piece that a leader sent was not kept; None: it was, or none came yet."""
        self.taken_count = self.failures_count = self.loaded_count = self.unproved_count = 0
        """Since this node began; the last: of those taken, how many are of a state that nobody confirmed."""
        self._raft, self._machine, self._settings = raft, machine, settings
        self._log_bytes = 0
        """Applied since the last snapshot was captured …"""
        self._captured_index = raft.applied_index
        """… which was here."""
        self._before: tuple[int, Index] = (0, self._captured_index)
        """Both as they were before that: they are so again if nothing comes of it."""
        self._is_owed = False
        """The newest was found damaged: whoever needs it needs another."""
        self._is_alone = restored is not None and raft.state.log.base_index >= restored.snapshot.index
        """The newest came from another node, and the log begins after it: were it damaged, nothing could stand in. So
        one of our own follows as soon as there is more to keep."""
        self._now_us = 0
        self._not_before_us = 0
        self._stage = _Stage.NONE
        self._taken: TakenCapture | None = None
        self._file: _File | None = None
        self._is_abandoned = False
        self._to_load: Index | None = None
        """A received snapshot that the machine does not hold yet."""
        self._loading: BegunLoading | None = None
        self._waiting: list[_Waiting] = []

    # ------------------------------------------------------------------------------- who asks, who looks

    @property
    def index(self) -> Index:
        """Of the newest snapshot in place; 0: there is none."""
        return Index(0) if self.newest is None else self.newest.index

    @property
    def size_bytes(self) -> int:
        """Of the newest snapshot in place; 0: there is none."""
        return 0 if self.newest is None else self.newest.size_bytes

    @property
    def is_loading(self) -> bool:
        """The machine's state is none: a received one takes its place."""
        return self._to_load is not None

    @property
    def is_taking(self) -> bool:
        """A capture is being written, or its file waits to be put in place."""
        return self._stage is _Stage.WRITTEN or self._file is not None

    @property
    def trouble(self) -> str | None:
        """What keeps this node from having a snapshot that it should have; None: nothing does."""
        return self.failure if self._raft.receiving is None else self.receive_failure or self.failure

    @property
    def log_bytes(self) -> int:
        """Applied since the last snapshot."""
        return self._log_bytes

    def ask(self, done: SnapshotDone, *, wait_us: int) -> None:
        """``done`` is called once: a snapshot of all that is applied by now is in place, or why there is none.

        One that is under way is waited for; if it is older, another follows.
        """
        need = self._raft.applied_index
        refusal = self._why_none()
        if refusal is not None:
            done(refusal)
        elif self.newest is not None and self.newest.index >= need:
            done(SnapshotTaken(self.newest.index, self.newest.size_bytes, changed=False))
        else:
            self._waiting.append(_Waiting(need, done, self._now_us + wait_us))

    def give_up(self, why: SnapshotWhy, text: str) -> None:
        """Nobody waits any more."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.done(SnapshotRefused(why, text))

    # -------------------------------------------------------------------------------------- one turn

    def applied(self, log_bytes: int) -> None:
        """So much more of the log is in the machine."""
        self._log_bytes += log_bytes

    def turn(self, effects: Effects, *, now_us: int, stamp_ms: int, may_begin: bool) -> SnapshotWork:
        """What is to be done, after everything that is committed was applied. ``may_begin``: a capture of our own."""
        self._now_us = now_us
        work = SnapshotWork(reads=effects.snapshot_reads, writes=effects.snapshot_writes)
        if effects.load_snapshot is not None:
            self._to_load = effects.load_snapshot
        self._settle()
        if self._to_load is not None:
            self._go_on_loading(work, self._to_load)
        elif self._stage is _Stage.WRITTEN and self._raft.disagrees_at is not None:
            self._abandon(work)
        elif self._stage is _Stage.FOLDED:
            self._fold()
        elif may_begin and self._stage is _Stage.NONE and self._file is None and self._is_wanted():
            self._begin(effects, work, stamp_ms)
        if self._file is not None and not self._file.is_let and not self._is_abandoned:
            self._file.is_asked_for |= bool(self._waiting) or self._is_owed or self.room_is_short
            self._judge(effects, work, self._file)
        return work

    def next_deadline_us(self) -> int | None:
        """When the next turn must come at the latest."""
        deadlines = [one.deadline_us for one in self._waiting]
        if self._stage is _Stage.FOLDED:
            deadlines.append(self._now_us + FOLD_PAUSE_US)
        if self._stage is _Stage.NONE and self._not_before_us > self._now_us:
            deadlines.append(self._not_before_us)
        if self._file is not None and self._file.is_asked_for and not self._file.is_let:
            deadlines.append(self._patience_ends_us(self._file))
        return min(deadlines, default=None)

    def _is_wanted(self) -> bool:
        if self._why_none() is not None:
            return False
        if self._waiting:
            return self._members_are_known()
        is_alone = self._is_alone and self._raft.applied_index > self.index
        is_due = self._is_owed or is_alone or self._is_due()
        return is_due and self._now_us >= self._not_before_us and self._members_are_known()

    def _is_due(self, *, times: int = 1) -> bool:
        """By what was applied since the last capture: so many times as much as is enough."""
        entries = (self._raft.applied_index - self._captured_index) // times
        log_bytes = self._log_bytes // times
        return snapshot_is_due(self._settings, log_bytes=log_bytes, entries=entries, last_size_bytes=self.size_bytes)

    def _members_are_known(self) -> bool:
        """A node that joins comes to them in the log; before that no file could say whose state it holds."""
        return bool(self._raft.base_at(self._raft.applied_index).configuration.current.voters)

    def _why_none(self) -> SnapshotRefused | None:
        """A state that is wrong, or none at all, is not to be kept."""
        if self._raft.disagrees_at is not None:
            return SnapshotRefused(SnapshotWhy.REPLICAS_DISAGREE, "this node's state differs from the majority's")
        if self.is_loading:
            return SnapshotRefused(SnapshotWhy.LOADING, "this node is loading a snapshot that it was sent")
        if self._raft.applied_index == 0:
            return SnapshotRefused(SnapshotWhy.NOTHING_APPLIED, "nothing is applied here yet")
        return None

    def _begin(self, effects: Effects, work: SnapshotWork, stamp_ms: int) -> None:
        """The machine says what its state is, in an instant; it is written while the node goes on.

        Its hash is told to others as it is now, whatever it was when the last entry was applied.
        """
        state_hash = self._machine.state_hash()
        packed = b"" if state_hash is None else state_hash.to_bytes(STATE_HASH_BYTES, "little")
        if packed:
            self._raft.machine_hash(self._raft.applied_index, packed)
        if self._raft.disagrees_at is not None:
            return
        self._before = self._log_bytes, self._captured_index
        self._captured_index, self._log_bytes = self._raft.applied_index, 0
        try:
            capture = self._machine.capture()
        except Exception as error:  # noqa: BLE001 - an embedder's machine gave nothing, and is as it was
            self._failed(SnapshotWhy.FAILED, f"the machine gave no snapshot: it raised {type(error).__name__}")
            effects.notes.append(Note("capture_failed", f"no snapshot was taken: {self.failure}"))
            return
        work.take = self._taken = TakenCapture(self._raft.base_at(self._raft.applied_index), stamp_ms, packed, capture)
        self._stage = _Stage.WRITTEN

    def _judge(self, effects: Effects, work: SnapshotWork, file: _File) -> None:
        """A file is put in place if its state is right, or must be taken to be; one that is useless goes."""
        if self._raft.disagrees_at is not None or self.is_loading:
            self._abandon(work)
        elif not file.can_be_compared or self._raft.agrees_at >= file.base.index:
            work.place = file.is_let = True
        elif self._is_due(times=UNPROVED_AFTER) or (file.is_asked_for and self._now_us >= self._patience_ends_us(file)):
            self.unproved_count += 1
            text = f"the snapshot at {file.base.index} counts, though no majority has said that it has the same state"
            effects.notes.append(Note("snapshot_unproved", text))
            work.place = file.is_let = True

    def _patience_ends_us(self, file: _File) -> int:
        return file.since_us + self._settings.proof_wait_ms * 1000

    def _fold(self) -> None:
        assert self._taken is not None
        if self._taken.capture.fold(FOLD_US):
            self._stage, self._taken = _Stage.NONE, None

    def _abandon(self, work: SnapshotWork) -> None:
        work.abandon, self._is_abandoned = not self._is_abandoned, True

    def _go_on_loading(self, work: SnapshotWork, index: Index) -> None:
        """As soon as nobody reads the old state any more, and what a capture of it noted is gone, a slice a turn."""
        if self._stage is _Stage.WRITTEN:
            self._abandon(work)
        elif self._stage is _Stage.FOLDED:
            self._fold()
        if self._stage is _Stage.NONE and self._loading is None:
            work.load = self._loading = BegunLoading(index, self._machine.discard(), self._machine.loading())

    def _settle(self) -> None:
        """Whoever can be answered is."""
        if not self._waiting:
            return
        refusal, newest = self._why_none(), self.newest
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if newest is not None and newest.index >= one.need:
                one.done(SnapshotTaken(newest.index, newest.size_bytes, changed=True))
            elif refusal is not None:
                one.done(refusal)
            elif one.deadline_us <= self._now_us:
                one.done(SnapshotUnderWay(one.need))
            else:
                self._waiting.append(one)

    # ---------------------------------------------------------------------------- what the shell says

    def was_prepared(self) -> None:
        """The capture's file is whole and durable, and waits under no name to be put in place."""
        taken = self._written()
        self._file = _File(taken.base, can_be_compared=bool(taken.state_hash), since_us=self._now_us)

    def was_written(self, snapshot: SnapshotId) -> None:
        """The file is in place, and durable: the log before it may go, unless a received one took that already.

        Or unless the state was found to be wrong meanwhile: the log alone can tell the right one.
        """
        file, self._file = self._file, None
        assert file is not None
        self.taken_count += 1
        self.failure, self._not_before_us = None, 0
        self._is_abandoned = self._is_owed = self._is_alone = False
        self._is_in_place(snapshot)
        if file.base.index > self._raft.state.log.base_index and self._raft.disagrees_at is None:
            self._raft.snapshot_stored(file.base, size_bytes=snapshot.size_bytes)

    def was_not_written(self, why: SnapshotWhy, text: str) -> None:
        """There is no file of it. The log goes on; after a while the next is tried."""
        if self._file is None:
            self._written()
        self._file = None
        if not self._is_abandoned:
            self._failed(why, text)
        self._is_abandoned = False

    def was_damaged(self, newest: SnapshotId | None) -> None:
        """The newest file is not as it was written; ``newest`` is in place now, and may be too old for the log."""
        self.newest, self._is_owed = newest, True

    def was_received(self, write: SnapshotWrite, wanted_offset: int, complete: LogBase | None) -> None:
        """A piece that came for us is stored as far as said, or the whole file is in place."""
        if complete is not None:
            self._is_in_place(write.snapshot)
        self._raft.snapshot_was_written(write, wanted_offset, complete)

    def was_loaded(self, loaded: BegunLoading) -> bool:
        """Whether the machine holds it now; else a newer one came meanwhile, which is loaded next."""
        assert self._loading is loaded
        self._loading = None
        if loaded.index != self._to_load:
            return False
        loaded.loading.finish()
        self._to_load = None
        self._captured_index, self._log_bytes = loaded.index, 0
        self.loaded_count += 1
        self._is_alone = True
        self._raft.snapshot_loaded(loaded.index)
        return True

    def was_not_loaded(self, begun: BegunLoading) -> None:
        """Its file is gone, since a newer one took its place: the turn in which that is told begins anew."""
        assert self._loading is begun
        self._loading = None

    def _written(self) -> TakenCapture:
        assert self._stage is _Stage.WRITTEN
        assert self._taken is not None
        self._stage = _Stage.FOLDED
        return self._taken

    def _is_in_place(self, snapshot: SnapshotId) -> None:
        if snapshot.index > self.index:
            self.newest = snapshot

    def _failed(self, why: SnapshotWhy, text: str) -> None:
        self.failure = text
        self.failures_count += 1
        log_bytes, self._captured_index = self._before
        self._log_bytes += log_bytes
        self._not_before_us = self._now_us + RETRY_US
        self.give_up(why, text)
