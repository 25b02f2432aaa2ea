"""Prometheus metrics of one node: read off its parts when they are asked for, counted as whole numbers meanwhile.

Names are ``raftkv_<room>_<noun>_<unit>``; no key is ever a label. Nothing of the Prometheus client is touched until
somebody asks: what the hot path counts are slots of ``figures.Histogram`` and plain dictionaries.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from raftkv import __version__
from raftkv.api.metering import Kind
from raftkv.api.service import Status
from raftkv.core.types import Role
from raftkv.node.clock import TurnMeter
from raftkv.node.diagnostics import Parts, oldest_wait_us
from raftkv.node.disk import DiskThread
from raftkv.node.figures import Histogram
from raftkv.node.logs import CORE_EVENTS
from raftkv.node.snapshots import SnapshotMeter
from raftkv.replica import Replica

_REQUEST_BITS: Final = range(7, 25)
"""Buckets of requests: 128 µs to 16.8 s."""
_SYNC_BITS: Final = range(5, 24)
"""Buckets of syncs, commits and turns: 32 µs to 8.4 s."""
_ENTRY_BITS: Final = range(15)
"""Buckets of entries in a batch: 0, 1, 3, 7 … 16,383."""
_US: Final = 1_000_000


class RequestMeter:
    """Satisfies ``raftkv.api.metering.Meter``; about a microsecond a request."""

    def __init__(self, clock_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self.clock_ns = clock_ns
        self.series: dict[Kind, tuple[dict[int, int], Histogram]] = {}
        """Of each action: how often each status, and how long all of them took, in microseconds."""

    def answered(self, kind: Kind, status: int, began_ns: int) -> None:
        """One answer more."""
        took_us = (self.clock_ns() - began_ns) // 1000
        series = self.series.get(kind)
        if series is None:
            series = self.series[kind] = ({}, Histogram())
        counts, times_us = series
        counts[status] = counts.get(status, 0) + 1
        times_us.buckets[took_us.bit_length()] += 1
        times_us.total += took_us


class NodeMetrics:
    """Counts events by name and requests, and reads everything else when it is scraped."""

    def __init__(self, parts: Callable[[], Parts]) -> None:
        """``parts`` is called when somebody asks, and not before the node is whole."""
        self.events: Counter[str] = Counter()
        self.requests = RequestMeter()
        self._parts = parts
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(namespace="raftkv", registry=self._registry)

    def text(self) -> bytes:
        """The exposition format."""
        exposition: bytes = generate_latest(self._registry)
        return exposition

    def describe(self) -> Iterable[Metric]:
        """Called by the registry, which must not ask a node that is being made."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        parts = self._parts()
        status = parts.status()
        yield from self._counted()
        yield from _of_node(parts, status)
        yield from _of_links(parts)
        if parts.replica is not None and parts.disk is not None:
            yield from _of_core(parts.replica, status)
            yield from _of_replica(parts, parts.replica)
            yield from _of_disk(parts.disk, parts.replica)
            yield from _of_turns(parts.turns)
            if parts.snapshots is not None:
                yield from _of_snapshots(parts.snapshots.meter, parts.replica)

    def _counted(self) -> Iterator[Metric]:
        events = CounterMetricFamily("raftkv_core_events", "Notes of the core, by name.", labels=["event"])
        for event in sorted({*CORE_EVENTS, *self.events}):  # from 0 on: an increase to the first is seen only so
            events.add_metric([event], self.events[event])
        yield events
        changes = self.events["became_leader"] + self.events["follows"]
        yield _counter("core_elections", "Elections in which this node stood.", self.events["stands"])
        yield _counter("core_leader_changes", "How often this node led, or followed somebody, anew.", changes)
        labels = ["method", "route"]
        requests = CounterMetricFamily(
            "raftkv_api_requests", "Answers, by action and status.", labels=[*labels, "status"]
        )
        times = HistogramMetricFamily("raftkv_api_request_seconds", "From head to answer, by action.", labels=labels)
        for kind, (counts, times_us) in sorted(self.requests.series.items()):
            for status, count in sorted(counts.items()):
                requests.add_metric([*kind, str(status)], count)
            times.add_metric(list(kind), *_buckets(times_us, _REQUEST_BITS, unit=_US))
        yield requests
        yield times


