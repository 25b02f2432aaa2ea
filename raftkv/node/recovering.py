"""New clusters of what an old one left: of a survivor's data directory, or of a backup.

Told: directories, a backup's file, who the node is to be. Tells: what is in them, before anything is changed, and what
was made of it. May never know: who asked, and whether somebody said yes.

What both have in common: the node gets a new incarnation, so the cluster a new id, and whoever is left of the old one
is refused for ever. The revision rises by 2^32: no ETag is given twice, whatever was lost. Keys, sessions and their
stored answers stay. Raft's promises to the old cluster end here; so a survivor's whole log counts, the part too of
which nobody can know whether it was committed: somebody may have had a yes for it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from raftkv import stamps
from raftkv.core.effects import LogBase
from raftkv.core.types import (
    ID_BYTES,
    ClusterId,
    Configuration,
    Incarnation,
    Index,
    Member,
    NodeId,
    SnapshotId,
    Term,
    cluster_id_of,
    membership_of,
)
from raftkv.errors import DataDamaged, SnapshotError, WrongIdentity
from raftkv.kv.answers import Malformed
from raftkv.kv.machine import KeyValueMachine
from raftkv.kv.snapshot import meta_of, raised
from raftkv.storage.choosing import Choice, choose
from raftkv.storage.directory import Directory, PosixDirectory, path_of
from raftkv.storage.format import NO_CONFIGURATION
from raftkv.storage.identity import IDENTITY_NAME, Identity, read_identity
from raftkv.storage.reading import read_entries
from raftkv.storage.recovery import Scan, scan
from raftkv.storage.replacing import PREPARED_NAME, abandon, finish, replace_all
from raftkv.storage.segments import segment_name, segment_numbers
from raftkv.storage.snapshot_format import SnapshotMeta
from raftkv.storage.snapshot_reading import TEMPORARY_NAME, SnapshotFile, open_unnamed
from raftkv.storage.snapshots import RESERVE_BYTES, Snapshots, StoredSnapshot

READ_BYTES: Final = 4 * 1024 * 1024
"""Of the log at a time."""
HASH_BYTES: Final = 16
_STORE_MAGIC: Final = b"raftkv kv"
_LEFTOVERS: Final = frozenset({"lock", PREPARED_NAME, TEMPORARY_NAME, "identity.new"})
"""What a restore that was killed before it counted may leave."""


@dataclass(slots=True)
class Survivor:
    """A stopped node's directory, and what it holds. Nothing was changed in it."""

    identity: Identity
    configuration: Configuration
    """The newest in its log: who was a member, as far as it knows."""
    last_index: Index
    last_term: Term
    snapshot: StoredSnapshot | None
    notes: list[str]
    """What an operator should know of."""
    directory: Directory = field(repr=False)
    log: Scan | None = field(repr=False)

    @property
    def url(self) -> str | None:
        """Where its peers reached it; None: it was no member."""
        member = self.configuration.members().get(self.identity.node_id)
        return None if member is None else member.url


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A directory from which a cluster of its own begins."""

    identity: Identity
    snapshot: SnapshotId
    meta: SnapshotMeta
    revision: int | None
    """As it was raised; None: the state is not the store's."""
    keys: int | None
    sessions: int | None
    was_finished: bool = False
    """All of it was done by an attempt that was killed, but for the last steps."""
    notes: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------- survivors


def examine(directory: Directory) -> Survivor:
    """What a survivor's directory holds, all of it read and proved. Raises DataError where it cannot be used."""
    if not directory.exists(IDENTITY_NAME):
        raise WrongIdentity(f"{directory.path} is no data directory of a node: there is no identity in it")
    identity = read_identity(directory)
    if identity.cluster_id is None:
        raise WrongIdentity(f"{directory.path} never belonged to a cluster: there is nothing to recover")
    log = scan(directory, identity) if segment_numbers(directory) else None
    if log is None and identity.log_begun:
        path = path_of(directory, segment_name(1))
        raise DataDamaged(path=path, offset=0, why="the log is gone, and this node has had one")
    snapshots = Snapshots.open(directory, cluster_id=identity.cluster_id)
    choice = _chosen(directory, log, snapshots)
    goes_on = log is not None and not choice.resets_log
    base = None if choice.snapshot is None else choice.snapshot.meta.base
    if goes_on:
        assert log is not None
        last_index, last_term = log.standing.last_index, log.standing.last_term
        configuration = log.standing.configurations[-1][1]
    else:
        last_index, last_term = (Index(0), Term(0)) if base is None else (base.index, base.term)
        configuration = NO_CONFIGURATION if base is None else base.configuration
    if configuration == NO_CONFIGURATION:
        configuration = identity.initial_configuration or NO_CONFIGURATION
    if last_index == 0:
        raise WrongIdentity(f"{directory.path} holds no entry and no snapshot: there is nothing to recover")
    return Survivor(
        identity=identity,
        configuration=configuration,
        last_index=last_index,
        last_term=last_term,
        snapshot=choice.snapshot,
        notes=list(choice.notes),
        directory=directory,
        log=log if goes_on else None,
    )


