"""Starting points that are worth a closer look: what takes many choices to come about, and few to go wrong from.

Every one is made by choices, from the empty cluster, with the core that is explored: so each can come about. Add one by
writing a function and its row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from raftkv.core.messages import InstallSnapshot
from raftkv.core.types import Role
from raftkv.sim.checks.figure3 import Facts
from raftkv.sim.runs.few_members import NAMES
from raftkv.sim.runs.states import Choice, Rules, Worlds
from raftkv.transport import codec

_CAMPAIGNS_MAX: Final = 3
"""Who lags behind hears of the present term first."""
_HEARTBEATS_MAX: Final = 10


class StartNotReached(AssertionError):
    """The nodes do not do what leads there."""


class Driver:
    """Leads a cluster to where an exploration begins. Nodes are named a, b and c."""

    def __init__(self, worlds: Worlds) -> None:
        self._worlds = worlds
        self.world = worlds.first()
        self.taken: list[Choice] = []

    def do(self, *choices: str) -> None:
        """These happen, in this order; each is possible then."""
        for text in choices:
            possible = {str(choice): choice for choice in self._worlds.choices(self.world)}
            if text not in possible:
                raise StartNotReached(f"{text!r} is not possible, but {sorted(possible)}")
            self._take(possible[text])

    def talk(self, among: str, *, until: Callable[[], bool] = lambda: False) -> None:
        """These hear each other, and their disks work, until nobody has anything to say."""
        while not until():
            possible = [choice for choice in self._worlds.choices(self.world) if self._is_talk(choice, among)]
            if not possible:
                return
            self._take(possible[0])

    def elect(self, leader: str, voter: str) -> None:
        """The one leads by the vote of the other; nobody has heard of it yet, and what else was in flight is lost."""
        while self.leads(leader):
            self.do(f"heartbeat {leader}")
        self.do(f"time out {voter}")
        for _ in range(_CAMPAIGNS_MAX):
            self.silence()
            self.do(f"time out {leader}")
            self.talk(leader + voter, until=lambda: self.leads(leader))
            if self.leads(leader):
                return
        raise StartNotReached(f"{leader} is not elected by {voter}")

    def leads(self, node: str) -> bool:
        """Whether it does."""
        return self._facts(node).role is Role.LEADER

    def stands(self, node: str) -> bool:
        """Whether it has asked for votes, its own being on its disk."""
        facts = self._facts(node)
        return facts.role is Role.CANDIDATE and facts.vote == (facts.term, facts.id)

    def has_entries(self, node: str, count: int) -> bool:
        """Whether so many are on its disk."""
        return len(self._facts(node).durable) >= count

    def is_joint(self, node: str) -> bool:
        """Whether two sets of voters decide there."""
        return len(self._facts(node).deciding[0]) == 2

    def is_sent_a_snapshot(self, node: str) -> bool:
        """Whether a piece of one is on its way there."""
        return any(_is_piece(packed) for packed in self._worlds.flying_to(self.world, node))

    def silence(self) -> None:
        """All that is in flight is lost."""
        self._take(Choice("silence", 0))

    def _facts(self, node: str) -> Facts:
        place = [str(name) for name in NAMES].index(node)
        return self._worlds.nodes.facts[self.world.nodes[place]]

    def _is_talk(self, choice: Choice, among: str) -> bool:
        words = str(choice).split()
        return words[0] in ("deliver", "sync", "keep", "load") and all(name in among for name in words[1].split("→"))

    def _take(self, choice: Choice) -> None:
        self.taken.append(choice)
        self.world = self._worlds.after(self.world, choice)


def _is_piece(packed: bytes) -> bool:
    return isinstance(codec.decode(packed).message, InstallSnapshot)


def _empty(driver: Driver) -> None:
    """Three nodes have started, and nothing has happened."""
    driver.do("start a", "start b", "start c")


def _prompt(driver: Driver) -> None:
    """The same, but nobody crashes and no disk takes its time: so one sees further."""
    _empty(driver)


def _led(driver: Driver) -> None:
    """Node a leads term 1, all know it, and its no-op is committed everywhere."""
    _empty(driver)
    driver.elect("a", "b")
    driver.talk("abc")
    driver.do("heartbeat a")
    driver.talk("abc")


def _uncommitted(driver: Driver) -> None:
    """A leader's entry is on one follower's disk, not yet on its own, and the follower's word of it is on its way."""
    _led(driver)
    driver.do("put a", "deliver a→b", "sync b")


def _figure_7(driver: Driver) -> None:
    """Logs as in Figure 7: of terms 1 1 3 at a, which leads term 3 and has just begun to speak, 1 at b, 1 2 2 at c."""
    _diverged(driver)
    driver.elect("a", "b")
    driver.do("lose a→c", "lose a→c")


