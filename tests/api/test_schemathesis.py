"""A node of one, started as a process, asked by schemathesis whatever its own document allows and forbids."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.live.cluster import LiveCluster, LiveNode

HERE = Path(__file__).parent
EXAMPLES = 15
SECONDS_MAX = 120


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[LiveNode]:
    with LiveCluster(tmp_path, nodes_count=1) as cluster:
        cluster.start()
        yield await cluster.until_serving()
        cluster.connections.close()


def schemathesis(node: LiveNode, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")]
    command += ["run", f"{node.url}/v1/openapi.json", "--seed", "7", "--continue-on-failure", "--no-color", *options]
    return subprocess.run(
        command,
        cwd=node.log.parent,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.api.excused", "PYTHONPATH": str(HERE.parent.parent)},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


@pytest.mark.live
@pytest.mark.timeout(SECONDS_MAX + 10)
async def test_schemathesis_finds_nothing(node: LiveNode) -> None:
    found = schemathesis(node, "--max-examples", str(EXAMPLES), "--exclude-path", "/v1/stream")
    assert found.returncode == 0, found.stdout
    assert node.is_running and node.loud_lines() == []
