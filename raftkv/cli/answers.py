"""What an answer means for a command: a result, or one of the ways to fail.

Told: an answer that is decided. Tells: it again, or raises what it means. May never know: what comes next.
"""

from __future__ import annotations

import os
from typing import Any

from raftkv.cli.exchange import Answer
from raftkv.cli.failures import AbsentOrConditionFailed, OutcomeUnknown, Refused
from raftkv.cli.items import Item, item_of, printable, shown


def name_of(key: bytes | str) -> str:
    """A key in a message."""
    return shown(os.fsencode(key))


def decided(answer: Answer, key: bytes | str | None = None) -> Answer:
    """The answer if it is a success; raises what the others mean. ``key``: the one that it is about."""
    if 200 <= answer.status < 300:
        return answer
    if answer.code == "key_not_found" and key is not None:
        raise absent(key)
    if answer.code == "precondition_failed":
        raise condition_failed(answer.json().get("mod_revision"))
    raise refused(answer)


def written(answer: Answer, key: bytes | str | None = None) -> Answer:
    """The answer to a write if it is a success of ours; raises what the others mean."""
    if "revision" not in decided(answer, key).json():
        raise OutcomeUnknown(
            f"{answer.url} does not answer like a raftkv node: whether the write happened is not known. "
            "Ask a node of the cluster with --endpoints."
        )
    return answer


def absent(key: bytes | str) -> AbsentOrConditionFailed:
    """There is no such key."""
    return AbsentOrConditionFailed(f"there is no key {name_of(key)}. `raftkv list` shows those that are there.")


def condition_failed(mod_revision: Any) -> AbsentOrConditionFailed:
    """The key was not as the command demanded."""
    found = f"its revision is {mod_revision}" if mod_revision else "there is no such key"
    return AbsentOrConditionFailed(
        f"nothing was changed: {found}. Read the key, then try again.", code="precondition_failed"
    )


def refused(answer: Answer) -> Refused:
    """A node's no, in its own words."""
    if answer.code is None:
        return unlike_ours(answer, answer.explanation)
    hint = _HINTS.get("called_off" if answer.json().get("called_off") is True else answer.code, "See `raftkv status`.")
    return Refused(f"{answer.url} refused ({answer.code}): {_sentence(answer.explanation)} {hint}", code=answer.code)


_HINTS = {
    "disk_full": "Free space on that node's disk, or let another lead: `raftkv leader transfer`; reads go on.",
    "too_large": "Store something smaller, or let the nodes take more with --max-value-bytes.",
    "bad_request": "Nothing was changed; correct the command, --help shows examples.",
    "not_found": "Is this a raftkv node of this version? `raftkv status` tells what answers there.",
    "too_stale": "Ask without the bounds, or another node with --endpoints.",
    "member_not_found": "`raftkv member list` shows the members.",
    "member_exists": "`raftkv member list` shows the members.",
    "member_unreachable": "The members are as before; ask again when it answers.",
    "wrong_cluster": "The members are as before.",
    "membership_change_in_progress": "`raftkv member list` shows how far that one is.",
    "catch_up_failed": "Look into its log, then ask again; with much data, first restart the nodes with a longer "
    "--member-catch-up-timeout-ms.",
    "called_off": "Somebody removed it while it caught up; to have it after all, ask again.",
    "quorum_at_risk": "Bring the voters back that do not answer (`raftkv doctor` names them), or say --force if they "
    "never will.",
    "replicas_disagree": "Stop that node and look into its log; ask another one with --endpoints.",
    "too_many_unacknowledged": "Wait a moment and try again.",
}
"""What to do next, where the node does not say it."""


def _sentence(text: str) -> str:
    clean = printable(text).strip()
    return clean if clean.endswith((".", "!", "?")) else clean + "."


def unlike_ours(answer: Answer, why: str) -> Refused:
    """Something answers that is no node of ours."""
    return Refused(
        f"{answer.url} does not answer like a raftkv node ({printable(why)}). "
        "Ask a node of the cluster with --endpoints."
    )


def item_in(said: Any, answer: Answer) -> Item:
    """An item in this answer."""
    if not isinstance(said, dict):
        raise unlike_ours(answer, "an item that is no object")
    try:
        return item_of(said)
    except ValueError as error:
        raise unlike_ours(answer, str(error)) from error
