"""Full collections are kept short in a node's own process."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from raftkv.node.garbage import short_collections


@pytest.fixture(autouse=True)
def nothing_is_frozen() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize(("long_s", "generation", "is_frozen"), [(0.0, 2, True), (0.0, 1, False), (3600.0, 2, False)])
def test_what_survived_a_long_full_collection_is_not_looked_at_again(long_s, generation, is_frozen):
    kept = [[number] for number in range(10_000)]
    with short_collections(long_s=long_s):
        gc.collect(generation)
        assert (gc.get_freeze_count() > len(kept)) is is_frozen
        assert any(one is kept[0] for one in gc.get_objects()) is not is_frozen


def test_afterwards_the_process_is_as_before():
    callbacks = list(gc.callbacks)
    with short_collections(long_s=0.0):
        assert len(gc.callbacks) == len(callbacks) + 1
    gc.collect()
    assert (gc.callbacks, gc.get_freeze_count()) == (callbacks, 0)
