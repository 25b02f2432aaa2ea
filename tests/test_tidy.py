"""The house's own order, held by reading its source: who may import whom, what pure rooms may not know.

Every check is a function from source files to complaints. The first half of the tests runs them over the
real tree, the second half shows that each of them catches a planted bad sample.
"""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from raftkv import __version__
from raftkv.config import SETTINGS

ROOT: Final = Path(__file__).resolve().parent.parent

# ------------------------------------------------------------------------------------------- the rules

MAY_IMPORT: Final = {
    # a room, or one module of it     what it may import besides itself and errors
    "compiled": (),
    "errors": (),
    "frames": (),
    "outcomes": (),
    "problems": (),
    "state_machine": (),
    "stamps": ("core.types", "frames", "state_machine"),
    "values": ("core.types",),
    "core": ("frames",),
    "kv": ("state_machine",),
    "waiting": ("outcomes",),
    "beginning": ("core", "storage"),
    "forming": ("pump", "core.formation", "core.messages", "core.types", "storage.identity"),
    "pump": ("replica", "core.effects", "core.messages"),
    "replica": (
        *("core", "frames", "state_machine", "outcomes", "members", "changing"),
        *("comparing", "snapshotting", "stamps", "transferring", "waiting"),
    ),
    "members": ("outcomes",),
    "changing": ("core", "members", "outcomes"),
    "comparing": ("core", "state_machine"),
    "snapshotting": ("comparing", "core", "state_machine", "outcomes"),
    "transferring": ("core", "outcomes"),
    "storage": ("frames", "core.types", "core.effects"),
    "http": ("problems",),
    "transport": ("http", "frames", "core.messages", "core.types"),
    "api": ("replica", "kv", "http", "members", "outcomes", "problems", "values"),
    "config": (
        *("values", "core.types", "core.settings", "replica", "snapshotting", "api.settings", "storage.wal"),
        *("transport.settings", "transport.secret"),
    ),
    "client": ("kv", "values", "http", "problems"),
    "sim": (
        *(
            "replica",
            "pump",
            "forming",
            "beginning",
            "waiting",
            "snapshotting",
            "core",
            "frames",
            "state_machine",
            "outcomes",
            "members",
            "storage",
            "kv",
            "transport.codec",
        ),
        *("api", "config", "http.heads", "http.exchange", "problems", "values"),
        *("client.attempts", "client.routing", "client.session", "client.wishes", "client.results", "client.txn"),
        "client.course",
    ),
    "sim.world.disk": ("storage.directory",),
    "node": (
        *("api", "transport", "http", "storage", "replica", "pump", "forming", "beginning", "waiting", "config"),
        *("snapshotting", "stamps"),
        *("values", "core", "kv", "state_machine", "outcomes", "members", "changing", "frames"),
    ),
    "cli": ("compiled", "config", "values", "storage", "node", "client", "kv", "sim"),
    "__main__": ("cli",),
    "__init__": ("config", "kv.machine", "node.node", "outcomes", "state_machine"),
}
"""Imports run one way only. A module's own row stands beside its room's."""

PURE: Final = (
    *("core", "kv", "sim", "replica", "pump", "forming", "beginning", "waiting", "outcomes", "problems", "frames"),
    *("members", "changing", "comparing", "snapshotting", "stamps", "state_machine", "transferring", "values"),
    *("transport.codec", "api", "cli.diagnosis"),
    *("client.session", "client.attempts", "client.routing", "client.wishes", "client.txn", "client.results"),
    "client.course",
)
NOT_PURE: Final = (
    *("api.aiohttp_connection", "api.aiohttp_front", "api.aiohttp_stream", "api.failures", "api.lean_front"),
    "sim.runs.__main__",
)
"""The front that hands requests to the pure semantics; the rest of ``api`` is those semantics. And a command, which
says how long it took."""

IMPURE_MODULES: Final = frozenset(
    {"asyncio", "time", "os", "logging", "socket", "threading", "subprocess", "secrets", "uuid", "random", "datetime"}
)
NAMES_ALLOWED_FROM: Final = {"random": frozenset({"Random"}), "os": frozenset({"strerror"})}
"""A seeded generator that is handed in draws nothing by itself; a message's text is the same for everybody."""

MAY_PRINT: Final = ("cli", "node.main")
"""``node.main`` prints the one line that says that a node serves."""
MAY_HAVE_COROUTINES: Final = ("node", "http", "transport", "api", "client", "cli")

