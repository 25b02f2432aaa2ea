"""A connection that many share: whose answer is whose, who is in doubt, who is not; on both event loops."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.client import ClientSettings, OutcomeUnknown, wishes
from raftkv.client.attempts import Lane
from raftkv.client.wishes import SHARED_VALUE_BYTES_MAX, Condition, Freshness, Wish
from raftkv.errors import ConfigError
from raftkv.http.answer_reader import AnswerReader
from raftkv.http.exchange import Heard, HttpAnswer, NoAnswer, NotSent
from raftkv.http.shared import OWED_MAX, SLOW_S, Asked, SharedProtocol
from raftkv.http.watch import TICK_S
from raftkv.problems import Code
from tests.client.fake import LARGE, PATIENCE_S, Gate, client, faked, refuse, reset, until
from tests.client.fake import Asked as Request

ANSWER_BYTES_MAX = 10_000


class Wire(asyncio.Transport):
    """What was written, joined as it was."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.wrote: list[bytes] = []
        self.unsent_bytes = 0
        self.protocol: SharedProtocol
        self._loop, self._is_closing = loop, False

    def write(self, data: Any) -> None:
        self.wrote.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def is_closing(self) -> bool:
        return self._is_closing

    def abort(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._loop.call_soon(self.protocol.connection_lost, None)


class Shared:
    """A connection, whoever owns it, and the other end."""

    def __init__(self, *, silence_s: float = PATIENCE_S, kept: bool = True) -> None:
        self.loop = asyncio.get_running_loop()
        self.wire, self.lost = Wire(self.loop), 0
        self.looked: list[str] = []
        self.more_s: float | None = None
        """What a look comes to."""
        self.protocol = self.wire.protocol = SharedProtocol(
            self.loop,
            answer_bytes_max=ANSWER_BYTES_MAX,
            silence_s=silence_s,
            look=self._look,
            on_room=lambda: None,
            on_lost=self._lost,
        )
        self.protocol.connection_made(self.wire)
        self.protocol._is_kept = kept

    def _look(self, context: Any, quiet_since_s: float) -> float | None:
        self.looked.append(context)
        return self.more_s

    def _lost(self, connection: SharedProtocol) -> None:
        self.lost += 1

    def ask(self, name: str, *, for_s: float = PATIENCE_S) -> asyncio.Future[Heard]:
        assert self.protocol.has_room
        now_s = self.loop.time()
        answered: asyncio.Future[Heard] = self.loop.create_future()
        self.protocol.ask(Asked(name.encode(), name, now_s + for_s, answered), now_s)
        return answered

    async def asked(self, names: str) -> list[asyncio.Future[Heard]]:
        """One request for each letter, all written."""
        asked = [self.ask(name) for name in names]
        await turns()
        return asked

    def say(self, *bodies: str, fields: bytes = b"") -> None:
        self.protocol.data_received(b"".join(said(body, fields) for body in bodies))


def said(body: str, fields: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(body), body.encode())


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def time_passes(for_s: float) -> None:
    """What is shown is that nothing happens meanwhile, or that something is late."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await until(lambda: loop.time() >= began_s + for_s)


def told(answered: list[asyncio.Future[Heard]]) -> list[str | type]:
    """The body of each answer, or what came instead; a dash where nothing did."""
    return ["-" if not one.done() else "x" if one.cancelled() else body_of(one.result()) for one in answered]


def body_of(heard: Heard) -> str | type:
    return heard.body.decode() if isinstance(heard, HttpAnswer) else type(heard)


# ------------------------------------------------------------------------------------------ whose answer


async def test_what_is_asked_in_one_turn_is_written_at_once_and_answered_in_order():
    shared = Shared()
    asked = [shared.ask(name) for name in "abc"]
    assert shared.wire.wrote == []
    await turns()
    asked += await shared.asked("de")
    assert shared.wire.wrote == [b"abc", b"de"]
    shared.say("1", "2")
    assert told(asked) == ["1", "2", "-", "-", "-"]
    shared.say("3", "4", "5")
    assert told(asked) == ["1", "2", "3", "4", "5"]
    assert shared.protocol.is_unused


async def test_a_call_given_up_gives_up_its_answer_and_not_its_place():
    shared = Shared()
    asked = await shared.asked("abc")
    asked[1].cancel()
    asked.append(shared.ask("d"))
    shared.say("1", "2", "3")
    await turns()
    shared.say("4")
    assert told(asked) == ["1", "x", "3", "4"]
    assert shared.protocol.is_open


async def test_a_call_given_up_before_it_was_written_is_not_written():
    shared = Shared()
    asked = [shared.ask(name) for name in "abc"]
    asked[1].cancel()
    await turns()
    assert shared.wire.wrote == [b"ac"]
    shared.say("1", "3")
    assert told(asked) == ["1", "x", "3"]


async def test_who_waits_for_room_hears_of_that_which_is_given_up():
    """Nothing was written for it, so no answer will come to make room."""
    shared, rooms = Shared(), 0

    def has_room() -> None:
        nonlocal rooms
        rooms += 1

    shared.protocol._on_room = has_room
    shared.ask("a").cancel()
    await turns()
    assert (shared.wire.wrote, rooms) == ([], 1)


async def test_a_call_whose_time_is_over_ends_alone():
    shared = Shared()
    asked = [shared.ask("a"), shared.ask("b", for_s=0.02), shared.ask("c")]
    await asyncio.wait([asked[1]], timeout=PATIENCE_S)
    assert told(asked) == ["-", NoAnswer, "-"]
    shared.say("1", "2", "3")
    assert told(asked) == ["1", NoAnswer, "3"]
    assert shared.protocol.is_open


async def test_what_was_asked_of_a_server_that_read_too_slowly_is_written_as_soon_as_it_reads():
    shared = Shared()
    shared.protocol.pause_writing()
    await shared.asked("ab")
    assert shared.wire.wrote == []
    shared.protocol.resume_writing()
    assert shared.wire.wrote == [b"ab"]


async def test_silence_begins_when_something_is_owed_again():
    """Were it counted from the last answer, whoever asks after a pause would be given up at the first look."""
    shared = Shared()
    shared.protocol._heard_at_s -= 1000
    await shared.asked("a")
    assert shared.protocol.quiet_s(shared.loop.time()) < PATIENCE_S


async def test_what_would_be_given_up_as_soon_as_it_is_written_is_not_written():
    """Timers are no finer than a tick. It could be executed, and whoever asked would be told that nobody knows."""
    shared = Shared()
    late = shared.ask("a", for_s=TICK_S / 2)
    await turns()
    assert (told([late]), shared.wire.wrote) == ([NotSent], [])


async def test_what_cannot_be_written_in_time_was_not_sent():
    shared = Shared()
    late = shared.ask("a", for_s=-1.0)
    await turns()
    shared.protocol.pause_writing()
    never = shared.ask("b", for_s=0.02)
    await asyncio.wait([never], timeout=PATIENCE_S)
    assert told([late, never]) == [NotSent, NotSent]
    shared.protocol.resume_writing()
    assert shared.wire.wrote == []


@pytest.mark.parametrize("ends", ["lost", "close", "nonsense", "endless"])
async def test_what_was_written_is_in_doubt_when_the_connection_ends_and_what_was_not_is_not(ends):
    shared = Shared()
    asked = await shared.asked("abc")
    shared.protocol.pause_writing()
    asked += await shared.asked("de")
    shared.say("1")
    match ends:
        case "lost":
            shared.protocol.connection_lost(ConnectionResetError())
        case "close":
            shared.protocol.close("why")
        case "nonsense":
            shared.protocol.data_received(b"\x00\r\n\r\n")
        case "endless":
            shared.protocol.data_received(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000)
    await turns()
    assert told(asked) == ["1", NoAnswer, NoAnswer, NotSent, NotSent]
    assert all(not one.result().unreachable for one in asked[3:])  # type: ignore[union-attr]
    assert (shared.lost, shared.protocol.left_doubts, shared.protocol.has_room) == (1, True, False)


@pytest.mark.parametrize("is_paused", [False, True])
async def test_an_answer_that_is_the_connection_s_last_is_nobody_else_s_end_but_theirs_behind_it(is_paused):
    shared = Shared()
    asked = await shared.asked("abc")
    shared.say("1")
    if is_paused:
        shared.protocol.pause_writing()
    asked.append(shared.ask("d"))
    shared.say("2", "3", fields=b"Connection: close\r\n")
    assert told(asked) == ["1", "2", "-", "-"]
    await turns()
    assert told(asked) == ["1", "2", NoAnswer, NotSent]
    assert shared.wire.wrote == [b"abc"]


@pytest.mark.parametrize("extra", [said("2"), b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n", b"H", b"x"])
@pytest.mark.parametrize("joined", [True, False])
async def test_an_answer_that_nobody_asked_for_becomes_nobody_s(extra, joined):
    """A smuggled answer, or the head of one that takes the next answer for its body."""
    shared = Shared()
    asked = await shared.asked("a")
    for data in [said("1") + extra] if joined else [said("1"), extra]:
        shared.protocol.data_received(data)
    await turns()
    assert told(asked) == ["1"]
    assert (shared.lost, shared.protocol.has_room) == (1, False)


async def test_an_answer_before_its_request_had_left_is_the_last():
    """What follows it on the wire is the request's rest, which the server may take for another request."""
    shared = Shared()
    shared.wire.unsent_bytes = 2
    asked = await shared.asked("abc")
    shared.say("1", "2", "3")
    await turns()
    assert told(asked) == ["1", "2", NoAnswer]


async def test_interim_answers_take_nobody_s_place():
    shared = Shared()
    asked = await shared.asked("ab")
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    shared.protocol.data_received(interim + said("1") + interim + said("2"))
    assert told(asked) == ["1", "2"]


async def test_one_connection_has_so_much_room_and_a_single_place_until_it_was_kept():
    shared = Shared(kept=False)
    asked = await shared.asked("a")
    assert not shared.protocol.has_room
    shared.say("1")
    asked += [shared.ask("b") for _ in range(OWED_MAX)]
    assert not shared.protocol.has_room
    await turns()
    asked[1].cancel()
    assert not shared.protocol.has_room, "the server still owes it"
    shared.say("2")
    assert shared.protocol.has_room


# -------------------------------------------------------------------------------------------------- silence


async def test_the_oldest_that_waits_is_looked_after_and_decides_for_all():
    shared = Shared(silence_s=0.02)
    asked = await shared.asked("abc")
    asked[0].cancel()
    shared.more_s = 0.01
    await until(lambda: len(shared.looked) == 3)
    assert told(asked) == ["x", "-", "-"]
    shared.more_s = None
    await asyncio.wait(asked[1:], timeout=PATIENCE_S)
    assert told(asked) == ["x", NoAnswer, NoAnswer]
    assert shared.looked == ["b"] * 4


async def test_a_silent_connection_on_which_nobody_waits_any_more_ends():
    shared = Shared(silence_s=0.02)
    for one in await shared.asked("ab"):
        one.cancel()
    await until(lambda: shared.lost == 1)
    assert shared.looked == []


async def test_where_something_comes_or_nothing_is_owed_is_no_silence():
    shared = Shared(silence_s=0.5)
    asked = await shared.asked("ab")
    drops, began_s = said("1") + said("2"), shared.loop.time()
    for at in range(0, len(drops), 5):
        await time_passes(0.04)
        shared.protocol.data_received(drops[at : at + 5])
    assert shared.loop.time() - began_s > 0.6
    await time_passes(0.7)
    assert (told(asked), shared.looked, shared.lost) == (["1", "2"], [], 0)
    asked = await shared.asked("c")
    await time_passes(0.02)
    assert shared.looked == [], "what was quiet and owed nothing is not silent yet"


# -------------------------------------------------------------------------------------- answers in pieces

ANSWERS = [
    said("one", b'ETag: "7"\r\n'),
    b"HTTP/1.1 100 Continue\r\n\r\n" + said(""),
    b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nRaftkv-Node: n1\r\n\r\n",
    said("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"),
]
HEARD = [
    HttpAnswer(200, {b"etag": b'"7"', b"content-length": b"3"}, b"one"),
    HttpAnswer(200, {b"content-length": b"0"}, b""),
    HttpAnswer(404, {b"transfer-encoding": b"chunked"}, b"abc"),
    HttpAnswer(204, {b"raftkv-node": b"n1"}, b""),
    HttpAnswer(200, {b"content-length": b"39"}, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"),
]


class Hears:
    """Satisfies ``answer_reader.Owner``."""

    def __init__(self) -> None:
        self.heard: list[HttpAnswer] = []
        self.why = ""

    def on_answer_begun(self) -> None:
        return

    def on_answer(self, answer: HttpAnswer, *, is_last: bool) -> None:
        assert not is_last
        self.heard.append(answer)

    def close(self, why: str) -> None:
        self.why = why


def heard_in(pieces: list[bytes]) -> list[HttpAnswer]:
    owner = Hears()
    reader = AnswerReader(owner, answer_bytes_max=ANSWER_BYTES_MAX)
    for piece in pieces:
        reader.feed(piece)
    assert owner.why == ""
    return owner.heard


def test_answers_in_two_pieces_are_the_same_wherever_they_are_cut():
    whole = b"".join(ANSWERS)
    for cut in range(len(whole) + 1):
        assert heard_in([whole[:cut], whole[cut:]]) == HEARD


@given(st.lists(st.integers(0, len(ANSWERS) - 1), max_size=8), st.lists(st.integers(0, 800)))
def test_answers_in_any_pieces_are_the_same(which, cuts):
    whole = b"".join(ANSWERS[one] for one in which)
    at = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    assert heard_in([whole[i:j] for i, j in pairwise(at)]) == [HEARD[one] for one in which]


def test_however_many_answers_come_none_of_them_is_large():
    """A kept connection lives for days: what bounds one answer is counted anew for each."""
    one = b"HTTP/1.1 200 OK\r\nX-Padding: %b\r\nContent-Length: 1000\r\n\r\n%b" % (b"x" * 500, b"y" * 1000)
    assert len(heard_in([one] * 200)) == 200


# -------------------------------------------------------------------------------------- the whole client


async def test_many_calls_share_few_connections_and_each_has_its_own_answer():
    async with faked() as cluster:
        node = cluster.nodes[0]

        async def echo(asked: Request) -> bytes:
            if asked.method == "PUT":
                return await cluster.execute(asked)
            return (await cluster.execute(asked)).replace(b"value", asked.key[-5:].encode())

        node.always = echo
        async with client(cluster.urls, silence_s=PATIENCE_S, timeout_s=PATIENCE_S) as c:
            puts = await asyncio.gather(*(c.put(f"k{number % 50}", "v") for number in range(200)))
            items = await asyncio.gather(*(c.get(f"{number:05}") for number in range(200)))
            assert [item and item.value for item in items] == [b"%05d" % number for number in range(200)]
            assert sorted(done.revision for done in puts) == list(range(2, 202))
            assert (c.figures.retries, cluster.executed.total()) == (0, 200)
            assert node.connections_most <= 2 * 4 + 2, "four of each kind; who leads; the session"


async def test_a_burst_after_a_pause_is_written_at_once():
    """That nothing came while nothing was asked makes a connection neither slow nor silent."""
    async with faked(1) as cluster:
        node = cluster.nodes[0]
        async with client(cluster.urls) as c:
            await c.get("k")
            await time_passes(2 * SLOW_S)
            await asyncio.gather(*(c.get("k") for _ in range(OWED_MAX)))
            assert node.connections_most == 2, "one for the question who leads"


async def test_many_in_flight_when_the_connection_is_lost_are_executed_once():
    """faults 46, 50: some were executed, and their answers lost."""
    async with faked() as cluster:
        node = cluster.nodes[0]
        async with client(cluster.urls) as c:
            await c.put("k", "v")
            node.instead["PUT"].extend([cluster.execute] * 10 + [reset])
            await asyncio.gather(*(c.put(f"k{number}", "v") for number in range(30)))
            assert c.figures.duplicates > 0
        assert set(cluster.executed.values()) == {1}
        assert [asked.number for asked in node.wrote()[:31]] == list(range(1, 32))


async def test_nothing_is_shared_where_the_program_says_so():
    async with faked() as cluster:
        node = cluster.nodes[0]
        node.always = gate = Gate()
        async with client(cluster.urls, shared_connections_per_node_max=0, connections_per_node_max=8) as c:
            puts = [asyncio.create_task(c.put("k", "v")) for _ in range(20)]
            await until(lambda: gate.held == 8)
            assert len({asked.writer for asked in node.wrote()}) == 8
            gate.opened.set()
            await asyncio.gather(*puts)


@pytest.mark.parametrize("wrong", [{"shared_connections_per_node_max": -1}, {"connections_per_node_max": 0}])
def test_connections_without_number_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ClientSettings(**wrong)


async def test_a_refusal_is_one_call_s_only():
    async with faked() as cluster:
        node = cluster.nodes[0]
        async with client(cluster.urls) as c:
            await c.put("k", "v")
            node.instead["PUT"].extend([cluster.execute, refuse(Code.OVERLOADED, retry_after_ms=5), cluster.execute])
            await asyncio.gather(*(c.put("k", "v") for _ in range(3)))
            assert (c.figures.retries, cluster.executed["k"], node.connections_most) == (1, 4, 3)


async def test_who_comes_later_is_not_held_up_by_a_slow_answer():
    async with faked() as cluster:
        node = cluster.nodes[0]
        async with client(cluster.urls, silence_s=1.0) as c:
            await c.put("k", "v")
            node.instead["PUT"].append(gate := Gate())
            slow = [asyncio.create_task(c.put("slow", "v")) for _ in range(2)]
            await until(lambda: gate.held == 1)
            await time_passes(2 * SLOW_S)
            await asyncio.gather(*(c.put("k", "v", timeout_s=0.5) for _ in range(40)))
            assert not any(one.done() for one in slow)
            assert await c.get("k", timeout_s=0.5) is not None
            gate.opened.set()
            await asyncio.gather(*slow)
            assert c.figures.retries == 0


async def test_where_no_other_connection_can_be_had_calls_wait_behind_a_slow_answer():
    """A node that takes no more connections still answers on those that it has, and still leads."""
    async with faked(1) as cluster:
        node = cluster.nodes[0]
        async with client(cluster.urls, silence_s=1.0) as c:
            await c.put("k", "v")
            node.instead["PUT"].append(gate := Gate())
            slow = asyncio.create_task(c.put("slow", "v"))
            await until(lambda: gate.held == 1)
            await time_passes(2 * SLOW_S)
            assert node._server is not None
            node._server.close()
            puts = [asyncio.create_task(c.put("k", "v")) for _ in range(5)]
            await until(lambda: len(node.wrote()) == 7)
            gate.opened.set()
            await asyncio.gather(slow, *puts)
            assert c.figures.retries == 0


async def test_reads_of_one_kind_do_not_wait_for_those_of_another():
    """A stale read is answered while there is no leader, a linearizable one while the disks stand still."""
    async with faked(1) as cluster:
        node = cluster.nodes[0]
        async with client(cluster.urls, silence_s=1.0) as c:
            await c.put("k", "v")
            for consistency in ("linearizable", "follower"):
                await c.get("k", consistency=consistency)
            node.instead["PUT"].append(gate := Gate())
            node.instead["GET"].extend([gate, gate])
            waiting = [
                asyncio.ensure_future(one) for one in (c.put("k", "v"), c.get("k"), c.get("k", consistency="follower"))
            ]
            await until(lambda: gate.held == 3)
            assert await c.get("k", consistency="stale", timeout_s=0.5) is not None
            gate.opened.set()
            await asyncio.gather(*waiting)


async def test_closing_while_many_are_in_flight_tells_the_truth_and_leaves_nothing():
    async with faked() as cluster:
        node = cluster.nodes[0]
        patience = dict.fromkeys(("silence_s", "answer_timeout_s", "timeout_s"), PATIENCE_S)
        c = client(cluster.urls, close_timeout_s=0.2, **patience)
        await c.put("k", "v")
        node.always = gate = Gate()
        calls = [asyncio.ensure_future(c.put(f"k{number}", LARGE if number % 9 else "v")) for number in range(300)]
        await until(lambda: gate.held == 34 + 32)  # The small ones, and of the large as many as there are connections.
        await c.close()
        assert all(one.done() for one in calls)
        told = {type(one.exception()).__name__ for one in calls}
        assert told == {OutcomeUnknown.__name__, "Unreachable"}
        unknown = sum(isinstance(one.exception(), OutcomeUnknown) for one in calls)
        assert unknown == len({asked.number for asked in node.wrote()}) - 1, "whatever arrived, and nothing else"
        gate.opened.set()
        await until(lambda: not any(one.connections_count for one in cluster.nodes))
        assert len(asyncio.all_tasks()) == 1


async def test_a_node_that_refuses_connections_is_told_of_to_all_that_wait_at_once():
    async with faked() as cluster:
        async with client(cluster.urls) as c:
            await c.put("k", "v")
            dead = cluster.nodes[0]
            cluster.lead(None)
            await dead.die()
            puts = [asyncio.ensure_future(c.put("k", "v")) for _ in range(100)]
            await until(lambda: c.figures.failures.get("not sent", 0) + c.figures.failures.get("no answer", 0) >= 100)
            cluster.lead(cluster.nodes[1])
            await asyncio.gather(*puts)
        assert cluster.executed["k"] == 101


def test_only_what_waits_for_the_same_thing_shares() -> None:
    none = Condition()
    table: list[tuple[Wish[Any], Lane | None]] = [
        (wishes.put(b"k", b"v", none), Lane.WRITES),
        (wishes.put(b"k", b"v", Condition(absent=True)), Lane.WRITES),
        (wishes.put(b"k", b"v" * SHARED_VALUE_BYTES_MAX, none), Lane.WRITES),
        (wishes.put(b"k", b"v" * (SHARED_VALUE_BYTES_MAX + 1), none), None),
        (wishes.put(b".", b"v", none), None),
        (wishes.delete(b"k", none), Lane.WRITES),
        (wishes.delete(b"..", none), None),
        (wishes.delete_range({"prefix": b"k"}, limit=1, all_keys=False), None),
        (wishes.get(b"k", Freshness()), Lane.ROUNDS),
        (wishes.get(b"k", Freshness("lease")), Lane.ROUNDS),
        (wishes.get(b"k", Freshness("follower")), Lane.FOLLOWING),
        (wishes.get(b"k", Freshness("stale", min_index=7)), Lane.STALE),
        (wishes.get(b"k", Freshness("stale", max_staleness_ms=7)), None),
        (wishes.get(b".", Freshness()), None),
        (wishes.range_page({"prefix": b"k"}, Freshness()), None),
        (wishes.txn((), (), ()), None),
        (wishes.open_session(1000), None),
        (wishes.keep_alive("0" * 32), None),
    ]
    assert [wish.lane for wish, _ in table] == [lane for _, lane in table]
