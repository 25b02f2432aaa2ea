"""Whose directory this is: node, incarnation, cluster. One small file that people can read.

Told: what to store, through a Directory. Tells: the identity, or DataDamaged, WrongIdentity, UnknownFormat.

An address is no identity, and neither is a name: a node that comes back under its old name with an empty
directory gets another incarnation, and the others know that its promises are gone (faults 31). So the
incarnation is synced before the node speaks, the cluster id and the first configuration before its first
vote. The file is replaced in one step: a temporary one is written and synced, renamed, and the directory
synced; a crash leaves the old one or the new one.

The file is JSON and must be byte for byte what ``encode`` makes: every flipped bit is noticed (faults 58).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any, Final

import google_crc32c

from raftkv.core.types import ID_BYTES, ClusterId, Configuration, Incarnation, Member, Membership, NodeId
from raftkv.errors import DataDamaged, DiskFailed, UnknownFormat, WrongIdentity
from raftkv.storage.directory import Directory, path_of
from raftkv.storage.segments import segment_numbers

FORMAT_VERSION: Final = 1
IDENTITY_NAME: Final = "identity"
TEMPORARY_NAME: Final = "identity.new"

_CHECKSUM = re.compile(rb',\n  "checksum": "([0-9a-f]{8})"\n}\n\Z')
_BYTES_MAX: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Identity:
    """What the file says."""

    node_id: NodeId
    incarnation: Incarnation
    cluster_id: ClusterId | None = None
    """None: this node does not yet know the incarnations of all who are to form its cluster."""
    initial_configuration: Configuration | None = None
    """What the cluster was formed with; None also at a node that joined later."""
    formed: bool = False
    """Every member is known to have stored the cluster id."""
    log_begun: bool = False
    """The log was made: from now on a directory without it is damaged, not fresh."""

    def encode(self) -> bytes:
        """The file's bytes."""
        fields = {
            "format": FORMAT_VERSION,
            "node_id": self.node_id,
            "incarnation": self.incarnation.hex(),
            "cluster_id": None if self.cluster_id is None else self.cluster_id.hex(),
            "initial_voters": _plain_voters(self.initial_configuration),
            "formed": self.formed,
            "log_begun": self.log_begun,
        }
        text = json.dumps(fields, indent=2).removesuffix("\n}").encode()
        return text + b',\n  "checksum": "%08x"\n}\n' % google_crc32c.value(text)


def _plain_voters(configuration: Configuration | None) -> list[dict[str, str]] | None:
    if configuration is None:
        return None
    assert configuration == Configuration(Membership(configuration.current.voters)), "a cluster is formed of voters"
    return [
        {"id": member.id, "incarnation": member.incarnation.hex(), "url": member.url}
        for member in configuration.current.voters
    ]


