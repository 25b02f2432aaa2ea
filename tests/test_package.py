"""What ``import raftkv`` gives an embedder, and what it does not cost."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from typing import Any

import pytest

import raftkv
from raftkv import ConfigError, LogEntry, NodeConfig, StateMachine, config

THREE = {f"n{i}": f"http://127.0.0.1:{7400 + i}" for i in (1, 2, 3)}


def test_importing_the_package_alone_loads_none_of_it() -> None:
    """The command line imports it for every get and put."""
    seen = "import raftkv, sys; print(sorted(n for n in sys.modules if n.startswith(('raftkv.', 'asyncio'))))"
    assert subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_name_that_is_promised_is_there() -> None:
    for name in raftkv.__all__:
        assert getattr(raftkv, name) is not None
    assert set(raftkv.__all__) <= set(dir(raftkv))
    with pytest.raises(AttributeError, match="has no attribute 'Nod'"):
        raftkv.Nod  # type: ignore[attr-defined]  # noqa: B018 - asking is what fails


def test_type_checkers_are_told_that_there_are_types() -> None:
    assert (files("raftkv") / "py.typed").is_file()


def test_a_configuration_in_code_is_the_one_that_flags_make(tmp_path) -> None:
    made = NodeConfig.of(id="n1", data_dir=tmp_path, url=THREE["n1"], initial_cluster=THREE, heartbeat_ms=50)
    flags = {
        "id": "n1",
        "data-dir": str(tmp_path),
        "url": THREE["n1"],
        "initial-cluster": ",".join(f"{id}={url}" for id, url in THREE.items()),
        "heartbeat-ms": "50",
    }
    assert made == config.load(flags=flags, environment={})


@pytest.mark.parametrize(
    ("settings", "problems"),
    [
        ({"hearbeat_ms": 50}, ["hearbeat_ms is not a setting; did you mean heartbeat_ms?"]),
        ({"heartbeat-ms": 50}, ["heartbeat-ms is not a setting; did you mean heartbeat_ms?"]),
        ({"id": "n 1"}, ["id: 'n 1' is not a node id"]),
        (
            {"heartbeat_ms": 400, "listen": "0.0.0.0:7401", "nonsense": 1},
            ["nonsense is not a setting", "heartbeat_ms (400) must be at most half of election_timeout_ms", "0.0.0.0"],
        ),
        ({"initial_cluster": {"n2": THREE["n2"]}}, ["initial_cluster does not list this node, n1"]),
    ],
)
def test_every_problem_is_told_at_once_in_pythons_words(
    tmp_path, settings: dict[str, Any], problems: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        NodeConfig.of(**({"id": "n1", "data_dir": tmp_path, "url": THREE["n1"], "initial_cluster": THREE} | settings))
    found = refused.value.problems
    assert len(found) == len(problems)
    assert all(problem in told for problem, told in zip(problems, found, strict=True))
    assert not any(setting.flag in told for told in found for setting in config.SETTINGS)


def test_the_environment_is_not_looked_at(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RAFTKV_HEARTBEAT_MS", "7")
    made = NodeConfig.of(id="n1", data_dir=tmp_path, url=THREE["n1"], initial_cluster=THREE)
    assert made.raft.heartbeat_ms == 100


def test_a_machine_needs_four_methods_and_has_defaults_for_the_rest() -> None:
    class Least(StateMachine):
        def apply_batch(self, entries: Any) -> list[int]:
            return [len(entry.command) for entry in entries]

        def query(self, query: Any) -> None:
            return None

        def snapshot(self) -> bytes:
            return b""

        def restore(self, snapshot: bytes) -> None:
            return None

    least = Least()
    assert least.apply_batch([LogEntry(1, 0, b"two")]) == [3]
    assert (least.tick_due_ms(), least.state_hash()) == (None, None)
    assert list(least.capture().blocks()) == [] and list(least.discard()) == []

    class Less(StateMachine):
        def query(self, query: Any) -> None:
            return None

    with pytest.raises(TypeError, match=r"abstract methods apply_batch, restore, snapshot"):
        Less()  # type: ignore[abstract]
