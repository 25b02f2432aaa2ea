"""For every fault that can be made to a live cluster, the first line that ``raftkv doctor`` prints names its cause.

Faults that leave traces for a minute and explain little come first, so that the later ones outweigh them.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import json
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from raftkv.cli.main import main
from tests.live.cluster import LiveCluster, LiveNode, eventually, free_ports, until
from tests.live.faults_file import Faults
from tests.live.wire import Answer, Connections, Trouble

pytestmark = [pytest.mark.live, pytest.mark.timeout(60)]

ASKING_S = "0.4"
NAMED_WITHIN_S = 15.0
CUT = r"\((no connection|no answer) within 1 s\)"


def ask(*urls: str, timeout_s: str | None = ASKING_S) -> tuple[int, str]:
    """Exit code and all that is printed into a pipe."""
    printed = io.StringIO()
    patience = [] if timeout_s is None else ["--timeout", timeout_s]
    with contextlib.redirect_stdout(printed):
        code = main(["doctor", "--endpoints", ",".join(urls), *patience])
    return code, printed.getvalue()


async def until_said(pattern: str, *urls: str, code: int = 4) -> str:
    """All that the doctor prints, once its first line matches as a whole and the exit code is that one."""
    said: tuple[int, str] = (0, "")

    async def look() -> str | None:
        nonlocal said
        said = await asyncio.to_thread(ask, *urls)
        return said[1] if said[0] == code and re.fullmatch(pattern, said[1].splitlines()[0]) else None

    try:
        text = await eventually(look, within_s=NAMED_WITHIN_S, what=f"the doctor to say {pattern!r}")
    except AssertionError as late:
        raise AssertionError(f"{late}; it said, with exit code {said[0]}:\n{said[1]}") from None
    print(f"\n  {text.splitlines()[0]}")  # noqa: T201 - shown with -s
    return text


class Ward:
    """A cluster that can be broken, and its doctor."""

    def __init__(self, cluster: LiveCluster, leader: LiveNode) -> None:
        self.cluster, self.leader = cluster, leader
        self.first, self.second = (node for node in cluster.nodes.values() if node is not leader)
        self.nodes = (self.first, self.second, leader)

    async def until_said(self, pattern: str, *, code: int = 4) -> str:
        return await until_said(pattern, *(node.url for node in self.cluster.nodes.values()), code=code)

    async def put(self, key: str, size_bytes: int = 8, *, at: LiveNode | None = None) -> Answer:
        node = at or await self.cluster.until_leader()
        target = f"/v1/kv/{key}"
        return await Connections().exchange(
            node.address, "PUT", target, body=bytes(size_bytes), timeout_s=7.0, kept=False
        )


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    directory = tmp_path_factory.mktemp("ward")
    options = ("--segment-bytes", str(1024 * 1024))
    with LiveCluster(directory, nodes_count=3, breakable=True, options=options) as cluster:
        cluster.start()
        yield cluster


@pytest.fixture
async def ward(processes: LiveCluster) -> AsyncIterator[Ward]:
    """Every node runs, nothing is broken, all follow one leader, which takes writes."""
    processes.mend()
    ward = Ward(processes, await processes.until_serving())

    async def written() -> bool | None:
        return (await ward.put("well")).status in (200, 201) or None

    await eventually(written, within_s=NAMED_WITHIN_S, what="a write to be taken")
    for node in ward.nodes:
        assert node.is_running, f"{node.id} ended by itself:\n{node.log_text()[-2000:]}"
    yield ward
    processes.mend()
    processes.connections.close()


async def test_a_healthy_cluster_is_called_so_with_two_figures(ward: Ward) -> None:
    pattern = (
        rf"All is well: {ward.leader.id} leads 3 voters in term \d+, all answer; the slowest disk syncs in [\d.]+ "
        r"(ms|µs) \(p99, n\d\), the last follower is \d+ entr(y|ies) behind\."
    )
    await ward.until_said(pattern, code=0)


FAULTLESS = {
    "start", "resume", "ended", "breaks", "log_text", "loud_lines", "resume_all", "mend", "up", "endings",
    "elections_count", "status", "statuses", "told", "all_told", "leader", "until_leader", "until_serving",
    "until_equal", "make_joining",
}  # fmt: skip
"""What the harness offers that harms nobody, or only by a fault of ``Faults``."""


def test_every_fault_that_can_be_made_is_made_here() -> None:
    """A new one without a test of what the doctor says of it fails."""
    deeds = {name for kind in (LiveNode, LiveCluster) for name, is_method in _public(kind) if is_method}
    offered = {each.name for each in fields(Faults)} | deeds - FAULTLESS
    tests = [inspect.getsource(each) for name, each in globals().items() if name.startswith("test_")]
    asked = "\n".join(source for source in tests if "until_said(" in source)
    assert {fault for fault in offered if not re.search(rf"\b{fault}=|\.{fault}\(", asked)} == set()
    assert deeds >= FAULTLESS, "what is gone from the harness goes here too"


def _public(kind: type) -> list[tuple[str, bool]]:
    return [(name, inspect.isfunction(each)) for name, each in vars(kind).items() if not name.startswith("_")]


async def test_a_state_that_is_wrong(ward: Ward) -> None:
    """The leader's; it leads no more. Started again, as advised, it has built its state anew."""
    node = ward.leader
    node.breaks(state_is_wrong=True)
    await _write_many(ward, 1_100)
    text = await ward.until_said(
        rf"{node.id}'s state is wrong: the same log made another state there than at a majority\."
    )
    assert text.splitlines()[1].startswith(f"    do    `systemctl restart raftkv@{node.id}`")
    await _anew(node)
    node.start()
    await ward.until_said(r"All is well: .+", code=0)


