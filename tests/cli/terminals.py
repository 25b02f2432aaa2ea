"""A command as it looks on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys


def on_a_terminal(words: list[str], *, columns: int = 80, typed: bytes = b"") -> str:
    """What a command shows on a terminal of this width."""
    main, side = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "LINES": "24", "TERM": "xterm"}
    command = subprocess.Popen(
        [sys.executable, "-m", "raftkv", *words], stdin=side, stdout=side, stderr=side, env=environment
    )
    os.close(side)
    if typed:
        os.write(main, typed)
    shown = b""
    while True:
        try:
            piece = os.read(main, 65_536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    command.wait(timeout=30)
    os.close(main)
    return shown.decode().replace("\r\n", "\n")
