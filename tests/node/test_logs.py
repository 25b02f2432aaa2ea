"""Log lines: how one looks, that it stays one, that its event is of the list, and that nobody's data is in it."""

from __future__ import annotations

import ast
import asyncio
import gc
import json
import logging
import re
import signal
import warnings
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import aiohttp
import pytest

from raftkv import KeyValueMachine, Node
from raftkv.api.plain import PlainKeys
from raftkv.api.routes import Api
from raftkv.api.stream import Stream
from raftkv.errors import CommandError, DiskFailed
from raftkv.http.plain import Plain
from raftkv.node import logs
from raftkv.node import main as node_main
from raftkv.node.logs import CORE_EVENTS, EVENTS, event, formatter, in_words, on_unforeseen, way_of
from raftkv.node.running import _LEVELS
from tests.api.streams import put
from tests.live.cluster import LiveCluster, eventually
from tests.live.wire import Connections, Trouble
from tests.node.nodes import PATIENCE_S, ready
from tests.node.test_doors import apart, ask, for_clients, for_peers, leader_of_stores

ROOT: Final = Path(__file__).resolve().parent.parent.parent
FORMATS: Final = ("text", "json")

# ------------------------------------------------------------------------------------- how a line looks


def record(message: str = "words", *words: object, name: str = "raftkv.node", **more: Any) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.INFO, "", 0, message, words, None)
    made.created = 1769860800.123
    made.__dict__ |= more
    return made


def line(log_format: str, made: logging.LogRecord, node: str = "n1") -> str:
    return formatter(node, log_format).format(made)


def raised(error: BaseException, *, of: BaseException | None = None) -> BaseException:
    """With a traceback, as it is caught."""
    try:
        if of is None:
            raise error
        try:
            raise of
        except type(of) as cause:
            raise error from cause
    except type(error) as caught:
        return caught


HEAD: Final = {"time": "2026-01-31T12:00:00.123Z", "level": "INFO", "node": "n1"}
LINES: Final[dict[str, tuple[logging.LogRecord, str, dict[str, Any]]]] = {
    "an event of ours": (
        record("n1: leader in term 4", **event("became_leader", term=4)),
        'event=became_leader term=4 msg="n1: leader in term 4"',
        {"event": "became_leader", "term": 4, "msg": "n1: leader in term 4"},
    ),
    "its words are put together when it is written": (
        record(
            "%s is reached at %s now", "n2", "http://[::1]:1", **event("peer_moved", peer="n2", url="http://[::1]:1")
        ),
        'event=peer_moved peer=n2 url=http://[::1]:1 msg="n2 is reached at http://[::1]:1 now"',
        {"event": "peer_moved", "peer": "n2", "url": "http://[::1]:1", "msg": "n2 is reached at http://[::1]:1 now"},
    ),
    "a field that is no plain word is quoted": (
        record("x", **event("peer_moved", peer="", url='a b="c"')),
        r'event=peer_moved peer="" url="a b=\"c\"" msg="x"',
        {"event": "peer_moved", "peer": "", "url": 'a b="c"', "msg": "x"},
    ),
    "a field without a value": (
        record("x", **event("halted", term=None)),
        'event=halted term="" msg="x"',
        {"event": "halted", "term": None, "msg": "x"},
    ),
    "letters of every language stand as they are": (
        record("grüße, 你好"),
        'event=node msg="grüße, 你好"',
        {"event": "node", "msg": "grüße, 你好"},
    ),
    "a field takes no place of those that every line has": (
        record("x", event="halted", fields=dict.fromkeys([*HEAD, "event", "msg", "exception"], "forged") | {"term": 1}),
        'event=halted term=1 msg="x"',
        {"event": "halted", "term": 1, "msg": "x"},
    ),
    "another library bears its own name, whatever it says": (
        record("x", name="aiohttp.server", event="halted", fields="not ours"),
        'event=aiohttp.server msg="x"',
        {"event": "aiohttp.server", "msg": "x"},
    ),
    "its name alone makes nobody one of us": (
        record("x", name="raftkvd", event="halted", fields={"term": 1}),
        'event=raftkvd msg="x"',
        {"event": "raftkvd", "msg": "x"},
    ),
    "an exception is asked for where there is none": (
        record("x", exc_info=(None, None, None)),
        'event=node msg="x"',
        {"event": "node", "msg": "x"},
    ),
}


