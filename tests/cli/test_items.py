"""What is stored, as a terminal may show it and as programs get it: nothing acts, nothing is lost."""

from __future__ import annotations

import base64
import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from raftkv.cli.items import Item, byte_count, cut, for_programs, item_of, preview, printable, shown
from raftkv.cli.options import _safe

NUMBERS = {"create_revision": 1, "mod_revision": 2, "version": 3}


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain/key-1", "plain/key-1"),
        ("ä 日本 🎉".encode(), "ä 日本 🎉"),
        (b"a\nb\tc\rd", "a\\nb\\tc\\rd"),
        (b"back\\slash", "back\\\\slash"),
        (b"\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        (b"\x00\x7f", "\\x00\\x7f"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"caf\xc3", "caf\\xc3"),
        ("\x9b31m".encode(), "\\u009b31m"),
        ("abc\u202edef".encode(), "abc\\u202edef"),
        ("a\u2028b\u00a0c".encode(), "a\\u2028b\\u00a0c"),
        ("\U000e0001".encode(), "\\U000e0001"),
    ],
    ids=repr,
)
def test_what_a_terminal_would_act_on_is_escaped(raw, text):
    assert shown(raw) == text


@given(st.binary(max_size=60))
def test_nothing_that_is_stored_reaches_the_terminal_as_it_is(raw):
    for text in (shown(raw), preview(raw, 20), printable(raw.decode("latin-1")).replace("\n", "")):
        assert text.isprintable()


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_no_two_values_look_the_same(one, other):
    assert (shown(one) == shown(other)) == (one == other)


def test_a_key_as_it_is_shown_is_that_key_in_bash():
    for raw in (b"a\nb", b"\x1b\xff", "ä\u202e".encode(), b"back\\slash", b"\x01\x7f\t"):
        said = subprocess.run(
            ["bash", "-c", f"printf %s $'{shown(raw)}'"], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}
        )
        assert said.stdout == raw


@pytest.mark.parametrize("raw", [b"short", b"", b"x" * 20, "日".encode() * 10], ids=repr)
def test_what_fits_is_shown_whole(raw):
    assert preview(raw, 20) == raw.decode()


@given(
    st.one_of(
        st.binary(min_size=21, max_size=200),
        st.text(min_size=21, max_size=100).map(lambda text: text.encode(errors="ignore")),
    ),
    st.integers(20, 30),
)
def test_a_long_value_is_cut_and_its_size_told(raw, cells):
    text = preview(raw, cells)
    assert cell_len(text) <= cells
    if text != shown(raw):
        assert text.endswith(f"… ({byte_count(len(raw))})")


def test_only_the_beginning_of_a_huge_value_is_looked_at():
    text = preview(b"x" * 1_048_576, 30)
    assert text == "x" * 19 + "… (1.0 MiB)"


@given(st.text(max_size=40), st.integers(1, 20))
def test_what_is_cut_has_room(text, cells):
    assert cell_len(cut(text, cells)) <= cells


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (10 * 1024, "10 KiB"),
        (16 * 1024**2, "16 MiB"),
        (1000 * 1024, "1.0 MiB"),
        (5 * 1024**5, "5,120 TiB"),
    ],
)
def test_sizes_are_told_in_the_unit_that_fits(count, text):
    assert byte_count(count) == text


@given(st.binary(min_size=1, max_size=30), st.binary(max_size=30))
def test_programs_get_every_byte(key, value):
    document = json.loads(_safe(json.dumps(for_programs(Item(key, value, 1, 2, 3)), ensure_ascii=False)))
    for name, raw in (("key", key), ("value", value)):
        assert (name in document) != (f"{name}_base64" in document)
        got = document[name].encode() if name in document else base64.b64decode(document[f"{name}_base64"])
        assert got == raw
    assert item_of(document) == Item(key, value, 1, 2, 3)


@given(st.text(max_size=60))
def test_json_reaches_the_terminal_without_what_it_acts_on(text):
    document = _safe(json.dumps([text], ensure_ascii=False, indent=2))
    assert document.replace("\n", "").isprintable()
    assert json.loads(document) == [text]


@pytest.mark.parametrize(
    "said",
    [{}, {"key": 3, **NUMBERS}, {"key_base64": "%%", **NUMBERS}, {"key": "k"}, {"key": "k", **NUMBERS, "version": "3"}],
    ids=str,
)
def test_what_no_node_of_ours_says_is_refused(said):
    with pytest.raises(ValueError):
        item_of(said)
