"""What can be chosen in a short run: one table. Whoever wants another choice writes a function and adds its row.

A choice draws only from the run's generator, which is seeded anew for each: so leaving one out changes nothing about
what the others draw. A choice for which there is nobody does nothing, or something that helps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from raftkv.core.messages import AppendEntries, TimeoutNow
from raftkv.core.types import Role
from raftkv.members import Become, Named, Terms
from raftkv.outcomes import Consistency
from raftkv.sim.faults.members import ask_for_a_change
from raftkv.sim.runs.choice import Choice as Choice
from raftkv.sim.runs.choice import Theme as Theme
from raftkv.sim.runs.scene import Scene
from raftkv.sim.world.node import VirtualNode

_SNAPSHOT_WAIT_US: Final = 1_000_000


# ------------------------------------------------------------------------------------------ elections


def campaign(scene: Scene) -> None:
    """One node stands, others have forgotten their leader, and those who hear each other talk for a while."""
    node, group = scene.someone(), scene.group()
    if not node.is_up:
        restart(scene)
    if node.is_up:
        others = [other for other in group if other is not node]
        if not scene.world.leases or scene.rng.randrange(2):
            scene.forget_leaders([other for other in others if other.is_up and other.raft.role is not Role.LEADER])
        scene.world.say(f"{node.id} stands")
        scene.world.stand(node)
        scene.world.talk([node, *others])


def overthrow(scene: Scene) -> None:
    """Others elect one of themselves, and the old leader does not hear of it; clients ask either."""
    old = scene.leader()
    return campaign(scene) if old is None else _overthrow(scene, old)


def diverge(scene: Scene) -> None:
    """A leader takes writes that hardly anybody hears of before others elect one of themselves."""
    world, rng, leader = scene.world, scene.rng, scene.leader()
    if leader is None:
        return campaign(scene)
    for _ in range(rng.randrange(1, 4)):
        scene.clients.put(leader)
        world.turn(leader)
    if rng.randrange(4):
        world.flying = [one for one in world.flying if one.envelope.sender != leader.id]
    for _ in range(rng.randrange(4)):
        world.sync(leader)
    return _overthrow(scene, leader)


def late_echoes(scene: Scene) -> None:
    """Followers hear a leader, and what they say to that comes when others have elected another and it is asked."""
    leader = scene.leader()
    if leader is None:
        return campaign(scene)
    for _ in range(scene.rng.randrange(1, 4)):
        scene.speak(leader)
    scene.world.hold_back(lambda one: one.envelope.receiver == leader.id)
    _overthrow(scene, leader)
    return _ask_once_more(scene, leader)


def _ask_once_more(scene: Scene, node: VirtualNode) -> None:
    """It is read from; then it hears what comes late."""
    if node.is_up:
        scene.clients.read(node, Consistency.LINEARIZABLE)
        scene.world.turn(node)
        scene.world.come_late(lambda one: one.envelope.receiver == node.id)


def leads_again(scene: Scene) -> None:
    """Who led comes back after another; what it said the first time is heard only now, and answered later still."""
    world, first = scene.world, scene.leader()
    if first is None:
        return campaign(scene)
    for _ in range(scene.rng.randrange(2, 6)):
        world.lapse(first, world.setting.raft.heartbeat_us)
        world.hold_back(lambda one: one.envelope.sender == first.id)
    _overthrow(scene, first)
    everybody = world.up()
    for _ in range(3):
        if first.is_up and first.raft.role is not Role.LEADER:
            scene.forget_leaders([node for node in everybody if node is not first])
            world.stand(first)
            world.talk([first, *everybody], budget=30, in_order=True)
    if not first.is_up or first.raft.role is not Role.LEADER:
        return None
    world.come_late(lambda one: one.envelope.sender == first.id)
    world.hold_back(lambda one: one.envelope.receiver == first.id)
    _overthrow(scene, first)
    return _ask_once_more(scene, first)


def late_copies(scene: Scene) -> None:
    """A leader's appends are heard and answered; copies of the first of them come once more."""
    world, leader = scene.world, scene.leader()
    if leader is None:
        return campaign(scene)
    for _ in range(scene.rng.randrange(1, 4)):
        scene.clients.put(leader)
        world.turn(leader)
        world.hold_back(lambda one: one.envelope.sender == leader.id and one.exchange is None, copies=True)
        if scene.rng.randrange(2):
            scene.talk_around(leader)
    scene.talk_around(leader)
    world.come_late()
    return scene.talk_around(leader)


