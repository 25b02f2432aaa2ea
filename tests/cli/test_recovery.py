"""backup, restore and recover as somebody types them: what they refuse, what they leave, what they say."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from raftkv.cli import recovery
from raftkv.storage.directory import PosixDirectory
from tests.cli.fake_node import FakeNode, Reply, problem, redirect_to
from tests.node.test_recovering import backup_bytes

PATH = "/v1/admin/backup"


@pytest.fixture
def data() -> bytes:
    return backup_bytes()


@pytest.fixture
def leader(node: FakeNode, data: bytes) -> FakeNode:
    node.leads()
    node.on("GET", PATH, Reply(200, data))
    return node


def files() -> list[str]:
    return sorted(os.listdir("."))


class TestBackup:
    def test_is_in_its_file_byte_for_byte(self, run, leader, data):
        ended = run("backup", "b", "--endpoints", leader.url)
        assert (ended.code, ended.err) == (0, "")
        assert ended.text == f"b: 7 keys, 1 session, up to index 20, {len(data) / 2**20:.1f} MiB, every byte proved\n"
        assert (files(), Path("b").read_bytes()) == (["b"], data)
        assert Path("b").stat().st_mode & 0o777 == 0o600

    def test_tells_programs_what_it_is(self, run, leader, data):
        told = json.loads(run("backup", "b", "--output", "json", "--endpoints", leader.url).text)
        assert (told["file"], told["bytes"], told["index"], told["keys"]) == ("b", len(data), 20, 7)
        assert len(told["state_hash"]) == len(told["cluster_id"]) == 32 and len(told["checksum"]) == 8

    def test_can_go_into_a_pipe(self, run, leader, data):
        ended = run("backup", "-", "--output", "json", "--endpoints", leader.url)
        assert (ended.code, ended.out, files()) == (0, data, [])

    def test_leaves_a_file_that_is_there_unless_forced(self, run, leader, data):
        Path("b").write_bytes(b"precious")
        ended = run("backup", "b", "--endpoints", leader.url)
        assert (ended.code, leader.heard, Path("b").read_bytes()) == (4, [], b"precious")
        assert "--force" in ended.err
        assert run("backup", "b", "--force", "--endpoints", leader.url).code == 0
        assert Path("b").read_bytes() == data

    def test_that_fails_leaves_what_was_there(self, run, leader, data):
        Path("b").write_bytes(b"precious")
        leader.on("GET", PATH, Reply(200, data[:-1]))
        assert run("backup", "b", "--force", "--endpoints", leader.url).code == 3
        assert (files(), Path("b").read_bytes()) == (["b"], b"precious")

    @pytest.mark.parametrize("at", [0, 30, 200, -60, -1])
    def test_that_is_damaged_on_its_way_is_none(self, run, leader, data, at):
        wrong = bytearray(data)
        wrong[at] ^= 1
        leader.on("GET", PATH, Reply(200, bytes(wrong)))
        ended = run("backup", "b", "--endpoints", leader.url)
        assert (ended.code, files()) == (3, [])
        assert "there is no backup" in ended.err

    @pytest.mark.parametrize("cut", [0, 1, 100, -1])
    def test_that_is_cut_short_is_none(self, run, leader, data, cut):
        leader.on("GET", PATH, Reply(200, data[:cut]))
        assert (run("backup", "b", "--endpoints", leader.url).code, files()) == (3, [])

    @pytest.mark.parametrize("target", ["missing/b", "."])
    def test_needs_a_place_for_its_file(self, run, leader, target):
        ended = run("backup", target, "--endpoints", leader.url)
        assert (ended.code, leader.heard) == (4, [])

    def test_follows_to_the_leader(self, run, leader, make_node):
        follower = make_node()
        follower.knows(leader, follower)
        follower.on("GET", PATH, redirect_to(leader.url, f"{PATH}?wait_ms=7"))
        assert run("backup", "b", "--endpoints", follower.url).code == 0
        assert [heard.target for heard in leader.heard if PATH in heard.target] == [f"{PATH}?wait_ms=7"]

    def test_follows_to_members_only(self, run, leader, make_node):
        follower = make_node()
        follower.knows(follower)
        follower.on("GET", PATH, redirect_to(leader.url, PATH))
        assert (run("backup", "b", "--endpoints", follower.url).code, leader.heard) == (4, [])

    @pytest.mark.parametrize("code", ["no_leader", "overloaded", "too_stale", "shutting_down"])
    def test_asks_again_for_what_comes_with_time(self, run, leader, data, code):
        leader.on("GET", PATH, problem(503, code), problem(503, code), Reply(200, data))
        assert run("backup", "b", "--endpoints", leader.url).code == 0

    def test_waits_longer_than_its_patience_for_a_snapshot_under_way(self, run, leader, data):
        leader.on("GET", PATH, *[problem(503, "too_stale")] * 3, Reply(200, data))
        assert run("backup", "b", "--timeout", "0.3", "--endpoints", leader.url).code == 0

    def test_gives_up_on_what_does_not(self, run, leader):
        leader.on("GET", PATH, problem(503, "no_leader"))
        ended = run("backup", "b", "--timeout", "0.3", "--endpoints", leader.url)
        assert (ended.code, files()) == (3, []) and "because of no_leader" in ended.err
        leader.on("GET", PATH, problem(507, "disk_full"))
        assert run("backup", "b", "--endpoints", leader.url).code == 4
        assert run("backup", "b", "--timeout", "0.3", "--endpoints", "http://127.0.0.1:1").code == 3


class TestRestore:
    WORDS = ("--id", "n1", "--url", "http://127.0.0.1:7401")

    def test_says_what_to_do_next(self, run, data):
        Path("b").write_bytes(data)
        ended = run("restore", "b", "--data-dir", "new/n1", *self.WORDS)
        assert ended.code == 0
        assert "7 keys, 1 session, revision 42949673" in ended.text
        assert "raftkv serve --id n1 --data-dir new/n1 --url http://127.0.0.1:7401" in ended.text
        assert "--join http://127.0.0.1:7401" in ended.text
        again = run("restore", "b", "--data-dir", "new/n1", *self.WORDS)
        assert again.code == 4 and "not empty" in again.err

    @pytest.mark.parametrize(
        ("words", "code"),
        [
            (("restore", "missing", "--data-dir", "n1", "--id", "n1", "--url", "http://127.0.0.1:1"), 2),
            (("restore", "b", "--data-dir", "n1", "--id", "n/1", "--url", "http://127.0.0.1:1"), 2),
            (("restore", "b", "--data-dir", "n1", "--id", "n1", "--url", "127.0.0.1:1"), 2),
            (("restore", "b", "--data-dir", "n1", "--id", "n1"), 2),
            (("restore", "b", "--data-dir", "n1", "--id", "n1", "--url", "http://127.0.0.1:1"), 4),
        ],
    )
    def test_of_what_cannot_be_meant_makes_nothing(self, run, words, code):
        Path("b").write_bytes(b"no backup at all")
        ended = run(*words)
        assert (ended.code, ended.out, files()) == (code, b"", ["b"])


class TestRecover:
    @pytest.fixture
    def survivor(self, run, data) -> str:
        """A node's directory: that of a restore, which is a cluster like any other."""
        Path("b").write_bytes(data)
        assert run("restore", "b", "--data-dir", "n1", *TestRestore.WORDS).code == 0
        return "n1"

    def test_without_the_flag_changes_nothing_and_says_how_far_the_log_goes(self, run, survivor):
        before = {name: (Path(survivor) / name).read_bytes() for name in os.listdir(survivor)}
        ended = run("recover", "--data-dir", survivor)
        assert ended.code == 0 and "its last entry: index 20, term 3" in ended.text
        assert {name: (Path(survivor) / name).read_bytes() for name in os.listdir(survivor)} == before

    def test_says_what_may_be_lost_and_wants_a_yes(self, run, survivor):
        ended = run("recover", "--data-dir", survivor, "--force-new-cluster")
        assert ended.code == 2 and "May be lost" in ended.err and "--yes" in ended.err
        assert not any("replaced" in name for name in os.listdir(survivor))

    def test_asks_whoever_sits_there(self, run, survivor, monkeypatch):
        monkeypatch.setattr(recovery, "is_attended", lambda: True)
        monkeypatch.setattr("click.confirm", lambda *_, **__: False)
        ended = run("recover", "--data-dir", survivor, "--force-new-cluster")
        assert ended.code == 4 and "May be lost" in ended.err and "nothing was changed" in ended.err
        monkeypatch.setattr("click.confirm", lambda *_, **__: True)
        assert run("recover", "--data-dir", survivor, "--force-new-cluster").code == 0

    def test_does_it_and_says_what_to_do_next(self, run, survivor):
        ended = run("recover", "--data-dir", survivor, "--force-new-cluster", "--yes", "--url", "http://127.0.0.1:9")
        assert ended.code == 0
        assert "raftkv serve --id n1 --data-dir n1 --url http://127.0.0.1:9" in ended.text
        assert "rm n1/replaced-by-*" in ended.text
        assert "May be lost" in ended.err
        assert any(name.startswith("replaced-by-") for name in os.listdir(survivor))

    def test_leaves_a_node_alone_that_runs(self, run, survivor):
        holder = PosixDirectory(survivor)
        ended = run("recover", "--data-dir", survivor, "--force-new-cluster", "--yes")
        assert ended.code == 4 and "Stop that node first" in ended.err
        holder.close()

    def test_makes_nothing_where_no_node_was(self, run):
        ended = run("recover", "--data-dir", "nowhere", "--force-new-cluster", "--yes")
        assert (ended.code, files()) == (2, [])
