"""What somebody who is woken at night should read first. Pure.

A finding is one sentence of cause, what was seen of it, and what to do. They are sorted by what explains most: a dead
disk explains a leader that is gone, never the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

EXIT_WELL: Final = 0
EXIT_WRONG: Final = 4
EXIT_NOBODY: Final = 3


class Weight(IntEnum):
    """How much a finding explains."""

    NOBODY_ANSWERS = 1000
    STATES_DISAGREE = 950
    TWO_CLUSTERS = 900
    NOT_FORMED = 850
    NO_LEADER = 800
    TWINS = 760
    IDENTITY = 750
    SECRET = 740
    NODE_FAILED = 730
    NODE_GONE = 700
    CUT_OFF = 660
    DISK_HANGS = 650
    DISK_FULL = 640
    LINK_CUT = 620
    LINK_FLAPS = 610
    DISK_SLOW = 500
    LOOP_STALLS = 480
    CATCHES_UP_BADLY = 470
    CHANGE_HANGS = 460
    LAG = 450
    NO_SNAPSHOTS = 430
    NOT_FORMED_FOR_THAT = 410
    """Not formed yet, for a reason that is a finding of its own."""
    LEADERSHIP_CHANGES = 400
    OUT_OF_REACH = 350
    """The way from here, not the cluster, is to blame."""
    SETTINGS_DIFFER = 300
    NOT_READY = 200
    WRONG_ENDPOINT = 150
    CLOCKS_DIFFER = 100
    NOTICE = 0
    """Nothing is wrong; worth knowing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or worth knowing."""

    name: str
    """For programs: snake_case, never changed."""
    weight: Weight
    headline: str
    """One sentence that names the cause."""
    seen: tuple[str, ...] = ()
    """The evidence, a line each."""
    do: tuple[str, ...] = ()
    """What to do, a line each; commands as they are typed stand in backticks."""
    about: tuple[str, ...] = ()
    """The nodes that are to blame."""

    @property
    def is_wrong(self) -> bool:
        """Not only worth knowing."""
        return self.weight is not Weight.NOTICE


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, that which explains most first."""

    findings: tuple[Finding, ...]
    exit_code: int

    @property
    def wrong(self) -> tuple[Finding, ...]:
        """What is not as it should be."""
        return tuple(finding for finding in self.findings if finding.is_wrong)

    @property
    def notices(self) -> tuple[Finding, ...]:
        """What is worth knowing."""
        return tuple(finding for finding in self.findings if not finding.is_wrong)


def sorted_findings(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """By weight, then as they were found."""
    return tuple(sorted(found, key=lambda finding: -finding.weight))


# -------------------------------------------------------------------------------------------- words


def listed(words: Sequence[str], *, last: str = "and") -> str:
    """``n1, n2 and n3``."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def plural(count: int, word: str, words: str | None = None) -> str:
    """``1 voter``, ``3 voters``."""
    return f"{count:,} {word if count == 1 else words or word + 's'}"


def verb(subjects: Sequence[str], word: str) -> str:
    """The verb as the number of its subjects demands: ``runs``, ``run``."""
    irregular = {"do": "does", "have": "has", "reach": "reaches"}
    return irregular.get(word, f"{word}s") if len(subjects) == 1 else word


def span(milliseconds: float) -> str:
    """A length of time in one unit, as somebody would say it."""
    if milliseconds < 1:
        return f"{milliseconds * 1000:.0f} µs"
    if milliseconds < 1000:
        return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def ago(milliseconds: int | None) -> str:
    """Since when."""
    return "never" if milliseconds is None else f"{span(milliseconds)} ago"
