"""The guard: nothing below it outlives its worker, its workshop, or an order to end."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from koubou_panel.engines import guard

MANY = 1_500

HOSTILE = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        open(sys.argv[1] + ".daemon", "w").write(str(os.getpid()))
        time.sleep(600)
    time.sleep(600)
open(sys.argv[1] + ".main", "w").write(str(os.getpid()))
time.sleep(600)
"""


class Guarded:
    """A real guard process above a real worker process."""

    def __init__(self, *argv: str, least_fd: int = 0, open_files: int = 0) -> None:
        self.control, first = socket.socketpair()
        theirs = socket.socket(fileno=fcntl.fcntl(first, fcntl.F_DUPFD_CLOEXEC, least_fd))
        first.close()
        spare, worker_end = socket.socketpair()
        spare.close()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                guard.__file__,
                str(theirs.fileno()),
                str(worker_end.fileno()),
                str(open_files),
                *argv,
            ],
            pass_fds=(theirs.fileno(), worker_end.fileno()),
            start_new_session=True,
        )
        theirs.close()
        worker_end.close()
        self.control.settimeout(20)

    def status(self) -> bytes:
        """What the guard says of the worker's end."""
        return self.control.recv(64)


@pytest.fixture
def start() -> Iterator[Callable[..., Guarded]]:
    """Starts guards, and ends them with the test."""
    started: list[Guarded] = []

    def make(*argv: str, **options: int) -> Guarded:
        started.append(Guarded(*argv, **options))
        return started[-1]

    yield make
    for one in started:
        one.control.close()
        one.process.wait(10)


def read_pid(path: Path) -> int:
    """The pid that a process writes into `path`."""
    wait_for(lambda: path.exists() and path.read_text().isdigit())
    return int(path.read_text())


def wait_for(condition: Callable[[], object], limit_s: float = 10.0) -> None:
    """Wait for a condition of another process."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def is_alive(pid: int) -> bool:
    """Whether a process lives (a zombie does not)."""
    return pid in guard._parents()


def test_tells_the_exit_code(start):
    """A worker that exits is told with its code."""
    assert start("/bin/sh", "-c", "exit 7").status() == b"exit 7"


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= MANY, reason="no descriptor has so high a number here"
)
def test_works_below_a_workshop_with_many_descriptors(start):
    """The number of an inherited descriptor is beyond what `select` can take, as with two hundred workers."""
    one = start("/bin/sh", "-c", "exec sleep 60", least_fd=MANY)
    one.control.sendall(b"w")
    assert one.status() == b"signal 15"


@pytest.mark.parametrize("most", [0, 100])
def test_sets_how_many_files_the_worker_may_open(start, tmp_path, most):
    """The worker has a limit of its own where one is named, and else the guard's."""
    assert start("/bin/sh", "-c", f"ulimit -Sn > {tmp_path}/most", open_files=most).status() == b"exit 0"
    expected = most or resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert (tmp_path / "most").read_text().strip() in (str(expected), "unlimited")


def test_tells_the_signal(start):
    """A worker that is killed is told with its signal."""
    assert start("/bin/sh", "-c", "kill -SEGV $$").status() == b"signal 11"


def test_daemons_do_not_outlive_the_worker(start, tmp_path):
    """What the worker left behind, in a session of its own and deaf to TERM, is gone when its end is told."""
    mark = tmp_path / "p"
    one = start(
        "/bin/sh",
        "-c",
        f'"{sys.executable}" -c "$0" {mark} & while [ ! -s {mark}.daemon ] || [ ! -s {mark}.main ]; do :; done',
        HOSTILE,
    )
    assert one.status() == b"exit 0"
    assert not is_alive(read_pid(Path(f"{mark}.daemon")))
    assert not is_alive(read_pid(Path(f"{mark}.main")))


def test_end_of_file_kills_everything(start, tmp_path):
    """When the workshop's end of the control socket closes, nothing is left within two seconds."""
    mark = tmp_path / "p"
    one = start(sys.executable, "-c", HOSTILE, str(mark))
    pids = [read_pid(Path(f"{mark}.daemon")), read_pid(Path(f"{mark}.main"))]
    one.control.close()
    wait_for(lambda: not any(map(is_alive, pids)), 2.0)