@pytest.mark.parametrize("case", LINES)
def test_a_line_of_text(case: str) -> None:
    made, text, _ = LINES[case]
    assert line("text", made) == f"2026-01-31T12:00:00.123Z INFO node=n1 {text}"


@pytest.mark.parametrize("case", LINES)
def test_a_line_of_json(case: str) -> None:
    made, _, fields = LINES[case]
    assert list(json.loads(line("json", made)).items()) == [*HEAD.items(), *fields.items()]


UGLY: Final = {
    "newlines": "a\nb\r\nc",
    "other ends of lines": "a\v\f\x1c\x1d\x1e\x85\u2028\u2029b",
    "a terminal's orders": "\x1b[2J\x1b]0;title\x07",
    "the same in one byte": "\x9b2J\x9d0;title\x9c",
    "all controls": "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)])),
    "a rubout": "a\x7fb",
    "half a character": "a\ud800b\udfff",
    "text that turns round": "a\u202eb\u2066c\u200f\u061cd",
    "what nobody sees": "a\u200bb\ufeffc\U000e0041d\u00ad",
    "what is nothing yet": "\ufffe\U0010ffff",
    "quotes": '" event=halted msg="',
    "a backslash": "\\u000a \\",
}


@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize("case", UGLY)
def test_a_line_stays_one_and_shows_what_it_says(case: str, log_format: str) -> None:
    ugly = UGLY[case]
    made = record("%s", ugly, event="peer_moved", fields={"peer": ugly, "url": ugly})
    made.exc_info = None
    made.levelname = ugly
    said = line(log_format, made, node=ugly)
    assert said.isprintable() and len(said.splitlines()) == 1
    said.encode("ascii" if log_format == "json" else "utf-8")
    if log_format == "json":
        read = json.loads(said)
    else:
        read = {name: json.loads(word) for name, word in re.findall(r'(\w+)=("(?:[^"\\]|\\.)*")', said)}
        assert set(read) == {"node", "peer", "url", "msg"}, "nothing in it looks like a field of its own"
    assert [read[name] for name in ("node", "peer", "url", "msg")] == [ugly] * 4, "nothing is lost by it"


@pytest.mark.parametrize("log_format", FORMATS)
def test_a_traceback_is_in_the_line_and_has_no_words_of_others(log_format: str) -> None:
    error = raised(RuntimeError("RSECRET\n"), of=KeyError(b"KSECRET"))
    made = record("a request failed", **event("request_failed"))
    made.exc_info = (type(error), error, error.__traceback__)
    said = line(log_format, made)
    assert said.isprintable() and "SECRET" not in said
    told = json.loads(said)["exception"] if log_format == "json" else json.loads(said.partition(" exception=")[2])
    first, second = told.split("\nafter this:\n")
    assert first.endswith("\nKeyError") and second.endswith("\nRuntimeError")
    assert "in raised" in first and "in raised" in second


def without_end(depth: int) -> None:
    without_end(depth + 1) if depth % 2 else without_end_either(depth + 1)


def without_end_either(depth: int) -> None:
    without_end(depth + 1)


def test_a_traceback_is_no_longer_than_somebody_reads() -> None:
    with pytest.raises(RecursionError) as caught:
        without_end(0)
    assert 1000 < len(way_of(caught.value)) < 10_000


def test_causes_that_turn_in_a_circle_end() -> None:
    first, second = raised(ValueError()), raised(KeyError())
    first.__cause__, second.__cause__ = second, first
    assert way_of(first).count("after this:") == 1


DISK: Final = DiskFailed(path="log", operation="write", cause=OSError(5, "Input/output error"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DISK, "write of log failed: Input/output error"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (AssertionError("entry 4 appended at 5"), "entry 4 appended at 5"),
        (AssertionError({"value": "SECRET"}), "AssertionError in raised, "),
        (AssertionError(), "AssertionError in raised, "),
        (ValueError("invalid literal: 'SECRET'"), "ValueError in raised, "),
        (KeyError(b"SECRET"), "KeyError in raised, "),
        (CommandError("a branch writes b'SECRET' twice"), "CommandError in raised, "),
    ],
    ids=repr,
)
def test_an_exception_is_told_in_our_own_words(error: BaseException, words: str) -> None:
    said = in_words(raised(error))
    assert said.startswith(words) and "SECRET" not in said
    assert said == words or re.search(r"test_logs\.py:\d+$", said)