def decode_identity(data: bytes, *, path: str) -> Identity:
    """The identity in these bytes; DataDamaged if a bit is wrong, UnknownFormat if none is but it is not ours."""
    found = _CHECKSUM.search(data)
    if found is None or int(found[1], 16) != google_crc32c.value(data[: found.start()]):
        raise DataDamaged(path=path, offset=0, why="its checksum does not match")
    try:
        fields = json.loads(data)
        if fields["format"] != FORMAT_VERSION:
            raise UnknownFormat(f"{path} is of format {fields['format']}; this raftkv knows {FORMAT_VERSION}")
        identity = _identity_of(fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataDamaged(path=path, offset=0, why=f"it makes no sense: {error!r}") from error
    if identity.encode() != data:
        raise DataDamaged(path=path, offset=0, why="it is not as raftkv wrote it")
    return identity


def _identity_of(fields: dict[str, Any]) -> Identity:
    cluster_id, voters = fields["cluster_id"], fields["initial_voters"]
    return Identity(
        node_id=NodeId(fields["node_id"]),
        incarnation=Incarnation(bytes.fromhex(fields["incarnation"])),
        cluster_id=None if cluster_id is None else ClusterId(bytes.fromhex(cluster_id)),
        initial_configuration=None if voters is None else Configuration(Membership(tuple(map(_member_of, voters)))),
        formed=bool(fields["formed"]),
        log_begun=bool(fields["log_begun"]),
    )


def _member_of(fields: dict[str, str]) -> Member:
    return Member(NodeId(fields["id"]), Incarnation(bytes.fromhex(fields["incarnation"])), fields["url"])


class IdentityFile:
    """The identity of an open directory, and the few ways in which it may change."""

    __slots__ = ("_directory", "_failure", "_identity")

    def __init__(self, directory: Directory, identity: Identity) -> None:
        self._directory, self._identity = directory, identity
        self._failure: DiskFailed | None = None

    @classmethod
    def open(cls, directory: Directory, *, node_id: NodeId, new_incarnation: Incarnation) -> IdentityFile:
        """The identity that is there, or a new one, synced.

        ``new_incarnation`` is 16 random bytes that an empty directory gets. Raises WrongIdentity if the
        directory is another node's, DataDamaged if it holds a log but nothing says whose.
        """
        assert len(new_incarnation) == ID_BYTES, "an incarnation is 16 random bytes"
        if directory.exists(TEMPORARY_NAME):
            directory.delete(TEMPORARY_NAME)
        if not directory.exists(IDENTITY_NAME):
            return cls._create(directory, Identity(node_id, new_incarnation))
        identity = read_identity(directory)
        if identity.node_id != node_id:
            raise WrongIdentity(f"{directory.path} belongs to node {identity.node_id}, not to {node_id}")
        directory.sync()
        return cls(directory, identity)

    @classmethod
    def _create(cls, directory: Directory, identity: Identity) -> IdentityFile:
        if segment_numbers(directory):
            why = "it is missing, and the directory holds a log"
            raise DataDamaged(path=path_of(directory, IDENTITY_NAME), offset=0, why=why)
        created = cls(directory, identity)
        created._store(identity)
        return created

    @property
    def identity(self) -> Identity:
        """As it is stored."""
        return self._identity

    def store_cluster(self, cluster_id: ClusterId, configuration: Configuration | None) -> None:
        """The cluster is on stable storage; before this returns the node may not vote. It never changes again."""
        known = self._identity.cluster_id
        if known is not None and known != cluster_id:
            raise WrongIdentity(f"{self._directory.path} belongs to cluster {known.hex()}, not to {cluster_id.hex()}")
        if known is None:
            self._store(replace(self._identity, cluster_id=cluster_id, initial_configuration=configuration))

    def store_formed(self) -> None:
        """That every member has stored the cluster id is on stable storage."""
        assert self._identity.cluster_id is not None, "a cluster has an id before it is formed"
        if not self._identity.formed:
            self._store(replace(self._identity, formed=True))

    def store_log_begun(self) -> None:
        """That there is a log is on stable storage."""
        if not self._identity.log_begun:
            self._store(replace(self._identity, log_begun=True))

    def _store(self, identity: Identity) -> None:
        """A store that failed is never tried again, as with the log: the next start tells what was stored."""
        if self._failure is not None:
            raise self._failure
        try:
            _replace(self._directory, identity.encode())
        except DiskFailed as failure:
            self._failure = failure
            raise
        self._identity = identity


def store_identity(directory: Directory, identity: Identity) -> None:
    """The directory is whose this says from now on, on stable storage: for who replaces all that is in it."""
    _replace(directory, identity.encode())


def _replace(directory: Directory, data: bytes) -> None:
    """The identity's file holds this, in one step, on stable storage."""
    if directory.exists(TEMPORARY_NAME):
        directory.delete(TEMPORARY_NAME)
    file = directory.create(TEMPORARY_NAME)
    try:
        file.pwrite(data, offset=0)
        file.sync()
    finally:
        file.close()
    directory.rename(TEMPORARY_NAME, IDENTITY_NAME)
    directory.sync()


def read_identity(directory: Directory) -> Identity:
    """The identity that is stored, for looking only; DataDamaged or UnknownFormat if it cannot be used."""
    file = directory.open(IDENTITY_NAME)
    try:
        data = file.pread(_BYTES_MAX, offset=0)
    finally:
        file.close()
    return decode_identity(data, path=path_of(directory, IDENTITY_NAME))
