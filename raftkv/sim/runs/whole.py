"""One whole run of a virtual cluster from a seed: faults, clients, every checker; then calm, and what must follow.

Told: a seed. Tells: what came about, or RunFailed with the seed, the cause, the last that the nodes said, and how
to run it again. The same seed gives the same run, whatever PYTHONHASHSEED is.
"""

from __future__ import annotations

import zlib
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from raftkv.core.types import ClusterId, Role
from raftkv.outcomes import Applied, Unknown, WriteOutcome
from raftkv.replica import Work
from raftkv.sim.checks.directories import Directories, nobody_forms, the_lost_are_known
from raftkv.sim.checks.invariants import Invariants, Violated
from raftkv.sim.checks.machines import MachineOracle, MakeMachine, WatchedReplica
from raftkv.sim.checks.oracle import Oracle, WatchedMachine
from raftkv.sim.clients.connections import draw_weather
from raftkv.sim.clients.plain import PlainWorkload
from raftkv.sim.clients.workload import Workload, WorkloadPlan
from raftkv.sim.faults.drawing import draw_profile
from raftkv.sim.faults.kinds import Faults
from raftkv.sim.faults.profile import Profile
from raftkv.sim.runs.failed import RunFailed
from raftkv.sim.world.cluster import CutOff, VirtualCluster, Watcher
from raftkv.sim.world.node import VirtualNode
from raftkv.state_machine import StateMachine

STORM_US: Final = 6_000_000
"""How long faults and clients go on."""
CALM_ELECTION_TIMEOUTS_MAX: Final = 20
"""Upper election timeouts within which a cluster that works again has elected, written and converged."""
FORMING_US_MAX: Final = 5_000_000
"""Within which a cluster forms that works, and a node that was down takes part again."""
UNANSWERED_US_MAX: Final = 1_000_000
_SILENCE_US: Final = 10_000
"""For so long all is lost that a leader sends: a batch, but no two heartbeats."""
STEPS_MAX: Final = 1_000_000
"""Many times what a run takes: one that goes on is going round in a circle."""
_TOLD_MAX: Final = 60


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What is not drawn from the seed."""

    machine: MakeMachine | None = None
    """Makes the state machine that is replicated; None: the key-value store."""
    profile: Profile | None = None
    """This kind of run; None: the seed's own."""
    steps_max: int | None = None
    """The run is cut off after so many steps, and what clients were told by then is judged."""
    told_max: int = _TOLD_MAX
    """So many of the newest notes are told with a failure."""
    command: str = "raftkv simulate"
    """What runs it again, but for the seed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to. Equal runs have equal outcomes."""

    seed: int
    steps: int
    virtual_us: int
    faults: int
    operations: int
    answers: int
    executions: int
    terms: int
    trace: int
    """A checksum over everything that the nodes did, in order."""


class _Teller(Watcher):
    """Keeps the newest notes, and a checksum over all that is done."""

    def __init__(self, cluster: VirtualCluster, *, keep: int) -> None:
        self.cluster = cluster
        self.trace = 0
        self.told: deque[str] = deque(maxlen=keep)
        self.faults: Counter[str] = Counter()
        """How often each kind was made."""

    def stepped(self, node: VirtualNode, work: Work) -> None:
        """Everything that a turn wants done goes into the trace."""
        self._add(f"{node.id} {_told(work)}")
        for note in work.notes:
            self._tell(note.text)

    def crashed(self, node: VirtualNode) -> None:
        """Told."""
        self._tell(f"{node.id} crashes")

    def started(self, node: VirtualNode) -> None:
        """Told."""
        self._tell(f"{node.id} starts")

    def formed(self, node: VirtualNode, cluster_id: ClusterId) -> None:
        """Told."""
        self._tell(f"{node.id} belongs to cluster {cluster_id.hex()}")

    def halted(self, node: VirtualNode, error: BaseException) -> None:
        """Told."""
        self._tell(f"{node.id} ends itself: {error}")

    def broke(self, kind: str) -> None:
        """Counted."""
        self.faults[kind] += 1

    def _tell(self, text: str) -> None:
        self._add(text)
        self.told.append(f"{self.cluster.now_us / 1_000_000:.3f} {text}")

    def _add(self, text: str) -> None:
        self.trace = zlib.crc32(f"{self.cluster.now_us} {text}".encode(), self.trace)