def _of_node(parts: Parts, status: Status) -> Iterator[Metric]:
    build = GaugeMetricFamily("raftkv_build_info", "1; what runs stands in the labels.", labels=["version", "python"])
    build.add_metric([__version__, platform.python_version()], 1)
    yield build
    yield _gauge("node_uptime_seconds", "Since this node was made.", status.uptime_ms / 1000)
    yield _gauge("node_is_alive", "1 while /healthz says so.", status.health.dead_because is None)
    yield _gauge("node_is_ready", "1 while /readyz says so.", not status.health.unready)
    yield _counter("node_stalls", "How often the event loop stood still for 150 ms.", parts.watch.stalls_count)
    stalled_us = parts.watch.longest_stall_us
    yield _gauge("node_longest_stall_seconds", "The longest of them since the start.", stalled_us / _US)


def _of_links(parts: Parts) -> Iterator[Metric]:
    connected = GaugeMetricFamily("raftkv_transport_link_is_connected", "1 while it is.", labels=["peer"])
    silence = GaugeMetricFamily(
        "raftkv_transport_link_silence_seconds", "Since the peer answered anything.", labels=["peer"]
    )
    links = [link for link, _ in parts.peers.links()]
    for link in links:
        connected.add_metric([link.peer], link.is_connected)
        if link.answered_at_s is not None:
            silence.add_metric([link.peer], max(0.0, parts.watch.loop_time_s() - link.answered_at_s))
    yield connected
    yield silence
    count = sum(link.is_connected for link in links)
    yield _gauge("transport_links_connected_count", "Links to peers that are connected.", count)
    yield _gauge("transport_links_count", "Links to peers that there should be.", len(links))


def _of_core(replica: Replica, status: Status) -> Iterator[Metric]:
    raft = replica.raft
    yield _gauge("core_current_term", "The current term.", raft.term)
    yield _gauge("core_is_leader", "1 while this node leads.", raft.role is Role.LEADER)
    yield _gauge("core_has_leader", "1 while this node knows who leads.", status.leader_id is not None)
    yield _gauge("core_commit_index", "The highest committed entry.", raft.commit_index)
    yield _gauge("core_applied_index", "The highest applied entry.", raft.applied_index)
    yield _gauge("core_last_index", "The end of the log.", raft.last_index)
    yield _gauge("core_durable_index", "The end of what is on stable storage here.", raft.durable_index)
    lag = GaugeMetricFamily(
        "raftkv_core_peer_lag_entries", "At the leader: how far each peer is behind.", labels=["peer"]
    )
    office = raft.state.office
    if office is not None:
        for peer, progress in sorted(office.progress.items()):
            lag.add_metric([peer], max(0, raft.last_index - progress.match_index))
    yield lag


def _of_replica(parts: Parts, replica: Replica) -> Iterator[Metric]:
    yield _gauge("replica_writes_in_flight_count", "Writes not answered yet.", replica.writes_in_flight)
    yield _gauge("replica_reads_in_flight_count", "Reads not answered yet.", replica.reads_in_flight)
    staleness = GaugeMetricFamily("raftkv_replica_staleness_seconds", "How old, at most, what is applied here can be.")
    staleness_us = replica.raft.state.staleness_us
    if staleness_us is not None:
        staleness.add_metric([], staleness_us / _US)
    yield staleness
    commits = "At the leader: from a proposal to its commit."
    yield _histogram("replica_commit_seconds", commits, parts.watch.commits_us, _SYNC_BITS, unit=_US)
    entries = "At the leader: entries in one proposal."
    yield _histogram("replica_proposal_entries", entries, parts.watch.proposal_entries, _ENTRY_BITS, unit=1)


