"""What was seen of each node, before anybody judges it. Pure.

Told: answers to ``GET /v1/diagnostics``, or how a node failed to answer. Tells: the same in types. May never know:
what it means. A node of another version may say more or less than this one knows: what is missing is unknown, what
is unknown is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

from raftkv.values import is_url

SAME_PROCESS_MS: Final = 500
"""Two answers of one process agree within milliseconds about when it began."""


class Reach(Enum):
    """How far a question came."""

    ANSWERS = "answers"
    REFUSED = "refused"
    """Nobody listens there, so no process of ours runs."""
    TIMED_OUT = "timed_out"
    """Nothing came back: the machine is down, or packets are dropped on the way."""
    UNREACHABLE = "unreachable"
    """The system knows no way there, or no such name."""
    SILENT = "silent"
    """The system took the connection for the process, which says nothing: it is paused, or hangs."""
    BROKE = "broke"
    """The connection ended without an answer."""
    STRANGE = "strange"
    """Something else than a raftkv node answers there, or one that refuses to."""


@dataclass(frozen=True, slots=True)
class Member:
    """As ``MemberReport``."""

    id: str
    url: str | None = None
    role: str = "voter"
    match_index: int | None = None
    contact_age_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """As ``RefusalReport``."""

    code: str
    detail: str = ""
    age_ms: int = 0


@dataclass(frozen=True, slots=True)
class Farewell:
    """As ``FarewellReport``."""

    reason: str
    age_ms: int = 0


@dataclass(frozen=True, slots=True)
class Outage:
    """As ``OutageReport``."""

    duration_ms: int
    age_ms: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """As ``LinkReport``."""

    peer: str
    url: str = ""
    connected: bool = True
    answer_age_ms: int | None = None
    heard_age_ms: int | None = None
    trouble: str | None = None
    refusal: Refusal | None = None
    complaint: str | None = None
    farewell: Farewell | None = None
    outages: tuple[Outage, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """As ``CandidateReport``."""

    id: str
    term: int = 0
    is_pre_vote: bool = False
    age_ms: int = 0


@dataclass(frozen=True, slots=True)
class Disk:
    """As ``DiskReport``."""

    is_alive: bool = True
    syncs_count: int = 0
    sync_p50_us: int = 0
    sync_p99_us: int = 0
    sync_longest_us: int = 0
    oldest_wait_ms: int = 0
    room_is_short: bool = False
    free_bytes: int | None = None
    log_bytes: int = 0
    snapshot_failure: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """As ``ChangeReport``."""

    event: str
    term: int = 0
    age_ms: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Stall:
    """As ``StallReport``."""

    duration_ms: int
    age_ms: int = 0


@dataclass(frozen=True, slots=True)
class Loop:
    """As ``LoopReport``."""

    stalls_count: int = 0
    stalls: tuple[Stall, ...] = ()
    longest_turn_us: int = 0


@dataclass(frozen=True, slots=True)
class Formation:
    """As ``FormationReport``."""

    formed: bool = True
    waits_for: tuple[str, ...] = ()
    problem: str | None = None
    complaint: str | None = None
    joins: bool = False


@dataclass(frozen=True, slots=True)
class Joining:
    """As ``JoiningReport``."""

    id: str
    match_index: int | None = None


@dataclass(frozen=True, slots=True)
class MembersChange:
    """As ``MembersChangeReport``."""

    phase: str
    joining: tuple[Joining, ...] = ()
    leaving: tuple[str, ...] = ()
    demoted: tuple[str, ...] = ()
    remaining_ms: int | None = None
    last_index: int = 0
    age_ms: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """As ``SettingsReport``."""

    election_timeout_ms: int = 300
    heartbeat_ms: int = 100
    lease_reads: bool | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """As ``ReasonReport``."""

    code: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """What a node says of itself, as ``Diagnostics``."""

    id: str
    url: str = ""
    version: str = ""
    cluster_id: str | None = None
    role: str = "follower"
    term: int = 0
    leader_id: str | None = None
    leader_age_ms: int | None = None
    commit_index: int = 0
    applied_index: int = 0
    last_index: int = 0
    durable_index: int = 0
    state_hash: str | None = None
    staleness_ms: int | None = None
    uptime_ms: int = 3_600_000
    wall_clock_ms: int = 0
    dead_because: str | None = None
    unready: tuple[Reason, ...] = ()
    disagreeing: tuple[str, ...] = ()
    members: tuple[Member, ...] = ()
    links: tuple[Link, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    disk: Disk | None = None
    leadership: tuple[Change, ...] = ()
    loop: Loop = Loop()
    formation: Formation = Formation()
    settings: Settings = Settings()
    change: MembersChange | None = None
    removed_at: int | None = None

    @property
    def began_ms(self) -> int:
        """When its process did, by its own wall clock."""
        return self.wall_clock_ms - self.uptime_ms

    def link_to(self, peer: str) -> Link | None:
        """This node's own connection to that peer."""
        return next((link for link in self.links if link.peer == peer), None)


