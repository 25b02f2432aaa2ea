"""What a node goes on from: which snapshot, and whether the log goes on or starts again. Reads, changes nothing.

Told: where the log stands, the snapshots. Tells: the choice, or DataDamaged.

A snapshot is of what was committed. So one that is ahead of the log, or that the log contradicts, is right, and the log
starts again after it: what the log has instead was promised to nobody, for it is not committed, or is in the snapshot.
(Ahead it is when the machine died between a received snapshot and the log's base record, and when a commit came from
the others before our own sync.) But a log that begins after the newest snapshot lacks what is between them: somebody
lost a file.

If the newest is damaged, the one before stands in, with the log from there on, which has what the damaged one had.
If the log does not reach back to it, nothing is guessed: something that was promised may be gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from raftkv.core.effects import LogBase
from raftkv.core.types import Index
from raftkv.errors import DataDamaged
from raftkv.storage.snapshots import Snapshots, StoredSnapshot
from raftkv.storage.standing import BEGINNING, Standing


class Choice(NamedTuple):
    """How a node goes on."""

    snapshot: StoredSnapshot | None
    """The state machine's; None: it is empty, and the log has everything."""
    resets_log: bool = False
    """The log starts again right after the snapshot."""
    notes: Sequence[str] = ()
    """What an operator should know of."""


def choose(standing: Standing, snapshots: Snapshots | None, *, path: str) -> Choice:
    """The newest sound snapshot that fits the log. DataDamaged if there is none and something is missing.

    ``path`` is that of the log's oldest segment. Every byte of the chosen snapshot was read. None for ``snapshots``:
    nobody keeps any, and the log must have all that its own records say.
    """
    damaged: list[DataDamaged] = []
    for id in [] if snapshots is None else snapshots.candidates:
        assert snapshots is not None
        try:
            found = snapshots.prove(id)
        except DataDamaged as error:
            damaged.append(error)
            continue
        if damaged:
            return _standing_in(standing, found, damaged)
        return Choice(found, resets_log=_is_reset_by(standing, found, path=path))
    return _without(standing, damaged, path=path, begins=standing.base if snapshots is None else BEGINNING)


def _is_reset_by(standing: Standing, found: StoredSnapshot, *, path: str) -> bool:
    """Whether the log does not go on from the newest snapshot, and so starts again there."""
    base, begin = found.meta.base, _begin(standing)
    term = standing.term_at(base.index)
    if base.index < begin or (base.index == begin and term not in (None, base.term)):
        why = f"the log begins after entry {begin}, and the newest snapshot holds only what is up to {base.index}"
        raise DataDamaged(path=path, offset=0, why=why)
    return term != base.term


def _standing_in(standing: Standing, found: StoredSnapshot, damaged: list[DataDamaged]) -> Choice:
    """An older one instead of what is damaged: the log has everything since."""
    base = found.meta.base
    term = standing.term_at(base.index)
    if term != base.term:
        why = f"the snapshot before it, of entry {base.index}, is whole"
        but = f"begins after entry {_begin(standing)}" if term is None else f"has another entry there, of term {term}"
        raise _with(damaged, f"{why}, but the log {but}")
    return Choice(found, notes=[f"{error}; the snapshot of entry {base.index} stands in for it" for error in damaged])


def _without(standing: Standing, damaged: list[DataDamaged], *, path: str, begins: LogBase) -> Choice:
    """No snapshot at all: the log has to begin where it may begin without one."""
    if standing.begin == begins:
        return Choice(None, notes=[f"{error}; the log from its beginning stands in for it" for error in damaged])
    if damaged:
        raise _with(damaged, f"and the log begins after entry {_begin(standing)}")
    if standing.begin == standing.base:
        why = f"the log begins after entry {_begin(standing)}, and no snapshot holds what was before"
    else:
        why = f"entries {standing.base.index + 1} to {_begin(standing)} are missing: an older segment is gone"
    raise DataDamaged(path=path, offset=0, why=why)


def _begin(standing: Standing) -> Index:
    return standing.last_index if standing.begin is None else standing.begin.index


def _with(damaged: list[DataDamaged], why: str) -> DataDamaged:
    """The newest one's damage, with all that stands in the way of going on without it."""
    newest, *others = damaged
    whys = [newest.why, *map(str, others), why]
    return DataDamaged(path=newest.path, offset=newest.offset, why="; ".join(whys))
