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
from dataclasses import asdict, replace

import pytest

from raftkv.cli.diagnosis.diagnose import diagnose
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


def test_what_is_wrong_comes_first_then_what_to_do_then_why(run, nodes):
    lay_out(disk(healthy(), "n2", oldest_wait_ms=12_000), nodes)
    ended = run("doctor", "--endpoints", nodes["n1"].url)
    assert ended.code == 4
    first, second, *rest = ended.text.splitlines()
    assert first == "n2's disk hangs: a write has been waiting for 12 s."
    assert second.startswith("    do    ")
    assert any(line.startswith("    seen  ") for line in rest)


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
    assert ended.text.splitlines()[0] == f"Nothing listens at {url} (connection refused): no node runs there."


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


def test_members_are_asked_while_an_endpoint_lets_wait(nodes):
    """The endpoint answers only when somebody has been asked whom another endpoint names."""
    met = threading.Event()

    def answer_late(sock: socket.socket) -> None:
        connection, _ = sock.accept()
        met.wait(5)
        connection.close()

    nodes["n3"].before_answer = met.set
    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=answer_late, args=(sock,))
        thread.start()
        late = f"http://127.0.0.1:{sock.getsockname()[1]}"
        evidence = gather([late, nodes["n1"].url], timeout_s=5.0)
        thread.join()
    assert [(asked.id, asked.reach) for asked in evidence] == [
        (None, Reach.BROKE),
        ("n1", Reach.ANSWERS),
        ("n2", Reach.ANSWERS),
        ("n3", Reach.ANSWERS),
    ]


@pytest.mark.timeout(10)
def test_who_answers_in_drops_holds_nobody_up(nodes):
    """Every drop comes in time, the end never."""
    done = threading.Event()

    def drip(sock: socket.socket) -> None:
        connection, _ = sock.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not done.wait(0.05):
                connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=drip, args=(sock,))
        thread.start()
        evidence = gather([f"http://127.0.0.1:{sock.getsockname()[1]}", nodes["n1"].url], timeout_s=0.2)
        done.set()
        thread.join()
    assert [asked.reach for asked in evidence] == [Reach.TIMED_OUT] + 3 * [Reach.ANSWERS]
    assert evidence[0].detail == "no answer within 0.7 s"


def test_a_node_asked_by_two_addresses_is_one_node(nodes):
    """By a tunnel, say, or a name for its address."""
    tunnel = nodes["n2"].url.replace("127.0.0.1", "localhost")
    found = gather([nodes["n1"].url, tunnel], timeout_s=2.0)
    assert sorted(asked.id or "" for asked in found) == ["n1", "n2", "n3"]
    assert tunnel in [asked.url for asked in found]
    both = gather([nodes["n2"].url, tunnel], timeout_s=2.0)
    assert diagnose(both).exit_code == 0


def test_what_others_say_is_asked_anew_when_one_has_let_wait(nodes):
    """Else a node would be judged by what its peers knew before it was asked."""
    (before, *_) = healthy()
    assert before.view is not None
    answers = [Reply(body=asdict(replace(before.view, term=term, members=()))) for term in (4, 5)]
    nodes["n1"].on("GET", "/v1/diagnostics", *answers)
    with unanswering() as silent:
        evidence = gather([silent, nodes["n1"].url], timeout_s=0.2)
    assert [asked.view.term for asked in evidence if asked.view is not None] == [5]


def test_commands_that_are_advised_find_the_cluster(run, nodes):
    slow = disk(healthy(), "n1", sync_p50_us=90_000)
    lay_out(slow, nodes)
    url = nodes["n1"].url
    assert f"`raftkv leader transfer --endpoints {url}`" in run("doctor", "--endpoints", url).text
    two = f"{url}, {nodes['n2'].url}"
    assert f"`raftkv leader transfer --endpoints '{two}'`" in run("doctor", "--endpoints", two).text
    told = json.loads(run("doctor", "--endpoints", url, "--output", "json").text)
    assert any(f"`raftkv leader transfer --endpoints {url}`" in line for line in told["findings"][0]["do"])


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
