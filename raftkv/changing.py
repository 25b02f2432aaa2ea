"""Changes of members: what a wish comes to, who waits for it, what became of it. Pure.

Told: what operators wish, what the nodes in question said of themselves, the core's turns. Tells each asker once: the
members are as he wished, or why they are not, or that it goes on. May never know: how nodes are reached.

A wish is judged against where the change that runs will lead. So whoever wishes what is on its way already waits for
it with whoever began it, and asking again for what is there already changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from raftkv.core.formation import gone
from raftkv.core.membership import called_off, deadline_ms, given_up, joining, outcome, votes_are_lost
from raftkv.core.messages import Introduction
from raftkv.core.raft import Raft
from raftkv.core.types import (
    ClusterId,
    Configuration,
    Incarnation,
    Index,
    Intent,
    Learner,
    Member,
    Membership,
    NodeId,
    Role,
    Round,
    Term,
)
from raftkv.errors import ChangeRefused, ChangeWhy
from raftkv.members import (
    Add,
    Alter,
    Become,
    MembersAre,
    MembersDone,
    MembersOutcome,
    MembersRefused,
    MembersWhy,
    Named,
    Remove,
    StillChanging,
    Terms,
    Wish,
)
from raftkv.outcomes import Leadership, TransferOutcome, Transferred, TransferWhy

ClientUrlOf = Callable[[Member], str | None]
Said = Mapping[NodeId, Introduction]
"""What nodes have just said of themselves, by the ids under which they were asked for."""


class Asking(NamedTuple):
    """Somebody to be spoken to before a wish can be judged."""

    member: Named
    is_needed: bool
    """Otherwise it is a member that was not heard lately, and only asked whether its data is still there."""


# ------------------------------------------------------------------------------------- what a wish comes to


def is_at_rest(configuration: Configuration) -> bool:
    """Whether it is where a change ends."""
    return not configuration.is_joint and all(
        learner.intent is Intent.LEARNER for learner in configuration.current.learners
    )


def to_be_asked(
    wish: Wish, standing: Membership, *, client_url_of: ClientUrlOf, is_in_contact: Callable[[NodeId], bool]
) -> list[Asking]:
    """Who must be spoken to before this wish can be judged: who is new, or is to be reached elsewhere."""
    roster = _Roster(standing, client_url_of)
    match wish:
        case Add(member):
            if not roster.has(member):
                return [] if roster.knows(member.id) else [Asking(member, is_needed=True)]
            return [] if is_in_contact(NodeId(member.id)) else [Asking(member, is_needed=False)]
        case Alter(id, url=url) if url is not None and roster.knows(id) and not roster.is_at(Named(id, url)):
            return [Asking(Named(id, url), is_needed=True)]
        case Become(voters, learners):
            return [Asking(named, is_needed=True) for named in (*voters, *learners) if not roster.has(named)]
    return []


def wanted(
    wish: Wish, standing: Membership, said: Said, *, client_url_of: ClientUrlOf, cluster_id: ClusterId
) -> Membership | MembersRefused:
    """The complete membership that this wish comes to, or why it comes to none."""
    roster = _Roster(standing, client_url_of)
    match wish:
        case Add(member, votes):
            refused = roster.add(member, votes, said, cluster_id)
        case Remove(id):
            refused = roster.remove(id)
        case Alter():
            refused = roster.alter(wish, said, cluster_id)
        case Become():
            refused = roster.become(wish, said, cluster_id)
    if refused is not None:
        return refused
    return roster.membership() if any(roster.votes.values()) else _no(MembersWhy.BAD, "nobody would vote any more")


class _Roster:
    """Members and their votes, while a wish is worked into them."""

    def __init__(self, standing: Membership, client_url_of: ClientUrlOf) -> None:
        self.members = {member.id: member for member in standing.members()}
        self.votes = {member.id: member in standing.voters for member in standing.members()}
        self._client_url_of = client_url_of

    def knows(self, id: str) -> bool:
        """There is a member of that name."""
        return id in self.members

    def has(self, named: Named) -> bool:
        """That is a member, where it is said to be; by the address for nodes or the one for clients."""
        member = self.members.get(NodeId(named.id))
        return member is not None and named.url in (member.url, self._client_url_of(member))

    def is_at(self, named: Named) -> bool:
        """That is a member, and the log says that nodes reach it there."""
        member = self.members.get(NodeId(named.id))
        return member is not None and named.url == member.url

    def membership(self) -> Membership:
        """As it is now."""
        by_vote: dict[bool, list[Member]] = {True: [], False: []}
        for id, member in self.members.items():
            by_vote[self.votes[id]].append(member)
        return _membership(by_vote[True], by_vote[False])

    def add(self, named: Named, votes: bool, said: Said, cluster_id: ClusterId) -> MembersRefused | None:
        """A member more; nothing, if it is one already."""
        id = NodeId(named.id)
        member = self.members.get(id)
        if member is None:
            return self._admit(named, votes, said.get(id), cluster_id) or self._shares_a_place(id)
        if not self.has(named):
            return _no(MembersWhy.EXISTS, f"{id} is a member already, at {member.url}, not at {named.url}")
        if id in said and said[id].sender == id and said[id].incarnation != member.incarnation:
            return _no(MembersWhy.EXISTS, gone(id))
        if self.votes[id] != votes:
            role = "voter" if self.votes[id] else "learner"
            return _no(MembersWhy.EXISTS, f"{id} is a member already, a {role}; PATCH /v1/admin/members/{id} alters it")
        return None

    def remove(self, id: str) -> MembersRefused | None:
        """A member less; nothing, if there is none."""
        self.members.pop(NodeId(id), None)
        self.votes.pop(NodeId(id), None)
        return None

    def alter(self, wish: Alter, said: Said, cluster_id: ClusterId) -> MembersRefused | None:
        """The same member with another vote, or elsewhere."""
        id = NodeId(wish.id)
        if id not in self.members:
            return _no(MembersWhy.NO_SUCH_MEMBER, f"there is no member {id}")
        if wish.url is not None and not self.is_at(Named(id, wish.url)):
            refused = self._move(Named(id, wish.url), said.get(id), cluster_id) or self._shares_a_place(id)
            if refused is not None:
                return refused
        if wish.votes is not None:
            self.votes[id] = wish.votes
        return None

    def become(self, wish: Become, said: Said, cluster_id: ClusterId) -> MembersRefused | None:
        """Exactly those whom the wish names; who is there already stays who it is."""
        named = (*wish.voters, *wish.learners)
        for kind, names in (("id", [one.id for one in named]), ("URL", [one.url for one in named])):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                return _no(MembersWhy.BAD, f"the {kind} {twice} is there twice")
        for id in [id for id in self.members if id not in {one.id for one in named}]:
            self.remove(id)
        for one in named:
            id, votes = NodeId(one.id), one in wish.voters
            if id in self.members:
                refused = None if self.has(one) and id not in said else self._move(one, said.get(id), cluster_id)
                self.votes[id] = votes
            else:
                refused = self._admit(one, votes, said.get(id), cluster_id)
            if refused is not None:
                return refused
        return next(filter(None, (self._shares_a_place(NodeId(one.id)) for one in named)), None)

    def _shares_a_place(self, id: NodeId) -> MembersRefused | None:
        """Why it cannot be where it is now: another member is."""
        me = self.members[id]
        other = next((one for one in self.members.values() if one.url == me.url and one != me), None)
        return None if other is None else _no(MembersWhy.EXISTS, f"{other.id} is the member at {me.url}")

    def _admit(
        self, named: Named, votes: bool, said: Introduction | None, cluster_id: ClusterId
    ) -> MembersRefused | None:
        """Somebody new: there, who it should be, of no other cluster, and nobody whom we have already."""
        refused = _unfit(named, said, cluster_id)
        if refused is not None:
            return refused
        assert said is not None, "who said nothing is not fit"
        for member in self.members.values():
            if member.incarnation == said.incarnation:
                return _no(MembersWhy.EXISTS, f"{named.id} has the same data directory as {member.id}, or a copy of it")
        self.members[NodeId(named.id)] = Member(NodeId(named.id), said.incarnation, said.url)
        self.votes[NodeId(named.id)] = votes
        return None

    def _move(self, named: Named, said: Introduction | None, cluster_id: ClusterId) -> MembersRefused | None:
        """A member is elsewhere now, and is the one that it was."""
        refused = _unfit(named, said, cluster_id)
        if refused is not None:
            return refused
        assert said is not None, "who said nothing is not fit"
        member = self.members[NodeId(named.id)]
        if said.incarnation != member.incarnation:
            return _no(MembersWhy.EXISTS, gone(member.id))
        self.members[member.id] = Member(member.id, member.incarnation, said.url)
        return None


def _unfit(named: Named, said: Introduction | None, cluster_id: ClusterId) -> MembersRefused | None:
    """Why a node that was asked who it is cannot be this member of ours; None: it can."""
    if said is None:
        return _no(MembersWhy.UNREACHABLE, f"{named.id} does not answer at {named.url}")
    if said.sender != named.id:
        return _no(MembersWhy.UNREACHABLE, f"{said.sender} answers at {named.url}, not {named.id}")
    if said.cluster_id not in (None, cluster_id):
        assert said.cluster_id is not None
        return _no(MembersWhy.WRONG_CLUSTER, f"{named.id} belongs to cluster {said.cluster_id.hex()}")
    if said.cluster_id is None and not said.joins:
        start = "stop it, and start it with --join instead of --initial-cluster, its data directory empty"
        return _no(MembersWhy.WRONG_CLUSTER, f"{named.id} was not started to join a cluster: {start}")
    if named.url not in (said.url, said.client_url):
        return _no(
            MembersWhy.UNREACHABLE,
            f"{named.id} answers at {named.url} but says that nodes reach it at {said.url}: name that, or start it "
            "with the other as its --url",
        )
    return None


def _membership(voters: Sequence[Member], learners: Sequence[Member]) -> Membership:
    """Sorted; its learners are to stay learners."""
    return Membership(
        tuple(sorted(voters)), tuple(Learner(member, Intent.LEARNER, None) for member in sorted(learners))
    )


def _deadline_us(asked: _Asked) -> int:
    """By when it is begun or refused, however little patience there is: who is there is not known at once."""
    around = asked.asked_around
    return asked.deadline_us if around is None else max(asked.deadline_us, around.until_us)


def _catches_up(configuration: Configuration, id: str) -> bool:
    """Whether it is to vote and nobody's vote has changed yet."""
    return not configuration.is_joint and id in joining(configuration.current)


