"""``txn``: several keys at once, all or nothing; and the writes of keys that no URL can name."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.cells import cell_len

from raftkv.cli.answers import condition_failed, item_in, unlike_ours, written
from raftkv.cli.commands import command
from raftkv.cli.exchange import Answer, Request
from raftkv.cli.failures import AbsentOrConditionFailed, Unusable
from raftkv.cli.items import byte_count, preview, shown
from raftkv.cli.options import Shared, exactly_once_option, print_json, shared_options
from raftkv.cli.sessions import Writer, writer

_BRANCHES = ("success", "failure")
_KEY_CELLS_MAX = 40
_VALUE_CELLS_MAX = 60


@command(
    examples=(
        "raftkv txn swap.json",
        "raftkv txn - < swap.json",
        """echo '{"success": [{"put": {"key": "a", "value": "1"}}]}' | raftkv txn -""",
        "raftkv txn swap.json --output json --exactly-once",
    )
)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@exactly_once_option
@shared_options
def txn(file: str, exactly_once: bool, options: Shared) -> int:
    """Run a transaction: all of it, or nothing.

    FILE, or standard input ("-"), is the JSON of POST /v1/txn. Move a lock from one owner to another, for example:

    \b
    {"compare": [{"key": "lock", "target": "value", "op": "==", "operand": "me"}],
     "success": [{"put": {"key": "lock", "value": "you"}}],
     "failure": [{"get": {"key": "lock"}}]}

    Operations are put, get, delete, range and delete_range; bytes that are no text go into key_base64,
    value_base64 and operand_base64. Exit code 0 means that the comparisons held and "success" ran, 1 that one
    did not and "failure" ran; the results are printed either way.
    """  # noqa: D301 - a real backspace, which keeps click from rewrapping
    body = _read(file)
    fields = _parsed(file, body)
    with writer(options.cluster(), exactly_once=exactly_once) as cluster:
        answer = run_transaction(cluster, body)
    report = answer.json()
    succeeded = report.get("succeeded") is True
    if options.wants_json:
        print_json(report)
    else:
        branch = fields.get(_BRANCHES[0 if succeeded else 1])
        _show(answer, branch if isinstance(branch, list) else [])
    return 0 if succeeded else AbsentOrConditionFailed.exit_code


def run_transaction(cluster: Writer, body: bytes) -> Answer:
    """The answer to a transaction that was executed."""
    answer = cluster.ask(Request("POST", "/v1/txn", body, {"Content-Type": "application/json"}))
    return written(answer)


def put_by_transaction(
    cluster: Writer, key: bytes, value: bytes, *, if_revision: int | None, if_absent: bool
) -> tuple[Answer, dict[str, Any]]:
    """A put of a key that no URL can name, and what ``PUT`` would have answered."""
    name = {"key_base64": _base64(key)}
    report, answer = _one_write(
        cluster, {"put": {**name, "value_base64": _base64(value)}}, key, if_revision=if_revision, if_absent=if_absent
    )
    return answer, {"key": shown(key), **report.get("put", {})}


def delete_by_transaction(cluster: Writer, key: bytes, *, if_revision: int | None) -> tuple[Answer, dict[str, Any]]:
    """A deletion of a key that no URL can name, and what ``DELETE`` would have answered."""
    report, answer = _one_write(
        cluster, {"delete": {"key_base64": _base64(key)}}, key, if_revision=if_revision, if_absent=False
    )
    return answer, {**report.get("delete", {}), "revision": answer.json().get("revision")}


def _one_write(
    cluster: Writer, operation: dict[str, Any], key: bytes, *, if_revision: int | None, if_absent: bool
) -> tuple[dict[str, Any], Answer]:
    name = {"key_base64": _base64(key)}
    compare: list[dict[str, Any]] = []
    if if_absent:
        compare.append({**name, "target": "version", "op": "==", "operand": 0})
    elif if_revision is not None:
        compare.append({**name, "target": "mod_revision", "op": "==", "operand": if_revision})
    fields = {"compare": compare, "success": [operation], "failure": [{"get": name}]}
    answer = run_transaction(cluster, json.dumps(fields).encode())
    (result,) = answer.json().get("results") or [{}]
    if answer.json().get("succeeded") is not True:
        found = result.get("get")
        raise condition_failed(item_in(found, answer).mod_revision if found else None)
    return result, answer


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise Unusable(f"cannot read {file}: {error.strerror}. Give a file, or - for standard input.") from error


def _parsed(file: str, body: bytes) -> dict[str, Any]:
    where = "standard input" if file == "-" else file
    try:
        fields = json.loads(body)
    except ValueError as error:
        raise Unusable(f"{where} is not JSON: {error}. `raftkv txn --help` shows a transaction.") from error
    if not isinstance(fields, dict):
        raise Unusable(f"{where} is JSON, but no object. `raftkv txn --help` shows a transaction.")
    return fields


def _show(answer: Answer, branch: list[Any]) -> None:
    """A headline, and a line for each operation."""
    report = answer.json()
    headline = "success ran" if report.get("succeeded") is True else "a comparison did not hold: failure ran"
    click.echo(f"{headline}, revision {report.get('revision')}")
    results = report.get("results") or []
    asked = [*branch, *[{}] * len(results)][: len(results)]
    rows = [_row(operation, result, answer) for operation, result in zip(asked, results, strict=True)]
    widest = min(_KEY_CELLS_MAX, max((cell_len(name) for _, name, _ in rows), default=0))
    for kind, name, what in rows:
        click.echo(f"  {kind:12}  {name}{' ' * max(0, widest - cell_len(name))}  {what}")


def _row(operation: Any, result: Any, answer: Answer) -> tuple[str, str, str]:
    if not isinstance(result, dict) or len(result) != 1:
        raise unlike_ours(answer, "a result of no kind")
    ((kind, found),) = result.items()
    arguments = operation.get(kind) if isinstance(operation, dict) else None
    name = _name(arguments if isinstance(arguments, dict) else {})
    if kind == "get" and found is None:
        return kind, name, "absent"
    if not isinstance(found, dict):
        raise unlike_ours(answer, f"a strange result of {kind}")
    if kind == "put":
        return kind, name, f"version {found.get('version')}"
    if kind == "get":
        value = item_in(found, answer).value or b""
        return kind, name, preview(value, _VALUE_CELLS_MAX) if value else "(empty)"
    if kind == "range":
        items = [item_in(item, answer) for item in found.get("items", [])]
        size = byte_count(sum(len(item.value or b"") for item in items))
        return kind, name, f"{len(items):,} keys, {size}" + (", and more" if found.get("more") else "")
    return kind, name, f"{found.get('deleted'):,} deleted" + (", and more are there" if found.get("more") else "")


def _name(arguments: dict[str, Any]) -> str:
    """Whom an operation is about, as it was asked."""
    for field in ("key", "prefix"):
        for name in (field, f"{field}_base64"):
            if isinstance(arguments.get(name), str):
                text = arguments[name]
                raw = base64.b64decode(text) if name.endswith("_base64") else text.encode(errors="surrogatepass")
                return shown(raw) + ("*" if field == "prefix" else "")
    bounds = [arguments.get(name) for name in ("start", "end")]
    return "…".join(shown(bound.encode()) if isinstance(bound, str) else "" for bound in bounds)
