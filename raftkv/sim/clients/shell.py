"""The shell of the Python client in virtual time: it carries out step by step what ``raftkv.client.course`` says.

Told: courses, and a way to the nodes. Tells: how each course ended. It is to them what ``client.asker``, ``pool`` and
``finder`` are in a running loop, and decides as little.

Its process can stand still, as a program does that is stopped or busy: nothing happens in it then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from raftkv.client import wishes
from raftkv.client.attempts import Call, Kind, Patience
from raftkv.client.course import (
    Course,
    Courses,
    Pause,
    Search,
    Send,
    Stage,
    UntilBegun,
    UntilLeader,
    UntilOpen,
    UntilRoom,
    fields_of,
)
from raftkv.client.wishes import Wish
from raftkv.errors import Rejected, RequestError
from raftkv.http.exchange import Heard, HttpAnswer, NoAnswer, NotSent, encode_request
from raftkv.sim.checks.invariants import Violated
from raftkv.sim.checks.words import Behalf, Redirects
from raftkv.sim.clients.connections import Connection, Connections
from raftkv.sim.clients.door import address_of
from raftkv.values import Address

CONNECT_US_MAX: Final = 1_000_000
_OPEN_STATUSES: Final = (500, 502, 504)

Ended = Callable[[Any, RequestError | None], None]


@dataclass(frozen=True, slots=True)
class Times:
    """How patient a client is."""

    silence_us: int = 500_000
    answer_us_max: int = 7_000_000
    timeout_us: int = 4_000_000
    """For one call."""
    numbers_max: int | None = None
    """Of one session in flight; None: as many as ships."""
    session_ttl_ms: int = 60_000


@dataclass(slots=True, eq=False)
class Going:
    """A course that is being carried out."""

    course: Course[Any]
    ended: Ended
    behalf: Callable[[Call], Behalf | None]
    """Asked when a request of it goes out."""
    answer: HttpAnswer | None = None
    """The newest that came."""
    doubts: int = 0
    """Attempts that may have changed something, and of whose end nothing was told."""
    heard: Callable[[HttpAnswer], None] = lambda answer: None
    """Told of every answer that comes."""
    redirects: Redirects = field(default_factory=Redirects)
    is_over: bool = False

    def close(self) -> None:
        """It goes on no more."""
        self.is_over = True
        self.course.close()


class _Wait:
    """A course that waits to be woken; who comes second is not heard."""

    __slots__ = ("_act", "_client", "is_over")

    def __init__(self, client: VirtualShell, act: Callable[[Any], None]) -> None:
        self.is_over = False
        self._client, self._act = client, act

    def wake(self, came: Any = None) -> None:
        """It goes on, but not before whoever wakes it has come to his end."""
        if not self.is_over:
            self.is_over = True
            self._client.after(0, lambda: self._act(came))


class VirtualShell:
    """Satisfies ``raftkv.client.course.Shell`` for one client."""

    def __init__(self, name: str, net: Connections, times: Times, rng: Random) -> None:
        self.name, self.net = name, net
        plan = net.cluster.plan
        names = [name for name in net.cluster.nodes if plan.members_change or name not in plan.spares]
        fewest = (len(names) + 1) // 2 if plan.segment_bytes else 1  # A minority may lose its data.
        endpoints = rng.sample(names, rng.randrange(fewest, len(names) + 1))
        if plan.members_change:
            endpoints = rng.sample(names, len(names))
        self.courses = Courses(
            self,
            [address_of(node) for node in endpoints],
            Random(rng.randrange(2**32)),
            patience=Patience(silence_us=times.silence_us, answer_us_max=times.answer_us_max),
            timeout_us=times.timeout_us,
            session_ttl_ms=times.session_ttl_ms,
            numbers_max=times.numbers_max,
        )
        self._silence_us = times.silence_us
        self._search = Search(Random(rng.randrange(2**32)))
        self._is_searching = False
        self._stands_still_until_us = 0
        self._idle: dict[Address, list[Connection]] = {}
        self._finding: dict[Address, Connection] = {}
        self._asking: dict[Address, None] = {}
        """Who is being asked who leads."""
        self._for_leader: dict[_Wait, None] = {}
        self._for_session: dict[_Wait, None] = {}
        self._opening: Going | None = None
        self._keeping: Going | None = None
        self._for_begun: _Wait | None = None

    def start(self) -> None:
        """The client is made."""
        self._keeping = self.go(self.courses.kept(), _never_ends)
        self.want_news(0)

    def close(self, timeout_us: int) -> None:
        """The client is closed, once its calls have ended: the session too, if that goes quickly."""
        self.courses.is_closing = True
        for going in (self._keeping, self._opening):
            if going is not None:
                going.close()
        self.go(self.courses.closing(timeout_us), self._closed)

    def _closed(self, _: Any, error: RequestError | None) -> None:
        assert error is None
        self.courses.is_closed = True
        for connection in (*self._finding.values(), *(one for idle in self._idle.values() for one in idle)):
            connection.close()

    def stand_still(self, duration_us: int) -> None:
        """Nothing happens in its process for so long."""
        self._stands_still_until_us = self.now_us() + duration_us

    # ------------------------------------------------------------------------------- steps, carried out

    def now_us(self) -> int:
        """The time, as the decisions are told it."""
        return self.net.cluster.now_us

    def after(self, delay_us: int, act: Callable[[], None]) -> None:
        """In this client's process, that much later or as soon as it goes on."""
        self.net.cluster.after(delay_us, lambda: self.happens(act))

    def happens(self, act: Callable[[], None]) -> None:
        """In this client's process: now, or as soon as it goes on."""
        still_us = self._stands_still_until_us - self.now_us()
        if still_us > 0:
            self.after(still_us, act)
        else:
            act()

    def go(self, course: Course[Any], ended: Ended, behalf: Callable[[Call], Behalf | None] | None = None) -> Going:
        """Carries it out."""
        going = Going(course, ended, behalf or _nobodys)
        self.go_on(going, None)
        return going

    def go_on(self, going: Going, came: Any) -> None:
        """This came of its newest step."""
        if going.is_over:
            return
        try:
            stage = going.course.send(came)
        except StopIteration as end:
            going.ended(end.value, None)
        except RequestError as error:
            going.ended(None, error)
        else:
            self._carry_out(going, stage)

    def _carry_out(self, going: Going, stage: Stage) -> None:
        match stage:
            case Send(call, wish, at):
                _Attempt(self, going, call, wish, at).begin()
            case UntilLeader(until_us):
                wait = self._wait(going, until_us, lambda: self._for_leader.pop(wait))
                self._for_leader[wait] = None
            case Pause(until_us):
                self._wait(going, until_us, lambda: None)
            case UntilRoom(until_us):
                wait = self._wait(going, until_us, lambda: self.courses.line.remove(wait.wake))
                self.courses.line.append(wait.wake)
                self.courses.let_in()
            case UntilOpen(until_us):
                wait = self._wait(going, until_us, lambda: self._for_session.pop(wait))
                self._for_session[wait] = None
                if self._opening is None:
                    self._opening = going = Going(self.courses.opened(), self._opened, _nobodys)
                    self.go_on(going, None)
            case UntilBegun(until_us):
                self._for_begun = self._wait(going, until_us, lambda: None, late=False)

    def _wait(self, going: Going, until_us: int, leave: Callable[[], object], *, late: Any = None) -> _Wait:
        def go_on(came: Any) -> None:
            leave()
            self.go_on(going, came)

        wait = _Wait(self, go_on)
        self.after(max(0, until_us - self.now_us()), lambda: wait.wake(late))
        return wait

    def _opened(self, _: Any, error: RequestError | None) -> None:
        self._opening = None
        for wait in self._for_session:
            wait.wake(error if isinstance(error, Rejected) else None)

    def session_has_begun(self) -> None:
        """It is kept alive from now on."""
        if self._for_begun is not None:
            self._for_begun.wake(came=True)

    # ------------------------------------------------------------------------------------- connections

    def take_idle(self, at: Address) -> Connection | None:
        """One that was in use before, at once; None: there is none."""
        idle = self._idle.setdefault(at, [])
        while idle:
            connection = idle.pop()
            if connection.is_free:
                return connection
        return None

    def give_back(self, connection: Connection, at: Address) -> None:
        """It is in use no more."""
        if connection.is_free:
            self._idle.setdefault(at, []).append(connection)

    def distrust_idle(self, at: Address) -> None:
        """An answer did not come: what lay idle meanwhile is not used again."""
        idle, self._idle[at] = self._idle.get(at, []), []
        for connection in idle:
            connection.close()

    # ------------------------------------------------------------------------------------- who leads

    def want_news(self, for_us: int) -> None:
        """Every node is asked who leads."""
        self._search.want(for_us, self.now_us())
        if not self._is_searching:
            self._is_searching = True
            self.after(self._search.begin(self.now_us()), self._ask_everybody)

    def leader_is_known(self) -> None:
        """Who waits for a leader goes on."""
        for wait in self._for_leader:
            wait.wake()

    def _ask_everybody(self) -> None:
        for at in self.courses.routing.everybody():
            if at not in self._asking:
                self._ask_one(at)
        pause_us = self._search.next(self.now_us())
        self._is_searching = pause_us is not None and not self.courses.is_closed
        if self._is_searching and pause_us is not None:
            self.after(pause_us, self._ask_everybody)

    def _ask_one(self, at: Address) -> None:
        self._asking[at] = None
        connection = self._finding.get(at)
        if connection is not None and connection.is_free:
            self._question(at, connection)
            return

        def connected(made: Connection | NotSent) -> None:
            if isinstance(made, NotSent):
                self._view(at, made)
            else:
                self._finding[at] = made
                self._question(at, made)

        until_us = self.now_us() + CONNECT_US_MAX
        self.net.connect(self.name, at, until_us=until_us, done=lambda made: self.happens(lambda: connected(made)))

    def _question(self, at: Address, connection: Connection) -> None:
        heard = _Once(lambda view: self._view(at, view))
        wish = wishes.cluster(at)
        request = encode_request(wish.method, wish.target, authority=_authority(at), fields=b"", body=b"")
        if connection.is_lost:
            self._view(at, NotSent("the connection was lost as soon as it was made"))
            return
        connection.exchange(request, None, lambda view: self.happens(lambda: heard.tell(view)))

        def quiet() -> None:
            if not heard.is_told:
                connection.close()
                heard.tell(NoAnswer("no answer in time"))

        self.after(self._silence_us, quiet)

    def _view(self, at: Address, heard: Heard) -> None:
        del self._asking[at]
        view = self.courses.hear_view(at, heard)
        if view is None:
            return
        self.courses.routing.hear(view, self.now_us())
        if self.courses.routing.leader is not None:
            self.leader_is_known()