FILE_LINES_MAX: Final = 600
FUNCTION_LINES_MAX: Final = 70

UNFINISHED: Final = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME)\b")
MACHINE_PATH: Final = re.compile(r"(?<![\w.$}])/(?:home|root|Users|work|scratch)/\w")
REGISTRY: Final = re.compile(
    r"py" + r"pi\.org|python" + r"hosted|--(?:extra-)?index" + r"-url|--find" + r"-links", re.IGNORECASE
)
CITATION: Final = re.compile(r"[Pp]aper §|[Tt]hesis §|Figure \d")


class Source(NamedTuple):
    """One file of Python."""

    path: str
    """Below the root, with slashes."""
    text: str

    @property
    def module(self) -> str:
        """Its dotted name below ``raftkv``; a package goes by its directory's name."""
        return self.path.removeprefix("raftkv/").removesuffix(".py").replace("/", ".").removesuffix(".__init__")

    def tree(self) -> ast.Module:
        return _parsed(self)

    def at(self, node: ast.AST, complaint: str) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 1)}: {complaint}"


@cache
def _parsed(source: Source) -> ast.Module:
    return ast.parse(source.text)


# ------------------------------------------------------------------------------------------ the checks


def _is_in(module: str, places: Iterable[str]) -> bool:
    return any(module == place or module.startswith(place + ".") for place in places)


def imported(source: Source, modules: frozenset[str]) -> Iterator[tuple[ast.AST, str]]:
    """Every absolute name that is imported; ``from package import module`` counts as the module."""
    for node in ast.walk(source.tree()):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield node, whole if whole in modules else str(node.module)


def wrong_direction(source: Source, modules: frozenset[str]) -> list[str]:
    room = source.module.split(".")[0]
    allowed = ("errors", room, *MAY_IMPORT[room], *MAY_IMPORT.get(source.module, ()))
    return [
        source.at(node, f"{source.module} imports {name}")
        for node, name in imported(source, modules)
        if name.startswith("raftkv.") and not _is_in(name.removeprefix("raftkv."), allowed)
    ]


def impure(source: Source) -> list[str]:
    if not _is_in(source.module, PURE) or _is_in(source.module, NOT_PURE):
        return []
    found = []
    for node in ast.walk(source.tree()):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] in IMPURE_MODULES]
        elif isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in IMPURE_MODULES:
            allowed = NAMES_ALLOWED_FROM.get(str(node.module), frozenset())
            names = [f"{node.module}.{alias.name}" for alias in node.names if alias.name not in allowed]
        else:
            continue
        found += [source.at(node, f"a pure room imports {name}") for name in names]
    return found


def order_of_sets(source: Source) -> list[str]:
    """Loops straight over a set; what a name holds is for the reader to see."""
    if not _is_in(source.module, PURE):
        return []
    loops = [node for node in ast.walk(source.tree()) if isinstance(node, ast.For | ast.comprehension)]
    return [source.at(loop.iter, "iterates over a set in a pure room") for loop in loops if _makes_a_set(loop.iter)]