def test_ends_the_task_and_spares_the_worker(start, tmp_path):
    """The letter t ends what is below the worker, and not the worker."""
    script = f"echo $$ > {tmp_path}/w; sleep 600 & echo $! > {tmp_path}/t; wait; kill -STOP $$"
    one = start("/bin/sh", "-c", script)
    wait_for(lambda: (tmp_path / "t").exists() and (tmp_path / "t").read_text().strip().isdigit())
    task, worker = int((tmp_path / "t").read_text()), int((tmp_path / "w").read_text())
    one.control.send(b"t")
    wait_for(lambda: not is_alive(task))
    assert is_alive(worker)
    os.kill(worker, signal.SIGKILL)
    assert one.status() == b"signal 9"


def test_ends_a_task_that_is_born_after_the_letter(start, tmp_path):
    """A command whose run was stopped before it was started takes TERM when it is, not KILL after the grace."""
    os.mkfifo(tmp_path / "go")
    script = f"read x < {tmp_path}/go; sleep 600; echo $? > {tmp_path}/how; kill -STOP $$"
    one = start("/bin/sh", "-c", script)
    one.control.sendall(b"tfg")
    assert one.status() == b"frozen\n"  # after what the letter t asked
    (tmp_path / "go").write_text("go\n")
    wait_for(lambda: (tmp_path / "how").exists() and (tmp_path / "how").read_text(), guard.GRACE_S - 1)
    assert int((tmp_path / "how").read_text()) == 128 + signal.SIGTERM


def test_what_a_task_starts_at_its_end_may_run(start, tmp_path):
    """A command that was told to end may start others to clean up; they are not told within its grace."""
    clean = f"sleep 0.2; echo $? > {tmp_path}/how"
    command = f"trap '{clean}; exit' TERM; echo $$ > {tmp_path}/t; sleep 600 & wait"
    one = start("/bin/sh", "-c", 'sh -c "$0"; kill -STOP $$', command)
    wait_for(lambda: (tmp_path / "t").exists() and (tmp_path / "t").read_text())
    one.control.sendall(b"t")
    wait_for(lambda: (tmp_path / "how").exists() and (tmp_path / "how").read_text())
    assert int((tmp_path / "how").read_text()) == 0


def test_kills_what_ignores_term(start, tmp_path):
    """What ignores TERM is killed after the grace of five seconds."""
    mark = tmp_path / "p"
    one = start(sys.executable, "-c", HOSTILE, str(mark))
    read_pid(Path(f"{mark}.daemon"))
    began = time.monotonic()
    one.control.send(b"w")
    assert one.status() == b"signal 9"
    assert guard.GRACE_S - 0.5 < time.monotonic() - began < guard.GRACE_S + 3


def test_kills_the_task_at_once_and_spares_the_worker(start, tmp_path):
    """The letter m gives no grace to what ignores TERM, and lets the worker live."""
    mark = tmp_path / "p"
    script = f'echo $$ > {tmp_path}/w; "{sys.executable}" -c "$0" {mark} & wait; kill -STOP $$'
    one = start("/bin/sh", "-c", script, HOSTILE)
    pids = [read_pid(Path(f"{mark}.daemon")), read_pid(Path(f"{mark}.main"))]
    one.control.send(b"m")
    wait_for(lambda: not any(map(is_alive, pids)), guard.GRACE_S - 1)
    worker = int((tmp_path / "w").read_text())
    assert is_alive(worker)
    os.kill(worker, signal.SIGKILL)
    assert one.status() == b"signal 9"


@pytest.mark.parametrize("hold", ["os.kill(os.getpid(), signal.SIGSTOP)", "ctypes.PyDLL(None).sleep(600)"])
def test_a_worker_that_cannot_act_takes_its_end_at_once(start, tmp_path, hold):
    """TERM with CONT ends a stopped worker, and one that holds the interpreter's lock, without grace."""
    code = f"import ctypes, os, signal; open('{tmp_path}/w', 'w').write(str(os.getpid())); {hold}"
    one = start(sys.executable, "-c", code)
    read_pid(tmp_path / "w")
    began = time.monotonic()
    one.control.send(b"w")
    assert one.status() == b"signal 15"
    assert time.monotonic() - began < guard.GRACE_S - 1


