"""The guard: one small process above each worker that sees to it that nothing of a task outlives its end.

It is run as a file (`python -I -S guard.py CONTROL_FD PASS_FDS OPEN_FILES ARGV…`) and imports the standard library
alone. OPEN_FILES is how many files the worker may have open; 0: as many as the guard.
It starts the worker, adopts every orphan below it (child subreaper), and obeys one letter at a time on its
control socket:

    t  end the task's processes (all but the worker): TERM, after 5 s KILL
    m  KILL the task's processes now, and spare the worker
    d  the run has ended: no KILL is due any more; answer `done`, as no signal of an earlier letter is to come
    w  end the worker too: TERM, after 5 s KILL
    k  KILL everything now
    f  stop the worker where it is (SIGSTOP), and answer `frozen` once it has stopped
    g  let it go on, unless it was stopped before

TERM is followed by CONT, so that what was stopped takes its end too. An order to end may come before the run that it is
for has started anything: until `d`, what is born where nobody is left that was told is told as well, and after the KILL
it is killed.

End of file means that the workshop is gone: everything is killed. When the worker ends, what is left below is
killed, and the worker's end is written back as `exit N` or `signal N`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time

GRACE_S = 5.0
LOOK_AGAIN_S = 0.02
FREEZE_LIMIT_S = 1.0
MOST_LOOKS = 10
STOPPED = (b"T", b"t")
# Of 1,000: a task counts as if it used so much more of the host's memory than it does.
OOM_SCORE_ADJ = 300
NICE = 5
_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> bool:
    """Adopt every orphan below this process (Linux); False where the platform cannot."""
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        return bool(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError, ImportError):
        return False


def offer_to_oom_killer() -> None:
    """Let the kernel choose this process, and what comes from it, before others of its size when memory runs out.

    A task may have taken it all; the workshop, and whoever else uses the machine, have not.
    """
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "r+") as file:
        before = int(file.read())
        file.seek(0)
        file.write(str(max(before, OOM_SCORE_ADJ)))


def give_way() -> None:
    """Let the workshop, and whoever else uses the machine, go first when there is more to do than it has cores.

    Else an answer of the workshop waits behind tasks that compute: 20 ms and more on two busy cores, measured. Where
    Linux shares the cores out by session first (autogroup), a session's own niceness counts, and not the processes'.
    """
    nice = os.nice(NICE)
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as file:
        file.write(str(nice))


def limit_open_files(most: int) -> None:
    """How many files this process may open from now on (programs that use `select` break above 1,024); 0: as it is."""
    if most:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _parents() -> dict[int, int]:
    """Parent pid by pid, of every live process (zombies left out)."""
    if not os.path.isdir("/proc/self"):
        return _parents_by_ps()
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] not in (b"Z", b"X"):
            parents[int(name)] = int(fields[1])
    return parents


def _parents_by_ps() -> dict[int, int]:
    import subprocess

    listing = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, check=False).stdout
    rows = (line.split() for line in listing.splitlines())
    return {int(row[0]): int(row[1]) for row in rows if row[1:]}


def descendants(root: int, *, spare: int = 0) -> list[int]:
    """Live processes below `root`, nearest first; `spare` is left out, what is below it is not."""
    below = _below if os.path.exists(f"/proc/{root}/task/{root}/children") else _below_by_parents
    return [pid for pid in below(root) if pid != spare]


def _below(root: int) -> list[int]:
    """As `descendants`, from the tree alone: what else the machine runs costs nothing.

    Who dies meanwhile leaves children to somebody who may have been looked at already: it is looked again then.
    """
    found, known = _look_below(root)
    for _ in range(MOST_LOOKS):
        if not known:
            break
        found, gone = _look_below(root)
        if gone <= known:
            break
        known |= gone
    return found


def _look_below(root: int) -> tuple[list[int], set[int]]:
    """The live processes of one look, and the processes and threads that it found dead."""
    found: list[int] = []
    gone: set[int] = set()
    level = [root]
    while level:
        below: list[int] = []
        for parent in level:
            children, ended = _children(parent)
            gone |= ended
            # Asked after its children: they were its own for as long as it lived.
            if parent != root and _is_zombie(parent):
                gone.add(parent)
            elif parent != root:
                found.append(parent)
            below += children
        level = below
    return found, gone


def _children(parent: int) -> tuple[list[int], set[int]]:
    """Who was started by any thread of `parent`, zombies too; and which threads ended meanwhile."""
    found: list[int] = []
    ended: set[int] = set()
    try:
        threads = os.listdir(f"/proc/{parent}/task")
    except OSError:
        return [], {parent}
    for thread in threads:
        try:
            with open(f"/proc/{parent}/task/{thread}/children", "rb") as file:
                found += [int(pid) for pid in file.read().split()]
        except OSError:
            ended.add(int(thread))
    return found, ended


def _below_by_parents(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, parent in _parents().items():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    level = [root]
    while level:
        level = [pid for parent in level for pid in children.get(parent, ())]
        found += level
    return found


def send(pids: list[int], number: int) -> None:
    """Send a signal to each; those that are gone are passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def kill_below(root: int, *, spare: int = 0, waited: int = 0, limit_s: float = 10.0) -> bool:
    """KILL everything below `root` until nothing is left; False if something could not be ended in time.

    `spare` is let live; the child `waited` is killed, but its end is left for the caller to collect.
    """
    deadline = time.monotonic() + limit_s
    while True:
        left = descendants(root, spare=spare)
        if not left:
            return True
        if time.monotonic() > deadline:
            return False
        send(left, signal.SIGKILL)
        reap(but=waited)
        time.sleep(0.002)