def _makes_a_set(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("set", "frozenset")
    return isinstance(node, ast.Set | ast.SetComp)


def unseeded(source: Source) -> list[str]:
    if not _is_in(source.module, PURE):
        return []
    return [
        source.at(node, "draws from a generator without a seed")
        for node in ast.walk(source.tree())
        if isinstance(node, ast.Call) and _called(node) in ("Random", "random.Random") and not node.args
    ]


def coroutines(source: Source) -> list[str]:
    if not source.path.startswith("raftkv/") or _is_in(source.module, MAY_HAVE_COROUTINES):
        return []
    return [
        source.at(node, "a coroutine outside the rooms that may have them")
        for node in ast.walk(source.tree())
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
    ]


def prints(source: Source) -> list[str]:
    if not source.path.startswith("raftkv/") or _is_in(source.module, MAY_PRINT):
        return []
    return [source.at(node, "prints") for node in ast.walk(source.tree()) if _called(node) == "print"]


def swallowed_errors(source: Source) -> list[str]:
    found = []
    for node in ast.walk(source.tree()):
        if not isinstance(node, ast.ExceptHandler):
            continue
        if node.type is None:
            found.append(source.at(node, "a bare except"))
        elif _is_everything(node.type) and all(isinstance(line, ast.Pass) for line in node.body):
            found.append(source.at(node, "swallows every error"))
    return found


def _is_everything(caught: ast.expr) -> bool:
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(isinstance(name, ast.Name) and name.id in ("Exception", "BaseException") for name in names)


def sleeps(source: Source) -> list[str]:
    """Sleeping for a fixed time. A pause between two looks at a condition stands in a ``while``, and is none."""
    if not source.path.startswith("tests/"):
        return []
    pauses = {id(call) for loop in ast.walk(source.tree()) if isinstance(loop, ast.While) for call in ast.walk(loop)}
    return [
        source.at(node, "sleeps instead of waiting on a condition")
        for node in ast.walk(source.tree())
        if isinstance(node, ast.Call) and id(node) not in pauses and _sleeps_constantly(node)
    ]


def _sleeps_constantly(call: ast.Call) -> bool:
    if _called(call) not in ("time.sleep", "asyncio.sleep", "sleep") or not call.args:
        return False
    length = call.args[0]
    return isinstance(length, ast.Constant) and isinstance(length.value, int | float) and length.value > 0


def _called(node: ast.AST) -> str:
    if not isinstance(node, ast.Call):
        return ""
    return ast.unparse(node.func) if isinstance(node.func, ast.Name | ast.Attribute) else ""


def too_long(source: Source) -> list[str]:
    lines = source.text.count("\n")
    found = [f"{source.path}: {lines} lines, {FILE_LINES_MAX} at most"] if lines > FILE_LINES_MAX else []
    for node in ast.walk(source.tree()):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                found.append(source.at(node, f"{node.name} has {length} lines, {FUNCTION_LINES_MAX} at most"))
    return found


def uncited_rules(source: Source) -> list[str]:
    return [
        source.at(rule, f"the rule {rule.name} cites no section")
        for rule in public_functions(source)
        if not CITATION.search(ast.get_docstring(rule) or "")
    ]


def untested_rules(source: Source, tests: str) -> list[str]:
    return [
        source.at(rule, f"no test in tests/core names the rule {rule.name}")
        for rule in public_functions(source)
        if not re.search(rf"\b{rule.name}\b", tests)
    ]


def public_functions(source: Source) -> list[ast.FunctionDef]:
    functions = [node for node in source.tree().body if isinstance(node, ast.FunctionDef)]
    return [node for node in functions if not node.name.startswith("_")]


def forbidden_words(path: str, text: str) -> list[str]:
    kinds = (("work left undone", UNFINISHED), ("a machine's own path", MACHINE_PATH), ("a package registry", REGISTRY))
    return [
        f"{path}:{number}: {what}: {found.group()}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in kinds
        if (found := pattern.search(line))
    ]


def undocumented(names: Iterable[str], readme: str) -> list[str]:
    return [
        f"README.md does not tell {name}" for name in names if not re.search(rf"(?<!\w)(?<!\w-){name}(?![\w-])", readme)
    ]


# ----------------------------------------------------------------------------------- over the real tree


@cache
def files() -> tuple[Path, ...]:
    """Everything that is part of the project: what git tracks or would; without git, what lies in its rooms."""
    asked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=False,
    )
    if asked.returncode == 0:
        listed = [ROOT / name for name in asked.stdout.decode().split("\0") if name]
    else:
        rooms = [ROOT / name for name in ("raftkv", "examples", "tests", "scripts", "deploy", ".ci")]
        listed = [*ROOT.glob("*.*"), *(path for room in rooms for path in sorted(room.rglob("*")))]
    return tuple(path for path in listed if path.is_file() and "__pycache__" not in path.parts)


@cache
def sources() -> tuple[Source, ...]:
    return tuple(
        Source(path.relative_to(ROOT).as_posix(), path.read_text()) for path in files() if path.suffix == ".py"
    )


def production() -> list[Source]:
    return [source for source in sources() if source.path.startswith("raftkv/")]


def modules() -> frozenset[str]:
    return frozenset("raftkv." + source.module for source in production())


def rules() -> Source:
    return next(source for source in sources() if source.module == "core.rules")


def test_imports_run_one_way() -> None:
    assert [complaint for source in production() for complaint in wrong_direction(source, modules())] == []


