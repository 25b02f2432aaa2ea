"""Another cluster's state in place of all that a data directory held, in one step, whenever it is killed.

Told: an open directory, a snapshot, whose it is to be. Tells: nothing; afterwards the directory is that node's, and a
start goes on from that snapshot. May never know: where the state comes from.

    snapshot.new        a snapshot being written; nothing of it is used
    replacement         whole, and on stable storage; it counts from the moment when the identity names its cluster
    replaced-by-X-NAME  what was there before cluster X; nobody reads it any more, and it may be deleted

    the snapshot is written ──► the identity is replaced: from here on it is the new cluster's ──► what was there before
    gets other names, and the snapshot its own ──► done

Before the identity is replaced nothing has happened: the next start throws the snapshot away. After that every start,
and every further attempt, finishes first what is left (``finish``). The snapshot gets its name last, when what was
there before is durably out of the way: so no start finds the new cluster's identity with no state or with the old one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from raftkv.core.types import ClusterId, SnapshotId
from raftkv.errors import WrongIdentity
from raftkv.storage.directory import Directory
from raftkv.storage.identity import IDENTITY_NAME, Identity, read_identity, store_identity
from raftkv.storage.segments import segment_name, segment_numbers
from raftkv.storage.snapshot_format import SnapshotMeta
from raftkv.storage.snapshot_reading import (
    RECEIVING_PREFIX,
    TEMPORARY_NAME,
    open_unnamed,
    receiving_name,
    snapshot_name,
    snapshots_in,
)
from raftkv.storage.snapshot_writing import discard, write_temporary
from raftkv.storage.snapshots import RESERVE_BYTES

PREPARED_NAME: Final = "replacement"
_IDENTITY_BYTES_MAX: Final = 1024 * 1024


def replace_all(
    directory: Directory,
    identity: Identity,
    meta: SnapshotMeta,
    blocks: Iterable[bytes],
    *,
    reserve_bytes: int = RESERVE_BYTES,
) -> SnapshotId:
    """The directory is that node's, with this state and no log; what it held before has other names.

    ``meta`` is of the identity's cluster, which nobody ever heard of before. What ``blocks`` raises passes through.
    If this raises, or the machine dies, then ``finish`` tells whether it counts: all of it or nothing.
    """
    assert identity.cluster_id == meta.cluster_id, "the state is of the cluster that the node is of"
    assert not identity.log_begun, "the log begins with the snapshot"
    abandon(directory)
    id = write_temporary(directory, meta, blocks, reserve_bytes=reserve_bytes)
    directory.rename(TEMPORARY_NAME, PREPARED_NAME)
    if directory.exists(IDENTITY_NAME):
        _copy_identity(directory, meta.cluster_id)
    directory.sync()
    store_identity(directory, identity)
    finish(directory)
    return id


def finish(directory: Directory) -> bool:
    """Nothing is half replaced: what counts is done, what does not is gone. Whether something was done.

    To be called before anything else looks at the directory's log and snapshots. Raises WrongIdentity if an empty
    directory was to get a state and did not: then it is no empty directory either. DataDamaged if what counts does not
    read back.
    """
    if not directory.exists(PREPARED_NAME):
        return False
    prepared = open_unnamed(directory, PREPARED_NAME)
    prepared.file.close()
    if not directory.exists(IDENTITY_NAME):
        raise WrongIdentity(
            f"a restore into {directory.path} was not finished: run the same raftkv restore again, or empty the "
            "directory"
        )
    cluster_id = prepared.meta.cluster_id
    if read_identity(directory).cluster_id != cluster_id:
        abandon(directory)
        return False
    _put_aside(directory, cluster_id)
    directory.sync()
    directory.rename(PREPARED_NAME, snapshot_name(prepared.id))
    directory.sync()
    return True


def abandon(directory: Directory) -> None:
    """A snapshot that was prepared and does not count is gone."""
    discard(directory, PREPARED_NAME)
    discard(directory, TEMPORARY_NAME)
    directory.sync()


def aside_name(cluster_id: ClusterId, name: str) -> str:
    """What a file is called that the state of this cluster has replaced."""
    return f"replaced-by-{cluster_id.hex()[:8]}-{name}"


def _put_aside(directory: Directory, cluster_id: ClusterId) -> None:
    """No log and no snapshot is there but the prepared one."""
    old = [segment_name(number) for number in segment_numbers(directory)]
    old += [snapshot_name(id) for id in snapshots_in(directory)]
    for name in old:
        directory.rename(name, aside_name(cluster_id, name))
    for id in snapshots_in(directory, RECEIVING_PREFIX):
        discard(directory, receiving_name(id))


def _copy_identity(directory: Directory, cluster_id: ClusterId) -> None:
    name = aside_name(cluster_id, IDENTITY_NAME)
    discard(directory, name)
    old = directory.open(IDENTITY_NAME)
    try:
        data = old.pread(_IDENTITY_BYTES_MAX, offset=0)
    finally:
        old.close()
    copy = directory.create(name)
    try:
        copy.pwrite(data, offset=0)
        copy.sync()
    finally:
        copy.close()