def _diverged(driver: Driver) -> None:
    """Logs 1 1 at a, 1 at b, 1 2 2 at c, which leads term 2; nothing is in flight."""
    _led(driver)
    driver.do("put a")
    driver.silence()
    driver.talk("a")
    driver.elect("c", "b")
    driver.silence()
    driver.do("put c")
    driver.silence()
    driver.talk("c")


def _figure_8(driver: Driver) -> None:
    """As in Figure 8 (c): a, which leads term 3, has brought an entry of term 1 to b; c has one of term 2 there."""
    _figure_7(driver)
    driver.talk("ab", until=lambda: driver.has_entries("b", 2))


def _rivals(driver: Driver) -> None:
    """Nodes a and b stand in term 1, both asked c, and c has not voted."""
    _empty(driver)
    driver.do("time out a", "time out b", "lose a→b", "lose b→a")
    driver.talk("ac", until=lambda: driver.stands("a"))
    driver.talk("bc", until=lambda: driver.stands("b"))


def _cut_off(driver: Driver) -> None:
    """Node b was elected by c in term 2; a still leads term 1, its own entry is on its way to its disk and to c."""
    _led(driver)
    driver.elect("b", "c")
    driver.do("lose b→a", "lose b→a", "put a", "lose a→b")
    driver.talk("bc")


def _unsynced_vote(driver: Driver) -> None:
    """Node c has voted for a and crashed before its disk knew; b, which stands in the same term, has asked it too."""
    _rivals(driver)
    driver.do("deliver a→c", "crash c")


def _behind(driver: Driver) -> None:
    """Node c lacks what a and b have committed, and asks b, which hears no leader, whether it would vote."""
    _led(driver)
    driver.do("put a", "lose a→c")
    driver.talk("ab")
    driver.do("time out b")
    driver.silence()
    driver.do("time out c", "lose c→a")


def _longer(driver: Driver) -> None:
    """The same, but c's log is longer: it led an older term."""
    _diverged(driver)
    driver.do("put c")
    driver.silence()
    driver.elect("a", "b")
    driver.talk("ab")
    driver.silence()
    driver.do("heartbeat c", "heartbeat c", "time out b")
    driver.silence()
    driver.do("time out c")
    driver.talk("bc")
    driver.silence()
    driver.do("time out c", "lose c→a")


def _late(driver: Driver) -> None:
    """Entries 2 and 3 are committed by a and b, which does not know; a first copy of entry 2 is on its way to b."""
    _led(driver)
    driver.do("put a", "heartbeat a", "deliver a→c, number 2 of those in flight", "deliver c→a", "heartbeat a")
    driver.do("deliver a→b", "sync b", "deliver b→a", "put a")
    driver.do("deliver a→b, number 4 of those in flight", "sync b", "deliver b→a", "sync a", "sync a")


def _acknowledged(driver: Driver) -> None:
    """Node b has acknowledged entries 2 and 3 one by one; its words are on their way, and may overtake each other."""
    _led(driver)
    driver.do("put a", "put a", "deliver a→b", "deliver a→b", "sync b", "sync b")


def _won(driver: Driver) -> None:
    """Node a stands in term 1 by the word of b; the word of c, which would vote too, is on its way."""
    _empty(driver)
    driver.do("time out a", "deliver a→b", "deliver a→c", "deliver b→a", "sync a")


def _members(driver: Driver) -> None:
    """Node a leads, all is committed, and a may be asked for other members: one less, one that only learns, itself."""
    _led(driver)


def _joint(driver: Driver) -> None:
    """Node a is to be the only member. C_old,new of a b c and a is in its log, and on its way."""
    _led(driver)
    driver.do("members a: a")


def _growing(driver: Driver) -> None:
    """Node a is the only member and is asked for all three: they have caught up, C_old,new is on its way to them."""
    _empty(driver)
    driver.do("time out a")
    driver.do("members a: abc")
    for _ in range(_HEARTBEATS_MAX):
        driver.do("heartbeat a")
        driver.talk("abc", until=lambda: driver.is_joint("a"))
        if driver.is_joint("a"):
            return
    raise StartNotReached("nobody catches up")


def _catching_up(driver: Driver) -> None:
    """Nodes a and b are the members; the entry that lets c in is committed, and on its way to c, which has none."""
    _empty(driver)
    driver.elect("a", "b")
    driver.talk("ab")
    driver.do("members a: abc")
    driver.talk("ab")


