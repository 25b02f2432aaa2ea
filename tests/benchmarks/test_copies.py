"""The floor under large values: whole blocks, answered in order, once two of three have them on disk."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from benchmarks import floor
from benchmarks.generators import copies
from benchmarks.generators.copies import BLOCK_BYTES, Disk, Majority, Taker


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.wrote = b""

    def write(self, data: Any) -> None:
        self.wrote += bytes(data)


@pytest.mark.parametrize("piece_bytes", [1000, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES])
def test_blocks_are_whole_however_they_come(piece_bytes):
    sent = bytes(range(256)) * (3 * BLOCK_BYTES // 256)
    found: list[bytes] = []
    wire = Wire()

    def take(block: list[bytes], answer: copies.Answer) -> None:
        found.append(b"".join(block))
        answer()

    taker = Taker(take)
    taker.connection_made(wire)
    for at in range(0, len(sent), piece_bytes):
        taker.data_received(sent[at : at + piece_bytes])
    assert b"".join(found) == sent
    assert [len(block) for block in found] == [BLOCK_BYTES] * 3
    assert wire.wrote == b"..."


def test_a_block_is_answered_at_the_second_of_three_and_once():
    waiting: list[copies.Answer] = []

    class Whoever:
        def send(self, block: list[bytes], done: copies.Answer) -> None:
            waiting.append(done)

        write = send

    answers: list[str] = []
    majority = Majority(Whoever(), [Whoever(), Whoever()])  # type: ignore[arg-type, list-item]
    majority.take([b"x"], lambda: answers.append("answered"))
    told = []
    for done in waiting:
        done()
        told.append(len(answers))
    assert told == [0, 1, 1]


async def test_what_is_answered_is_on_the_disk_round_and_round(tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "FILE_BLOCKS", 3)
    disk = Disk(tmp_path / "file")
    blocks = [bytes([number]) * BLOCK_BYTES for number in range(1, 6)]
    written: list[int] = []
    is_last = asyncio.Event()

    def wrote(number: int) -> None:
        written.append(number)
        if number == len(blocks) - 1:
            is_last.set()

    for number, block in enumerate(blocks):
        disk.write([block[:10], block[10:]], partial(wrote, number))
    await asyncio.wait_for(is_last.wait(), 10)
    assert written == [0, 1, 2, 3, 4]
    assert (tmp_path / "file").read_bytes() == blocks[3] + blocks[4] + blocks[2]


def test_three_real_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(floor, "PASSED_ON", 40)
    taken_us, mib_s = floor.passed_on(tmp_path, 8)
    assert len(taken_us) == 40
    assert mib_s > 0
    held = [{file[at : at + BLOCK_BYTES] for at in range(0, len(file), BLOCK_BYTES)} for file in _files(tmp_path)]
    assert all(blocks <= {b"x" * BLOCK_BYTES, bytes(BLOCK_BYTES)} for blocks in held)
    assert sum(b"x" * BLOCK_BYTES in blocks for blocks in held) >= 2, "the last of three is not waited for"


def _files(directory) -> list[bytes]:
    return [(directory / f"copies-{node}").read_bytes() for node in range(3)]
