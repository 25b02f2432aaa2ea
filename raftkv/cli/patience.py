"""What is waited for, told to whoever sits at the terminal once that has taken a second; then taken away again."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from rich.status import Status

TOLD_AFTER_S: Final = 1.0


class Patience:
    """While it is entered, and a second after that, standard error shows what is waited for, if it is a terminal."""

    def __init__(self, what: str, *, is_quiet: bool = False) -> None:
        """``is_quiet``: a program reads the answer, errors too, and nothing is told."""
        self._what = what
        self._lock = threading.Lock()
        self._status: Status | None = None
        self._is_over = is_quiet or not sys.stderr.isatty()
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        if not self._is_over:
            self._timer = threading.Timer(TOLD_AFTER_S, self._tell)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._is_over = True
            if self._status is not None:
                self._status.stop()

    def say(self, what: str) -> None:
        """From now on this is what is waited for."""
        with self._lock:
            self._what = what
            if self._status is not None:
                self._status.update(_line(what))

    def _tell(self) -> None:
        # Few commands wait for long, and all would wait for this import.
        from rich.console import Console

        screen = Console(stderr=True)
        with self._lock:
            if not self._is_over and not screen.is_dumb_terminal:
                self._status = screen.status(_line(self._what))
                self._status.start()


def _line(what: str) -> str:
    from rich.markup import escape

    from raftkv.cli.items import printable

    return escape(printable(what).replace("\n", " "))