async def _write_many(ward: Ward, count: int) -> None:
    """More than lie between two comparisons of states. The leader may step down meanwhile."""
    connections = Connections()
    numbers = iter(range(count))

    async def write() -> None:
        for number in numbers:
            target = f"/v1/kv/many/{number}"
            await connections.exchange(ward.leader.address, "PUT", target, body=b"1", timeout_s=15.0)

    await asyncio.gather(*(write() for _ in range(32)))
    connections.close()


async def test_an_endpoint_that_is_nobodys(ward: Ward) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    pattern = rf"Nothing listens at the endpoint {url} \(connection refused\), and no member is known to be there\."
    await until_said(pattern, url, ward.first.url)


async def test_a_wrong_clock(ward: Ward) -> None:
    ward.first.breaks(clock_ahead_ms=90_000)
    await ward.until_said(rf"{ward.first.id}'s wall clock is 90 s ahead of the others'\.")


async def test_settings_that_differ(ward: Ward) -> None:
    node = ward.first
    node.ask_to_stop()
    await node.ended()
    node.command += ["--heartbeat-ms", "60"]
    node.start()
    await ward.cluster.until_serving()
    others = " and ".join(sorted(other.id for other in ward.nodes if other is not node))
    text = await ward.until_said(r"The nodes' settings differ: heartbeat-ms is .+\.")
    assert f"100 at {others}" in text and f"60 at {node.id}" in text
    del node.command[-2:]
    node.ask_to_stop()
    await node.ended()


async def test_leadership_that_does_not_stay(ward: Ward) -> None:
    """Leaders that are paused in turn."""
    for _ in range(4):
        leader = await ward.cluster.until_leader()
        leader.pause()
        await ward.cluster.until_leader(other_than=leader)
        leader.resume()
    await ward.until_said(
        r"Leadership changed \d+ times in the last minute: n\d stood still (once|\d times), for up to [\d.]+ m?s\."
        r"|n\d stands still again and again: \d times in the last minute, for up to [\d.]+ m?s\."
    )


async def test_an_event_loop_that_stands_still(ward: Ward) -> None:
    ward.first.breaks(stall_ms=350)
    await ward.until_said(
        rf"{ward.first.id} stands still again and again: \d+ times in the last minute, for up to .+\."
    )


