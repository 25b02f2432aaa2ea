"""A run told to people: when, who, and what happened, in plain words; or everything, message by message.

Told: what watchers are told. Tells: lines, in order, to whoever wants them. May never know: where they are shown.

A story leaves out what happens all the time (votes, heartbeats, entries), and sums up what clients were told once a
second. What faults do to the world is read off the world itself: a new kind of fault is told without a word here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, Final, NamedTuple

from raftkv import frames as framing
from raftkv.core.effects import DiskWrite
from raftkv.core.messages import Envelope
from raftkv.core.types import ClusterId, NodeId
from raftkv.replica import Work
from raftkv.sim.runs.whole import Run
from raftkv.sim.world.cluster import VirtualCluster
from raftkv.sim.world.network import NetworkFaults
from raftkv.sim.world.node import VirtualNode
from raftkv.sim.world.watching import Recovery, Watcher

CLIENTS: Final = "clients"
WORLD: Final = "world"
_SECOND_US: Final = 1_000_000
_QUIET: Final = frozenset({"voted", "refused_vote", "follows", "append_refused", "refused_message"})
"""Notes of which there are many; a trace has them."""
_GOOD: Final = frozenset({"became_leader"})
_BAD: Final = frozenset({"stepped_down", "truncated", "disk_stalled", "state_is_wrong", "replicas_disagree"})

_SHOWS: Final = frozenset(
    {
        *("isolate", "split", "cut_one_way", "ring", "bridge", "heal", "change_weather"),
        *("crash_one", "crash_all", "pause", "stall", "hang_disk", "transfer"),
    }
)
"""Kinds of faults that can be seen, where they changed anything; others are told by their names."""


class Line(NamedTuple):
    """Something that happened."""

    at_us: int
    who: str
    """A node, the world, or the clients."""
    text: str
    tone: str = ""
    """``good``, ``bad``, ``fault``, or nothing: how it may be coloured."""


Tell = Callable[[Line], None]


class Story(Watcher):
    """Elections, crashes, partitions, and once a second what clients were told."""

    def __init__(self, run: Run, tell: Tell) -> None:
        self._run, self._cluster = run, run.cluster
        self._tell_line = tell
        self._seen = _look_at(run.cluster)
        self._told_in_step = -1
        self._is_calm = False
        self._clients_told_us = 0
        self._tally: dict[str, int] = {}

    def stepped(self, node: VirtualNode, work: Work) -> None:
        """What the node notes; what changed in the world meanwhile; the clients' last second."""
        self._look()
        if self._cluster.now_us - self._clients_told_us >= _SECOND_US:
            self.tell_clients()
        for note in work.notes:
            if note.event not in _QUIET:
                tone = "good" if note.event in _GOOD else "bad" if note.event in _BAD else ""
                self._tell(node.id, note.text.removeprefix(f"{node.id}: "), tone)

    def crashed(self, node: VirtualNode) -> None:
        """Told."""
        self._tell(node.id, "crashes", "fault")

    def started(self, node: VirtualNode) -> None:
        """Told, with what the disk had."""
        if node.life == 1:
            return
        found = f"term {node.raft.term}, entries up to {node.raft.last_index}"
        self._tell(node.id, f"starts again and finds {found}")

    def formed(self, node: VirtualNode, cluster_id: ClusterId) -> None:
        """Told, once."""
        if node.life <= 1:
            self._tell(node.id, "knows that the cluster is formed", "good")

    def recovered(self, node: VirtualNode, found: Recovery) -> None:
        """What an operator should know of."""
        for note in found.said.notes:
            self._tell(node.id, f"reads its log: {note}")

    def refused_to_start(self, node: VirtualNode, error: Exception) -> None:
        """Told."""
        self._tell(node.id, f"refuses to start: {error}", "bad")

    def halted(self, node: VirtualNode, error: BaseException) -> None:
        """Told."""
        self._tell(node.id, f"ends itself: {error}", "bad")

    def room_is_short(self, node: VirtualNode, *, short: bool) -> None:
        """Told."""
        self._tell(node.id, "has no room on its disk" if short else "has room on its disk again")

    def broke(self, kind: str) -> None:
        """What it did to the world; its name, where that does not show."""
        if not self._look() and kind not in _SHOWS and self._told_in_step != self._cluster.steps:
            self._tell(WORLD, _words(kind), "fault")

    def tell_clients(self) -> None:
        """What they were told since the last time."""
        self._clients_told_us = self._cluster.now_us
        new = {what: count - self._tally.get(what, 0) for what, count in self._run.workload.tally.items()}
        self._tally = dict(self._run.workload.tally)
        text = told_to_clients(new)
        if text:
            self._tell(CLIENTS, text)

    def _look(self) -> bool:
        """Tells what differs in the world from what was seen last; whether anything did."""
        if self._run.faults.stopped and not self._is_calm:
            self._is_calm = True
            self._tell(WORLD, "nothing breaks any more; from now on everything has to work", "good")
        seen, self._seen = self._seen, _look_at(self._cluster)
        if seen == self._seen:
            return False
        for text, is_worse in _differences(seen, self._seen, self._cluster):
            self._tell(WORLD, text, "fault" if is_worse else "")
        return True

    def _tell(self, who: str, text: str, tone: str = "") -> None:
        self._told_in_step = self._cluster.steps
        self._tell_line(Line(self._cluster.now_us, who, text, tone))