async def test_what_an_event_loop_tells_of_a_callback_shows_no_arguments(caplog) -> None:
    """The loop's own words show them, and the handle too."""

    def fails(value: bytes) -> None:
        raise KeyError(value)

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(on_unforeseen)
    done = loop.create_future()
    loop.call_soon(fails, b"SECRET")
    loop.call_soon(done.set_result, None)
    await done
    (made,) = caplog.records
    for log_format in FORMATS:
        said = line(log_format, made)
        assert "Exception in callback" in said and "in fails" in said and "SECRET" not in said
    assert (made.event, made.levelname) == ("unforeseen", "ERROR")


@pytest.mark.parametrize(
    ("level", "ours", "others"),
    [
        ("info", ["INFO", "WARNING", "ERROR"], ["WARNING", "ERROR"]),
        ("warning", ["WARNING", "ERROR"], ["WARNING", "ERROR"]),
        ("error", ["ERROR"], ["ERROR"]),
    ],
)
def test_what_is_written_is_at_least_so_grave(capsys, monkeypatch, level, ours, others) -> None:
    loggers = [logging.root, logging.getLogger("raftkv")]
    for each, (name, value) in zip(loggers * 2, [("handlers", [])] * 2 + [("level", 0)] * 2, strict=True):
        monkeypatch.setattr(each, name, value)
    logs.configure("n1", "json", level)
    try:
        for name in ("raftkv.node", "aiohttp.server"):
            for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
                logging.getLogger(name).log(number, "x")
        warnings.showwarning("two\nlines", UserWarning, "file.py", 1)
    finally:
        logging.captureWarnings(capture=False)
        monkeypatch.undo()
        logging.root.setLevel(logging.root.level)  # else loggers remember what was enabled
    said = [json.loads(each) for each in capsys.readouterr().err.splitlines()]
    assert [each["level"] for each in said if each["event"] == "node"] == ours
    assert [each["level"] for each in said if each["event"] == "aiohttp.server"] == others
    assert [each["level"] for each in said if each["event"] == "py.warnings"] == [
        each for each in others if each == "WARNING"
    ]


async def test_a_serving_process_tells_what_nobody_waited_for_as_its_log_does(caplog, monkeypatch) -> None:
    def fails(value: bytes) -> None:
        raise KeyError(value)

    class Ends:
        """A node that ends at once, and leaves something that fails."""

        def __init__(self, config: Any, *, state_machine: Any) -> None:
            self.ended = asyncio.get_running_loop().create_future()

        async def start(self) -> None:
            asyncio.get_running_loop().call_soon(fails, b"SECRET")
            asyncio.get_running_loop().call_soon(self.ended.set_result, None)

        async def stop(self) -> None:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().remove_signal_handler(number)
            gc.unfreeze()

    monkeypatch.setattr(node_main, "Node", Ends)
    assert await node_main._serve(SimpleNamespace(id="n1", url="http://n1")) is None  # type: ignore[arg-type]
    assert [record.event for record in caplog.records] == ["unforeseen"]


# ------------------------------------------------------------------------------- events, by reading the source

LOG_METHODS: Final = frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"})


class Told(NamedTuple):
    """What some source says into the log."""

    events: dict[str, set[str]]
    """By name, with the fields."""
    notes: set[str]
    complaints: list[str]


def told_by(source: str) -> Told:
    told = Told({}, set(), [])
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        callee = node.func
        if isinstance(callee, ast.Attribute) and _is_logger(callee.value) and callee.attr in LOG_METHODS:
            _look_at_log_call(node, told)
        elif isinstance(callee, ast.Attribute) and callee.attr == "getLogger":
            if not str(_text(node.args[0])).startswith("raftkv.") and ast.unparse(node.args[0]) != "ROOT":
                told.complaints.append(f"{node.lineno}: a logger of another's name")
        elif ast.unparse(callee) in ("state.note", "self.note", "Note"):
            _look_at_note(node, told)
    return told


def _is_logger(value: ast.expr) -> bool:
    return ast.unparse(value).startswith(("_LOG", "log", "_log", "LOG", "self._log.", "logging"))


