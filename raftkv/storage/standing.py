"""What a log amounts to, one operation after the other: term, vote, base, term runs, configurations.

Told: operations in their order. Tells: where the log stands after them, or Inconsistent where no Raft node
can have written one. Recovery rebuilds it from disk, the writer carries it on, so both keep one set of
rules. Pure; holds no entry.
"""

from __future__ import annotations

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
    last_index: Index = NO_ENTRY
    term_runs: list[tuple[Index, Term]] = field(default_factory=list)
    """First index and term of each run of equal terms after the base, in order."""
    configurations: list[tuple[Index, Configuration]] = field(default_factory=lambda: [(NO_ENTRY, NO_CONFIGURATION)])
    """The base's, and every one that stands in the log after it; the last is in force (paper §6)."""

    @property
    def last_term(self) -> Term:
        """Of the last entry; the base's where there is none after it."""
        return self.term_runs[-1][1] if self.term_runs else self.base.term

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
        self.base, self.last_index = base, base.index
        self.term_runs = []
        self.configurations = [(base.index, base.configuration)]

    def _truncate(self, first: Index) -> None:
        if not self.base.index < first <= self.last_index + 1:
            raise Inconsistent(f"a truncation at {first} of a log from {self.base.index + 1} to {self.last_index}")
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