class Run:
    """A run that is being made."""

    def __init__(self, seed: int, options: RunOptions | None = None) -> None:
        rng = Random(seed)
        self.seed = seed
        self.options = options or RunOptions()
        self.profile = self.options.profile or draw_profile(rng)
        self.oracle, make_machine = _watched(self.options.machine)
        self.cluster = VirtualCluster(self.profile.plan(), Random(rng.randrange(2**32)), make_machine)
        self.cluster.steps_max = min(STEPS_MAX, self.options.steps_max or STEPS_MAX)
        self.teller = _Teller(self.cluster, keep=self.options.told_max)
        self.cluster.watchers += [self.teller, Invariants(self.cluster), Directories(self.cluster)]
        self.faults = Faults(self.cluster, self.profile, Random(rng.randrange(2**32)))
        plan, own = _draw_workload(rng), Random(rng.randrange(2**32))
        self.workload: Workload | PlainWorkload
        if isinstance(self.oracle, MachineOracle):
            self.workload = PlainWorkload(self.cluster, self.oracle, plan, own)
        else:
            self.workload = Workload(self.cluster, self.oracle, plan, own)

    def whole(self) -> Outcome:
        """Storm, calm, and the proof of what clients were told."""
        try:
            self._live()
        except CutOff:
            if self.options.steps_max is None:
                raise Violated("a run comes to its end", f"it goes on after {STEPS_MAX} steps") from None
        self.workload.prove()
        return self._outcome()

    def _live(self) -> None:
        self.cluster.start_all()
        self.workload.start()
        self.faults.start()
        self.cluster.run_for(STORM_US)
        self.faults.stop()
        if self._forms():
            self._calm()
        self._every_request_was_answered()
        the_lost_are_known(self.cluster)

    def _forms(self) -> bool:
        """Whether there is a cluster. Where nodes lost their data while it formed, there may never be one."""
        if self.cluster.run_while(lambda: not self._all_take_part(), at_most_us=FORMING_US_MAX):
            return True
        if any(node.is_up for node in self.cluster.nodes.values()):
            raise Violated("sound nodes take part", ", ".join(map(_shown, self.cluster.nodes.values())))
        nobody_forms(self.cluster)
        return False

    def _all_take_part(self) -> bool:
        return all(node.is_up for node in self.cluster.sound_nodes())

    def _calm(self) -> None:
        """Everything works: a leader is elected, takes a write, and all sound nodes come to the same state.

        What one write then needs comes about by itself: under load, the next would hide that it does not.
        """
        at_most_us = 2 * self.profile.raft.election_timeout_us * CALM_ELECTION_TIMEOUTS_MAX
        written: list[int] = []
        self._keep_writing(written)
        if not self.cluster.run_while(lambda: not written, at_most_us=at_most_us):
            raise Violated("writes go on", f"no write for {at_most_us} us in a cluster that works")
        self.workload.stop()
        if not self.cluster.run_while(lambda: self.workload.in_flight > 0, at_most_us=10_000_000):
            raise Violated("clients are answered", f"{self.workload.in_flight} requests have no end")
        if not self.cluster.run_while(lambda: not self._has_converged(written[0]), at_most_us=3 * at_most_us):
            raise Violated("nodes converge", ", ".join(map(_shown, self.cluster.nodes.values())))
        self._write_once_into_silence()

    def _write_once_into_silence(self) -> None:
        """What carries a write is lost, and nothing is written after it: it is sent again all the same."""
        cluster, leader = self.cluster, self.cluster.leader()
        if leader is None:
            return
        term, told = leader.raft.term, list[WriteOutcome]()
        for other in cluster.nodes:
            if other != leader.id:
                cluster.network.cut(leader.id, other)
        leader.running.submit(self.workload.any_command(), told.append)
        cluster.poke(leader.id)
        cluster.run_for(_SILENCE_US)
        cluster.network.heal_all()
        cluster.run_while(lambda: not told, at_most_us=10_000_000)
        still_leads = leader.is_up and leader.raft.role is Role.LEADER and leader.raft.term == term
        if still_leads and told in ([], [Unknown()]):
            raise Violated("a write needs no other after it", f"{told or 'no outcome'} at {leader.id}")

    def _keep_writing(self, written: list[int]) -> None:
        """Asks whoever leads until one write is done."""

        def done(outcome: object) -> None:
            if isinstance(outcome, Applied):
                written.append(outcome.index)

        def ask() -> None:
            leader = self.cluster.leader()
            if written:
                return
            if leader is not None:
                leader.running.submit(self.workload.any_command(), done)
                self.cluster.poke(leader.id)
            self.cluster.after(100_000, ask)

        ask()

    def _has_converged(self, at_least: int) -> bool:
        nodes = self.cluster.members()
        first = nodes[0].running if nodes and nodes[0].is_up else None
        return first is not None and all(
            node.is_up
            and node.raft.applied_index >= at_least
            and node.raft.applied_index == node.raft.last_index == first.raft.applied_index
            and _state(node.running.machine) == _state(first.machine)
            for node in nodes
        )

    def _every_request_was_answered(self) -> None:
        """No exchange is held open for ever; a node that works answers within a second."""
        self.cluster.run_for(2 * UNANSWERED_US_MAX)
        unanswered = self.cluster.unanswered(since_us=self.cluster.now_us - UNANSWERED_US_MAX)
        if unanswered:
            raise Violated("every request gets a reply", str(unanswered[0]))

    def _outcome(self) -> Outcome:
        return Outcome(
            seed=self.seed,
            steps=self.cluster.steps,
            virtual_us=self.cluster.now_us,
            faults=self.faults.count,
            operations=self.workload.operations,
            answers=self.workload.answers,
            executions=self.oracle.executions,
            terms=max((node.raft.term for node in self.cluster.nodes.values() if node.is_up), default=0),
            trace=self.teller.trace ^ self.oracle.digest,
        )


