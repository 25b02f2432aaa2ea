"""Whole states of three nodes: nodes, disks, messages in flight, and of the past what properties hang on.

Told: a state and a choice. Tells: what can be chosen, and the state that comes of it; Violated, or whatever a broken
core raises. Knows nothing of explorations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from raftkv.core.messages import Envelope
from raftkv.core.types import NodeId
from raftkv.sim.checks import figure3
from raftkv.sim.checks.figure3 import Facts, History
from raftkv.sim.runs.few_members import NAMES, target_number, target_text
from raftkv.sim.runs.one_node import Message, Nodes, Step, What
from raftkv.transport import codec

_FIGURE_3: Final = slice(2, 10)
_NODES: Final = range(len(NAMES))
_LINKS: Final = tuple((one, other) for one in _NODES for other in _NODES if one != other)
_LINK_OF: Final = {(NAMES[one], NAMES[other]): place for place, (one, other) in enumerate(_LINKS)}


@dataclass(frozen=True, slots=True)
class Rules:
    """What is offered to choose from."""

    any_order: bool = False
    """Every message in flight may be the next; else the first of each link, or that one is lost."""
    disks_are_prompt: bool = False
    """Nothing happens while a disk works."""
    crashes: bool = True
    reads: bool = False
    transfers: bool = False
    snapshots: bool = False
    members: tuple[str, ...] = ()
    """What a leader may be asked that the members be: voters, and after a plus learners, ``ab+c``. The present voters,
    while others catch up: that it be called off.
    """
    listed: int = len(NAMES)
    """So many are members from the beginning."""
    term_max: int = 3
    """Nobody's election timer runs out in this term."""
    entries_max: int = 3
    """Nobody who has so many is asked to put."""
    lives_max: int = 2
    """Nobody crashes in a later one."""


class World(NamedTuple):
    """A whole state, by numbers: equal states are equal."""

    nodes: tuple[int, ...]
    links: tuple[tuple[int, ...], ...]
    """Of each link, the messages in flight, oldest first."""
    history: int


class Choice(NamedTuple):
    """What happens next."""

    kind: str
    place: int
    """A node, or a link."""
    number: int = 0

    def __str__(self) -> str:
        match self.kind:
            case "deliver" | "lose":
                sender, receiver = _LINKS[self.place]
                which = f", number {self.number + 1} of those in flight" if self.number else ""
                return f"{self.kind} {NAMES[sender]}→{NAMES[receiver]}{which}"
            case "crash" if self.number:
                return f"crash {NAMES[self.place]}, writes kept: {self.number}"
            case "hand over":
                return f"hand over {NAMES[self.place]}→{NAMES[self.number]}"
            case "members":
                return f"members {NAMES[self.place]}: {target_text(self.number)}"
            case "silence":
                return "all that is in flight is lost"
        return f"{self.kind} {NAMES[self.place]}"


