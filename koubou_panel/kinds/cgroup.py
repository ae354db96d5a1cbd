"""A cgroup of its own for one command, where the user may make one: exact limits for its whole process tree (Linux).

Version 1: a folder below the worker's own cgroup, in the hierarchies of `memory` and `pids`; that takes root.
Version 2: a folder in the nearest cgroup above the worker's that may be written to and shares out `memory`: what
systemd delegates to a user (`app.slice` of a session or of a user service), or a container to its root.

Whether a process may be moved there is tried once; where it may not, there is no cage and nothing is lost but
exactness. A folder's name ends in the pid of the worker that made it, so that what a killed worker left is known.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator

from msgspec import Struct

from koubou_panel.core.records import Job, Limits

PREFIX = "koubou-"
# `pids` counts threads, a limit counts processes: it only bounds a fork bomb until the workshop looks again.
THREADS_EACH = 64
REMOVE_LIMIT_S = 2.0
_CONTROLLERS = ("memory", "pids")


class Place(Struct, frozen=True):
    """A folder of a cgroup hierarchy in which cages can be made, and what it limits there."""

    folder: str
    version: int
    controllers: tuple[str, ...]


class Cage:
    """The cgroups of one run, one in each place.

    `bell` is a descriptor that becomes readable when memory has run out and `kill` is to be called, or None.
    """

    def __init__(self, places: list[Place], name: str, limits: Limits) -> None:
        """Make them.

        Raises:
            OSError: one cannot be made; nothing is left of the others.
        """
        self.bell: int | None = None
        self._has_rung = False
        self._made: list[tuple[Place, str]] = []
        self._doors: list[int] = []
        try:
            for place in places:
                folder = f"{place.folder}/{name}"
                os.mkdir(folder, 0o755)
                self._made.append((place, folder))
                _set_limits(place, folder, limits)
                if place.version == 1 and "memory" in place.controllers:
                    self.bell = _bell(folder)
                self._doors.append(os.open(f"{folder}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
        except OSError:
            self.remove()
            raise

    def enter(self, pid: int = 0) -> None:
        """Move the process `pid` in; 0: the caller, which may be between fork and exec."""
        for door in self._doors:
            os.write(door, b"%d" % pid)

    def kill(self) -> None:
        """Kill all that is inside, where the kernel (version 1) only kills the largest; when the bell has rung."""
        self._has_rung = True
        for _, folder in self._made:
            _kill(folder)

    def ran_out_of_memory(self) -> bool:
        """Whether a process inside was killed for memory."""
        if self._has_rung:
            return True
        for place, folder in self._made:
            if "memory" in place.controllers:
                counters = "memory.events" if place.version > 1 else "memory.oom_control"
                return _counter(f"{folder}/{counters}", "oom_kill") > 0
        return False

    def was_refused_processes(self) -> bool:
        """Whether a fork inside was refused."""
        return any(
            "pids" in place.controllers and _counter(f"{folder}/pids.events", "max") > 0
            for place, folder in self._made
        )

    def remove(self) -> None:
        """End what is still inside, and remove the folders."""
        for door in self._doors:
            os.close(door)
        self._doors.clear()
        if self.bell is not None:
            os.close(self.bell)
            self.bell = None
        for _, folder in self._made:
            _remove(folder)
        self._made.clear()


class Cages:
    """Makes cages, if this process may; that is found out when the first is wanted."""

    def __init__(self, *, mounts: str = "/proc/self/mountinfo", own: str = "/proc/self/cgroup") -> None:
        """Nothing is looked at yet."""
        self._sources = (mounts, own)
        self._places: list[Place] | None = None

    @property
    def places(self) -> list[Place]:
        """Where cages can be made; empty if nowhere."""
        if self._places is None:
            found = list(find_places(*self._sources))
            for place in found:
                sweep(place.folder)
            self._places = [place for place in found if _is_usable(place)]
        return self._places

    def cage(self, job: Job) -> Cage | None:
        """A cage for `job`, or None where it needs none or there can be none."""
        wanted = {
            "memory": job.limits.memory_bytes is not None,
            "pids": job.limits.processes is not None,
        }
        if not any(wanted.values()):
            return None
        places = [place for place in self.places if any(wanted[name] for name in place.controllers)]
        if not places:
            return None
        try:
            return Cage(places, _name(f"{job.task_id}.{job.run}"), job.limits)
        except OSError:
            return None


def find_places(mounts: str, own: str) -> Iterator[Place]:
    """Folders that look as if cages could be made in them, at most one for each controller."""
    try:
        with open(mounts) as file:
            mounted = [_mount(line) for line in file if " cgroup" in line]
        with open(own) as file:
            paths = dict(line.rstrip("\n").split(":", 2)[1:] for line in file)
    except (OSError, ValueError):
        return
    left = set(_CONTROLLERS)
    for root, folder, kind, options in mounted:
        names = tuple(name for name in _CONTROLLERS if name in options and name in left)
        if kind != "cgroup" or not names:
            continue
        path = next((path for key, path in paths.items() if names[0] in key.split(",")), None)
        here = None if path is None else _inside(root, folder, path)
        if here is not None and os.access(here, os.W_OK):
            left -= set(names)
            yield Place(here, 1, names)
    for root, folder, kind, _ in mounted:
        if kind == "cgroup2" and left and "" in paths:
            yield from _delegated(_inside(root, folder, paths[""]), folder, left)


def _mount(line: str) -> tuple[str, str, str, list[str]]:
    """(root, mount point, type, options) of a line of mountinfo."""
    before, _, after = line.partition(" - ")
    fields, rest = before.split(), after.split()
    point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4])
    return fields[3], point, rest[0], rest[2].split(",")


def _inside(root: str, folder: str, path: str) -> str | None:
    """The folder of cgroup `path` where `root` of its hierarchy is mounted at `folder`."""
    below = path if root == "/" else path.removeprefix(root)
    here = os.path.normpath(f"{folder}/{below}")
    return here if os.path.isdir(here) else None


def _delegated(here: str | None, top: str, left: set[str]) -> Iterator[Place]:
    """The nearest folder from `here` up to `top` that may be written to and shares out what is `left`."""
    while here is not None and here.startswith(top):
        shared = _read(f"{here}/cgroup.subtree_control").split()
        names = tuple(name for name in _CONTROLLERS if name in shared and name in left)
        if "memory" in names and os.access(here, os.W_OK):
            yield Place(here, 2, names)
            return
        here = os.path.dirname(here)


def _is_usable(place: Place) -> bool:
    """Whether a process can be moved into a cage there: it is tried."""
    try:
        cage = Cage([place], _name("try"), Limits(memory_bytes=1 << 30, processes=1))
    except OSError:
        return False
    try:
        # Nothing of the PATH: a user's may name no programs at all.
        with subprocess.Popen(["/bin/sh", "-c", "read line"], stdin=subprocess.PIPE) as child:
            try:
                cage.enter(child.pid)
            finally:
                child.kill()
    except OSError:
        return False
    else:
        return True
    finally:
        cage.remove()


def _set_limits(place: Place, folder: str, limits: Limits) -> None:
    if "memory" in place.controllers and limits.memory_bytes is not None:
        size = str(limits.memory_bytes)
        # Swapped out it would be as slow and no smaller; a kernel may have no account of swap, though.
        if place.version > 1:
            _write(f"{folder}/memory.max", size)
            with contextlib.suppress(OSError):
                _write(f"{folder}/memory.swap.max", "0")
            with contextlib.suppress(OSError):
                _write(f"{folder}/memory.oom.group", "1")
        else:
            _write(f"{folder}/memory.limit_in_bytes", size)
            with contextlib.suppress(OSError):
                _write(f"{folder}/memory.memsw.limit_in_bytes", size)
    if "pids" in place.controllers and limits.processes is not None:
        _write(f"{folder}/pids.max", str(limits.processes * THREADS_EACH))


def _name(what: str) -> str:
    return f"{PREFIX}{what}-{os.getpid()}"


def sweep(folder: str) -> None:
    """Remove the cages below `folder` that a worker made which is dead."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            pid = name.rpartition("-")[2]
            if name.startswith(PREFIX) and pid.isdigit() and not os.path.isdir(f"/proc/{pid}"):
                _remove(f"{folder}/{name}")


def _remove(folder: str) -> None:
    deadline = time.monotonic() + REMOVE_LIMIT_S
    while os.path.isdir(folder) and time.monotonic() < deadline:
        _kill(folder)
        try:
            os.rmdir(folder)
        except OSError:
            time.sleep(0.002)


def _kill(folder: str) -> None:
    for pid in _read(f"{folder}/cgroup.procs").split():
        if int(pid) > 0:  # 0 stands for a process that this one cannot see
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(pid), signal.SIGKILL)


def _bell(folder: str) -> int | None:
    """A descriptor that becomes readable when a version 1 cgroup is out of memory, where the kernel still has them."""
    bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        with open(f"{folder}/memory.oom_control", "rb") as control:
            _write(f"{folder}/cgroup.event_control", f"{bell} {control.fileno()}")
    except OSError:
        os.close(bell)
        return None
    return bell


def _counter(path: str, name: str) -> int:
    found = re.search(rf"^{name} (\d+)$", _read(path), re.MULTILINE)
    return int(found[1]) if found else 0


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