def _is(one: Membership, other: Membership) -> bool:
    """The same members with the same votes, whatever is said of how they came."""
    return one.voters == other.voters and [learner.member for learner in one.learners] == [
        learner.member for learner in other.learners
    ]


def _no(why: MembersWhy, text: str) -> MembersRefused:
    return MembersRefused(why, text)


# ----------------------------------------------------------------------------------------------- who waits


class _AskedAround(NamedTuple):
    """Before a voter goes, those that stay are asked whether they are there."""

    term: Term
    round: Round
    until_us: int
    """Nobody's answer is waited for any longer."""


@dataclass(slots=True)
class _Asked:
    """A wish that is not begun: this leader does not yet know what is committed, or is handing over."""

    wish: Wish
    said: Said
    terms: Terms
    done: MembersDone
    deadline_us: int
    asked_around: _AskedAround | None = None


@dataclass(slots=True)
class _Begun:
    """A change that is in the log, and somebody who waits for its end."""

    goal: Membership
    before: Membership
    """That holds again if it is undone."""
    first_index: Index
    """Of the configuration entry with which it began, or of another that ends only with it …"""
    term: Term
    """… and its term."""
    done: MembersDone
    deadline_us: int


LET_GO_MS: Final = 2_000
"""For so long after a change was called off, asking again for those it let go is taken for the old wish."""
_WHY: Final = {
    ChangeWhy.IN_PROGRESS: MembersWhy.IN_PROGRESS,
    ChangeWhy.QUORUM_AT_RISK: MembersWhy.QUORUM_AT_RISK,
    ChangeWhy.BAD: MembersWhy.BAD,
}
_LED_AWAY: Final = (TransferWhy.NO_OTHER_VOTER, TransferWhy.NO_SUCH_MEMBER, TransferWhy.NOT_A_VOTER)


