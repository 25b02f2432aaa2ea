"""What a campaign has come across: the rules of the paper with their results, and situations that are rare.

Told: what watchers are told, and which rules were asked. Tells: how often, by name, and what was never seen. It draws
nothing and changes nothing, so a run that is looked at is the same run. May never know: which seed, and how long.

A new situation is one line in ``SITUATIONS``; a new rule is found by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from itertools import pairwise
from types import FunctionType
from typing import Any, Final, NamedTuple

from raftkv.core import quorum, rules
from raftkv.core.messages import AppendEntriesReply, PreVoteReply, ReadIndexReply, RequestVoteReply
from raftkv.core.raft import Raft
from raftkv.core.state import Office, WaitingRead
from raftkv.core.types import ClusterId, Index, NodeId, Role, Term
from raftkv.replica import Work
from raftkv.sim.world.node import VirtualNode
from raftkv.sim.world.watching import Recovery, Watcher

# ----------------------------------------------------------------------------------------- rules


def rule_names() -> list[str]:
    """Every rule of the paper, in the order of the file."""
    return [name for name, rule in vars(rules).items() if _is_rule(name, rule)]


def _is_rule(name: str, value: object) -> bool:
    return isinstance(value, FunctionType) and not name.startswith("_") and value.__module__ == rules.__name__


def result_names() -> list[str]:
    """Every rule with every kind of result."""
    return [result for name in rule_names() for result in results_of(name)]


_KINDS_OF: Final[Mapping[str, tuple[str, ...]]] = {"bool": ("True", "False"), "None": ("None",)}


def results_of(name: str) -> list[str]:
    """The kinds of results that this rule can have, by what it says it returns."""
    said = str(getattr(rules, name).__annotations__["return"])
    return [f"{name} → {kind}" for part in said.split(" | ") for kind in _KINDS_OF.get(part, ("a value",))]


def _kind_of(result: object) -> str:
    return str(result) if result is None or isinstance(result, bool) else "a value"


@contextmanager
def rules_are_counted(counts: Counter[str]) -> Iterator[None]:
    """While this is entered, every answer of a rule is counted by rule and kind of result."""
    originals = {name: getattr(rules, name) for name in rule_names()}
    for name, rule in originals.items():
        setattr(rules, name, _counted(name, rule, counts))
    try:
        yield
    finally:
        for name, rule in originals.items():
            setattr(rules, name, rule)


def _counted(name: str, rule: Callable[..., Any], counts: Counter[str]) -> Callable[..., Any]:
    @wraps(rule)
    def counted(*arguments: Any, **named: Any) -> Any:
        result = rule(*arguments, **named)
        counts[f"{name} → {_kind_of(result)}"] += 1
        return result

    return counted


# ------------------------------------------------------------------------------------- situations


@dataclass(slots=True)
class Before:
    """What was known of a node after its last turn; ``led_terms`` of all its lives."""

    led_terms: dict[int, None] = field(default_factory=dict)
    role: Role = Role.FOLLOWER
    term: int = 0
    vote: tuple[int, NodeId | None] = (0, None)
    commit: int = 0
    durable: int = 0
    last: int = 0
    term_runs: list[tuple[Index, Term]] = field(default_factory=list)
    waiting_reads: int = 0
    holds_a_vote: bool = False

    def looks_at(self, raft: Raft) -> None:
        """It has had a turn."""
        state, office = raft.state, raft.state.office
        if raft.role is Role.LEADER:
            self.led_terms[raft.term] = None
        self.role, self.term, self.vote = raft.role, raft.term, (raft.term, raft.voted_for)
        self.commit, self.durable, self.last = raft.commit_index, raft.durable_index, raft.last_index
        self.term_runs = state.log.term_runs
        self.waiting_reads = 0 if office is None else len(_reads_of(office))
        self.holds_a_vote = any(_is_a_vote(envelope.message) for envelope in state.outbox.held)

    def term_at(self, index: int) -> int:
        """Of the entry that stood there; 0: there was none."""
        if index > self.last:
            return 0
        return next((term for first, term in reversed(self.term_runs) if first <= index), 0)

    @property
    def last_term(self) -> int:
        """Of the newest entry."""
        return self.term_at(self.last)


@dataclass(slots=True)
class Memory:
    """What the whole run has seen."""

    stood: dict[int, NodeId] = field(default_factory=dict)
    """Who stood first in a term."""
    led: dict[int, NodeId] = field(default_factory=dict)
    on_a_majority: dict[tuple[int, int], None] = field(default_factory=dict)
    """(index, term) of entries of older terms that stood on a majority, uncommitted."""


class Moment(NamedTuple):
    """A node right after a turn."""

    node: VirtualNode
    work: Work
    before: Before
    memory: Memory
    nodes: Collection[VirtualNode]

    @property
    def raft(self) -> Raft:
        """Its core."""
        return self.node.raft

    def notes(self, event: str, part: str = "") -> bool:
        """Whether it notes something of that sort."""
        return any(note.event == event and part in note.text for note in self.work.notes)

    def answers(self, kind: type[Any]) -> Iterator[Any]:
        """Its replies of that kind."""
        return (envelope.message for _, envelope in self.work.replies if isinstance(envelope.message, kind))

    @property
    def gives_way_from(self) -> int | None:
        """The first entry that it takes back in this turn."""
        return next((write.truncate_from for write in self.work.persist if write.truncate_from is not None), None)

    @property
    def office(self) -> Office | None:
        """What it keeps as a leader."""
        return self.raft.state.office


def _reads_of(office: Office) -> list[WaitingRead]:
    return [*office.unregistered_reads, *(read for one in office.rounds for read in one.reads)]


def _is_a_vote(message: object) -> bool:
    return isinstance(message, RequestVoteReply) and message.granted


def _two_stood(moment: Moment) -> bool:
    first = moment.memory.stood.get(moment.raft.term)
    return moment.notes("stands") and first not in (None, moment.node.id)


def _nobody_won(moment: Moment) -> bool:
    last = moment.raft.term - 1
    return moment.notes("stands") and last in moment.memory.stood and last not in moment.memory.led


def _two_lead(moment: Moment) -> bool:
    leaders = sum(node.is_up and node.raft.role is Role.LEADER for node in moment.nodes)
    return moment.notes("became_leader") and leaders > 1


def _old_entry_on_a_majority(moment: Moment) -> tuple[int, int] | None:
    """The newest entry that a majority holds is not committed, for its term is an older one."""
    raft, office = moment.raft, moment.office
    if office is None:
        return None
    match: dict[NodeId, int] = {peer: progress.match_index for peer, progress in office.progress.items()}
    index = quorum.majority_value(raft.state.voter_sets, raft.state.with_own(match, raft.durable_index))
    term = raft.term_at(index)
    return None if index <= raft.commit_index or term in (None, raft.term) else (index, int(term or 0))


def _old_entry_gives_way(moment: Moment) -> bool:
    start = moment.gives_way_from
    return start is not None and any(
        index >= start and moment.before.term_at(index) == term for index, term in moment.memory.on_a_majority
    )


def _own_entries_give_way(moment: Moment) -> bool:
    return moment.gives_way_from is not None and moment.before.last_term in moment.before.led_terms


def _others_entries_give_way(moment: Moment) -> bool:
    return moment.gives_way_from is not None and moment.before.last_term not in moment.before.led_terms


def _commits_older_terms(moment: Moment) -> bool:
    raft, first = moment.raft, moment.before.commit + 1
    return moment.office is not None and raft.commit_index >= first and raft.term_at(first) not in (None, raft.term)


def _refusal(moment: Moment, *, names_a_term: bool) -> bool:
    return any(
        not reply.success and reply.conflict_index > 0 and (reply.conflict_term > 0) == names_a_term
        for reply in moment.answers(AppendEntriesReply)
    )


def _an_old_term_is_refused(moment: Moment) -> bool:
    return any(not reply.success and reply.conflict_index == 0 for reply in moment.answers(AppendEntriesReply))


def _held_vote_is_void(moment: Moment) -> bool:
    """The refusal that takes its place leaves when the newer term is durable."""
    return moment.before.holds_a_vote and moment.raft.term > moment.before.term


def _a_vote_is_repeated(moment: Moment) -> bool:
    vote = (moment.raft.term, moment.raft.voted_for)
    granted = any(map(_is_a_vote, moment.answers(RequestVoteReply)))
    return granted and moment.before.vote == vote and not moment.before.holds_a_vote


def _a_newer_term_refuses(moment: Moment) -> bool:
    return any(not reply.granted and reply.term >= reply.proposed_term for reply in moment.answers(PreVoteReply))


def _round_joined(moment: Moment) -> bool:
    """Its number is missing among those that are out."""
    rounds = [] if moment.office is None else moment.office.rounds
    return any(later.round > earlier.round + 1 for earlier, later in pairwise(rounds))


def _round_shared(moment: Moment) -> bool:
    return moment.office is not None and any(len(one.reads) > 1 for one in moment.office.rounds)


def _read_for_a_follower(moment: Moment) -> bool:
    return any(read.follower is not None for read in moment.work.read_log)


def _read_to_apply(moment: Moment) -> bool:
    return any(read.follower is None for read in moment.work.read_log)


def _ahead_of_its_disk(moment: Moment) -> bool:
    return moment.office is not None and moment.raft.commit_index > moment.raft.durable_index


def _holds_a_match(moment: Moment) -> bool:
    return any(
        isinstance(envelope.message, AppendEntriesReply) and envelope.message.success
        for envelope in moment.raft.state.outbox.held
    )


def _lease_is_held(moment: Moment) -> bool:
    return moment.raft.state.settings.lease_reads and moment.raft.holds_lease(moment.node.read_clock_us())


Predicate = Callable[[Moment], object]

SITUATIONS: Final[dict[str, Predicate]] = {
    # elections
    "two nodes stood in one term": _two_stood,
    "a term ended without a leader": _nobody_won,
    "two nodes led at once, in different terms": _two_lead,
    "a candidate heard of another leader": lambda m: (
        m.before.role is Role.CANDIDATE and m.raft.role is Role.FOLLOWER and m.raft.leader_id is not None
    ),
    "a node led again in a later life": lambda m: m.notes("became_leader") and m.node.life > 1 and m.before.led_terms,
    "a leader was elected while others were down": lambda m: (
        m.notes("became_leader") and any(not node.is_up for node in m.nodes)
    ),
    "a candidate's log was behind": lambda m: m.notes("refused_vote", "behind"),
    "a vote was withheld, for a leader was heard": lambda m: m.notes("refused_vote", "heard"),
    "a vote was refused, for another had it": lambda m: m.notes("refused_vote", " has "),
    "a vote was given to the same candidate again": _a_vote_is_repeated,
    "a vote was held until its term was durable and became void": _held_vote_is_void,
    "whoever asked before standing was told a newer term": _a_newer_term_refuses,
    # in office
    "a leader stepped down, for it heard no majority": lambda m: m.notes("stepped_down", "no quorum"),
    "a leader heard of its successor": lambda m: m.notes("stepped_down", "leads term"),
    "a leader's successor was one it had asked": lambda m: m.notes("stands", "asked to by the leader"),
    "a transfer was given up": lambda m: m.notes("transfer_gave_up"),
    "a leader's disk hung, and it handed over": lambda m: m.notes("disk_stalled", "hands over"),
    "a leader's disk hung, and nobody could take over": lambda m: m.notes("disk_stalled", "no voter"),
    # logs
    "a leader's uncommitted entries gave way": _own_entries_give_way,
    "a follower's uncommitted entries gave way": _others_entries_give_way,
    "an older term's entry stood on a majority, uncommitted (Figure 8, third column)": _old_entry_on_a_majority,
    "such an entry gave way (Figure 8, fourth column)": _old_entry_gives_way,
    "a leader's first commit took older terms' entries along": _commits_older_terms,
    "a refusal named the conflicting term": lambda m: _refusal(m, names_a_term=True),
    "a refusal said that the log is too short": lambda m: _refusal(m, names_a_term=False),
    "entries of a deposed leader were refused": _an_old_term_is_refused,
    "entries were read from disk for a follower": _read_for_a_follower,
    "entries were read from disk to be applied": _read_to_apply,
    # disks
    "a leader committed before its own disk had the entry": _ahead_of_its_disk,
    "an acknowledgement waited for the disk": _holds_a_match,
    # reads
    "several reads shared a round": _round_shared,
    "a read round was joined to a later one": _round_joined,
    "reads failed with their leader's office": lambda m: m.notes("stepped_down") and m.before.waiting_reads,
    "a follower's read was not confirmed": lambda m: any(not one.confirmed for one in m.answers(ReadIndexReply)),
    "a leader held a lease": _lease_is_held,
    "a lease was forgone, for leadership was handed over": lambda m: m.office is not None and m.office.lease_forgone,
    "voters changed in joint consensus": lambda moment: (
        moment.notes("members_change") and moment.raft.configuration.is_joint
    ),
    "members changed without joint consensus": lambda moment: (
        moment.notes("members_change") and not moment.raft.configuration.is_joint
    ),
    "a leader left office for it votes no more": lambda moment: moment.notes("stepped_down", "no voter any more"),
    "a member heard that it is none any more": lambda moment: moment.notes("removed"),
    "a change was gone on with by another leader": lambda moment: (
        moment.notes("became_leader") and not moment.raft.state.configuration_is_committed
    ),
    "a snapshot was captured": lambda moment: moment.work.snapshots.take,
    "a snapshot was captured in joint consensus": lambda moment: (
        moment.work.snapshots.take and moment.work.snapshots.take.base.configuration.is_joint
    ),
    "a capture was given up for a snapshot that came": lambda moment: moment.work.snapshots.abandon,
    "a follower needed a snapshot": lambda moment: moment.notes("snapshot_needed"),
    "a log began anew after a snapshot": lambda moment: moment.notes("snapshot_installed"),
    "a snapshot was loaded": lambda moment: moment.work.snapshots.load,
    "a log began later, its snapshot being in place": lambda moment: moment.work.drop_log_through is not None,
}
"""What may be seen after a node's turn."""