def _of_disk(disk: DiskThread, replica: Replica) -> Iterator[Metric]:
    meter = disk.meter
    yield _gauge("storage_log_bytes", "Size of the log's segments.", disk.log_bytes)
    yield _counter("storage_syncs", "Batches written and synced.", disk.syncs_count)
    yield _histogram("storage_sync_seconds", "Writing and syncing one batch.", meter.syncs_us, _SYNC_BITS, unit=_US)
    entries = "Entries in one batch on disk; 0: a vote alone."
    yield _histogram("storage_batch_entries", entries, meter.batch_entries, _ENTRY_BITS, unit=1)
    waits_us = oldest_wait_us(disk, replica)
    yield _gauge("storage_oldest_wait_seconds", "How long the oldest unfinished write has waited.", waits_us / _US)
    yield _gauge("storage_room_is_short", "1 while the disk has no room and puts are refused.", disk.room_is_short)
    free = GaugeMetricFamily("raftkv_storage_free_bytes", "What the disk had room for lately.")
    if meter.free_bytes is not None:
        free.add_metric([], meter.free_bytes)
    yield free


def _of_snapshots(meter: SnapshotMeter, replica: Replica) -> Iterator[Metric]:
    snapshots = replica.snapshots
    yield _gauge("snapshot_index", "The last entry in the newest snapshot here; 0: there is none.", snapshots.index)
    yield _gauge("snapshot_bytes", "Size of the newest snapshot.", snapshots.size_bytes)
    yield _gauge("snapshot_log_bytes", "Applied since the newest snapshot.", snapshots.log_bytes)
    yield _gauge("snapshot_is_taken", "1 while a snapshot is being written.", snapshots.is_taking)
    yield _gauge("snapshot_is_loading", "1 while one that was sent is loaded, and nothing read.", snapshots.is_loading)
    yield _counter("snapshot_writes", "Snapshots of its own state that this node has taken.", snapshots.taken_count)
    yield _counter(
        "snapshot_unproved", "Of these, those whose state no majority confirmed in time.", snapshots.unproved_count
    )
    yield _counter("snapshot_failures", "Attempts at one that came to nothing.", snapshots.failures_count)
    yield _counter("snapshot_loads", "Snapshots that were sent, and loaded.", snapshots.loaded_count)
    yield _gauge("snapshot_last_write_seconds", "From its capture until it was in place.", meter.last_write_us / _US)
    yield _gauge("snapshot_last_load_seconds", "What the last load after the start took.", meter.last_load_us / _US)
    yield _counter("snapshot_written_bytes", "Written for snapshots.", meter.written_bytes)
    yield _counter("snapshot_sent_bytes", "Read for nodes that need a snapshot.", meter.sent_bytes)
    yield _counter("snapshot_backup_bytes", "Read for clients that want a backup.", meter.backup_bytes)
    yield _counter("snapshot_received_bytes", "Received of snapshots.", meter.received_bytes)


def _of_turns(turns: TurnMeter) -> Iterator[Metric]:
    yield _counter("node_turns", "Turns of the pump.", turns.turns_us.count)
    yield _gauge("node_longest_turn_seconds", "The longest turn of the pump.", turns.longest_us / _US)
    since_us, turns.longest_since_look_us = turns.longest_since_look_us, 0
    text = "The longest turn of the pump since this was last asked for, by whomever."
    yield _gauge("node_longest_turn_since_scrape_seconds", text, since_us / _US)
    yield _histogram("node_turn_seconds", "Turns of the pump.", turns.turns_us, _SYNC_BITS, unit=_US)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"raftkv_{name}", text, float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"raftkv_{name}", text, float(value))


def _histogram(name: str, text: str, values: Histogram, bits: range, *, unit: int) -> Metric:
    family = HistogramMetricFamily(f"raftkv_{name}", text)
    family.add_metric([], *_buckets(values, bits, unit=unit))
    return family


def _buckets(values: Histogram, bits: range, *, unit: int) -> tuple[list[tuple[str, float]], float]:
    """Prometheus' cumulative buckets, and the sum; times that are exactly a bound count in the next bucket."""
    bounds = [(1 << place) - 1 if unit == 1 else (1 << place) / unit for place in bits]
    told: list[tuple[str, float]] = [
        (repr(float(bound)), values.up_to(place)) for bound, place in zip(bounds, bits, strict=True)
    ]
    return [*told, ("+Inf", values.count)], values.total / unit
