"""One node as a value: what it is, what can happen to it, what comes of that. The core that ships, a model of a disk.

A node's step depends on nothing but the node and what happens to it, so every one is made once and remembered: in an
exploration nearly all steps were made before, in another surrounding. Copies are made through pickle, which copies a
whole node in one call.

Time is abstracted away. No wait is longer than it must be, and what passes at a node passes because it was chosen: its
election timer runs out, its heartbeat is due. Nothing dates anything: who reads is never told an age. The state machine
holds what was applied, entry by entry; a snapshot's file is that, and is in place at once where a node takes one.

Told: what happens. Tells: what was sent and what became of reads; Violated, or whatever a broken core raises. Knows
nothing of other nodes.
"""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, NamedTuple

from raftkv.core.effects import Committed, Effects, SnapshotRead, SnapshotWrite
from raftkv.core.membership import deadline_ms, joining
from raftkv.core.messages import REQUEST_TYPES, Envelope, Heartbeat, HeartbeatReply
from raftkv.core.raft import Raft
from raftkv.core.settings import RaftSettings
from raftkv.core.state import Identity
from raftkv.core.types import Index, NodeId, Role
from raftkv.errors import ChangeRefused, MessageError, Misdirected
from raftkv.sim.checks.figure3 import Facts, of_one_node
from raftkv.sim.checks.invariants import Violated
from raftkv.sim.runs.few_files import NodeDisk
from raftkv.sim.runs.few_members import DEADLINE_MS, NAMES, identities, target_of
from raftkv.sim.runs.fingerprint import Fingerprints
from raftkv.transport import codec

SETTINGS: Final = RaftSettings(
    election_timeout_ms=300, heartbeat_ms=150, append_bytes_max=1, inflight_appends_max=2, log_tail_entries=1
)
"""One entry a message; a leader that two heartbeats in a row found alone steps down; snapshots go in one piece."""
_TURNS_MAX: Final = 100
"""What one thing brings about at once takes a few."""
_READ: Final = 1
"""A node has one read at a time."""


class _Shortest(Random):
    """Every wait is the shortest: how long a node waits is for whoever explores to choose."""

    def randrange(self, *_: Any) -> int:
        return 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _Shortest, ()


@dataclass(slots=True)
class _Node:
    """A process and its disk."""

    me: Identity
    disk: NodeDisk
    raft: Raft | None = None
    life: int = 0
    clock_us: int = 0
    machine: tuple[bytes, ...] = ()
    """All that was applied."""
    writes: list[SnapshotWrite] = field(default_factory=list)
    """Pieces that are not kept yet."""
    to_load: Index | None = None
    """The machine is to hold that snapshot instead."""


class Message(NamedTuple):
    """On its way."""

    packed: bytes
    """As the codec makes it."""
    asker_life: int
    """Of whoever asked: nobody waits for a reply to an earlier life."""
    is_request: bool


class Step(NamedTuple):
    """What came of something that happened to a node."""

    after: int
    """What the node is now."""
    sent: tuple[tuple[NodeId, int], ...]
    """To whom, which message."""
    reads: tuple[int | None, ...]
    """The indexes of reads that may be answered; None: one that failed."""
    fault: Exception | None
    """What must not be."""


class What(NamedTuple):
    """Something that happens to a node."""

    kind: str
    number: int = 0
    """Of the message that is delivered, of the writes that a crash keeps, of the node to hand over to, of the target of
    a change of members."""


