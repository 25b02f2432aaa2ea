"""Very many very short runs: three or four nodes, a few dozen choices, every one of them drawn.

Most bugs of consensus need only 8 to 25 steps, in an order that nobody thought of. What is drawn first is what this
run likes to do (more crashes, fewer deliveries …), so that runs differ in kind; then the choices. Each of these draws
from a generator of its own, so that a run that fails can be told without those that it would have failed without.

Told: a seed. Tells: that all properties held, or RunFailed with the fewest choices that were found to fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from raftkv.core.settings import RaftSettings
from raftkv.core.types import NodeId
from raftkv.sim.runs.choices import CHOICES, Choice, Theme, campaign
from raftkv.sim.runs.failed import RunFailed
from raftkv.sim.runs.minimize import lowest, minimized
from raftkv.sim.runs.scene import Scene
from raftkv.sim.runs.short_clients import ShortClients
from raftkv.sim.runs.short_world import Setting, ShortWorld
from raftkv.snapshotting import SnapshotSettings

CHOICES_MAX: Final = 60
_TRIES_MAX: Final = 300
"""Runs that the search for fewer choices may take."""
_NAMES: Final = tuple(map(NodeId, ("a", "b", "c", "d", "e")))
_SETTINGS: Final = RaftSettings(election_timeout_ms=300, heartbeat_ms=100)
_SMALL_SETTINGS: Final = RaftSettings(
    election_timeout_ms=300,
    heartbeat_ms=100,
    append_bytes_max=1,
    inflight_appends_max=2,
    log_memory_bytes=64,
    log_recent_bytes=1,
)
"""One entry a message, and all but what some node lacks, or is newest, read back from disk."""
_PACES: Final = (1000, 1000, 1050, 1100)
"""None runs faster than another by more than the bound on drift."""
_THEMES: Final = (Theme.ANYTHING, Theme.MEMBERS, Theme.SNAPSHOTS)
_THEME_WEIGHT: Final = 3
"""So much more often happens what a run is about."""
_TASTES: Final = (0, 1, 1, 1, 8)
_TASTES_FOR_THE_RARE: Final = (0, 0, 0, 1, 4)
_OPENING: Final = Choice(campaign, 0)
_ENDING: Final = CHOICES_MAX + 1
"""A number of its own: by the seed that the run began with, who begins anew would wait as long as another each time."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One choice of a run."""

    number: int
    """Its place in the run as it was drawn; what it draws itself depends on that and the seed alone."""
    choice: Choice
    talk_max: int | None = None
    """After so many steps the nodes fall silent; None: when it says itself."""

    def __str__(self) -> str:
        steps = "" if self.talk_max is None else f", {self.talk_max} steps of talk"
        return f"{self.number}: {self.choice.name}{steps}"


