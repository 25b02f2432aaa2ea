"""Tells stories of bare cores with snapshots: the scenarios in tests/scenarios that begin with ``cores``.

cores a b c [chunk=20 tail=1]     cores, started; all mail arrives at once, every disk answers
stand a | propose a x y | wait 300ms | show
snapshot a                    a takes a snapshot of what it has applied, and it is in place
capture a | store a           the same in two steps
cut a b | heal                links; who is cut off is told that its requests failed
hold a > b Type | release | double | drop
disk a hangs | disk a goes    writes of log, term and vote
files a hang | files a go     pieces of a received snapshot, and loading it
spoil a                       a bit of a's partial file flips with the next piece
crash a | start a
"""

from __future__ import annotations

from collections.abc import Sequence

from raftkv.core.effects import Effects
from raftkv.core.messages import InstallSnapshot, InstallSnapshotReply
from raftkv.core.settings import RaftSettings
from tests.core.snapshot_world import Core, Mail, World

STEP_US = 5_000
_TURNS_MAX = 500


class _Told(World):
    """Notes are the story, and the pieces of snapshots that arrive."""

    told: list[str]

    def noted(self, name: str, effects: Effects) -> None:
        self.told += [note.text for note in effects.notes]

    def deliver(self, mail: Mail) -> None:
        message, envelope = mail.envelope.message, mail.envelope
        if isinstance(message, InstallSnapshot) and self.cores[envelope.receiver].raft is not None:
            end = message.offset + len(message.data)
            of = f"of snapshot {message.snapshot.index}, {message.snapshot.size_bytes} bytes"
            self.told.append(f"{envelope.sender} → {envelope.receiver}: {message.offset} to {end} {of}")
        elif isinstance(message, InstallSnapshotReply) and message.index > 0:
            wants = "it is installed" if message.installed else f"wants {message.wanted_offset} and on"
            self.told.append(f"{envelope.sender} → {envelope.receiver}: snapshot {message.index}, {wants}")
        super().deliver(mail)