def _look_at_log_call(call: ast.Call, told: Told) -> None:
    extra = next((keyword.value for keyword in call.keywords if keyword.arg == "extra"), None)
    name: str | None = None
    fields: set[str] = set()
    if isinstance(extra, ast.Call) and ast.unparse(extra.func) == "event":
        fields = {str(keyword.arg) for keyword in extra.keywords}
        if ast.unparse(extra.args[0]) == "note.event":
            return  # what the core notes: looked at where it is noted
        name = _text(extra.args[0])
    elif isinstance(extra, ast.Dict):
        found = {_text(key): value for key, value in zip(extra.keys, extra.values, strict=True) if key is not None}
        name = _text(found["event"]) if "event" in found else None
        fields = _fields_of(found.get("fields"))
    if name is None:
        told.complaints.append(f"{call.lineno}: a log line without an event that can be read here")
    elif told.events.setdefault(name, fields) != fields:
        told.complaints.append(f"{call.lineno}: {name} has other fields elsewhere")


def _fields_of(value: ast.expr | None) -> set[str]:
    return {str(_text(key)) for key in value.keys if key is not None} if isinstance(value, ast.Dict) else set()


def _look_at_note(call: ast.Call, told: Told) -> None:
    name = _text(call.args[0])
    if name is not None:
        told.notes.add(name)
    elif ast.unparse(call) != "Note(event, text)":
        told.complaints.append(f"{call.lineno}: a note whose event cannot be read here")


