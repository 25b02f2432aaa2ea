"""Prometheus metrics of one node, read off the replica when they are asked for.

Names are ``raftkv_<room>_<noun>_<unit>``; no key is ever a label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from raftkv.core.types import Role


@dataclass(frozen=True, slots=True)
class Reading:
    """The figures of one moment."""

    term: int
    role: Role
    commit_index: int
    applied_index: int
    last_index: int
    durable_index: int
    writes_in_flight: int
    reads_in_flight: int
    turns: int
    longest_turn_us: int
    syncs: int
    log_bytes: int


class _Source(Protocol):
    def __call__(self) -> Reading | None: ...


class NodeMetrics:
    """Counts events by name, and reads everything else when it is scraped."""

    def __init__(self, read: _Source) -> None:
        self.events: Counter[str] = Counter()
        self._read = read
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """The exposition format."""
        exposition: bytes = generate_latest(self._registry)
        return exposition

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        events = CounterMetricFamily("raftkv_core_events", "Notes of the core, by name.", labels=["event"])
        for event, count in sorted(self.events.items()):
            events.add_metric([event], count)
        yield events
        reading = self._read()
        if reading is None:
            return
        for name, help_text, value in _GAUGES:
            yield GaugeMetricFamily(f"raftkv_{name}", help_text, value(reading))
        for name, help_text, value in _COUNTERS:
            yield CounterMetricFamily(f"raftkv_{name}", help_text, value(reading))


_Figures = tuple[tuple[str, str, Callable[[Reading], float]], ...]
_GAUGES: _Figures = (
    ("core_current_term", "The current term.", lambda reading: reading.term),
    ("core_is_leader", "1 while this node leads.", lambda reading: reading.role is Role.LEADER),
    ("core_commit_index", "The highest committed entry.", lambda reading: reading.commit_index),
    ("core_applied_index", "The highest applied entry.", lambda reading: reading.applied_index),
    ("core_last_index", "The end of the log.", lambda reading: reading.last_index),
    ("core_durable_index", "The end of what is on stable storage here.", lambda reading: reading.durable_index),
    ("replica_writes_in_flight_count", "Writes not answered yet.", lambda reading: reading.writes_in_flight),
    ("replica_reads_in_flight_count", "Reads not answered yet.", lambda reading: reading.reads_in_flight),
    ("node_longest_turn_seconds", "The longest turn of the pump.", lambda reading: reading.longest_turn_us / 1e6),
    ("storage_log_bytes", "Size of the log's segments.", lambda reading: reading.log_bytes),
)
_COUNTERS: _Figures = (
    ("node_turns", "Turns of the pump.", lambda reading: reading.turns),
    ("storage_syncs", "Batches written and synced.", lambda reading: reading.syncs),
)
