"""raftkv: a replicated key-value server. Raft over HTTP, linearizable reads, a write-ahead log on every node."""

from typing import Final

__version__: Final = "0.1.0"
