"""How a run that failed is told."""

from __future__ import annotations

from collections.abc import Sequence


class RunFailed(AssertionError):
    """Something that must hold did not; ``cause`` says what."""

    def __init__(self, seed: int, *, command: str, cause: Exception, told: Sequence[str], steps: int) -> None:
        self.seed, self.cause, self.steps, self.told = seed, cause, steps, tuple(told)
        lines = (
            f"seed {seed}: {type(cause).__name__}: {cause}",
            f"after {steps} steps; run it again: {command} {seed}",
            "the last that was told:",
            *(f"  {line}" for line in told),
        )
        super().__init__("\n".join(lines))
