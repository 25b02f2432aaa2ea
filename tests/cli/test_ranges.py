"""list, and delete of a range: what goes out page by page, what is printed, and what must be meant twice."""

from __future__ import annotations

import base64
import json
from urllib.parse import parse_qs, urlsplit

import pytest
from rich.cells import cell_len

from raftkv.cli import deletion
from tests.cli.fake_node import FakeNode, Reply, problem
from tests.cli.terminals import on_a_terminal


def item(key: bytes, value: bytes | None = b"v", revision: int = 7) -> dict[str, object]:
    found: dict[str, object] = {"key_base64": base64.b64encode(key).decode()}
    if value is not None:
        found["value_base64"] = base64.b64encode(value).decode()
    return found | {"create_revision": 5, "mod_revision": revision, "version": 2}


def page(*items: dict[str, object], following: str | None = None, revision: int = 9) -> Reply:
    return Reply(body={"items": list(items), "revision": revision, "more": following is not None, "next": following})


def queries(node: FakeNode, method: str = "GET") -> list[dict[str, str]]:
    found = [parse_qs(urlsplit(heard.target).query, keep_blank_values=True) for heard in node.asked(method)]
    return [{name: values[0] for name, values in query.items()} for query in found]


class TestList:
    def test_shows_a_table(self, run, node):
        node.on("GET", "/v1/kv?", page(item(b"a", b"one"), item(b"long/key", b"\x00two", 12_345)))
        ended = run("list", "--endpoints", node.url)
        assert (ended.code, ended.err) == (0, "")
        heading, first, second = ended.text.splitlines()
        assert heading.split() == ["key", "value", "revision", "version"]
        assert first.split() == ["a", "one", "7", "2"]
        assert second.split() == ["long/key", "\\x00two", "12,345", "2"]
        assert len({first.index("one"), second.index("\\x00two"), heading.index("value")}) == 1

    def test_asks_for_base64_so_that_every_byte_arrives(self, run, node):
        node.on("GET", "/v1/kv?", page())
        run("list", "a b/ä+", "--endpoints", node.url)
        assert node.heard[0].target == "/v1/kv?prefix=a%20b%2F%C3%A4%2B&limit=1000&encoding=base64"

    @pytest.mark.parametrize(
        ("words", "query"),
        [
            ((), {}),
            (("a/",), {"prefix": "a/"}),
            (("--start", "a", "--end", "b"), {"start": "a", "end": "b"}),
            (("--end", "b"), {"end": "b"}),
            (("--reverse",), {"reverse": "true"}),
            (("--keys-only",), {"keys_only": "true"}),
            (("--limit", "3"), {"limit": "3"}),
            (("--consistency", "follower"), {"consistency": "follower"}),
            (
                ("--consistency", "stale", "--min-index", "4", "--max-staleness-ms", "50"),
                {"consistency": "stale", "min_index": "4", "max_staleness_ms": "50"},
            ),
        ],
        ids=str,
    )
    def test_options_become_the_query(self, run, node, words, query):
        node.on("GET", "/v1/kv?", page())
        assert run("list", *words, "--endpoints", node.url).code == 0
        assert queries(node) == [{"limit": "1000", "encoding": "base64"} | query]

    def test_goes_on_by_cursor_until_nothing_is_left(self, run, node):
        node.on(
            "GET", "/v1/kv?", page(item(b"a"), following="c+1"), page(item(b"b"), following="c/2"), page(item(b"c"))
        )
        ended = run("list", "x", "--reverse", "--keys-only", "--endpoints", node.url)
        assert ended.text == "a\nb\nc\n"
        asked = queries(node)
        assert [query.get("cursor") for query in asked] == [None, "c+1", "c/2"]
        assert [query.get("prefix") for query in asked] == ["x", None, None]
        assert all(query["reverse"] == query["keys_only"] == "true" for query in asked)

    def test_stops_at_the_limit_and_says_that_there_is_more(self, run, node):
        pages = [page(*[item(b"k%d" % n) for n in range(1000)], following="c") for _ in range(2)]
        node.on("GET", "/v1/kv?", *pages, page(*[item(b"z")] * 500, following="d"))
        ended = run("list", "--keys-only", "--limit", "2500", "--endpoints", node.url)
        assert ended.text.count("\n") == 2500
        assert "more keys" in ended.err
        assert [query["limit"] for query in queries(node)] == ["1000", "1000", "500"]

    def test_a_page_that_a_node_ended_early_is_gone_on_from(self, run, node):
        node.on("GET", "/v1/kv?", page(item(b"a"), following="c"), page(item(b"b"), following="d"))
        assert run("list", "--keys-only", "--limit", "2", "--endpoints", node.url).text == "a\nb\n"
        assert [query["limit"] for query in queries(node)] == ["2", "1"]

    def test_for_programs_is_one_document(self, run, node):
        node.on("GET", "/v1/kv?", page(item(b"a", b"1"), following="c"), page(item(b"\xff", b"\x00"), revision=11))
        ended = run("list", "--output", "json", "--endpoints", node.url)
        rest = {"create_revision": 5, "mod_revision": 7, "version": 2}
        assert json.loads(ended.text) == {
            "items": [{"key": "a", "value": "1", **rest}, {"key_base64": "/w==", "value": "\x00", **rest}],
            "more": False,
            "revision": 11,
        }

    def test_for_programs_without_values_has_none(self, run, node):
        node.on("GET", "/v1/kv?", page(item(b"a", None)))
        (found,) = json.loads(run("list", "--keys-only", "--output", "json", "--endpoints", node.url).text)["items"]
        assert "value" not in found and "value_base64" not in found

    def test_for_programs_is_safe_on_a_terminal_all_the_same(self, run, node):
        node.on("GET", "/v1/kv?", page(item("\x1b[2J\u202e\x9b".encode(), b"\x07")))
        for words in (("list",), ("list", "--keys-only"), ("list", "--output", "json")):
            shown = run(*words, "--endpoints", node.url).text
            assert shown.replace("\n", "").isprintable()

    def test_that_breaks_off_leaves_no_document_that_looks_whole(self, run, node):
        node.on("GET", "/v1/kv?", page(item(b"a"), following="c"), problem(400, "bad_request"))
        ended = run("list", "--output", "json", "--endpoints", node.url)
        assert ended.code == 4
        with pytest.raises(ValueError):
            json.loads(ended.text)

    def test_of_nothing_says_so_and_is_no_failure(self, run, node):
        node.on("GET", "/v1/kv?", page())
        for words, told in (((), "There are no keys.\n"), (("a\n",), "No key begins with a\\n.\n")):
            ended = run("list", *words, "--endpoints", node.url)
            assert (ended.code, ended.text, ended.err) == (0, "", told)
        assert json.loads(run("list", "--output", "json", "--endpoints", node.url).text)["items"] == []

    @pytest.mark.parametrize("body", [{}, {"items": {}}, {"items": [3]}, {"items": [{"key": "k"}]}], ids=str)
    def test_of_what_is_no_node_is_refused(self, run, node, body):
        node.on("GET", "/v1/kv?", Reply(body=body))
        ended = run("list", "--endpoints", node.url)
        assert ended.code == 4
        assert "does not answer like a raftkv node" in ended.err

    def test_columns_are_no_wider_than_what_stands_in_them(self, run, node):
        node.on("GET", "/v1/kv?", page(item(b"paint/door", b"green"), item(b"paint/wall", b"white as snow")))
        lines = run("list", "--endpoints", node.url).text.splitlines()
        assert lines == [
            "key         value          revision  version",
            "paint/door  green                 7        2",
            "paint/wall  white as snow         7        2",
        ]

    @pytest.mark.parametrize("columns", [80, 40, 200])
    def test_fits_the_terminal(self, node, columns):
        wide = "日".encode() * 200
        node.on("GET", "/v1/kv?", page(item(b"k" * 300, wide), item(b"short", b"\x1b[2J"), item(b"k", b"x" * 2000)))
        shown = on_a_terminal(["list", "--endpoints", node.url], columns=columns)
        lines = [line for line in shown.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines() if line]
        assert len(lines) == 4
        assert max(map(cell_len, lines)) <= columns
        assert "\x1b" not in "".join(lines)


