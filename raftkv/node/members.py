"""The members of this node's cluster, as they change: who new ones are, where all are, to whom there are links.

Told: wishes of operators, what nodes say of themselves, each turn of the replica. Tells: the replica what is wished,
and what the nodes in question said; ``peers`` whom to reach. A member that says it is elsewhere now is asked there who
it is, and if it is the same, its leader has the log say so.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from raftkv.changing import Asking, is_at_rest, to_be_asked
from raftkv.core.membership import Configurations, outcome
from raftkv.core.messages import Introduction
from raftkv.core.raft import Raft
from raftkv.core.types import Configuration, Index, Intent, Member, NodeId, Role
from raftkv.members import Alter, Become, MembersDone, MembersOutcome, MembersRefused, MembersWhy, Named, Terms, Wish
from raftkv.node.clock import now_us
from raftkv.node.logs import event
from raftkv.node.peers import Peers
from raftkv.node.probing import Prober
from raftkv.replica import Replica

_LOG: Final = logging.getLogger("raftkv.node")
PROBE_S: Final = 10.0
"""For a new node to listen."""
DOUBT_S: Final = 1.0
"""For a member that was not heard lately to say whether its data is still there."""
LOOK_EVERY_S: Final = 0.5
LET_GO_AFTER_LOOKS: Final = 4
"""Whoever is no member any more may still be owed an answer."""
MOVED_AGAIN_LOOKS: Final = 10
"""Before an address that could not be confirmed is tried again."""


class Members:
    """Of one running node. Belongs to the event loop."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        peers: Peers,
        prober: Prober,
        me: Callable[[], Introduction],
        forget: Callable[[NodeId], None],
    ) -> None:
        """``me`` is what this node says of itself; ``forget``: what was wrong with a node that is no member now."""
        self._loop, self._peers, self._prober, self._me, self._forget = loop, peers, prober, me, forget
        self._replica: Replica | None = None
        self._has_work: Callable[[], None]
        self._followed: tuple[Index, Configuration] | None = None
        self._listed: dict[NodeId, Member] = {}
        self._said: dict[NodeId, Introduction] = {}
        """The newest word of each member, unless the log has had news of where it is since."""
        self._strangers: set[NodeId] = set()
        """Members in whose name somebody else has spoken since they did: emptied ones, most likely."""
        self._moving_looks: dict[NodeId, int] = {}
        self._gone_looks: dict[NodeId, int] = {}
        self._was_removed = False
        self._changing_since_us: int | None = None
        self._asking: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._timer: TimerHandle | None = None

    def start(self, replica: Replica, has_work: Callable[[], None]) -> None:
        """The node takes part; from now on its links follow the configuration in force."""
        self._replica, self._has_work = replica, has_work
        self.turned()
        self._look_later()

    @property
    def has_joined(self) -> bool:
        """By what is committed this node is what it is to be: a voter, or a learner that is to stay one."""
        if self._replica is None:
            return False
        me, now = self._me(), self._replica.raft.committed_configuration.current
        staying = [learner.member for learner in now.learners if learner.intent is Intent.LEARNER]
        return any((one.id, one.incarnation) == (me.sender, me.incarnation) for one in (*now.voters, *staying))

    @property
    def was_let_go(self) -> bool:
        """By what is committed this node is no member, and was to be a voter until somebody called that off."""
        return self._replica is not None and self._replica.raft.was_let_go

    async def stop(self) -> None:
        """Whoever asked and was not answered is told that this node stops."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, *self._closing, return_exceptions=True)

    # ------------------------------------------------------------------------------------- wishes

    def change(self, wish: Wish, terms: Terms, done: MembersDone) -> None:
        """Has the members be as wished, once those who must be asked have said who they are."""
        replica = self._replica
        if replica is None or replica.raft.role is not Role.LEADER:
            leadership = None if replica is None else replica.leadership()
            done(MembersRefused(MembersWhy.NOT_LEADER, "another node leads, or none", leadership))
            return
        configurations = replica.raft.state.configurations
        asking = to_be_asked(
            wish,
            outcome(configurations.current),
            client_url_of=replica.client_url_of,
            is_in_contact=lambda id: id not in self._strangers and _is_in_contact(replica, id),
        )
        rests = is_at_rest(configurations.current) and configurations.current_index <= replica.raft.commit_index
        if not rests and any(one.is_needed for one in asking):
            done(MembersRefused(MembersWhy.IN_PROGRESS, "another change of members is running; ask again after it"))
        elif asking and rests:
            self._own(self._asking, self._ask_and_change(replica, wish, terms, done, asking))
        else:
            replica.change_members(wish, {}, terms, done)
            self._has_work()

    async def _ask_and_change(
        self, replica: Replica, wish: Wish, terms: Terms, done: MembersDone, asking: list[Asking]
    ) -> None:
        try:
            answers = await asyncio.gather(*(self._ask(one) for one in asking))
        except asyncio.CancelledError:
            done(MembersRefused(MembersWhy.SHUTTING_DOWN, "this node is stopping; ask another one"))
            raise
        said: dict[NodeId, Introduction] = {}
        for one, answer in zip(asking, answers, strict=True):
            if isinstance(answer, Introduction):
                said[NodeId(one.member.id)] = answer
            elif one.is_needed:
                done(_unreachable(one.member, answer))
                return
        replica.change_members(wish, said, terms, done)
        self._has_work()

    async def _ask(self, one: Asking) -> Introduction | str:
        return await self._prober.ask(one.member, within_s=PROBE_S if one.is_needed else DOUBT_S)

    # --------------------------------------------------------------------------------- who is where

    def heard(self, said: Introduction) -> None:
        """Somebody says who it is; a member that is elsewhere now is remembered."""
        member = self._listed.get(said.sender)
        if member is None:
            return
        if member.incarnation != said.incarnation:
            self._strangers.add(said.sender)
            return
        self._strangers.discard(said.sender)
        self._said[said.sender] = said

    def turned(self) -> None:
        """The replica has taken a turn; another configuration may be in force."""
        assert self._replica is not None
        configurations = self._replica.raft.state.configurations
        if self._followed is None or configurations.current is not self._followed[1]:
            self._follow(configurations)

    @property
    def change_age_ms(self) -> int:
        """For how long a change of members has been running, as this node has seen it; 0: none is."""
        return 0 if self._changing_since_us is None else (now_us() - self._changing_since_us) // 1000

    def _follow(self, configurations: Configurations) -> None:
        """There is a link to every member, where the log has it or where it says that it is: whichever is news."""
        is_undone = self._is_undone(configurations)
        self._followed = (configurations.current_index, configurations.current)
        members = configurations.current.members()
        me = self._me().sender
        self._peers.reach((id, member.url) for id, member in members.items() if id != me)
        said: dict[NodeId, Introduction] = {}
        for id, member in members.items():
            before, word = self._listed.get(id), self._said.get(id)
            if word is not None and (before == member or _is_newer(word, member, before, is_undone=is_undone)):
                said[id] = word
            elif before != member:
                # Also who was not listed before: a link made as this node began goes to where all were when the
                # cluster formed, and one to a node of that name that has just been removed to where that was.
                self._peers.moved(id, member.url)
        self._listed, self._said = members, said
        self._strangers &= members.keys()

    def _is_undone(self, configurations: Configurations) -> bool:
        """Whether what was followed until now stands in the log no more."""
        if self._followed is None:
            return False
        index, configuration = self._followed
        return index >= configurations.oldest_index and configurations.at(index) is not configuration

    def _tell_of_removal(self, *, removed_at: int | None) -> None:
        if removed_at is None:
            _LOG.info("this node is a member of the cluster again", extra=event("let_in_again"))
            return
        id = self._me().sender
        _LOG.warning(
            "this node is no member of the cluster any more; stop it, or have it back with raftkv member add %s %s",
            *(id, self._me().url),
            extra=event("no_member", index=removed_at),
        )

    def _look_later(self) -> None:
        self._timer = self._loop.call_later(LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        assert self._replica is not None
        self._look_at_changes(self._replica.raft)
        self._let_go(self._replica)
        self._move(self._replica)
        self._look_later()

    def _look_at_changes(self, raft: Raft) -> None:
        if raft.change_status is None:
            self._changing_since_us = None
        elif self._changing_since_us is None:
            self._changing_since_us = now_us()
        is_removed = raft.removed_at is not None
        if is_removed != self._was_removed:
            self._was_removed = is_removed
            self._tell_of_removal(removed_at=raft.removed_at)

    def _let_go(self, replica: Replica) -> None:
        """Links to nodes that are neither members nor still to be told that they are not are closed after a while."""
        wanted = replica.raft.contacts
        for peer in self._peers.names():
            if peer in wanted or replica.raft.removed_at is not None:
                self._gone_looks.pop(peer, None)
                continue
            self._gone_looks[peer] = self._gone_looks.get(peer, 0) + 1
            if self._gone_looks[peer] >= LET_GO_AFTER_LOOKS:
                del self._gone_looks[peer]
                self._forget(peer)
                self._own(self._closing, self._peers.let_go(peer))

    def _move(self, replica: Replica) -> None:
        """The leader has the log say where members are that have moved, itself too, one after another."""
        if replica.raft.role is not Role.LEADER or not self._listed:
            return
        self.heard(self._me())
        elsewhere = {id: said.url for id, said in sorted(self._said.items()) if said.url != self._listed[id].url}
        for id in elsewhere:
            looks = self._moving_looks.get(id, 0)
            self._moving_looks[id] = (looks + 1) % MOVED_AGAIN_LOOKS
            if looks == 0:
                self._have_moved(replica, id, elsewhere)
        self._moving_looks = {id: looks for id, looks in self._moving_looks.items() if id in elsewhere}

    def _have_moved(self, replica: Replica, id: NodeId, elsewhere: dict[NodeId, str]) -> None:
        """The log is to say where that member is, and at once where those are with whom it has changed places."""
        ring, done = _ring(id, elsewhere, self._listed), partial(self._moved, id, elsewhere[id])
        if not ring:
            self.change(Alter(id, url=elsewhere[id]), Terms(wait_ms=0), done)
        elif id == min(ring):
            self._change_places(replica, [Named(one, elsewhere[one]) for one in ring], done)

    def _change_places(self, replica: Replica, ring: list[Named], done: MembersDone) -> None:
        """One by one, each would be where the log still has another."""
        configurations = replica.raft.state.configurations
        current, at = configurations.current.current, {one.id: one.url for one in ring}
        voters, learners = (
            tuple(Named(one.id, at.get(one.id, one.url)) for one in members)
            for members in (current.voters, [learner.member for learner in current.learners])
        )
        wish = Become(voters, learners, expected_index=configurations.current_index)
        asking = [Asking(named, is_needed=True) for named in ring]
        if is_at_rest(configurations.current):
            self._own(self._asking, self._ask_and_change(replica, wish, Terms(wait_ms=0), done, asking))

    @staticmethod
    def _moved(id: NodeId, url: str, told: MembersOutcome) -> None:
        if isinstance(told, MembersRefused):
            text = f"{id} says that it is at {url} now, which is not confirmed: {told.text}"
            _LOG.warning("%s", text, extra=event("not_moved", peer=id, url=url))

    def _own(self, tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        tasks.add(task)
        task.add_done_callback(partial(self._ended, tasks))

    def _ended(self, tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "a change of members failed", "exception": error})


def _is_in_contact(replica: Replica, id: NodeId) -> bool:
    """Whether this leader has heard the member within two election timeouts, in the incarnation that is listed."""
    state = replica.raft.state
    if id == state.me.id:
        return True
    progress = None if state.office is None else state.office.progress.get(id)
    if progress is None or not progress.has_answered:
        return False
    return state.now_us - progress.last_contact_us < 2 * state.settings.election_timeout_us


def _is_newer(said: Introduction, member: Member, before: Member | None, *, is_undone: bool) -> bool:
    """Whether it said this later than the log has news of it; ``before``: where the log had it until now.

    What it said before is where the log had it. An undone place was its own word once; a third one is so still.
    """
    if before is None or said.incarnation != member.incarnation:
        return False
    return is_undone or said.url != before.url


def _ring(id: NodeId, elsewhere: dict[NodeId, str], listed: dict[NodeId, Member]) -> list[NodeId]:
    """Members that have changed places all round, ``id`` one of them; none: it has gone elsewhere, or is in the way."""
    at = {member.url: one for one, member in listed.items()}
    ring, following = [id], at.get(elsewhere[id])
    while following is not None and following in elsewhere and following not in ring:
        ring.append(following)
        following = at.get(elsewhere[following])
    return ring if following == id else []


def _unreachable(whom: Named, why: str) -> MembersRefused:
    text = (
        f"{whom.id} does not answer at {whom.url} ({why}), and so nothing was changed; is it started there, with "
        f"--id {whom.id} and --join?"
    )
    return MembersRefused(MembersWhy.UNREACHABLE, text)
