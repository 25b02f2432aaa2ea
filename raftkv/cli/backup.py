"""``backup``: a copy of the whole store, proved byte by byte while it comes."""

from __future__ import annotations

import contextlib
import http.client
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from raftkv.cli.answers import decided, unlike_ours
from raftkv.cli.asking import members_known_to, split_location
from raftkv.cli.commands import command
from raftkv.cli.diagnosis.finding import plural
from raftkv.cli.exchange import Answer, BrokenOff, NotSent
from raftkv.cli.failures import CommandFailed, Refused, Unreachable
from raftkv.cli.items import printable
from raftkv.cli.options import Shared, print_json, shared_options
from raftkv.cli.patience import Patience
from raftkv.errors import DataError, SnapshotError

if TYPE_CHECKING:
    from rich.progress import Progress

    from raftkv.storage.snapshot_proving import Proved

TARGET: Final = "/v1/admin/backup"
REDIRECTS_MAX: Final = 3
CONNECT_TIMEOUT_S: Final = 2.0
WAIT_MS: Final = 20_000
"""So long a node keeps the request while it writes the snapshot that it is to send; then it is asked again."""
STALL_S: Final = 30.0
"""So long may nothing come before the node is taken for gone."""
UNDER_WAY: Final = "too_stale"
"""A node's code while it writes that snapshot; it is patiently waited for."""
PIECE_BYTES: Final = 1024 * 1024
PAUSE_S: Final = 0.2
_ASK_AGAIN: Final = frozenset({"no_leader", "not_leader", "too_stale", "overloaded", "shutting_down", "read_timeout"})
_REFUSAL_BYTES_MAX: Final = 1024 * 1024
_MIB: Final = 1024 * 1024


@command(
    examples=(
        "raftkv backup monday.backup",
        "raftkv backup monday.backup --force --output json",
        "raftkv backup - | gzip > monday.backup.gz",
    )
)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--force", is_flag=True, help="Also over a file that is there.")
@shared_options
def backup(file: Path, options: Shared, *, force: bool) -> None:
    """Copy the whole store into a file, while it serves.

    FILE gets everything that was acknowledged before this began, keys and sessions, as of one moment; `-` is standard
    output. Every byte is proved as it comes, and FILE has its name only once it is whole and on the disk. The leader
    sends it, no faster than its --snapshot-bytes-per-s. `raftkv restore` makes a cluster of it.
    """
    to_stdout = str(file) == "-"
    if to_stdout and sys.stdout.isatty():
        raise CommandFailed("a backup is no text for a terminal: name a file, or send it into a pipe.")
    if not to_stdout:
        _refuse_file(file, force=force)
    with _opened(options) as opened, _target(file, force=force, to_stdout=to_stdout) as write:
        proved = _copied(opened, write, options)
    said = _facts(proved, opened.url)
    if to_stdout:
        return  # whoever reads the backup there must find nothing else
    if options.wants_json:
        print_json({"file": str(file), **said})
    else:
        click.echo(_line(file, said))


def _refuse_file(file: Path, *, force: bool) -> None:
    if file.is_dir():
        raise CommandFailed(f"{file} is a directory: name a file in it.")
    if not file.parent.is_dir():
        raise CommandFailed(f"there is no directory {file.parent}: make it first, or name another.")
    if file.exists() and not force:
        raise CommandFailed(f"{file} is there already, and was left as it is. Name another file, or say --force.")


