"""``list``: keys in their order, page by page, for people and for programs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, Final

import click
from rich.cells import cell_len

from raftkv.cli.answers import decided, item_in, name_of, unlike_ours
from raftkv.cli.asking import Cluster
from raftkv.cli.commands import command
from raftkv.cli.exchange import Request
from raftkv.cli.items import Item, cut, for_programs, preview, shown
from raftkv.cli.keys import freshness, freshness_options
from raftkv.cli.options import Shared, print_json_list, shared_options
from raftkv.cli.targets import Range, range_of, with_query

PAGE_KEYS: Final = 1_000
"""Keys asked for at a time; a node also ends a page at 4 MiB."""
_VALUE_CELLS_OF_FILES: Final = 60
_VALUE_CELLS_WANTED: Final = 20
_SAMPLE: Final = 1_000
"""So many lines are looked at before the first is printed, for the width of the columns."""


class Pages:
    """The items of a range, asked for page by page; afterwards, what the last page said."""

    def __init__(self, cluster: Cluster, wanted: Range, *, limit: int | None, query: list[tuple[str, bytes | str]]):
        """``query`` is what else each page is asked with."""
        self._cluster, self._wanted, self._limit, self._query = cluster, wanted, limit, query
        self.revision: int | None = None
        self.more = False
        """Whether there are keys after the last one that was given."""

    def __iter__(self) -> Iterator[Item]:
        left, cursor = self._limit, ""
        while left is None or left > 0:
            size = PAGE_KEYS if left is None else min(left, PAGE_KEYS)
            place: list[tuple[str, bytes | str]] = [("cursor", cursor)] if cursor else self._wanted.parameters()
            parameters = [*place, ("limit", str(size)), ("encoding", "base64"), *self._query]
            answer = decided(self._cluster.ask(Request("GET", with_query("/v1/kv", parameters))))
            page = answer.json()
            found = page.get("items")
            if not isinstance(found, list):
                raise unlike_ours(answer, "a page without items")
            yield from (item_in(said, answer) for said in found)
            self.revision, self.more = page.get("revision"), page.get("more") is True
            cursor = str(page.get("next") or "")
            if not self.more or not cursor:
                return
            left = None if left is None else left - len(found)


@command(
    "list",
    examples=(
        "raftkv list",
        "raftkv list config/",
        "raftkv list --start user/a --end user/n --limit 20",
        "raftkv list --reverse --limit 1 jobs/",
        "raftkv list --keys-only config/ | wc -l",
        "raftkv list config/ --output json > config.json",
    ),
)
@click.argument("prefix", required=False)
@click.option("--start", metavar="KEY", help="From this key on.")
@click.option("--end", metavar="KEY", help="Up to this key, which is not included.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many keys (all).")
@click.option("--reverse", is_flag=True, help="The last key first.")
@click.option("--keys-only", is_flag=True, help="Only keys, one a line; values are not fetched.")
@freshness_options
@shared_options
def list_keys(
    prefix: str | None,
    start: str | None,
    end: str | None,
    limit: int | None,
    reverse: bool,
    keys_only: bool,
    consistency: str | None,
    min_index: int | None,
    max_staleness_ms: int | None,
    options: Shared,
) -> None:
    r"""List keys, all or those that begin with PREFIX.

    Keys come in bytewise order. What a terminal would act on is shown as \n, \t, \xHH or \uHHHH, and a backslash
    as two; in bash, $'…' around a key as it is shown is that key. Long values are cut, and on a terminal long keys;
    --output json has everything, with key_base64 and value_base64 for what is not UTF-8 text. Every page of 1,000
    keys is as fresh as was asked; keys that are written meanwhile may or may not be there.
    """
    wanted = range_of(prefix=prefix, start=start, end=end)
    query = freshness(consistency, min_index, max_staleness_ms)
    query += [(name, "true") for name, said in (("keys_only", keys_only), ("reverse", reverse)) if said]
    pages = Pages(options.cluster(), wanted, limit=limit, query=query)
    if options.wants_json:
        print_json_list("items", map(for_programs, pages), lambda: _ending(pages))
        return
    if keys_only:
        count = _print_keys(pages)
    else:
        count = _print_table(pages)
    sys.stdout.flush()
    if not count:
        click.echo(_nothing(wanted), err=True)
    elif pages.more:
        click.echo("There are more keys: raise --limit, or go on with --start.", err=True)


def _ending(pages: Pages) -> dict[str, Any]:
    return {"more": pages.more, "revision": pages.revision}


def _nothing(wanted: Range) -> str:
    if wanted.prefix:
        return f"No key begins with {name_of(wanted.prefix)}."
    return "There are no keys." if wanted.is_all else "There are no keys between the bounds."


def _print_keys(items: Pages) -> int:
    count = 0
    for item in items:
        sys.stdout.write(shown(item.key) + "\n")
        count += 1
    return count


def _print_table(pages: Pages) -> int:
    """A table whose columns are as wide as its first lines need; later lines keep to them, or stick out."""
    items = iter(pages)
    sample = list(islice(items, _SAMPLE))
    if not sample:
        return 0
    is_terminal = sys.stdout.isatty()
    names = [shown(item.key) for item in sample]
    numbers = [max(len(f"{number:,}") for number in column) for column in zip(*map(_numbers, sample), strict=True)]
    widths = [max(width, len(heading)) for width, heading in zip(numbers, ("revision", "version"), strict=True)]
    key_cells, room = _columns(max(map(cell_len, names)), sum(widths) + 6, is_terminal=is_terminal)
    value_cells = max(len("value"), *(cell_len(preview(item.value or b"", room)) for item in sample))
    click.secho(f"{'key':{key_cells}}  {'value':{value_cells}}  {'revision':>{widths[0]}}  version", bold=is_terminal)
    count = 0
    for item in chain(sample, items):
        name = shown(item.key)
        name = cut(name, key_cells) if is_terminal else name
        value = preview(item.value or b"", room)
        revision, version = (f"{number:,}".rjust(width) for number, width in zip(_numbers(item), widths, strict=True))
        sys.stdout.write(f"{_filled(name, key_cells)}  {_filled(value, value_cells)}  {revision}  {version}\n")
        count += 1
    return count


def _numbers(item: Item) -> tuple[int, int]:
    return item.mod_revision, item.version


def _columns(widest_key: int, rest: int, *, is_terminal: bool) -> tuple[int, int]:
    """Cells for keys, and for values at most."""
    widest_key = max(widest_key, len("key"))
    if not is_terminal:
        return widest_key, _VALUE_CELLS_OF_FILES
    room = shutil.get_terminal_size().columns - rest
    key_cells = min(widest_key, max(room - _VALUE_CELLS_WANTED, room // 2))
    return key_cells, max(len("value"), room - key_cells)


def _filled(text: str, cells: int) -> str:
    return text + " " * max(0, cells - cell_len(text))