def _text(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


@cache
def all_told() -> dict[str, Told]:
    files = sorted((ROOT / "raftkv").rglob("*.py"))
    assert len(files) > 100
    return {str(path.relative_to(ROOT)): told_by(path.read_text()) for path in files}


def test_every_log_call_bears_an_event_that_is_told_where_it_is_made() -> None:
    assert [f"{path}:{complaint}" for path, told in all_told().items() for complaint in told.complaints] == []


def test_the_list_of_events_is_closed_and_has_none_too_many() -> None:
    told = all_told().values()
    assert {name for each in told for name in each.notes} == set(CORE_EVENTS)
    assert {name for each in told for name in each.events} == set(EVENTS) - set(CORE_EVENTS)


def test_the_list_tells_every_field() -> None:
    for each in all_told().values():
        for name, fields in each.events.items():
            assert set(re.findall(r"`(\w+)`", EVENTS[name])) == fields, name
            assert fields.isdisjoint({"time", "level", "node", "event", "msg", "exception"}), name


@pytest.mark.parametrize(
    ("source", "complaints"),
    [
        ("_LOG.info('x')", 1),
        ("_LOG.info('x', extra={'peer': 1})", 1),
        ("_LOG.info('x', extra=event(name))", 1),
        ("_LOG.exception('x', extra=fields)", 1),
        ("logging.getLogger('x').warning('x')", 2),
        ("logging.getLogger('aiohttp')", 1),
        ("logging.warning('x')", 1),
        ("_LOG.info('x', extra=event('halted'))\n_LOG.info('x', extra=event('halted', term=1))", 1),
        ("state.note(name, 'x')", 1),
        ("Note(f'{x}', 'x')", 1),
        ("_LOG.info('x', extra=event('halted'))\n_LOG.info('x', extra={'event': 'halted'})", 0),
    ],
)
def test_log_calls_without_an_event_are_found(source: str, complaints: int) -> None:
    assert len(told_by(source).complaints) == complaints


def test_readers_are_led_to_the_list() -> None:
    assert "(raftkv/node/logs.py)" in (ROOT / "README.md").read_text()


# --------------------------------------------------------------------------------- nobody's data, in real nodes

MARK: Final = "m4rk3d"
"""In every key, value and header of the clients here, and in the secret of the nodes."""


class Careless(KeyValueMachine):
    """Raises what it failed at, in the way of a bug: with the key in its words."""

    fails = ""
    """What it fails at now: nothing, a query, a command."""

    def query(self, query: Any) -> Any:
        if self.fails == "query" and MARK in repr(query):
            raise KeyError(query)
        return super().query(query)

    def apply_batch(self, entries: Any) -> Any:
        if self.fails == "command":
            raise KeyError(entries)
        return super().apply_batch(entries)


class Lines(logging.Handler):
    """Every line that anybody writes at any level, in both formats."""

    def __init__(self) -> None:
        super().__init__(level=1)
        self.formats = [formatter("n", log_format) for log_format in FORMATS]
        self.said: list[str] = []
        self.events: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.said += [each.format(record) for each in self.formats]
        self.events.add(getattr(record, "event", record.name))


@pytest.fixture
def lines(monkeypatch):
    heard = Lines()
    for name in ("", "raftkv", "aiohttp", "asyncio"):
        monkeypatch.setattr(logging.getLogger(name), "level", 1)
    logging.root.manager._clear_cache()  # type: ignore[attr-defined]
    logging.root.addHandler(heard)
    yield heard
    logging.root.removeHandler(heard)
    logging.root.manager._clear_cache()  # type: ignore[attr-defined]


JSON: Final = {"Content-Type": "application/json"}
REQUESTS: Final[tuple[tuple[str, str, dict[str, str], bytes], ...]] = (
    ("PUT", "/v1/kv/m4rk3d", {}, b"m4rk3d"),
    ("PUT", "/v1/kv/m4rk3d", {"If-Match": '"m4rk3d"'}, b"m4rk3d"),
    ("PUT", "/v1/kv/m4rk3d", {"If-None-Match": "*"}, b"m4rk3d"),
    ("PUT", "/v1/kv/m4rk3d", {"Raftkv-Session": "m4rk3d", "Raftkv-Sequence": "1"}, b"m4rk3d"),
    ("PUT", "/v1/kv/m4rk3d", {"Content-Encoding": "m4rk3d"}, b"m4rk3d"),
    ("PUT", "/v1/kv/m4rk3d%zz", {}, b"m4rk3d"),
    ("PUT", "/v1/kv/big-m4rk3d", {}, b"m4rk3d" * 400_000),
    ("GET", "/v1/kv/m4rk3d?m4rk3d=m4rk3d", {}, b""),
    ("GET", "/v1/kv/m4rk3d?consistency=stale&min_index=99999999", {}, b""),
    ("GET", "/v1/kv?prefix=m4rk3d&cursor=m4rk3d", {}, b""),
    ("DELETE", "/v1/kv?prefix=m4rk3d", {"m4rk3d": "m4rk3d"}, b""),
    ("POST", "/v1/txn", JSON, b'{"success":[{"put":{"key":"m4rk3d","value":"m4rk3d"}}]}'),
    ("POST", "/v1/txn", JSON, b'{"success":[{"put":{"key":"m4rk3d"}},{"put":{"key":"m4rk3d"}}]}'),
    ("POST", "/v1/txn", {"Content-Type": "application/m4rk3d"}, b"m4rk3d"),
    ("GET", "/m4rk3d", {}, b""),
    ("M4RK3D", "/v1/kv/a", {}, b""),
    ("GET", "/v1/kv/a\x00m4rk3d", {}, b""),
)


async def everything_is_asked(node: Node) -> None:
    connections = Connections()
    for method, target, headers, body in REQUESTS:
        try:
            await connections.exchange(
                for_clients(node), method, target, headers=headers, body=body, timeout_s=PATIENCE_S, kept=False
            )
        except Trouble:
            continue


async def test_no_line_shows_a_secret_a_key_or_a_value(tmp_path: Path, lines: Lines, monkeypatch) -> None:
    """Everything is told at the loudest level, also what fails, and how it fails shows what it failed at."""
    made = apart(tmp_path, request_timeout_ms=300)
    assert made[0].peer_secret_file is not None
    secret = made[0].peer_secret_file.read_text().strip()
    machines = [Careless() for _ in made]
    nodes = [Node(config, state_machine=machine) for config, machine in zip(made, machines, strict=True)]
    try:
        await asyncio.gather(*(node.start() for node in nodes))
        await ready(nodes)
        leader = await leader_of_stores(nodes)
        follower, other = (node for node in nodes if node is not leader)
        for node in (leader, follower):
            await everything_is_asked(node)
        await a_stream_fails(leader, monkeypatch)
        await a_request_fails(leader, monkeypatch)
        await ask(for_peers(leader), "POST", "/raft/v1/introduce", body=MARK.encode())
        machines[nodes.index(follower)].fails = "command"
        await ask(for_clients(leader), "PUT", f"/v1/kv/{MARK}", body=MARK.encode())
        assert isinstance(await follower.ended, KeyError)
        assert follower._running is not None and MARK not in str(follower._running.service.failure), "for /healthz"
        await eventually(lambda: _told_of(other, follower), within_s=PATIENCE_S, what="a farewell")
        told = await ask(for_clients(other), "GET", "/v1/diagnostics")
        assert b"KeyError" in told.body and MARK.encode() not in told.body, "what a peer says goes on from node to node"
        machines[nodes.index(leader)].fails = machines[nodes.index(other)].fails = "query"
        ended = await eventually(lambda: _ended_by_a_read(leader, other), within_s=PATIENCE_S, what="a leader's answer")
        assert isinstance(await ended.ended, KeyError)
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))
    assert {"takes_part", "became_leader", "stream_failed", "request_failed"} < lines.events
    assert {"stranger_refused", "halted", "peer_left"} < lines.events
    assert [each for each in lines.said if MARK in each.lower() or secret in each or not each.isprintable()] == []


