"""Exactly once, as ``http-api.md`` words it, one table per sentence."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raftkv.kv import sessions as sessions_module
from raftkv.kv.answers import (
    ConditionFailed,
    DeleteDone,
    Executed,
    PutDone,
    Repeated,
    SequenceReused,
    SequenceTooOld,
    SessionAlive,
    SessionClosed,
    SessionExpired,
    SessionOpened,
    TooLarge,
    TooManySessions,
    TooManyUnacknowledged,
)
from raftkv.kv.commands import (
    ABSENT,
    COMMAND_BYTES_MAX,
    CloseSession,
    Command,
    Delete,
    KeepAlive,
    Numbered,
    OpenSession,
    Put,
    Tick,
)
from raftkv.kv.hashing import request_hash
from raftkv.kv.machine import TIME_MS_MAX
from raftkv.kv.sessions import ANSWERS_BYTES_MAX, ANSWERS_MAX, EXPIRED_PER_COMMAND_MAX, Sessions
from tests.kv.store import Store

ID = b"0123456789abcdef"
OTHER = b"fedcba9876543210"
TTL_MS = 10_000


def opened() -> Store:
    store = Store()
    assert store.apply(OpenSession(ID, TTL_MS)) == SessionOpened(ID, TTL_MS)
    return store


def put(value: bytes = b"v") -> Put:
    return Put(b"k", value)


FIRST_TIME: list[tuple[Command, Executed]] = [
    (Put(b"k", b"again"), PutDone(created=False, revision=2, create_revision=1, version=2)),
    (Put(b"new", b"v"), PutDone(created=True, revision=2, create_revision=2, version=1)),
    (Put(b"k", b"v", ABSENT), ConditionFailed(mod_revision=1, revision=1)),
    (Delete(b"k"), DeleteDone(deleted=1, revision=2)),
    (Delete(b"none"), DeleteDone(deleted=0, revision=1)),
]


@pytest.mark.parametrize("between", [lambda store: None, Store.restart_from_snapshot], ids=["at once", "restarted"])
@pytest.mark.parametrize(("command", "expected"), FIRST_TIME)
def test_a_repeat_hears_the_first_answer(command, expected: Executed, between: Callable[[Store], None]):
    """faults 46, 47: a failed condition too, also after a restart, whatever has happened to the key since."""
    store = opened()
    store.apply(Put(b"k", b"v"))
    assert store.apply(command, Numbered(ID, 1)) == expected
    first_index = store.index
    store.apply(Delete(b"k"))
    store.apply(Put(b"none", b"since then"))
    between(store)
    record_before, none_before = store.get(b"k"), store.get(b"none")
    answer = store.apply(command, Numbered(ID, 1))
    assert answer == Repeated(expected, first_index)
    assert isinstance(answer, Repeated)
    assert type(answer.answer) is type(expected)
    assert (store.get(b"k"), store.get(b"none")) == (record_before, none_before)


def test_numbers_run_in_any_order_with_gaps():
    """faults 48."""
    store = opened()
    for revision, sequence in enumerate([7, 3, 2**62, 1], 1):
        answer = store.apply(put(b"%d" % sequence), Numbered(ID, sequence))
        assert isinstance(answer, PutDone) and answer.revision == revision
    for sequence in [1, 2**62, 3, 7]:
        assert isinstance(store.apply(put(b"%d" % sequence), Numbered(ID, sequence)), Repeated)
    late = store.apply(put(b"2"), Numbered(ID, 2))
    assert isinstance(late, PutDone) and late.revision == 5


def test_a_number_is_the_sessions_own():
    """faults 48: never another's answer."""
    store = opened()
    store.apply(OpenSession(OTHER, TTL_MS))
    store.apply(put(), Numbered(ID, 1))
    assert isinstance(store.apply(put(), Numbered(OTHER, 1)), PutDone)


ANOTHER_REQUEST = [
    Put(b"k", b"w"),
    Put(b"l", b"v"),
    Put(b"k", b"v", ABSENT),
    Delete(b"k"),
]


@pytest.mark.parametrize("command", ANOTHER_REQUEST)
def test_a_number_with_another_request_is_reused(command):
    store = opened()
    store.apply(put(b"v"), Numbered(ID, 1))
    before = store.machine.snapshot()
    answer = store.apply(command, Numbered(ID, 1))
    assert (type(answer), store.machine.snapshot()) == (SequenceReused, before)
    assert isinstance(store.apply(put(b"v"), Numbered(ID, 1)), Repeated), "the first answer is still there"


def test_the_acknowledgement_is_no_part_of_the_request():
    store = opened()
    store.apply(put(), Numbered(ID, 5, acknowledged=0))
    assert isinstance(store.apply(put(), Numbered(ID, 5, acknowledged=4)), Repeated)


