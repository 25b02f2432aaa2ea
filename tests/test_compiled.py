"""What pyproject.toml names to be compiled means the same compiled: what mypyc takes otherwise does not stand in it.

The first half reads the source. The second is run on what is installed, compiled or not: ``scripts/compiled`` runs it,
and every other test, on a compiled wheel.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from raftkv import __version__
from raftkv.cli.main import main
from raftkv.compiled import is_compiled
from raftkv.core.types import Incarnation, Index, Member, NodeId, Role, SnapshotId, Term
from raftkv.errors import ConfigError, MessageError
from raftkv.kv.answers import PutDone
from raftkv.kv.commands import Put, decode_put, encode
from raftkv.kv.machine import KeyValueMachine
from raftkv.replica import ReplicaSettings
from raftkv.state_machine import LogEntry
from raftkv.transport import codec
from tests.lone_replica import LoneReplica, Remembering

ROOT: Final = Path(__file__).resolve().parent.parent
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())
HOOK: Final = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]


def is_named(module: str, patterns: Sequence[str]) -> bool:
    path = Path("raftkv", *module.split(".")).with_suffix(".py")
    return any(path.match(pattern) for pattern in patterns)


def compiled_modules() -> list[str]:
    """Every module that RAFTKV_COMPILE=1 compiles, below ``raftkv``."""
    package = find_spec("raftkv")
    assert package is not None and package.submodule_search_locations is not None
    home = Path(package.submodule_search_locations[0])
    names = [path.relative_to(home).with_suffix("").as_posix().replace("/", ".") for path in home.rglob("*.py")]
    found = [name for name in sorted(names) if is_named(name, HOOK["compiled"])]
    return [name for name in found if not is_named(name, HOOK["interpreted"]) and "__init__" not in name]


def source_of(module: str) -> str:
    """Which lies beside the library in a compiled wheel, too."""
    spec = find_spec(f"raftkv.{module}")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent.joinpath(module.rpartition(".")[2] + ".py").read_text()


# ------------------------------------------------------------------------------------- read in the source

Function = ast.FunctionDef | ast.AsyncFunctionDef


def names_of_two_exceptions(tree: ast.AST) -> list[str]:
    """``except A as error … except B as error`` in one function: mypyc takes every ``error`` for an A.

    mypy lets the name be used again, for it is gone at the end of its clause; mypyc gives it one type, and whoever
    looks at the second error gets TypeError instead.
    """
    found = []
    for function in [node for node in ast.walk(tree) if isinstance(node, Function)]:
        kinds: dict[str, set[str]] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.ExceptHandler) and node.name and node.type is not None:
                kinds.setdefault(node.name, set()).add(ast.unparse(node.type))
        found += [f"{function.name}: {name} is {' and '.join(sorted(of))}" for name, of in kinds.items() if len(of) > 1]
    return found


def coroutines(tree: ast.AST) -> list[str]:
    """What is cancelled is what asyncio's own coroutines are cancelled like: none of ours is compiled."""
    return [node.name for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]


def asked_of_source_alone(tree: ast.AST) -> list[str]:
    """A compiled function has no annotations, no code and no frame to look at; an object no ``__dict__``."""
    forbidden = {
        "__annotations__",
        "__code__",
        "__dict__",
        "__slots__",
        "__wrapped__",
        "vars",
        "locals",
        "eval",
        "exec",
    }
    return [
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load)
        for name in [node.attr if isinstance(node, ast.Attribute) else node.id]
        if name in forbidden
    ]


CHECKS: Final = (names_of_two_exceptions, coroutines, asked_of_source_alone)


@pytest.mark.parametrize("check", CHECKS)
def test_nothing_stands_in_what_is_compiled_that_would_mean_something_else(check) -> None:
    assert {name: told for name in compiled_modules() if (told := check(ast.parse(source_of(name))))} == {}


