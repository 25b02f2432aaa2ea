"""All rules, and how their findings become a diagnosis. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from raftkv.cli.diagnosis import agreement, identity, members, presence, troubles
from raftkv.cli.diagnosis.case import Case, case_of
from raftkv.cli.diagnosis.evidence import Evidence
from raftkv.cli.diagnosis.finding import (
    EXIT_NOBODY,
    EXIT_WELL,
    EXIT_WRONG,
    Diagnosis,
    Finding,
    Weight,
    sorted_findings,
)

Rule = Callable[[Case], Iterator[Finding]]

CAUSES: Final[tuple[Rule, ...]] = (
    presence.nobody_answers,
    identity.states_differ,
    identity.endpoints_of_two_clusters,
    presence.never_formed,
    presence.too_few_work,
    presence.links_leave_no_leader,
    identity.twins,
    identity.strangers_at_members_addresses,
    identity.emptied_nodes,
    identity.secrets_differ,
    presence.nodes_have_halted,
    presence.nodes_are_gone,
    presence.outsiders,
    members.do_not_catch_up,
    members.were_removed,
    members.wait_outside,
    troubles.cut_links,
    troubles.flapping_links,
    troubles.refusals,
    troubles.hanging_disks,
    troubles.full_disks,
    troubles.no_snapshots,
    troubles.slow_disks,
    troubles.stalling_loops,
    troubles.changing_leadership,
    troubles.little_room,
    agreement.settings_differ,
    agreement.clocks_differ,
    agreement.versions_differ,
    agreement.voters_are_few_or_even,
)
"""What explains; each is told whatever else is found."""
SYMPTOMS: Final[tuple[Rule, ...]] = (
    presence.no_leader,
    members.changes_hang,
    troubles.lagging_followers,
    troubles.not_ready,
)
"""What is told only of nodes that no cause is about."""


def diagnose(evidence: Evidence) -> Diagnosis:
    """What is wrong, that which explains most first; if nothing is, that is said."""
    case = case_of(evidence)
    found = [finding for rule in CAUSES for finding in rule(case)]
    blamed = {id for finding in found if finding.is_wrong for id in finding.about}
    for rule in SYMPTOMS:
        for finding in rule(case):
            if not blamed.intersection(finding.about):
                found.append(finding)
                blamed.update(finding.about)
    if not case.views and not case.strangers:
        return Diagnosis(sorted_findings(found), EXIT_NOBODY)
    if any(finding.is_wrong for finding in found):
        return Diagnosis(sorted_findings(found), EXIT_WRONG)
    well = Finding("all_is_well", Weight.NOTICE, agreement.all_is_well(case))
    return Diagnosis((well, *sorted_findings(found)), EXIT_WELL)