def _watched(make: MakeMachine | None) -> tuple[Oracle | MachineOracle, Callable[[], StateMachine]]:
    """Who knows what is right, and what every node gets: the store that ships, or the user's machine."""
    if make is None:
        oracle = Oracle()
        return oracle, lambda: WatchedMachine(oracle)
    truth = MachineOracle(make)
    return truth, lambda: WatchedReplica(truth, make)


def _draw_workload(rng: Random) -> WorkloadPlan:
    plan = WorkloadPlan(
        clients=rng.choice((2, 4, 6)),
        slots=rng.choice((1, 2, 4)),
        keys=rng.choice((1, 3)),
        think_us_max=rng.choice((30_000, 150_000)),
        attempt_us_max=rng.choice((700_000, 2_000_000)),
        answers_lost_per_mille=rng.choice((0, 20, 200)),
        reads_per_mille=rng.choice((300, 600)),
        session_ttl_ms=rng.choice((60_000, 1_000)),
    )
    return replace(
        plan,
        library_clients=rng.choice((0, plan.clients // 2, plan.clients)),
        numbers_max=rng.choice((None, 2)),
        weather=draw_weather(rng),
    )


def _told(work: Work) -> str:
    """In words that every process has alike: a capture and a loading are told by what they stand for."""
    snapshots = work.snapshots
    take, load = snapshots.take, snapshots.load
    if take is None and load is None:
        return str(work)
    captured = () if take is None else (take.base, take.stamp_ms, take.state_hash)
    loaded = None if load is None else load.index
    others = replace(snapshots, take=None, load=None)
    return f"{replace(work, snapshots=others)} {captured} {loaded}"


def _state(machine: StateMachine) -> object:
    own = machine.state_hash()
    return machine.snapshot() if own is None else own


def _shown(node: VirtualNode) -> str:
    if not node.is_up:
        return f"{node.id}: {'waits: ' + node.waits_for if node.runs else 'down'}"
    raft = node.raft
    return f"{node.id}: {raft.role.value} in term {raft.term}, applied {raft.applied_index} of {raft.last_index}"


def run(seed: int, options: RunOptions | None = None) -> Outcome:
    """The run of that seed; raises RunFailed."""
    return finish(Run(seed, options))


def finish(made: Run) -> Outcome:
    """The run from its beginning to its end; raises RunFailed."""
    try:
        return made.whole()
    except Exception as error:
        command, steps = f"{made.options.command} --seed", made.cluster.steps
        raise RunFailed(made.seed, command=command, cause=error, told=made.teller.told, steps=steps) from error