@dataclass(slots=True)
class ShortRun:
    """One run, drawn and not yet made."""

    seed: int
    setting: Setting = field(init=False)
    chosen: list[Chosen] = field(init=False)

    def __post_init__(self) -> None:
        rng = Random(self.seed)
        theme = rng.choice(_THEMES)
        names = _NAMES[: 4 if rng.randrange(6) == 0 else 3]
        raft = rng.choice((_SETTINGS, _SMALL_SETTINGS))
        if rng.randrange(4) == 0:
            raft = replace(raft, lease_reads=True)
        snapshots = SnapshotSettings()
        is_snapshotted = theme is Theme.SNAPSHOTS or rng.randrange(3) == 0
        if is_snapshotted:
            snapshots = SnapshotSettings(snapshot_log_entries=rng.choice((1, 2, 4)), proof_wait_ms=100)
            raft = replace(raft, log_tail_entries=rng.choice((1, 1, 3)), snapshot_chunk_bytes=rng.choice((100, 400)))
        spares, catch_up_timeout_ms = 0, 300_000
        members_change = theme is Theme.MEMBERS or rng.randrange(6) == 0
        if members_change:
            spares = rng.randrange(3)
            names = _NAMES[: max(3, rng.choice((2, 3, 3)) + spares)]
            catch_up_timeout_ms = rng.choice((500, 300_000))
        paces = tuple(rng.choice(_PACES) for _ in names)
        self.setting = Setting(names, raft, paces, snapshots, spares, catch_up_timeout_ms)
        weights = [
            (_THEME_WEIGHT if choice.theme is theme else 1)
            * choice.weight
            * rng.choice(_TASTES_FOR_THE_RARE if choice.is_rare else _TASTES)
            if (raft.lease_reads or not choice.needs_leases)
            and (is_snapshotted or not choice.needs_snapshots)
            and (members_change or not choice.needs_changes)
            else 0
            for choice in CHOICES
        ]
        if rng.randrange(2):
            weights = [
                choice.weight if choice.is_needed else weight for choice, weight in zip(CHOICES, weights, strict=True)
            ]
        drawn = rng.choices(CHOICES, weights, k=rng.randrange(8, CHOICES_MAX))
        self.chosen = [Chosen(number, choice) for number, choice in enumerate([_OPENING, *drawn], 1)]

    def run(self) -> int:
        """All that was chosen; its turns. Raises Violated, or whatever a broken node raises."""
        made = Made(self.setting, self.seed)
        made.run(self.chosen)
        return made.world.turns

    def failure(self) -> Exception | None:
        """What comes of it, as soon as it is known; None: all properties hold."""
        return Made(self.setting, self.seed).failure_of(self.chosen)

    def told(self, cause: Exception) -> RunFailed:
        """What it failed by, with as few choices as were found to fail in the same way."""
        made = Made(self.setting, self.seed)
        made.failure_of(self.chosen)
        fewest = self._fewest(cause, made.done)
        again = Made(self.setting, self.seed)
        cause = again.failure_of(fewest) or cause
        lines = [f"{len(fewest)} of {len(made.done)} choices, which fail by themselves:", *map(str, fewest)]
        lines += ["what comes of them:", *again.world.told]
        command = "raftkv simulate --short --seed"
        return RunFailed(self.seed, command=command, cause=cause, told=lines, steps=again.world.turns)

    def _fewest(self, cause: Exception, done: Mapping[Chosen, int]) -> list[Chosen]:
        """First fewer choices, then fewer steps of talk in each that is left."""

        def fails(chosen: Sequence[Chosen]) -> bool:
            return _is_like(Made(self.setting, self.seed).failure_of(chosen), cause)

        fewest = minimized(list(done), fails, tries_max=_TRIES_MAX)
        for place, one in enumerate(fewest):
            before, after = fewest[:place], fewest[place + 1 :]
            fewest[place] = self._quietest(one, done[one], before, after, fails)
        return fewest

    @staticmethod
    def _quietest(
        one: Chosen, steps: int, before: list[Chosen], after: list[Chosen], fails: Callable[[list[Chosen]], bool]
    ) -> Chosen:
        quieter = [*(replace(one, talk_max=fewer) for fewer in range(steps)), one]
        return quieter[lowest(steps, lambda fewer: fails([*before, quieter[fewer], *after]))]


class Made:
    """A run that is being made."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self._seed = seed
        self._rng = Random(seed)
        self.world = ShortWorld(setting, self._rng)
        self._scene = Scene(self.world, ShortClients(self.world), self._rng)
        self.done: dict[Chosen, int] = {}
        """Choices that were made, with the steps of talk that came of each."""

    def run(self, chosen: Sequence[Chosen]) -> None:
        """All of them, then what clients were told; raises Violated, or whatever a broken node raises."""
        world = self.world
        for node in world.nodes.values():
            world.start(node)
        for one in chosen:
            self._seed_for(one.number)
            world.now += 1
            world.talked, world.talk_max = 0, one.talk_max
            self.done[one] = 0
            world.told.append(str(one))
            try:
                one.choice.act(self._scene)
            finally:
                self.done[one] = world.talked
        world.talk_max = None
        self._seed_for(_ENDING)
        world.settle()
        self._scene.clients.prove()

    def _seed_for(self, number: int) -> None:
        """What follows draws what only the seed and this number, of one choice or of the end, decide."""
        self._rng.seed(number << 64 | self._seed)

    def failure_of(self, chosen: Sequence[Chosen]) -> Exception | None:
        """What comes of them; None: all properties hold."""
        try:
            self.run(chosen)
        except Exception as error:  # noqa: BLE001 (a broken node may raise anything)
            return error
        return None


def _is_like(one: Exception | None, other: Exception) -> bool:
    """The same property was violated, or the same kind of thing went wrong."""
    return type(one) is type(other) and getattr(one, "name", "") == getattr(other, "name", "")


def short_run(seed: int) -> int:
    """The short run of that seed; its turns. Raises RunFailed."""
    drawn = ShortRun(seed)
    try:
        return drawn.run()
    except Exception as error:
        raise drawn.told(error) from error
