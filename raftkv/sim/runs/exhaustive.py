"""Everything that can happen to three nodes, up to a number of choices, from a named starting point.

States are explored in the order of their depth, and equal ones are merged: nodes, disks, messages in flight, and of
the past what properties hang on. So what is found is found by as few choices as it takes, and is told by them. The
same exploration visits the same states in the same order on every machine.

Told: a starting point, and when to stop. Tells: how far it came, and the first state in which a property does not hold.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from raftkv.sim.runs.starts import STARTS, Driver
from raftkv.sim.runs.states import Choice, Rules, World, Worlds

STATES_MAX: Final = 200_000


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


def explore(
    depth: int,
    start: str = "empty",
    states_max: int = STATES_MAX,
    *,
    rules: Rules | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Explored], None] = lambda _: None,
) -> Explored:
    """Everything that so many choices can bring about from that starting point, or what was seen before ``states_max``
    states were known, or before ``stop`` said so. ``progress`` is told after each depth. Raises KeyError on an unknown
    start.
    """
    row = STARTS[start]
    worlds = Worlds(rules or row.rules)
    driver = Driver(worlds)
    try:
        row.lead(driver)
    except AssertionError as error:
        story = worlds.story(worlds.first(), driver.taken)
        found = Counterexample(error, tuple(driver.taken), tuple(story), was_on_the_way=True)
        return Explored(start, 0, 0, 0, worlds.nodes.steps_made, "a property", found)
    exploration = Exploration(start, worlds, driver.world, states_max=states_max, one_acts_first=row.all_are_alike)
    while exploration.depth < depth and not exploration.ended_by:
        exploration.go_deeper(stop)
        progress(exploration.outcome())
    return exploration.outcome()
