"""``module:Class``: the user's own state machine, found and looked at before anything is simulated with it."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from raftkv.cli.failures import Unusable
from raftkv.sim.checks.machines import MakeMachine
from raftkv.sim.machine import missing_in


def find_machine(place: str) -> MakeMachine:
    """The class that this names, importable from here or from where Python looks; raises Unusable."""
    module_name, _, path = place.partition(":")
    if not module_name or not path:
        raise Unusable(f"--state-machine wants module:Class, like examples.tickets:Tickets, not {place!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = import_module(module_name)
    except Exception as error:
        raise Unusable(f"--state-machine: {module_name} cannot be imported: {_told(error)}") from error
    for name in path.split("."):
        found = getattr(found, name, None)  # type: ignore[assignment]
    if not callable(found):
        raise Unusable(f"--state-machine: there is no class {path} in {module_name}")
    try:
        machine = found()
    except Exception as error:
        raise Unusable(f"--state-machine: {place} cannot be made without arguments: {_told(error)}") from error
    missing = missing_in(machine)
    if missing:
        raise Unusable(
            f"--state-machine: {place} lacks {'; '.join(missing)}. `raftkv.sim.SimulatedMachine` says what each is for."
        )
    return found


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
