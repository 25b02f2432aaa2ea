"""Writes that happen once though they arrive twice: a session for the length of one command.

Told: a cluster. Tells: answers that are the cluster's first and only ones. See "Exactly once" in the README.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, Protocol

from raftkv.cli.answers import refused
from raftkv.cli.asking import Cluster
from raftkv.cli.exchange import Answer, Request
from raftkv.cli.failures import CommandFailed, OutcomeUnknown, Unreachable

SPARE_S: Final = 10.0
"""How much longer the session lives than the command goes on asking."""
TTL_S_MAX: Final = 86_400.0
GOODBYE_S: Final = 1.0


class Writer(Protocol):
    """Whoever brings a write to the cluster."""

    def ask(self, request: Request) -> Answer:
        """A decided answer."""


class Session:
    """One session; its numbers go up by one for each request."""

    def __init__(self, cluster: Cluster, id: str) -> None:
        self._cluster, self._id, self._sequence = cluster, id, 0

    def ask(self, request: Request) -> Answer:
        """The answer of the one time that the request was executed, however often it was sent."""
        self._sequence += 1
        numbers = {
            "Raftkv-Session": self._id,
            "Raftkv-Sequence": str(self._sequence),
            "Raftkv-Acknowledged": str(self._sequence - 1),
        }
        return self._cluster.ask(replace(request, headers={**request.headers, **numbers}), repeatable=True)


@contextmanager
def writer(cluster: Cluster, *, exactly_once: bool) -> Iterator[Writer]:
    """The cluster itself, or a session in it that ends with this."""
    if not exactly_once:
        yield cluster
        return
    ttl_ms = int(min(cluster.patience_s + SPARE_S, TTL_S_MAX) * 1000)
    body = json.dumps({"ttl_ms": ttl_ms}).encode()
    # A session that was opened and not heard of expires by itself.
    request = Request("POST", "/v1/sessions", body, {"Content-Type": "application/json"})
    try:
        opened = cluster.ask(request, repeatable=True)
    except OutcomeUnknown as error:
        raise Unreachable("no session could be opened in time. Nothing was written; see `raftkv status`.") from error
    id = opened.json().get("session")
    if opened.status != 201 or not isinstance(id, str):
        raise refused(opened)
    yield Session(cluster, id)
    _end(cluster, id)


def _end(cluster: Cluster, id: str) -> None:
    """Politeness: what is not ended expires by itself, so a failure here changes nothing."""
    try:
        Cluster(cluster.endpoints, patience_s=GOODBYE_S).ask(Request("DELETE", f"/v1/sessions/{id}"), repeatable=True)
    except CommandFailed:
        return