OF_CRASHES: Final[dict[str, Callable[[Before, VirtualNode], object]]] = {
    "a crash lost entries that were not synced": lambda before, node: _disk_end(node) < before.last,
    "a crash kept entries whose sync was not told": lambda before, node: (
        _disk_end(node) > before.durable and before.last > before.durable
    ),
    "a crash lost a vote or a term": lambda before, node: node.disk.vote != before.vote,
    "a leader crashed": lambda before, _: before.role is Role.LEADER,
}
"""What may be seen when a process has gone."""

OF_CLIENTS: Final[dict[str, tuple[str, ...]]] = {
    "a session expired": ("session expired",),
    "a session expired with a write in doubt": ("session expired with a write in doubt",),
    "a write was overtaken at its index": ("Superseded",),
    "a write's deadline passed at its node": ("Unknown",),
    "a client gave up, and will never know": ("outcome unknown",),
    "a write's repetition got the first answer": ("Repeated",),
}
"""What may be seen in what clients were told."""

EVERYBODY_IS_DOWN: Final = "all nodes were down at once"

FORMED: Final = "nodes formed their cluster"
TORN: Final = "a torn tail was cut"
KEPT: Final = "a log kept a write that the crash came upon"
REFUSED: Final = "a node refused to start from what its directory held"
HALTED: Final = "a node ended itself, for its disk had failed"
NO_ROOM: Final = "a disk had no room"
ROOM_AGAIN: Final = "a disk had room again"
OF_WORLDS: Final = (EVERYBODY_IS_DOWN, FORMED, TORN, KEPT, REFUSED, HALTED, NO_ROOM, ROOM_AGAIN)
"""What may be seen of processes and disks as such."""


