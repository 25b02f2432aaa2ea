"""Connections between clients and virtual nodes, as TCP makes them: in order, nothing lost and nothing twice, but
broken at any moment, and late.

Told: whom to connect to, and requests as bytes. Tells: the answer; that there will be none; that no byte left. What
a client hears is all that it can know: a request whose connection broke was executed, or is yet, or never will be.

Who is cut off is drawn here, each client and node by itself and each direction by itself: what was sent meanwhile
is sent again when they reach each other, as long as both ends still want it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from raftkv.core.types import NodeId
from raftkv.http.exchange import HttpAnswer, NoAnswer, NotSent
from raftkv.sim.checks.words import Behalf, Words
from raftkv.sim.clients.door import Door, answer_in
from raftkv.sim.world.cluster import VirtualCluster, Watcher
from raftkv.sim.world.node import VirtualNode
from raftkv.values import Address

RESEND_US: Final = 200_000
"""What was lost is sent again after so long."""
CUT_US_MAX: Final = 1_500_000


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad the way between clients and nodes is; chances in thousandths, times in microseconds."""

    delay_us_max: int = 2_000
    broken_per_mille: int = 20
    """Of exchanges whose connection breaks on the way: half of them before the request is there."""
    stranger_per_mille: int = 300
    """Of those: somebody between them answers 502 instead."""
    late_per_mille: int = 5
    late_us_max: int = 900_000
    slow_body_per_mille: int = 50
    """Of requests whose body comes after their head has been judged."""
    slow_body_us_max: int = 400_000
    cut_every_us_max: int | None = 600_000
    """At most so long after one client lost one node, another does; None: nobody does."""


def draw_weather(rng: Random) -> Weather:
    """A way like any other, or one that breaks, is slow, is cut."""
    return Weather(
        delay_us_max=rng.choice((2_000, 2_000, 30_000)),
        broken_per_mille=rng.choice((0, 20, 150)),
        stranger_per_mille=rng.choice((0, 300, 1_000)),
        late_per_mille=rng.choice((0, 5, 30)),
        slow_body_per_mille=rng.choice((0, 50)),
        cut_every_us_max=rng.choice((None, 600_000)),
    )


class Connection:
    """One connection, as its client sees it: one exchange at a time."""

    __slots__ = ("_heard", "_net", "client", "is_free", "is_lost", "life", "node")

    def __init__(self, net: Connections, client: str, node: VirtualNode) -> None:
        self.client, self.node, self.life = client, node, node.life
        self.is_free = True
        self.is_lost = False
        """The client has closed it, or knows that it is broken."""
        self._net = net
        self._heard: Callable[[HttpAnswer | NoAnswer], None] | None = None

    def exchange(self, request: bytes, behalf: Behalf | None, heard: Callable[[HttpAnswer | NoAnswer], None]) -> None:
        """Sends it, only while ``is_free``; ``heard`` is called once, unless it is closed before."""
        assert self.is_free, "one exchange at a time"
        assert not self.is_lost, "it is closed"
        self.is_free = False
        self._heard = heard
        self._net.carry(self, request, behalf)

    def hear(self, heard: HttpAnswer | NoAnswer) -> None:
        """What came of the exchange, if anybody still waits for it."""
        told, self._heard = self._heard, None
        if told is None:
            return
        self.is_free = True
        if isinstance(heard, NoAnswer):
            self.close()
        told(heard)

    def breaks(self, why: str) -> None:
        """The client learns that it is broken."""
        self.hear(NoAnswer(why))
        self.close()

    def goes_wrong(self, *, at_a_stranger: bool) -> None:
        """It breaks; or something between speaks up that knows nothing of what the node did."""
        if at_a_stranger:
            self.hear(HttpAnswer(502, {b"content-type": b"text/html"}, b"<html>Bad Gateway</html>"))
        else:
            self.breaks("connection lost")

    def close(self) -> None:
        """The client closes it; what is asked on it gets no answer."""
        self._heard, self.is_lost, self.is_free = None, True, False
        self._net.forget(self)