def test_says_when_no_signal_is_to_come_any_more(start, tmp_path):
    """The answer to the letter d comes after what an earlier letter asked: all it was to hit is hit."""
    one = start("/bin/sh", "-c", f"sleep 600 & echo $! > {tmp_path}/t; wait; exec sleep 600")
    wait_for(lambda: (tmp_path / "t").exists() and (tmp_path / "t").read_text().strip().isdigit())
    one.control.sendall(b"md")
    assert one.status() == b"done\n"
    assert not is_alive(int((tmp_path / "t").read_text()))


CROWD = """
import os, sys, threading, time
def thread():
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
        time.sleep(600)
    time.sleep(600)
for _ in range(3):
    threading.Thread(target=thread, daemon=True).start()
if os.fork() == 0:
    os._exit(0)
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(600)
"""


@pytest.mark.skipif(not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="Linux only")
def test_finds_the_same_tree_from_above_as_in_the_list_of_all(start, tmp_path):
    """Children of threads, grandchildren in sessions of their own, and no zombies."""
    one = start(sys.executable, "-c", CROWD, str(tmp_path / "w"))
    worker = read_pid(tmp_path / "w")
    wait_for(lambda: len(guard._below_by_parents(one.process.pid)) == 7)
    wait_for(lambda: any(map(guard._is_zombie, guard._children(worker)[0])))
    assert sorted(guard._below(one.process.pid)) == sorted(guard._below_by_parents(one.process.pid))
    assert guard.descendants(one.process.pid)[0] == worker
    assert worker not in guard.descendants(one.process.pid, spare=worker)


def test_who_dies_under_the_look_hides_nobody(monkeypatch):
    """A process whose parent ends while the tree is looked at has moved to where was looked before."""
    tree = {1: [2], 2: [3], 3: []}

    def children(parent: int) -> tuple[list[int], set[int]]:
        if parent == 2 and 3 not in tree[1]:
            tree.update({1: [2, 3], 2: []})  # 2 dies just now
        return tree[parent], set()

    monkeypatch.setattr(guard, "_children", children)
    monkeypatch.setattr(guard, "_is_zombie", lambda pid: pid == 2 and 3 in tree[1])
    assert guard._below(1) == [3]


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="Linux only")
def test_tasks_are_the_kernels_first_choice_when_memory_runs_out(start, tmp_path):
    """What runs below a guard is chosen by the kernel before the workshop is."""
    one = start("/bin/sh", "-c", f"cat /proc/self/oom_score_adj > {tmp_path}/adj")
    assert one.status() == b"exit 0"
    assert int((tmp_path / "adj").read_text()) >= guard.OOM_SCORE_ADJ


def test_freezes_the_worker_and_lets_it_go_on(start, tmp_path):
    """The letter f stops the worker and says so once it is; g lets it go on."""
    one = start("/bin/sh", "-c", f"echo $$ > {tmp_path}/w; exec sleep 600")
    wait_for(lambda: (tmp_path / "w").exists() and (tmp_path / "w").read_text().strip().isdigit())
    worker = int((tmp_path / "w").read_text())
    one.control.send(b"f")
    assert one.status() == b"frozen\n"
    assert guard._state(worker) == b"T"
    one.control.send(b"g")
    wait_for(lambda: guard._state(worker) == b"S")
    os.kill(worker, signal.SIGKILL)
    assert one.status() == b"signal 9"


def test_leaves_stopped_whom_somebody_else_stopped(start, tmp_path):
    """A worker that was stopped before the letter f stays so after g."""
    one = start("/bin/sh", "-c", f"echo $$ > {tmp_path}/w; kill -STOP $$")
    wait_for(lambda: (tmp_path / "w").exists() and (tmp_path / "w").read_text().strip().isdigit())
    worker = int((tmp_path / "w").read_text())
    wait_for(lambda: guard._state(worker) == b"T")
    one.control.send(b"fg")
    assert one.status() == b"frozen\n"
    one.control.send(b"f")
    assert one.status() == b"frozen\n"
    assert guard._state(worker) == b"T"
    one.control.send(b"k")
    assert one.status() == b"signal 9"
