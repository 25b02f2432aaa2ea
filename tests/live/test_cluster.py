"""What starts processes ends them."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.live.cluster import LiveCluster


def test_leaving_a_cluster_ends_also_who_is_none_of_its_nodes_any_more(tmp_path: Path) -> None:
    """Left alone it would have a port, and answer there, for as long as the machine runs."""
    cluster = LiveCluster(tmp_path, nodes_count=1)
    node = cluster.nodes.pop("n1")
    node.command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with cluster:
        node.start()
    assert not node.is_running
    assert [str(ending) for ending in node.endings] == ["n1 ended with exit code -9"]