def test_what_is_acknowledged_is_too_old():
    """Also numbers that were never seen: once forgotten, nobody knows that they were not."""
    store = opened()
    store.apply(put(), Numbered(ID, 1))
    store.apply(put(), Numbered(ID, 3))
    store.apply(put(), Numbered(ID, 4, acknowledged=2))
    before = store.machine.snapshot()
    for sequence in (1, 2):
        answer = store.apply(put(), Numbered(ID, sequence))
        assert (type(answer), store.machine.snapshot()) == (SequenceTooOld, before)
    assert isinstance(store.apply(put(), Numbered(ID, 3)), Repeated)
    store.restart_from_snapshot()
    assert isinstance(store.apply(put(), Numbered(ID, 2)), SequenceTooOld)


def test_an_acknowledgement_never_falls():
    """Requests overtake each other: the older word about what arrived takes nothing back."""
    store = opened()
    store.apply(put(), Numbered(ID, 9, acknowledged=5))
    store.apply(put(), Numbered(ID, 8, acknowledged=2))
    assert isinstance(store.apply(put(), Numbered(ID, 4)), SequenceTooOld)


def test_a_write_that_acknowledges_itself_is_too_old():
    store = opened()
    before = store.hash
    assert isinstance(store.apply(put(), Numbered(ID, 3, acknowledged=3)), SequenceTooOld)
    assert store.hash == before
    assert isinstance(store.apply(put(), Numbered(ID, 2)), PutDone), "a refusal acknowledges nothing"


def test_a_repeat_acknowledges():
    store = opened()
    store.apply(put(), Numbered(ID, 1))
    store.apply(put(), Numbered(ID, 2))
    assert isinstance(store.apply(put(), Numbered(ID, 2, acknowledged=1)), Repeated)
    assert isinstance(store.apply(put(), Numbered(ID, 1)), SequenceTooOld)


def test_at_most_1024_answers_wait_for_acknowledgement():
    """faults 65."""
    store = opened()
    for sequence in range(1, 1_025):
        assert isinstance(store.apply(put(), Numbered(ID, sequence)), PutDone)
    assert isinstance(store.apply(put(), Numbered(ID, 1_025)), TooManyUnacknowledged)
    assert isinstance(store.apply(put(), Numbered(ID, 1_024)), Repeated), "a repeat needs no room"
    assert isinstance(store.apply(put(), Numbered(ID, 1_025, acknowledged=1)), PutDone)
    assert isinstance(store.apply(put(), Numbered(ID, 1_026)), TooManyUnacknowledged)
    assert isinstance(store.apply(put(), Numbered(ID, 1_026, acknowledged=1_000)), PutDone)


def test_the_refusal_for_want_of_room_changes_nothing():
    store = opened()
    for sequence in range(1, ANSWERS_MAX + 1):
        store.apply(put(), Numbered(ID, sequence + 10), at_ms=7)
    before = store.machine.snapshot()
    assert isinstance(store.apply(put(), Numbered(ID, 5, acknowledged=4)), TooManyUnacknowledged)
    assert store.machine.snapshot() == before
    assert isinstance(store.apply(put(), Numbered(ID, 3)), TooManyUnacknowledged), "and acknowledges nothing"