class Connections(Watcher):
    """The way between all clients and all nodes."""

    def __init__(self, cluster: VirtualCluster, words: Words, weather: Weather, rng: Random) -> None:
        self.cluster, self.weather, self.rng = cluster, weather, rng
        self._words = words
        self._doors: dict[NodeId, Door] = {}
        self._connected: dict[NodeId, dict[Connection, None]] = {name: {} for name in cluster.nodes}
        self._cut: dict[tuple[str, str], None] = {}
        """(from, to): nothing passes."""
        self._clients: list[str] = []
        self.exchanges = 0

    def begin(self, clients: list[str]) -> None:
        """Connections between these and the nodes begin to fail."""
        self._clients = clients
        if clients and self.weather.cut_every_us_max is not None:
            self._cut_later()

    def heal(self) -> None:
        """Everybody reaches everybody from now on, and nothing breaks any more."""
        self.weather = Weather(broken_per_mille=0, late_per_mille=0, slow_body_per_mille=0, cut_every_us_max=None)
        self._cut.clear()

    # ------------------------------------------------------------------------------------- connecting

    def connect(self, client: str, at: Address, *, until_us: int, done: Callable[[Connection | NotSent], None]) -> None:
        """``done`` is called once: when it is made, or refused, or not made by then."""
        node = self.cluster.nodes.get(NodeId(at.host))
        if node is None:
            self._after(0, lambda: done(NotSent("no such host")))
            return

        def arrive() -> None:
            if self.cluster.now_us >= until_us:
                done(NotSent("not connected in time"))
            elif self._is_cut(client, node.id) or self._is_cut(node.id, client):
                resend_us = min(RESEND_US, until_us - self.cluster.now_us)
                self._after(resend_us, arrive)
            elif not node.is_up:
                self._after(self._delay_us(), lambda: done(NotSent("connection refused")))
            else:
                made = Connection(self, client, node)
                self._connected[node.id][made] = None
                self._after(self._delay_us(), lambda: done(made))

        self._after(self._delay_us(), arrive)

    def forget(self, connection: Connection) -> None:
        """Its client has closed it."""
        self._connected[connection.node.id].pop(connection, None)

    # --------------------------------------------------------------------------------- one exchange

    def carry(self, connection: Connection, request: bytes, behalf: Behalf | None) -> None:
        """The request travels; half of the connections that break do so before it is there."""
        self.exchanges += 1
        breaks, early = self._hits(self.weather.broken_per_mille), self.rng.randrange(2) == 0
        if breaks and early:
            self._after(self._delay_us(), self._going_wrong(connection))
            return

        def arrive() -> None:
            node = connection.node
            if self._is_cut(connection.client, node.id):
                if not connection.is_lost:
                    self._after(RESEND_US, arrive)
            elif not node.is_up or node.life != connection.life:
                self._travel_back(connection, lambda: connection.breaks("connection reset"))
            else:
                self._reach(node, lambda: self._take(connection, request, behalf, breaks=breaks))

        self._after(self._delay_us(), arrive)

    def _take(self, connection: Connection, request: bytes, behalf: Behalf | None, *, breaks: bool) -> None:
        """In the node's process: the head is judged, and the body when it is there."""
        node = connection.node

        def respond(encoded: bytes) -> None:
            if breaks:
                self._travel_back(connection, self._going_wrong(connection))
            elif not connection.is_lost:
                self._travel_back(connection, lambda: connection.hear(answer_in(encoded)))

        door = self._doors[node.id]
        rest = door.begin(request, behalf)
        if isinstance(rest, bytes):
            respond(rest)
            return
        finish = rest

        def body_is_there() -> None:
            finish(respond)
            if door.service.has_work:
                door.service.has_work = False
                self.cluster.poke(node.id)

        if not self._hits(self.weather.slow_body_per_mille):
            body_is_there()
            return

        def body_arrives() -> None:
            if node.is_up and node.life == connection.life:
                self._reach(node, body_is_there)

        self._after(self.rng.randrange(self.weather.slow_body_us_max), body_arrives)

    def _going_wrong(self, connection: Connection) -> Callable[[], None]:
        at_a_stranger = self._hits(self.weather.stranger_per_mille)
        return lambda: connection.goes_wrong(at_a_stranger=at_a_stranger)

    def _reach(self, node: VirtualNode, act: Callable[[], None]) -> None:
        """In the node's process, now or as soon as it goes on."""
        if node.paused:
            node.unheard.append(lambda: self._reach(node, act))
        else:
            act()

    def _travel_back(self, connection: Connection, act: Callable[[], None]) -> None:
        def arrive() -> None:
            if connection.is_lost:
                return
            if self._is_cut(connection.node.id, connection.client):
                self._after(RESEND_US, arrive)
            else:
                act()

        delay_us = self._delay_us()
        if self._hits(self.weather.late_per_mille):
            delay_us = self.rng.randrange(self.weather.late_us_max)
        self._after(delay_us, arrive)

    # --------------------------------------------------------------------------------- nodes that go

    def started(self, node: VirtualNode) -> None:
        """A new process has a new door."""
        self._doors[node.id] = Door(node, self._words)

    def crashed(self, node: VirtualNode) -> None:
        """The system resets its connections; a client that is cut off learns it only when it asks again."""
        broken = list(self._connected[node.id])
        self._connected[node.id].clear()
        for connection in broken:
            if not self._is_cut(node.id, connection.client):
                self._after(self._delay_us(), lambda lost=connection: lost.breaks("connection lost"))  # type: ignore[misc]

    # ------------------------------------------------------------------------------------- the way

    def _cut_later(self) -> None:
        assert self.weather.cut_every_us_max is not None
        self._after(self.rng.randrange(1_000, self.weather.cut_every_us_max), self._cut_somebody)

    def _cut_somebody(self) -> None:
        """One client and one node, or all nodes: both ways, or only one."""
        if self.weather.cut_every_us_max is None:
            return
        client = self.rng.choice(self._clients)
        nodes = list(self.cluster.nodes)
        nodes = nodes if self.rng.randrange(4) == 0 else [self.rng.choice(nodes)]
        ways = self.rng.choice((1, 2, 3))
        cut = [(client, str(node)) for node in nodes if ways & 1] + [(str(node), client) for node in nodes if ways & 2]
        self._cut.update(dict.fromkeys(cut))

        def heal() -> None:
            for way in cut:
                self._cut.pop(way, None)

        self._after(self.rng.randrange(5_000, CUT_US_MAX), heal)
        self._cut_later()

    def _is_cut(self, sender: str, receiver: str) -> bool:
        return bool(self._cut) and (sender, receiver) in self._cut

    def _delay_us(self) -> int:
        return self.rng.randrange(100, self.weather.delay_us_max)

    def _hits(self, per_mille: int) -> bool:
        return per_mille > 0 and self.rng.randrange(1000) < per_mille

    def _after(self, delay_us: int, act: Callable[[], None]) -> None:
        self.cluster.after(delay_us, act)
