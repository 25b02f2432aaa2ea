"""A scripted life of a log on a simulated disk, what it promised at every moment, and the checks of both.

The promise: what a write had been acknowledged is there after any crash, in order, and nothing is there that
was not submitted. A write that the crash interrupted is there or not; one of several batches, up to some
place in it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from raftkv import frames
from raftkv.core.effects import DiskWrite, LogBase
from raftkv.core.types import Configuration, Incarnation, Index, Member, NodeId, Term, Ticket, membership_of
from raftkv.frames import EntryKind
from raftkv.sim.world.disk import Crash, Moment, SimulatedDirectory
from raftkv.storage.identity import IdentityFile
from raftkv.storage.recovery import Recovered
from raftkv.storage.wal import Wal

NODE = NodeId("n1")
INCARNATION = Incarnation(bytes(range(16)))
SEGMENT_BYTES = 8192
BATCH_BYTES_MAX = 1 << 20
TAIL_BYTES_MAX = 1500


def configuration_of(*ids: str) -> Configuration:
    members = [Member(NodeId(id), Incarnation(id.encode().ljust(16, b"*")), f"http://{id}:7401") for id in ids]
    return Configuration(membership_of(members))


def entry(index: int, term: int, body: bytes = b"x", kind: EntryKind = EntryKind.COMMAND) -> bytes:
    return frames.encode(kind, term=term, index=index, body=body)


def write(
    *joined: bytes,
    vote: tuple[int, str | None] | None = None,
    base: LogBase | None = None,
    truncate_from: int | None = None,
) -> DiskWrite:
    return DiskWrite(
        Ticket(0),
        vote=None if vote is None else (Term(vote[0]), None if vote[1] is None else NodeId(vote[1])),
        base=base,
        truncate_from=None if truncate_from is None else Index(truncate_from),
        frames=list(joined),
    )


def open_log(
    directory,
    *,
    segment_bytes: int = SEGMENT_BYTES,
    batch_bytes_max: int = BATCH_BYTES_MAX,
    tail_bytes_max: int = TAIL_BYTES_MAX,
) -> tuple[Wal, Recovered]:
    identity = IdentityFile.open(directory, node_id=NODE, new_incarnation=INCARNATION)
    return Wal.open(
        directory,
        identity,
        segment_bytes=segment_bytes,
        batch_bytes_max=batch_bytes_max,
        tail_bytes_max=tail_bytes_max,
    )


class State(NamedTuple):
    """All that a log says."""

    term: int = 0
    voted_for: str | None = None
    base: tuple[int, int] = (0, 0)
    entries: tuple[bytes, ...] = ()

    @property
    def last_index(self) -> int:
        return self.base[0] + len(self.entries)

    @property
    def last_term(self) -> int:
        return frames.term_and_index(self.entries[-1])[0] if self.entries else self.base[1]

    def after(self, disk_write: DiskWrite) -> Iterator[State]:
        """The states on the way through a write; the last is that after it."""
        state = self
        if disk_write.vote is not None:
            state = state._replace(term=disk_write.vote[0], voted_for=disk_write.vote[1])
            yield state
        if disk_write.base is not None:
            state = state._replace(base=(disk_write.base.index, disk_write.base.term), entries=())
            yield state
        if disk_write.truncate_from is not None:
            state = state._replace(entries=state.entries[: disk_write.truncate_from - state.base[0] - 1])
            yield state
        for frame in disk_write.frames:
            state = state._replace(entries=(*state.entries, frame))
            yield state


def state_of(wal: Wal, recovered: Recovered) -> State:
    """What the log says, with everything that it says twice compared."""
    base = recovered.base
    entries = wal.read(Index(base.index + 1), recovered.last_index, bytes_max=1 << 30)
    state = State(recovered.term, recovered.voted_for, (base.index, base.term), tuple(entries))
    assert [frames.term_and_index(frame)[1] for frame in entries] == list(range(base.index + 1, state.last_index + 1))
    assert recovered.last_index == state.last_index == wal.last_index
    assert list(entries[recovered.tail_first - base.index - 1 :]) == recovered.tail
    assert len(recovered.tail) == recovered.last_index - recovered.tail_first + 1
    runs: list[tuple[int, int]] = []
    configurations = []
    for frame in entries:
        term, index = frames.term_and_index(frame)
        if not runs or runs[-1][1] != term:
            runs.append((index, term))
        if frames.kind(frame) == EntryKind.CONFIGURATION:
            configurations.append((index, Configuration.decode(frames.body(frame))))
    assert recovered.term_runs == runs
    assert recovered.configurations == configurations
    return state


Step = list[DiskWrite] | str


def random_script(rng: Random, *, steps: int = 30) -> list[Step]:
    """Writes that a Raft node may make, with marks, spares and restarts between them."""
    script: list[Step] = []
    state = State()
    for _ in range(steps):
        if script and rng.random() < 0.25:
            script.append(rng.choice(["mark", "spare", "restart"]))
            continue
        step: list[DiskWrite] = []
        for _ in range(rng.choice((1, 1, 2, 3))):
            disk_write = _random_write(rng, state)
            step.append(disk_write)
            *_, state = state.after(disk_write)
        script.append(step)
    return script


def _random_write(rng: Random, state: State) -> DiskWrite:
    disk_write = write()
    if state.term == 0 or rng.random() < 0.25:
        disk_write.vote = (Term(state.term + 1), rng.choice([None, NODE, NodeId("n2")]))
        *_, state = state.after(disk_write)
    if rng.random() < 0.04:
        index = state.base[0] + rng.randint(1, len(state.entries) + 5)
        disk_write.base = LogBase(Index(index), Term(state.term), configuration_of("n1", "n2"))
    elif state.entries and rng.random() < 0.2:
        disk_write.truncate_from = Index(rng.randint(max(state.base[0] + 1, state.last_index - 8), state.last_index))
    for passed in state.after(disk_write):
        state = passed
    count = rng.randint(0, 5)
    if not (count or disk_write.vote or disk_write.base or disk_write.truncate_from):
        count = 1
    for _ in range(count):
        disk_write.frames.append(_random_entry(rng, state))
        state = state._replace(entries=(*state.entries, disk_write.frames[-1]))
    return disk_write


def _random_entry(rng: Random, state: State) -> bytes:
    if rng.random() < 0.05:
        body = configuration_of("n1", f"n{rng.randint(2, 9)}").encode()
        return entry(state.last_index + 1, state.term, body, EntryKind.CONFIGURATION)
    body = rng.randbytes(rng.choice((0, 10, 100, 100, 700, 1500)))
    return entry(state.last_index + 1, rng.choice((state.term, state.last_term or state.term)), body)


@dataclass
class Life:
    """One run of a script, and what may be found if it ends now."""

    disk: SimulatedDirectory
    batch_bytes_max: int = BATCH_BYTES_MAX
    admissible: list[State] = field(default_factory=lambda: [State()])

    def run(self, script: list[Step]) -> None:
        wal, _ = open_log(self.disk, batch_bytes_max=self.batch_bytes_max)
        for step in script:
            if step == "restart":
                wal.close()
                wal, _ = open_log(self.disk, batch_bytes_max=self.batch_bytes_max)
            elif step == "mark":
                wal.mark()
            elif step == "spare":
                wal.prepare_spare()
            else:
                assert isinstance(step, list)
                self.write(wal, step)
        wal.close()

    def write(self, wal: Wal, step: list[DiskWrite]) -> None:
        """The state before and the state after may be found while it runs, only the latter afterwards."""
        passed = self.admissible[-1:]
        for disk_write in step:
            passed += passed[-1].after(disk_write)
        self.admissible = passed if self.batch_bytes_max < BATCH_BYTES_MAX else [passed[0], passed[-1]]
        wal.write(step)
        self.admissible = [passed[-1]]


def assert_survives(disk: SimulatedDirectory, admissible: list[State], rng: Random) -> None:
    """The log recovers to one of the states, goes on from it, and keeps all of that through two more crashes."""
    for _ in range(rng.choice((0, 0, 1, 2))):
        disk = _crashed_in_recovery(disk, rng)
    wal, recovered = open_log(disk)
    state = state_of(wal, recovered)
    assert state in admissible, f"{summary(state)} is none of {[summary(each) for each in admissible]}"
    disk = disk.survivor(rng)
    wal, recovered = open_log(disk)
    assert state_of(wal, recovered) == state, "what was recovered was lost again"
    more = [write(entry(state.last_index + 1, state.term + 1, b"more"), vote=(state.term + 1, None))]
    wal.write(more)
    *_, state = state.after(more[0])
    wal, recovered = open_log(disk.survivor(rng))
    assert state_of(wal, recovered) == state, "what was acknowledged after a recovery was lost"


def _crashed_in_recovery(disk: SimulatedDirectory, rng: Random) -> SimulatedDirectory:
    disk.crash_at(rng.randint(1, 12), rng.choice(list(Moment)))
    try:
        open_log(disk)
    except Crash:
        pass
    return disk.survivor(rng) if rng.random() < 0.5 else disk.restarted()


def summary(state: State) -> str:
    return f"term {state.term}, vote {state.voted_for}, {state.base} to {state.last_index}"


def crash_everywhere(
    seed: int, *, page_bytes: int, survivors: int, steps: int = 25, batch_bytes_max: int = BATCH_BYTES_MAX
) -> int:
    """A script crashed before, in the middle of and after each of its operations; how many those are."""
    script = random_script(Random(seed), steps=steps)

    def born(operation: int) -> Life:
        disk = SimulatedDirectory(Random(seed * 10_007 + operation), page_bytes=page_bytes)
        return Life(disk, batch_bytes_max=batch_bytes_max)

    whole = born(0)
    whole.run(script)
    for operation in range(1, whole.disk.operations + 1):
        for moment in Moment:
            life = born(operation)
            life.disk.crash_at(operation, moment)
            with_crash(functools.partial(life.run, script))
            rng = Random(operation * 3 + list(Moment).index(moment))
            for _ in range(survivors):
                assert_survives(life.disk.survivor(rng), life.admissible, rng)
            assert_survives(life.disk.restarted(), life.admissible, rng)
    return whole.disk.operations


def overwrite(disk: SimulatedDirectory, name: str, *, offset: int, data: bytes) -> None:
    """What a disk fault, or a hand, may do to a file."""
    file = disk.open(name)
    file.pwrite(data, offset=offset)
    file.sync()


def with_crash(work: Callable[[], None]) -> None:
    try:
        work()
    except Crash:
        return
    raise AssertionError("the script ended before the operation to crash at")