def situation_names() -> list[str]:
    """All that have a name."""
    return [*SITUATIONS, *OF_CRASHES, *OF_WORLDS, *OF_CLIENTS]


def _disk_end(node: VirtualNode) -> int:
    return node.disk.base.index + len(node.disk.frames)


class Situations(Watcher):
    """Counts in how many turns each was seen."""

    def __init__(self, nodes: Mapping[NodeId, VirtualNode]) -> None:
        self._nodes = nodes
        self._before: dict[NodeId, Before] = {}
        self._memory = Memory()
        self.counts: Counter[str] = Counter()

    def started(self, node: VirtualNode) -> None:
        """What was volatile is forgotten."""
        known = self._before.get(node.id)
        self._before[node.id] = Before(led_terms={} if known is None else known.led_terms)

    def crashed(self, node: VirtualNode) -> None:
        """What the disk kept is held against what the process knew."""
        before = self._before[node.id]
        self.counts.update(name for name, holds in OF_CRASHES.items() if holds(before, node))
        if not any(other.is_up for other in self._nodes.values()):
            self.counts[EVERYBODY_IS_DOWN] += 1

    def formed(self, node: VirtualNode, cluster_id: ClusterId) -> None:
        """Counted."""
        self.counts[FORMED] += 1

    def recovered(self, node: VirtualNode, found: Recovery) -> None:
        """What a crash left of the writes that it came upon."""
        if found.said.notes:
            self.counts[TORN] += 1
        if len(found.frames) > len(found.admissible[0].frames):
            self.counts[KEPT] += 1

    def refused_to_start(self, node: VirtualNode, error: Exception) -> None:
        """Counted."""
        self.counts[REFUSED] += 1

    def halted(self, node: VirtualNode, error: BaseException) -> None:
        """Counted."""
        self.counts[HALTED] += 1

    def room_is_short(self, node: VirtualNode, *, short: bool) -> None:
        """Counted."""
        self.counts[NO_ROOM if short else ROOM_AGAIN] += 1

    def stepped(self, node: VirtualNode, work: Work) -> None:
        """Looks at everything that this turn can have shown."""
        moment = Moment(node, work, self._before[node.id], self._memory, self._nodes.values())
        self.counts.update(name for name, holds in SITUATIONS.items() if holds(moment))
        self._remember(moment)
        moment.before.looks_at(node.raft)

    def _remember(self, moment: Moment) -> None:
        term, id = moment.raft.term, moment.node.id
        if moment.notes("stands"):
            self._memory.stood.setdefault(term, id)
        if moment.notes("became_leader"):
            self._memory.led.setdefault(term, id)
        old = _old_entry_on_a_majority(moment)
        if old is not None:
            self._memory.on_a_majority[old] = None

    def clients_were_told(self, tally: Mapping[str, int]) -> None:
        """Once, at the end of a run."""
        for name, whats in OF_CLIENTS.items():
            count = sum(tally.get(what, 0) for what in whats)
            if count:
                self.counts[name] += count
