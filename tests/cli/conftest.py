"""What the tests of the command line share: fake nodes, and running a command in this process."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from raftkv.cli.main import main
from tests.cli.fake_node import FakeNode


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


@pytest.fixture(autouse=True)
def nobodys_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees a cluster or a setting of whoever runs it."""
    for name in ("RAFTKV_ENDPOINTS", "RAFTKV_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A node that is served within this process says for all of it what is logged, and how."""
    loggers = [logging.root, logging.getLogger("raftkv")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    for handler in list(logging.root.handlers):
        if type(handler) is logging.StreamHandler:  # pytest's own inherit from it
            logging.root.removeHandler(handler)
    logging.captureWarnings(capture=False)


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    def run_command(*words: str, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main(words)
        out, err = capfdbinary.readouterr()
        return Ended(code, out, err.decode())

    return run_command


@pytest.fixture
def make_node() -> Iterator[Callable[[], FakeNode]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(FakeNode().serving())


@pytest.fixture
def node(make_node: Callable[[], FakeNode]) -> FakeNode:
    return make_node()