def hold_back(scene: Scene) -> None:
    """What is on its way to or from somebody comes late, or comes now and once more late."""
    node, is_from = scene.someone().id, scene.rng.randrange(2)
    scene.world.hold_back(
        lambda one: (one.envelope.sender if is_from else one.envelope.receiver) == node,
        copies=scene.rng.randrange(2) > 0,
    )


def come_late(scene: Scene) -> None:
    """What was held back arrives, at one or at all."""
    node = scene.rng.choice([*scene.world.nodes, None])
    scene.world.come_late(lambda one: node in (None, one.envelope.receiver))


def outlive_promises(scene: Scene) -> None:
    """Echoes come late, by less than a promise lasts; as soon as promises are over, others elect one of themselves."""
    _outlive_promises(scene, lambda leader: None)


def outlive_promises_unheard(scene: Scene) -> None:
    """The same, and the leader alone has C_old,new in its log: by that it is one of few, or the only one, to decide."""

    def begin(leader: VirtualNode) -> None:
        members = list(leader.raft.configuration.current.voters)
        some = scene.rng.sample(members, scene.rng.choice((0, scene.rng.randrange(len(members)))))
        wish = Become(tuple(Named(one.id, one.url) for one in members if one in some or one.id == leader.id))
        terms = Terms(force=True)
        leader.running.change_members(wish, {}, terms, scene.world.judge.members(leader, wish, terms))
        scene.world.turn(leader)
        scene.world.flying = [one for one in scene.world.flying if not isinstance(one.envelope.message, AppendEntries)]

    _outlive_promises(scene, begin)


def _outlive_promises(scene: Scene, begin: Callable[[VirtualNode], None]) -> None:
    world, leader, rng = scene.world, scene.leader(), scene.rng
    others = [node for node in world.up() if node is not leader]
    if leader is None or len(others) <= len(world.nodes) // 2:
        return restart(scene)
    world.lapse(leader, world.setting.raft.heartbeat_us)
    world.talk([leader, *others], budget=30, in_order=True)
    if len(leader.raft.configuration.current.voters) > 1:
        begin(leader)
    scene.speak(leader)
    world.hold_back(lambda one: one.envelope.receiver == leader.id)
    world.lapse(leader, rng.randrange(world.setting.raft.election_timeout_us))
    world.come_late(lambda one: one.envelope.receiver == leader.id)
    world.flying = [one for one in world.flying if one.envelope.sender != leader.id]
    others.sort(
        key=lambda node: (
            not node.raft.state.is_voter,
            (node.raft.state.election_deadline_us or 0) - world.clock_us(node.id),
        )
    )
    _take_over(scene, others[0], others[1:], instead_of=leader)
    if leader.is_up:
        scene.clients.read(leader, Consistency.LEASE)
        world.turn(leader)
    return None