class _Once:
    """Hears one thing."""

    __slots__ = ("_hear", "is_told")

    def __init__(self, hear: Callable[[Heard], None]) -> None:
        self.is_told = False
        self._hear = hear

    def tell(self, heard: Heard) -> None:
        """The first is heard."""
        if not self.is_told:
            self.is_told = True
            self._hear(heard)


class _Attempt:
    """One attempt of a call: a connection, a request on it, looks until an answer comes or none will."""

    __slots__ = ("_at", "_call", "_client", "_connection", "_going", "_once", "_sent_us", "_wish")

    def __init__(self, client: VirtualShell, going: Going, call: Call, wish: Wish[Any], at: Address) -> None:
        self._client, self._going, self._call, self._wish, self._at = client, going, call, wish, at
        self._connection: Connection | None = None
        self._once = _Once(self._came)
        self._sent_us = 0

    def begin(self) -> None:
        """On a connection that there is, or on a new one."""
        client, deadline_us = self._client, self._call.deadline_us
        self._going.redirects.sent(self._at.host, client.now_us())
        connection = client.take_idle(self._at)
        if connection is not None:
            self._send(connection)
            return
        given_up_us = client.now_us() + CONNECT_US_MAX

        def connected(made: Connection | NotSent) -> None:
            if isinstance(made, Connection):
                self._send(made)
            elif client.now_us() >= deadline_us:
                self._once.tell(NotSent(made.why, unreachable=given_up_us <= deadline_us))
            else:
                self._once.tell(made)

        until_us = min(given_up_us, deadline_us)
        client.net.connect(
            client.name, self._at, until_us=until_us, done=lambda made: client.happens(lambda: connected(made))
        )

    def _send(self, connection: Connection) -> None:
        client, call, wish, going = self._client, self._call, self._wish, self._going
        if connection.is_lost:
            self._once.tell(NotSent("the connection was lost as soon as it was made"))
            return
        if client.now_us() >= call.deadline_us:
            client.give_back(connection, self._at)
            self._once.tell(NotSent("the time was over before it could be sent", unreachable=False))
            return
        self._connection, self._sent_us = connection, client.now_us()
        fields = fields_of(call, wish)
        request = encode_request(
            wish.method, wish.target, authority=_authority(self._at), fields=fields, body=wish.body
        )
        connection.exchange(request, going.behalf(call), lambda heard: client.happens(lambda: self._once.tell(heard)))
        if call.kind is Kind.ONCE and going.doubts:
            raise Violated("what is not repeatable is not repeated", f"{wish.method!r} {wish.target!r} {wish.body!r}")
        if call.kind is not Kind.READ:
            going.doubts += 1
        client.after(client.courses.look_after_us(call), self._look)

    def _look(self) -> None:
        if self._once.is_told:
            return
        more_us = self._client.courses.look(self._call, self._at, quiet_since_us=self._sent_us)
        if more_us is not None:
            self._client.after(more_us, self._look)
            return
        assert self._connection is not None
        self._connection.close()
        self._once.tell(NoAnswer("no answer in time"))

    def _came(self, heard: Heard) -> None:
        client, going = self._client, self._going
        if isinstance(heard, HttpAnswer):
            going.answer = heard
            going.heard(heard)
            going.redirects.came(heard, client.now_us(), at=self._at.host, target=self._wish.target)
            if self._call.kind is not Kind.READ and heard.status not in _OPEN_STATUSES:
                going.doubts -= 1
        elif isinstance(heard, NoAnswer):
            client.distrust_idle(self._at)
        if self._connection is not None:
            client.give_back(self._connection, self._at)
        client.go_on(going, heard)


def _authority(at: Address) -> bytes:
    return b"%b:%d" % (at.host.encode(), at.port)


def _nobodys(_: Call) -> None:
    """On nobody's behalf but the client's own."""


def _never_ends(_: Any, error: RequestError | None) -> None:
    raise AssertionError(f"the session is not kept any more: {error!r}")
