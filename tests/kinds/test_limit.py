"""Limits from the inside: real commands and functions that want more than they may have."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from koubou_panel.core.records import Job, Limits, Outcome
from koubou_panel.kinds import limit as limit_module
from koubou_panel.kinds.cgroup import Cage, Cages, Place, find_places, sweep
from koubou_panel.kinds.function import FunctionKind
from koubou_panel.kinds.limit import memory_limit
from koubou_panel.kinds.packing import pack, pickled_arguments, pickled_function, unpack_value
from koubou_panel.kinds.script import ScriptKind

MB = 1 << 20
TAKE_ALL = "held = []\nwhile True: held.append(bytearray(8 << 20))"
TAKE_ALL_AND_CATCH = "import sys\ntry:\n    bytearray(4 << 30)\nexcept MemoryError:\n    sys.exit(3)"
BURN = "while True: pass"
needs_cgroups = pytest.mark.skipif(not Cages().places, reason="this user may make no cgroups here")


class Sink:
    """Output kept in memory."""

    def __init__(self) -> None:
        self.data = b""

    @property
    def size(self) -> int:
        return len(self.data)

    def write(self, data: bytes) -> None:
        self.data += data


class Context:
    def __init__(self) -> None:
        self.output = Sink()

    def progress(self, *args: object) -> None:
        """Not used here."""


class NoCages(Cages):
    """As on a machine where no cgroup may be made."""

    @property
    def places(self) -> list[Place]:
        return []


def run(*command: str, cages: Cages | None = None, **limits: float) -> Outcome:
    """Run a command within limits."""
    kind, context = ScriptKind(), Context()
    kind._cages = cages or kind._cages
    spec = kind.prepare({"command": list(command)}, b"").spec
    return kind.run(Job("t", 1, 0, "script", spec, b"", Limits(**limits)), context)


def call(function, *args, **limits) -> Outcome:
    """Call a function within limits."""
    payload = pack(pickled_function(function), pickled_arguments(args, {}), [])
    return FunctionKind().run(Job("t", 1, 0, "function", {}, payload, Limits(**limits)), Context())


def take(size):
    """Take memory and use it."""
    return len(b"\x01" * size)


class TooLarge(MemoryError):
    """As numpy has one."""


def fail_to_take():
    """As numpy fails."""
    raise TooLarge("unable to allocate an array")


def burn():
    """Use the processor a while."""
    return sum(range(3_000_000))


def start_nothing(*_: object, **__: object) -> None:
    """As where no process can be started."""
    raise FileNotFoundError(2, "No such file or directory")


def test_a_command_that_wants_too_much_memory_is_refused_it():
    """Without a cgroup the program meets a MemoryError of its own, and the reason says of which limit."""
    outcome = run(sys.executable, "-c", TAKE_ALL, cages=NoCages(), memory_bytes=200 * MB)
    assert (outcome.reason, outcome.exit_code) == ("memory", 1)
    assert outcome.message == "exited with code 1: it could get no more than its 200 MB of memory"
    assert outcome.result == "MemoryError"


def test_a_failure_of_another_kind_is_not_put_down_to_memory():
    """A limited command that fails for its own reasons says its own exit code; however large its worker is."""
    large = bytearray(b"x" * 300 * MB)
    outcome = run("sh", "-c", "exit 3", cages=NoCages(), memory_bytes=200 * MB, processes=10, cpu_s=5)
    assert (outcome.reason, outcome.message) == ("exit", "exited with code 3")
    assert outcome.usage.peak_rss_bytes is None
    del large


def test_libraries_may_reserve_more_than_they_use():
    """A limit on memory does not hit what is only reserved: importing numpy takes 25 MB and reserves 90."""
    outcome = run(sys.executable, "-c", "import numpy", cages=NoCages(), memory_bytes=60 * MB)
    assert outcome.reason is None


@needs_cgroups
def test_a_command_is_killed_at_its_memory_limit():
    """In a cgroup a hog is killed at its limit, and the reason says so."""
    outcome = run(sys.executable, "-c", TAKE_ALL, memory_bytes=100 * MB)
    assert (outcome.reason, outcome.message) == ("memory", "killed: reached its 100 MB memory limit")


@needs_cgroups
def test_a_tree_of_processes_is_counted_together():
    """In a cgroup, children that each stay below the limit are killed when together they do not."""
    child = f"{sys.executable} -c 'import time; held = bytearray(60 << 20); time.sleep(1)' & "
    outcome = run("sh", "-c", child * 3 + "wait; exit 7", memory_bytes=100 * MB)
    assert outcome.reason == "memory"


@needs_cgroups
def test_a_fork_bomb_is_contained():
    """In a cgroup no more processes can be started than the limit allows threads for; the failure says so."""
    script = "i=0; while [ $i -lt 200 ]; do sleep 60 & i=$((i + 1)); done"
    outcome = run("sh", "-c", script, processes=1)
    assert outcome.reason == "exit"
    assert "it could start no more processes, its limit is 1" in outcome.message


@needs_cgroups
def test_a_command_that_the_kernel_ended_for_memory_says_so():
    """Without a limit of its own a command that was killed when memory ran out says that it was."""
    cage = Cage(Cages().places, f"koubou-other-{os.getpid()}", Limits(memory_bytes=60 * MB))
    doors = "; ".join(f"echo $$ > {folder}/cgroup.procs" for _, folder in cage._made)
    outcome = run("sh", "-c", f'{doors}; exec "$0" -c "$1"', sys.executable, TAKE_ALL)
    cage.remove()
    said = "killed by signal 9 (SIGKILL), out of memory: the kernel ended it"
    assert (outcome.reason, outcome.message, outcome.exit_code) == ("memory", said, 137)


@needs_cgroups
@pytest.mark.parametrize("has_shell", [True, False])
def test_a_trial_that_cannot_be_made_is_no_error(monkeypatch, has_shell):
    """Whether cgroups may be used is found out without a PATH; where nothing starts they may not, and none is left."""
    monkeypatch.setenv("PATH", "/nowhere")
    if not has_shell:
        monkeypatch.setattr(subprocess, "Popen", start_nothing)
    cages = Cages()
    places = list(cages.places)
    assert bool(places) == has_shell
    for place in find_places("/proc/self/mountinfo", "/proc/self/cgroup"):
        assert not list(Path(place.folder).glob(f"koubou-try-{os.getpid()}"))


@needs_cgroups
def test_no_cgroup_is_left(tmp_path):
    """When a run has ended its cgroups are gone, with the daemon that it left inside."""
    script = f"setsid sleep 600 & echo $! > {tmp_path}/pid"
    assert run("sh", "-c", script, memory_bytes=100 * MB).reason is None
    for place in Cages().places:
        assert not list(Path(place.folder).glob(f"koubou-*-{os.getpid()}"))
    status = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


@needs_cgroups
def test_cgroups_of_a_dead_worker_are_swept():
    """What a killed worker left is removed by the next; what belongs to a live one stays."""
    place = Cages().places[0]
    left, ours = (Path(f"{place.folder}/koubou-t.1-{pid}") for pid in (2**22 + 1, os.getpid()))
    for folder in (left, ours):
        folder.mkdir()
    sweep(place.folder)
    assert (left.exists(), ours.exists()) == (False, True)
    ours.rmdir()


def test_a_command_is_ended_when_its_processor_time_is_used():
    """The limit of processor time ends a command that burns it, and the reason says so."""
    outcome = run(sys.executable, "-c", BURN, cpu_s=0.5)
    assert (outcome.reason, outcome.message) == ("killed", "killed: used its 0.5 s of processor time")
    assert 0.5 < outcome.usage.cpu_s < 3


def test_a_shell_that_tells_of_a_child_out_of_time_counts_the_same():
    """A child that used its time up is told of by its shell's exit code."""
    outcome = run("sh", "-c", f"{sys.executable} -c '{BURN}'; exit $?", cpu_s=1)
    assert outcome.message == "killed: used its 1 s of processor time"