async def test_a_slow_disk(ward: Ward) -> None:
    """Half of its syncs are slow once those of the tests before count no more."""
    await _anew(ward.second)
    ward.second.start()
    await ward.cluster.until_serving()
    ward.second.breaks(sync_delay_ms=70)
    writes = asyncio.create_task(_write_on(ward))
    try:
        await ward.until_said(
            rf"{ward.second.id}'s disk is slow: (half|one in a hundred) of its \d+ syncs in the last minute took "
            r"\d+ ms or longer; half at n\d .+ and n\d .+\."
        )
    finally:
        writes.cancel()
    await _anew(ward.second)


async def _write_on(ward: Ward) -> None:
    """A write whenever the slow disk may have done with the last; what becomes of each does not matter."""
    number = 0
    while True:
        number += 1
        with contextlib.suppress(Trouble):
            await ward.put(f"slow/{number}")
        await asyncio.sleep(0.08)


async def _anew(node: LiveNode) -> None:
    """Its figures of the last minute are forgotten."""
    node.breaks()
    node.ask_to_stop()
    await node.ended()


async def test_a_link_that_comes_and_goes(ward: Ward) -> None:
    """It is whole when the doctor asks."""
    one, other = sorted((ward.leader.id, ward.first.id))
    for _ in range(3):
        ward.cluster.cut((ward.leader, ward.first), (ward.first, ward.leader))
        await _until_answer_age(ward.leader, ward.first, lambda ms: ms > 600)
        ward.cluster.mend()
        await _until_answer_age(ward.leader, ward.first, lambda ms: ms < 300)
    times = r"no answer \d times in the last minute, for up to [\d.]+ m?s"
    await ward.until_said(rf"The link between {one} and {other} comes and goes: {times}\.")


async def _diagnostics(node: LiveNode) -> Mapping[str, Any]:
    answer = await Connections().exchange(node.address, "GET", "/v1/diagnostics", timeout_s=5.0, kept=False)
    told: Mapping[str, Any] = json.loads(answer.body)
    return told


async def _until_answer_age(of: LiveNode, to: LiveNode, is_such: Callable[[int], bool]) -> None:
    async def look() -> bool | None:
        links = (await _diagnostics(of))["links"]
        (age_ms,) = (link["answer_age_ms"] for link in links if link["peer"] == to.id)
        return is_such(age_ms) or None

    await eventually(look, within_s=NAMED_WITHIN_S, what=f"a change in {of.id}'s link to {to.id}")


@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_a_link_to_a_follower_cut_both_ways(ward: Ward, role: str) -> None:
    end = ward.leader if role == "leader" else ward.second
    one, other = sorted((ward.first.id, end.id))
    ward.cluster.cut((ward.first, end), (end, ward.first))
    await ward.until_said(rf"The link between {one} and {other} is cut: neither reaches the other {CUT}\.")


async def test_a_link_cut_one_way(ward: Ward) -> None:
    """The leader's own word no longer gets through; a follower that stands in vain must not hide that."""
    one, other = ward.leader.id, ward.first.id
    ward.cluster.cut((ward.leader, ward.first))
    await ward.until_said(rf"{one} cannot reach {other} {CUT}, but {other} reaches {one}\.")


async def test_a_node_that_is_cut_off(ward: Ward) -> None:
    """The leader: the others elect another."""
    others = [ward.first, ward.second]
    ways = [(ward.leader, node) for node in others]
    ward.cluster.cut(*ways, *((to, of) for of, to in ways))
    names = " and ".join(sorted(node.id for node in others))
    await ward.until_said(rf"{ward.leader.id} is cut off: it cannot reach {names}, nor can they reach it {CUT}\.")


async def test_links_that_leave_no_leader(ward: Ward) -> None:
    ward.cluster.cut(*((of, to) for of in ward.nodes for to in ward.nodes if of is not to))
    await ward.until_said(
        r"No leader: n1, n2 and n3 run, but every link between them is cut, and nobody reaches 2 voters\."
    )


@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_a_disk_that_hangs(ward: Ward, role: str) -> None:
    node = ward.leader if role == "leader" else ward.first
    node.breaks(sync_hangs=True)
    write = asyncio.create_task(ward.put("hang", at=ward.leader))
    await ward.until_said(rf"{node.id}'s disk hangs: a write has been waiting for [\d.]+ s\.")
    node.breaks()
    await write


