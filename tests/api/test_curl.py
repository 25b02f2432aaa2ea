"""http-api, "Finding the leader", last sentence: curl follows a redirect with every body that it can send twice."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.api.fronts import AiohttpClient, MakeClient
from tests.api.service import FOLLOWS

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
SECONDS_MAX = "10"


@pytest.fixture
def cluster(open_door: MakeClient) -> tuple[AiohttpClient, AiohttpClient]:
    """A follower, and the leader that it knows."""
    follower, leader = open_door(), open_door()
    follower.service.led = FOLLOWS._replace(leader_url=f"http://127.0.0.1:{leader.port}")
    return follower, leader


def curl(node: AiohttpClient, target: str, *options: str, body: bytes = b"") -> bytes:
    """What curl prints: the answer's body, and behind it the status and how many redirects it took."""
    command = ["curl", "-sS", "-L", "--path-as-is", "-m", SECONDS_MAX, "-w", "%{http_code} %{num_redirects}", *options]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{node.port}{target}"], input=body, capture_output=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("size", [0, 5, 1024 * 1024])
@pytest.mark.parametrize("how", ["--data-binary", "-T"])
def test_a_body_from_a_file_gets_to_the_leader(
    cluster: tuple[AiohttpClient, AiohttpClient], tmp_path: Path, how: str, size: int
) -> None:
    """A MiB is beyond what curl sends without being told 100 Continue; the redirect comes in its place."""
    follower, leader = cluster
    value = tmp_path / "value"
    value.write_bytes(b"\n\0" * (size // 2) + b"x" * (size % 2))
    options = ["-X", "PUT", how, f"@{value}" if how == "--data-binary" else str(value)]
    assert curl(follower, "/v1/kv/a%2F../b+c?", *options).endswith(b"}201 1")
    assert leader.stored(b"a/../b+c") == value.read_bytes()
    assert follower.service.submitted == []


def test_requests_without_a_file_get_there_too(cluster: tuple[AiohttpClient, AiohttpClient]) -> None:
    follower, leader = cluster
    leader.put("a", b"value")
    assert curl(follower, "/v1/kv/a") == b"value200 1"
    assert curl(follower, "/v1/kv/b").endswith(b"404 1")
    assert b'"ttl_ms":2000' in curl(
        follower, "/v1/sessions", "-H", "Content-Type: application/json", "-d", '{"ttl_ms":2000}'
    )
    assert curl(follower, "/v1/kv?prefix=a", "-X", "DELETE").endswith(b"}200 1")
    assert leader.stored(b"a") is None


def test_what_comes_from_a_pipe_gets_to_a_leader_asked_first(cluster: tuple[AiohttpClient, AiohttpClient]) -> None:
    _, leader = cluster
    assert curl(leader, "/v1/kv/a", "-T", "-", body=b"x" * 100_000).endswith(b"}201 0")
    assert leader.stored(b"a") == b"x" * 100_000


@pytest.mark.parametrize("how", ["--data-binary", "-T"])
def test_a_value_that_is_too_large_is_told_so(
    cluster: tuple[AiohttpClient, AiohttpClient], tmp_path: Path, how: str
) -> None:
    value = tmp_path / "value"
    value.write_bytes(bytes(7 * 1024 * 1024))
    options = ["-X", "PUT", how, f"@{value}" if how == "--data-binary" else str(value)]
    assert b'"code":"too_large"' in curl(cluster[1], "/v1/kv/a", *options)
    assert b'"code":"too_large"' in curl(cluster[1], "/v1/kv/a", *options, "-H", "Expect:")