class Trace(Watcher):
    """Everything: what arrives, what leaves, what is written, what is durable, what is noted."""

    def __init__(self, cluster: VirtualCluster, tell: Tell) -> None:
        self._cluster = cluster
        self._tell_line = tell
        self._reached: dict[NodeId, tuple[int, int]] = {}

    def heard(self, node: VirtualNode, envelope: Envelope) -> None:
        """A message has arrived."""
        self._tell(node, f"hears {envelope.sender}: {message_text(envelope)}")

    def stepped(self, node: VirtualNode, work: Work) -> None:
        """What came of it."""
        for note in work.notes:
            self._tell(node, f"notes: {note.text.removeprefix(f'{node.id}: ')}")
        for write in work.persist:
            self._tell(node, f"writes {_write_text(write)}")
        for envelope in (*work.requests, *(reply for _, reply in work.replies)):
            self._tell(node, f"tells {envelope.receiver}: {message_text(envelope)}")
        for _, error in work.refusals:
            self._tell(node, f"refuses a message: {error}")
        reached = (node.raft.commit_index, node.raft.applied_index)
        if self._reached.get(node.id, (0, 0)) != reached:
            self._reached[node.id] = reached
            self._tell(node, "has committed {} and applied {}".format(*reached))

    def synced(self, node: VirtualNode, write: DiskWrite) -> None:
        """A write is durable."""
        self._tell(node, f"has stored {_write_text(write)}")

    def _tell(self, node: VirtualNode, text: str) -> None:
        self._tell_line(Line(self._cluster.now_us, node.id, text))


# ---------------------------------------------------------------------------------------- the world


class _World(NamedTuple):
    """What a person would see of the world."""

    cuts: tuple[tuple[NodeId, NodeId], ...]
    weather: NetworkFaults
    paused: tuple[NodeId, ...]
    hanging: tuple[NodeId, ...]


def _look_at(cluster: VirtualCluster) -> _World:
    nodes = cluster.nodes.values()
    return _World(
        cluster.network.cuts,
        cluster.network.faults,
        tuple(node.id for node in nodes if node.paused),
        tuple(node.id for node in nodes if node.disk.hangs),
    )


def _differences(before: _World, now: _World, cluster: VirtualCluster) -> Iterable[tuple[str, bool]]:
    """What is new, and whether it is a change for the worse."""
    if before.cuts != now.cuts:
        yield _links_text(list(cluster.nodes), now.cuts), bool(now.cuts)
    if before.weather != now.weather:
        yield f"a message {weather_text(now.weather)}", True
    yield from ((f"{name} stands still", True) for name in now.paused if name not in before.paused)
    yield from ((f"{name} goes on", False) for name in _back(before.paused, now.paused, cluster))
    yield from ((f"{name}'s disk hangs", True) for name in now.hanging if name not in before.hanging)
    yield from ((f"{name}'s disk works again", False) for name in _back(before.hanging, now.hanging, cluster))


def _back(before: tuple[NodeId, ...], now: tuple[NodeId, ...], cluster: VirtualCluster) -> list[NodeId]:
    return [name for name in before if name not in now and cluster.nodes[name].is_up]


