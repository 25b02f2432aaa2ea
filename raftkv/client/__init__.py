"""The Python client; ``raftkv.client.sync`` has the same for programs without asyncio."""

from raftkv.client.attempts import Figures
from raftkv.client.client import Client
from raftkv.client.results import (
    ClusterStatus,
    DeleteDone,
    DeleteRangeDone,
    Item,
    LeaderDone,
    Member,
    NodeStatus,
    Page,
    PutDone,
    TxnDelete,
    TxnDeleteRange,
    TxnDone,
    TxnGet,
    TxnOutcome,
    TxnPut,
    TxnRange,
)
from raftkv.client.settings import ClientSettings
from raftkv.client.txn import Compare, Op, Text
from raftkv.client.wishes import Consistency
from raftkv.errors import ConditionFailed, OutcomeUnknown, Rejected, RequestError, Unreachable

__all__ = [
    "Client",
    "ClientSettings",
    "ClusterStatus",
    "Compare",
    "ConditionFailed",
    "Consistency",
    "DeleteDone",
    "DeleteRangeDone",
    "Figures",
    "Item",
    "LeaderDone",
    "Member",
    "NodeStatus",
    "Op",
    "OutcomeUnknown",
    "Page",
    "PutDone",
    "Rejected",
    "RequestError",
    "Text",
    "TxnDelete",
    "TxnDeleteRange",
    "TxnDone",
    "TxnGet",
    "TxnOutcome",
    "TxnPut",
    "TxnRange",
    "Unreachable",
]
