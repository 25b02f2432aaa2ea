"""Ports that nobody else has: without a lock on them, two runs and a node that is not up yet met on one."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.live.cluster import CHECKOUT
from tests.live.ports import BLOCK, HOST, PORTS, Block, free_ports, is_free


@pytest.fixture
def block(tmp_path: Path) -> Iterator[Block]:
    with closing(Block(tmp_path)) as ours:
        yield ours


def test_a_port_is_given_again_after_all_others(block: Block) -> None:
    """A node that is killed, or is only about to listen, leaves its port free for others to see."""
    given = [port for _ in range(BLOCK // 4) for port in block.give(3)]
    assert len(set(given)) == len(given)
    assert all(port in PORTS for port in given)
    again = [port for _ in range(BLOCK) for port in block.give(1)]
    assert set(given) <= set(again)


def test_ports_come_in_a_row_and_none_where_somebody_listens(block: Block) -> None:
    with socket.create_server((HOST, block.first + 1)):
        assert not is_free(block.first + 1)
        assert block.give(3) == [block.first + place for place in (2, 3, 4)]
        with pytest.raises(OSError, match="in a row"):
            block.give(BLOCK)


def test_a_block_is_one_s_alone_until_it_ends(tmp_path: Path, block: Block) -> None:
    with closing(Block(tmp_path)) as second:
        assert abs(second.first - block.first) >= BLOCK
    with closing(Block(tmp_path)) as third:
        assert third.first == second.first


def test_when_all_are_taken_that_is_said(tmp_path: Path) -> None:
    with ExitStack() as taken:
        for _ in range(len(PORTS) // BLOCK):
            taken.enter_context(closing(Block(tmp_path)))
        with pytest.raises(OSError, match="are taken"):
            Block(tmp_path)


def test_another_process_has_others() -> None:
    """Though nobody listens on any of them."""
    (port,) = free_ports(1)
    command = [sys.executable, "-c", "from tests.live.ports import free_ports; print(*free_ports(50))"]
    there = subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=True, timeout=30).stdout.split()
    assert len(there) == 50
    assert port // BLOCK not in {int(other) // BLOCK for other in there}