def _overthrow(scene: Scene, old: VirtualNode) -> None:
    world, rng = scene.world, scene.rng
    others = [node for node in world.nodes.values() if node is not old]
    one, *rest = rng.sample(others, len(world.nodes) // 2 + 1)
    if not all(node.is_up for node in (one, *rest)):
        return restart(scene)
    if not world.leases or rng.randrange(2):
        scene.forget_leaders(rest)
    _take_over(scene, one, rest, instead_of=old)
    if rng.randrange(3):
        ask(scene, old)
    return None


def _take_over(scene: Scene, one: VirtualNode, rest: list[VirtualNode], *, instead_of: VirtualNode) -> None:
    """It stands; whoever leads then is asked for something."""
    world, rng = scene.world, scene.rng
    world.say(f"{one.id} stands, {instead_of.id} hears nothing")
    world.stand(one)
    world.talk([one, *rest], until=lambda: one.raft.role is Role.LEADER, budget=rng.choice((6, 16, 30)))
    if one.raft.role is not Role.LEADER:
        return
    asked = rng.randrange(4)
    if asked < 2:
        scene.clients.put(one)
    elif asked == 2:
        scene.clients.read(one, Consistency.LINEARIZABLE)
    if asked < 3:
        scene.turn_and_perhaps_talk(one)
    world.talk([one, *rest], slow=rest[0] if rng.randrange(2) else None)


def rivals(scene: Scene) -> None:
    """Two nodes stand at the same time, and everybody would hear both."""
    nodes = list(scene.world.nodes.values())
    if not all(node.is_up for node in nodes):
        return restart(scene)
    scene.forget_leaders(nodes)
    one, other, *rest = scene.rng.sample(nodes, len(nodes))
    scene.world.say(f"{one.id} and {other.id} stand")
    scene.world.stand(one)
    scene.world.stand(other)
    return scene.world.talk([one, other, *rest], budget=40, in_order=False)


def stand_alone(scene: Scene) -> None:
    """A node's election timer runs out; nobody hears of it yet."""
    node = scene.someone()
    if node.is_up:
        scene.world.say(f"{node.id} stands")
        scene.world.stand(node)


def change_members(scene: Scene) -> None:
    """A leader is to let somebody in, or to let go of somebody, be it of itself, or of several at once."""
    leader = scene.leader()
    if leader is None:
        return campaign(scene)
    ask_for_a_change(leader, scene.world.nodes.values(), scene.rng, scene.world.judge)
    scene.world.turn(leader)
    told = leader.raft.state.configurations.current
    scene.world.say(f"{leader.id} is to change the members: {told}")
    return scene.talk_around(leader)


def change_midway(scene: Scene) -> None:
    """The same, and the leader is gone, or not heard any more, with the change in any state."""
    change_members(scene)
    leader, rng = scene.leader(), scene.rng
    if leader is None:
        return None
    scene.world.talk(scene.group(), budget=rng.randrange(1, 12), in_order=True)
    if rng.randrange(2) and leader.is_up:
        return scene.world.crash(leader)
    return _overthrow(scene, leader)


def grow_and_shrink(scene: Scene) -> None:
    """A leader is asked, and all goes well until somebody falls silent, or too much time passes; it is asked again."""
    world, rng = scene.world, scene.rng
    for _ in range(rng.randrange(1, 4)):
        leader = scene.leader()
        if leader is None:
            return campaign(scene)
        ask_for_a_change(leader, world.nodes.values(), rng, world.judge)
        world.turn(leader)
        silent = rng.choice([*world.up(), None])
        some = [node for node in world.up() if node is not silent]
        for _ in range(rng.randrange(1, 6)):
            if leader.is_up:
                world.lapse(leader, rng.choice((1_000, world.setting.raft.heartbeat_us)))
                world.talk([leader, *some], budget=rng.choice((4, 12, 40)), in_order=True)
    return None


def outlive_transfer(scene: Scene) -> None:
    """A leader hands over; what it says to that end is heard only when it has given up, and serves again."""
    world, leader, rng = scene.world, scene.leader(), scene.rng
    others = [node for node in world.up() if node is not leader]
    if leader is None or not others:
        return restart(scene)
    world.talk([leader, *others], budget=30, in_order=True)
    leader.running.transfer_leadership(rng.choice(others).id, world.judge.transferred(leader))
    world.turn(leader)
    world.hold_back(lambda one: isinstance(one.envelope.message, TimeoutNow))
    for _ in range(2 * world.setting.raft.election_timeout_us // world.setting.raft.heartbeat_us + 2):
        world.lapse(leader, world.setting.raft.heartbeat_us)
        world.talk([leader, *others], budget=20, in_order=True)
    world.come_late()
    world.talk(others, budget=rng.choice((6, 12, 30)), in_order=True)
    if leader.is_up:
        ask(scene, leader)
    return None


def transfer(scene: Scene) -> None:
    """A leader is to hand over."""
    leader, target = scene.leader(), scene.someone()
    if leader is not None:
        scene.world.say(f"{leader.id} is to hand over to {target.id}")
        leader.running.transfer_leadership(target.id, scene.world.judge.transferred(leader))
        scene.turn_and_perhaps_talk(leader)


# ------------------------------------------------------------------------------------------ messages


def let_talk(scene: Scene) -> None:
    """Some nodes hear each other for a while."""
    scene.world.talk(scene.group())


def deliver(scene: Scene) -> None:
    """Any message, old or new."""
    flying = scene.world.flying
    if flying:
        scene.world.arrive(flying.pop(scene.rng.randrange(len(flying))))


def double(scene: Scene) -> None:
    """A message arrives and may arrive again."""
    if scene.world.flying:
        scene.world.arrive(scene.rng.choice(scene.world.flying))


def drop(scene: Scene) -> None:
    """All messages of one direction are lost; the sender may hear that its link is broken."""
    world, sender, receiver = scene.world, scene.someone().id, scene.someone().id
    lost = [one for one in world.flying if (one.envelope.sender, one.envelope.receiver) == (sender, receiver)]
    world.flying = [one for one in world.flying if one not in lost]
    for message in lost:
        world.lose(message)


def deafen(scene: Scene) -> None:
    """From now on everything in one direction is lost; the other way it goes on."""
    sender, receiver = scene.someone().id, scene.someone().id
    if sender != receiver:
        scene.world.say(f"{receiver} hears nothing of {sender} any more")
        scene.world.deaf[sender, receiver] = None


def mend(scene: Scene) -> None:
    """Everybody can hear everybody."""
    scene.world.deaf.clear()


# -------------------------------------------------------------------------------- processes and disks


def sync(scene: Scene) -> None:
    """A disk finishes its oldest write."""
    scene.world.sync(scene.someone())


def work_on_files(scene: Scene) -> None:
    """A snapshot thread does its oldest piece of work."""
    scene.world.work_on_files(scene.someone())


def die_over_files(scene: Scene) -> None:
    """A machine dies before, in or after an operation on its snapshots' files."""
    scene.world.die_over_files(scene.someone())


def take_snapshot(scene: Scene) -> None:
    """Somebody is asked for a snapshot."""
    node = scene.someone()
    if node.is_up:
        scene.world.say(f"{node.id} is to take a snapshot")
        node.running.snapshots.ask(scene.world.judge.snapshot(node), wait_us=_SNAPSHOT_WAIT_US)
        scene.turn_and_perhaps_talk(node)


def leave_behind(scene: Scene) -> None:
    """A leader and just enough others go on and forget the log; then they hear of those who did not."""
    world, leader, rng = scene.world, scene.leader(), scene.rng
    if leader is None:
        return campaign(scene)
    others = [node for node in world.up() if node is not leader]
    some = [leader, *others[: len(world.nodes) // 2]]
    for _ in range(rng.randrange(2, 6)):
        scene.clients.put(leader)
        world.turn(leader)
        world.talk(some, budget=rng.choice((6, 12, 20)), in_order=True)
    node = rng.choice(some)
    if node.is_up:
        node.running.snapshots.ask(world.judge.snapshot(node), wait_us=_SNAPSHOT_WAIT_US)
        world.turn(node)
    world.talk(some, budget=6)
    if rng.randrange(4):
        world.flying = [one for one in world.flying if one.envelope.sender != leader.id]
    for _ in range(rng.randrange(1, 4)):
        world.lapse(leader, world.setting.raft.heartbeat_us)
        world.talk([leader, *others], budget=rng.choice((10, 30, 60)))
    return None


def crash(scene: Scene) -> None:
    """Somebody's process ends."""
    node = scene.someone()
    if node.is_up:
        scene.world.crash(node)


def crash_leader(scene: Scene) -> None:
    """A leader's does."""
    leader = scene.leader()
    if leader is not None:
        scene.world.crash(leader)


def crash_all(scene: Scene) -> None:
    """Everybody's, at once, and all begin anew."""
    for node in scene.world.up():
        scene.world.crash(node)
    for node in scene.world.nodes.values():
        scene.world.start(node)


def restart(scene: Scene) -> None:
    """The first that is down begins anew."""
    for node in scene.world.nodes.values():
        if not node.is_up:
            return scene.world.start(node)
    return None


# ---------------------------------------------------------------------------------------------- time


def pass_heartbeat(scene: Scene) -> None:
    """A heartbeat's time passes at one node."""
    scene.world.lapse(scene.someone(), scene.world.setting.raft.heartbeat_us)


def pass_long(scene: Scene) -> None:
    """An election timeout passes at one node."""
    scene.world.lapse(scene.someone(), scene.world.setting.raft.election_timeout_us)


def go_on(scene: Scene) -> None:
    """A leader's heartbeats come to some, and all is as it should be there; then somebody stands who heard nothing."""
    world, leader, group = scene.world, scene.leader(), scene.group()
    if leader is None:
        return
    some = [leader, *(other for other in group if other is not leader)]
    for _ in range(scene.rng.randrange(2, 7)):
        world.lapse(leader, world.setting.raft.heartbeat_us)
        world.talk(some, budget=10, in_order=True)
    deaf = [node for node in world.up() if node not in some]
    if deaf and scene.rng.randrange(2):
        world.say(f"{deaf[0].id} stands")
        world.stand(deaf[0])
        world.talk([*deaf, *some[1:]])


def jump(scene: Scene) -> None:
    """A clock jumps by anything."""
    scene.world.lapse(scene.someone(), scene.rng.randrange(10 * scene.world.setting.raft.election_timeout_us))


# ------------------------------------------------------------------------------------------- clients


def put(scene: Scene) -> None:
    """A write without a number, at somebody who takes it."""
    _at_leader(scene, scene.clients.put)


def put_numbered(scene: Scene) -> None:
    """A write with a number; the first opens the session."""
    _at_leader(scene, scene.clients.put_numbered)


def repeat(scene: Scene) -> None:
    """A numbered write comes again."""
    _at_leader(scene, scene.clients.repeat)


def write_anything(scene: Scene) -> None:
    """With conditions, of ranges, in transactions."""
    _at_leader(scene, scene.clients.write_anything)


def _at_leader(scene: Scene, write: Callable[[VirtualNode], None]) -> None:
    leader = scene.leader()
    if leader is not None:
        write(leader)
        scene.turn_and_perhaps_talk(leader)


def read(scene: Scene) -> None:
    """At somebody who leads, or at anybody."""
    ask(scene, scene.leader() or scene.someone())


def ask(scene: Scene, node: VirtualNode) -> None:
    """That node is read from, as from a leader."""
    by_lease = scene.world.leases and scene.rng.randrange(2)
    scene.clients.read(node, Consistency.LEASE if by_lease else Consistency.LINEARIZABLE)
    if node.is_up:
        scene.turn_and_perhaps_talk(node)


def read_at_follower(scene: Scene) -> None:
    """Anybody is asked, as fresh as any."""
    node = scene.someone()
    scene.clients.read(node, Consistency.FOLLOWER)
    if node.is_up:
        scene.turn_and_perhaps_talk(node)


def read_stale(scene: Scene) -> None:
    """Anybody is asked for what it has."""
    node = scene.someone()
    scene.clients.read(node, Consistency.STALE)
    if node.is_up:
        scene.turn_and_perhaps_talk(node)


CHOICES: Final = (
    Choice(let_talk, 24, is_needed=True),
    Choice(campaign, 8, is_needed=True),
    Choice(overthrow, 8, is_needed=True),
    Choice(diverge, 5, is_needed=True),
    Choice(rivals, 5, is_needed=True),
    Choice(late_echoes, 3),
    Choice(leads_again, 2),
    Choice(late_copies, 4),
    Choice(hold_back, 3),
    Choice(come_late, 4),
    Choice(deliver, 20),
    Choice(change_members, 8, needs_changes=True),
    Choice(change_midway, 6, needs_changes=True),
    Choice(grow_and_shrink, 6, needs_changes=True),
    Choice(stand_alone, 3),
    Choice(double, 6),
    Choice(drop, 3),
    Choice(deafen, 1, is_rare=True),
    Choice(mend, 3, is_rare=True),
    Choice(sync, 6),
    Choice(work_on_files, 4, needs_snapshots=True),
    Choice(take_snapshot, 3, needs_snapshots=True),
    Choice(leave_behind, 8, needs_snapshots=True),
    Choice(die_over_files, 4, needs_snapshots=True),
    Choice(crash, 3),
    Choice(crash_leader, 3),
    Choice(crash_all, 1, is_rare=True),
    Choice(restart, 8),
    Choice(pass_heartbeat, 5),
    Choice(pass_long, 4),
    Choice(go_on, 3, needs_leases=True),
    Choice(outlive_promises, 6, needs_leases=True),
    Choice(outlive_promises_unheard, 12, needs_leases=True, needs_changes=True),
    Choice(jump, 1, is_rare=True),
    Choice(put, 12),
    Choice(put_numbered, 6),
    Choice(repeat, 4),
    Choice(write_anything, 2, is_rare=True),
    Choice(read, 8),
    Choice(read_at_follower, 5),
    Choice(read_stale, 3),
    Choice(transfer, 2),
    Choice(outlive_transfer, 2),
)
