"""A node as the command line sees it: a server in a thread that answers what a test has laid out."""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Heard(NamedTuple):
    """One request as it arrived; ``target`` is byte for byte."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    """What the node says. ``hang_up``: the connection breaks instead, after the request was read."""

    status: int = 200
    body: bytes | dict[str, Any] = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False

    def encoded(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def problem(status: int, code: str, **more: Any) -> Reply:
    return Reply(status, {"status": status, "code": code, "title": code, "detail": f"because of {code}", **more})


class FakeNode:
    """Answers from ``replies`` by method and path prefix; the last reply of a list goes on for ever."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.before_answer: Callable[[], None] = lambda: None
        self._replies: dict[tuple[str, str], deque[Reply]] = {}
        node = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                target = self.requestline.split(" ")[1]
                heard = Heard(self.command, target, {k.lower(): v for k, v in self.headers.items()}, body)
                node.heard.append(heard)
                node.before_answer()
                reply = node._reply_to(heard)
                if reply.hang_up:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                encoded = reply.encoded()
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(encoded)))
                self.end_headers()
                self.wfile.write(encoded)

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return self._answer
                raise AttributeError(name)

            def log_message(self, format: str, *args: Any) -> None:
                """Silence."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def on(self, method: str, prefix: str, *replies: Reply) -> None:
        self._replies[method, prefix] = deque(replies)

    def leads(self, *others: FakeNode, id: str = "n1", term: int = 3) -> None:
        """Lays out what a healthy leader of these members says of itself."""
        self.on("GET", "/v1/status", Reply(body=status_of(id, self.url, role="leader", leader_id=id, term=term)))
        self.knows(self, *others)

    def knows(self, *members: FakeNode) -> None:
        voters = [{"id": f"n{number}", "url": node.url} for number, node in enumerate(members, 1)]
        self.on("GET", "/v1/cluster", Reply(body={"voters": voters, "learners": []}))

    def asked(self, method: str) -> list[Heard]:
        return [heard for heard in self.heard if heard.method == method and "/v1/kv" in heard.target]

    def _reply_to(self, heard: Heard) -> Reply:
        found = [key for key in self._replies if key[0] == heard.method and heard.target.startswith(key[1])]
        if not found:
            return problem(404, "not_found")
        replies = self._replies[max(found, key=lambda key: len(key[1]))]
        return replies.popleft() if len(replies) > 1 else replies[0]

    @contextmanager
    def serving(self) -> Iterator[FakeNode]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def status_of(id: str, url: str, **more: Any) -> dict[str, Any]:
    whole = {
        "id": id,
        "role": "follower",
        "term": 3,
        "leader_id": "n1",
        "leader_url": url,
        "commit_index": 1200,
        "applied_index": 1200,
        "last_index": 1200,
        "revision": 1100,
        "log_bytes": 16 * 1024 * 1024,
        "version": "0.1.0",
        "uptime_ms": 125_000,
    }
    return whole | more


def redirect_to(url: str, target: str, *, term: int = 3) -> Reply:
    reply = problem(307, "not_leader", leader={"id": "n2", "url": url}, term=term)
    reply.headers["Location"] = url + target
    return reply
