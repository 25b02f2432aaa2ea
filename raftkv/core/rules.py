"""THE PAPER: each rule of Raft once, under a name that is its claim.

Sections are those of "In Search of an Understandable Consensus Algorithm (Extended Version)" and of
Ongaro's thesis "Consensus: Bridging Theory and Practice". Every function is pure and says what breaks
without it. Indexes and terms come in as arguments; nothing here knows where they are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from random import Random

from raftkv.core import membership
from raftkv.core.quorum import VoterSets, has_majority, majority_value
from raftkv.core.types import Configuration, Index, Membership, NodeId, Round, Term

# ---------------------------------------------------------------------------------------------- terms


def term_is_news(*, theirs: int, ours: int) -> bool:
    """Paper §5.1, Figure 2 "All Servers": a higher term is adopted, and whoever led or stood follows.

    Without it two leaders of different terms would both go on.
    """
    return theirs > ours


def term_is_stale(*, theirs: int, ours: int) -> bool:
    """Paper §5.1: a request of an older term is refused.

    Without it a deposed leader would go on writing.
    """
    return theirs < ours


# ------------------------------------------------------------------------------------------ elections


def randomized_election_timeout_us(rng: Random, *, lower_us: int) -> int:
    """Paper §5.2: chosen anew for each wait from [E, 2E).

    Without the spread, followers stand at the same moment and split the vote again and again.
    """
    return lower_us + rng.randrange(lower_us)


def candidate_is_up_to_date(
    *, candidates_last_term: int, candidates_last_index: int, our_last_term: int, our_last_index: int
) -> bool:
    """Paper §5.4.1, the election restriction: the later last term wins, then the longer log.

    Without it a leader could be elected that lacks committed entries, and it would overwrite them.
    """
    return (candidates_last_term, candidates_last_index) >= (our_last_term, our_last_index)


def vote_is_free(*, voted_for: NodeId | None, candidate: NodeId) -> bool:
    """Paper §5.2, Figure 2 RequestVote 2: one vote a term, though it may be repeated to the same candidate.

    Without it two candidates could both win one term.
    """
    return voted_for is None or voted_for == candidate


def vote_is_withheld(
    *, last_heard_leader_us: int | None, now_us: int, election_timeout_us: int, transfer: bool
) -> bool:
    """Paper §6, thesis §4.2.3: who heard a leader less than E ago neither votes nor adopts the term.

    Without it a removed or cut-off server deposes a leader that serves everybody else. A transfer (thesis
    §3.10) is the leader's own wish, so it is not held back.
    """
    if transfer or last_heard_leader_us is None:
        return False
    return now_us - last_heard_leader_us < election_timeout_us


def pre_vote_is_granted(*, proposed_term: int, current_term: int, withheld: bool, up_to_date: bool) -> bool:
    """Thesis §9.6: what a real vote would say, of a term that nobody has begun yet.

    Without it a node that comes back from a partition brings a term that disrupts the rest. Nothing is
    stored: the same voter may say yes to several.
    """
    return proposed_term > current_term and not withheld and up_to_date


def own_vote_counts(*, durable_vote: tuple[Term, NodeId | None], term: Term, me: NodeId) -> bool:
    """Paper Figure 2 "persistent state": a candidate's vote for itself counts once it is on stable storage.

    Without it a candidate, alone in its cluster say, could lead, crash, and lead the same term again.
    """
    return durable_vote == (term, me)


def has_won_election(voter_sets: VoterSets, granted: Collection[NodeId]) -> bool:
    """Paper §5.2, §6: votes of a majority of each voter set.

    Without both majorities of a joint configuration, the old and the new set could each elect a leader.
    """
    return has_majority(voter_sets, granted)


def is_voter(voter_sets: VoterSets, me: NodeId) -> bool:
    """Thesis §4.2.1: a learner, or a server that was removed, has no vote to give itself.

    Without it a leader outside C_new would count its own log towards a majority (thesis §4.2.2).
    """
    return any(me in voters for voters in voter_sets)


def may_stand(voter_sets: VoterSets, me: NodeId, *, voter_sets_before: VoterSets = ()) -> bool:
    """Thesis §4.2.1, §4.2.2: a voter of the configuration in force, or of the one before, if the newest may be undone.

    Without the first a learner would disturb those who decide. Without the second nobody may be left to lead:
    while C_new is not committed, the one log that holds it may be that of a server outside it.
    """
    return is_voter(voter_sets, me) or is_voter(voter_sets_before, me)


# ------------------------------------------------------------------------------------------- the log


def log_matches(*, prev_term: int, our_term_at_prev: int | None) -> bool:
    """Paper §5.3, Figure 2 AppendEntries 2: the entry before the new ones is the leader's own.

    Without it the Log Matching property would not carry over from entry to entry.
    """
    return our_term_at_prev == prev_term


def entry_conflicts(*, our_term: int | None, leaders_term: int) -> bool:
    """Paper §5.3, Figure 2 AppendEntries 3: same index, another term.

    Only such an entry is removed, with all after it. Truncating where nothing conflicts would take back,
    on a late short request, what was already acknowledged.
    """
    return our_term is not None and our_term != leaders_term


def follower_commit_index(*, ours: Index, leaders: Index, last_checked: Index) -> Index:
    """Paper Figure 2, AppendEntries 5. Never past what this request proved.

    With our own last index instead, a dead leader's leftovers would commit.
    """
    return max(ours, min(leaders, last_checked))


def heartbeat_commit_index(*, leaders: Index, match: Index) -> Index:
    """Paper §5.3 for a message that carries no prev: only what this follower is known to match.

    With the leader's commit itself, a follower would commit its own leftovers at those indexes.
    """
    return min(leaders, match)


def match_index_after(*, known: Index, reported: Index) -> Index:
    """Paper Figure 2 "volatile state on leaders": match_index increases monotonically.

    Replies come late and doubled; if one could take a match back, commit would be counted wrongly.
    """
    return max(known, reported)


def next_index_after_refusal(
    *, match: Index, refused_prev: Index, conflict_index: Index, our_last_index_of_conflict_term: Index | None
) -> Index:
    """Paper §5.3 (the end): go back a whole term at a time.

    If we have the follower's conflicting term, the logs can agree up to our last entry of it; if not, not
    before that term began there. Without it a long divergence costs a round trip for every entry.
    """
    if our_last_index_of_conflict_term is None:
        wanted = conflict_index
    else:
        wanted = Index(our_last_index_of_conflict_term + 1)
    return Index(max(match + 1, min(wanted, refused_prev)))


# -------------------------------------------------------------------------------------------- commit


def majority_match_index(voter_sets: VoterSets, match: Mapping[NodeId, int]) -> Index:
    """Paper §5.3, §6: the highest index that a majority of each voter set holds on stable storage.

    The leader's own share is what its disk has finished (thesis §10.2.1), no more: else a crash would
    lose what was acknowledged.
    """
    return Index(majority_value(voter_sets, match))


def leader_commit_index(
    *, commit: Index, majority_match: Index, term_at_match: Term | None, current_term: Term
) -> Index:
    """Paper §5.4.2, Figure 8: only entries of the leader's own term are committed by counting.

    An entry of an older term may stand on a majority and yet be overwritten; it commits by what follows.
    """
    if majority_match > commit and term_at_match == current_term:
        return majority_match
    return commit


def new_leader_may_serve(*, term_at_commit: Term | None, current_term: Term) -> bool:
    """Paper §8, thesis §6.4: reads and changes of members wait for a commit of the leader's own term.

    Before that a new leader does not know which of its entries are committed.
    """
    return term_at_commit == current_term


# ----------------------------------------------------------------------------------------- snapshots


def snapshot_is_needed(*, next_index: Index, log_base: Index) -> bool:
    """Paper §7: the leader has discarded the next entry that this follower needs.

    Without it who was away for long, or is new, would never catch up.
    """
    return next_index <= log_base


def snapshot_is_old(*, index: Index, commit: Index) -> bool:
    """Paper §7, Figure 13: all that it stands for is committed here already.

    Installed all the same, one that comes late would take back what was applied and acknowledged since.
    """
    return index <= commit


def log_goes_on_after_snapshot(*, our_term_at_index: int | None, snapshots_term: int) -> bool:
    """Paper §7, Figure 13 (6): an entry of its index and term; this log holds all of it, and keeps what follows.

    Discarded, entries would go that were acknowledged, and may be committed by that. Any other log goes whole
    (7): what stands before or after a place where it parts from what is committed is nobody's.
    """
    return our_term_at_index == snapshots_term


def log_may_go_through(*, snapshot: Index, before_tail: Index, durable: Index, wanted_after: Iterable[Index]) -> Index:
    """Paper §7: what a snapshot stands for need not stand in the log.

    Some of it stays for followers that lag a little, and what follows the snapshot that is being sent to one: else
    it would need the next snapshot when it holds this one, and so on for ever.
    """
    return min([snapshot, before_tail, durable, *wanted_after])


# --------------------------------------------------------------------------------------------- reads


def confirmed_round(voter_sets: VoterSets, echoed: Mapping[NodeId, int]) -> Round:
    """Thesis §6.4, ReadIndex 3: the newest round that a majority of each voter set has echoed.

    A round begun after a read was registered, once confirmed, proves that nobody else led when the read
    came. With acknowledgements that bear no round, an old one would prove a new read.
    """
    return Round(majority_value(voter_sets, echoed))


def passed_elsewhere_us(*, passed_us: int, clock_drift_max_per_mille: int) -> int:
    """Thesis §6.4.1, the bound on drift: while one clock shows that so much has passed, any other shows this or more.

    The other may be the slowest allowed, and readings are cut to microseconds. With the whole time, a follower
    that is told when something was, by its own clock, would take it for newer than it is.
    """
    return passed_us * 1000 // (1000 + clock_drift_max_per_mille) - 2


# -------------------------------------------------------------------------------------------- leases


def lease_duration_us(*, promised_us: int, clock_drift_max_per_mille: int) -> int:
    """Thesis §6.4.1: how long, by the leader's clock, a voter that withholds its vote for so long, by its own, does.

    The voter's clock may be the fastest allowed and the leader's the slowest, and readings are cut to
    microseconds. With the whole time, another could lead, and have acknowledged writes, before it is over.
    """
    return passed_elsewhere_us(passed_us=promised_us, clock_drift_max_per_mille=clock_drift_max_per_mille)


def lease_end_us(voter_sets: VoterSets, promised_until_us: Mapping[NodeId, int]) -> int:
    """Thesis §6.4.1, paper §6: until when a majority of each voter set has promised this leader its votes.

    Any other leader needs a vote of one of them. Judged by the voter sets in force, not by those of the
    round: the majority of an old set says nothing of who is elected by a new one.
    """
    return majority_value(voter_sets, promised_until_us)


def lease_is_held(*, end_us: int, now_us: int, forgone: bool) -> bool:
    """Thesis §6.4.1, §3.10: until its end, and never again in a term in which TimeoutNow was sent.

    Voters do not withhold their votes from a candidate that the leader itself has sent.
    """
    return now_us < end_us and not forgone


def vote_may_be_promised(*, saved_term: int, leases: bool) -> bool:
    """Thesis §6.4.1 with §4.2.3: a voter that starts again may have answered a leader right before it stopped.

    It counts its start as having heard one. Without it a lease would rest on a promise that was forgotten.
    A voter that has never known a term has answered nobody.
    """
    return leases and saved_term > 0


# ------------------------------------------------------------------------------------------ in office


def leader_loses_its_majority_at_us(
    voter_sets: VoterSets, last_contact_us: Mapping[NodeId, int], *, election_timeout_us: int
) -> int:
    """Thesis §6.2: a leader that hears no majority for E steps down; then, if nobody else is heard until then.

    Without it clients would wait for ever at a leader that can commit nothing. Who was never heard counts as silent
    since before time began.
    """
    return majority_value(voter_sets, last_contact_us, missing=-election_timeout_us) + election_timeout_us


def disk_has_stalled(*, oldest_write_us: int, now_us: int, election_timeout_us: int) -> bool:
    """Paper §5.6 read for disks: a leader whose own write takes longer than E is no leader for clients.

    Its heartbeats go out all the same, so nobody else would ever replace it.
    """
    return now_us - oldest_write_us > election_timeout_us


def transfer_target_is_ready(*, target_match: Index, our_last_index: Index) -> bool:
    """Thesis §3.10: TimeoutNow goes out once the target's log is as long as the leader's.

    Sent earlier, the election restriction would have the target lose, and writes would stop for nothing.
    """
    return target_match == our_last_index


# ---------------------------------------------------------------------------------------- membership


def change_is_running(configuration: Configuration, *, is_committed: bool) -> bool:
    """Paper §6, thesis §4.3: from the first entry of a change until C_new is committed, or all is as before.

    Without it a second change could begin from a configuration that is undone later: two majorities without a
    common member.
    """
    return not is_committed or configuration.is_joint or bool(membership.joining(configuration.current))


def first_configuration(current: Membership, target: Membership, *, deadline_ms: int | None) -> Configuration:
    """Paper §6, thesis §4.2.1: who is new listens first; then C_old,new. Where the same vote as before, at once.

    Without the first a new server, empty yet, would stop commits. Without C_old,new some would decide by the old
    set while others decide by the new one.
    """
    voters, wanted = ({member.id for member in one.voters} for one in (current, target))
    if wanted - voters:
        return Configuration(membership.learners_first(current, target, deadline_ms=deadline_ms))
    return Configuration(target, outgoing=None if wanted == voters else current)


def next_configuration(configuration: Configuration, *, caught_up: bool, too_late: bool) -> Configuration | None:
    """Paper §6, thesis §4.2.1, of one that is committed: C_new after C_old,new, C_old,new when all have caught up.

    Past the deadline everything is as it was. None: it may stay. Whoever leads asks this, so a change goes on when
    the leader that began it is gone; without it the cluster could stay in joint consensus for ever.
    """
    current = configuration.current
    if configuration.is_joint:
        return Configuration(current)
    if not membership.joining(current):
        return None
    if caught_up:
        return Configuration(membership.when_caught_up(current), outgoing=current)
    return Configuration(membership.given_up(current)) if too_late else None


def configuration_without(configuration: Configuration, node: NodeId) -> Configuration | None:
    """Paper §6, thesis §4.2.1: while ``node`` catches up nobody's vote has changed, so one entry ends the change.

    None: it is nobody who catches up. In joint consensus C_new may decide already; taken back there, two majorities
    without a common member would both have decided.
    """
    joining = membership.joining(configuration.current)
    if configuration.is_joint or node not in joining:
        return None
    return Configuration(membership.called_off(configuration.current, node), called_off=joining)


def learner_has_caught_up(
    *, last_round_us: int | None, this_round_us: int, silent_us: int, election_timeout_us: int
) -> bool:
    """Thesis §4.2.1: its last round of catching up was shorter than E, and nothing since speaks against it.

    A round is what the log held when the round began. Without it a server that lags by hours would vote, and
    the next failure would stop commits for those hours.
    """
    if last_round_us is None or silent_us >= election_timeout_us:
        return False
    return max(last_round_us, this_round_us) < election_timeout_us


def quorum_is_at_risk(voters: Collection[NodeId], in_contact: Collection[NodeId]) -> bool:
    """Paper §6: C_new decides alone in the end, so most of it should be there before it begins.

    Without it a typing error in an address ends the cluster: nobody could commit the entry that mends it.
    """
    return not has_majority((frozenset(voters),), in_contact)


def leader_is_done(*, votes: bool, is_committed: bool) -> bool:
    """Paper §6, thesis §4.2.2: a leader outside C_new steps down when that is committed, no sooner.

    Sooner, a server that knows only C_old could be elected and begin again. Never, and it would lead a cluster that
    it does not belong to.
    """
    return not votes and is_committed


def candidate_was_removed(
    *,
    leader_is_heard: bool,
    left_too: bool,
    is_listed: bool,
    candidates_last: tuple[int, int],
    our_committed: tuple[int, int],
) -> bool:
    """Thesis §4.2.3: a server that missed its removal hears of it from whom it asks for votes.

    Both pairs are (term, index). A candidate whose log goes further than what is committed here may have been added
    there. Who knows that it left too may be all whom the candidate still knows. Without this rule a removed server
    would ask for ever, and its operator never know why.
    """
    return (leader_is_heard or left_too) and not is_listed and candidates_last <= our_committed


# ------------------------------------------------------------------------------------- equal states


def hash_of_a_majority(voter_sets: VoterSets, hashes: Mapping[NodeId, bytes]) -> bytes | None:
    """Paper §5.3, Figure 3 "State Machine Safety": at one index, the hash that a majority of each voter set has.

    Equal logs make equal states. Where a machine or a bit has failed, most are taken to be right; with fewer
    than a majority a lone node, or two that fail alike among five, could call the others wrong.
    """
    for candidate in hashes.values():
        if has_majority(voter_sets, [node for node, state_hash in hashes.items() if state_hash == candidate]):
            return candidate
    return None


def state_is_wrong(*, own: bytes, agreed: bytes) -> bool:
    """Paper Figure 3 "State Machine Safety": another state than a majority's at the same index is wrong.

    Who served it, or led by it, would hand the fault on as an answer.
    """
    return own != agreed


# ---------------------------------------------------------------------------------------- durability


def durable_index_after_truncation(*, durable: Index, truncated_from: Index) -> Index:
    """Paper Figure 2 "persistent state", for a disk that works in the background: what was overwritten is not durable.

    Without it a leader would count, or a follower acknowledge, an old write at the same index.
    """
    return Index(min(durable, truncated_from - 1))


def append_reply_may_leave(*, match: Index, durable: Index) -> bool:
    """Paper §5.3, Figure 2: a follower acknowledges what is on its stable storage.

    Without it a majority could acknowledge an entry, crash, and know nothing of it.
    """
    return match <= durable
