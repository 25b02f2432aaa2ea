"""The nodes of compose.yaml and of the StatefulSet, started as processes with exactly their arguments.

Each "machine" is a loopback address of its own, so that ports stay as they are; names become addresses, and the
container's directories directories of the test.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.deploy import test_compose as compose
from tests.deploy import test_kubernetes as kubernetes
from tests.deploy.files import CLIENT_PORT, DEPLOY, image_environment, instructions, seconds

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux has every address of 127.0.0.0/8"),
]

STARTS_S = 60.0


class Machine(NamedTuple):
    """One container or pod, as it will be here."""

    name: str
    address: str
    words: list[str]
    stop_s: float


def addresses(count: int) -> list[str]:
    """Loopback addresses that nobody else listens on."""
    net = f"127.{random.randint(16, 250)}.{random.randint(1, 250)}"
    return [f"{net}.{number}" for number in range(1, count + 1)]


def compose_machines() -> list[Machine]:
    found = []
    for name, address in zip(compose.NODES, addresses(3), strict=True):
        stop_s = seconds(compose.compose()["services"][name]["stop_grace_period"])
        found.append(Machine(name, address, compose.words(name), stop_s))
    names = {f"http://{machine.name}:": f"http://{machine.address}:" for machine in found}
    # What this machine's ports lead to.
    names |= {
        f"http://127.0.0.1:{compose.host_port(machine.name)}": f"http://{machine.address}:{CLIENT_PORT}"
        for machine in found
    }
    return [machine._replace(words=[replaced(word, names) for word in machine.words]) for machine in found]


def kubernetes_machines() -> list[Machine]:
    spec = kubernetes.nodes_spec()
    places = addresses(spec["replicas"])
    names = {
        f"raftkv-{number}.{spec['serviceName']}.{kubernetes.NAMESPACE}.svc:": f"{address}:"
        for number, address in enumerate(places)
    }
    stop_s = float(spec["template"]["spec"]["terminationGracePeriodSeconds"])
    return [
        Machine(f"raftkv-{number}", address, [replaced(word, names) for word in kubernetes.words(number)], stop_s)
        for number, address in enumerate(places)
    ]


def replaced(text: str, names: dict[str, str]) -> str:
    for name, address in names.items():
        text = text.replace(name, address)
    return text


def here(machine: Machine, word: str, directory: Path, secret: Path) -> str:
    """A word as it must be outside of the container."""
    word = word.replace("0.0.0.0:", f"{machine.address}:").replace("/secret/peer-secret", str(secret))
    return re.sub(r"(^|=)/data/", rf"\g<1>{directory / machine.name}/", word)


@contextmanager
def running(machines: list[Machine], directory: Path, secret: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """All nodes, with the variables of the image and nothing else of whoever runs this."""
    image = {name: value for name, value in image_environment().items() if name.startswith("RAFTKV_")}
    outside = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    nodes = {}
    for machine in machines:
        (directory / machine.name).mkdir()
        environment = {name: here(machine, value, directory, secret) for name, value in image.items()}
        command = [sys.executable, "-m", "raftkv", *(here(machine, word, directory, secret) for word in machine.words)]
        with (directory / f"{machine.name}.log").open("wb") as log:
            nodes[machine.name] = subprocess.Popen(
                command, env=outside | environment, stdout=log, stderr=subprocess.STDOUT, cwd=directory
            )
    try:
        yield nodes
    finally:
        for node in nodes.values():
            node.kill()
            node.wait()


def eventually(condition: Callable[[], bool], directory: Path, within_s: float = STARTS_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        logs = "\n".join(f"{path.name}:\n{path.read_text()[-2000:]}" for path in sorted(directory.glob("*.log")))
        assert time.monotonic() < deadline, logs
        time.sleep(0.05)


def succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False, timeout=20).returncode == 0


def probe(machine: Machine, path: str) -> list[str]:
    """The image's own health check, and its like for another path."""
    (check,) = [
        each.rest for each in instructions((DEPLOY / "Containerfile").read_text()) if each.name == "HEALTHCHECK"
    ]
    words: list[str] = json.loads(check.partition("CMD ")[2])
    assert words[0] == "python"
    return [
        sys.executable,
        *(word.replace("127.0.0.1", machine.address).replace("/healthz", path) for word in words[1:]),
    ]


@pytest.mark.parametrize("made", [compose_machines, kubernetes_machines], ids=["compose", "kubernetes"])
def test_the_nodes_form_a_cluster_answer_and_stop_in_order(made, tmp_path, peer_secret, run):
    machines = made()
    with running(machines, tmp_path, peer_secret) as nodes:
        # A node is alive before it is ready: so it is not killed while it waits for the others.
        for machine in machines:
            for path in ("/healthz", "/readyz"):
                eventually(partial(succeeds, probe(machine, path)), tmp_path)
        for machine in machines:
            # Every node leads to the leader by a URL that clients reach.
            url = f"http://{machine.address}:{CLIENT_PORT}"
            assert run("put", machine.name, "value", "--endpoints", url).code == 0
        told = json.loads(run("status", "--endpoints", url, "--output", "json").text)
        assert (told["voters_serving"], told["failures_survived"]) == (3, 1)
        assert sorted(node["id"] for node in told["nodes"]) == [machine.name for machine in machines]
        for machine in machines:
            nodes[machine.name].send_signal(signal.SIGTERM)
            assert nodes[machine.name].wait(timeout=machine.stop_s) == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [machine.name for machine in machines]
