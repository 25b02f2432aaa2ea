"""Clients that wait: each is told once what became of its request, and no index forgets anybody."""

from __future__ import annotations

from typing import Any

from raftkv.outcomes import Applied, Consistency, Superseded, Unknown
from raftkv.waiting import WaitingRead, WaitingReads, WaitingWrite, WaitingWrites, expire_reads


class Desk:
    """Writes and reads with names; what each was told, in order."""

    def __init__(self) -> None:
        self.writes = WaitingWrites()
        self.told: list[tuple[str, Any]] = []

    def write(self, name: str, *, deadline_us: int = 1000) -> WaitingWrite:
        return WaitingWrite(name.encode(), lambda outcome: self.told.append((name, outcome)), deadline_us)

    def read(
        self, name: str, *, deadline_us: int = 1000, consistency: Consistency = Consistency.LINEARIZABLE
    ) -> WaitingRead:
        return WaitingRead(None, consistency, lambda outcome: self.told.append((name, outcome)), deadline_us)


def test_an_applied_write_gets_its_answer():
    desk = Desk()
    desk.writes.add([desk.write("x"), desk.write("y")], first_index=5, term=2)
    desk.writes.applied(5, 2, "first")
    desk.writes.applied(6, 2, "second")
    assert desk.told == [("x", Applied(5, "first")), ("y", Applied(6, "second"))]
    assert len(desk.writes) == desk.writes.bytes_in_flight == 0


def test_another_term_at_the_index_supersedes():
    """faults 69"""
    desk = Desk()
    desk.writes.add([desk.write("x")], first_index=5, term=2)
    desk.writes.applied(5, 3, "not x's answer")
    assert desk.told == [("x", Superseded())]


def test_an_entry_that_is_no_command_supersedes():
    desk = Desk()
    desk.writes.add([desk.write("x")], first_index=5, term=2)
    desk.writes.passed(5)
    assert desk.told == [("x", Superseded())]


def test_what_is_applied_where_nobody_waits_tells_nobody():
    desk = Desk()
    desk.writes.add([desk.write("x")], first_index=5, term=2)
    desk.writes.applied(4, 2, None)
    desk.writes.passed(6)
    assert desk.told == []


def test_at_its_deadline_a_write_is_unknown_and_only_then():
    """faults 50"""
    desk = Desk()
    desk.writes.add([desk.write("x", deadline_us=1000)], first_index=5, term=2)
    desk.writes.expire(999)
    assert desk.told == []
    desk.writes.expire(1000)
    assert desk.told == [("x", Unknown())]
    desk.writes.applied(5, 2, "too late to tell")
    assert len(desk.told) == 1


def test_two_terms_at_one_index_are_both_decided_by_what_commits():
    """faults 69: proposed, truncated, and proposed again at the same index by the same node."""
    desk = Desk()
    desk.writes.add([desk.write("old")], first_index=5, term=2)
    desk.writes.add([desk.write("new")], first_index=5, term=4)
    assert len(desk.writes) == 2
    desk.writes.applied(5, 4, "new's answer")
    assert desk.told == [("old", Superseded()), ("new", Applied(5, "new's answer"))]
    assert len(desk.writes) == desk.writes.bytes_in_flight == 0


def test_three_at_one_index_expire_one_by_one():
    """faults 69: none of them is forgotten because another's deadline came first."""
    desk = Desk()
    for term, name in ((2, "one"), (4, "two"), (6, "three")):
        desk.writes.add([desk.write(name, deadline_us=term * 1000)], first_index=5, term=term)
    desk.writes.expire(2000)
    assert desk.told == [("one", Unknown())]
    assert (len(desk.writes), desk.writes.bytes_in_flight) == (2, len("two" + "three"))
    desk.writes.expire(4000)
    assert desk.told[1:] == [("two", Unknown())]
    desk.writes.applied(5, 6, "done")
    assert desk.told[2:] == [("three", Applied(5, "done"))]
    assert len(desk.writes) == desk.writes.bytes_in_flight == 0


def test_the_deadline_of_an_answered_write_tells_the_next_at_its_index_nothing():
    desk = Desk()
    desk.writes.add([desk.write("x", deadline_us=1000)], first_index=5, term=2)
    desk.writes.applied(5, 3, None)
    desk.writes.add([desk.write("y", deadline_us=5000)], first_index=5, term=4)
    desk.writes.expire(1000)
    assert [name for name, _ in desk.told] == ["x"]
    assert desk.writes.next_deadline_us() == 5000


def test_the_next_deadline_is_of_somebody_who_waits():
    desk = Desk()
    assert desk.writes.next_deadline_us() is None
    desk.writes.add([desk.write("x", deadline_us=1000), desk.write("y", deadline_us=2000)], first_index=5, term=2)
    assert desk.writes.next_deadline_us() == 1000
    desk.writes.applied(5, 2, None)
    assert desk.writes.next_deadline_us() == 2000
    desk.writes.applied(6, 2, None)
    assert desk.writes.next_deadline_us() is None


# ------------------------------------------------------------------------------------------- reads