def test_a_function_that_wants_too_much_memory_is_refused_it():
    """A function meets a MemoryError, its reason names the limit, and the worker has its memory back."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    outcome = call(take, 3 << 30, memory_bytes=100 * MB)
    assert (outcome.reason, outcome.message) == ("memory", "MemoryError: could get no more than its 100 MB")
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert call(take, 1 << 30).reason is None


@pytest.mark.parametrize(
    ("function", "args", "told"), [(take, (3 << 30,), "in take"), (fail_to_take, (), "unable to allocate")]
)
def test_the_caller_of_a_function_that_is_refused_memory_reads_of_the_limit(function, args, told):
    """Its future raises a MemoryError that names the limit; what the worker met stands in its cause."""
    outcome = call(function, *args, memory_bytes=100 * MB)
    with pytest.raises(MemoryError, match=r"^could get no more than its 100 MB$") as caught:
        unpack_value(outcome.value)
    assert told in str(caught.value.__cause__)
    assert outcome.error.message == str(caught.value)


def test_a_function_within_its_limit_succeeds():
    """A function may use what its limit allows, whatever its worker has reserved before."""
    assert call(take, 50 * MB, memory_bytes=100 * MB).reason is None


def test_a_function_is_not_refused_memory_for_what_others_left(monkeypatch):
    """The limit is of what a function adds to what its worker holds."""
    monkeypatch.setattr(limit_module, "room_bytes", lambda: 64 * MB)
    held = bytearray(b"x") * (300 * MB)
    assert call(take, 50 * MB, memory_bytes=100 * MB).reason is None
    assert len(held) == 300 * MB


def test_a_memory_error_without_a_limit_is_an_exception():
    """Nothing is said of a limit where there is none."""
    with memory_limit(50 * MB):
        outcome = call(take, 3 << 30)
    assert (outcome.reason, outcome.message) == ("exception", "MemoryError")


def test_a_function_tells_its_processor_time():
    """What a call used of the processor is on its outcome."""
    usage = call(burn).usage
    assert 0 < usage.cpu_s <= usage.duration_s + 0.1


def mounted(tmp_path: Path, *lines: str, own: str) -> list[Place]:
    """The places found where /proc says `lines` and `own`."""
    (tmp_path / "mounts").write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "own").write_text(own)
    return list(find_places(str(tmp_path / "mounts"), str(tmp_path / "own")))


def test_version_2_is_used_where_memory_is_shared_out_to_the_user(tmp_path):
    """The nearest folder above the worker's that may be written to and shares out memory is taken."""
    top = tmp_path / "cgroup"
    here = top / "user.slice" / "app.slice" / "term.scope"
    here.mkdir(parents=True)
    (here / "cgroup.subtree_control").write_text("")
    (here.parent / "cgroup.subtree_control").write_text("cpu memory pids\n")
    line = f"30 24 0:26 / {top} rw,nosuid - cgroup2 cgroup2 rw"
    assert mounted(tmp_path, line, own="0::/user.slice/app.slice/term.scope\n") == [
        Place(str(here.parent), 2, ("memory", "pids"))
    ]