def recover(survivor: Survivor, *, peer_url: str, reserve_bytes: int = RESERVE_BYTES) -> Rebuilt:
    """The directory is a one-node cluster's, with a new id and everything that the survivor's log says.

    Killed at any moment, it is as before, or ``finish`` makes it whole. Raises DataError, with nothing changed, where
    the log or the snapshot does not read back, and SnapshotError where they are not the store's.
    """
    machine = KeyValueMachine()
    stamp_ms = _restored(machine, survivor)
    stamp_ms, notes = _replayed(machine, survivor, stamp_ms)
    machine.raise_revision()
    identity, configuration = founded(survivor.identity.node_id, peer_url)
    assert identity.cluster_id is not None
    base = LogBase(survivor.last_index, survivor.last_term, configuration)
    state_hash = machine.state_hash().to_bytes(HASH_BYTES, "little")
    meta = SnapshotMeta(identity.cluster_id, base, stamp_ms, state_hash)
    blocks = machine.capture().blocks()
    first = next(blocks)
    id = replace_all(survivor.directory, identity, meta, _chained(first, blocks), reserve_bytes=reserve_bytes)
    said = meta_of(first)
    return Rebuilt(identity, id, meta, said.revision, said.keys, said.sessions, notes=notes)


def founded(node_id: NodeId, peer_url: str) -> tuple[Identity, Configuration]:
    """A cluster of this node alone, in an incarnation of which nobody has ever heard."""
    incarnation = Incarnation(secrets.token_bytes(ID_BYTES))
    configuration = Configuration(membership_of([Member(node_id, incarnation, peer_url)]))
    cluster_id = cluster_id_of([(node_id, incarnation)])
    return Identity(node_id, incarnation, cluster_id, configuration, formed=True), configuration


def finished(directory: Directory) -> Rebuilt | None:
    """What an earlier attempt had done but for its last steps, which are done now; None: there was none such."""
    if not finish(directory):
        return None
    identity = read_identity(directory)
    stored = Snapshots.open(directory, cluster_id=identity.cluster_id).newest
    assert stored is not None, "it was just put there"
    file = SnapshotFile.open(directory, stored.id, cluster_id=identity.cluster_id)
    try:
        return _rebuilt(identity, stored.id, stored.meta, next(file.blocks(), b""), was_finished=True)
    finally:
        file.file.close()


def _chosen(directory: Directory, log: Scan | None, snapshots: Snapshots) -> Choice:
    if log is not None:
        return choose(log.standing, snapshots, path=path_of(directory, segment_name(log.starts.oldest)))
    newest = snapshots.newest
    return Choice(None if newest is None else snapshots.prove(newest.id))


def _restored(machine: KeyValueMachine, survivor: Survivor) -> int:
    """The machine holds the snapshot, if there is one; cluster time as of it."""
    stored = survivor.snapshot
    if stored is None:
        return 0
    file = SnapshotFile.open(survivor.directory, stored.id, cluster_id=stored.meta.cluster_id)
    try:
        loading = machine.loading()
        for block in file.blocks():
            loading.add(block)
        loading.finish()
    finally:
        file.file.close()
    return stored.meta.stamp_ms