class Nodes:
    """All nodes that were met, by number, and all messages; every step that was made."""

    def __init__(self, *, disks_are_prompt: bool, listed: int = len(NAMES)) -> None:
        """Prompt disks have finished a write before anything else can happen. So many are ``listed`` at first."""
        self._disks_are_prompt, self._listed = disks_are_prompt, listed
        self._fingerprints = Fingerprints(SETTINGS)
        self._numbers: dict[bytes, int] = {}
        self._packed: list[bytes] = []
        self.facts: list[Facts] = []
        self.unfinished: list[int] = []
        """Writes that the disk has not finished."""
        self.able: list[frozenset[str]] = []
        """What a node is in a position to do: of the kinds that are not always possible."""
        self._steps: dict[tuple[int, What], Step] = {}
        self._message_numbers: dict[Message, int] = {}
        self.messages: list[Message] = []
        self.notes: list[str] = []
        """What the node told in its last step that was not remembered."""

    def first(self) -> tuple[int, ...]:
        """Three nodes that have never run."""
        return tuple(self._number(_Node(me, NodeDisk(base))) for me, base in identities(self._listed))

    @property
    def steps_made(self) -> int:
        """How many were not remembered."""
        return len(self._steps)

    def step(self, number: int, what: What) -> Step:
        """What comes of it; made only if it never was."""
        known = self._steps.get((number, what))
        if known is None:
            known = self._steps[number, what] = self.make(number, what)
        return known

    def make(self, number: int, what: What) -> Step:
        """The same, made anew, which tells its notes."""
        node: _Node = pickle.loads(self._packed[number])  # noqa: S301 (made here, a few lines on)
        self.notes = []
        turns = _Turns(node, self.messages, prompt=self._disks_are_prompt)
        fault: Exception | None = None
        try:
            turns.happens(what)
        except Exception as error:  # noqa: BLE001 (a broken core may raise anything)
            fault = error
        self.notes = turns.notes
        if fault is not None:
            return Step(number, (), (), fault)
        after = self._number(node)
        sent = tuple((receiver, self._message(message)) for receiver, message in turns.sent)
        try:
            of_one_node(self.facts[number], self.facts[after], turns.heard, turns.envelopes)
        except AssertionError as error:
            fault = error
        return Step(after, sent, tuple(turns.reads), fault)

    def _number(self, node: _Node) -> int:
        tree = (
            self._fingerprints.of(node.raft, node.me.id, node.life, _disk(node))
            if node.raft is not None
            else self._fingerprints.of_no_process(node.me.id, node.life, _disk(node))
        )
        digest = hashlib.blake2b(repr(tree).encode(), digest_size=16).digest()
        number = self._numbers.get(digest)
        if number is None:
            number = self._numbers[digest] = len(self._packed)
            self._packed.append(pickle.dumps(node, protocol=5))
            self.facts.append(_facts(node))
            self.unfinished.append(len(node.disk.unfinished))
            self.able.append(_able(node))
        return number

    def _message(self, message: Message) -> int:
        number = self._message_numbers.get(message)
        if number is None:
            number = self._message_numbers[message] = len(self.messages)
            self.messages.append(message)
        return number


