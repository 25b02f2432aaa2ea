"""``put``, ``get``, ``delete``: one request each, and its answer in an exit code."""

from __future__ import annotations

import os
import sys
from typing import Final

import click

from raftkv.cli.exchange import Answer, Request
from raftkv.cli.failures import AbsentOrConditionFailed, OutcomeUnknown, Refused, Unusable
from raftkv.cli.options import Shared, print_json, shared_options, write_raw

KEY_BYTES_MAX: Final = 4096
_AS_THEY_ARE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~")
"""Unreserved bytes, without the dot: no library or proxy on the way finds a segment to tidy up."""


def key_target(key: str) -> str:
    """The request target of a key as it was typed; every byte but the plainest is percent-encoded."""
    raw = os.fsencode(key)
    if not raw:
        raise Unusable("a key has at least one byte.")
    if len(raw) > KEY_BYTES_MAX:
        raise Unusable(f"a key has at most {KEY_BYTES_MAX} bytes; this one has {len(raw)}.")
    if raw in (b".", b".."):
        raise Unusable(
            f"the key {key} cannot be named in a URL: everything on the way would rewrite it. Take another key."
        )
    return "/v1/kv/" + "".join(chr(byte) if byte in _AS_THEY_ARE else f"%{byte:02X}" for byte in raw)


def conditions(revision: int | None, *, absent: bool) -> dict[str, str]:
    """The headers that make a write conditional."""
    if revision is not None and absent:
        raise Unusable("--if-revision and --if-absent contradict each other: give one of them.")
    if absent:
        return {"If-None-Match": "*"}
    return {} if revision is None else {"If-Match": f'"{revision}"'}


revision_option = click.option(
    "--if-revision", type=click.IntRange(min=1), help="Only if the key's revision is this one."
)


@click.command()
@click.argument("key")
@click.argument("value")
@revision_option
@click.option("--if-absent", is_flag=True, help="Only if there is no such key.")
@shared_options
def put(key: str, value: str, if_revision: int | None, if_absent: bool, options: Shared) -> None:
    """Give KEY the value VALUE; "-" reads the value from standard input."""
    headers = conditions(if_revision, absent=if_absent)
    target = key_target(key)
    body = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)
    answer = decided(options.cluster().ask(Request("PUT", target, body, headers)), key, written=True)
    if options.wants_json:
        print_json(answer.json())
    else:
        click.echo(f"{'created' if answer.status == 201 else 'replaced'}, revision {answer.json().get('revision')}")


@click.command()
@click.argument("key")
@click.option(
    "--consistency",
    type=click.Choice(["linearizable", "follower", "lease", "stale"]),
    help="How fresh the value must be (linearizable).",
)
@shared_options
def get(key: str, consistency: str | None, options: Shared) -> None:
    """Write the value of KEY to standard output, and nothing else."""
    target = key_target(key) + (f"?consistency={consistency}" if consistency else "")
    write_raw(decided(options.cluster().ask(Request("GET", target)), key, written=False).body)


@click.command()
@click.argument("key")
@revision_option
@shared_options
def delete(key: str, if_revision: int | None, options: Shared) -> None:
    """Delete KEY."""
    request = Request("DELETE", key_target(key), headers=conditions(if_revision, absent=False))
    answer = decided(options.cluster().ask(request), key, written=True)
    if options.wants_json:
        print_json(answer.json())
    if not answer.json().get("deleted"):
        raise AbsentOrConditionFailed(f"there is no key {key}.")
    if not options.wants_json:
        click.echo(f"deleted, revision {answer.json().get('revision')}")


def decided(answer: Answer, key: str, *, written: bool) -> Answer:
    """The answer if it is a success of ours; raises what the others mean."""
    if 200 <= answer.status < 300:
        if written and "revision" not in answer.json():
            raise OutcomeUnknown(
                f"{answer.url} does not answer like a raftkv node: whether the write happened is not known."
            )
        return answer
    if answer.code == "key_not_found":
        raise AbsentOrConditionFailed(f"there is no key {key}.")
    if answer.code == "precondition_failed":
        revision = answer.json().get("mod_revision")
        found = f"its revision is {revision}" if revision else "there is no such key"
        raise AbsentOrConditionFailed(f"nothing was changed: {found}. Read the key, then try again.")
    raise refused(answer)


def refused(answer: Answer) -> Refused:
    """A node's no, in its own words."""
    code = answer.code or f"status {answer.status}"
    return Refused(f"{answer.url} refused ({code}): {answer.explanation}")
