"""What befalls a cluster's idea of who belongs to it: see breaking.py for how to add a kind."""

from __future__ import annotations

from typing import Final

from raftkv.core.messages import AppendEntries, Envelope, Heartbeat, Request, RequestVote, TimeoutNow
from raftkv.core.types import ClusterId, Incarnation, Index, Round, Term
from raftkv.sim.faults.breaking import Faults, kind, kind_of_files
from raftkv.sim.world.cluster import STRANGERS_TERM
from raftkv.sim.world.wal_disk import WalDisk

_ANOTHER_CLUSTER: Final = ClusterId(b"another cluster.")
_ANOTHER_LIFE: Final = Incarnation(b"another node....")


@kind_of_files
def wipe(faults: Faults) -> None:
    """A data directory is emptied while its node is down: whoever comes back is somebody else."""
    victim = faults.victim()
    disk = victim.disk
    assert isinstance(disk, WalDisk)
    if faults.may_lose(victim):
        faults.crash(victim)
        disk.wipe()


@kind
def stranger(faults: Faults) -> None:
    """A node of another cluster, or one that means another node, has an address of ours: it speaks of a high term."""
    rng = faults.rng
    victim = faults.victim()
    if not victim.is_up:
        return
    me, peers = victim.raft.state.me, list(victim.raft.state.configurations.members.values())
    sender, term = rng.choice(peers), Term(STRANGERS_TERM + rng.randrange(1_000))
    said: Request = rng.choice(
        (
            RequestVote(term, Index(1_000_000), term, transfer=True),
            AppendEntries(term, Index(0), Term(0), Index(0), []),
            Heartbeat(term, Index(0), Index(0), Round(1), 0, 0),
            TimeoutNow(term),
        )
    )
    if rng.randrange(2):
        envelope = Envelope(_ANOTHER_CLUSTER, sender.id, sender.incarnation, me.id, me.incarnation, said)
    else:
        envelope = Envelope(me.cluster_id, sender.id, sender.incarnation, me.id, _ANOTHER_LIFE, said)
    faults.cluster.hear_stranger(victim, envelope)