class Host(Protocol):
    """The replica whose members change."""

    raft: Raft
    client_url_of: ClientUrlOf
    shutting_down: bool

    def leadership(self) -> Leadership:
        """Who leads, as this node knows it now."""
        ...

    def cluster_time_ms(self) -> int:
        """Cluster time, as a leader counts it."""
        ...

    def transfer_leadership(self, target: NodeId | None, done: Callable[[TransferOutcome], None]) -> None:
        """Hands over to that voter, or to the best placed."""
        ...


class Changing:
    """The changes of one replica: ``begin`` before its core says what is to be done, ``settle`` afterwards."""

    def __init__(self, host: Host, *, catch_up_timeout_ms: int) -> None:
        self._host, self._catch_up_timeout_ms = host, catch_up_timeout_ms
        self._asked: list[_Asked] = []
        self._begun: list[_Begun] = []
        self._ahead: tuple[Term, int] = (Term(0), 0)
        """In which term, and how far, this leader's cluster time is behind the one by which a deadline was set."""
        self._let_go: tuple[Set[Incarnation], int] = (frozenset(), 0)
        """Whom a change that was called off here was to make voters, and until when nobody takes them in again."""

    def time_ms(self) -> int:
        """Cluster time as deadlines of changes count it: here nobody catches up for longer than the time-out.

        Only writes bring it into the log. Where there was none for an hour, whoever leads next is an hour behind the
        one that set the deadline, and by cluster time alone nothing could be changed for that hour.
        """
        raft, now_ms = self._host.raft, self._host.cluster_time_ms()
        if not self._knows_the_time:
            return now_ms
        if self._ahead[0] != raft.term:
            due_ms = deadline_ms(raft.configuration.current)
            behind_ms = 0 if due_ms is None else max(0, due_ms - self._catch_up_timeout_ms - now_ms)
            self._ahead = (raft.term, behind_ms)
        return now_ms + self._ahead[1]

    @property
    def _knows_the_time(self) -> bool:
        """Until a leader has applied its own first entry it may be hours behind; its deadlines would be past then."""
        office = self._host.raft.state.office
        return office is not None and self._host.raft.applied_index >= office.term_start

    def ask(self, wish: Wish, said: Said, terms: Terms, done: MembersDone, *, now_us: int) -> None:
        """Taken into the next turn; ``done`` is called exactly once."""
        self._asked.append(_Asked(wish, said, terms, done, now_us + terms.wait_ms * 1000))

    def begin(self, now_us: int) -> None:
        """Begins or decides whatever can be by now."""
        if self._host.shutting_down:
            self._give_up()
        if self._asked:
            waiting, self._asked = self._asked, []
            for asked in waiting:
                if self._begin(asked, now_us):
                    continue
                if now_us >= _deadline_us(asked):
                    asked.done(self._not_leader())
                else:
                    self._asked.append(asked)

    def settle(self, now_us: int) -> None:
        """Whoever's change has ended is told so, and how far it is whoever's time is over."""
        if self._begun:
            told = [(begun, self._outcome(begun, now_us)) for begun in self._begun]
            self._begun = [begun for begun, outcome in told if outcome is None]
            for begun, outcome in told:
                if outcome is not None:
                    begun.done(outcome)

    def _give_up(self) -> None:
        """This node stops: what is begun goes on without it, or gives way if nobody else has it."""
        asked, self._asked = self._asked, []
        for one in asked:
            one.done(_no(MembersWhy.SHUTTING_DOWN, "this node is stopping; ask another one"))
        begun, self._begun = self._begun, []
        for change in begun:
            change.done(_no(MembersWhy.UNKNOWN, "this node stops before it knows what becomes of it; ask another one"))

    @property
    def deadline_us(self) -> int | None:
        """When somebody's time is over; None: nobody waits."""
        if not self._asked and not self._begun:
            return None
        waiting = [_deadline_us(one) for one in self._asked] + [one.deadline_us for one in self._begun]
        return min(waiting)

    def _begin(self, asked: _Asked, now_us: int) -> bool:
        """Whether it is begun, or decided; else it must be tried again."""
        raft = self._host.raft
        if raft.role is not Role.LEADER:
            asked.done(self._not_leader())
            return True
        if not raft.takes_proposals or not self._knows_the_time:
            return False
        configurations = raft.state.configurations
        if isinstance(asked.wish, Become) and asked.wish.expected_index not in (None, configurations.current_index):
            text = f"the members have changed since: their configuration is {configurations.current_index}"
            asked.done(_no(MembersWhy.OTHER_CONFIGURATION, text))
            return True
        if isinstance(asked.wish, Remove) and _catches_up(configurations.current, asked.wish.id):
            return self._call_off(asked, NodeId(asked.wish.id), now_us)
        standing = outcome(configurations.current)
        goal = wanted(
            asked.wish,
            standing,
            asked.said,
            client_url_of=self._host.client_url_of,
            cluster_id=raft.state.me.cluster_id,
        )
        if isinstance(goal, MembersRefused):
            asked.done(goal)
            return True
        if _is(goal, standing):
            return self._join(asked, goal, now_us)
        if isinstance(asked.wish, Add) and self._was_let_go(asked, now_us):
            text = f"it was called off a moment ago that {asked.wish.member.id} joins; to have it after all, ask again"
            asked.done(_no(MembersWhy.CALLED_OFF, text))
            return True
        return self._propose(asked, goal, standing, now_us)

    def _call_off(self, asked: _Asked, id: NodeId, now_us: int) -> bool:
        """Who is to vote and only catches up goes at once, and the change that was to bring it is over."""
        raft = self._host.raft
        before = raft.configuration.current
        try:
            index = raft.call_off_change(id)
        except ChangeRefused:
            return False  # until it is committed that there is anything to call off
        incarnations = {one.member.incarnation for one in before.learners if one.member.id in joining(before)}
        self._let_go = (incarnations, now_us + LET_GO_MS * 1000)
        goal = called_off(before, id)
        self._wait(asked, goal, goal, index)
        return True

    def _was_let_go(self, asked: _Asked, now_us: int) -> bool:
        """Whoever waited for the change, and was told how far it was right before its end, asks on.

        It cannot know yet; taken for a new wish, what was called off would begin again by itself.
        """
        incarnations, until_us = self._let_go
        return now_us < until_us and any(said.incarnation in incarnations for said in asked.said.values())

    def _join(self, asked: _Asked, goal: Membership, now_us: int) -> bool:
        """It is so already, as is told once a majority confirms that nobody else leads; or it is on its way there."""
        raft, configurations = self._host.raft, self._host.raft.state.configurations
        if self._is_at_rest():
            since = self._ask_around(asked, now_us)
            if since is None or not raft.has_confirmed(since):
                return False
            asked.done(MembersAre(changed=False))
        else:
            before, first = configurations.before, configurations.current_index
            if before is not None and not is_at_rest(before[1]):
                first = before[0]  # what stands now may give way to a successor's own, and the change go on
            self._wait(asked, goal, given_up(configurations.current.outgoing or configurations.current.current), first)
        return True

    def _propose(self, asked: _Asked, goal: Membership, standing: Membership, now_us: int) -> bool:
        raft = self._host.raft
        staying = {member.id for member in goal.voters} & {member.id for member in standing.voters}
        led_away = raft.state.is_voter and raft.state.me.id not in staying
        if led_away and staying and not asked.terms.force and self._is_at_rest():
            self._hand_over(asked, staying)
            return True
        due_ms, since = self.time_ms() + self._catch_up_timeout_ms, None
        if votes_are_lost(standing, goal) and not asked.terms.force and self._is_at_rest():
            since = self._ask_around(asked, now_us)
        try:
            index = raft.change_membership(goal, deadline_ms=due_ms, force=asked.terms.force, since=since)
        except ChangeRefused as refused:
            if refused.why is ChangeWhy.NOT_READY:
                return False
            around = asked.asked_around
            if refused.why is ChangeWhy.QUORUM_AT_RISK and around is not None and now_us < around.until_us:
                return False
            if refused.why is ChangeWhy.SAME:
                asked.done(MembersAre(changed=False))
            else:
                asked.done(_no(_WHY[refused.why], refused.text))
            return True
        self._wait(asked, goal, standing, index)
        return True

    def _ask_around(self, asked: _Asked, now_us: int) -> Round | None:
        """The round that went out since this was asked, by which who is there is judged: after a round trip, or E.

        By what was heard before, a voter that has just died would be counted, and one that lives be removed.
        """
        raft = self._host.raft
        if asked.asked_around is None or asked.asked_around.term != raft.term:
            round, until_us = raft.ask_around(), now_us + raft.state.settings.election_timeout_us
            if round is None:
                return None
            asked.asked_around = _AskedAround(raft.term, round, until_us)
        return asked.asked_around.round

    def _wait(self, asked: _Asked, goal: Membership, before: Membership, first: Index) -> None:
        term = self._host.raft.term_at(first) or Term(0)
        self._begun.append(_Begun(goal, before, first, term, asked.done, asked.deadline_us))

    def _is_at_rest(self) -> bool:
        configurations = self._host.raft.state.configurations
        return is_at_rest(configurations.current) and configurations.current_index <= self._host.raft.commit_index

    def _hand_over(self, asked: _Asked, staying: Set[NodeId]) -> None:
        """Whoever leads is not to vote any more: another that stays leads first, and is asked for the rest.

        Two that go would hand over to each other for ever. Where nobody stays, the leader goes last (thesis §4.2.2).
        """
        refused = _no(MembersWhy.QUORUM_AT_RISK, "no other voter could take over from this leader now")
        successor = self._host.raft.best_placed_of(staying)
        if successor is None:
            return asked.done(refused)

        def handed(outcome: TransferOutcome) -> None:
            if isinstance(outcome, Transferred):
                url = outcome.leader_url or None
                led = Leadership(leads=False, term=outcome.term, leader_id=outcome.leader_id, leader_url=url)
                asked.done(MembersRefused(MembersWhy.NOT_LEADER, f"{outcome.leader_id} leads now; ask there", led))
            elif outcome.why in _LED_AWAY:
                asked.done(refused)
            else:
                asked.done(self._not_leader())

        return self._host.transfer_leadership(successor, handed)

    def _not_leader(self) -> MembersRefused:
        return MembersRefused(MembersWhy.NOT_LEADER, "another node leads, or none", self._host.leadership())

    def _outcome(self, begun: _Begun, now_us: int) -> MembersOutcome | None:
        """What became of it, by what is committed here; None: not decided yet."""
        raft = self._host.raft
        configurations, commit = raft.state.configurations, raft.commit_index
        committed = configurations.at(commit)
        if is_at_rest(committed) and _is(committed.current, begun.goal):
            return MembersAre(changed=True)
        if commit >= begun.first_index:
            if raft.term_at(begun.first_index) not in (None, begun.term):
                return _no(MembersWhy.SUPERSEDED, "another leader's entry was committed in the change's place")
            if configurations.current_index <= commit and is_at_rest(committed):
                jumped = configurations.oldest_index > begun.first_index
                came = configurations.between(begun.first_index, commit)
                jumped = jumped or any(is_at_rest(one) and _is(one.current, begun.goal) for one in came)
                return self._undone(begun, committed, jumped=jumped)
        if now_us < begun.deadline_us:
            return None
        if raft.role is Role.LEADER and _is(outcome(configurations.current), begun.goal):
            return StillChanging()
        return _no(MembersWhy.UNKNOWN, "what becomes of it is not known here; ask whoever leads now for the same")

    @staticmethod
    def _undone(begun: _Begun, now: Configuration, *, jumped: bool) -> MembersRefused:
        """``jumped``: this node heard of the change's end and of another change at once, or may have, by a snapshot."""
        coming = sorted({m.id for m in begun.goal.voters} - {m.id for m in begun.before.voters})
        if coming and tuple(coming) == now.called_off and not jumped:
            text = f"it was called off that {', '.join(coming)} would vote; nobody else's vote has changed"
            return _no(MembersWhy.CALLED_OFF, text)
        if jumped or not _is(now.current, begun.before):
            return _no(MembersWhy.UNKNOWN, "the members may have been changed again meanwhile; look at them")
        names = ", ".join(coming)
        text = f"{names} did not catch up in time, or most of those that would vote were not there then"
        return _no(MembersWhy.CATCH_UP_FAILED, f"{text}; the members are as before")