def test_every_room_has_its_row() -> None:
    assert {source.module.split(".")[0] for source in production()} <= set(MAY_IMPORT) | {"raftkv"}


CHECKS: Final = (impure, order_of_sets, unseeded, coroutines, prints, swallowed_errors, sleeps, too_long)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_tree_is_in_order(check: Callable[[Source], list[str]]) -> None:
    assert [complaint for source in sources() for complaint in check(source)] == []


def test_every_rule_cites_its_section() -> None:
    assert uncited_rules(rules()) == []


def test_every_rule_is_tested_by_name() -> None:
    tests = "\n".join(source.text for source in sources() if source.path.startswith("tests/core/"))
    assert untested_rules(rules(), tests) == []


def test_no_file_says_what_it_must_not() -> None:
    complaints = []
    for path in files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        complaints += forbidden_words(path.relative_to(ROOT).as_posix(), text)
    assert complaints == []


def test_every_setting_is_documented() -> None:
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("there is no README.md yet")
    assert undocumented([setting.name for setting in SETTINGS], readme.read_text()) == []


def test_what_is_needed_is_said_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    asked = {line.split(";")[0].strip() for line in (ROOT / "requirements.in").read_text().splitlines()}
    asked = {name for name in asked if name and not name.startswith("#")}
    assert {re.split(r"[<>=;]", line)[0] for line in project["dependencies"]} == asked
    pinned = (ROOT / "requirements.txt").read_text()
    assert [name for name in asked if not re.search(rf"^{name}==\S+ .*\\$", pinned, re.MULTILINE)] == []


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-build.txt", "requirements-dev.txt"])
def test_every_pin_has_its_hashes(name: str) -> None:
    pins = re.split(r"\n(?=[a-z])", (ROOT / name).read_text())
    assert pins
    assert [pin.splitlines()[0] for pin in pins if "--hash=sha256:" not in pin] == []


# ---------------------------------------------------------------------------------------- planted samples

A_SET: Final = "{'b', 'a'}"
PLANTED: Final = [
    (impure, "raftkv/core/election.py", "import time\n"),
    (impure, "raftkv/core/election.py", "from time import monotonic\n"),
    (impure, "raftkv/kv/table.py", "import os.path\n"),
    (impure, "raftkv/replica.py", "def late():\n    import asyncio\n"),
    (impure, "raftkv/sim/world/network.py", "import random\n"),
    (impure, "raftkv/sim/world/network.py", "from random import randrange\n"),
    (impure, "raftkv/transport/codec.py", "import logging\n"),
    (impure, "raftkv/api/keys.py", "from asyncio import Future\n"),
    (order_of_sets, "raftkv/core/raft.py", f"for peer in {A_SET}:\n    send(peer)\n"),
    (order_of_sets, "raftkv/core/raft.py", "sent = [send(peer) for peer in set(peers)]\n"),
    (unseeded, "raftkv/sim/world/cluster.py", "from random import Random\nrng = Random()\n"),
    (coroutines, "raftkv/core/raft.py", "async def step():\n    return None\n"),
    (coroutines, "raftkv/storage/wal.py", "async def sync():\n    return None\n"),
    (prints, "raftkv/node/disk.py", "print('hello')\n"),
    (swallowed_errors, "raftkv/cli/main.py", "try:\n    f()\nexcept:\n    g()\n"),
    (swallowed_errors, "tests/cli/test_x.py", "try:\n    f()\nexcept Exception:\n    pass\n"),
    (swallowed_errors, "raftkv/cli/main.py", "try:\n    f()\nexcept (OSError, BaseException):\n    pass\n"),
    (sleeps, "tests/live/test_x.py", "import time\ntime.sleep(0.5)\n"),
    (sleeps, "tests/live/test_x.py", "import asyncio\nasync def test():\n    await asyncio.sleep(1)\n"),
    (too_long, "raftkv/core/raft.py", "x = 1\n" * (FILE_LINES_MAX + 1)),
    (too_long, "raftkv/core/raft.py", "def long():\n" + "    x = 1\n" * FUNCTION_LINES_MAX),
    (uncited_rules, "raftkv/core/rules.py", 'def a_rule():\n    """True."""\n'),
    (uncited_rules, "raftkv/core/rules.py", "def a_rule():\n    return True\n"),
]