class TestDeletingARange:
    @pytest.mark.parametrize(
        ("words", "query"),
        [
            (("--prefix", "a/"), {"prefix": "a/"}),
            (("--start", "a", "--end", "b"), {"start": "a", "end": "b"}),
            (("--start", "a"), {"start": "a"}),
            (("--all",), {"all": "true"}),
        ],
        ids=str,
    )
    def test_names_exactly_what_was_meant(self, run, node, words, query):
        node.on("DELETE", "/v1/kv?", Reply(body={"deleted": 3, "more": False, "revision": 9}))
        ended = run("delete", *words, "--yes", "--endpoints", node.url)
        assert (ended.code, ended.text) == (0, "3 keys deleted, revision 9\n")
        assert queries(node, "DELETE") == [query]

    def test_goes_on_until_nothing_is_left(self, run, node):
        steps = [Reply(body={"deleted": 10_000, "more": True, "revision": n}) for n in (8, 9)]
        node.on("DELETE", "/v1/kv?", *steps, Reply(body={"deleted": 1, "more": False, "revision": 10}))
        ended = run("delete", "--all", "--yes", "--endpoints", node.url)
        assert ended.text == "20,001 keys deleted, revision 10\n"
        assert len(node.heard) == 3

    def test_for_programs_is_safe_on_a_terminal_all_the_same(self, run, node):
        node.on("GET", "/v1/kv?", page(item("\x1b[2J\u202e\x9b".encode(), b"\x07")))
        for words in (("list",), ("list", "--keys-only"), ("list", "--output", "json")):
            shown = run(*words, "--endpoints", node.url).text
            assert shown.replace("\n", "").isprintable()

    def test_that_breaks_off_tells_what_is_gone(self, run, node):
        node.on(
            "DELETE",
            "/v1/kv?",
            Reply(body={"deleted": 10_000, "more": True, "revision": 8}),
            problem(504, "outcome_unknown"),
        )
        ended = run("delete", "--all", "--yes", "--endpoints", node.url)
        assert ended.code == 3
        assert "10,000 keys are deleted already" in ended.err

    def test_of_no_keys_is_exit_code_1(self, run, node):
        node.on("DELETE", "/v1/kv?", Reply(body={"deleted": 0, "more": False, "revision": 8}))
        for words in (("--prefix", "a"), ("--start", "a", "--end", "b"), ("--all",)):
            ended = run("delete", *words, "--yes", "--endpoints", node.url)
            assert (ended.code, ended.text) == (1, "")
            assert "nothing was deleted" in ended.err

    def test_for_programs(self, run, node):
        node.on("DELETE", "/v1/kv?", Reply(body={"deleted": 3, "more": False, "revision": 9}))
        ended = run("delete", "--all", "--yes", "--output", "json", "--endpoints", node.url)
        assert json.loads(ended.text) == {"deleted": 3, "revision": 9}

    def test_without_yes_and_without_a_terminal_deletes_nothing(self, run, node):
        """faults 70"""
        ended = run("delete", "--prefix", "a/", "--endpoints", node.url, stdin=b"y\n")
        assert ended.code == 2
        assert "that begins with a/" in ended.err and "--yes" in ended.err
        assert node.heard == []

    @pytest.mark.parametrize(
        ("typed", "goes"), [(b"y\n", True), (b"n\n", False), (b"\n", False), (b"\x04", False)], ids=repr
    )
    def test_on_a_terminal_asks_and_does_what_is_answered(self, node, typed, goes):
        node.on("GET", "/v1/kv?", page(*[item(b"a/%d" % n, None) for n in range(12)]))
        node.on("DELETE", "/v1/kv?", Reply(body={"deleted": 12, "more": False, "revision": 9}))
        shown = on_a_terminal(["delete", "--prefix", "a/", "--endpoints", node.url], typed=typed)
        assert "Delete 12 keys that begin with a/?" in shown
        assert bool(node.asked("DELETE")) == goes
        assert ("12 keys deleted" in shown) == goes
        assert shown.endswith("\n")

    @pytest.mark.parametrize(
        ("found", "more", "told"), [(1, False, "Delete 1 key "), (3, True, "Delete more than 3 keys ")]
    )
    def test_the_question_tells_how_many(self, run, node, monkeypatch, found, more, told):
        asked = []
        monkeypatch.setattr(deletion, "_is_attended", lambda: True)
        monkeypatch.setattr("click.confirm", lambda text, **_: asked.append(text))
        node.on("GET", "/v1/kv?", page(*[item(b"a", None)] * found, following="c" if more else None))
        assert run("delete", "--all", "--endpoints", node.url).code == 4
        assert asked[0].startswith(told)
        assert node.asked("DELETE") == []

    def test_of_nothing_is_not_asked_about(self, run, node, monkeypatch):
        monkeypatch.setattr(deletion, "_is_attended", lambda: True)
        node.on("GET", "/v1/kv?", page())
        assert run("delete", "--all", "--endpoints", node.url).code == 1