class CoreStory:
    """Reads commands, lets them happen, and writes down what is told."""

    def __init__(self) -> None:
        self.world: _Told | None = None
        self._cut: set[tuple[str, str]] = set()
        self._holds: list[tuple[str, str, str]] = []
        self._held: list[Mail] = []
        self._hung: set[tuple[str, str]] = set()
        self._spoilt: set[str] = set()

    def run(self, commands: Sequence[str]) -> str:
        """Everything that is told from the first command to the last."""
        told: list[str] = []
        if self.world is not None:
            self.world.told = told
        for line in commands:
            word, *arguments = line.split("#")[0].split() or [""]
            if word == "cores":
                self.do_cores(told, *arguments)
            elif word:
                getattr(self, f"do_{word}")(*arguments)
                if word not in ("hold", "disk", "files", "crash", "cut", "show", "spoil"):
                    self._settle()
        return "".join(f"{line}\n" for line in told)

    def do_cores(self, told: list[str], *arguments: str) -> None:
        chosen = {name: int(value) for name, value in (a.split("=") for a in arguments if "=" in a)}
        settings = RaftSettings(snapshot_chunk_bytes=chosen.get("chunk", 1000), log_tail_entries=chosen.get("tail", 1))
        self.world = _Told("".join(a for a in arguments if "=" not in a), settings)
        self.world.told = told
        for name in self.world.cores:
            self.world.start(name)

    def do_stand(self, name: str) -> None:
        core = self._core(name)
        core.up.state.election_deadline_us = self._world.now_us
        for other in self._world.up_names():
            if other != name and self._core(other).up.state.office is None:
                self._core(other).up.state.last_heard_leader_us = None
        self._world.elapse(0)

    def do_propose(self, name: str, *words: str) -> None:
        self._core(name).up.propose([word.encode() for word in words])
        self._world.turn(name)

    def do_wait(self, duration: str) -> None:
        for _ in range(int(duration.removesuffix("ms")) * 1000 // STEP_US):
            self._world.elapse(STEP_US)
            self._settle()

    def do_snapshot(self, name: str) -> None:
        self.do_capture(name)
        self.do_store(name)

    def do_capture(self, name: str) -> None:
        assert self._world.capture(name), "there is nothing new"

    def do_store(self, name: str) -> None:
        file = self._core(name).captures[0]
        self._world.store_capture(name)
        base = self._core(name).up.state.log.base_index
        self._world.told.append(f"{name}: its snapshot {file.id.index} is in place, its log begins after {base}")

    def do_cut(self, one: str, other: str) -> None:
        self._cut |= {(one, other), (other, one)}

    def do_heal(self) -> None:
        self._cut = set()

    def do_hold(self, sender: str, arrow: str, receiver: str, kind: str) -> None:
        assert arrow == ">"
        self._holds.append((sender, receiver, kind))

    def do_release(self) -> None:
        going, self._held, self._holds = self._held, [], []
        self._world.mail += going

    def do_double(self) -> None:
        for mail in list(self._held):
            self._world.deliver(mail)

    def do_drop(self) -> None:
        going, self._held, self._holds = self._held, [], []
        for mail in going:
            self._world.fail(mail)

    def do_disk(self, name: str, what: str) -> None:
        self._hang(name, "disk", what == "hangs")

    def do_files(self, name: str, what: str) -> None:
        self._hang(name, "files", what == "hang")

    def do_spoil(self, name: str) -> None:
        self._spoilt.add(name)

    def do_crash(self, name: str) -> None:
        self._world.crash(name)

    def do_start(self, name: str) -> None:
        self._world.start(name)

    def do_show(self) -> None:
        for name, core in self._world.cores.items():
            if core.raft is None:
                self._world.told.append(f"{name}: down")
                continue
            raft, base = core.raft, core.raft.state.log.base_index
            log = " ".join(str(raft.term_at(index)) for index in range(base + 1, raft.last_index + 1)) or "nothing"
            members = " ".join(raft.configuration.members())
            where = f"commit {raft.commit_index}, applied {core.applied}, log after {base}: {log}; members {members}"
            self._world.told.append(f"{name}: {raft.role.value}, term {raft.term}, {where}")

    # -- leaves

    @property
    def _world(self) -> _Told:
        assert self.world is not None, "a scenario begins with its cores"
        return self.world

    def _core(self, name: str) -> Core:
        return self._world.cores[name]

    def _hang(self, name: str, what: str, hangs: bool) -> None:
        (self._hung.add if hangs else self._hung.discard)((name, what))
        self._settle()

    def _settle(self) -> None:
        """Until nothing more happens without time: mail arrives, disks and files answer."""
        for _ in range(_TURNS_MAX):
            if not (self._post() | self._work()):
                return
        raise AssertionError("it never comes to rest")

    def _post(self) -> bool:
        world = self._world
        letters, world.mail = world.mail, []
        for mail in letters:
            sender, receiver = str(mail.envelope.sender), str(mail.envelope.receiver)
            if (sender, receiver, type(mail.envelope.message).__name__) in self._holds:
                self._held.append(mail)
            elif (sender, receiver) in self._cut or self._core(receiver).raft is None:
                world.fail(mail)
            else:
                world.deliver(mail)
        return bool(letters)

    def _work(self) -> bool:
        world, did = self._world, False
        for name in world.up_names():
            core = self._core(name)
            if core.pending and (name, "disk") not in self._hung:
                world.finish_disk(name)
                did = True
            while core.log_reads:
                world.answer_log_read(name)
                did = True
            while core.reads:
                world.answer_read(name)
                did = True
            if (name, "files") in self._hung:
                continue
            while core.writes:
                world.answer_write(name, spoilt=name in self._spoilt)
                self._spoilt.discard(name)
                did = True
            if core.load is not None:
                world.finish_loading(name)
                did = True
        return did