class Worlds:
    """Takes worlds from one to the next."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.nodes = Nodes(disks_are_prompt=rules.disks_are_prompt, listed=rules.listed)
        self._histories: dict[History, int] = {}
        self.history: list[History] = []
        self._of_nodes: dict[int, tuple[What, ...]] = {}

    def first(self) -> World:
        """Nobody runs, nothing is in flight."""
        return World(self.nodes.first(), ((),) * len(_LINKS), self._number(History()))

    def flying_to(self, world: World, receiver: str) -> list[bytes]:
        """The messages on their way there, as the codec made them."""
        queues = [queue for link, queue in enumerate(world.links) if NAMES[_LINKS[link][1]] == receiver]
        return [self.nodes.messages[number].packed for queue in queues for number in queue]

    def choices(self, world: World) -> Iterator[Choice]:
        """All that can happen, in a fixed order."""
        any_order = self.rules.any_order
        for link, queue in enumerate(world.links):
            if queue:
                if "start" not in self.nodes.able[world.nodes[_LINKS[link][1]]]:
                    for place in range(len(queue) if any_order else 1):
                        if queue.index(queue[place]) == place:
                            yield Choice("deliver", link, place)
                if not any_order:
                    yield Choice("lose", link)
        reads = self.history[world.history].reads if self.rules.reads else ()
        for place in _NODES:
            for what in self._whats(world.nodes[place]):
                if what.kind != "read" or NAMES[place] not in dict(reads):
                    yield Choice(what.kind, place, what.number)

    def _whats(self, number: int) -> tuple[What, ...]:
        known = self._of_nodes.get(number)
        if known is None:
            known = self._of_nodes[number] = tuple(self._allowed(number))
        return known

    def _allowed(self, number: int) -> Iterator[What]:
        able, facts, rules = self.nodes.able[number], self.nodes.facts[number], self.rules
        for kind in ("sync", "start", "heartbeat", "keep", "load", "too late"):
            if kind in able:
                yield What(kind)
        if "snapshot" in able and rules.snapshots:
            yield What("snapshot")
        if "members" in able:
            yield from (What("members", target_number(target)) for target in rules.members)
        if "time out" in able and facts.term < rules.term_max:
            yield What("time out")
        if "put" in able and len(facts.log) < rules.entries_max:
            yield What("put")
        if "read" in able and rules.reads:
            yield What("read")
        if "hand over" in able and rules.transfers:
            yield from (What("hand over", target) for target in _NODES if NAMES[target] != facts.id)
        if "crash" in able and rules.crashes and facts.life < rules.lives_max:
            yield from (What("crash", kept) for kept in range(self.nodes.unfinished[number] + 1))

    def after(self, world: World, choice: Choice) -> World:
        """What comes of it; raises Violated, or whatever a broken core raises."""
        if choice.kind == "silence":
            return world._replace(links=((),) * len(_LINKS))
        links = list(world.links)
        place = choice.place
        what = What(choice.kind, choice.number)
        if choice.kind in ("deliver", "lose"):
            queue = links[place]
            links[place] = queue[: choice.number] + queue[choice.number + 1 :]
            if choice.kind == "lose":
                return World(world.nodes, tuple(links), world.history)
            what = What("deliver", queue[choice.number])
            place = _LINKS[place][1]
        number = world.nodes[place]
        step = self.nodes.step(number, what)
        if step.fault is not None:
            raise step.fault
        for receiver, message in step.sent:
            self._fly(links, _LINK_OF[NAMES[place], receiver], message, world)
        if choice.kind == "crash":
            self._void_replies(links, NAMES[place])
        nodes = (*world.nodes[:place], step.after, *world.nodes[place + 1 :])
        return World(nodes, tuple(links), self._history(world.history, nodes, place, number, step, choice))

    def _fly(self, links: list[tuple[int, ...]], link: int, message: int, world: World) -> None:
        """Unless it is a reply that nobody waits for any more."""
        flying = self.nodes.messages[message]
        if flying.is_request or self._waits(world.nodes[_LINKS[link][1]], flying):
            links[link] = (*links[link], message)

    def _waits(self, number: int, reply: Message) -> bool:
        facts = self.nodes.facts[number]
        return facts.role is not None and facts.life == reply.asker_life

    def _void_replies(self, links: list[tuple[int, ...]], crashed: NodeId) -> None:
        for place, (_, receiver) in enumerate(_LINKS):
            if NAMES[receiver] == crashed:
                links[place] = tuple(one for one in links[place] if self.nodes.messages[one].is_request)

    def _history(self, number: int, nodes: tuple[int, ...], place: int, before: int, step: Step, choice: Choice) -> int:
        """After what happened; checks all that it can have broken."""
        facts = [self.nodes.facts[one] for one in nodes]
        history = self.history[number]
        if _is_news(self.nodes.facts[before], facts[place]):
            history = figure3.after_step(facts, facts[place], history)
        me = NAMES[place]
        if choice.kind == "read":
            asked = (me, len(history.committed))
            history = history._replace(reads=tuple(sorted((*history.reads, asked))))
        elif choice.kind == "crash":
            history = history._replace(reads=tuple(read for read in history.reads if read[0] != me))
        for index in step.reads:
            history = figure3.read_answered(me, index, history)
        return self._number(history)

    def _number(self, history: History) -> int:
        number = self._histories.get(history)
        if number is None:
            number = self._histories[history] = len(self.history)
            self.history.append(history)
        return number

    # ----------------------------------------------------------------------------------- for people

    def story(self, world: World, choices: Sequence[Choice]) -> list[str]:
        """What happens in that order, as the nodes tell it themselves."""
        told: list[str] = []
        for number, choice in enumerate(choices, 1):
            what, place, arrived = What(choice.kind, choice.number), choice.place, ""
            if choice.kind in ("deliver", "lose"):
                message = world.links[place][choice.number]
                arrived = f": {_shown(codec.decode(self.nodes.messages[message].packed))}"
                what, place = What("deliver", message), _LINKS[place][1]
            told.append(f"{number}. {choice}{arrived}")
            if choice.kind not in ("lose", "silence"):
                self.nodes.make(world.nodes[place], what)
                told += [f"       {note}" for note in self.nodes.notes]
            if number < len(choices):
                world = self.after(world, choice)
        return told


def _is_news(before: Facts, after: Facts) -> bool:
    """Whether anything has changed that Figure 3 speaks of."""
    return before[_FIGURE_3] != after[_FIGURE_3]


def _shown(envelope: object) -> str:
    assert isinstance(envelope, Envelope)
    return str(envelope.message)
