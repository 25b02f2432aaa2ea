"""Metrics: the names that others rely on, counts that add up, and nobody's data in a label."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from raftkv import Node
from raftkv.kv.machine import KeyValueMachine
from raftkv.node.metrics import RequestMeter
from tests.live.wire import Address, Answer, Connections
from tests.node.nodes import lone_node

FROM_THE_BEGINNING = (
    *("raftkv_core_events_total", "raftkv_core_current_term", "raftkv_core_is_leader", "raftkv_core_commit_index"),
    *("raftkv_core_applied_index", "raftkv_core_last_index", "raftkv_core_durable_index"),
    *("raftkv_replica_writes_in_flight_count", "raftkv_replica_reads_in_flight_count"),
    *("raftkv_node_longest_turn_seconds", "raftkv_storage_log_bytes", "raftkv_node_turns_total"),
    "raftkv_storage_syncs_total",
)
"""Dashboards stand on these: they are never renamed."""
DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"
_NAME = re.compile(r"\braftkv_[a-z0-9_]+\b")


class Asked:
    """A lone node, and a client of its."""

    def __init__(self, node: Node) -> None:
        self.address = Address(*node.config.listen)
        self.connections = Connections()

    async def ask(self, method: str, target: str, body: bytes = b"") -> Answer:
        return await self.connections.exchange(self.address, method, target, body=body, timeout_s=5.0)

    async def metrics(self) -> str:
        return (await self.ask("GET", "/metrics")).body.decode()


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    async with lone_node(tmp_path, KeyValueMachine()) as node:
        made = Asked(node)
        yield made
        made.connections.close()


def samples(text: str) -> dict[str, float]:
    """By name and labels, as they stand."""
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def served(text: str) -> set[str]:
    """The names under which something may be asked for, also where there is nothing to tell at the moment."""
    names = {name.partition("{")[0] for name in samples(text)}
    for family, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        names |= {family} | (
            {f"{family}{end}" for end in ("_bucket", "_sum", "_count")} if kind == "histogram" else set()
        )
    return names


async def test_the_names_that_were_there_stay(asked: Asked) -> None:
    assert [name for name in FROM_THE_BEGINNING if name not in served(await asked.metrics())] == []


async def test_every_name_says_its_room_and_its_unit(asked: Asked) -> None:
    families = re.findall(r"^# TYPE (\S+) (\S+)$", await asked.metrics(), re.MULTILINE)
    rooms = ("core", "replica", "storage", "transport", "api", "node", "process")
    assert [
        name for name, _ in families if not name.startswith((*(f"raftkv_{room}_" for room in rooms), "raftkv_build"))
    ] == []
    assert [name for name, kind in families if kind == "counter" and not name.endswith("_total")] == []


async def test_answers_are_counted_by_action_and_status_and_never_by_a_clients_own_words(asked: Asked) -> None:
    assert (await asked.ask("PUT", "/v1/kv/my-secret-key", b"my-secret-value")).status == 201
    assert (await asked.ask("PUT", "/v1/kv/my-secret-key", b"another")).status == 200
    assert (await asked.ask("GET", "/v1/kv/my-secret-key")).status == 200
    assert (await asked.ask("GET", "/v1/kv/absent")).status == 404
    assert (await asked.ask("GET", "/v1/kv/a?colour=red")).status == 400
    assert (await asked.ask("GET", "/nowhere/my-secret-path")).status == 404
    assert (await asked.ask("MERGE", "/v1/status")).status == 405
    text = await asked.metrics()
    found = samples(text)

    def count(method: str, route: str, status: int) -> float:
        return found[f'raftkv_api_requests_total{{method="{method}",route="{route}",status="{status}"}}']

    assert [count("PUT", "/v1/kv/{key}", status) for status in (200, 201)] == [1, 1]
    assert [count("GET", "/v1/kv/{key}", status) for status in (200, 400, 404)] == [1, 1, 1]
    assert [count("", "", status) for status in (404, 405)] == [1, 1]
    assert found['raftkv_api_request_seconds_count{method="PUT",route="/v1/kv/{key}"}'] == 2
    assert 0 < found['raftkv_api_request_seconds_sum{method="PUT",route="/v1/kv/{key}"}'] < 10
    assert "secret" not in text and "MERGE" not in text and "colour" not in text


async def test_a_write_is_seen_in_the_disk_the_batches_and_the_commits(asked: Asked) -> None:
    before = samples(await asked.metrics())
    for number in range(5):
        assert (await asked.ask("PUT", f"/v1/kv/{number}", b"v")).status == 201
    after = samples(await asked.metrics())

    def grown(name: str) -> float:
        return after[name] - before[name]

    assert grown("raftkv_storage_batch_entries_sum") == grown("raftkv_replica_proposal_entries_sum") == 5
    assert grown("raftkv_replica_commit_seconds_count") == grown("raftkv_replica_proposal_entries_count")
    assert grown("raftkv_storage_sync_seconds_count") == grown("raftkv_storage_syncs_total") > 0
    assert grown("raftkv_node_turn_seconds_count") == grown("raftkv_node_turns_total") > 0
    assert 0 < grown("raftkv_storage_sync_seconds_sum") < 10


async def test_buckets_are_cumulative_and_end_with_all(asked: Asked) -> None:
    await asked.ask("PUT", "/v1/kv/a", b"v")
    found = samples(await asked.metrics())
    for name in ("storage_sync_seconds", "storage_batch_entries", "node_turn_seconds", "replica_commit_seconds"):
        buckets = [value for sample, value in found.items() if sample.startswith(f"raftkv_{name}_bucket")]
        assert buckets == sorted(buckets)
        assert buckets[-1] == found[f"raftkv_{name}_count"] > 0


async def test_the_longest_turn_since_the_last_scrape_begins_anew(asked: Asked) -> None:
    name = "raftkv_node_longest_turn_since_scrape_seconds"
    first = samples(await asked.metrics())
    assert first[name] == first["raftkv_node_longest_turn_seconds"] > 0
    second = samples(await asked.metrics())
    assert second["raftkv_node_longest_turn_seconds"] >= first["raftkv_node_longest_turn_seconds"]
    assert second[name] <= second["raftkv_node_longest_turn_seconds"]


async def test_the_process_and_what_runs_in_it_are_told(asked: Asked) -> None:
    found = samples(await asked.metrics())
    assert found["raftkv_process_resident_memory_bytes"] > 10**7
    assert found["raftkv_process_open_fds"] > 3
    assert found["raftkv_process_cpu_seconds_total"] > 0
    (build,) = (name for name in found if name.startswith("raftkv_build_info"))
    assert 'version="' in build
    assert (found["raftkv_node_is_alive"], found["raftkv_node_is_ready"]) == (1, 1)


@pytest.mark.parametrize("name", ["grafana-dashboard.json", "alerts.yml"])
async def test_what_is_deployed_asks_only_for_metrics_that_a_node_serves(asked: Asked, name: str) -> None:
    await asked.ask("PUT", "/v1/kv/a", b"v")
    text = (DEPLOY / name).read_text()
    if name.endswith(".json"):
        expressions = [target["expr"] for panel in json.loads(text)["panels"] for target in panel.get("targets", ())]
    else:
        expressions = re.findall(r"^ +expr: *(.+)$", text, re.MULTILINE)
    used = {found for expression in expressions for found in _NAME.findall(expression)}
    assert len(used) > 10, "nothing is left to check"
    assert used - served(await asked.metrics()) == set()


def test_a_meter_tells_each_action_from_the_others() -> None:
    now = iter([5_000_000, 9_000_000, 9_000_500])
    meter = RequestMeter(lambda: next(now))
    meter.answered(("GET", "/a"), 200, 1_000_000)
    meter.answered(("GET", "/a"), 500, 1_000_000)
    meter.answered(("PUT", "/a"), 200, 9_000_000)
    counts, times_us = meter.series["GET", "/a"]
    assert (counts, times_us.total, times_us.count) == ({200: 1, 500: 1}, 12_000, 2)
    assert meter.series["PUT", "/a"][0] == {200: 1}
