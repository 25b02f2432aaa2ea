"""A message that no node of this cluster sends is refused, told and counted; it does not fill the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from raftkv.core.messages import Envelope, Heartbeat
from raftkv.core.types import ClusterId, Incarnation, Index, NodeId, Round, Term
from raftkv.node import running as running_node
from raftkv.transport.routes import PeerExchange
from tests.live.cluster import until
from tests.node.nodes import PATIENCE_S, lone_node


class Asked(PeerExchange):
    """An exchange with whoever sent it."""

    def __init__(self) -> None:
        self.refusals: list[dict[str, Any]] = []

    def refuse(self, **how: Any) -> None:
        self.refusals.append(how)


def of_another_cluster(number: int) -> Envelope:
    nobody = Incarnation(b"somebody........")
    message = Heartbeat(Term(1), Index(0), Index(0), Round(1), 0, 0)
    return Envelope(ClusterId(b"%016d" % number), NodeId("x"), nobody, NodeId("n1"), nobody, message)


@pytest.mark.parametrize(
    ("numbers", "apart_s", "told"), [([1] * 5, 0.0, 1), ([1, 2, 1, 2], 0.0, 4), ([1, 2, 1, 2], 60.0, 1)]
)
async def test_refused_messages_are_told_and_do_not_fill_the_log(
    tmp_path, caplog, monkeypatch, numbers: Sequence[int], apart_s: float, told: int
) -> None:
    monkeypatch.setattr(running_node, "REFUSALS_APART_S", apart_s)
    async with lone_node(tmp_path) as node:
        inside = node._running
        assert inside is not None
        for number in numbers:
            asked = Asked()
            inside.on_message(of_another_cluster(number), asked)
            await until(lambda: bool(asked.refusals), within_s=PATIENCE_S, what="a refusal")  # noqa: B023
            assert asked.refusals[0]["status"] == 409
        assert inside._metrics.events["refused_message"] == len(numbers)
    assert len([record for record in caplog.records if "belongs to cluster" in record.message]) == told