TWO_ERRORS: Final = """
def read(file):
    try:
        file.read()
    except OtherFormat as error:
        raise UnknownFormat(error) from error
    except BadBytes as error:
        raise Damaged(error) from error
"""


@pytest.mark.parametrize(
    ("check", "sample"),
    [
        (names_of_two_exceptions, TWO_ERRORS),
        (coroutines, "class A:\n    async def stop(self): ..."),
        (asked_of_source_alone, "names = vars(thing)"),
        (asked_of_source_alone, "thing.__dict__.update(other)"),
    ],
)
def test_each_check_finds_its_sample(check, sample: str) -> None:
    assert check(ast.parse(sample))


def test_what_the_simulator_counts_and_embedders_inherit_from_is_not_compiled() -> None:
    for module in ("core.rules", "core.quorum", "state_machine", "kv.machine", "errors", "outcomes", "frames"):
        assert module not in compiled_modules()
    assert "core.raft" in compiled_modules() and len(compiled_modules()) > 30


def hook() -> ModuleType:
    pytest.importorskip("hatchling", reason="what builds the wheel is not installed here")
    spec = spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def built(config: dict[str, Any]) -> Any:
    kind = hook().CompiledRooms
    return kind(str(ROOT), config, None, None, "", "wheel")


def test_who_does_not_ask_gets_the_source_and_needs_nothing_more(monkeypatch) -> None:
    monkeypatch.delenv("RAFTKV_COMPILE", raising=False)
    rooms, data = built(HOOK), {"pure_python": True}
    rooms.initialize("standard", data)
    rooms.initialize("editable", data)
    assert data == {"pure_python": True} and rooms.dependencies() == []


def test_who_asks_gets_a_compiled_wheel_or_an_error(monkeypatch) -> None:
    monkeypatch.setenv("RAFTKV_COMPILE", "1")
    rooms = built(HOOK)
    assert any(need.startswith("mypy==") for need in rooms.dependencies())
    with pytest.raises(ValueError, match="editable"):
        rooms.initialize("editable", {})
    with pytest.raises(ValueError, match="there is none"):
        built({"compiled": ["raftkv/nowhere.py"], "interpreted": []})._files(ROOT)
    monkeypatch.setenv("RAFTKV_COMPILE", "yes")
    with pytest.raises(ValueError, match="must be 1, or 0"):
        rooms.dependencies()


def test_it_is_compiled_by_the_mypy_that_checks_it(monkeypatch) -> None:
    monkeypatch.setenv("RAFTKV_COMPILE", "1")
    (pinned,) = re.findall(r"^mypy==[\d.]+", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)
    assert pinned in built(HOOK).dependencies()


# ------------------------------------------------------------------------------------- run as it is installed


def test_all_that_is_named_is_machine_code_here_or_none_of_it_is() -> None:
    specs = {name: find_spec(f"raftkv.{name}") for name in compiled_modules()}
    kinds = {name: str(spec and spec.origin).endswith(tuple(EXTENSION_SUFFIXES)) for name, spec in specs.items()}
    assert set(kinds.values()) == {is_compiled()}, kinds


