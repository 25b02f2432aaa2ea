"""How a node takes part again: the core as its identity and its log have it.

Told: what storage has found. Tells: a Raft that goes on from there. May never know: disks.
"""

from __future__ import annotations

from random import Random

from raftkv.core.raft import Raft
from raftkv.core.settings import RaftSettings
from raftkv.core.state import Identity, Saved
from raftkv.storage import identity as stored
from raftkv.storage.recovery import Recovered


def raft_of(identity: stored.Identity, recovered: Recovered, settings: RaftSettings, rng: Random) -> Raft:
    """The core of a node whose cluster is formed and whose log says this; its machine holds the snapshot, if any."""
    assert identity.cluster_id is not None, "who belongs to no cluster has no part in one"
    saved = Saved(
        base=recovered.base,
        term=recovered.term,
        voted_for=recovered.voted_for,
        term_runs=recovered.term_runs,
        tail_first=recovered.tail_first,
        tail=recovered.tail,
        configurations=recovered.configurations,
        snapshot=None if recovered.snapshot is None else recovered.snapshot.meta.base,
    )
    return Raft(Identity(identity.node_id, identity.incarnation, identity.cluster_id), settings, saved, rng)
