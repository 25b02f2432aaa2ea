"""What is installed for the comparison: each by itself, with all that it brings, by its hash."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import environment
from benchmarks.systems import inside

REQUIREMENTS = """\
one==1.0 \\
    --hash=sha256:aa
    # via -r requirements-bench.in
other==2.0 \\
    --hash=sha256:bb \\
    --hash=sha256:cc
    # via
    #   deep-er
    #   one
deep-er==3.0 \\
    --hash=sha256:dd
    # via one
alone==4.0 \\
    --hash=sha256:ee
    # via -r requirements-bench.in
"""


def test_a_requirement_brings_what_it_needs_and_no_more() -> None:
    requirements = environment.pinned(REQUIREMENTS)
    assert environment.closure(requirements, "one") == ["one", "other", "deep-er"]
    assert environment.closure(requirements, "alone") == ["alone"]
    assert requirements["other"][0] == "other==2.0 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc"


def test_everything_that_is_named_is_pinned_by_hash_and_nothing_else_is_there() -> None:
    requirements = environment.pinned(environment.REQUIREMENTS.read_text())
    names = [line for line in environment.NAMES.read_text().splitlines() if line and not line.startswith("#")]
    reached = {part for name in names for part in environment.closure(requirements, name)}
    assert reached == set(requirements)
    for name, (lines, _) in requirements.items():
        assert re.match(rf"{re.escape(name)}==[\w.]+ \\\n    --hash=sha256:[0-9a-f]{{64}}", lines)


def test_a_compiled_raftkv_is_that_of_its_own_environment_and_no_source_that_lies_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/nowhere/{name}")
    monkeypatch.setattr(environment, "COMPILED", tmp_path / "python")
    names = ("raftkv-compiled", "raftkv-inside-compiled", "raftkv-client-compiled")
    for name in names:
        assert "scripts/compiled" in environment.look().missing[name]
    (tmp_path / "python").touch()
    for name in names:
        made = environment.look().makes[name](tmp_path / name)
        assert made.name == name
        for command in made.cluster.commands:
            assert command[0].endswith(".venv-compiled/bin/python")
            assert command[1] == "-I"


def test_what_lies_in_the_checkout_stands_behind_what_is_installed(tmp_path: Path) -> None:
    """A module of the checkout is found there, and one that is installed where it is installed."""
    installed, checkout = tmp_path / "installed", tmp_path / "checkout"
    for directory, names in ((installed, ("both",)), (checkout, ("both", "asked"))):
        directory.mkdir()
        for name in names:
            (directory / f"{name}.py").write_text(f"WHERE = {directory.name!r}")
    (checkout / "asked.py").write_text("import both, sys; print(both.WHERE, *sys.argv[1:])")
    run_module = inside._RUN_MODULE.replace("ROOT", repr(str(checkout)))
    text = f"import sys; sys.path.insert(0, {str(installed)!r})\n{run_module}"
    told = subprocess.run(
        [sys.executable, "-I", "-c", text, "asked", "--id", "n1"], capture_output=True, text=True, check=False
    )
    assert (told.stdout, told.stderr) == ("installed --id n1\n", "")
