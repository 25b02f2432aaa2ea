"""What a log amounts to, one operation after the other: term, vote, base, term runs, configurations.

Told: operations in their order. Tells: where the log stands after them, or Inconsistent where no Raft node
can have written one. Recovery rebuilds it from disk, the writer carries it on, so both keep one set of
rules. Pure; holds no entry.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from raftkv.core.effects import LogBase
from raftkv.core.types import Configuration, Index, NodeId, Term
from raftkv.errors import MessageError
from raftkv.storage.format import NO_CONFIGURATION
from raftkv.storage.operations import Append, Operation, Truncate, Vote

NO_ENTRY = Index(0)
NO_TERM = Term(0)
BEGINNING = LogBase(NO_ENTRY, NO_TERM, NO_CONFIGURATION)


class Inconsistent(Exception):
    """An operation that cannot follow those before it; never leaves this room."""


@dataclass(slots=True)
class Standing:
    """The variables of Figure 2 that are persistent, without the entries themselves."""

    term: Term = NO_TERM
    voted_for: NodeId | None = None
    base: LogBase = BEGINNING
    """The last that was recorded; what the headers of segments repeat."""
    begin: LogBase | None = BEGINNING
    """The log begins right after this entry: the base, or a later one where older segments are gone.

    None: they are gone, and nothing has followed yet. The first entry that does is where the log begins, for its term
    is known; what is before it stands in a snapshot anyway.
    """
    last_index: Index = NO_ENTRY
    term_runs: list[tuple[Index, Term]] = field(default_factory=list)
    """First index and term of each run of equal terms after ``begin``, in order."""
    configurations: list[tuple[Index, Configuration]] = field(default_factory=lambda: [(NO_ENTRY, NO_CONFIGURATION)])
    """That where the log begins, and every one that stands in it after that; the last is in force (paper §6)."""

    @property
    def last_term(self) -> Term:
        """Of the last entry; that of ``begin`` where there is none after it."""
        if self.term_runs:
            return self.term_runs[-1][1]
        return NO_TERM if self.begin is None else self.begin.term

    def term_at(self, index: Index) -> Term | None:
        """Of the entry there, or right before the first; None: it is not in the log."""
        if self.begin is not None and index == self.begin.index:
            return self.begin.term
        if self.begin is None or not self.begin.index < index <= self.last_index:
            return None
        return self.term_runs[bisect_right(self.term_runs, index, key=_first_of) - 1][1]

    def begin_after(self, index: Index) -> None:
        """The log begins right after this entry, which is in it."""
        at = bisect_right(self.term_runs, index, key=_first_of) - 1
        term = self.term_runs[at][1]
        next_first = self.term_runs[at + 1][0] if at + 1 < len(self.term_runs) else self.last_index + 1
        rest = [] if next_first == index + 1 else [(Index(index + 1), term)]
        self.term_runs[: at + 1] = rest
        while len(self.configurations) > 1 and self.configurations[1][0] <= index:
            del self.configurations[0]
        self.begin = LogBase(index, term, self.configurations[0][1])

    def apply(self, operation: Operation) -> None:
        """The log stands as after this operation; Inconsistent, in an unknown state, if it cannot be."""
        match operation:
            case Append():
                self._append(operation)
            case Vote(term, voted_for):
                self._vote(term, voted_for)
            case Truncate(first):
                self._truncate(first)
            case LogBase():
                self._reset(operation)

    def _vote(self, term: Term, voted_for: NodeId | None) -> None:
        """Paper §5.1, §5.2: the term never falls, and a vote once given in it stays."""
        if term < self.term:
            raise Inconsistent(f"the term falls from {self.term} to {term}")
        if term == self.term and self.voted_for not in (None, voted_for):
            raise Inconsistent(f"a second vote in term {term}: {voted_for} after {self.voted_for}")
        self.term, self.voted_for = term, voted_for

    def _reset(self, base: LogBase) -> None:
        if base.term > self.term:
            raise Inconsistent(f"a base of term {base.term} in term {self.term}")
        self.base, self.begin, self.last_index = base, base, base.index
        self.term_runs = []
        self.configurations = [(base.index, base.configuration)]

    def _truncate(self, first: Index) -> None:
        begin = self.last_index if self.begin is None else self.begin.index
        if not begin < first <= self.last_index + 1:
            raise Inconsistent(f"a truncation at {first} of a log from {begin + 1} to {self.last_index}")
        self.last_index = Index(first - 1)
        while self.term_runs and self.term_runs[-1][0] >= first:
            self.term_runs.pop()
        while len(self.configurations) > 1 and self.configurations[-1][0] >= first:
            self.configurations.pop()

    def _append(self, append: Append) -> None:
        for first, term, count in append.runs:
            if first != self.last_index + 1:
                raise Inconsistent(f"entry {first} comes after entry {self.last_index}")
            if term > self.term:
                raise Inconsistent(f"entry {first} is of term {term}, the node only of term {self.term}")
            if term < self.last_term:
                raise Inconsistent(f"entry {first} is of term {term}, the one before of term {self.last_term}")
            if term != self.last_term or not self.term_runs:
                self.term_runs.append((first, term))
            self.last_index = Index(first + count - 1)
        for index, packed in append.configurations:
            try:
                self.configurations.append((index, Configuration.decode(packed)))
            except MessageError as error:
                raise Inconsistent(f"entry {index}: {error}") from error
        if self.begin is None and append.runs:
            self.begin_after(append.runs[0].first)


def _first_of(run: tuple[Index, Term]) -> Index:
    return run[0]
