"""raftkv: a replicated key-value server. Raft over HTTP, linearizable reads, a write-ahead log on every node.

To run a node, with the store or a state machine of your own, inside a program:

    from raftkv import Node, NodeConfig, StateMachine

What is imported from here is loaded when it is first asked for: ``import raftkv`` alone costs nothing.
"""

from typing import TYPE_CHECKING, Any, Final

__version__: Final = "0.1.0"

__all__ = [
    "ConfigError",
    "Consistency",
    "DataError",
    "KeyValueMachine",
    "Leadership",
    "LogEntry",
    "Node",
    "NodeConfig",
    "NodeFailed",
    "NotLeader",
    "OutcomeUnknown",
    "RaftkvError",
    "Rejected",
    "RequestError",
    "StateMachine",
    "Unreachable",
    "__version__",
]

if TYPE_CHECKING:
    from raftkv.config import NodeConfig
    from raftkv.errors import (
        ConfigError,
        DataError,
        NodeFailed,
        NotLeader,
        OutcomeUnknown,
        RaftkvError,
        Rejected,
        RequestError,
        Unreachable,
    )
    from raftkv.kv.machine import KeyValueMachine
    from raftkv.node.node import Node
    from raftkv.outcomes import Consistency, Leadership
    from raftkv.state_machine import LogEntry, StateMachine
else:
    _HOMES = {
        "Consistency": "raftkv.outcomes",
        "KeyValueMachine": "raftkv.kv.machine",
        "Leadership": "raftkv.outcomes",
        "LogEntry": "raftkv.state_machine",
        "Node": "raftkv.node.node",
        "NodeConfig": "raftkv.config",
        "StateMachine": "raftkv.state_machine",
    }

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found = globals()[name] = getattr(import_module(_HOMES.get(name, "raftkv.errors")), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