class _Turns:
    """A node at work."""

    def __init__(self, node: _Node, messages: list[Message], *, prompt: bool) -> None:
        self._node, self._messages, self._prompt = node, messages, prompt
        self.sent: list[tuple[NodeId, Message]] = []
        self.heard: Envelope | None = None
        self.envelopes: list[Envelope] = []
        self.reads: list[int | None] = []
        self.notes: list[str] = []

    def happens(self, what: What) -> None:
        """And all that follows from it here."""
        node = self._node
        if what.kind == "crash":
            self._crash(what.number)
        elif what.kind == "start":
            node.life += 1
            node.clock_us = 0
            node.raft = Raft(node.me, SETTINGS, node.disk.recover(node.disk.files.base), _Shortest())
            node.machine, node.to_load = node.disk.files.entries, None
            self._turn()
        else:
            assert node.raft is not None
            self._happens_to(node.raft, what)
            self._turn()

    def _happens_to(self, raft: Raft, what: What) -> None:
        node, state = self._node, raft.state
        match what.kind:
            case "time out":
                assert state.election_deadline_us is not None
                node.clock_us = max(node.clock_us, state.election_deadline_us)
            case "heartbeat":
                assert state.office is not None
                node.clock_us = max(node.clock_us, state.office.next_heartbeat_us)
            case "deliver":
                raft.elapse(node.clock_us)
                self._receive(raft, self._messages[what.number])
            case "sync":
                raft.persisted(node.disk.finish_one().ticket)
            case "put":
                raft.elapse(node.clock_us)
                if raft.takes_proposals:
                    raft.propose([node.me.id.encode()])
            case "read":
                raft.elapse(node.clock_us)
                raft.request_read(_READ)
            case "hand over":
                raft.elapse(node.clock_us)
                if state.office is not None and NAMES[what.number] in state.other_voters():
                    raft.transfer_leadership(NAMES[what.number])
            case "members" | "too late":
                raft.elapse(node.clock_us)
                self._change(raft, what)
            case "snapshot" | "keep" | "load":
                raft.elapse(node.clock_us)
                self._keep(raft, what.kind)

    def _change(self, raft: Raft, what: What) -> None:
        """Who asks is refused, or it begins; or the time in which it could be is over."""
        if what.kind == "too late":
            raft.cluster_time_ms = DEADLINE_MS
            return
        target, current = target_of(what.number), raft.configuration.current
        coming = [id for id in joining(current) if target.voters == current.voters]
        try:
            if coming:
                raft.call_off_change(coming[0])
            elif raft.takes_proposals:
                raft.change_membership(target, deadline_ms=DEADLINE_MS)
        except ChangeRefused as refused:
            self.notes.append(f"refused: {refused}")

    def _keep(self, raft: Raft, kind: str) -> None:
        node, files = self._node, self._node.disk.files
        if kind == "snapshot":
            base = raft.base_at(raft.applied_index)
            files.write(base, node.machine)
            raft.snapshot_stored(base, size_bytes=files.snapshot.size_bytes)
        elif kind == "keep":
            write = node.writes.pop(0)
            raft.snapshot_was_written(write, *files.receive(write))
        elif node.to_load is not None:
            node.machine, node.to_load = files.entries, None
            raft.snapshot_loaded(Index(len(node.machine)))

    def _crash(self, kept: int) -> None:
        node = self._node
        for _ in range(kept):
            node.disk.finish_one()
        node.disk.unfinished.clear()
        node.writes.clear()
        node.raft = None

    def _receive(self, raft: Raft, message: Message) -> None:
        if not message.is_request and message.asker_life != self._node.life:
            return
        envelope = self.heard = codec.decode(message.packed)
        try:
            raft.receive(envelope, message.asker_life if message.is_request else None)
        except (Misdirected, MessageError) as error:
            self.notes.append(f"refused: {error}")

    def _turn(self) -> None:
        """A turn, and further ones for what it brings about at once."""
        node, raft = self._node, self._node.raft
        assert raft is not None
        for _ in range(_TURNS_MAX):
            raft.elapse(node.clock_us)
            effects = raft.take()
            node.disk.unfinished.extend(effects.persist)
            self._leaves(effects)
            for committed in effects.apply:
                self._apply(raft, committed)
            for read in effects.read_log:
                raft.log_was_read(read, node.disk.read(read))
            for piece in effects.snapshot_reads:
                self._read_snapshot(raft, piece)
            if self._prompt:
                for write in [node.disk.finish_one() for _ in range(len(node.disk.unfinished))]:
                    raft.persisted(write.ticket)
            was_read = bool(effects.read_log or effects.snapshot_reads)
            if not effects.apply and not was_read and not (self._prompt and effects.persist):
                return
        raise Violated("a node comes to rest", f"{node.me.id} still asks for something after {_TURNS_MAX} turns")

    def _apply(self, raft: Raft, committed: Committed) -> None:
        first, frames = committed
        node = self._node
        if node.to_load is not None:
            raise Violated("nothing is applied to a state that goes", f"{node.me.id} is to load {node.to_load}")
        if first != len(node.machine) + 1:
            raise Violated("every entry is applied once, in order", f"{node.me.id} is given {first}")
        node.machine = (*node.machine, *frames)
        raft.applied(Index(len(node.machine)))

    def _read_snapshot(self, raft: Raft, read: SnapshotRead) -> None:
        raft.snapshot_was_read(read, self._node.disk.files.piece(read))

    def _leaves(self, effects: Effects) -> None:
        self.notes += [note.text for note in effects.notes]
        self.reads += [ready.index for ready in effects.reads_ready]
        self.reads += [None for _ in effects.reads_failed]
        node = self._node
        node.writes += effects.snapshot_writes
        node.to_load = node.to_load if effects.load_snapshot is None else effects.load_snapshot
        if effects.drop_log_through is not None:
            node.disk.trim_log(effects.drop_log_through)
        for envelope in effects.requests:
            self._send(envelope, self._node.life)
        for exchange, envelope in effects.replies:
            assert isinstance(exchange, int)
            self._send(envelope, exchange)

    def _send(self, envelope: Envelope, asker_life: int) -> None:
        message = envelope.message
        if isinstance(message, Heartbeat):
            message.dated_life = message.dated_us = 0
        elif isinstance(message, HeartbeatReply):
            message.life = message.heard_us = 0
        is_request = isinstance(message, REQUEST_TYPES)
        self.envelopes.append(envelope)
        self.sent.append((envelope.receiver, Message(codec.encode(envelope), asker_life, is_request)))


