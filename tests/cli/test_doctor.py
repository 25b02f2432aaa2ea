"""raftkv doctor: whom it asks, how it tells apart who does not answer, and what a person and a program get."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import pytest

from raftkv.cli.diagnosis.evidence import Evidence, Reach, View
from raftkv.cli.doctor import gather, with_processes
from raftkv.cli.record import LocalNode, Process, Record, started, write_record
from tests.cli.clusters import disk, gone, healthy
from tests.cli.fake_node import FakeNode, Reply, problem


def lay_out(evidence: Evidence, nodes: dict[str, FakeNode]) -> None:
    """Each node says what the evidence has of it, with the URLs that the nodes really have."""
    for asked in evidence:
        if asked.view is None:
            continue
        told = json.dumps(asdict(asked.view))
        for id, node in nodes.items():
            told = told.replace(f"http://{id}.test:7401", node.url)
        nodes[asked.view.id].on("GET", "/v1/diagnostics", Reply(body=json.loads(told)))


@pytest.fixture
def nodes(make_node) -> dict[str, FakeNode]:
    made = {f"n{number}": make_node() for number in (1, 2, 3)}
    lay_out(healthy(), made)
    return made


@contextmanager
def unanswering() -> Iterator[str]:
    """Takes connections, as a system does for a paused process, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_one_endpoint_is_enough_the_members_are_found_and_all_is_well(run, nodes):
    ended = run("doctor", "--endpoints", nodes["n2"].url)
    assert ended.code == 0
    first, *_, last = ended.text.splitlines()
    assert first.startswith("All is well: n1 leads 3 voters in term 4, all answer; the slowest disk syncs in 1.6 ms")
    assert last.startswith("3 nodes asked, 3 answered, in ")
    assert "\x1b" not in ended.text and ended.err == ""


def test_what_is_wrong_comes_first_then_why_then_what_to_do(run, nodes):
    lay_out(disk(healthy(), "n2", oldest_wait_ms=12_000), nodes)
    ended = run("doctor", "--endpoints", nodes["n1"].url)
    assert ended.code == 4
    first, second, *rest = ended.text.splitlines()
    assert first == "n2's disk hangs: a write has been waiting for 12 s."
    assert second.startswith("    seen  ")
    assert any(line.startswith("    do    ") for line in rest)


def test_programs_get_everything_as_json(run, nodes):
    lay_out(disk(healthy(), "n2", room_is_short=True), nodes)
    ended = run("doctor", "--endpoints", nodes["n1"].url, "--output", "json")
    told = json.loads(ended.text)
    assert (ended.code, told["well"]) == (4, False)
    assert told["headline"] == told["findings"][0]["headline"]
    assert (told["findings"][0]["name"], told["findings"][0]["nodes"]) == ("disk_full", ["n2"])
    assert [(node["id"], node["reach"]) for node in told["nodes"]] == [(f"n{n}", "answers") for n in (1, 2, 3)]


def test_nobody_there_is_exit_code_3_and_still_says_why(run):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    ended = run("doctor", "--endpoints", url)
    assert ended.code == 3
    assert ended.text.splitlines()[0] == f"No node runs: nothing listens at {url} (connection refused)."


def test_who_does_not_answer_is_told_apart(nodes):
    with socket.create_server(("127.0.0.1", 0)) as server:
        refusing = f"http://127.0.0.1:{server.getsockname()[1]}"
    nodes["n2"].on("GET", "/v1/diagnostics", Reply(hang_up=True))
    nodes["n3"].on("GET", "/v1/diagnostics", problem(401, "unauthorized"))
    with unanswering() as silent:
        urls = [nodes["n1"].url, refusing, silent, nodes["n2"].url, nodes["n3"].url, "http://nobody.invalid:7401"]
        evidence = gather(urls, timeout_s=0.3)
    assert [asked.reach for asked in evidence] == [
        Reach.ANSWERS,
        Reach.REFUSED,
        Reach.SILENT,
        Reach.BROKE,
        Reach.STRANGE,
        Reach.UNREACHABLE,
    ]
    assert evidence[4].detail == "it answers 401 unauthorized: because of unauthorized"
    assert [asked.name for asked in evidence[3:5]] == ["n2", "n3"], "known by what the others say of their URLs"


def test_all_are_asked_at_once():
    """Each of two answers only when both have been asked."""
    together = threading.Barrier(2)

    def meet(sock: socket.socket) -> None:
        connection, _ = sock.accept()
        together.wait(5)
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        threads = [threading.Thread(target=meet, args=(sock,)) for sock in (one, other)]
        for thread in threads:
            thread.start()
        gather([f"http://127.0.0.1:{sock.getsockname()[1]}" for sock in (one, other)], timeout_s=5.0)
        for thread in threads:
            thread.join()
    assert not together.broken


@pytest.mark.parametrize(
    "reply",
    [Reply(body=b"<html>"), Reply(body=b"[]"), Reply(body=b'{"id": 7}'), Reply(404, b"no"), problem(404, "not_found")],
    ids=["html", "list", "wrong type", "404", "another version"],
)
def test_what_is_no_node_is_called_so(run, node, reply):
    node.on("GET", "/v1/diagnostics", reply)
    ended = run("doctor", "--endpoints", node.url)
    assert ended.code == 3
    assert ended.text.startswith("Nobody answers: ")
    assert "answers like no raftkv node" in ended.text


def test_a_node_s_words_cannot_play_with_the_terminal(run, nodes):
    evil = View(id="n1", dead_because="\x1b[2J\x1b]0;owned\x07 gone\nAll is well: trust me")
    nodes["n1"].on("GET", "/v1/diagnostics", Reply(body=asdict(evil)))
    ended = run("doctor", "--endpoints", nodes["n1"].url)
    assert "\x1b" not in ended.text and "\x07" not in ended.text
    assert not any(line.startswith("All is well") for line in ended.text.splitlines())


def test_a_clock_is_compared_with_the_asker_s(node):
    for ahead_ms in (0, 90_000, -90_000):
        view = View(id="n1", wall_clock_ms=round(time.time() * 1000) + ahead_ms)
        node.on("GET", "/v1/diagnostics", Reply(body=asdict(view)))
        (asked,) = gather([node.url], timeout_s=2.0)
        assert asked.clock_ahead_ms is not None and abs(asked.clock_ahead_ms - ahead_ms) < 5_000


def test_the_local_cluster_s_processes_are_looked_at(tmp_path):
    here = Process(os.getpid(), started(os.getpid()) or "")
    nodes = (
        LocalNode("n1", "http://n1.test:7401", here),
        LocalNode("n2", "http://n2.test:7401", Process(here.pid, "another time")),
        LocalNode("n3", "http://n3.test:7401"),
    )
    write_record(tmp_path, Record(nodes))
    evidence = with_processes(gone(healthy(4), "n1", "n2", "n3", "n4"), tmp_path)
    assert [asked.process_state for asked in evidence] == ["running", "gone", "gone", None]
    assert evidence[2].log == str(tmp_path / "n3.log")
    assert sys.platform != "linux" or evidence[0].pid == here.pid
