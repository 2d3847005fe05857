"""Who does which block: several processes or machines on one folder, without a server between them.

A claim is a hard link to its owner's heartbeat file, put where nobody had one. While the owner lives it
writes a new number into that file every few seconds, and whoever reads a claim reads that number. An owner
is dead when the number has not changed for `lease_s` on the watcher's own clock, so clocks need not agree;
a watcher in the same boot and process namespace looks the process up instead, and need not wait. A dead
owner's claim is overtaken by linking the next generation, `block.1` over `block.0`: of many who try, one
wins, and nobody can take a claim away that was renewed after he looked.

An owner that was only slow finds its work done twice, never written twice: that is `ledger`'s part.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llava_next_video.caption.ledger import STATE
from llava_next_video.disk import put_if_absent

BEAT_S = 5.0
LEASE_S = 60.0
READS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A process, as its heartbeat file describes it; `place` is a boot and a process namespace."""

    name: str
    place: str
    pid: int
    started: str
    beat: int

    @property
    def gone(self) -> bool | None:
        """Whether the process has ended; None where that cannot be looked up."""
        if not self.place or self.place != _place():
            return None
        return _started(self.pid) != self.started


class Claims:
    """The claims of one process on blocks of one output folder.

    `inherit` is called with the name of a dead owner before anything is taken from it.
    """

    def __init__(self, folder: Path, *, beat_s: float = BEAT_S, lease_s: float = LEASE_S) -> None:
        """Join in: from now on the others see us."""
        self.inherit: Callable[[str], object] = lambda owner: None
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._state = folder / STATE
        self._claims = self._state / "claims"
        self._claims.mkdir(parents=True, exist_ok=True)
        self._file = self._state / f"{self.name}.owner"
        self._lease_s = lease_s
        self._beats = 0
        self._seen: dict[
            str, tuple[int, float]
        ] = {}  # the last number of an owner, and when we saw it change
        self._ours: dict[str, Path] = {}
        self._stop = threading.Event()
        self._beat()
        self._thread = threading.Thread(target=self._beat_on, args=(beat_s,), name="heartbeat", daemon=True)
        self._thread.start()

    def take(self, block: str) -> Owner | None:
        """Claim a block, over the dead if need be; gives its owner if that lives, or may live."""
        generation = 0
        while True:
            path = self._claims / f"{block}.{generation}"
            if self._link(path):
                self._ours[block] = path
                return None
            owner = read_owner(path)
            if owner is not None and owner.name == self.name:
                return None
            if owner is not None and not self.dead(owner):
                return owner
            if owner is not None:  # without one, it was given up just now
                self._bury(owner)
                generation += 1

    def release(self, block: str) -> None:
        """Give a block up, with the claims of the dead that it overtook."""
        newest = self._ours.pop(block)
        for generation in range(int(newest.suffix[1:]) + 1):
            newest.with_suffix(f".{generation}").unlink(missing_ok=True)

    def owners(self) -> list[Owner]:
        """The other processes that work here, or died here, also those of whom only a journal is left."""
        names = {path.stem for ending in ("owner", "jsonl") for path in self._state.glob(f"*.{ending}")}
        found = {name: read_owner(self._state / f"{name}.owner") for name in sorted(names - {self.name})}
        return [owner or _unknown(name) for name, owner in found.items()]

    def dead(self, owner: Owner) -> bool:
        """Whether an owner will never come back; takes a lease to find out about other machines."""
        if (gone := owner.gone) is not None:
            return gone
        now = time.monotonic()
        beat, since = self._seen.get(owner.name, (-1, now))
        if beat != owner.beat:
            since = now
        self._seen[owner.name] = (owner.beat, since)
        return now - since > self._lease_s

    def bury_dead(self) -> list[Owner]:
        """Look at the other processes: inherit from the dead, and give the living (or not yet known)."""
        living = []
        for owner in self.owners():
            if self.dead(owner):
                self._bury(owner)
            else:
                living.append(owner)
        return living

    def stop(self) -> None:
        """Be silent from now on, like a dead process, and leave everything to whoever comes next."""
        self._stop.set()
        self._thread.join()

    def close(self) -> None:
        """Leave: give up all claims."""
        self.stop()
        for block in list(self._ours):
            self.release(block)
        self._file.unlink(missing_ok=True)

    def _bury(self, owner: Owner) -> None:
        self.inherit(owner.name)
        (self._state / f"{owner.name}.owner").unlink(missing_ok=True)

    def _link(self, target: Path) -> bool:
        try:
            return put_if_absent(self._file, target)
        except FileNotFoundError:  # somebody took us for dead and buried us
            self._beat()
            return put_if_absent(self._file, target)

    def _beat_on(self, beat_s: float) -> None:
        while not self._stop.wait(beat_s):
            with contextlib.suppress(OSError):  # a full disk makes us look dead, which we soon are
                self._beat()

    def _beat(self) -> None:
        """Write the next number in place, so that all links to the file show it."""
        self._beats += 1
        text = json.dumps(
            {
                "name": self.name,
                "place": _place(),
                "pid": os.getpid(),
                "started": _started(os.getpid()),
                "beat": self._beats,
            }
        )
        descriptor = os.open(self._file, os.O_CREAT | os.O_WRONLY, 0o666)
        try:
            os.pwrite(descriptor, f"{text:<400}\n".encode(), 0)
        finally:
            os.close(descriptor)


def read_owner(path: Path) -> Owner | None:
    """The owner behind a heartbeat file or claim; None if it is gone.

    What a power cut left empty has an owner without a pulse; a lease later it is dead.
    """
    for _ in range(READS):
        try:
            return Owner(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            time.sleep(0.01)  # it was just being written
    return _unknown(path.stem)


def _unknown(name: str) -> Owner:
    return Owner(name=name, place="", pid=0, started="", beat=0)


def _place() -> str:
    """This boot and process namespace; empty where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process started, in the system's ticks; empty if there is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = status.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]  # state, and field 22 of proc_pid_stat(5)