async def _ended_by_a_read(*nodes: Node) -> Node | None:
    for node in nodes:
        try:
            await ask(for_clients(node), "GET", f"/v1/kv/{MARK}")
        except Trouble:
            return node
    return None


async def _told_of(node: Node, gone: Node) -> bool | None:
    told = json.loads((await ask(for_clients(node), "GET", "/v1/diagnostics")).body)
    return next(link["farewell"] is not None for link in told["links"] if link["peer"] == gone.config.id) or None


async def a_stream_fails(node: Node, monkeypatch) -> None:
    def receive(stream: Stream, message: bytes) -> None:
        raise KeyError(message)

    monkeypatch.setattr(Stream, "receive", receive)
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{node.config.url}/v1/stream") as stream:
        await stream.send_bytes(put(1, MARK, MARK.encode()))
        ended = await stream.receive()
        assert (ended.type, ended.data) == (aiohttp.WSMsgType.CLOSE, 1011)


async def a_request_fails(node: Node, monkeypatch) -> None:
    """On each front: what is taken at a glance, a key's own routes, and all others."""

    def begin(api: Api, head: Any) -> Any:
        raise KeyError(head.target)

    def take(keys: PlainKeys, plain: Plain, respond: Any) -> bool:
        raise KeyError(plain.target, plain.body)

    with monkeypatch.context() as patched:
        patched.setattr(Api, "begin", begin)
        patched.setattr(PlainKeys, "take", take)
        assert (await ask(for_clients(node), "PUT", f"/v1/kv/{MARK}", body=MARK.encode())).status == 500
        for target in (f"/v1/kv/{MARK}", f"/v1/kv/{MARK}%20", f"/v1/kv?prefix={MARK}", f"/v1/sessions/{MARK}"):
            assert (await ask(for_clients(node), "GET", target)).status == 500


def test_what_somebody_should_look_at_is_louder_than_what_always_happens() -> None:
    assert set(_LEVELS) < set(CORE_EVENTS)
    quiet = {"became_leader", "stepped_down", "follows", "stands", "voted", "refused_vote", "transfer_began"}
    assert quiet.isdisjoint(_LEVELS) and _LEVELS["state_is_wrong"] == logging.ERROR


@pytest.mark.live
async def test_real_nodes_write_as_they_are_told_and_nothing_else(tmp_path: Path) -> None:
    """From the first line to the last; standard output has the one line of the contract."""
    wishes = {"n1": [], "n2": ["--log-format", "json"], "n3": ["--log-level", "error", "--log-format", "json"]}
    with LiveCluster(tmp_path, nodes_count=3) as cluster:
        for id, words in wishes.items():
            cluster.nodes[id].command += words
        cluster.start()
        leader = await cluster.until_serving()
        for target in (f"/v1/kv/{MARK}", f"/{MARK}"):
            await cluster.connections.exchange(leader.address, "PUT", target, body=MARK.encode(), timeout_s=PATIENCE_S)
        for node in cluster.nodes.values():
            node.ask_to_stop()
            assert await node.ended() == 0
    said = {}
    for id, node in cluster.nodes.items():
        serving = f"raftkv {id} serving on {node.url}"
        written = node.log_text().split("\n")
        assert written.count(serving) == 1 and written.pop() == "" and MARK not in node.log_text()
        said[id] = [each for each in written if each != serving]
    events = [re.fullmatch(r"\S+Z [A-Z]+ node=n1 event=(\w+) .*msg=\".*\"", each) for each in said["n1"]]
    assert all(events) and {each[1] for each in events if each} <= set(EVENTS)
    told = [json.loads(each) for each in said["n2"]]
    assert {each["node"] for each in told} == {"n2"} and {each["event"] for each in told} <= set(EVENTS)
    assert {"takes_part", "peer_left"} <= {each["event"] for each in told} | {each[1] for each in events if each}
    assert said["n3"] == []
