"""What the client's methods give back. Revisions and versions are the store's (http-api.md, "Keys")."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Item:
    """A key and what it holds."""

    key: bytes
    value: bytes
    """Empty where only keys were asked for."""
    create_revision: int
    mod_revision: int
    """Of the last put: what a compare-and-set takes as ``if_revision``."""
    version: int
    """How often the key was put since it was created."""

    @property
    def text(self) -> str:
        """The value as UTF-8 text; raises UnicodeDecodeError where it is none."""
        return self.value.decode()

    @property
    def key_text(self) -> str:
        """The key as UTF-8 text; raises UnicodeDecodeError where it is none."""
        return self.key.decode()


@dataclass(frozen=True, slots=True)
class PutDone:
    """The key has the value."""

    revision: int
    """Also the key's mod revision now."""
    create_revision: int
    version: int

    @property
    def created(self) -> bool:
        """The key was absent before."""
        return self.version == 1


@dataclass(frozen=True, slots=True)
class DeleteDone:
    """The key is absent."""

    deleted: bool
    """False: it was absent before."""
    revision: int


@dataclass(frozen=True, slots=True)
class DeleteRangeDone:
    """Keys within the bounds are absent."""

    deleted: int
    more: bool
    """There are further ones, because of ``limit``."""
    revision: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some items of a range."""

    items: tuple[Item, ...]
    revision: int
    """The store's when it was read: a page is read at one moment, several pages are not."""
    next: str | None
    """The cursor of the page after it; None: there is none."""


@dataclass(frozen=True, slots=True)
class TxnPut:
    """In a transaction: the key has the value."""

    revision: int
    version: int


@dataclass(frozen=True, slots=True)
class TxnGet:
    """In a transaction: what the key held at that point; None: it was absent."""

    item: Item | None


@dataclass(frozen=True, slots=True)
class TxnDelete:
    """In a transaction: the key is absent."""

    deleted: bool


@dataclass(frozen=True, slots=True)
class TxnRange:
    """In a transaction: what the range held at that point."""

    items: tuple[Item, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class TxnDeleteRange:
    """In a transaction: keys within the bounds are absent."""

    deleted: int
    more: bool


TxnOutcome = TxnPut | TxnGet | TxnDelete | TxnRange | TxnDeleteRange


@dataclass(frozen=True, slots=True)
class TxnDone:
    """One branch was executed, whole."""

    succeeded: bool
    """Every comparison held: it was ``success``."""
    results: tuple[TxnOutcome, ...]
    """One for each operation of the branch, in its order."""
    revision: int


@dataclass(frozen=True, slots=True)
class Member:
    """A node of the cluster; what only the leader knows is None elsewhere."""

    id: str
    url: str | None
    """Where clients reach it; None: the node asked has not heard that from it yet."""
    match_index: int | None
    last_contact_ms: int | None


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """The cluster as one node sees it."""

    cluster_id: str | None
    term: int
    leader_id: str | None
    voters: tuple[Member, ...]
    learners: tuple[Member, ...]
    is_changing: bool
    """A change of members is running."""

    @property
    def leader(self) -> Member | None:
        """Who leads, as far as the node knows."""
        return next((member for member in (*self.voters, *self.learners) if member.id == self.leader_id), None)


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What a node says of itself."""

    id: str
    role: str
    """leader, follower, candidate or learner."""
    term: int
    leader_id: str | None
    leader_url: str | None
    commit_index: int | None
    applied_index: int | None
    last_index: int | None
    snapshot_index: int | None
    log_bytes: int | None
    revision: int | None
    state_hash: str | None
    version: str
    uptime_ms: int


@dataclass(frozen=True, slots=True)
class LeaderDone:
    """That node leads."""

    id: str
    url: str
    term: int
    changed: bool
    """False: it led already."""