def test_version_2_without_delegation_gives_no_place(tmp_path):
    """Where nothing is shared out, no cgroup is made."""
    (tmp_path / "cgroup" / "a").mkdir(parents=True)
    line = f"30 24 0:26 / {tmp_path}/cgroup rw - cgroup2 cgroup2 rw"
    assert mounted(tmp_path, line, own="0::/a\n") == []


def test_version_1_names_its_controllers_each(tmp_path):
    """In version 1 each controller has a hierarchy of its own, mounted where a container says."""
    for name in ("memory", "pids"):
        (tmp_path / name / "here").mkdir(parents=True)
    lines = [
        f"31 24 0:27 /docker/x {tmp_path}/memory rw - cgroup cgroup rw,memory",
        f"32 24 0:28 /docker/x {tmp_path}/pids rw - cgroup cgroup rw,pids",
        f"33 24 0:29 / {tmp_path}/unified rw - cgroup2 cgroup2 rw",
    ]
    own = "5:memory:/docker/x/here\n4:pids:/docker/x/here\n0::/\n"
    assert mounted(tmp_path, *lines, own=own) == [
        Place(f"{tmp_path}/memory/here", 1, ("memory",)),
        Place(f"{tmp_path}/pids/here", 1, ("pids",)),
    ]


def test_limits_of_version_2_are_written_as_the_kernel_reads_them(tmp_path, monkeypatch):
    """Memory without swap, ended as a whole, and threads for the processes."""
    place = Place(str(tmp_path), 2, ("memory", "pids"))
    real = os.mkdir

    def with_door(path, mode=0o777):
        real(path, mode)
        Path(path, "cgroup.procs").touch()

    monkeypatch.setattr(os, "mkdir", with_door)
    Cage([place], "koubou-x-1", Limits(memory_bytes=5 * MB, processes=2))
    made = tmp_path / "koubou-x-1"
    written = {path.name: path.read_text() for path in made.iterdir()}
    assert written == {
        "memory.max": str(5 * MB),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "128",
        "cgroup.procs": "",
    }
