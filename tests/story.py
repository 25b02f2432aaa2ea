"""Drives a virtual cluster by a text: the scenarios in tests/scenarios are written in its words.

A scenario is a file of blocks. A block is commands, a line of four dashes, and what is told until they are
done: the notes of the nodes, outcomes of writes and reads, and what ``show`` prints.

    cluster a b c [election=300 heartbeat=100]   nodes, not started yet; leases=1 turns lease reads on, drift=100;
                         lying=1: clocks break that bound, unsound=1: machines may err
    spare d …            nodes that are no members yet; their disks are empty
    clock a 1100         a's clock shows so many microseconds for a thousand of the world's
    log a 1 1 2          a's disk holds entries of these terms
    term a 3 [b]         … and this term, and a vote for b
    start [a …]          processes begin (all, if none is named); restart is the same word
    stand a              a's election timer runs out now; 50 ms pass
    calm a …             their election timers begin anew, and take ten seconds
    wait 300ms           virtual time passes
    propose a x y        x and y are written at a; 50 ms pass
    offer a x            the same, and no time passes
    fill a 1024          so many writes at a of which nothing is told; 200 ms pass
    flip a               the newest word in the memory of a's machine becomes another
    read a [follower]    a linearizable read at a (or of another consistency); 50 ms pass
    ask a [follower]     the same, and no time passes
    isolate a | cut a b | cut a > b | heal | heal a b | heal a > b      links
    hold a > b [Type]    messages of that type from a to b wait (also beside others that are held) …
    release [n]          … until they are let go (the oldest n, or all), in order; 50 ms pass
    release a > b        those from a to b are let go; what follows waits again
    double               what is held is delivered, and stays held
    drop                 … or thrown away
    crash a | pause a | resume a
    stall a 2000ms       a is stopped for so long in its next turn, when it has looked at its clock
    disk a hangs | disk a goes
    transfer a [b]       a is asked to hand over; 50 ms pass
    change a b c d [| e] [by=800] [force]    a is asked to make b c d the voters, e a learner, by that time of the
                         cluster; 50 ms pass
    members [a …]        the configuration in force at each, and how far a change has come
    sent a > b Type      how many messages of that type a sent to b since this was last asked
    show [a …]           state in a line for each node
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from raftkv import frames as framing
from raftkv.core import changes
from raftkv.core.messages import Envelope
from raftkv.core.settings import RaftSettings
from raftkv.core.types import Intent, Learner, Member, Membership, NodeId, Term
from raftkv.errors import ChangeRefused, NotLeader
from raftkv.outcomes import Answered, Applied, Consistency, Refused, Transferred, TransferRefused
from raftkv.replica import ReplicaSettings, Work
from raftkv.sim.checks.invariants import Invariants
from raftkv.sim.world.births import url_of
from raftkv.sim.world.cluster import Plan, VirtualCluster, Watcher
from raftkv.sim.world.network import NetworkFaults
from raftkv.sim.world.node import Clock, VirtualNode
from raftkv.state_machine import LogEntry, StateMachine

SETTLE_US = 50_000
_SHOWN_MAX = 40


class ListMachine(StateMachine):
    """Remembers what was written, in order; answers a read with all of it."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def apply_batch(self, entries: Sequence[LogEntry]) -> list[int]:
        """The place of each in the list, from 1."""
        places = []
        for entry in entries:
            self.words.append(entry.command.decode())
            places.append(len(self.words))
        return places

    def query(self, query: Any) -> str:
        """All words."""
        return " ".join(self.words) or "nothing"

    def tick_due_ms(self) -> None:
        """Nothing runs out."""

    def tick_command(self) -> bytes:
        """Never asked for."""
        raise AssertionError

    def state_hash(self) -> int:
        """Tells lists apart."""
        digest = 0
        for word in self.words:
            digest = (digest * 1_000_003 + int.from_bytes(word.encode(), "little")) % (1 << 128)
        return digest

    def snapshot(self) -> bytes:
        """The words."""
        return "\n".join(self.words).encode()

    def restore(self, snapshot: bytes) -> None:
        """The words."""
        self.words = snapshot.decode().split("\n")


