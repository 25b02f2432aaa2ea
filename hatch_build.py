"""Builds the wheel; asked to, with what a request passes on its way compiled to machine code.

Told: by hatchling, that a wheel is wanted, and by the environment (RAFTKV_COMPILE=1), that it is to be a compiled one.
Tells: which files go into it. May never know: what raftkv does.

mypyc compiles the very source that is run without it, in a copy of the tree: a library that was left beside a source
file would be imported in its place, however old it is. What cannot be compiled ends the build; nobody who asked for a
compiled raftkv gets another one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ASKED_BY = "RAFTKV_COMPILE"
NEEDED = ["mypy==2.4.1", "setuptools>=77"]
"""And a C compiler, and Python's headers. mypy is the one that the tests were run on a compiled wheel with."""
SETUP = """
from mypyc.build import mypycify
from setuptools import setup

setup(
    name="raftkv",
    packages=[],
    ext_modules=mypycify(
        ["--config-file", "mypy.ini", *{files!r}], opt_level="2", debug_level="0", group_name="raftkv"
    ),
)
"""
MYPY_INI = "[mypy]\nignore_missing_imports = true\n"
"""Whether the types are right was asked elsewhere, with everything installed that they speak of."""


class CompiledRooms(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles what ``compiled`` names in pyproject.toml, less what ``interpreted`` does."""

    _copy: str | None = None

    def dependencies(self) -> list[str]:
        """What the build needs beside hatchling."""
        return NEEDED if _is_asked() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the libraries to a wheel."""
        if not _is_asked():
            return
        if version != "standard":
            raise ValueError(f"an editable install runs the source as it stands: leave {ASKED_BY} out")
        self._copy = copy = tempfile.mkdtemp(prefix="raftkv-compiled-")
        try:
            libraries = self._compile(copy)
        except BaseException:
            shutil.rmtree(copy)
            raise
        build_data["force_include"].update({str(path): str(path.relative_to(copy)) for path in libraries})
        build_data["pure_python"], build_data["infer_tag"] = False, True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Nothing is left of the copy."""
        if self._copy is not None:
            shutil.rmtree(self._copy)

    def _compile(self, copy: str) -> list[Path]:
        """The libraries, beside the sources in the copy: one for each module, and one that has what all of them do."""
        shutil.copytree(
            Path(self.root, "raftkv"), Path(copy, "raftkv"), ignore=shutil.ignore_patterns("__pycache__", "*.so")
        )
        files = self._files(Path(copy))
        Path(copy, "setup.py").write_text(SETUP.format(files=files))
        Path(copy, "mypy.ini").write_text(MYPY_INI)
        compiled = subprocess.run(
            [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
            cwd=copy,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        libraries = [path for path in Path(copy).rglob("*.so") if "build" not in path.relative_to(copy).parts]
        if compiled.returncode or len(libraries) != len(files) + 1:
            raise RuntimeError(f"{ASKED_BY}=1, and raftkv could not be compiled:\n{compiled.stdout}")
        return libraries

    def _files(self, tree: Path) -> list[str]:
        """Those that are to be compiled; a name in pyproject.toml that is nobody's ends the build."""
        found: dict[str, set[str]] = {}
        for key in ("compiled", "interpreted"):
            found[key] = set()
            for pattern in self.config[key]:
                matched = {str(path.relative_to(tree)) for path in tree.glob(pattern)}
                if not matched:
                    raise ValueError(f"pyproject.toml names {pattern} to be {key}, and there is none")
                found[key] |= matched
        return sorted(path for path in found["compiled"] - found["interpreted"] if not path.endswith("__init__.py"))


def _is_asked() -> bool:
    asked = os.environ.get(ASKED_BY, "")
    if asked not in ("", "0", "1"):
        raise ValueError(f"{ASKED_BY} is {asked!r}; it must be 1, or 0, or not set")
    return asked == "1"
