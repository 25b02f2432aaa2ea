"""The peers' secret: what every node of a cluster knows and nobody else does.

Told: a file, once, at the start. Tells: a key for each purpose, or what is wrong with the file. It never
shows what it holds: not by ``repr``, not in an error, not to ``pickle``.
"""

from __future__ import annotations

import hmac
import os
import re
import stat
from pathlib import Path
from typing import Final, NoReturn

from raftkv.errors import ConfigError

SECRET_BYTES_MIN: Final = 16
"""128 bits, if they are random; more are as good."""
SECRET_BYTES_MAX: Final = 4096
_MAKE_ONE: Final = "make one with: (umask 077; openssl rand -hex 32 > {path}), and give every node the same file"
_NO_PATH: Final = "the path of a file is wanted, and what was given looks like a secret itself, so it is not shown"
_SECRET_ITSELF: Final = re.compile(r"(?=.*[0-9])[0-9A-Za-z+][0-9A-Za-z+/]{31,}={0,2}")
"""Hexadecimal or base64, as such things are made; hardly the name of a file."""
_BLANK: Final = b"\0 \t\r\n\v\f"
_READABLE_BY_GROUP: Final = stat.S_IRGRP


class PeerSecret:
    """The secret in memory. Keys are derived from it, one for each purpose; it signs nothing itself."""

    __slots__ = ("_bytes",)

    def __init__(self, secret: bytes) -> None:
        assert len(secret) >= SECRET_BYTES_MIN, "the file's reader refuses less"
        self._bytes = secret

    def key(self, purpose: bytes) -> bytes:
        """The key for this purpose: whoever learns it learns neither the secret nor another purpose's key."""
        return hmac.digest(self._bytes, b"raftkv key 1: " + purpose, "sha256")

    def __repr__(self) -> str:
        return "PeerSecret(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


def read_peer_secret(path: Path) -> PeerSecret:
    """The secret in this file, but for one newline at its end; ConfigError says what is wrong, and how it is mended.

    A link is followed, as Kubernetes' volumes need it: what counts is the file behind it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            why = why_not_private(os.fstat(descriptor), our_uid=os.geteuid())
            content = b"" if why else os.read(descriptor, SECRET_BYTES_MAX + 3)
        finally:
            os.close(descriptor)
    except OSError as error:
        if _looks_like_a_secret(path):
            raise ConfigError([f"--peer-secret-file: {_NO_PATH}; {_how_to_make(Path('FILE'))}"]) from None
        raise _refused(path, f"cannot be read: {error.strerror}; {_how_to_make(path)}") from None
    if why is not None:
        raise _refused(path, why.format(path=path))
    content = content.removesuffix(b"\n").removesuffix(b"\r")
    if len(content) < SECRET_BYTES_MIN:
        few = f"holds {len(content)} bytes; a secret has at least {SECRET_BYTES_MIN}"
        raise _refused(path, f"{few}: {_how_to_make(path)}")
    if not content.strip(_BLANK):
        raise _refused(path, f"holds nothing but zeros or blanks, as after a crash: {_how_to_make(path)}")
    if len(content) > SECRET_BYTES_MAX:
        raise _refused(path, f"holds more than {SECRET_BYTES_MAX} bytes; a secret is one line: {_how_to_make(path)}")
    return PeerSecret(content)


def why_not_private(found: os.stat_result, *, our_uid: int) -> str | None:
    """What lets somebody else read or change the file, and how it is mended; None: nothing does.

    Root's own file may be readable by its group: that is how Kubernetes hands a secret to a process that is not
    root (``fsGroup``), and there is no other way.
    """
    if not stat.S_ISREG(found.st_mode):
        return "is no file"
    if found.st_uid not in (our_uid, 0):
        return f"belongs to user {found.st_uid}, neither to root nor to this process's user {our_uid}: chown it"
    mode = stat.S_IMODE(found.st_mode) & 0o777
    allowed = 0o700 | (_READABLE_BY_GROUP if found.st_uid == 0 else 0)
    if mode & ~allowed:
        who = "others than its owner" if not mode & 0o007 else "everybody on this machine"
        return f"has mode {mode:04o}: {who} may read or change it; chmod 600 {{path}}"
    return None


def _how_to_make(path: Path) -> str:
    return _MAKE_ONE.format(path=path)


def _refused(path: Path, why: str) -> ConfigError:
    return ConfigError([f"--peer-secret-file: {path} {why}"])


def _looks_like_a_secret(path: Path) -> bool:
    """Somebody has given what stands in the file in its name's place; that is not to be shown either."""
    return bool(_SECRET_ITSELF.fullmatch(str(path)))
