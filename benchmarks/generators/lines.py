"""How a node that holds a cluster inside this process is spoken to: a line of JSON in, a line of JSON out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.work import Work


def heard() -> Iterator[dict[str, Any]]:
    """What it is told to do, until whoever tells it is gone."""
    for line in sys.stdin:
        yield json.loads(line)


def work_of(told: dict[str, Any]) -> Work:
    """As ``dataclasses.asdict`` wrote it."""
    return Work(**told["work"])


def command_of(number: int, value: bytes) -> bytes:
    """A put as an embedded machine reads it: sixteen bytes of key, then the value."""
    return b"key-%012d" % number + value
