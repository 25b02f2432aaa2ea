"""The limits of the API, validated once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from raftkv.errors import ConfigError
from raftkv.http.heads import HEAD_BYTES_MAX
from raftkv.kv.commands import COMMAND_BYTES_MAX, KEY_BYTES_MAX

VALUE_BYTES_MAX: Final = COMMAND_BYTES_MAX - KEY_BYTES_MAX
"""The largest ``max_value_bytes``: a larger value would not fit into one command with its key."""


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """How much, and for how long, a client may ask. Raises ConfigError with every problem at once."""

    max_value_bytes: int = 1024 * 1024
    """The largest value that a PUT is taken with."""
    structured_body_bytes_max: int = 64 * 1024
    """JSON and msgpack bodies of sessions and administration."""
    transaction_body_bytes_max: int = 3 * 1024 * 1024
    """Those of transactions: 2 MiB of keys and values in base64, and what stands around them."""
    bodies_bytes_max: int = 64 * 1024 * 1024
    """All bodies being read at once, by one front; beyond it 429, before a byte of the body is read."""
    discard_bytes_max: int = 8 * 1024 * 1024
    """How much of a refused body is read on, so that the client sees the answer."""
    discard_timeout_ms: int = 2_000
    """And for how long."""
    head_timeout_ms: int = 10_000
    """From the first byte of a request head to its last."""
    body_timeout_ms: int = 30_000
    """From the end of the head to the last byte of the body."""
    send_timeout_ms: int = 30_000
    """For how long a client may not take its answer."""
    keep_alive_timeout_ms: int = 75_000
    """How long a connection may stay idle; a little more than the proxies' usual 60 s."""
    streams_max: int = 256
    """WebSockets open at once, each of which may hold one message that is not yet whole."""
    retry_after_ms: int = 300
    """After how long a client may hope for a leader: the lower election timeout."""

    def __post_init__(self) -> None:
        problems = [
            f"{field.name} must be a whole number of at least 1, not {getattr(self, field.name)!r}"
            for field in fields(self)
            if type(getattr(self, field.name)) is not int or getattr(self, field.name) < 1
        ]
        if not problems and self.max_value_bytes > VALUE_BYTES_MAX:
            problems.append(f"max_value_bytes must be at most {VALUE_BYTES_MAX}, not {self.max_value_bytes}")
        if not problems and self.bodies_bytes_max < max(self.max_value_bytes, self.transaction_body_bytes_max):
            problems.append("bodies_bytes_max must be at least max_value_bytes and transaction_body_bytes_max")
        if problems:
            raise ConfigError(problems)

    @property
    def stream_message_bytes_max(self) -> int:
        """One message of a stream: the largest body that any route takes, with a head as HTTP would have it."""
        largest = max(self.max_value_bytes, self.structured_body_bytes_max, self.transaction_body_bytes_max)
        return largest + HEAD_BYTES_MAX + 1024
