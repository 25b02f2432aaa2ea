"""``recover`` and ``restore``: a new cluster of what is left of an old one.

Both work on a stopped node's directory, and ask no node. ``node/recovering.py`` does it; here is what is said.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raftkv.cli.commands import command
from raftkv.cli.diagnosis.finding import plural
from raftkv.cli.failures import CommandFailed, Unusable
from raftkv.cli.options import Shared, print_json, shared_options
from raftkv.cli.patience import Patience
from raftkv.errors import DirectoryLocked
from raftkv.values import parse_node_id, parse_url

if TYPE_CHECKING:
    from raftkv.node.recovering import Rebuilt, Survivor


@command(
    examples=(
        "raftkv recover --data-dir /var/lib/raftkv/n1",
        "raftkv recover --data-dir /var/lib/raftkv/n1 --force-new-cluster",
        "raftkv recover --data-dir /var/lib/raftkv/n1 --force-new-cluster --yes",
    )
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="What the survivor was started with as --data-dir; it must not run.",
)
@click.option("--force-new-cluster", is_flag=True, help="Do it; without this only what it holds is shown.")
@click.option("--url", metavar="URL", help="Where its peers reach it from now on; else as before.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@shared_options
def recover(data_dir: Path, url: str | None, options: Shared, *, force_new_cluster: bool, yes: bool) -> None:
    """Make a new cluster of one survivor's data.

    For when a majority of the voters is gone for good; while it could come back, wait for it. The survivor becomes a
    cluster of one, with a new id, all that is in its log, the sessions too, and revisions that were never given. What
    only the others had is lost. Without --force-new-cluster it shows where the survivor's log ends, and changes
    nothing: take the survivor whose last entry has the highest term and, among those, the highest index.
    """
    from raftkv.node.recovering import examine, finished
    from raftkv.node.recovering import recover as recover_survivor

    _refuse_no_node(data_dir)
    peer_url = None if url is None else _url(url)
    directory = _locked(data_dir)
    try:
        with Patience(f"reading {data_dir} …", is_quiet=options.wants_json):
            done = finished(directory)
            survivor = None if done is not None else examine(directory)
        if done is not None:
            _show(done, data_dir, options, verb="recovered")
            return
        assert survivor is not None
        if not force_new_cluster:
            _show_survivor(survivor, data_dir, options)
            return
        to_url = peer_url or survivor.url
        if to_url is None:
            raise Unusable(f"{survivor.identity.node_id} was no member in the end. Say where it is reached with --url.")
        if not yes:
            _make_sure(survivor, data_dir)
        elif not options.wants_json:
            click.echo(_warning(survivor, data_dir), err=True)
        with Patience(
            f"executing the log of {data_dir} up to entry {survivor.last_index} …", is_quiet=options.wants_json
        ):
            rebuilt = recover_survivor(survivor, peer_url=to_url)
    finally:
        directory.close()
    _show(rebuilt, data_dir, options, verb="recovered")


@command(
    examples=(
        "raftkv restore monday.backup --data-dir /var/lib/raftkv/n1 \\",
        "    --id n1 --url http://10.0.0.1:7401",
    )
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The new node's; it must be empty, or not be there.",
)
@click.option("--id", "node_id", required=True, metavar="ID", help="The new node's name.")
@click.option("--url", required=True, metavar="URL", help="Where others reach the new node.")
@click.option("--peer-url", metavar="URL", help="Where its peers reach it, if that is another.")
@shared_options
def restore(file: Path, data_dir: Path, node_id: str, url: str, peer_url: str | None, options: Shared) -> None:
    """Make a new cluster of a backup.

    FILE is what `raftkv backup` wrote, or a node's snapshot file. It is proved before anything is made, and the
    directory must be empty. The cluster has one node, a new id, the keys and sessions of the backup, and revisions
    that were never given; other nodes join it with empty directories.
    """
    from raftkv.node.recovering import restore as restore_backup

    try:
        id, to_url = parse_node_id(node_id), _url(url if peer_url is None else peer_url)
        parse_url(url)
    except ValueError as error:
        raise Unusable(f"{error}.") from error
    if not file.is_file():
        raise Unusable(f"there is no file {file}. Give what `raftkv backup` wrote.")
    with Patience(f"reading {file} …", is_quiet=options.wants_json):
        try:
            rebuilt = restore_backup(file, data_dir, node_id=id, peer_url=to_url)
        except DirectoryLocked as error:
            raise _is_running(error) from error
    _show(rebuilt, data_dir, options, verb="restored", url=url)


def _url(said: str) -> str:
    try:
        return parse_url(said)
    except ValueError as error:
        raise Unusable(f"{error}.") from error


def _refuse_no_node(data_dir: Path) -> None:
    """Before the lock is taken: that would make a directory where there is none."""
    from raftkv.storage.identity import IDENTITY_NAME

    if not (data_dir / IDENTITY_NAME).exists():
        raise Unusable(f"{data_dir} is no data directory of a node. Give what the node was started with as --data-dir.")
    owner = os.stat(data_dir).st_uid
    if owner != os.geteuid():
        raise CommandFailed(
            f"{data_dir} belongs to user id {owner}, and the node would not be able to read what another user "
            f"writes there. Run this as that user: sudo -u '#{owner}' raftkv …"
        )


def _locked(data_dir: Path) -> Any:
    from raftkv.storage.directory import PosixDirectory

    try:
        return PosixDirectory(data_dir)
    except DirectoryLocked as error:
        raise _is_running(error) from error


def _is_running(error: DirectoryLocked) -> CommandFailed:
    return CommandFailed(f"{error}. Stop that node first; nothing was changed.", code="directory_locked")


def _facts(survivor: Survivor) -> dict[str, Any]:
    from raftkv.node.recovering import cluster_name

    snapshot = survivor.snapshot
    return {
        "id": survivor.identity.node_id,
        "cluster_id": cluster_name(survivor.identity.cluster_id),
        "voters": list(survivor.configuration.voters()),
        "last_index": survivor.last_index,
        "last_term": survivor.last_term,
        "snapshot_index": 0 if snapshot is None else snapshot.id.index,
        "notes": survivor.notes,
    }


def _in_words(survivor: Survivor, data_dir: Path) -> str:
    facts = _facts(survivor)
    notes = "".join(f"\n  note: {note}" for note in survivor.notes)
    return (
        f"{data_dir} is node {facts['id']} of cluster {facts['cluster_id']}\n"
        f"  voters, as far as it knows: {', '.join(facts['voters']) or 'none'}\n"
        f"  its last entry: index {facts['last_index']}, term {facts['last_term']}"
        f" (snapshot: {facts['snapshot_index'] or 'none'}){notes}"
    )


def _show_survivor(survivor: Survivor, data_dir: Path, options: Shared) -> None:
    if options.wants_json:
        print_json(_facts(survivor))
        return
    click.echo(_in_words(survivor, data_dir))
    click.echo(
        "Nothing was changed. Of several survivors take the one whose last entry has the highest term and, among\n"
        "those, the highest index. Then the same command with --force-new-cluster makes a new cluster of it."
    )


def _warning(survivor: Survivor, data_dir: Path) -> str:
    return (
        f"{_in_words(survivor, data_dir)}\n"
        "It becomes a cluster of its own, with a new id and revisions raised by 4294967296.\n"
        "May be lost: every write that others had and this log has not, also acknowledged ones. Nobody can tell.\n"
        "May appear: writes at the end of this log that were never acknowledged. Whether they were committed cannot\n"
        "be known from here, so all of them are kept.\n"
        "The other nodes of the old cluster can never join with what they hold: keep them stopped, or two clusters\n"
        "answer your clients."
    )


def _make_sure(survivor: Survivor, data_dir: Path) -> None:
    """Asks whoever sits at the terminal; where nobody can answer, --yes must have been said."""
    if not is_attended():
        raise Unusable(
            f"{_warning(survivor, data_dir)}\n"
            "Nothing was changed. Nobody is here to be asked: if that is meant, say --yes."
        )
    click.echo(_warning(survivor, data_dir), err=True)
    if not click.confirm(f"Make a new cluster of {survivor.identity.node_id}?", err=True):
        raise CommandFailed("nothing was changed.", code="declined")


def is_attended() -> bool:
    """Whether somebody could answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _show(rebuilt: Rebuilt, data_dir: Path, options: Shared, *, verb: str, url: str | None = None) -> None:
    from raftkv.node.recovering import cluster_name

    identity = rebuilt.identity
    if options.wants_json:
        print_json(
            {
                "id": identity.node_id,
                "cluster_id": cluster_name(identity.cluster_id),
                "data_dir": str(data_dir),
                "last_index": rebuilt.snapshot.index,
                "revision": rebuilt.revision,
                "keys": rebuilt.keys,
                "sessions": rebuilt.sessions,
                "state_hash": rebuilt.meta.state_hash[::-1].hex(),
                "was_finished": rebuilt.was_finished,
                "notes": list(rebuilt.notes),
            }
        )
        return
    for note in rebuilt.notes:
        click.echo(f"note: {note}")
    if rebuilt.was_finished:
        click.echo("An earlier attempt had done it but for the last steps; those are done now.")
    click.echo(f"{verb}: {data_dir} is node {identity.node_id} of the new cluster {cluster_name(identity.cluster_id)}")
    if rebuilt.revision is not None:
        held = [plural(rebuilt.keys or 0, "key"), plural(rebuilt.sessions or 0, "session")]
        click.echo(f"  {', '.join(held)}, revision {rebuilt.revision}")
    assert identity.initial_configuration is not None
    (me,) = identity.initial_configuration.current.voters
    click.echo("Next:")
    click.echo(f"  raftkv serve --id {identity.node_id} --data-dir {data_dir} --url {url or me.url}")
    click.echo("  # each further node with an empty directory:")
    click.echo(f"  raftkv serve --id ID --data-dir EMPTY --url URL --join {url or me.url}")
    if verb == "recovered":
        click.echo(f"  # once you are sure: what was there before\n  rm {data_dir}/replaced-by-*")
