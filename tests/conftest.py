"""What a wheel of compiled modules (``RAFTKV_COMPILE=1``) cannot be tested with is skipped there, and says why.

Told: what a test replaces, and what failed. Tells pytest, on a compiled raftkv alone: to skip a test that replaces
something of a compiled module, which compiled code would not look at, or that hands compiled code a stand-in for an
object whose type it proves. On the source, where nothing of this holds, all of them are run.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pkgutil import resolve_name
from types import ModuleType
from typing import Any, Final
from unittest import mock

import pytest

from raftkv.compiled import is_compiled

_STAND_IN: Final = re.compile(r"(?P<wanted>[\w.]+) object expected; got (?P<got>tests\.[\w.]+)$")
"""What compiled code says of an argument, or an attribute, of another type than it was told it has."""

_KEPT: Final = re.compile(r"object attribute '\w+' is read-only$")
"""What an object of a compiled class says to whoever sets one of its methods; our own code sets none."""


def _refuse(target: object, name: str) -> None:
    """Skips the test if that is to be replaced in a compiled module, or in a class or an object of one."""
    if isinstance(target, str):
        path, _, name = target.rpartition(".")
        target = resolve_name(path)
    if not isinstance(target, ModuleType):
        target = sys.modules.get((target if isinstance(target, type) else type(target)).__module__)
    home, file = getattr(target, "__name__", ""), getattr(target, "__file__", None) or ""
    if home.startswith("raftkv.") and file.endswith(tuple(EXTENSION_SUFFIXES)):
        pytest.skip(f"replaces {name} of a compiled module, {home}")


def pytest_configure() -> None:
    """Whatever replaces something is asked first."""
    if not is_compiled():
        return
    patch, enter = pytest.MonkeyPatch.setattr, mock._patch.__enter__

    def setattr_if_seen(self: pytest.MonkeyPatch, target: Any, name: Any, *value: Any, **named: Any) -> None:
        _refuse(target, str(name))
        patch(self, target, name, *value, **named)

    def enter_if_seen(self: Any) -> Any:
        _refuse(self.getter(), self.attribute)
        return enter(self)

    pytest.MonkeyPatch.setattr = setattr_if_seen  # type: ignore[method-assign]
    mock._patch.__enter__ = enter_if_seen  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """A stand-in that compiled code refused, or a method that a test may not replace, ends the test as skipped."""
    try:
        return (yield)
    except TypeError as error:
        stood_in = _STAND_IN.search(str(error)) if is_compiled() else None
        if stood_in is not None:
            pytest.skip(f"hands compiled code a stand-in, {stood_in['got']}, for {stood_in['wanted']}")
        raise
    except AttributeError as kept:
        if is_compiled() and _KEPT.search(str(kept)):
            pytest.skip(f"replaces a method of a compiled class: {kept}")
        raise


@pytest.fixture
def interpreted() -> None:
    """For tests of what is done with the source alone."""
    if is_compiled():
        pytest.skip("is done with the source alone: see ARCHITECTURE.md, what is compiled")