def test_answers_are_bounded_by_their_bytes_too(monkeypatch):
    """Today's answers are a few bytes each; the bound is for those that will carry values."""
    monkeypatch.setattr("raftkv.kv.answers.pack", lambda answer: b"\xc4" * (ANSWERS_BYTES_MAX // 2))
    sessions = Sessions()
    sessions.open(ID, TTL_MS, 0)
    hashed = request_hash(b"")
    for sequence in (1, 2):
        assert sessions.judge(Numbered(ID, sequence), hashed, 0) is None
        sessions.remember(Numbered(ID, sequence), hashed, 0, index=1, answer=DeleteDone(0, 0))
    assert sessions.judge(Numbered(ID, 3), hashed, 0) == TooManyUnacknowledged()
    assert sessions.judge(Numbered(ID, 3, acknowledged=1), hashed, 0) is None


def test_the_bytes_of_answers_count_after_a_restart_too(monkeypatch):
    """faults 47: a node that executed what the others refuse would have another state."""
    monkeypatch.setattr("raftkv.kv.answers.pack", lambda answer: b"\xc4" * (ANSWERS_BYTES_MAX // 2))
    store = opened()
    for sequence in (1, 2):
        store.apply(put(), Numbered(ID, sequence))
    store.restart_from_snapshot()
    assert isinstance(store.apply(put(), Numbered(ID, 3)), TooManyUnacknowledged)
    assert isinstance(store.apply(put(), Numbered(ID, 3, acknowledged=1)), PutDone)


@pytest.mark.parametrize("between", [lambda store: None, Store.restart_from_snapshot], ids=["at once", "restarted"])
@pytest.mark.parametrize(("short_by", "expected"), [(0, TooManyUnacknowledged), (1, PutDone)])
def test_the_bytes_of_answers_are_counted_to_the_byte(
    monkeypatch, between: Callable[[Store], None], short_by, expected
):
    """faults 47, 61: what was dropped leaves nothing behind, and who restarted counts as all the others do."""
    sizes = iter([10, ANSWERS_BYTES_MAX // 2, ANSWERS_BYTES_MAX // 2 - short_by, 10])
    monkeypatch.setattr("raftkv.kv.answers.pack", lambda answer: b"\xc4" * next(sizes))
    store = opened()
    store.apply(put(), Numbered(ID, 1))
    store.apply(put(), Numbered(ID, 2, acknowledged=1))
    store.apply(put(), Numbered(ID, 3))
    between(store)
    assert isinstance(store.apply(put(), Numbered(ID, 4)), expected)


def test_what_is_too_large_is_not_stored():
    store = opened()
    large = put(b"v" * COMMAND_BYTES_MAX)
    assert isinstance(store.apply(large, Numbered(ID, 1)), TooLarge)
    assert isinstance(store.apply(put(), Numbered(ID, 1)), PutDone)


def numbered_put(store: Store, at_ms: int) -> object:
    return store.apply(put(), Numbered(ID, at_ms), at_ms=at_ms)


def keep_alive(store: Store, at_ms: int) -> object:
    return store.apply(KeepAlive(ID), at_ms=at_ms)


def repeat_the_first(store: Store, at_ms: int) -> object:
    return store.apply(put(), Numbered(ID, 1), at_ms=at_ms)


def open_again(store: Store, at_ms: int) -> object:
    return store.apply(OpenSession(ID, 1_000), at_ms=at_ms)


@pytest.mark.parametrize("sign_of_life", [numbered_put, keep_alive, repeat_the_first, open_again])
def test_signs_of_life(sign_of_life: Callable[[Store, int], object]):
    """faults 49: a session lives a whole ttl from each, to the millisecond."""
    store = opened()
    store.apply(put(), Numbered(ID, 1))
    assert not isinstance(sign_of_life(store, 9_999), SessionExpired)
    assert store.machine.tick_due_ms() == 19_999
    assert not isinstance(sign_of_life(store, 19_998), SessionExpired)
    store.restart_from_snapshot()
    assert store.machine.tick_due_ms() == 29_998
    store.apply(Tick(), at_ms=29_997)
    assert store.machine.tick_due_ms() == 29_998
    assert isinstance(store.apply(KeepAlive(ID), at_ms=29_998), SessionExpired)
    assert store.machine.tick_due_ms() is None


def reuse_the_first(store: Store) -> object:
    return store.apply(put(b"other"), Numbered(ID, 2))


def ask_for_the_forgotten(store: Store) -> object:
    return store.apply(put(), Numbered(ID, 1))


@pytest.mark.parametrize("refused", [reuse_the_first, ask_for_the_forgotten, lambda store: store.apply(put())])
def test_what_is_no_sign_of_life(refused: Callable[[Store], object]):
    store = opened()
    store.apply(put(), Numbered(ID, 2, acknowledged=1))
    store.stamp_ms = 5_000
    refused(store)
    assert store.machine.tick_due_ms() == TTL_MS


AFTER_THE_END: list[tuple[Command, Numbered | None]] = [
    (put(), Numbered(ID, 1)),
    (put(), Numbered(ID, 2)),
    (Delete(b"k"), Numbered(ID, 3)),
    (KeepAlive(ID), None),
    (CloseSession(ID), None),
]


@pytest.mark.parametrize("ended", ["expired", "closed", "never opened"])
@pytest.mark.parametrize(("command", "numbered"), AFTER_THE_END)
def test_after_the_end_nothing_is_executed(command, numbered, ended):
    """faults 49: an explicit answer, for a repeat too."""
    store = opened() if ended != "never opened" else Store()
    store.apply(put(), Numbered(ID, 1))
    if ended == "closed":
        assert store.apply(CloseSession(ID)) == SessionClosed(ID)
    store.apply(Tick(), at_ms=TTL_MS)
    before = store.machine.snapshot()
    assert isinstance(store.apply(command, numbered), SessionExpired)
    assert store.machine.snapshot() == before


def test_a_session_opened_anew_under_an_old_id_remembers_nothing():
    store = opened()
    store.apply(put(), Numbered(ID, 4, acknowledged=3))
    assert store.apply(OpenSession(ID, 2_000), at_ms=TTL_MS) == SessionOpened(ID, 2_000)
    assert store.machine.tick_due_ms() == TTL_MS + 2_000
    assert isinstance(store.apply(put(b"new"), Numbered(ID, 1)), PutDone)
    assert isinstance(store.apply(put(b"new"), Numbered(ID, 4)), PutDone)


def test_opening_twice_is_one_session():
    """A retry must not forget what was executed in between, nor change the ttl."""
    store = opened()
    store.apply(put(), Numbered(ID, 1))
    assert store.apply(OpenSession(ID, 5_000)) == SessionOpened(ID, TTL_MS)
    assert isinstance(store.apply(put(), Numbered(ID, 1)), Repeated)


@pytest.mark.parametrize("stamp_ms", [0, -1, 4_999])
def test_time_never_runs_backwards(stamp_ms):
    """faults 68: a leader whose clock is behind neither revives a session nor lets it live longer."""
    store = opened()
    store.apply(Tick(), at_ms=5_000)
    assert store.apply(KeepAlive(ID), at_ms=stamp_ms) == SessionAlive(ID, TTL_MS)
    assert store.machine.tick_due_ms() == 15_000


def test_an_absurd_stamp_breaks_nothing():
    """faults 57, 62."""
    store = opened()
    store.apply(Tick(), at_ms=2**64 - 1)
    assert store.apply(OpenSession(OTHER, TTL_MS), at_ms=2**80) == SessionOpened(OTHER, TTL_MS)
    assert store.machine.tick_due_ms() == TIME_MS_MAX + TTL_MS
    store.restart_from_snapshot()
    assert isinstance(store.apply(KeepAlive(ID)), SessionExpired)


def test_garbage_lets_time_pass():
    store = opened()
    store.apply_bytes(b"garbage", at_ms=TTL_MS)
    assert store.machine.tick_due_ms() is None


def test_what_has_run_out_goes_in_the_order_of_expiry_then_id():
    sessions = Sessions()
    for id, ttl_ms in ((b"c", 20), (b"b", 20), (b"z", 10), (b"a", 30)):
        sessions.open(id * 16, ttl_ms, 0)
    gone: list[bytes] = []
    present = [b"a", b"b", b"c", b"z"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions_module, "EXPIRED_PER_COMMAND_MAX", 1)
        while len(sessions):
            sessions.expire(30)
            left = {id[:1] for id in sessions._ids}
            gone += [id for id in present if id not in left and id not in gone]
    assert gone == [b"z", b"b", b"c", b"a"]
    assert sessions.hash_sum == 0 and sessions.next_expiry_ms() is None


def test_sessions_that_run_out_together_stall_nobody():
    """faults 62: they go a thousand at a time, and those still to go are none already."""
    store = Store()
    ids = [b"%016d" % number for number in range(EXPIRED_PER_COMMAND_MAX + 5)]
    for id in ids:
        store.apply(OpenSession(id, TTL_MS))
    last = ids[-1]
    assert isinstance(store.apply(put(), Numbered(last, 1), at_ms=TTL_MS), SessionExpired)
    assert isinstance(store.machine.tick_due_ms(), int), "so another tick is proposed"
    store.restart_from_snapshot()
    store.apply(Tick())
    assert store.machine.tick_due_ms() is None
    assert isinstance(store.apply(KeepAlive(last)), SessionExpired)


def test_sessions_still_to_go_can_be_opened_anew(monkeypatch):
    monkeypatch.setattr(sessions_module, "EXPIRED_PER_COMMAND_MAX", 0)
    store = opened()
    store.apply(put(), Numbered(ID, 1))
    assert isinstance(store.apply(CloseSession(ID), at_ms=TTL_MS), SessionExpired)
    assert store.apply(OpenSession(ID, TTL_MS)) == SessionOpened(ID, TTL_MS)
    assert isinstance(store.apply(put(b"new"), Numbered(ID, 1)), PutDone)
    before = store.hash
    store.restart_from_snapshot()
    assert store.hash == before, "nothing is left of the one before"


def test_there_are_at_most_so_many_sessions(monkeypatch):
    """faults 65."""
    monkeypatch.setattr(sessions_module, "SESSIONS_MAX", 1)
    store = opened()
    before = store.machine.snapshot()
    assert store.apply(OpenSession(OTHER, TTL_MS)) == TooManySessions(1)
    assert store.machine.snapshot() == before
    assert store.apply(OpenSession(ID, TTL_MS)) == SessionOpened(ID, TTL_MS), "a repeat needs no room"
    store.apply(CloseSession(ID))
    assert store.apply(OpenSession(OTHER, TTL_MS)) == SessionOpened(OTHER, TTL_MS)


def test_the_limits_are_those_of_the_contract():
    assert (ANSWERS_MAX, ANSWERS_BYTES_MAX) == (1_024, 1_048_576)
