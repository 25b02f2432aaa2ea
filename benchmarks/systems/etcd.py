"""etcd behind its HTTP gateway: whichever binary there is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from benchmarks.figures import Run
from benchmarks.processes import Cluster, free_ports
from benchmarks.systems.base import NODES
from benchmarks.systems.http import HttpSystem, json_of
from benchmarks.systems.wrk import drive
from benchmarks.work import Work, base64_of, drawn_keys, key


def version_of(binary: Path) -> str:
    """As it says itself."""
    said = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    return said.split("\n")[0].rpartition(" ")[2]


class Etcd(HttpSystem):
    """Defaults but for names, addresses and a quieter log."""

    def __init__(self, directory: Path, *, binary: Path, name: str) -> None:
        self.name, self.version = name, version_of(binary)
        self.title = f"etcd {self.version}, HTTP gateway"
        ports = free_ports(2 * NODES)
        self.urls = [f"http://127.0.0.1:{port}" for port in ports[:NODES]]
        peers = [f"http://127.0.0.1:{port}" for port in ports[NODES:]]
        members = ",".join(f"e{number}={url}" for number, url in enumerate(peers, 1))
        commands = [
            [
                *(str(binary), "--name", f"e{number}", "--data-dir", str(directory / f"e{number}")),
                *("--listen-client-urls", url, "--advertise-client-urls", url),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", members, "--logger", "zap", "--log-level", "error"),
            ]
            for number, (url, peer) in enumerate(zip(self.urls, peers, strict=True), 1)
        ]
        self.cluster = Cluster(name, commands, directory)

    def leads(self, url: str) -> bool:
        """Its own status names the leader."""
        status = json_of(url, "POST", "/v3/maintenance/status", b"{}")
        return bool(status.get("leader")) and status["leader"] == status["header"]["member_id"]

    def fill_request(self, numbers: range, value_bytes: int) -> tuple[str, bytes]:
        """One transaction."""
        value = base64_of(b"v" * value_bytes)
        puts = [{"requestPut": {"key": base64_of(key(number).encode()), "value": value}} for number in numbers]
        return "/v3/kv/txn", json.dumps({"success": puts}).encode()

    def write_request(self) -> tuple[str, str, bytes]:
        """One key, again and again."""
        put = {"key": base64_of(b"failover"), "value": base64_of(b"v" * 256)}
        return "POST", "/v3/kv/put", json.dumps(put).encode()

    def run(self, work: Work) -> Run:
        """At the leader; reads are linearizable by default."""
        put = work.verb == "put"
        value = f',"value":"{base64_of(b"v" * work.value_bytes)}"' if put else ""
        path = "/v3/kv/put" if put else "/v3/kv/range"
        lines = (f'{path} {{"key":"{base64_of(key(number).encode())}"{value}}}' for number in drawn_keys(work))
        return drive(
            self.urls[self.leader()],
            "POST",
            lines,
            clients=work.clients,
            seconds=work.seconds,
            content_type="application/json",
            value_bytes=work.value_bytes,
        )
