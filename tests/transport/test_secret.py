"""The file of the peers' secret: whose it may be, who may read it, what it must hold, and that it is never shown."""

from __future__ import annotations

import os
import pickle
import stat
from base64 import b64encode
from pathlib import Path

import pytest

from raftkv.errors import ConfigError
from raftkv.transport.secret import SECRET_BYTES_MAX, PeerSecret, read_peer_secret, why_not_private

SECRET = b"0123456789abcdef" * 2


def found(mode: int, *, uid: int = 0, kind: int = stat.S_IFREG) -> os.stat_result:
    return os.stat_result((kind | mode, 1, 1, 1, uid, 7, 32, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "uid"),
    [
        (0o600, 1000), (0o400, 1000), (0o700, 1000), (0o4600, 1000),
        (0o600, 0), (0o400, 0), (0o440, 0), (0o640, 0),
    ],
)  # fmt: skip
def test_a_private_file_of_ours_or_of_root_is_taken(mode, uid):
    """Kubernetes: root's file, mode 0440, of the group that fsGroup names."""
    assert why_not_private(found(mode, uid=uid), our_uid=1000) is None


@pytest.mark.parametrize(
    ("mode", "uid", "complaint"),
    [
        (0o604, 1000, "everybody"), (0o602, 1000, "everybody"), (0o601, 1000, "everybody"), (0o644, 0, "everybody"),
        (0o444, 0, "everybody"), (0o666, 1000, "everybody"), (0o777, 0, "everybody"),
        (0o640, 1000, "others than its owner"), (0o440, 1000, "others than its owner"),
        (0o620, 1000, "others than its owner"), (0o610, 1000, "others than its owner"),
        (0o660, 0, "others than its owner"), (0o420, 0, "others than its owner"), (0o450, 0, "others than its owner"),
        (0o600, 1001, "belongs to user 1001, neither to root nor to this process's user 1000"),
        (0o400, 65534, "belongs to user 65534"),
    ],
)  # fmt: skip
def test_a_file_that_others_may_read_or_change_is_refused(mode, uid, complaint):
    why = why_not_private(found(mode, uid=uid), our_uid=1000)
    assert why is not None
    assert complaint in why
    assert uid not in (0, 1000) or f"{mode:04o}" in why


def test_another_users_file_is_refused_to_root_too():
    assert "belongs to user 1000" in (why_not_private(found(0o600, uid=1000), our_uid=0) or "")


@pytest.mark.parametrize("kind", [stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_what_is_no_file_is_refused(kind):
    assert why_not_private(found(0o600, kind=kind), our_uid=0) == "is no file"


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_peer_secret(path)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_one_newline_at_the_end_is_no_part_of_the_secret(ending, tmp_path):
    assert read_peer_secret(written(tmp_path / "s", SECRET + ending)).key(b"x") == PeerSecret(SECRET).key(b"x")


def test_whatever_else_is_in_the_file_is(tmp_path):
    for content in (SECRET + b"\n\n", b" " + SECRET, SECRET + b" ", SECRET[:-1] + b"\0"):
        assert read_peer_secret(written(tmp_path / "s", content)).key(b"x") != PeerSecret(SECRET).key(b"x")


@pytest.mark.parametrize("content", [b"", b"\n", b"short", b"x" * 15, b"x" * 15 + b"\n", b"x" * 14 + b"\r\n"])
def test_less_than_128_bits_are_refused_and_told_how_to_make_more(content, tmp_path):
    told = refusal(written(tmp_path / "s", content))
    assert "at least 16" in told
    assert f"openssl rand -hex 32 > {tmp_path / 's'}" in told
    assert content.strip().decode() not in told.replace("openssl", "") or len(content.strip()) < 5


@pytest.mark.parametrize("content", [bytes(32), b" " * 32, b"\n" * 32, bytes(31) + b"\n", bytes(16) + b" \t\r\n" * 4])
def test_a_file_of_zeros_or_blanks_holds_no_secret(content, tmp_path):
    """A file system that crashed leaves zeros of the right length, and anybody can guess those."""
    told = refusal(written(tmp_path / "s", content))
    assert "nothing but zeros or blanks" in told
    assert "openssl rand -hex 32" in told


def test_16_bytes_are_enough_and_a_whole_key_file_is_too_much(tmp_path):
    read_peer_secret(written(tmp_path / "s", b"x" * 16))
    read_peer_secret(written(tmp_path / "s", b"x" * SECRET_BYTES_MAX + b"\n"))
    assert "more than 4096 bytes" in refusal(written(tmp_path / "s", b"x" * (SECRET_BYTES_MAX + 1)))
    assert "more than 4096 bytes" in refusal(written(tmp_path / "s", b"x" * 100_000))


def test_a_link_is_followed_and_its_end_is_what_counts(tmp_path):
    """As a Kubernetes volume has it: the name is a link into a directory that is a link."""
    (tmp_path / "..data_1").mkdir()
    end = written(tmp_path / "..data_1" / "secret", SECRET, 0o400)
    (tmp_path / "..data").symlink_to("..data_1")
    (tmp_path / "secret").symlink_to("..data/secret")
    assert read_peer_secret(tmp_path / "secret").key(b"x") == PeerSecret(SECRET).key(b"x")
    end.chmod(0o404)
    assert f"chmod 600 {tmp_path / 'secret'}" in refusal(tmp_path / "secret")


def test_a_file_that_cannot_be_read_is_told_with_the_way_to_make_one(tmp_path):
    told = refusal(tmp_path / "nowhere")
    assert "No such file" in told
    assert "openssl rand -hex 32" in told
    assert "is no file" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "is no file" in refusal(tmp_path / "pipe"), "and nobody waits for a writer"


@pytest.mark.parametrize("given", [SECRET.hex(), b64encode(SECRET).decode()])
def test_a_secret_that_was_given_in_its_files_place_is_not_shown(given):
    told = refusal(Path(given))
    assert given not in told
    assert "the path of a file is wanted" in told
    assert "openssl rand -hex 32 > FILE" in told


@pytest.mark.parametrize(
    "given", ["peer-secret", "nowhere/peer-secret.txt", "/run/secrets/the.peer.secret.of.our.cluster"]
)
def test_a_path_that_is_wrong_is_shown(given):
    assert given in refusal(Path(given))


def test_the_secret_is_shown_to_nobody():
    secret = PeerSecret(SECRET)
    shown = f"{secret!r} {secret} {[secret]} {vars(type(secret)).get('__dict__')}"
    assert SECRET.decode() not in shown
    assert secret.key(b"x").hex() not in shown
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_every_purpose_has_its_own_key():
    """What joins will be signed with is not what messages are signed with."""
    secret = PeerSecret(SECRET)
    purposes = (b"peers hello", b"peers welcome", b"peers request", b"peers answer", b"join")
    assert len({secret.key(purpose) for purpose in purposes}) == len(purposes)
    assert secret.key(b"join") != PeerSecret(SECRET[1:]).key(b"join")
