"""A live test that fails tells what its nodes said: the next run may not fail, and its logs are gone soon."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from tests.live.cluster import CLUSTERS

LINES_MAX = 40


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    """The last lines of every node's log, and how its processes ended, stand under the failure."""
    report = yield
    if report.failed:
        for cluster in CLUSTERS:
            for node in cluster.made:
                said = "\n".join([*node.log_text().splitlines()[-LINES_MAX:], *map(str, node.endings)])
                report.sections.append((f"{node.id} at {node.url}", said))
    return report
