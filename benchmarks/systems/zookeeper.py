"""ZooKeeper as Debian packs it, in its own protocol."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Final

from benchmarks.figures import Run
from benchmarks.generators import zookeeper_wire as wire
from benchmarks.processes import Cluster, Failed, free_ports, run, shortened, wait_for
from benchmarks.systems.base import NODES, NotAccepted, System, run_generator
from benchmarks.work import Work

FILLED_PER_S_MIN: Final = 250
"""Keys; who is slower has hung."""
JAR: Final = Path("/usr/share/java/zookeeper.jar")
_SETTINGS: Final = """\
tickTime=2000
initLimit=10
syncLimit=5
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=srvr
"""


class ZooKeeper(System):
    """The example configuration's times; every write is synced, as by default."""

    name = "zookeeper"
    title = "ZooKeeper, own protocol"
    generator = "benchmarks/generators/zookeeper.py"
    remark = "ZooKeeper: a get is a sync and a get on one session, at the leader; a session for each client."

    def __init__(self, directory: Path) -> None:
        ports = free_ports(3 * NODES)
        self.ports = ports[:NODES]
        servers = "".join(
            f"server.{number}=127.0.0.1:{ports[2 * NODES + number - 1]}:{ports[NODES + number - 1]}\n"
            for number in range(1, NODES + 1)
        )
        commands = []
        for number, port in enumerate(self.ports, 1):
            data = directory / f"z{number}"
            data.mkdir(parents=True)
            (data / "myid").write_text(f"{number}\n")
            settings = directory / f"z{number}.cfg"
            settings.write_text(f"{_SETTINGS}dataDir={data}\nclientPort={port}\nclientPortAddress=127.0.0.1\n{servers}")
            commands.append(
                [
                    *(
                        "java",
                        "-Dzookeeper.jmx.log4j.disable=true",
                        f"-Dzookeeper.log.dir={directory}",
                        "-cp",
                        str(JAR),
                    ),
                    *("org.apache.zookeeper.server.quorum.QuorumPeerMain", str(settings)),
                ]
            )
        self.cluster = Cluster(self.name, commands, directory)

    def _serves_as(self, node: int) -> str:
        """Its mode, and by the way its version; OSError when it says nothing."""
        with socket.create_connection(("127.0.0.1", self.ports[node]), timeout=2) as connection:
            connection.sendall(b"srvr")
            said = b""
            while part := connection.recv(4096):
                said += part
        lines = dict(line.split(": ", 1) for line in said.decode().splitlines() if ": " in line)
        self.version = lines.get("Zookeeper version", self.version).split("-")[0]
        self.title = f"ZooKeeper {self.version}, own protocol"
        return lines.get("Mode", "")

    def leader(self) -> int:
        """By asking every node."""

        def look() -> int | None:
            self.cluster.check()
            for node in range(NODES):
                try:
                    if self._serves_as(node) == "leader":
                        return node
                except OSError:
                    continue
            return None

        return wait_for("zookeeper: a leader", look)

    def fill(self, keys: int, value_bytes: int) -> None:
        """By creating each key."""
        python_m = [sys.executable, "-m", "benchmarks.generators.zookeeper", "--verb", "fill"]
        options = {"port": self.ports[self.leader()], "keys": keys, "value_bytes": value_bytes}
        run([*python_m, *shortened(options)], timeout_s=120 + keys / FILLED_PER_S_MIN)

    def run(self, work: Work) -> Run:
        """At the leader."""
        return run_generator("zookeeper", work, port=self.ports[self.leader()])

    def start(self) -> None:
        """The node that single writes go to is there too."""
        super().start()

        def made() -> bool | None:
            try:
                self._exchange(0, wire.create(1, b"/failover", b""), 2.0, allowed=wire.NODE_EXISTS)
            except (OSError, NotAccepted):
                return None
            return True

        wait_for("zookeeper: a first write", made)

    def write(self, node: int, timeout_s: float) -> None:
        """With a session of its own, which whoever leads must grant."""
        self._exchange(node, wire.set_data(1, b"/failover", b"v" * 256), timeout_s)

    def _exchange(self, node: int, request: bytes, timeout_s: float, *, allowed: int = wire.OK) -> None:
        with socket.create_connection(("127.0.0.1", self.ports[node]), timeout=timeout_s) as connection:
            connection.sendall(wire.connect(6_000))
            if not wire.session_is_given(_frame(connection), 0):
                raise NotAccepted("no session")
            connection.sendall(request)
            if wire.error_of(_frame(connection), 0) not in (wire.OK, allowed):
                raise NotAccepted("an error")


def _frame(connection: socket.socket) -> bytes:
    length = int.from_bytes(_exactly(connection, 4), "big")
    if length > 1 << 20:
        raise Failed(f"ZooKeeper announces a frame of {length} bytes")
    return _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError("closed")
        data += part
    return data