def reap(*, but: int = 0) -> None:
    """Collect the orphans that ended, except the child `but`, whose end its parent waits for by name."""
    for pid in _children(os.getpid())[0]:
        if pid != but and _is_zombie(pid):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _is_zombie(pid: int) -> bool:
    return _state(pid) in (b"Z", b"X", b"")


def _state(pid: int) -> bytes:
    """The letter of a process's state, of its main thread; empty if there is none, or no `/proc`."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0]
    except OSError:
        return b""


class Guard:
    """The loop of the guard process."""

    def __init__(self, control: socket.socket, worker: int, wake: int) -> None:
        """Watch over `worker`, obeying `control`; `wake` becomes readable when a child ends."""
        self.control = control
        self.worker = worker
        self.wake = wake
        self.kill_at: float | None = None
        self.told: set[int] = set()
        self.spare = 0
        self.is_frozen = False
        self.me = os.getpid()
        # Not `select`: the number of an inherited descriptor is 1,024 or more where there are many workers.
        self.poll = select.poll()
        self.poll.register(control.fileno(), select.POLLIN)
        self.poll.register(wake, select.POLLIN)

    def run(self) -> None:
        """Until the worker has ended and nothing is left below."""
        while True:
            status = self._worker_status()
            if status is not None:
                kill_below(self.me)
                self._answer(status)
                return
            self._wait_once()

    def _wait_once(self) -> None:
        wait_ms = None if self.kill_at is None else LOOK_AGAIN_S * 1000
        readable = {fd for fd, _ in self.poll.poll(wait_ms)}
        if self.wake in readable:
            os.read(self.wake, 4096)
        if self.control.fileno() in readable:
            self._obey(self.control.recv(64))
        elif self.kill_at is not None and time.monotonic() >= self.kill_at:
            kill_below(self.me, spare=self.spare, waited=self.worker)
        elif self.kill_at is not None:
            self._tell_newborn()

    def _tell_newborn(self) -> None:
        """Send TERM to what was born since, unless it may be the doing of one that was told, and has not ended yet."""
        below = descendants(self.me, spare=self.spare)
        if self.told.isdisjoint(below):
            self._tell(below)

    def _tell(self, below: list[int]) -> None:
        """Send TERM to these, and have what is stopped take it."""
        self.told = set(below)
        send(below, signal.SIGTERM)
        send(below, signal.SIGCONT)

    def _obey(self, letters: bytes) -> None:
        if not letters:
            kill_below(self.me)
            os._exit(0)
        for letter in letters.decode("ascii", "replace"):
            if letter in "tw":
                self.spare = self.worker if letter == "t" else 0
                self._tell(descendants(self.me, spare=self.spare))
                self.kill_at = time.monotonic() + GRACE_S
            elif letter == "m":
                kill_below(self.me, spare=self.worker, waited=self.worker)
            elif letter == "d":
                self.kill_at = None
                self._answer(b"done\n")
            elif letter == "k":
                kill_below(self.me, waited=self.worker)
            elif letter == "f":
                self._freeze()
            elif letter == "g":
                self._thaw()

    def _freeze(self) -> None:
        if _state(self.worker) not in STOPPED:
            self.is_frozen = True
            send([self.worker], signal.SIGSTOP)
        deadline = time.monotonic() + FREEZE_LIMIT_S
        while _state(self.worker) not in STOPPED:
            if time.monotonic() > deadline:
                self._thaw()
                return
            time.sleep(0.001)
        self._answer(b"frozen\n")

    def _answer(self, word: bytes) -> None:
        with contextlib.suppress(OSError):
            self.control.sendall(word)

    def _thaw(self) -> None:
        if self.is_frozen:
            self.is_frozen = False
            send([self.worker], signal.SIGCONT)

    def _worker_status(self) -> bytes | None:
        """How the worker ended, or None while it lives; other children that ended are collected."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return b"exit 255"
            if pid == 0:
                return None
            if pid == self.worker:
                code = os.waitstatus_to_exitcode(status)
                return b"exit %d" % code if code >= 0 else b"signal %d" % -code


def main(argv: list[str]) -> None:
    """Start the worker `argv[3:]` with the descriptors `argv[1]` (comma-separated) and guard it."""
    control = socket.socket(fileno=int(argv[0]))
    control.set_inheritable(False)
    kept = {int(fd) for fd in argv[1].split(",")}
    become_subreaper()
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    worker = os.fork()
    if worker == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        offer_to_oom_killer()
        give_way()
        for fd in kept:
            os.set_inheritable(fd, True)  # noqa: FBT003 - the standard library's own signature
        limit_open_files(int(argv[2]))
        os.execv(argv[3], argv[3:])
    # Not before: a worker that is to end at once must not be deaf to it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for fd in kept:
        os.close(fd)
    Guard(control, worker, read_end).run()


if __name__ == "__main__":
    main(sys.argv[1:])