@dataclass(frozen=True, slots=True)
class Asked:
    """One node, and what asking it came to."""

    url: str
    reach: Reach
    name: str | None = None
    """Its id, as whoever asked knows it beforehand; its own word counts more."""
    view: View | None = None
    """Where it answers."""
    detail: str = ""
    """Where it does not: why, in the system's words."""
    is_endpoint: bool = True
    """The operator named it; others were found through it."""
    answer_ms: float = 0.0
    clock_ahead_ms: float | None = None
    """Its wall clock against the asker's; None: unknown."""
    process_state: str | None = None
    """Of a process on the asker's own machine: ``running``, ``stopped`` (by a signal), ``gone``."""
    pid: int | None = None
    log: str | None = None
    """Where its output goes, if that is on the asker's own machine."""

    @property
    def id(self) -> str | None:
        """Who it says it is, or else who it should be."""
        return self.view.id if self.view is not None else self.name

    def is_same_process(self, other: Asked) -> bool:
        """Both answer, under one id of one cluster, and began at one moment: one node at two addresses."""
        one, two = self.view, other.view
        if one is None or two is None or (one.id, one.cluster_id) != (two.id, two.cluster_id):
            return False
        return abs(one.began_ms - two.began_ms) < SAME_PROCESS_MS


Evidence = tuple[Asked, ...]

T = TypeVar("T")
_PLAIN: Final = (str, int, bool)
_HARMLESS_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HARMLESS_URL: Final = re.compile(r"http://[A-Za-z0-9._:\[\]-]+/?")


class NotAView(ValueError):
    """What was answered is not what a node says of itself."""


def read_view(answer: Mapping[str, Any]) -> View:
    """The view in the JSON of an answer; raises NotAView where it has other types than ours.

    Names and URLs stand in commands that somebody will type: whatever they could do in a shell is not let in.
    """
    view: View = _read(View, answer)
    changing = () if view.change is None else (*view.change.leaving, *view.change.demoted)
    joining = () if view.change is None else tuple(one.id for one in view.change.joining)
    for id in (view.id, *(member.id for member in view.members), *changing, *joining):
        if not _HARMLESS_ID.fullmatch(id):
            raise NotAView("an id that no node has")
    for url in (view.url, *(member.url or "" for member in view.members)):
        if url and not (is_url(url) and _HARMLESS_URL.fullmatch(url)):
            raise NotAView("a URL that no node has")
    return view


def _read(kind: Any, value: Any) -> Any:
    if get_origin(kind) is UnionType:
        if value is None:
            return None
        (kind,) = (part for part in get_args(kind) if part is not NoneType)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise NotAView(f"{type(value).__name__} instead of a list")
        return tuple(_read(get_args(kind)[0], item) for item in value)
    if is_dataclass(kind):
        return _read_fields(kind, value)
    if kind not in _PLAIN or type(value) is not kind:
        raise NotAView(f"{type(value).__name__} instead of {kind.__name__}")
    return value


def _read_fields(kind: Any, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise NotAView(f"{type(value).__name__} instead of {kind.__name__}")
    hints = _hints(kind)
    for each in fields(kind):
        if each.name not in value and each.default is MISSING:
            raise NotAView(f"{kind.__name__} without {each.name}")
    return kind(**{name: _read(hint, value[name]) for name, hint in hints.items() if name in value})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
