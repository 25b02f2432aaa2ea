"""This node about itself: ``/v1/status``, ``/v1/cluster``, ``/healthz``, ``/readyz``, ``/metrics``.

Told: the replica's status. Tells: it, never redirected. May never know: what other nodes think.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from raftkv.api.actions import Action, Answer, Numbering
from raftkv.api.exchange import Context, Decision, retry_after
from raftkv.api.problems import problem
from raftkv.api.requests import Request
from raftkv.api.responses import Response, json_response
from raftkv.api.schemas import BOOLEAN, NUMBER, TEXT, list_of, nullable, nullable_reference, reference, structure
from raftkv.api.service import MembersChange, MemberStatus, Unready
from raftkv.problems import Code

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format."""

_UNREADY_CODES: Final = {
    Unready.NO_LEADER: Code.NO_LEADER,
    Unready.CATCHING_UP: Code.TOO_STALE,
    Unready.REPLICAS_DISAGREE: Code.REPLICAS_DISAGREE,
    Unready.SHUTTING_DOWN: Code.SHUTTING_DOWN,
}


def status(context: Context, _request: Request, _rest: bytes) -> Decision:
    """This node as it is now."""
    now = context.service.status()
    return json_response(
        200,
        {
            "id": now.id,
            "cluster_id": _hex(now.cluster_id),
            "role": now.role,
            "term": now.term,
            "leader_id": now.leader_id,
            "leader_url": now.leader_url,
            "commit_index": now.commit_index,
            "applied_index": now.applied_index,
            "last_index": now.last_index,
            "snapshot_index": now.snapshot_index,
            "log_bytes": now.log_bytes,
            "revision": now.revision,
            "state_hash": None if now.state_hash is None else f"{now.state_hash:032x}",
            "version": now.version,
            "uptime_ms": now.uptime_ms,
            "removed_at": now.removed_at,
        },
    )


def cluster(context: Context, _request: Request, _rest: bytes) -> Decision:
    """The members as this node knows them."""
    now = context.service.status()
    return json_response(
        200,
        {
            "cluster_id": _hex(now.cluster_id),
            "term": now.term,
            "leader_id": now.leader_id,
            "voters": [member_fields(voter) for voter in now.voters],
            "learners": [member_fields(learner) for learner in now.learners],
            "change": None if now.change is None else change_fields(now.change),
        },
    )


def healthz(context: Context, _request: Request, _rest: bytes) -> Decision:
    """200 while the node does its work at all: whoever reads anything else should start it anew."""
    dead_because = context.service.status().health.dead_because
    if dead_because is not None:
        return problem(Code.INTERNAL, dead_because)
    return json_response(200, {"alive": True})


def readyz(context: Context, _request: Request, _rest: bytes) -> Decision:
    """200 while the node should get traffic: it has a leader and has caught up."""
    unready = context.service.status().health.unready
    if not unready:
        return json_response(200, {"ready": True})
    return problem(
        _UNREADY_CODES[unready[0][0]],
        "; ".join(why for _, why in unready),
        headers=retry_after(context),
        extra={
            "reasons": [{"code": reason.value, "detail": why} for reason, why in unready],
            "retry_after_ms": context.settings.retry_after_ms,
        },
    )


def metrics(context: Context, _request: Request, _rest: bytes) -> Decision:
    """For Prometheus."""
    return Response(200, METRICS_TYPE, context.metrics())


def member_fields(member: MemberStatus) -> dict[str, Any]:
    """A member as it is shown."""
    return {
        "id": member.id,
        "url": member.url,
        "match_index": member.match_index,
        "last_contact_ms": member.last_contact_ms,
    }


def change_fields(change: MembersChange) -> dict[str, Any]:
    """A change of members as it is shown."""
    return {
        "phase": change.phase,
        "joining": [{"id": id, "match_index": match_index} for id, match_index in change.joining],
        "leaving": list(change.leaving),
        "demoted": list(change.demoted),
        "remaining_ms": change.remaining_ms,
        "last_index": change.last_index,
    }


def _hex(raw: bytes | None) -> str | None:
    return None if raw is None else raw.hex()


def _about_this_node(
    decide: Callable[[Context, Request, bytes], Decision], summary: str, answer: Answer, *codes: Code
) -> Action:
    return Action(decide, summary, (answer,), codes, numbering=Numbering.IGNORED)


_HEX: Final = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
STATUS: Final = _about_this_node(
    status,
    "This node as it is now.",
    Answer(
        200,
        "What it knows of itself; what it cannot know is null.",
        structure(
            {
                "id": TEXT,
                "cluster_id": nullable(_HEX),
                "role": {"type": "string", "enum": ["leader", "follower", "candidate", "learner"]},
                "term": NUMBER,
                "leader_id": nullable(TEXT),
                "leader_url": nullable(TEXT),
                "commit_index": NUMBER,
                "applied_index": NUMBER,
                "last_index": NUMBER,
                "snapshot_index": NUMBER,
                "log_bytes": nullable(NUMBER),
                "revision": nullable(NUMBER),
                "state_hash": nullable(_HEX),
                "version": TEXT,
                "uptime_ms": NUMBER,
                "removed_at": nullable(NUMBER),
            }
        ),
    ),
)
CLUSTER: Final = _about_this_node(
    cluster,
    "The members as this node knows them.",
    Answer(
        200,
        "What only the leader knows is null elsewhere.",
        structure(
            {
                "cluster_id": nullable(_HEX),
                "term": NUMBER,
                "leader_id": nullable(TEXT),
                "voters": list_of(reference("Member")),
                "learners": list_of(reference("Member")),
                "change": nullable_reference("Change"),
            }
        ),
    ),
)
HEALTHZ: Final = _about_this_node(
    healthz, "Whether the node is alive.", Answer(200, "It is.", structure({"alive": BOOLEAN}))
)
READYZ: Final = _about_this_node(
    readyz,
    "Whether the node should get traffic.",
    Answer(200, "It has a leader and has caught up.", structure({"ready": BOOLEAN})),
    *_UNREADY_CODES.values(),
)
METRICS: Final = _about_this_node(
    metrics, "For Prometheus.", Answer(200, "Its text format.", content_types=(METRICS_TYPE,))
)
