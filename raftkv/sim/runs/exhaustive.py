"""Everything that can happen to three nodes, up to a number of choices, from a named starting point.

States are explored in the order of their depth, and equal ones are merged: nodes, disks, messages in flight, and of
the past what properties hang on. So what is found is found by as few choices as it takes, and is told by them. The
same exploration visits the same states in the same order on every machine.

Told: a starting point, and when to stop. Tells: how far it came, and the first state in which a property does not hold.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from raftkv.core.messages import Envelope
from raftkv.core.types import NodeId
from raftkv.sim.checks import figure3
from raftkv.sim.checks.figure3 import Facts, History
from raftkv.sim.runs.one_node import NAMES, Message, Nodes, Step, What
from raftkv.transport import codec

STATES_MAX: Final = 200_000
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
            case "silence":
                return "all that is in flight is lost"
        return f"{self.kind} {NAMES[self.place]}"


class Worlds:
    """Takes worlds from one to the next."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.nodes = Nodes(disks_are_prompt=rules.disks_are_prompt)
        self._histories: dict[History, int] = {}
        self.history: list[History] = []
        self._of_nodes: dict[int, tuple[What, ...]] = {}

    def first(self) -> World:
        """Nobody runs, nothing is in flight."""
        return World(self.nodes.first(), ((),) * len(_LINKS), self._number(History()))

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
        for kind in ("sync", "start", "heartbeat"):
            if kind in able:
                yield What(kind)
        if "time out" in able and facts.term < rules.term_max:
            yield What("time out")
        if "put" in able and len(facts.log) < rules.entries_max:
            yield What("put")
        if "read" in able and rules.reads:
            yield What("read")
        if "hand over" in able and rules.transfers:
            for target in _NODES:
                if NAMES[target] != facts.id:
                    yield What("hand over", target)
        if "crash" in able and rules.crashes and facts.life < rules.lives_max:
            for kept in range(self.nodes.unfinished[number] + 1):
                yield What("crash", kept)

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


@dataclass(frozen=True, slots=True)
class Counterexample:
    """How a property is broken, with as few choices as it takes."""

    cause: Exception
    choices: tuple[Choice, ...]
    story: tuple[str, ...]
    was_on_the_way: bool = False
    """The cluster does not even come to where the exploration begins."""

    def __str__(self) -> str:
        """For people."""
        on_the_way = ", on the way to where the exploration begins" if self.was_on_the_way else ""
        lines = [
            f"{type(self.cause).__name__}: {self.cause}",
            f"after {len(self.choices)} choices{on_the_way}:",
            *self.story,
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Explored:
    """How far an exploration came."""

    start: str
    depth: int
    """Everything that comes of so many choices was seen."""
    states: int
    """Different ones."""
    merged: int
    """Times that a state was come to that was known already."""
    node_steps: int
    """Steps of single nodes that were made; all others were remembered."""
    ended_by: str
    """``depth``, ``states``, ``told to stop``, ``nothing is left``, or ``a property``."""
    found: Counterexample | None


class Exploration:
    """One exploration; ``go_deeper`` takes it one choice further."""

    def __init__(self, start: str, worlds: Worlds, root: World, *, states_max: int, one_acts_first: bool) -> None:
        """Where all nodes are alike, whoever acts first may be called a: ``one_acts_first``."""
        self._start, self._worlds, self._root = start, worlds, root
        self._states_max, self._one_acts_first = states_max, one_acts_first
        self._known: dict[World, int] = {root: 0}
        self._parents = array("L", [0])
        self._hows: list[Choice] = [Choice("", 0)]
        self._frontier: list[World] = [root]
        self.depth = 0
        self.merged = 0
        self.ended_by = ""
        self.found: Counterexample | None = None

    @property
    def states(self) -> int:
        """Different ones that were seen."""
        return len(self._known)

    def go_deeper(self, stop: Callable[[], bool]) -> None:
        """Everything that one more choice brings."""
        frontier, self._frontier = self._frontier, []
        for world in frontier:
            if stop():
                self.ended_by = "told to stop"
            elif len(self._known) >= self._states_max:
                self.ended_by = "states"
            if self.ended_by or not self._expand(world):
                return
        self.depth += 1
        if not self._frontier:
            self.ended_by = "nothing is left"

    def _expand(self, world: World) -> bool:
        """False: something was found."""
        known, frontier = self._known, self._frontier
        number = known[world]
        for choice in self._worlds.choices(world):
            if self._one_acts_first and number == 0 and choice.place != 0:
                continue
            try:
                after = self._worlds.after(world, choice)
            except Exception as error:  # noqa: BLE001 (a broken core may raise anything)
                self._tell(error, number, choice)
                return False
            if after in known:
                self.merged += 1
                continue
            known[after] = len(known)
            self._parents.append(number)
            self._hows.append(choice)
            frontier.append(after)
        return True

    def _tell(self, cause: Exception, number: int, last: Choice) -> None:
        choices = [last]
        while number:
            choices.append(self._hows[number])
            number = self._parents[number]
        choices.reverse()
        story = self._worlds.story(self._root, choices)
        self.found = Counterexample(cause, tuple(choices), tuple(story))
        self.ended_by = "a property"

    def outcome(self) -> Explored:
        """How far it has come."""
        return Explored(
            self._start,
            self.depth,
            self.states,
            self.merged,
            self._worlds.nodes.steps_made,
            self.ended_by or "depth",
            self.found,
        )
