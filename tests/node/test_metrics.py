"""Metrics: the names that others rely on, counts that add up, and nobody's data in a label."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from raftkv import Node, RaftkvError
from raftkv.kv.machine import KeyValueMachine
from raftkv.node.logs import CORE_EVENTS
from raftkv.node.metrics import RequestMeter
from tests.live.wire import Address, Answer, Connections
from tests.node import exposition
from tests.node.nodes import Adder, configs, lone_node, ready, running
from tests.node.test_doors import leader_of_stores

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
    rooms = ("core", "replica", "snapshot", "storage", "transport", "api", "node", "process")
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


def expressions(name: str) -> list[str]:
    """Everything in the file that Prometheus is to evaluate, wherever it stands."""
    text = (DEPLOY / name).read_text()

    def within(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from [inner] if key in ("expr", "query") and isinstance(inner, str) else within(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from within(inner)

    return [
        each
        for each in within(json.loads(text) if name.endswith(".json") else yaml.safe_load(text))
        if "(" in each or "raftkv" in each
    ]


@pytest.mark.parametrize("name", ["grafana-dashboard.json", "alerts.yml"])
async def test_what_is_deployed_asks_only_for_what_a_node_serves(asked: Asked, name: str) -> None:
    """To Prometheus a name, label or event that nobody has is no error: the panel stays empty, the alert silent."""
    await asked.ask("PUT", "/v1/kv/a", b"v")
    text = await asked.metrics()
    used = {found for expression in expressions(name) for found in _NAME.findall(expression)}
    assert len(used) > 10, "nothing is left to check"
    assert used - served(text) == set()
    assert set(_NAME.findall((DEPLOY / name).read_text())) == used, "one stands elsewhere"
    not_here = {"peer", "job", "instance"}
    """A lone node has no peers; the others are Prometheus' own."""
    chosen = {label for each in expressions(name) for label in re.findall(r'(\w+) *(?:=|!=|=~|!~) *"', each)}
    grouped = {
        label
        for each in expressions(name)
        for group in re.findall(r"\b(?:by|on) *\(([^)]*)\)", each)
        for label in re.findall(r"\w+", group)
    }
    assert chosen | grouped <= exposition.read(text).labels() | not_here
    events = {
        each
        for text in expressions(name)
        for found in re.findall(r'event=~?"([^"]*)"', text)
        for each in found.split("|")
    }
    assert events <= set(CORE_EVENTS)


async def test_what_the_core_may_note_is_counted_from_nothing_on(asked: Asked) -> None:
    """A counter that is first seen at 1 has not risen: an alert on its increase would sleep through the only time."""
    found = samples(await asked.metrics())
    counts = {event: found[f'raftkv_core_events_total{{event="{event}"}}'] for event in CORE_EVENTS}
    assert counts["became_leader"] == 1 and counts["replicas_disagree"] == counts["state_is_wrong"] == 0


def test_a_meter_tells_each_action_from_the_others() -> None:
    now = iter([5_000_000, 9_000_000, 9_000_500])
    meter = RequestMeter(lambda: next(now))
    meter.answered(("GET", "/a"), 200, 1_000_000)
    meter.answered(("GET", "/a"), 500, 1_000_000)
    meter.answered(("PUT", "/a"), 200, 9_000_000)
    counts, times_us = meter.series["GET", "/a"]
    assert (counts, times_us.total, times_us.count) == ({200: 1, 500: 1}, 12_000, 2)
    assert meter.series["PUT", "/a"][0] == {200: 1}


# --------------------------------------------------------------------------------------------- their form


async def scraped(node: Node) -> exposition.Exposition:
    """As any scraper reads it, which checks it too."""
    answer = await Connections().exchange(Address(*node.config.listen), "GET", "/metrics", timeout_s=5.0, kept=False)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    text = answer.body.decode()
    found = exposition.read(text)
    assert found.complaints == []
    families = list(text_string_to_metric_families(text))
    told = {(sample.name, tuple(sorted(sample.labels.items()))) for family in families for sample in family.samples}
    assert {sample[:2] for family in found.families for sample in family.samples} == told, "as Prometheus' own parser"
    return found


async def test_what_is_served_is_in_order_from_the_first_moment_on(tmp_path: Path) -> None:
    first, *_ = configs(tmp_path, 3)
    async with Node(first, state_machine=Adder()) as node:
        assert len((await scraped(node)).families) > 10, "while it waits for the others"


async def a_few_requests(node: Node, round: int) -> None:
    connections, address = Connections(), Address(*node.config.listen)
    for number in range(20):
        await connections.exchange(address, "PUT", f"/v1/kv/{round}-{number}", body=b"v", timeout_s=5.0)
    for target in ("/v1/kv/absent", "/v1/kv/a?mistyped=1", "/nowhere", "/v1/kv/a?consistency=follower"):
        await connections.exchange(address, "GET", target, timeout_s=5.0)
    connections.close()


