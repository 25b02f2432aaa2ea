"""Protocol stories as text: every file in tests/scenarios is run, and must be told as it stands there.

``RAFTKV_REWRITE=1`` writes down what is told now instead; then it is to be read as prose before it is kept.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.core_story import CoreStory
from tests.story import Story

SCENARIOS = sorted((Path(__file__).parent.parent / "scenarios").glob("*.txt"))


def retold(text: str) -> str:
    """The scenario with what is told now."""
    begins = next(line for line in text.splitlines() if line and not line.startswith("#"))
    story: Story | CoreStory = CoreStory() if begins.startswith("cores") else Story()
    blocks = []
    for block in text.strip("\n").split("\n\n"):
        commands = block.split("\n----")[0].split("\n")
        has_commands = any(line and not line.startswith("#") for line in commands)
        blocks.append("\n".join(commands) + (f"\n----\n{story.run(commands)}".rstrip("\n") if has_commands else ""))
    return "\n\n".join(blocks) + "\n"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_is_told_as_written(path: Path) -> None:
    text = path.read_text()
    told = retold(text)
    if os.environ.get("RAFTKV_REWRITE"):
        path.write_text(told)
        return
    assert told == text


def test_a_wrong_ending_is_noticed() -> None:
    text = "cluster a\nstart\nwait 1000ms\nshow\n----\na: follower, term 0, commit 0, log empty\n"
    assert retold(text) != text
