"""Equal logs make equal states; where they did not, the state that a majority of voters has is right (design).

Every node keeps the hashes of its state at its newest multiples of 1,024, and tells its leader the newest, or, every
other time, one that nodes which are not equally far have in common for longer: with the newest alone, three of five
that run fast over slow links never tell of one index. What a majority of each voter set has at one index is agreed
there. The leader tells each follower the newest agreed hash that the follower can compare, for it has told a hash of
that index or a later one itself:

    a  1024: x   2048: y   3072: z                 agreed: 1024: x  2048: y
    b  1024: x   2048: y                           b is told 2048: y
    c  1024: w                                     c is told 1024: x, and knows that its own state is wrong

Where nothing comes, and where a state is captured, hashes are told of the index where it stands as well.

A node whose state is wrong serves nothing, and leads no more. Its log is as good as any: it still stores entries
and votes. Started again, it builds its state anew from the log: a snapshot takes the place of that only once a
majority was found to have the same state (``agrees_at``).
"""

from __future__ import annotations

from raftkv.core import election, rules
from raftkv.core.messages import HeartbeatReply
from raftkv.core.progress import Progress
from raftkv.core.state import Office, State
from raftkv.core.types import Index, NodeId


def own_state_is_known(state: State, index: Index, state_hash: bytes) -> None:
    """This node's state had that hash right after ``index``. Had it another one there before, it is not what it was."""
    if state.hashes.at(index) not in (None, state_hash):
        state.agrees_at = min(state.agrees_at, Index(index - 1))
    state.hashes.note(index, state_hash)
    office = state.office
    if office is None:
        return
    agreed = office.agreed_hashes.at(index)
    if agreed is not None:  # Perhaps by this node's own word, which it now takes back.
        compare(state, index, agreed)
    for peer in office.progress:
        _note_difference(state, office, peer, index)
    if state.disagrees_at is None:
        _agree(state, office, index)


def peers_state_is_told(state: State, peer: NodeId, progress: Progress, reply: HeartbeatReply) -> None:
    """A follower of this leader tells the newest hash that it knows; one that was heard already changes nothing."""
    if reply.hash_index == 0 or progress.hashes.at(reply.hash_index) == reply.state_hash:
        return
    progress.hashes.note(reply.hash_index, reply.state_hash)
    assert state.office is not None
    _note_difference(state, state.office, peer, reply.hash_index)
    _agree(state, state.office, reply.hash_index)


def to_compare(office: Office, progress: Progress) -> tuple[Index, bytes]:
    """The newest agreed hash at an index that the peer has reached; (0, nothing): there is none.

    Every other time at one of which it has told: where it did not stand still it does not know its own.
    """
    told = Index(0) if office.last_round % 2 else progress.hashes.newest_common(office.agreed_hashes)
    return office.agreed_hashes.newest_through(told or progress.hashes.newest[0])


def peer_is_wrong(office: Office, progress: Progress) -> bool:
    """Whether the peer has told another hash than a majority's, at the newest index where both are known."""
    told, agreed = progress.hashes.newest_of_both(office.agreed_hashes)
    return rules.state_is_wrong(own=told, agreed=agreed)


def compare(state: State, index: Index, agreed: bytes) -> None:
    """Holds this node's own state against what a majority has. Who does not know its own any more says nothing."""
    own = state.hashes.at(index)
    if state.disagrees_at is not None or own is None:
        return
    if not rules.state_is_wrong(own=own, agreed=agreed):
        state.agrees_at = max(state.agrees_at, index)
        return
    state.disagrees_at = index
    text = f"{state.me.id}: the state here is not that of the majority at index {index}: serves nothing until it is"
    state.note("state_is_wrong", f"{text} started again, which builds the state anew from the log")
    if state.office is not None or state.campaign is not None:
        election.follow(state, state.current_term, None, "its state is wrong")


def _agree(state: State, office: Office, index: Index) -> None:
    """Perhaps one more hash of this index has made a majority; then it binds this leader first."""
    told = {peer: progress.hashes.at(index) for peer, progress in office.progress.items()}
    hashes: dict[NodeId, bytes] = {peer: state_hash for peer, state_hash in told.items() if state_hash is not None}
    own = state.hashes.at(index)
    if own is not None:
        hashes[state.me.id] = own
    agreed = rules.hash_of_a_majority(state.voter_sets, hashes)
    if agreed is not None:
        office.agreed_hashes.note(index, agreed)
        compare(state, index, agreed)


def _note_difference(state: State, office: Office, peer: NodeId, index: Index) -> None:
    """Two hashes at one index are told once a term, whoever is right, and whoever got there first."""
    own, told = state.hashes.at(index), office.progress[peer].hashes.at(index)
    if None not in (own, told) and own != told and not office.disagreement_noted:
        office.disagreement_noted = True
        state.note("replicas_disagree", f"{state.me.id}: {peer} has another state at index {index}")