def _removed_leader(driver: Driver) -> None:
    """Node a leads and leaves: C_old,new of a b c and b c is committed, C_new is in a's log, and on its way."""
    _led(driver)
    driver.do("members a: bc")
    driver.talk("abc", until=lambda: driver.has_entries("a", 3))


def _snapshot_behind(driver: Driver) -> None:
    """Node c lacks entries 2 and 3; a, which leads, has forgotten them, and its snapshot is on its way to c."""
    _led(driver)
    for _ in range(2):
        driver.do("put a", "lose a→c")
        driver.talk("ab")
    driver.do("snapshot a")
    driver.talk("abc", until=lambda: driver.is_sent_a_snapshot("c"))
    while not driver.is_sent_a_snapshot("c"):
        driver.do("heartbeat a")
        driver.talk("abc", until=lambda: driver.is_sent_a_snapshot("c"))


def _snapshot_parted(driver: Driver) -> None:
    """Logs are 1 1 3 at a and b, which is committed, and 1 2 2 at c: on its way to c is a snapshot that ends at 3."""
    _diverged(driver)
    driver.elect("a", "b")
    driver.talk("ab")
    driver.do("snapshot a")
    while not driver.is_sent_a_snapshot("c"):
        driver.do("heartbeat a")
        driver.talk("abc", until=lambda: driver.is_sent_a_snapshot("c"))


def _overruled(driver: Driver) -> None:
    """Node a's log ends with C_old,new of a b c and a, which only a holds; b leads, and has not spoken to a yet."""
    _led(driver)
    driver.do("members a: a")
    driver.silence()
    driver.talk("a")
    driver.elect("b", "c")
    driver.talk("bc")


def _snapshot_over_members(driver: Driver) -> None:
    """Node a's log ends with C_old,new of a b c and a, which only a holds; b leads, its snapshot is on its way to a."""
    _led(driver)
    driver.do("members a: a")
    driver.silence()
    driver.talk("a")
    driver.elect("b", "c")
    driver.talk("bc")
    driver.do("put b")
    driver.talk("bc")
    driver.do("snapshot b")
    driver.silence()
    while not driver.is_sent_a_snapshot("a"):
        driver.do("heartbeat b")
        driver.talk("abc", until=lambda: driver.is_sent_a_snapshot("a"))


@dataclass(frozen=True, slots=True)
class Start:
    """A row of the table."""

    lead: Callable[[Driver], None]
    rules: Rules
    all_are_alike: bool = False

    @property
    def name(self) -> str:
        """What it is called."""
        return self.lead.__name__.strip("_").replace("_", "-")

    @property
    def about(self) -> str:
        """What is the case there."""
        return self.lead.__doc__ or ""


_STARTS: Final = (
    Start(_empty, Rules(term_max=2), all_are_alike=True),
    Start(_prompt, Rules(term_max=2, disks_are_prompt=True, crashes=False), all_are_alike=True),
    Start(_led, Rules(term_max=2, reads=True, transfers=True)),
    Start(_uncommitted, Rules(term_max=2)),
    Start(_acknowledged, Rules(term_max=2, any_order=True)),
    Start(_late, Rules(term_max=2, any_order=True)),
    Start(_figure_7, Rules(term_max=4, entries_max=4)),
    Start(_figure_8, Rules(term_max=4, entries_max=4)),
    Start(_won, Rules(term_max=2)),
    Start(_rivals, Rules(term_max=2)),
    Start(_unsynced_vote, Rules(term_max=2, lives_max=3)),
    Start(_behind, Rules(term_max=2, disks_are_prompt=True)),
    Start(_longer, Rules(term_max=4, entries_max=5, disks_are_prompt=True)),
    Start(_cut_off, Rules(term_max=3, reads=True)),
    Start(
        _members, Rules(term_max=2, entries_max=2, disks_are_prompt=True, snapshots=True, members=("a", "bc", "ab+c"))
    ),
    Start(_joint, Rules(term_max=3, disks_are_prompt=True, members=("a",))),
    Start(_growing, Rules(term_max=3, disks_are_prompt=True, listed=1, members=("abc",))),
    Start(_catching_up, Rules(term_max=2, disks_are_prompt=True, listed=2, members=("abc", "ab"))),
    Start(_overruled, Rules(term_max=3, entries_max=3, disks_are_prompt=True, members=("a",))),
    Start(_removed_leader, Rules(term_max=2, transfers=True, members=("bc",))),
    Start(_snapshot_behind, Rules(term_max=2, snapshots=True)),
    Start(_snapshot_parted, Rules(term_max=4, entries_max=4, snapshots=True)),
    Start(_snapshot_over_members, Rules(term_max=3, entries_max=4, snapshots=True, members=("a",))),
)
STARTS: Final = {start.name: start for start in _STARTS}