def test_reads_are_reached_in_the_order_of_their_indexes():
    desk, reads = Desk(), WaitingReads()
    third, first, second = desk.read("third"), desk.read("first"), desk.read("second")
    reads.add([third], need=9)
    reads.add([first], need=3)
    reads.add([second], need=3)
    assert reads.reached(2) == []
    assert reads.reached(3) == [first, second]
    assert len(reads) == 1
    assert reads.reached(10) == [third]


def test_reads_expire_by_their_own_deadlines():
    desk, reads = Desk(), WaitingReads()
    x, y, z = (desk.read(name, deadline_us=us) for name, us in (("x", 1000), ("y", 2000), ("z", 500)))
    reads.add([x, y], need=9)
    reads.add([z], need=3)
    assert reads.next_deadline_us() == 500
    assert reads.expire(499) == []
    assert reads.expire(1000) == [z, x]
    assert reads.expire(1000) == []
    assert (len(reads), reads.next_deadline_us()) == (1, 2000)
    assert reads.reached(9) == [y]
    assert reads.next_deadline_us() is None


def test_a_read_that_came_later_with_an_earlier_deadline_is_not_overlooked():
    desk, reads = Desk(), WaitingReads()
    late, early = desk.read("late", deadline_us=9000), desk.read("early", deadline_us=1000)
    reads.add([late], need=1)
    reads.add([early], need=2)
    assert reads.next_deadline_us() == 1000
    assert reads.expire(1000) == [early]
    assert reads.next_deadline_us() == 9000


def test_a_read_that_came_later_with_a_later_deadline_postpones_nobody():
    desk, reads = Desk(), WaitingReads()
    early, late = desk.read("early", deadline_us=1000), desk.read("late", deadline_us=9000)
    reads.add([early], need=1)
    reads.add([late], need=2)
    assert reads.next_deadline_us() == 1000
    assert reads.expire(1000) == [early]


def test_where_some_expired_the_others_are_still_reached_in_order():
    """What is left of a heap is none."""
    desk, reads = Desk(), WaitingReads()
    expires, far, near = desk.read("expires", deadline_us=10), desk.read("far"), desk.read("near")
    reads.add([expires], need=1)
    reads.add([far], need=5)
    reads.add([near], need=2)
    assert reads.expire(10) == [expires]
    assert reads.reached(2) == [near]
    assert reads.reached(5) == [far]


def test_who_leaves_is_gone():
    desk, reads = Desk(), WaitingReads()
    x, y = desk.read("x"), desk.read("y")
    reads.add([x], need=1)
    reads.add([y], need=2)
    assert reads.leave() == [x, y]
    assert (reads.leave(), reads.reached(9), reads.next_deadline_us(), len(reads)) == ([], [], None, 0)


def test_writes_that_are_given_up_are_unknown_each_once():
    desk = Desk()
    desk.writes.add([desk.write("x")], first_index=5, term=2)
    desk.writes.add([desk.write("y"), desk.write("z")], first_index=5, term=4)
    desk.writes.give_up()
    assert sorted(desk.told, key=lambda told: told[0]) == [("x", Unknown()), ("y", Unknown()), ("z", Unknown())]
    assert len(desk.writes) == desk.writes.bytes_in_flight == 0
    desk.writes.expire(10**9)
    assert len(desk.told) == 3


def test_writes_are_given_up_through_an_index_and_no_further():
    """A snapshot that was loaded holds its own last entry too: nobody can say here what became of that one."""
    desk = Desk()
    desk.writes.add([desk.write(name) for name in "xyz"], first_index=5, term=2)
    desk.writes.give_up(through=6)
    assert desk.told == [("x", Unknown()), ("y", Unknown())]
    desk.writes.applied(7, 2, "done")
    assert desk.told[2:] == [("z", Applied(7, "done"))]


def test_what_was_answered_does_not_expire():
    desk, reads = Desk(), WaitingReads()
    reads.add([desk.read("x", deadline_us=1000)], need=1)
    reads.add([desk.read("y", deadline_us=5000)], need=2)
    assert [read.deadline_us for read in reads.reached(1)] == [1000]
    assert reads.expire(1000) == []
    assert reads.next_deadline_us() == 5000


def test_many_that_wait_are_not_looked_through_at_every_turn():
    """No loop turn is long: twenty thousand may wait for what a node that is cut off never gets."""
    desk, reads = Desk(), WaitingReads()
    looks = 0

    class Counted(list):
        def __iter__(self):
            nonlocal looks
            looks += 1
            return super().__iter__()

    for _ in range(100):
        reads.add(Counted([desk.read("x", deadline_us=10_000)]), need=1)
    looks = 0
    for now_us in range(1000, 10_000, 10):
        assert reads.expire(now_us) == []
        assert reads.next_deadline_us() == 10_000
    assert looks == 0
    assert len(reads.expire(10_000)) == 100


def test_expired_reads_leave_their_list():
    desk = Desk()
    x, y = desk.read("x", deadline_us=1000), desk.read("y", deadline_us=2000)
    waiting = [x, y]
    assert expire_reads(waiting, 1500) == [x]
    assert waiting == [y]