async def test_disks_of_a_majority_that_hang(ward: Ward) -> None:
    followers = sorted((ward.first, ward.second), key=lambda node: node.id)
    for node in followers:
        node.breaks(sync_hangs=True)
    write = asyncio.create_task(ward.put("hang", at=ward.leader))
    names = " and ".join(node.id for node in followers)
    await ward.until_said(
        rf"(Nothing is committed|No leader): the disks of {names} hang, and 2 of 3 voters are needed\."
    )
    ward.cluster.mend()
    await write


@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_a_full_disk(ward: Ward, role: str) -> None:
    """Writes take the segment in waiting, and there is room for no other."""
    node, then = (
        (ward.leader, r"it refuses puts \(507\) and takes deletes")
        if role == "leader"
        else (ward.first, "it stops when its open segment is full too")
    )
    node.breaks(disk_full=True)
    numbers = iter(range(100))

    async def is_short() -> bool | None:
        if (await _diagnostics(node))["disk"]["room_is_short"]:
            return True
        assert (await ward.put(f"fill/{role}/{next(numbers)}", 300 * 1024, at=ward.leader)).status in (201, 507)
        return None

    await eventually(is_short, within_s=NAMED_WITHIN_S, what="the room to be short")
    headline = rf"{node.id}'s disk is full: there is no room for another segment of its log, and {then}\."
    await ward.until_said(headline)


async def test_a_disk_that_fails(ward: Ward) -> None:
    ward.first.breaks(sync_fails=True)
    await ward.put("fails", at=ward.leader)
    await until(lambda: not ward.first.is_running, within_s=10, what="the node to end")
    assert ward.first.endings[-1].exit_code == 74
    await ward.until_said(rf"{ward.first.id} has ended: its disk failed: fdatasync of .+ failed: Input/output error\.")


async def test_a_node_that_was_stopped(ward: Ward) -> None:
    ward.first.ask_to_stop()
    await ward.first.ended()
    await ward.until_said(rf"{ward.first.id} has ended: it was told to stop\.")


async def test_a_node_that_was_killed(ward: Ward) -> None:
    """The leader; nothing is left of what the stop before had said."""
    ward.leader.kill()
    await ward.cluster.until_leader(other_than=ward.leader)
    url = re.escape(ward.leader.url)
    text = await ward.until_said(
        rf"{ward.leader.id} does not run: nothing listens at {url} \(connection refused\), and it did not say why\."
    )
    assert "2 of 3 voters work: one more lost, and nothing is served" in text
    assert await until_said(re.escape(text.splitlines()[0]), ward.first.url), "one endpoint is enough"


async def test_a_node_that_dies_in_the_midst_of_a_write(ward: Ward) -> None:
    node = ward.first
    node.breaks(dies="after write")
    await ward.put("dies", at=ward.leader)
    await until(lambda: not node.is_running, within_s=10, what="the node to end")
    assert node.endings[-1].exit_code == -signal.SIGKILL
    url = re.escape(node.url)
    await ward.until_said(
        rf"{node.id} does not run: nothing listens at {url} \(connection refused\), and it did not say why\."
    )


async def test_a_node_that_is_paused(ward: Ward) -> None:
    ward.first.pause()
    url = re.escape(ward.first.url)
    await ward.until_said(rf"{ward.first.id} hangs or is paused: {url} takes connections, and nothing answers\.")


async def test_a_node_that_is_paused_makes_nobody_wait(ward: Ward) -> None:
    """With the patience that the command has by itself."""
    ward.leader.pause()
    began_s = time.monotonic()
    code, text = await asyncio.to_thread(ask, ward.leader.url, ward.first.url, timeout_s=None)
    took_s = time.monotonic() - began_s
    assert (code, text.splitlines()[0].startswith(f"{ward.leader.id} hangs or is paused")) == (4, True)
    assert took_s < 3.0


async def test_a_majority_that_is_gone(ward: Ward) -> None:
    killed, paused = ward.first, ward.leader
    killed.kill()
    paused.pause()
    causes = [
        rf"{killed.id} does not run \(connection refused\)",
        rf"{paused.id} hangs or is paused \(connected, but no answer\)",
    ]
    either = f"({causes[0]} and {causes[1]}|{causes[1]} and {causes[0]})"
    await ward.until_said(rf"No leader: {either}, and 2 of 3 voters are needed\.")