@contextlib.contextmanager
def _target(file: Path, *, force: bool, to_stdout: bool) -> Iterator[Callable[[bytes], object]]:
    """Takes what is written; the file has its name at the end, when all is on the disk. Else nothing is left of it."""
    if to_stdout:
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            yield out.write
            out.flush()
            os.fsync(out.fileno())
        _refuse_file(file, force=force)
        os.replace(partial, file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _copied(opened: _Download, write: Callable[[bytes], object], options: Shared) -> Proved:
    """Everything is written, and was as the node had it."""
    from raftkv.storage.snapshot_proving import SnapshotProof

    proof = SnapshotProof(opened.size_bytes, path=f"the backup from {opened.url}")
    try:
        with _progress(opened.size_bytes, is_quiet=options.wants_json) as advance:
            left_bytes = opened.size_bytes
            while left_bytes:
                data = opened.read(min(left_bytes, PIECE_BYTES))
                if not data:
                    break
                proof.add(data)
                write(data)
                left_bytes -= len(data)
                advance(len(data))
        return proof.finish()
    except (OSError, http.client.HTTPException) as error:
        if (
            isinstance(error, OSError)
            and error.filename is None
            and not isinstance(error, ConnectionError | TimeoutError)
        ):
            raise  # of our own file
        raise Unreachable(f"{opened.url} broke off ({error}): there is no backup. Try again.") from error
    except DataError as error:
        raise Unreachable(f"{error}: there is no backup. Try again; if it stays so, ask `raftkv doctor`.") from error


@contextlib.contextmanager
def _progress(size_bytes: int, *, is_quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where somebody watches."""
    if is_quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    bar = _bar()
    task = bar.add_task("backup", total=size_bytes)
    with bar:
        yield lambda count: bar.advance(task, count)


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("backup"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


# ------------------------------------------------------------------------------------------ connections


class _Download:
    """One answer whose body is a backup."""

    def __init__(self, url: str, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self.url, self._connection, self._response = url, connection, response
        self.size_bytes = int(response.getheader("Content-Length") or 0)

    def read(self, size_bytes: int) -> bytes:
        """The next bytes; empty where there are none."""
        return self._response.read(size_bytes)

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def _opened(options: Shared) -> Iterator[_Download]:
    """The leader sends a backup."""
    with Patience("the leader writes a snapshot …", is_quiet=options.wants_json) as patience:
        download = _found(options, patience)
    try:
        yield download
    finally:
        download.close()


def _found(options: Shared, patience: Patience) -> _Download:
    deadline = time.monotonic() + options.patience_s
    urls = options.urls()
    while True:
        why = ""
        for url in urls:
            found = _follow(url)
            if isinstance(found, _Download):
                return found
            if isinstance(found, Answer) and found.code not in _ASK_AGAIN:
                raise _not_given(found)
            if isinstance(found, Answer) and found.code == UNDER_WAY:
                deadline = time.monotonic() + options.patience_s
            why = f"{found.url}: {found.explanation}" if isinstance(found, Answer) else f"{url}: {found}"
            patience.say(f"{printable(why)} …")
        if time.monotonic() >= deadline:
            raise Unreachable(f"nobody gave a backup ({printable(why)}). `raftkv status` shows who leads.")
        time.sleep(PAUSE_S)


def _not_given(answer: Answer) -> CommandFailed:
    try:
        decided(answer)
    except CommandFailed as failure:
        return failure
    return unlike_ours(answer, "it sent no backup")


def _follow(url: str) -> _Download | Answer | str:
    """The backup, or whatever stands at the end of the redirects that start here; in words: nobody answers."""
    target = f"{TARGET}?wait_ms={WAIT_MS}"
    members: frozenset[str] = frozenset()
    for _ in range(REDIRECTS_MAX + 1):
        try:
            found = _asked(url, target)
        except (NotSent, BrokenOff) as error:
            return str(error)
        if isinstance(found, _Download) or found.status != 307:
            return found
        members = members or members_known_to(found.url, CONNECT_TIMEOUT_S)
        url, target = split_location(found.headers.get("location", ""))
        if url not in members:
            raise Refused(f"{found.url} points to {url or 'nowhere'}, which is no member of its cluster.")
    return found


def _asked(url: str, target: str) -> _Download | Answer:
    parts = urlsplit(url)
    assert parts.hostname is not None, "URLs are checked where they come in"
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=CONNECT_TIMEOUT_S)
    try:
        connection.connect()
    except OSError as error:
        raise NotSent(error.strerror or str(error)) from error
    try:
        connection.sock.settimeout(WAIT_MS / 1000 + STALL_S)
        connection.request("GET", target)
        response = connection.getresponse()
        if response.status == 200:
            return _Download(url, connection, response)
        body = response.read(_REFUSAL_BYTES_MAX)
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise BrokenOff(str(error) or type(error).__name__) from error
    headers = {name.lower(): value for name, value in response.getheaders()}
    connection.close()
    return Answer(url, response.status, headers, body)


# ----------------------------------------------------------------------------------------------- words


def _facts(proved: Proved, url: str) -> dict[str, Any]:
    from raftkv.kv.snapshot import meta_of

    try:
        meta = meta_of(proved.first_block)
        store: dict[str, int | None] = {"revision": meta.revision, "keys": meta.keys, "sessions": meta.sessions}
    except SnapshotError:
        store = {"revision": None, "keys": None, "sessions": None}
    return {
        "url": url,
        "bytes": proved.id.size_bytes,
        "index": proved.id.index,
        "cluster_id": proved.meta.cluster_id.hex(),
        "state_hash": proved.meta.state_hash[::-1].hex(),
        "checksum": f"{proved.id.checksum:08x}",
        **store,
    }


def _line(file: Path, said: dict[str, Any]) -> str:
    keys = "" if said["keys"] is None else f"{plural(said['keys'], 'key')}, {plural(said['sessions'], 'session')}, "
    return f"{file}: {keys}up to index {said['index']}, {said['bytes'] / _MIB:.1f} MiB, every byte proved"
