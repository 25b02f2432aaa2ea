"""http-api "Status and administration": ``GET /v1/admin/backup``, the leader's, a body from a file."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from raftkv.api.aiohttp_front import PIECE_BYTES
from raftkv.api.service import BackupBusy, BackupOutcome
from raftkv.api.settings import ApiSettings
from raftkv.outcomes import (
    ReadTimedOut,
    Refused,
    SnapshotRefused,
    SnapshotUnderWay,
    SnapshotWhy,
    TooStale,
    Why,
)
from tests.api.fronts import AiohttpClient, Client, MakeClient, request_bytes
from tests.api.service import FOLLOWS, LEADERLESS, LEADS, PiecedSource

BACKUP = "/v1/admin/backup"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_it_comes_whole_with_its_length_and_the_index_it_reflects(client: Client) -> None:
    answer = client.ask("GET", BACKUP)
    assert (answer.status, answer.body, answer["Content-Length"]) == (200, b"a backup", "8")
    assert (answer["Content-Type"], answer["Raftkv-Applied-Index"]) == ("application/octet-stream", "12")
    assert client.service.backups == [60_000]
    until(lambda: client.service.backup.closed_count == 1)


def test_a_large_one_comes_in_bounded_pieces(client: Client) -> None:
    data = bytes(range(256)) * 12_000
    client.service.backup = PiecedSource(data)
    assert client.ask("GET", BACKUP).body == data
    assert client.service.backup.largest_read_bytes <= PIECE_BYTES
    until(lambda: client.service.backup.closed_count == 1)


def test_an_empty_one_is_an_answer_too(client: Client) -> None:
    client.service.backup = PiecedSource(b"")
    assert client.ask("GET", BACKUP).body == b""


def test_the_connection_serves_on_after_it(client: Client) -> None:
    client.ask("GET", BACKUP)
    client.service.backup = PiecedSource(b"another")
    assert client.put("a").status == 201
    assert client.ask("GET", BACKUP).body == b"another"


def test_a_follower_names_the_leader(client: Client) -> None:
    client.service.led = FOLLOWS
    answer = client.ask("GET", BACKUP + "?wait_ms=5")
    assert (answer.status, answer.code) == (307, "not_leader")
    assert answer["Location"] == "http://n2.test:7402/v1/admin/backup?wait_ms=5"
    client.service.led = LEADERLESS
    assert client.ask("GET", BACKUP).code == "no_leader"
    assert client.service.backups == []


REFUSALS: list[tuple[BackupOutcome, int, str]] = [
    (BackupBusy(), 429, "overloaded"),
    (SnapshotUnderWay(12), 503, "too_stale"),
    (SnapshotRefused(SnapshotWhy.DISK_FULL, "it is full"), 507, "disk_full"),
    (SnapshotRefused(SnapshotWhy.LOADING, "it loads"), 503, "too_stale"),
    (SnapshotRefused(SnapshotWhy.FAILED, "it failed"), 500, "internal"),
    (Refused(Why.NOT_LEADER, FOLLOWS), 307, "not_leader"),
    (Refused(Why.OVERLOADED, LEADS), 429, "overloaded"),
    (Refused(Why.REPLICAS_DISAGREE, LEADS), 503, "replicas_disagree"),
    (Refused(Why.SHUTTING_DOWN, LEADS), 503, "shutting_down"),
    (TooStale(12, None, is_loading=True), 503, "too_stale"),
    (ReadTimedOut(), 504, "read_timeout"),
]


@pytest.mark.parametrize(("outcome", "status", "code"), REFUSALS, ids=lambda value: str(value)[:40])
def test_where_there_is_none_the_answer_says_why(
    client: Client, outcome: BackupOutcome, status: int, code: str
) -> None:
    client.service.forced_backups.append(outcome)
    answer = client.ask("GET", BACKUP)
    assert (answer.status, answer.code) == (status, code)


@pytest.mark.parametrize("query", ["?wait_ms=-1", "?wait_ms=600001", "?wait_ms=", "?wait=1", "?"])
def test_it_waits_for_a_whole_number_of_milliseconds(client: Client, query: str) -> None:
    assert client.ask("GET", BACKUP + query).status == (200 if query == "?" else 400)


class TestABodyFromASource:
    def test_that_breaks_off_ends_the_connection_before_its_length(self, wired: AiohttpClient) -> None:
        wired.service.backup = PiecedSource(b"x" * 1_000_000, comes_bytes=600_000)
        wire = wired.wire()
        wire.send(request_bytes("GET", BACKUP.encode(), [], None))
        with pytest.raises((AssertionError, ConnectionResetError)):
            wire.receive()
        until(lambda: wired.service.backup.closed_count == 1)

    def test_is_closed_when_its_client_goes_away_midway(self, wired: AiohttpClient) -> None:
        wired.service.backup = PiecedSource(b"x" * 200_000_000)
        wire = wired.wire()
        wire.send(request_bytes("GET", BACKUP.encode(), [], None))
        wire.receive_some()
        wire.reset()
        until(lambda: wired.service.backup.closed_count == 1)

    def test_is_closed_when_its_client_is_gone_before_it_comes(self, wired: AiohttpClient) -> None:
        wired.service.holds = True
        wire = wired.wire()
        wire.send(request_bytes("GET", BACKUP.encode(), [], None))
        until(lambda: len(wired.service.held) == 1)
        wire.reset()
        until(lambda: AiohttpClient.is_gone(wired))
        wired.thread.call(wired.service.held[0])
        until(lambda: wired.service.backup.closed_count >= 1)

    def test_is_cut_off_where_the_client_does_not_read(self, open_wired: MakeClient) -> None:
        wired = open_wired(ApiSettings(send_timeout_ms=200))
        wired.service.backup = source = PiecedSource(b"x" * 200_000_000)
        wire = wired.wire()
        wire.send(request_bytes("GET", BACKUP.encode(), [], None))
        until(lambda: source.closed_count == 1)
        assert source.largest_read_bytes <= PIECE_BYTES
