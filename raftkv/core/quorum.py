"""Majority arithmetic over one or two voter sets (paper §5.2, §6). Knows numbers and names, no Raft.

While a change of members is joint there are two sets, and nothing is decided that does not have a
majority of each.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from raftkv.core.types import NodeId

VoterSets = Sequence[frozenset[NodeId]]


def majority_count(voters: int) -> int:
    """How many of so many voters are more than half."""
    return voters // 2 + 1


def has_majority(voter_sets: VoterSets, agreeing: Collection[NodeId]) -> bool:
    """Whether those who agree are a majority of each set; names outside a set do not count in it."""
    return all(len(voters.intersection(agreeing)) >= majority_count(len(voters)) for voters in voter_sets)


def majority_is_out_of_reach(voter_sets: VoterSets, refusing: Collection[NodeId]) -> bool:
    """Whether some set has so many refusals that its majority can no longer come together."""
    return any(
        len(voters) - sum(1 for voter in voters if voter in refusing) < majority_count(len(voters))
        for voters in voter_sets
    )


def majority_value(voter_sets: VoterSets, values: Mapping[NodeId, int], *, missing: int = 0) -> int:
    """The highest number that a majority of each set has reached; who has none counts as ``missing``."""
    reached = []
    for voters in voter_sets:
        falling = sorted([values.get(voter, missing) for voter in voters], reverse=True)
        reached.append(falling[majority_count(len(voters)) - 1])
    return min(reached)