async def test_a_power_cut(ward: Ward) -> None:
    ward.cluster.kill_all()
    urls = ", ".join(node.url for node in list(ward.cluster.nodes.values())[:2])
    last = ward.cluster.nodes["n3"].url
    await ward.until_said(
        rf"Nothing listens at {re.escape(urls)} and {re.escape(last)} \(connection refused\): no node runs there\.",
        code=3,
    )


@pytest.mark.parametrize(
    ("id", "pattern"),
    [
        pytest.param("n2", r"The n2 at {url} belongs to another cluster \(\w{{8}}…, not \w{{8}}…\)\.", id="same id"),
        pytest.param(
            "m9", r"At {url}, where n2 should be, answers m9 of another cluster \(\w{{8}}…\)\.", id="another id"
        ),
    ],
)
async def test_another_clusters_node_at_a_members_address(ward: Ward, tmp_path: Path, id: str, pattern: str) -> None:
    second = ward.cluster.nodes["n2"]
    second.kill()
    stranger = ward.cluster.make_node(id, second.port, tmp_path / "theirs", {id: second.url})
    stranger.start()
    try:
        await ward.until_said(pattern.format(url=re.escape(second.url)))
    finally:
        stranger.kill()


async def test_endpoints_of_two_clusters(ward: Ward, tmp_path: Path) -> None:
    with LiveCluster(tmp_path, nodes_count=1) as other:
        other.start()
        await other.until_serving()
        urls = [node.url for node in (*ward.cluster.nodes.values(), *other.nodes.values())]
        pattern = r"The endpoints belong to two clusters: n1, n2 and n3 to \w{8}… and n1 to \w{8}…\."
        await until_said(pattern, *urls)


async def test_a_node_whose_data_is_gone(tmp_path: Path) -> None:
    """The last of a cluster of its own: it stays as it is."""
    with LiveCluster(tmp_path, nodes_count=3) as cluster:
        cluster.start()
        await cluster.until_serving()
        emptied = cluster.nodes["n3"]
        emptied.kill()
        emptied.empty()
        emptied.start()
        pattern = "n3's data is gone: its directory is empty, so it is another node, and neither votes nor counts."
        await until_said(re.escape(pattern), *(node.url for node in cluster.nodes.values()))


async def test_a_cluster_that_never_formed_and_one_with_lists_that_differ(tmp_path: Path) -> None:
    with LiveCluster(tmp_path, nodes_count=3) as cluster:
        first, second, third = cluster.nodes.values()
        first.start()
        second.start()
        urls = [node.url for node in cluster.nodes.values()]
        await until_said(
            re.escape("The cluster has never formed: n1 and n2 wait for n3; n3 does not run (connection refused)."),
            *urls,
        )
        third.command[third.command.index("--initial-cluster") + 1] = f"n3={third.url},n1={first.url}"
        third.start()
        await until_said(
            r"The cluster cannot form: n3 was started with another --initial-cluster \(n1,n3\)\."
            r"|The cluster cannot form: n1 was started with another --initial-cluster \(n1,n2,n3\)\.",
            *urls,
        )


async def test_a_wrong_peer_secret_and_none(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_bytes(b"a" * 40)
    theirs.write_bytes(b"b" * 40)
    for path in (ours, theirs):
        path.chmod(0o600)
    with LiveCluster(tmp_path / "nodes", nodes_count=3, options=("--peer-secret-file", str(ours))) as cluster:
        cluster.start()
        await cluster.until_serving()
        third, urls = cluster.nodes["n3"], [node.url for node in cluster.nodes.values()]
        third.kill()
        place = third.command.index("--peer-secret-file")
        third.command[place + 1] = str(theirs)
        third.start()
        await until_said(re.escape("n3 does not have the peer secret of n1 and n2: they refuse each other."), *urls)
        third.kill()
        del third.command[place : place + 2]
        third.start()
        await until_said(re.escape("n3 has no peer secret, and n1 and n2 have one: they refuse each other."), *urls)
