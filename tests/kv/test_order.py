"""The order of keys against a sorted list, and what was frozen of it."""

from __future__ import annotations

import random

import pytest

from raftkv.kv import order
from raftkv.kv.order import Keys
from raftkv.kv.ranges import Bounds


def keys_within(model: set[bytes], bounds: Bounds) -> list[bytes]:
    return sorted(key for key in model if key >= bounds.start and (bounds.end is None or key < bounds.end))


@pytest.mark.parametrize("seed", range(30))
def test_keys_come_and_go_and_stay_in_order(seed, monkeypatch):
    monkeypatch.setattr(order, "KEYS_PER_LIST", 2 + seed % 4)
    rng, keys, model = random.Random(seed), Keys(), set()
    frozen: list[tuple[list[list[bytes]], list[bytes]]] = []
    names = [b"%d" % number for number in range(60)] + [b"", b"\xff\xff"]
    growing = True
    for step in range(600):
        growing = rng.random() < 0.5 if step % 60 == 0 else growing
        name = rng.choice(names)
        if name not in model and (growing or rng.random() < 0.2):
            keys.add(name)
            model.add(name)
        elif name in model and (not growing or rng.random() < 0.2):
            keys.remove(name)
            model.remove(name)
        if rng.random() < 0.1:
            frozen.append((keys.freeze(), sorted(model)))
        bounds = Bounds(rng.choice(names), rng.choice([*names, None]))
        assert list(keys) == sorted(model)
        assert list(keys.within(bounds, reverse=False)) == keys_within(model, bounds)
        assert list(keys.within(bounds, reverse=True)) == keys_within(model, bounds)[::-1]
        assert all(keys._lists) and [part[-1] for part in keys._lists] == keys._last
        assert len(keys._lists) <= 1 + len(model) / (order.KEYS_PER_LIST // 2)
    for lists, then in frozen:
        assert [key for part in lists for key in part] == then


@pytest.mark.parametrize("piece", [1, 2, 5, 7])
def test_what_is_appended_fills_lists(piece, monkeypatch):
    monkeypatch.setattr(order, "KEYS_PER_LIST", 5)
    keys, names = Keys(), [b"%02d" % number for number in range(23)]
    before = keys.freeze()
    for start in range(0, len(names), piece):
        frozen = keys.freeze()
        lengths = sum(map(len, frozen))
        keys.append(names[start : start + piece])
        assert sum(map(len, frozen)) == lengths, "what was frozen stays"
    keys.append([])
    assert (list(keys), before) == (names, [])
    assert [len(part) for part in keys._lists] == [5, 5, 5, 5, 3]
    keys.add(b"015")
    keys.remove(b"22")
    assert list(keys) == sorted([*names[:-1], b"015"])


def test_a_key_that_is_not_there_cannot_go():
    keys = Keys()
    keys.append([b"a", b"c"])
    with pytest.raises(AssertionError):
        keys.remove(b"b")


def test_from_the_end_it_shrinks_to_nothing(monkeypatch):
    monkeypatch.setattr(order, "KEYS_PER_LIST", 5)
    keys = Keys()
    keys.append([b"%02d" % number for number in range(23)])
    lengths = []
    while any(keys._lists):
        keys.shrink(10)
        lengths.append(len(list(keys)))
    assert lengths == [10, 0]
