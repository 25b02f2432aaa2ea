"""All clients of a run, of both kinds: those that ask replicas at once, and those that are the library that ships.

Told: a cluster to ask, what clients do, when to stop. Tells: what they were told, and what it proves.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from raftkv.sim.checks.oracle import Oracle
from raftkv.sim.clients.book import Book
from raftkv.sim.clients.connections import Connections, Weather
from raftkv.sim.clients.library import LibraryClient, Manners
from raftkv.sim.clients.scripted import ScriptedClient, ScriptedPlan
from raftkv.sim.clients.shell import Times
from raftkv.sim.world.cluster import VirtualCluster


@dataclass(frozen=True, slots=True)
class WorkloadPlan(ScriptedPlan):
    """What clients do, and how patient they are."""

    clients: int = 4
    """Every other one of those that ask replicas at once has a session."""
    library_clients: int = 0
    """So many of them are the library."""
    keys: int = 3
    weather: Weather | None = None
    """Between the library and the nodes; None: as it mostly is."""
    numbers_max: int | None = None
    """Of a library's session, in flight; None: as many as ships."""

    @property
    def manners(self) -> Manners:
        """What those do that are the library."""
        return Manners(
            Times(
                silence_us=self.attempt_us_max // 4,
                answer_us_max=2 * self.attempt_us_max,
                timeout_us=self.patience_us,
                numbers_max=self.numbers_max,
                session_ttl_ms=self.session_ttl_ms,
            ),
            think_us_max=self.think_us_max,
            reads_per_mille=self.reads_per_mille,
        )


class Workload(Book):
    """All clients of a run."""

    def __init__(self, cluster: VirtualCluster, oracle: Oracle, plan: WorkloadPlan, rng: Random) -> None:
        super().__init__(cluster, oracle, keys=plan.keys)
        self.plan = plan
        self._scripted = [
            ScriptedClient(self, plan, f"c{number}", Random(rng.randrange(2**32)), wants_session=number % 2 == 0)
            for number in range(plan.clients - plan.library_clients)
        ]
        self.connections = Connections(cluster, self.words, plan.weather or Weather(), Random(rng.randrange(2**32)))
        self._libraries = [
            LibraryClient(self, f"l{number}", self.connections, plan.manners, Random(rng.randrange(2**32)))
            for number in range(plan.library_clients)
        ]
        if self._libraries:
            cluster.watchers.append(self.connections)

    def start(self) -> None:
        """Everybody begins."""
        for client in self._scripted:
            client.start()
        for library in self._libraries:
            library.start(self.plan.slots)
        self.connections.begin([library.name for library in self._libraries])

    def stop(self) -> None:
        """Nobody begins anything new; what is in flight comes to its end."""
        self.stopped = True
        self.connections.heal()
        for library in self._libraries:
            library.stop()
