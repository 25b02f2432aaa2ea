"""Clients of any state machine in virtual time: they submit commands, ask queries, lose answers, and ask elsewhere.

Told: a cluster to ask, an oracle that knows what is committed, when to stop. Tells: the oracle what each answer
claims. A command is submitted again only if what came of it is known to be nothing: without sessions, that is all
that a client can do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from raftkv.core.types import NodeId
from raftkv.outcomes import Answered, Applied, Consistency, Refused, Superseded
from raftkv.sim.checks.invariants import Violated
from raftkv.sim.checks.machines import MachineOracle
from raftkv.sim.clients.workload import WorkloadPlan
from raftkv.sim.world.cluster import VirtualCluster
from raftkv.state_machine import SUBMITTED_BYTES_MAX

_PAUSED_LOOK_US: Final = 5_000
_ANYBODY_ANSWERS: Final = (Consistency.FOLLOWER, Consistency.STALE)


@dataclass(slots=True, eq=False)
class _Wish:
    """A command or a query on its way to an answer."""

    what: Any
    consistency: Consistency | None
    """None: it is a command."""
    began_us: int
    asked_at: int
    """The oracle's acknowledged index when it was first asked; a query that is asked again is a new one."""
    min_index: int = 0
    attempt: int = 0
    is_over: bool = False


class PlainWorkload:
    """All clients of a run."""

    def __init__(self, cluster: VirtualCluster, oracle: MachineOracle, plan: WorkloadPlan, rng: Random) -> None:
        self.cluster, self.oracle, self.plan, self.rng = cluster, oracle, plan, rng
        self.answers = 0
        """Requests that came to a known end."""
        self.operations = 0
        """Answers that were held against the log."""
        self.tally: dict[str, int] = {}
        """How often attempts and requests came to what, by name."""
        self.in_flight = 0
        self.stopped = False
        self.clients = [_Client(self, Random(rng.randrange(2**32))) for _ in range(plan.clients)]

    def start(self) -> None:
        """Everybody begins."""
        for client in self.clients:
            for _ in range(self.plan.slots):
                client.think()

    def stop(self) -> None:
        """Nobody begins anything new; what is in flight comes to its end."""
        self.stopped = True

    def any_command(self) -> bytes:
        """One more, submitted by nobody in particular."""
        command = self.new_command(self.rng)
        self.oracle.submitted(command)
        return command

    def new_command(self, rng: Random) -> bytes:
        """What the machine draws."""
        command: object = self.oracle.reference.random_command(rng)
        if not isinstance(command, bytes) or len(command) > SUBMITTED_BYTES_MAX:
            raise Violated("a command is bytes", f"at most {SUBMITTED_BYTES_MAX}; random_command gave {command!r:.80}")
        return command

    def count(self, what: str) -> None:
        """It has happened once more."""
        self.tally[what] = self.tally.get(what, 0) + 1

    def prove(self) -> None:
        """Every answer was held against the log's order when it was given; nothing is left to prove."""