async def test_what_is_counted_never_falls_and_never_goes(tmp_path: Path) -> None:
    """While writes come, leaders change, requests fail and a peer goes; a node's own counts end with its process."""
    async with running(configs(tmp_path, 3), KeyValueMachine) as nodes:
        newest = {node.config.id: (await scraped(node)).counted() for node in nodes}

        async def look(among: list[Node]) -> None:
            for node in among:
                before, now = newest[node.config.id], (await scraped(node)).counted()
                assert {name: value for name, value in before.items() if now.get(name, -1) < value} == {}
                newest[node.config.id] = now

        began = {id: dict(counts) for id, counts in newest.items()}
        for round in range(3):
            await asyncio.gather(*(a_few_requests(node, round) for node in nodes), look(nodes))
            with contextlib.suppress(RaftkvError):  # somebody else may have come to lead by himself
                await (await leader_of_stores(nodes)).transfer_leadership()
        await ready(nodes)
        await look(nodes)
        await (await leader_of_stores(nodes)).stop()
        left = [node for node in nodes if node._stopping is None]
        assert len(left) == 2
        await leader_of_stores(left)
        await look(left)
    for id, counts in newest.items():
        risen = {series[0] for series, value in counts.items() if value > began[id].get(series, 0)}
        assert {"raftkv_api_requests_total", "raftkv_storage_syncs_total", "raftkv_node_turn_seconds_bucket"} <= risen


HISTOGRAM = """# HELP a_b Words.
# TYPE a_b histogram
a_b_bucket{le="1.0"} 1.0
a_b_bucket{le="+Inf"} 2.0
a_b_count 2.0
a_b_sum 3.5
"""
COUNTER = '# HELP a_total Words.\n# TYPE a_total counter\na_total{x="1"} 1.0\n'
WRONG = {
    "a line that does not end": (COUNTER[:-1], "the last line does not end"),
    "an empty line": (COUNTER + "\n", "not a line of this format"),
    "a quote in a label": (COUNTER.replace('"1"', '"1"1"'), "not a line of this format"),
    "a timestamp": (COUNTER.replace(" 1.0", " 1.0 1700000000"), "not a line of this format"),
    "words for a number": (COUNTER.replace(" 1.0", " many"), "'many' is no number"),
    "nothing that is a number": (COUNTER.replace(" 1.0", " NaN"), "a value that nobody can add up"),
    "a count below nothing": (COUNTER.replace(" 1.0", " -1.0"), "a count below nothing"),
    "a family twice": (COUNTER + COUNTER, "a_total comes twice"),
    "a series twice": (COUNTER + COUNTER.splitlines()[-1] + "\n", "a series comes twice"),
    "a label twice": (COUNTER.replace('x="1"', 'x="1",x="2"'), "a label comes twice"),
    "a sample of another family": (COUNTER + "b_total 1.0\n", "b_total stands under another family"),
    "no help": (COUNTER.partition("\n")[2], "a type without its help"),
    "a counter by another name": (COUNTER.replace("_total", "_count"), "a counter's name ends in _total"),
    "buckets that fall": (HISTOGRAM.replace('le="1.0"} 1.0', 'le="1.0"} 3.0'), "buckets are cumulative"),
    "buckets in disorder": (
        HISTOGRAM.replace('le="1.0"', 'le="9.0"', 1)
        .replace("Inf", "Inf", 1)
        .replace('a_b_bucket{le="9.0"} 1.0\n', 'a_b_bucket{le="9.0"} 1.0\na_b_bucket{le="2.0"} 1.0\n'),
        "buckets are cumulative",
    ),
    "no bucket for all": (HISTOGRAM.replace('a_b_bucket{le="+Inf"} 2.0\n', ""), "the last bucket has all"),
    "a last bucket without all": (HISTOGRAM.replace("a_b_count 2.0", "a_b_count 3.0"), "the last bucket has all"),
    "no sum": (HISTOGRAM.replace("a_b_sum 3.5\n", ""), "buckets, count and sum belong together"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_an_exposition_is_found(name: str) -> None:
    text, complaint = WRONG[name]
    assert any(complaint in each for each in exposition.read(text).complaints), exposition.read(text).complaints


@pytest.mark.parametrize("text", [HISTOGRAM, COUNTER, COUNTER + HISTOGRAM, COUNTER.replace('"1"', r'"a\\b\"c\nd"')])
def test_what_is_right_with_an_exposition_is_no_complaint(text: str) -> None:
    assert exposition.read(text).complaints == []
