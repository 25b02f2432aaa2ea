"""The closed list of what can go wrong, in the words that every front has for it (http-api.md, "Errors").

Vocabulary: told nothing, it tells each code's status and title. Fronts put it into bytes.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

TYPE_PREFIX: Final = "urn:raftkv:problem:"
"""Of the ``type`` of a problem (RFC 9457); the code follows."""


class Code(Enum):
    """The closed list (http-api "Errors"): each code has one status and one title."""

    NOT_LEADER = ("not_leader", 307, "Another node leads")
    BAD_REQUEST = ("bad_request", 400, "The request is not one that is understood")
    DUPLICATE_KEY = ("duplicate_key", 400, "A transaction writes a key twice")
    UNAUTHORIZED = ("unauthorized", 401, "Credentials are needed")
    FORBIDDEN = ("forbidden", 403, "Not allowed")
    KEY_NOT_FOUND = ("key_not_found", 404, "There is no such key")
    NOT_FOUND = ("not_found", 404, "There is no such route")
    MEMBER_NOT_FOUND = ("member_not_found", 404, "There is no such member")
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405, "The route has no such method")
    REQUEST_TIMEOUT = ("request_timeout", 408, "The request came too slowly")
    SEQUENCE_TOO_OLD = ("sequence_too_old", 409, "The answer to this number was acknowledged and forgotten")
    MEMBERSHIP_CHANGE_IN_PROGRESS = ("membership_change_in_progress", 409, "Another change of members is running")
    MEMBER_EXISTS = ("member_exists", 409, "There is such a member already")
    MEMBER_UNREACHABLE = ("member_unreachable", 409, "The member does not answer")
    WRONG_CLUSTER = ("wrong_cluster", 409, "The node belongs to another cluster")
    CATCH_UP_FAILED = ("catch_up_failed", 409, "The member did not catch up")
    QUORUM_AT_RISK = ("quorum_at_risk", 409, "The change would leave no majority that answers")
    SESSION_EXPIRED = ("session_expired", 410, "The session has expired or never was")
    PRECONDITION_FAILED = ("precondition_failed", 412, "The key is not as the condition demands")
    TOO_LARGE = ("too_large", 413, "The request is too large")
    URI_TOO_LONG = ("uri_too_long", 414, "The request's target is too long")
    UNSUPPORTED_MEDIA_TYPE = ("unsupported_media_type", 415, "The body's type or encoding is not taken here")
    SEQUENCE_REUSED = ("sequence_reused", 422, "The number belongs to another request")
    OVERLOADED = ("overloaded", 429, "Too much is waiting already")
    TOO_MANY_UNACKNOWLEDGED = ("too_many_unacknowledged", 429, "The session must acknowledge answers first")
    HEAD_TOO_LARGE = ("head_too_large", 431, "The request's head is too large")
    INTERNAL = ("internal", 500, "The node met a fault of its own")
    NO_LEADER = ("no_leader", 503, "No leader is known")
    TOO_STALE = ("too_stale", 503, "This node is further behind than the request allows")
    SUPERSEDED = ("superseded", 503, "The write was replaced by another leader's and never executed")
    REPLICAS_DISAGREE = ("replicas_disagree", 503, "This node's state differs from the majority's")
    SHUTTING_DOWN = ("shutting_down", 503, "This node is stopping")
    OUTCOME_UNKNOWN = ("outcome_unknown", 504, "The write may have happened, or may happen yet")
    READ_TIMEOUT = ("read_timeout", 504, "The read was not confirmed in time")
    DISK_FULL = ("disk_full", 507, "The disk is short of space")

    def __init__(self, text: str, status: int, title: str) -> None:
        self.text, self.status, self.title = text, status, title