def test_the_version_says_that_it_is_compiled(capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"raftkv, version {__version__}{' (compiled)' if is_compiled() else ''}\n"


def test_an_exploration_which_copies_nodes_is_refused_where_they_are_compiled(capsys) -> None:
    if not is_compiled():
        pytest.skip("nothing is compiled here: tests/sim/test_exhaustive.py explores")
    assert main(["simulate", "--exhaustive", "2"]) == 2
    assert "from source" in capsys.readouterr().err


def dataclasses_of(module: str) -> Iterator[type]:
    for value in vars(import_module(f"raftkv.{module}")).values():
        if isinstance(value, type) and dataclasses.is_dataclass(value) and value.__module__ == f"raftkv.{module}":
            yield value


@pytest.mark.parametrize("module", compiled_modules())
def test_a_dataclass_is_what_it_says_that_it_is(module: str) -> None:
    """Patterns with places, what may be changed, what can be a key, and defaults that are nobody else's."""
    for kind in dataclasses_of(module):
        fields = dataclasses.fields(kind)
        assert kind.__match_args__ == tuple(one.name for one in fields if one.init)  # type: ignore[attr-defined]
        if any(one.default is one.default_factory is dataclasses.MISSING for one in fields):
            continue
        one, other = kind(), kind()
        assert one == other and one is not other and repr(one) == repr(other)
        assert dataclasses.replace(one) == one
        is_frozen = kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert (kind.__hash__ is None) == (not is_frozen)
        for field in fields:
            value = getattr(one, field.name)
            if isinstance(value, list | dict | set):
                assert value is not getattr(other, field.name)
            if is_frozen:
                with pytest.raises(dataclasses.FrozenInstanceError):
                    setattr(one, field.name, value)


def test_frozen_things_are_keys_and_have_an_order() -> None:
    def member(id: str) -> Member:
        return Member(NodeId(id), Incarnation(b"i" * 16), "http://a")

    assert {member("a"): 1}[member("a")] == 1 and hash(member("a")) == hash(member("a"))
    assert sorted([member("b"), member("a")]) == [member("a"), member("b")]
    assert max(SnapshotId(Index(1), Term(9), 1, 0), SnapshotId(Index(2), Term(1), 1, 0)).index == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        member("a").url = "http://b"  # type: ignore[misc]


def test_numbers_are_of_any_size() -> None:
    """Hashes are summed beyond 128 bits, terms are of 64."""
    machine = KeyValueMachine()
    for number in range(50):
        machine.apply_batch([LogEntry(number + 1, 2**62 + number, encode(Put(b"%d" % number, b"v" * number)))])
    assert 2**64 < machine.state_hash() < 2**128
    with pytest.raises(MessageError, match="2\\^63-1"):
        codec._number(2**63)
    assert codec._number(2**63 - 1) == 2**63 - 1
    with pytest.raises(MessageError):
        codec._number(True)
    with pytest.raises(MessageError):
        codec._truth(1)


def test_a_machine_of_ones_own_is_asked_through_compiled_code() -> None:
    """An interpreted class, which answers with a tuple, inherits from what a compiled one runs."""

    class Tupled(Remembering):
        def apply_batch(self, entries: Sequence[LogEntry]) -> Any:
            return tuple(super().apply_batch(entries))

    lone = LoneReplica()
    lone.replica.machine = Tupled()
    lone.lead()
    lone.submit("x")
    lone.acknowledge()
    assert lone.outcome("x").answer == "did x"


def test_the_store_may_be_inherited_from() -> None:
    class Counting(KeyValueMachine):
        puts = 0

        def apply_batch(self, entries: Sequence[LogEntry]) -> Any:
            self.puts += len(entries)
            return super().apply_batch(entries)

    machine = Counting()
    (answer,) = machine.apply_batch([LogEntry(1, 1, encode(Put(b"a", b"1")))])
    assert type(answer) is PutDone and machine.puts == 1


def test_settings_of_a_wrong_kind_are_told_as_ever() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        ReplicaSettings(request_timeout_ms=0)
    assert decode_put(encode(Put(b"a", b"1"))) == (b"a", b"1")


def test_an_error_in_compiled_code_tells_its_place() -> None:
    lone = LoneReplica()
    with pytest.raises(AssertionError) as broken:
        lone.replica.raft.applied(Index(99))
    frames = []
    traceback = broken.value.__traceback__
    while traceback is not None:
        frames.append((Path(traceback.tb_frame.f_code.co_filename).name, traceback.tb_frame.f_code.co_name))
        traceback = traceback.tb_next
    assert frames[-1] == ("raft.py", "applied")


def test_enumerations_are_one_object_each() -> None:
    assert Role("leader") is Role.LEADER and Role.LEADER in {Role.LEADER}
    assert sys.modules[Role.__module__].Role is Role
