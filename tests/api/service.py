"""A replica of one node in memory: the real machine, a leadership that tests set, outcomes that they force."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

from raftkv.api.reports import (
    Diagnostics,
    DiskReport,
    FormationReport,
    LinkReport,
    LoopReport,
    MemberReport,
    SettingsReport,
)
from raftkv.api.service import BackupOpened, BackupOutcome, Health, MemberStatus, Status
from raftkv.kv.commands import Put, encode
from raftkv.kv.machine import KeyValueMachine
from raftkv.members import MembersAre, MembersOutcome, Terms, Wish
from raftkv.outcomes import (
    Answered,
    Applied,
    Consistency,
    Leadership,
    ReadOutcome,
    SnapshotOutcome,
    SnapshotTaken,
    TransferOutcome,
    Transferred,
    WriteOutcome,
)
from raftkv.state_machine import LogEntry

LEADS = Leadership(leads=True, term=7, leader_id="n1", leader_url="http://n1.test:7401")
FOLLOWS = Leadership(leads=False, term=8, leader_id="n2", leader_url="http://n2.test:7402")
LEADERLESS = Leadership(leads=False, term=9, leader_id=None, leader_url=None)

STATUS = Status(
    id="n1",
    cluster_id=bytes(range(16)),
    role="leader",
    term=7,
    leader_id="n1",
    leader_url="http://n1.test:7401",
    commit_index=12,
    applied_index=12,
    last_index=13,
    snapshot_index=0,
    log_bytes=4096,
    revision=5,
    state_hash=0xFEED,
    version="0.1.0",
    uptime_ms=123_456,
    voters=(
        MemberStatus("n1", "http://n1.test:7401", match_index=13, last_contact_ms=0),
        MemberStatus("n2", "http://n2.test:7402", match_index=12, last_contact_ms=40),
        MemberStatus("n3", "http://n3.test:7403"),
    ),
    configuration_index=4,
    learners=(MemberStatus("n4", "http://n4.test:7404", match_index=2, last_contact_ms=9_000),),
)

DIAGNOSTICS = Diagnostics(
    id="n1",
    url="http://n1.test:7401",
    version="0.1.0",
    cluster_id="000102030405060708090a0b0c0d0e0f",
    role="leader",
    term=7,
    leader_id="n1",
    leader_age_ms=0,
    commit_index=12,
    applied_index=12,
    last_index=13,
    durable_index=13,
    state_hash=f"{0xFEED:032x}",
    staleness_ms=40,
    uptime_ms=123_456,
    wall_clock_ms=1_800_000_000_000,
    dead_because=None,
    unready=(),
    disagreeing=(),
    members=(MemberReport("n1", "http://n1.test:7401", "voter", 13, 0),),
    links=(LinkReport("n2", "http://n2.test:7402", True, 40, 900, None, None, None, None),),
    candidates=(),
    disk=DiskReport(True, 3, 200, 900, 900, 0, False, 10**9, 4096),
    leadership=(),
    loop=LoopReport(0, (), 1500),
    formation=FormationReport(True, (), None),
    settings=SettingsReport(300, 100, False),
)


class PiecedSource:
    """A body that comes in pieces, up to where it breaks off."""

    def __init__(self, data: bytes, *, comes_bytes: int | None = None) -> None:
        self.data = data
        self._comes, self._offset = data[:comes_bytes], 0
        self.size_bytes = len(data)
        self.largest_read_bytes = 0
        self.closed_count = 0

    def read(self, bytes_max: int, done: Callable[[bytes], None]) -> None:
        assert not self.closed_count, "nobody reads what is closed"
        self.largest_read_bytes = max(self.largest_read_bytes, bytes_max)
        data = self._comes[self._offset : self._offset + bytes_max]
        self._offset += len(data)
        done(data)

    def close(self) -> None:
        self.closed_count += 1


class FakeService:
    """Satisfies ``raftkv.api.service.Service``."""

    def __init__(self) -> None:
        self.machine = KeyValueMachine()
        self.led = LEADS
        self.now = STATUS
        self.troubles = DIAGNOSTICS
        self.index = 0
        self.stamp_ms = 0
        self.forced_writes: deque[WriteOutcome] = deque()
        """Given to the next writes instead of executing them."""
        self.forced_reads: deque[ReadOutcome] = deque()
        self.forced_transfers: deque[TransferOutcome] = deque()
        self.forced_changes: deque[MembersOutcome] = deque()
        self.changes: list[tuple[Wish, Terms]] = []
        self.forced_snapshots: deque[SnapshotOutcome] = deque()
        self.snapshots: list[int] = []
        self.forced_backups: deque[BackupOutcome] = deque()
        self.backups: list[int] = []
        self.backup = PiecedSource(b"a backup")
        self.holds = False
        """Answers wait in ``held`` until a test lets them go."""
        self.held: list[Callable[[], None]] = []
        self.submitted: list[tuple[bytes, bool]] = []
        self.reads: list[tuple[object, Consistency, int, int | None]] = []
        self.transfers: list[str | None] = []
        self._sessions_count = 0

    def fill(self, values: Mapping[bytes, bytes]) -> None:
        """Puts behind the API's back, as fast as the machine goes."""
        entries = [
            LogEntry(index, self.stamp_ms, encode(Put(key, value)))
            for index, (key, value) in enumerate(values.items(), self.index + 1)
        ]
        self.machine.apply_batch(entries)
        self.index += len(entries)

    def leadership(self) -> Leadership:
        return self.led

    def submit(self, command: bytes, done: Callable[[WriteOutcome], None], *, frees_space: bool = False) -> None:
        self.submitted.append((command, frees_space))
        if self.forced_writes:
            done(self.forced_writes.popleft())
            return
        self.index += 1
        (answer,) = self.machine.apply_batch([LogEntry(self.index, self.stamp_ms, command)])
        applied = Applied(self.index, answer)
        if self.holds:
            self.held.append(lambda: done(applied))
        else:
            done(applied)

    def read(
        self,
        query: object,
        consistency: Consistency,
        done: Callable[[ReadOutcome], None],
        *,
        min_index: int = 0,
        max_staleness_ms: int | None = None,
    ) -> None:
        self.reads.append((query, consistency, min_index, max_staleness_ms))
        if self.forced_reads:
            done(self.forced_reads.popleft())
            return
        used = Consistency.LINEARIZABLE if consistency is Consistency.LEASE else consistency
        staleness_ms = 17 if used is Consistency.STALE else None
        done(Answered(self.index, self.machine.query(query), used, staleness_ms))  # type: ignore[call-overload]

    def status(self) -> Status:
        return self.now

    def diagnostics(self) -> Diagnostics:
        return self.troubles

    def transfer_leadership(self, target: str | None, done: Callable[[TransferOutcome], None]) -> None:
        self.transfers.append(target)
        if self.forced_transfers:
            done(self.forced_transfers.popleft())
        else:
            done(Transferred(target or "n2", "http://n2.test:7402", 8))

    def change_members(self, wish: Wish, terms: Terms, done: Callable[[MembersOutcome], None]) -> None:
        self.changes.append((wish, terms))
        done(self.forced_changes.popleft() if self.forced_changes else MembersAre(changed=True))

    def take_snapshot(self, done: Callable[[SnapshotOutcome], None], *, wait_ms: int) -> None:
        self.snapshots.append(wait_ms)
        done(self.forced_snapshots.popleft() if self.forced_snapshots else SnapshotTaken(12, 4096, changed=True))

    def open_backup(self, done: Callable[[BackupOutcome], None], *, wait_ms: int) -> None:
        self.backups.append(wait_ms)
        if self.backup.closed_count:
            self.backup = PiecedSource(self.backup.data)
        outcome = self.forced_backups.popleft() if self.forced_backups else BackupOpened(12, self.backup)
        if self.holds:
            self.held.append(lambda: done(outcome))
        else:
            done(outcome)

    def new_session_id(self) -> bytes:
        self._sessions_count += 1
        return self._sessions_count.to_bytes(16, "big")

    def set_health(self, health: Health) -> None:
        """What the probes see from now on."""
        self.now = replace(self.now, health=health)
