"""What befalls disks: see breaking.py for how to add a kind."""

from __future__ import annotations

from typing import Final

from raftkv.sim.faults.breaking import Faults, kind, kind_of_files
from raftkv.sim.world.disk import Moment
from raftkv.sim.world.wal_disk import WalDisk

_OPERATIONS_AHEAD_MAX: Final = 24


@kind
def hang_disk(faults: Faults) -> None:
    """It takes writes and finishes none."""
    victim = faults.victim()
    faults.cluster.hang_disk(victim.id)
    faults.for_a_while(lambda: faults.cluster.let_disk_go(victim.id))


@kind
def slow_disk(faults: Faults) -> None:
    """Everything takes it many times as long."""
    victim = faults.victim()
    faults.cluster.slow_disk_down(victim.id, faults.rng.choice((5, 50, 300)))
    faults.for_a_while(lambda: faults.cluster.slow_disk_down(victim.id, 1))


@kind_of_files
def fail_sync(faults: Faults) -> None:
    """A sync fails, once; what it was to write is called clean. The node ends, and starts again."""
    disk = faults.victim().disk
    assert isinstance(disk, WalDisk)
    disk.fail_syncs(faults.rng.randrange(1, 6))


@kind_of_files
def fail_write(faults: Faults) -> None:
    """Any operation fails, once, having done part of its work. The node ends, and starts again."""
    disk = faults.victim().disk
    assert isinstance(disk, WalDisk)
    disk.fail_operation(faults.rng.randrange(1, _OPERATIONS_AHEAD_MAX))


@kind_of_files
def fill_disk(faults: Faults) -> None:
    """There is hardly room left; later there is."""
    disk = faults.victim().disk
    assert isinstance(disk, WalDisk)
    disk.fill(left_bytes=faults.rng.choice((0, 700, 20_000)))
    faults.for_a_while(lambda: disk.fill(left_bytes=None))


@kind_of_files
def die_at_the_disk(faults: Faults) -> None:
    """The process or its machine dies before, in or after some operation of its disk, perhaps of the next start."""
    victim, rng = faults.victim(), faults.rng
    disk = victim.disk
    assert isinstance(disk, WalDisk)
    if rng.randrange(2):
        faults.crash(victim, power_fails=rng.randrange(2) == 0)
    disk.dies_at(rng.randrange(1, _OPERATIONS_AHEAD_MAX), rng.choice(tuple(Moment)))


@kind_of_files
def flip_bit(faults: Faults) -> None:
    """While the node is down, a bit of what was once synced flips: it does not start any more."""
    victim = faults.victim()
    disk = victim.disk
    assert isinstance(disk, WalDisk)
    everybody_takes_part = all(node.is_up for node in faults.cluster.sound_nodes())
    if everybody_takes_part and not disk.is_spoiled and faults.may_lose(victim):
        faults.crash(victim, power_fails=faults.rng.randrange(2) == 0)
        disk.flip_a_bit(faults.rng)