@pytest.mark.parametrize(("check", "path", "text"), PLANTED, ids=lambda value: getattr(value, "__name__", ""))
def test_each_check_catches_a_planted_sample(check, path: str, text: str) -> None:
    (complaint,) = check(Source(path, text))
    assert complaint.startswith(path)


SOUND: Final = [
    (impure, "raftkv/core/election.py", "from random import Random\n"),
    (impure, "raftkv/node/disk.py", "import asyncio\nimport time\n"),
    (impure, "raftkv/api/aiohttp_front.py", "import asyncio\n"),
    (order_of_sets, "raftkv/core/raft.py", f"for peer in sorted({A_SET}):\n    send(peer)\n"),
    (unseeded, "raftkv/sim/world/cluster.py", "rng = Random(7)\n"),
    (coroutines, "raftkv/node/disk.py", "async def step():\n    return None\n"),
    (prints, "raftkv/cli/main.py", "print('hello')\n"),
    (swallowed_errors, "raftkv/cli/main.py", "try:\n    f()\nexcept OSError:\n    pass\n"),
    (sleeps, "tests/live/test_x.py", "while not done():\n    time.sleep(0.01)\n"),
    (sleeps, "tests/node/test_x.py", "await asyncio.sleep(0)\n"),
    (uncited_rules, "raftkv/core/rules.py", 'def a_rule():\n    """Paper §5.1: true."""\n'),
]


@pytest.mark.parametrize(("check", "path", "text"), SOUND, ids=lambda value: getattr(value, "__name__", ""))
def test_no_check_complains_about_what_is_right(check, path: str, text: str) -> None:
    assert check(Source(path, text)) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("raftkv/core/raft.py", "from raftkv.storage.wal import Wal\n"),
        ("raftkv/core/raft.py", "import raftkv.kv.table\n"),
        ("raftkv/kv/table.py", "from raftkv.core.types import Index\n"),
        ("raftkv/kv/table.py", "from raftkv import frames\n"),
        ("raftkv/storage/wal.py", "from raftkv.core import raft\n"),
        ("raftkv/http/server.py", "from raftkv.api.keys import put\n"),
        ("raftkv/api/keys.py", "from raftkv.config import load\n"),
        ("raftkv/replica.py", "if TYPE_CHECKING:\n    from raftkv.storage.wal import Wal\n"),
        ("raftkv/cli/keys.py", "def late():\n    from raftkv.core.raft import Raft\n"),
        ("raftkv/errors.py", "from raftkv.frames import kind\n"),
    ],
)
def test_an_import_against_the_direction_is_caught(path: str, text: str) -> None:
    known = frozenset({"raftkv.core.raft", "raftkv.frames"})
    (complaint,) = wrong_direction(Source(path, text), known)
    assert complaint.startswith(path)


def test_an_import_along_the_direction_is_taken() -> None:
    text = "from raftkv import frames\nfrom raftkv.core.types import Index\nfrom raftkv.errors import RaftkvError\n"
    assert wrong_direction(Source("raftkv/storage/wal.py", text), frozenset({"raftkv.frames"})) == []


def test_a_rule_that_no_test_names_is_caught() -> None:
    source = Source("raftkv/core/rules.py", "def one():\n    pass\ndef other():\n    pass\ndef _own():\n    pass\n")
    assert untested_rules(source, "assert rules.one() and another") == [
        "raftkv/core/rules.py:3: no test in tests/core names the rule other"
    ]


@pytest.mark.parametrize(
    "line",
    [
        "# TO" + "DO: later",
        "x = 1  # FIX" + "ME",
        "cd /" + "work/main",
        "path = '/" + "home/somebody/raftkv'",
        "see https://" + "py" + "pi.org/simple",
        "--index" + "-url file:///x",
        "pip install --find" + "-links wheels",
    ],
)
def test_a_forbidden_word_is_caught(line: str) -> None:
    assert len(forbidden_words("README.md", f"fine\n{line}\n")) == 1


@pytest.mark.parametrize("line", ["/" + "work-queue/", "a/home/b", "--no-emit-index" + "-url", "https://example.org/x"])
def test_a_harmless_word_is_not(line: str) -> None:
    assert forbidden_words("README.md", line) == []


def test_an_undocumented_setting_is_caught() -> None:
    readme = "`--heartbeat-ms` and `max-value-bytes-more`"
    assert undocumented(["heartbeat-ms", "max-value-bytes"], readme) == ["README.md does not tell max-value-bytes"]
