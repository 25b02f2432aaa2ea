"""Log and snapshots together: a crash at every operation, one failure at every operation, random lives."""

from __future__ import annotations

import pytest

from tests.storage.histories import crash_everywhere, random_history


@pytest.mark.parametrize(("seed", "page_bytes"), [(0, 512), (1, 4096)])
def test_what_was_promised_survives_a_crash_at_every_operation(seed, page_bytes):
    """faults 43, 52, 54, 56: between snapshot, rename, base record and trim; torn files; names in doubt."""
    assert crash_everywhere(seed, steps=25, page_bytes=page_bytes) > 60


def test_random_lives_are_as_the_model_says():
    seen = set()
    for seed in range(100):
        seen |= random_history(seed)
    assert seen >= {"append", "truncate", "take", "receive", "trim", "start", "hold", "damage"}