def _replayed(machine: KeyValueMachine, survivor: Survivor, stamp_ms: int) -> tuple[int, tuple[str, ...]]:
    """The machine has executed the log to its end; cluster time then, and what should be known of it."""
    log = survivor.log
    if log is None:
        return stamp_ms, ()
    first = Index(1 if survivor.snapshot is None else survivor.snapshot.id.index + 1)
    commands_count = malformed_count = 0
    while first <= survivor.last_index:
        found = read_entries(survivor.directory, log.index, first=first, last=survivor.last_index, bytes_max=READ_BYTES)
        entries, _, stamp_ms = stamps.entries(found, first, time_ms=stamp_ms)
        malformed_count += sum(type(answer) is Malformed for answer in machine.apply_batch(entries))
        commands_count += len(entries)
        first = Index(first + len(found))
    if malformed_count and malformed_count == commands_count and survivor.snapshot is None:
        raise SnapshotError(
            "none of the commands in this log is the key-value store's: it replicates another state machine, which "
            "this command does not know"
        )
    if malformed_count:
        return stamp_ms, (f"{malformed_count} commands in the log are none that this version knows: they do nothing",)
    return stamp_ms, ()


# --------------------------------------------------------------------------------------------- backups


def restore(
    backup: Path, data_dir: Path, *, node_id: NodeId, peer_url: str, reserve_bytes: int = RESERVE_BYTES
) -> Rebuilt:
    """A one-node cluster of what the backup holds, in an empty directory.

    The backup is proved before anything is made. Raises DataDamaged, UnknownFormat or SnapshotError where it is none,
    or none of this version, WrongIdentity where the directory is not empty; then nothing was changed.
    """
    whole = backup.resolve()
    source = PosixDirectory.read_only(whole.parent)
    try:
        file = open_unnamed(source, whole.name)
        try:
            file.prove()
            refuse_unknown(next(file.blocks(), b""))
            refuse_used(data_dir)
            directory = PosixDirectory(data_dir)
            try:
                return restore_into(directory, file, node_id=node_id, peer_url=peer_url, reserve_bytes=reserve_bytes)
            finally:
                directory.close()
        finally:
            file.file.close()
    finally:
        source.close()


def refuse_unknown(first_block: bytes) -> None:
    """Raises SnapshotError for a state of the store that this version cannot read; another machine's is its own."""
    if _STORE_MAGIC in first_block[:16]:
        meta_of(first_block)


def restore_into(
    directory: Directory, file: SnapshotFile, *, node_id: NodeId, peer_url: str, reserve_bytes: int = RESERVE_BYTES
) -> Rebuilt:
    """The directory, which holds nothing or what a killed attempt left, is that node's, with what the file holds."""
    done = finished(directory) if directory.exists(IDENTITY_NAME) else None
    if done is not None:
        if done.identity.node_id != node_id:
            raise WrongIdentity(f"{directory.path} was restored as node {done.identity.node_id}, not as {node_id}")
        return done
    abandon(directory)
    identity, configuration = founded(node_id, peer_url)
    assert identity.cluster_id is not None
    blocks = file.blocks()
    first = next(blocks, b"")
    base = replace(file.meta.base, configuration=configuration)
    meta = replace(file.meta, cluster_id=identity.cluster_id, base=base)
    if _STORE_MAGIC in first[:16]:
        first = raised(first)
        meta = replace(meta, state_hash=meta_of(first).state_hash.to_bytes(HASH_BYTES, "little"))
    id = replace_all(directory, identity, meta, _chained(first, blocks), reserve_bytes=reserve_bytes)
    return _rebuilt(identity, id, meta, first)


def refuse_used(data_dir: Path) -> None:
    """Raises WrongIdentity unless nothing is in the directory but what a killed restore left."""
    try:
        names = {entry.name for entry in os.scandir(data_dir)}
    except FileNotFoundError:
        return
    if PREPARED_NAME in names and names <= _LEFTOVERS | {IDENTITY_NAME}:
        return
    if not names <= _LEFTOVERS:
        shown = ", ".join(sorted(names - _LEFTOVERS)[:3])
        raise WrongIdentity(f"{data_dir} is not empty (it holds {shown}): a restore never touches what is there")


def _rebuilt(
    identity: Identity, id: SnapshotId, meta: SnapshotMeta, first: bytes, *, was_finished: bool = False
) -> Rebuilt:
    if _STORE_MAGIC not in first[:16]:
        return Rebuilt(identity, id, meta, None, None, None, was_finished)
    said = meta_of(first)
    return Rebuilt(identity, id, meta, said.revision, said.keys, said.sessions, was_finished)


def _chained(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def cluster_name(cluster_id: ClusterId | None) -> str:
    """As people see it."""
    return "none" if cluster_id is None else cluster_id.hex()
