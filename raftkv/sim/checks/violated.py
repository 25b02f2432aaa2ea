"""How a checker says that something is not as it must be."""

from __future__ import annotations


class Violated(AssertionError):
    """A property that must hold did not."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        super().__init__(f"{name}: {text}")