def _disk(node: _Node) -> tuple[object, ...]:
    disk, files = node.disk, node.disk.files
    kept = (files.base and files.base.index, files.entries, files.partial, files.partial_of)
    return disk.base.index, disk.vote, disk.frames, disk.unfinished, kept, node.machine, node.writes, node.to_load


def _facts(node: _Node) -> Facts:
    raft, disk, files = node.raft, node.disk, node.disk.files
    durable = (*disk.files.entries[: disk.base.index], *disk.frames)
    if raft is None:
        return Facts(node.me.id, node.life, None, 0, (), 0, (), (), disk.vote, durable, hears=False, deciding=())
    state = raft.state
    first = state.log.base_index + 1
    log = state.log.frames_between(first, raft.last_index, bytes_max=2**62) if raft.last_index >= first else []
    assert log is not None
    office, heard_us, before = state.office, state.last_heard_leader_us, state.configurations.before
    match = () if office is None else tuple((peer, one.match_index) for peer, one in office.progress.items())
    earlier = () if before is None else (before[1],)
    return Facts(
        node.me.id,
        node.life,
        raft.role,
        raft.term,
        (*_past(node, raft.state.log.base_index), *log),
        raft.commit_index,
        node.machine,
        match,
        disk.vote,
        durable,
        hears=heard_us is not None and node.clock_us - heard_us < SETTINGS.election_timeout_us,
        deciding=(state.voter_sets, *(one.voter_sets() for one in earlier)),
        configurations=(*earlier, state.configurations.current),
        begun_with=disk.begun_with if disk.begun_with.voters() or files.base is None else files.base.configuration,
    )


def _past(node: _Node, base: int) -> tuple[bytes, ...]:
    """What stood before the log's beginning, as this node's newest snapshot has it."""
    return node.disk.files.entries[:base]


def _able(node: _Node) -> frozenset[str]:
    raft = node.raft
    if raft is None:
        return frozenset({"start"})
    able = {"crash"}
    if node.disk.unfinished:
        able.add("sync")
    if raft.role is Role.LEADER:
        able |= {"heartbeat", "hand over"}
        if raft.takes_proposals:
            able |= {"put", "members"}
        due_ms = deadline_ms(raft.configuration.current)
        if due_ms is not None and raft.cluster_time_ms < due_ms:
            able.add("too late")
    elif raft.state.election_deadline_us is not None:
        able.add("time out")
    if raft.leader_id is not None:
        able.add("read")
    return frozenset(able | _able_with_files(node, raft))


def _able_with_files(node: _Node, raft: Raft) -> set[str]:
    able = {"keep"} if node.writes else set()
    if node.to_load is not None:
        able.add("load")
    elif raft.applied_index > len(node.disk.files.entries) and raft.base_at(raft.applied_index).configuration.voters():
        able.add("snapshot")
    return able