def _links_text(names: list[NodeId], cuts: tuple[tuple[NodeId, NodeId], ...]) -> str:
    """Who reaches whom: as sides, where there are such, else one by one."""
    if not cuts:
        return "everybody reaches everybody again"
    cut = dict.fromkeys(cuts)
    sides: list[list[NodeId]] = []
    for name in names:
        for side in sides:
            if (name, side[0]) not in cut and (side[0], name) not in cut:
                side.append(name)
                break
        else:
            sides.append([name])
    side_of = {name: place for place, side in enumerate(sides) for name in side}
    if all(((one, other) in cut) == (side_of[one] != side_of[other]) for one in names for other in names):
        return "cut apart: " + " | ".join(" ".join(side) for side in sides)
    if all((other, one) in cut for one, other in cuts):
        return "cut between " + ", ".join(f"{one} {other}" for one, other in cuts if one < other)
    deaf = {name: [other for other in names if (name, other) in cut] for name in names}
    return "; ".join(f"nothing from {name} reaches {', '.join(others)}" for name, others in deaf.items() if others)


def weather_text(faults: NetworkFaults) -> str:
    """How a network of this sort treats messages."""
    parts = [
        f"takes {_ms(faults.delay_us_min)} to {_ms(faults.delay_us_max)}",
        f"loses {_percent(faults.loss_per_mille)}" if faults.loss_per_mille else "",
        f"doubles {_percent(faults.doubling_per_mille)}" if faults.doubling_per_mille else "",
        f"delays {_percent(faults.late_per_mille)} by up to {_ms(faults.late_us_max)}" if faults.late_per_mille else "",
    ]
    return ", ".join(filter(None, parts))


def told_to_clients(tally: Mapping[str, int]) -> str:
    """How often they were told what, in words; nothing, if nothing."""
    words = (
        (("Applied",), "write done", "writes done"),
        (("Answered",), "read answered", "reads answered"),
        (("done", "ConditionFailed"), "call of the library done", "calls of the library done"),
        (("Refused", "Superseded", "connection refused"), "refused, so asked again", "refused, so asked again"),
        (("Unreachable", "Rejected"), "call in vain", "calls in vain"),
        (("Unknown", "ReadTimedOut", "TooStale", "no answer"), *("without an answer in time",) * 2),
        (("outcome unknown",), *("given up, outcome unknown",) * 2),
    )
    sums = [(sum(tally.get(name, 0) for name in names), one, more) for names, one, more in words]
    return ", ".join(f"{count:,} {one if count == 1 else more}" for count, one, more in sums if count)


def profile_text(run: Run) -> list[str]:
    """What kind of run it is, a line for each thing."""
    profile, raft = run.profile, run.profile.raft
    aim = f", all aimed at {profile.aim}" if profile.aim else ""
    kinds = ", ".join(map(_words, profile.kinds))
    settings = [f"heartbeats every {raft.heartbeat_ms} ms", f"elections after {raft.election_timeout_ms} ms or more"]
    settings += ["lease reads"] if raft.lease_reads else []
    settings += ["clocks that differ"] if profile.clocks_differ else []
    disk = f"a sync takes {_ms(profile.disk.sync_us_min)} to {_ms(profile.disk.sync_us_max)}"
    return [
        f"{len(run.cluster.nodes)} nodes; {', '.join(settings)}",
        f"a message {weather_text(profile.weather)}; {disk}",
        f"faults, one within {_ms(profile.pause_us_max)} of another: {kinds}{aim}" if kinds else "no faults at all",
    ]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _ms(us: int) -> str:
    return f"{us // 1000} ms" if us % 1000 == 0 else f"{us // 1000}.{us % 1000 // 100} ms"


def _percent(per_mille: int) -> str:
    return f"{per_mille // 10}{f'.{per_mille % 10}' if per_mille % 10 else ''} %"


# ------------------------------------------------------------------------------------------ messages


def message_text(envelope: Envelope) -> str:
    """A message's kind, and its fields."""
    message = envelope.message
    told = ", ".join(f"{field.name} {_value_text(getattr(message, field.name))}" for field in fields(message))
    return f"{type(message).__name__}({told})"


def _value_text(value: Any) -> str:
    if isinstance(value, list):
        return _frames_text(value)
    return value.hex() if isinstance(value, bytes) else str(value)


def _frames_text(frames: list[bytes]) -> str:
    if not frames:
        return "none"
    first, last = (framing.term_and_index(frame) for frame in (frames[0], frames[-1]))
    text = f"entry {first[1]} of term {first[0]}"
    return text if first == last else f"{text} to {last[1]} of term {last[0]}"


def _write_text(write: DiskWrite) -> str:
    parts = [
        f"term {write.vote[0]} and a vote for {write.vote[1] or 'nobody'}" if write.vote is not None else "",
        f"a log that begins after {write.base.index}" if write.base is not None else "",
        f"that {write.truncate_from} and all after it are gone" if write.truncate_from is not None else "",
        _frames_text(write.frames) if write.frames else "",
    ]
    return ", ".join(filter(None, parts))
