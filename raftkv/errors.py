"""Every public exception of raftkv, one tree.

Three kinds of trouble are never mixed: a bug of our own is an ``assert``; the outside world (a disk, a
peer, a user's input) is one of these exceptions, with what the caller needs to act on it; an ordinary
outcome (a vote refused, a log that does not match) is a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any


class RaftkvError(Exception):
    """The root: everything that raftkv raises on purpose is one of these."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied as it is: what its ``__init__`` takes is not what ``args`` holds."""
        return _as_it_was, (type(self), self.args, vars(self))


def _as_it_was(kind: type[RaftkvError], args: tuple[Any, ...], fields: dict[str, Any]) -> RaftkvError:
    error = kind.__new__(kind, *args)
    vars(error).update(fields)
    return error


class ConfigError(RaftkvError):
    """Settings that cannot be served with; ``problems`` lists every one of them, not only the first."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class RequestError(RaftkvError):
    """What a client's or an embedder's request ended with, when it did not end well: one of the four below."""


class Rejected(RequestError):
    """The answer was no, and the request changed nothing. ``code`` is of the closed list of the HTTP API."""

    code = "bad_request"

    def __init__(self, detail: str = "", *, code: str | None = None) -> None:
        self.code = self.code if code is None else code
        self.detail = detail
        super().__init__(f"{self.code}: {detail}" if detail else self.code)


class NotLeader(Rejected):
    """The node does not lead, or is handing leadership over; who leads, as far as it knows."""

    code = "not_leader"

    def __init__(
        self, detail: str = "", *, leader_id: str | None = None, leader_url: str | None = None, term: int = 0
    ) -> None:
        self.leader_id, self.leader_url, self.term = leader_id, leader_url, term
        super().__init__(detail or (f"{leader_id} leads" if leader_id else "no leader is known"))


class ChangeWhy(Enum):
    """Why a change of members is not begun."""

    IN_PROGRESS = "in_progress"
    """Another one is not over yet."""
    NOT_READY = "not_ready"
    """The leader has committed nothing in its own term yet; ask again soon."""
    SAME = "same"
    """That is how the members are already."""
    QUORUM_AT_RISK = "quorum_at_risk"
    """Afterwards fewer than a majority of the voters would be in contact with the leader."""
    BAD = "bad"
    """No members that could ever be so, or not from here in one change."""


class ChangeRefused(RaftkvError):
    """A change of members was not begun; nothing was appended."""

    def __init__(self, why: ChangeWhy, text: str) -> None:
        self.why, self.text = why, text
        super().__init__(text)


class ConditionFailed(RequestError):
    """The key was not as the request demanded; nothing was changed. ``mod_revision`` is 0 where it is absent."""

    def __init__(self, *, mod_revision: int, revision: int) -> None:
        self.mod_revision, self.revision = mod_revision, revision
        found = f"its revision is {mod_revision}" if mod_revision else "it is absent"
        super().__init__(f"the key is not as demanded: {found}")


class OutcomeUnknown(RequestError):
    """A write may have happened, or may happen yet. Nobody can say more; read before you write again."""


class Unreachable(RequestError):
    """Nobody who could decide was reached in time. Nothing was changed."""


class NodeFailed(RaftkvError):
    """An embedded node has halted and serves nothing any more; ``__cause__`` is why. This call changed nothing."""


class WireError(RaftkvError):
    """Bytes from outside that are not what our formats say; nothing was changed by them."""


class FrameError(WireError):
    """A log entry's frame is cut short, too long, or fails its checksum."""

    def __init__(self, why: str, *, offset: int) -> None:
        self.offset = offset
        super().__init__(f"bad frame at byte {offset}: {why}")


class MessageError(WireError):
    """A peer's message does not decode, has wrong types, or is of an unknown version."""


class CommandError(WireError):
    """A command's bytes are none that this version of the store knows, or break one of its bounds."""


class SnapshotError(WireError):
    """A state machine's snapshot, or what it restored from one, does not decode or is not whole."""


class StateDamaged(SnapshotError):
    """A snapshot's state is not the one that it was taken of: memory was damaged before, or while it was written."""


class UnsoundRequest(WireError):
    """A request's bytes are refused before anybody acts on them; what it is answered, as http-api.md names it."""

    def __init__(self, detail: str, *, status: int = 400, code: str = "bad_request") -> None:
        self.status, self.code, self.detail = status, code, detail
        super().__init__(f"{status} {code}: {detail}")


class DataError(RaftkvError):
    """The data directory cannot be used as it is; ``exit_code`` is what ``raftkv serve`` exits with."""

    exit_code = 76


class DirectoryLocked(DataError):
    """Another process holds the data directory."""

    exit_code = 73

    def __init__(self, path: Path | str) -> None:
        self.path = path
        super().__init__(f"{path} is in use by another raftkv process")


class DiskFailed(DataError):
    """A write or a sync failed. It is never retried: what reached the disk is unknown until recovery reads it."""

    exit_code = 74

    def __init__(self, *, path: Path | str, operation: str, cause: OSError) -> None:
        self.path, self.operation, self.cause = path, operation, cause
        super().__init__(f"{operation} of {path} failed: {cause.strerror or cause}")


class DataDamaged(DataError):
    """What was once synced to disk no longer reads back. Nothing was cut; nothing was guessed."""

    exit_code = 76

    def __init__(self, *, path: Path | str, offset: int, why: str) -> None:
        self.path, self.offset, self.why = path, offset, why
        super().__init__(f"{path} is damaged at byte {offset}: {why}")


class WrongIdentity(DataError):
    """The directory belongs to another node or cluster than the command line says."""

    exit_code = 77


class UnknownFormat(DataError):
    """The directory was written by a version of raftkv that this one does not know."""

    exit_code = 77


class Misdirected(WireError):
    """A peer's message is for another cluster, another node, or another incarnation of this node."""