class _Client:
    """One client: the leader that it believes in, what it has seen."""

    def __init__(self, world: PlainWorkload, rng: Random) -> None:
        self.world, self.rng = world, rng
        self.believed_leader: NodeId | None = None
        self.seen_index = 0

    def think(self) -> None:
        self._after(self.rng.randrange(1, self.world.plan.think_us_max), self._begin)

    def _after(self, delay_us: int, act: Callable[[], None]) -> None:
        self.world.cluster.after(delay_us, act)

    def _begin(self) -> None:
        world = self.world
        if world.stopped:
            return
        consistency: Consistency | None = None
        if self.rng.randrange(1000) < world.plan.reads_per_mille:
            consistency = self.rng.choice(tuple(Consistency))
            what = world.oracle.reference.random_query(self.rng)
        else:
            what = world.new_command(self.rng)
        world.in_flight += 1
        self._attempt(_Wish(what, consistency, world.cluster.now_us, world.oracle.acknowledged_index))

    def _attempt(self, wish: _Wish) -> None:
        world, plan = self.world, self.world.plan
        if world.cluster.now_us - wish.began_us > plan.patience_us:
            return self._end(wish)
        wish.attempt += 1
        if wish.consistency is not None:
            wish.asked_at = world.oracle.acknowledged_index
            wish.min_index = self.seen_index if wish.consistency is Consistency.STALE else 0
        target, attempt = self.believed_leader, wish.attempt
        if target is None or wish.consistency in _ANYBODY_ANSWERS:
            target = self.rng.choice(list(world.cluster.nodes))
        self._after(self._delay_us(), lambda: self._arrives(wish, attempt, target))
        patience_us = self.rng.randrange(plan.attempt_us_max // 4, plan.attempt_us_max)
        return self._after(patience_us, lambda: self._no_answer(wish, attempt))

    def _delay_us(self) -> int:
        return self.rng.randrange(100, self.world.plan.delay_us_max)

    def _arrives(self, wish: _Wish, attempt: int, target: NodeId) -> None:
        node = self.world.cluster.nodes[target]
        if not node.is_up:
            return self._after(self._delay_us(), lambda: self._connection_refused(wish, attempt))
        if node.paused:
            return self._after(_PAUSED_LOOK_US, lambda: self._arrives(wish, attempt, target))
        if wish.consistency is None:
            self.world.oracle.submitted(wish.what)
        done = self._heard_by_the_oracle(wish, attempt)
        if wish.consistency is None:
            node.running.submit(wish.what, done)
        else:
            node.running.read(wish.what, wish.consistency, done, min_index=wish.min_index)
        return self.world.cluster.poke(target)

    def _heard_by_the_oracle(self, wish: _Wish, attempt: int) -> Callable[[Any], None]:
        """What a node says is held against the log at once, whether its client will hear it or not."""
        oracle, min_index = self.world.oracle, wish.min_index
        asked_at = None if wish.consistency is Consistency.STALE else wish.asked_at

        def done(outcome: Any) -> None:
            match outcome:
                case Applied(index, answer):
                    self.world.operations += 1
                    oracle.write_answered(wish.what, index, answer, asked_at=wish.asked_at)
                case Answered(index, answer):
                    self.world.operations += 1
                    oracle.read_answered(wish.what, index, answer, asked_at=asked_at)
                    if index < min_index:
                        raise Violated("stale reads are monotonic", f"{index} was served, asked for {min_index}")
                case Refused() | Superseded() if wish.consistency is None:
                    oracle.was_void(wish.what)
            if self.rng.randrange(1000) >= self.world.plan.answers_lost_per_mille:
                self._after(self._delay_us(), lambda: self._answer(wish, attempt, outcome))

        return done

    def _answer(self, wish: _Wish, attempt: int, outcome: Any) -> None:
        if wish.is_over or wish.attempt != attempt:
            return
        self.world.count(type(outcome).__name__)
        if isinstance(outcome, Refused):
            named = outcome.leadership.leader_id
            self.believed_leader = None if named is None else NodeId(named)
        match outcome:
            case Applied(index) | Answered(index):
                self.seen_index = max(self.seen_index, index)
                self.world.answers += 1
                self._end(wish)
            case Refused() | Superseded():
                self._try_again(wish)
            case _:
                self._uncertain(wish)

    def _no_answer(self, wish: _Wish, attempt: int) -> None:
        if not wish.is_over and wish.attempt == attempt:
            self.believed_leader = None
            self.world.count("no answer")
            self._uncertain(wish)

    def _connection_refused(self, wish: _Wish, attempt: int) -> None:
        if not wish.is_over and wish.attempt == attempt:
            self.believed_leader = None
            self.world.count("connection refused")
            self._try_again(wish)

    def _uncertain(self, wish: _Wish) -> None:
        """A command may have been executed, and asking again might execute it twice."""
        if wish.consistency is None:
            self.world.count("outcome unknown")
            self._end(wish)
        else:
            self._try_again(wish)

    def _try_again(self, wish: _Wish) -> None:
        wish.attempt += 1
        attempt = wish.attempt
        self._after(self.rng.randrange(1_000, 80_000), lambda: self._attempt(wish) if wish.attempt == attempt else None)

    def _end(self, wish: _Wish) -> None:
        wish.is_over = True
        self.world.in_flight -= 1
        self.think()
