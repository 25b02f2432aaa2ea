"""A node of one, started as a process, asked by schemathesis whatever its own document allows and forbids."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.documented import document
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


def schemathesis(node: LiveNode, *options: str, location: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")]
    command += [
        "run",
        location or f"{node.url}/v1/openapi.json",
        "--url",
        node.url,
        "--seed",
        "7",
        "--continue-on-failure",
        "--no-color",
        *options,
    ]
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


UNKNOWN = {"name": "force", "in": "query", "required": True, "schema": {"enum": ["true"]}}
LIES = [
    (lambda item: item["get"]["responses"].pop("200"), "Undocumented status code"),
    (lambda item: item["put"]["responses"]["201"]["headers"]["ETag"].update(schema={"type": "integer"}), "header"),
    (lambda item: item["delete"]["parameters"].append(UNKNOWN), "Schema-valid request rejected"),
]


@pytest.mark.live
async def test_a_document_that_lies_is_found_out(node: LiveNode) -> None:
    """Planted: what finds nothing above does find something."""
    lying = json.loads(json.dumps(document()))
    for lie, _ in LIES:
        lie(lying["paths"]["/v1/kv/{key}"])
    place = node.log.parent / "lying.json"
    place.write_text(json.dumps(lying))
    found = schemathesis(node, "--max-examples", "3", "--include-path", "/v1/kv/{key}", location=str(place))
    assert found.returncode == 1
    assert [finding for _, finding in LIES if finding not in found.stdout] == [], found.stdout
