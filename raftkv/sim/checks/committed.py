"""What was executed, index by index, and every acknowledgement held against it: of any state machine.

Told: every command as the replicas execute it, and what clients were told of theirs. Tells: Violated, when two
commands were executed at one index, when replicas execute one at different times or answer it differently, when an
acknowledged answer is not the one at its index, or lies before what its client already knew. May never know: what
commands mean.
"""

from __future__ import annotations

from typing import Any

from raftkv.sim.checks.invariants import Violated
from raftkv.state_machine import LogEntry


class Committed:
    """One log's worth of truth, shared by all replicas of a cluster."""

    def __init__(self) -> None:
        self.executions = 0
        self.acknowledged_index = 0
        """The highest index of an answer that a node has given, stale reads apart: who asks from now on sees it."""
        self.digest = 0
        """A checksum over states, where equal runs in other processes must have equal ones."""
        self._answers: dict[int, tuple[bytes, Any]] = {}
        """By log index: the command and its answer, as the first replica executed it."""
        self._newest_index = 0
        self._times_ms: dict[int, int] = {}
        """By log index: cluster time, as the first replica was told it."""

    def executed(self, entry: LogEntry, answer: Any) -> None:
        """A replica has executed this entry."""
        known = self._answers.get(entry.log_index)
        if known is None:
            if entry.log_index <= self._newest_index:
                raise Violated("in order", f"index {entry.log_index} was executed first after {self._newest_index}")
            if entry.stamp_ms < self._times_ms.get(self._newest_index, 0):
                raise Violated(
                    "cluster time never falls", f"it does at index {entry.log_index}, to {entry.stamp_ms} ms"
                )
            self._newest_index = entry.log_index
            self._answers[entry.log_index] = (entry.command, answer)
            self._times_ms[entry.log_index] = entry.stamp_ms
            self._executed_first(entry, answer)
        elif known[0] != entry.command:
            raise Violated("State Machine Safety", f"two commands were executed at index {entry.log_index}")
        elif self._times_ms[entry.log_index] != entry.stamp_ms:
            times = f"{self._times_ms[entry.log_index]} and {entry.stamp_ms} ms"
            raise Violated("equal times", f"index {entry.log_index} was executed at {times} of cluster time")
        elif known[1] != answer or type(known[1]) is not type(answer):
            raise Violated("equal answers", f"{known[1]} and {answer} at index {entry.log_index}")

    def _executed_first(self, entry: LogEntry, answer: Any) -> None:
        """Nobody has executed this entry before."""

    def acknowledged(self, command: bytes, index: int, answer: Any, *, executed_at: int, asked_at: int) -> None:
        """A client was told that its command was committed at ``index``, with this answer.

        ``executed_at`` is where it had its effect, ``asked_at`` what ``acknowledged_index`` was when it first asked.
        """
        self.acknowledged_index = max(self.acknowledged_index, index)
        if executed_at <= asked_at:
            raise Violated("real-time order", f"{answer} at {executed_at}, asked after {asked_at} was acknowledged")
        known = self._answers.get(index)
        if known is None or known[0] != command or known[1] != answer:
            raise Violated("acknowledged is executed", f"{answer} at index {index}, where the log has {known}")

    def read_in_order(self, index: int, *, asked_at: int | None) -> None:
        """A client's read was answered from the state at ``index``; ``asked_at`` None: it wanted a stale one."""
        if asked_at is None:
            return
        self.acknowledged_index = max(self.acknowledged_index, index)
        if index < asked_at:
            raise Violated("real-time order", f"read at {index}, asked after {asked_at} was acknowledged")
