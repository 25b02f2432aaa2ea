"""A copy of the whole store: ``GET /v1/admin/backup``. The leader's: what it sends is never older than the request.

Told: a request. Tells: what is asked of the node, and the file as it comes. May never know: disks.
"""

from __future__ import annotations

from typing import Final

from raftkv.api.actions import APPLIED_INDEX, READS, Action, Answer, Field
from raftkv.api.exchange import Context, Decision, Pending, applied_index, away_from_leader, retry_after
from raftkv.api.parameters import Parameter, WholeNumber
from raftkv.api.problems import problem
from raftkv.api.reads import read_answer
from raftkv.api.requests import Request
from raftkv.api.responses import OCTETS, Respond, Response
from raftkv.api.service import BackupBusy, BackupOpened, BackupOutcome
from raftkv.api.snapshots import not_taken
from raftkv.outcomes import SnapshotRefused, SnapshotUnderWay
from raftkv.problems import Code

WAIT_MS: Final = Parameter(
    "wait_ms",
    WholeNumber(0, 600_000),
    "After so long 503 too_stale is answered if the snapshot is not written yet that is to be sent; it is written on.",
    60_000,
)

_NAME: Final = Field("Content-Disposition", {"type": "string"}, "A name for the file.")


def give(context: Context, request: Request, _: bytes) -> Decision:
    """Everything that was acknowledged before the request came, as of one moment, as a file that proves itself."""
    wait_ms = WAIT_MS.of(request)

    def act(_body: bytes, respond: Respond) -> None:
        context.service.open_backup(lambda outcome: respond(_told(context, request, outcome)), wait_ms=wait_ms)

    return away_from_leader(context, request) or Pending(0, act)


def _told(context: Context, request: Request, outcome: BackupOutcome) -> Response:
    match outcome:
        case BackupOpened(index, source):
            name = f'attachment; filename="raftkv-{index}.backup"'
            headers = (*applied_index(index), ("Content-Disposition", name))
            return Response(200, OCTETS, b"", headers, source=source)
        case BackupBusy():
            return _later(context, Code.OVERLOADED, "as many backups are under way here as this node sends at once")
        case SnapshotUnderWay():
            return _later(context, Code.TOO_STALE, "the snapshot is being written that is to be sent")
        case SnapshotRefused():
            return not_taken(context, outcome)
        case _:
            return read_answer(context, request, outcome, _never)


def _never(_answer: object) -> Response:
    raise AssertionError("a read that was confirmed is no answer yet")


def _later(context: Context, code: Code, why: str) -> Response:
    extra = {"retry_after_ms": context.settings.retry_after_ms}
    return problem(code, f"{why}; ask again soon", headers=retry_after(context), extra=extra)


GIVE: Final[Action] = Action(
    give,
    "Copies the whole store, consistent as of one moment.",
    (
        Answer(
            200,
            "A snapshot file: everything acknowledged before the request came, keys and sessions. It ends with a "
            "checksum of itself: one that is cut short, or of which a bit is wrong, is refused by raftkv restore.",
            content_types=(OCTETS,),
            fields=(APPLIED_INDEX, _NAME),
        ),
    ),
    (*READS, Code.DISK_FULL),
    parameters=(WAIT_MS,),
)
