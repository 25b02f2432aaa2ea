"""The work is the same for all."""

from __future__ import annotations

from benchmarks.work import Work, base64_of, batches, drawn_keys, key


def work(**more: int) -> Work:
    given = {"clients": 1, "seconds": 1, "keys": 1000, "value_bytes": 256, "seed": 7, **more}
    return Work("put", **given)


def test_a_key_has_sixteen_bytes() -> None:
    assert (key(0), key(999_999), len(key(7))) == ("key-000000000000", "key-000000999999", 16)


def test_the_same_seed_draws_the_same_keys_and_another_draws_others() -> None:
    assert drawn_keys(work()) == drawn_keys(work())
    assert drawn_keys(work()) != drawn_keys(work(seed=8))


def test_keys_are_drawn_evenly_from_all_that_are_there() -> None:
    drawn = drawn_keys(work(keys=10))
    counts = [drawn.count(number) for number in range(10)]
    assert sum(counts) == len(drawn)
    assert min(counts) > 0.9 * len(drawn) / 10


def test_large_values_are_held_ready_less_often() -> None:
    large = work(value_bytes=64 * 1024)
    assert 100 <= len(drawn_keys(large)) < 1000
    assert len(drawn_keys(work(value_bytes=1 << 20))) == 100


def test_batches_hold_every_key_once() -> None:
    for keys, value_bytes in ((1, 256), (100, 256), (250, 256), (7, 64 * 1024), (3, 1 << 20)):
        found = [number for batch in batches(keys, value_bytes) for number in batch]
        assert found == list(range(keys))
        assert all(len(batch) * value_bytes <= 256 * 1024 or len(batch) == 1 for batch in batches(keys, value_bytes))


def test_bytes_are_carried_as_json_carries_them() -> None:
    assert base64_of(b"\xff\x00v") == "/wB2"