def _shortened(words: Sequence[str]) -> str:
    """A long line by its ends."""
    if len(words) <= _SHOWN_MAX:
        return " ".join(words)
    return f"{' '.join(words[:4])} … {' '.join(words[-4:])} ({len(words)})"


class Story(Watcher):
    """Reads commands, lets them happen, and writes down what is told."""

    def __init__(self) -> None:
        self.cluster: VirtualCluster | None = None
        self.told: list[str] = []
        self._holds: list[tuple[str, str, str | None]] = []
        self._sent: Counter[tuple[str, str, str]] = Counter()
        self._held: list[tuple[str, str, Callable[[], None]]] = []

    def run(self, commands: Sequence[str]) -> str:
        """Everything that is told from the first command to the last."""
        self.told = []
        for line in commands:
            word, *arguments = line.split("#")[0].split() or [""]
            if word:
                getattr(self, f"do_{word}")(*arguments)
        return "".join(f"{line}\n" for line in self.told)

    # -- what is watched

    def stepped(self, node: VirtualNode, work: Work) -> None:
        """Notes are the story, and what is read back from disk."""
        self.told.extend(note.text for note in work.notes)
        for read in work.read_log:
            for_whom = "to apply them" if read.follower is None else f"for {read.follower}"
            self.told.append(f"{node.id}: reads entries {read.first} to {read.last} from disk {for_whom}")

    def _tell_outcome(self, who: str, what: str) -> Callable[[Any], None]:
        def tell(outcome: Any) -> None:
            match outcome:
                case Applied(index, place):
                    self.told.append(f"{who}: {what} is written, entry {index}, place {place}")
                case Answered(_, words, consistency):
                    self.told.append(f"{who}: {what} ({consistency.value}) finds {_shortened(words.split())}")
                case Transferred(leader, _, term):
                    self.told.append(f"{who}: {what} is done, {leader} leads in term {term}")
                case TransferRefused(why):
                    self.told.append(f"{who}: {what} is refused, {why.value}")
                case Refused(why, leadership):
                    self.told.append(f"{who}: {what} is refused, {why.value} (leader: {leadership.leader_id})")
                case _:
                    self.told.append(f"{who}: {what} ends as {type(outcome).__name__}")

        return tell

    # -- the words

    def do_cluster(self, *arguments: str) -> None:
        settings = {name: int(value) for name, value in (a.split("=") for a in arguments if "=" in a)}
        plan = Plan(
            voters=tuple(a for a in arguments if "=" not in a),
            raft=RaftSettings(
                election_timeout_ms=settings.get("election", 300),
                heartbeat_ms=settings.get("heartbeat", 100),
                append_bytes_max=settings.get("append_bytes", 1 << 20),
                log_memory_bytes=settings.get("memory", 1 << 26),
                lease_reads=bool(settings.get("leases", 0)),
                clock_drift_max_per_mille=settings.get("drift", 100),
            ),
            replica=ReplicaSettings(request_timeout_ms=settings.get("timeout", 2000)),
            network=NetworkFaults(delay_us_min=1000, delay_us_max=1000),
        )
        self.cluster = VirtualCluster(plan, Random(settings.get("seed", 1)), ListMachine)
        invariants = Invariants(
            self.cluster,
            clocks_keep_to_the_bound="lying" not in settings,
            machines_are_sound="unsound" not in settings,
        )
        self.cluster.watchers += [self, invariants]
        self.cluster.interceptor = self._intercept

    def do_clock(self, name: str, per_mille: str) -> None:
        self._node(name).clock = Clock(per_mille=int(per_mille))

    def do_log(self, name: str, *terms: str) -> None:
        disk = self._node(name).disk
        disk.frames = [
            framing.encode(
                framing.EntryKind.COMMAND, term=int(term), index=index, body=bytes(8) + f"e{index}t{term}".encode()
            )
            for index, term in enumerate(terms, 1)
        ]
        disk.vote = (Term(max(map(int, terms))), None)

    def do_term(self, name: str, term: str, voted_for: str | None = None) -> None:
        self._node(name).disk.vote = (Term(int(term)), None if voted_for is None else NodeId(voted_for))

    def do_start(self, *names: str) -> None:
        for name in names or self._world.nodes:
            self._world.start(name)

    def do_stand(self, name: str) -> None:
        node = self._node(name)
        node.raft.state.election_deadline_us = self._world.now_us
        self._world.poke(name)
        self._world.run_for(SETTLE_US)

    def do_calm(self, *names: str) -> None:
        for name in names:
            self._node(name).raft.state.election_deadline_us = self._world.now_us + 10_000_000

    def do_wait(self, duration: str) -> None:
        self._world.run_for(int(duration.removesuffix("ms")) * 1000)

    def do_propose(self, name: str, *words: str) -> None:
        self.do_offer(name, *words)
        self._world.run_for(SETTLE_US)

    def do_offer(self, name: str, *words: str) -> None:
        for word in words:
            self._node(name).running.submit(word.encode(), self._tell_outcome(name, word))
        self._world.poke(name)

    def do_fill(self, name: str, count: str) -> None:
        for number in range(int(count)):
            self._node(name).running.submit(b"%d" % number, lambda _: None)
        self._world.poke(name)
        self._world.run_for(4 * SETTLE_US)

    def do_flip(self, name: str) -> None:
        machine = self._node(name).running.machine
        assert isinstance(machine, ListMachine)
        machine.words[-1] += "?"

    def do_read(self, name: str, consistency: str = "linearizable") -> None:
        self.do_ask(name, consistency)
        self._world.run_for(SETTLE_US)

    def do_ask(self, name: str, consistency: str = "linearizable") -> None:
        self._node(name).running.read(None, Consistency(consistency), self._tell_outcome(name, "a read"))
        self._world.poke(name)

    def do_isolate(self, name: str) -> None:
        for other in self._world.nodes:
            if other != name:
                self.do_cut(name, other)

    def do_cut(self, one: str, other: str, third: str | None = None) -> None:
        if other == ">":
            assert third is not None
            self._world.network.cut(NodeId(one), NodeId(third))
        else:
            self._world.network.cut(NodeId(one), NodeId(other))
            self._world.network.cut(NodeId(other), NodeId(one))

    def do_heal(self, *names: str) -> None:
        match names:
            case ():
                self._world.network.heal_all()
            case (one, ">", other):
                self._world.network.heal(NodeId(one), NodeId(other))
            case (one, other):
                self._world.network.heal(NodeId(one), NodeId(other))
                self._world.network.heal(NodeId(other), NodeId(one))

    def do_hold(self, sender: str, arrow: str, receiver: str, kind: str | None = None) -> None:
        assert arrow == ">"
        self._holds.append((sender, receiver, kind))

    def do_release(self, first: str | None = None, arrow: str = "", receiver: str = "") -> None:
        if arrow:
            going = [held for held in self._held if held[:2] == (first, receiver)]
        else:
            going = self._held[: len(self._held) if first is None else int(first)]
        self._held = [held for held in self._held if held not in going]
        if not self._held and not arrow:
            self._holds = []
        self._deliver(going)

    def do_double(self) -> None:
        self._deliver(self._held)

    def do_drop(self) -> None:
        self._held, self._holds = [], []

    def do_crash(self, name: str) -> None:
        self._world.crash(name)

    def do_pause(self, name: str) -> None:
        self._world.pause(name)

    def do_stall(self, name: str, duration: str) -> None:
        self._world.stall(name, int(duration.removesuffix("ms")) * 1000)

    def do_resume(self, name: str) -> None:
        self._world.resume(name)

    def do_disk(self, name: str, what: str) -> None:
        (self._world.hang_disk if what == "hangs" else self._world.let_disk_go)(name)

    def do_transfer(self, name: str, target: str | None = None) -> None:
        wanted = None if target is None else NodeId(target)
        self._node(name).running.transfer_leadership(wanted, self._tell_outcome(name, "the transfer"))
        self._world.poke(name)
        self._world.run_for(SETTLE_US)

    def do_spare(self, *names: str) -> None:
        for name in names:
            self._world.add_spare(name)

    def do_change(self, name: str, *words: str) -> None:
        raft = self._node(name).raft
        deadline_ms = next((int(word[3:]) for word in words if word.startswith("by=")), None)
        ids = [word for word in words if word != "force" and "=" not in word]
        voters = ids[: ids.index("|")] if "|" in ids else ids
        target = Membership(
            tuple(self._member(id) for id in voters),
            tuple(Learner(self._member(id), Intent.LEARNER, None) for id in ids[len(voters) + 1 :]),
        )
        try:
            raft.change_membership(target, deadline_ms=deadline_ms, force="force" in words)
        except ChangeRefused as refused:
            self.told.append(f"{name}: the change is refused, {refused.why.value}: {refused}")
        except NotLeader:
            self.told.append(f"{name}: the change is refused, not_leader")
        self._world.poke(name)
        self._world.run_for(SETTLE_US)

    def do_calloff(self, name: str, node: str) -> None:
        try:
            self._node(name).raft.call_off_change(NodeId(node))
        except ChangeRefused as refused:
            self.told.append(f"{name}: nothing is called off, {refused.why.value}: {refused}")
        except NotLeader:
            self.told.append(f"{name}: nothing is called off, not_leader")
        self._world.poke(name)
        self._world.run_for(SETTLE_US)

    def do_members(self, *names: str) -> None:
        for name in names or self._world.nodes:
            self.told.append(self._membership(self._node(name)))

    def do_sent(self, sender: str, arrow: str, receiver: str, kind: str) -> None:
        assert arrow == ">"
        count = self._sent.pop((sender, receiver, kind), 0)
        self.told.append(f"{sender}: {count} {kind} to {receiver}")

    def do_show(self, *names: str) -> None:
        for name in names or self._world.nodes:
            self.told.append(self._shown(self._node(name)))

    # -- leaves

    def _shown(self, node: VirtualNode) -> str:
        if not node.is_up:
            return f"{node.id}: down"
        raft = node.raft
        terms = _shortened([str(raft.term_at(index)) for index in range(1, raft.last_index + 1)]) or "empty"
        return f"{node.id}: {raft.role.value}, term {raft.term}, commit {raft.commit_index}, log {terms}"

    def _membership(self, node: VirtualNode) -> str:
        if not node.is_up:
            return f"{node.id}: down"
        raft, status = node.raft, node.raft.change_status
        known = changes.in_words(raft.configuration) if raft.configuration.voters() else "knows no members"
        phase = "" if status is None else f" ({status.phase.value})"
        removed = "" if raft.removed_at is None else f", removed at {raft.removed_at}"
        return f"{node.id}: {known}{phase}{removed}"

    def _member(self, name: str) -> Member:
        return Member(NodeId(name), self._node(name).me.incarnation, url_of(name))

    def _deliver(self, going: Sequence[tuple[str, str, Callable[[], None]]]) -> None:
        for _, _, deliver in going:
            deliver()
        self._world.run_for(SETTLE_US)

    def _intercept(self, envelope: Envelope, deliver: Callable[[], None]) -> bool:
        sender, receiver, kind = envelope.sender, envelope.receiver, type(envelope.message).__name__
        self._sent[sender, receiver, kind] += 1
        if any(hold in self._holds for hold in ((sender, receiver, kind), (sender, receiver, None))):
            self._held.append((sender, receiver, deliver))
            return True
        return False

    @property
    def _world(self) -> VirtualCluster:
        assert self.cluster is not None, "a scenario begins with a cluster"
        return self.cluster

    def _node(self, name: str) -> VirtualNode:
        return self._world.nodes[NodeId(name)]
