"""Kind `script`: a command, as a list of arguments; never a shell string. Output is kept byte for byte.

spec: `{"command": [ARGV…], "cwd": …, "env": {…}, "pty": false, "stdin": false}`. Python programs are asked not to
buffer. With `stdin` the command can be sent input while it runs, and waits for it; with `pty` it has a terminal, which
can be typed at; else its input is empty. A run of the catalogue names its `file`, without which it does not start, and
when it was due (`fire_at`).
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import resource
import select
import shlex
import signal
import subprocess
import termios
import time
from collections.abc import Mapping

from koubou_panel.core.environment import names_a_python
from koubou_panel.core.ports import Prepared, RunContext
from koubou_panel.core.records import Job, Outcome, Reason, Usage
from koubou_panel.core.suggest import nearest
from koubou_panel.errors import Refused
from koubou_panel.kinds.cgroup import Cages
from koubou_panel.kinds.limit import Fence
from koubou_panel.kinds.program import program_name
from koubou_panel.kinds.stdin import Feeder

CHUNK_BYTES = 1 << 16
TAIL_BYTES = 1 << 10
PIPE_BYTES = 1 << 20  # the most that Linux gives an ordinary user's pipe
FIELDS = ("command", "cwd", "env", "pty", "stdin", "file", "fire_at")
NOT_FOUND, NOT_EXECUTABLE = 127, 126
MISSING = "no such script"


class ScriptKind:
    """A command in a process tree of its own."""

    name = "script"
    from_network = True
    batches = False
    shares_worker = False

    def __init__(self) -> None:
        """Nothing is known yet of what this process may limit."""
        self._cages = Cages()

    def prepare(self, spec: Mapping[str, object], payload: bytes) -> Prepared:
        """Check a spec; the name is the program's (see `program_name`), the summary the command line."""
        if payload:
            raise Refused("invalid", "a script takes no payload", field="payload")
        for field in spec:
            if field not in FIELDS:
                near = nearest(field, FIELDS)
                hint = f"; did you mean {near!r}?" if near else f"; known: {', '.join(FIELDS)}"
                raise Refused("invalid", f"unknown field spec.{field}{hint}", field=f"spec.{field}")
        command = _command(spec.get("command"))
        checked: dict[str, object] = {"command": command}
        if spec.get("cwd") is not None:
            checked["cwd"] = _text(spec["cwd"], "spec.cwd")
        if spec.get("env"):
            checked["env"] = _env(spec["env"])
        if spec.get("file") is not None:
            checked["file"] = _text(spec["file"], "spec.file")
        if spec.get("fire_at") is not None:
            checked["fire_at"] = _moment(spec["fire_at"])
        for name in ("pty", "stdin"):
            if not isinstance(spec.get(name, False), bool):
                raise Refused("invalid", f"spec.{name} must be true or false", field=f"spec.{name}")
            if spec.get(name):
                checked[name] = True
        line = shlex.join(command)
        return Prepared(checked, program_name(command), line[:100])

    def run(self, job: Job, context: RunContext) -> Outcome:
        """Run the command to its end."""
        fence = Fence(job, self._cages)
        try:
            return self._run(job, context, fence)
        finally:
            fence.close()

    def _run(self, job: Job, context: RunContext, fence: Fence) -> Outcome:
        started = time.monotonic()
        try:
            process, fd, input_fd = _start(job, fence)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            message, code = _why_not(job.spec, error)
            return Outcome(job.task_id, job.run, "start", message, code)
        born_with_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        tail = _Tail()
        usage_of = _follow(process, fd, context, tail, input_fd=input_fd, fence=fence)
        os.close(fd)
        code, rusage = usage_of
        # A child begins with its parent's largest resident set as its own: up to that it says nothing.
        peak_rss_bytes = rusage.ru_maxrss * 1024 if rusage.ru_maxrss > born_with_kb else None
        usage = Usage(
            cpu_s=round(rusage.ru_utime + rusage.ru_stime, 3),
            peak_rss_bytes=peak_rss_bytes,
            duration_s=round(time.monotonic() - started, 6),
        )
        reason, message, exit_code = _ending(code)
        if reason is not None:
            reason, message = fence.reason(code, usage, message, tail.text()) or (reason, message)
        return Outcome(job.task_id, job.run, reason, message, exit_code, tail.last_line(), usage=usage)


def _command(value: object) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(arg, str) for arg in value):
        raise Refused(
            "invalid",
            'spec.command must be a non-empty list of strings, such as ["python", "train.py"]',
            field="spec.command",
        )
    if not value[0]:
        raise Refused("invalid", "spec.command names no program", field="spec.command")
    if any("\0" in arg for arg in value):
        raise Refused("invalid", "spec.command must not contain NUL", field="spec.command")
    return list(value)


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise Refused("invalid", f"{field} must be a string", field=field)
    return value


def _moment(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Refused("invalid", "spec.fire_at must be UTC seconds", field="spec.fire_at")
    return float(value)


def _env(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Refused("invalid", "spec.env must be an object of strings", field="spec.env")
    for key, text in value.items():
        if not isinstance(key, str) or not key or "=" in key or "\0" in key:
            raise Refused("invalid", f"spec.env has a bad name {key!r}", field="spec.env")
        _text(text, f"spec.env.{key}")
    return dict(value)


def environment(spec: Mapping[str, object]) -> dict[str, str]:
    """The environment of a run: the worker's own allow-list, the task's over it, no `KOUBOU_*` but those of `about`.

    A task with a `PATH` of its own is not told of the environment that the workshop was started in.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith("KOUBOU_")}
    env["PYTHONUNBUFFERED"] = "1"
    own = spec.get("env")
    if isinstance(own, dict):
        if "PATH" in own:
            env = {key: value for key, value in env.items() if not names_a_python(key)}
        env.update({key: value for key, value in own.items() if not key.startswith("KOUBOU_")})
    return env


def about(job: Job, output_fd: int) -> dict[str, str]:
    """What a command is told of its run: its task, the attempt, the file of its output, and when it was due."""
    stat = os.fstat(output_fd)
    fire_at = job.spec.get("fire_at")
    due = {} if fire_at is None else {"KOUBOU_FIRE_AT": repr(fire_at)}
    return due | {
        "KOUBOU_TASK_ID": job.task_id,
        "KOUBOU_RUN": str(job.run),
        "KOUBOU_OUTPUT": f"{stat.st_dev}:{stat.st_ino}",
    }


def _start(job: Job, fence: Fence) -> tuple[subprocess.Popen[bytes], int, int | None]:
    """The process, the descriptor that its output is read from, and the one that its input is written to."""
    spec = job.spec
    env = environment(spec)
    command = [str(arg) for arg in spec["command"]]  # type: ignore[attr-defined]
    cwd = str(spec.get("cwd") or os.path.expanduser("~"))
    if spec.get("file") and not os.path.isfile(str(spec["file"])):
        raise FileNotFoundError(errno.ENOENT, MISSING, str(spec["file"]))
    program = _program(command[0], cwd, env)
    input_end: int = subprocess.DEVNULL
    input_fd: int | None = None
    if spec.get("pty"):
        read_end, write_end = os.openpty()
        input_end, input_fd = write_end, os.dup(read_end)
        termios.tcsetwinsize(write_end, _window(env))
    else:
        read_end, write_end = os.pipe()
        if spec.get("stdin"):
            input_end, input_fd = os.pipe()

    env |= about(job, write_end)

    def prepare() -> None:
        """Between fork and exec."""
        if spec.get("pty"):
            os.login_tty(write_end)
        fence.enter()

    try:
        process = subprocess.Popen(
            command,
            executable=program,
            cwd=cwd,
            env=env,
            stdin=input_end,
            stdout=write_end,
            stderr=write_end,
            start_new_session=not spec.get("pty"),
            # A controlling terminal and limits can be had in no other way, and cost a slower fork.
            preexec_fn=prepare if spec.get("pty") or fence.is_needed else None,  # noqa: PLW1509
        )
    except BaseException:
        os.close(read_end)
        if input_fd is not None:
            os.close(input_fd)
        raise
    finally:
        os.close(write_end)
        if input_end not in (subprocess.DEVNULL, write_end):
            os.close(input_end)
    _give_way(process.pid)
    return process, read_end, input_fd


def _give_way(pid: int) -> None:
    """Have the command's own session give way as its worker does; its processes do already.

    Linux shares the cores out by session first, where it is told to (autogroup).
    """
    with contextlib.suppress(OSError), open(f"/proc/{pid}/autogroup", "w") as file:
        file.write(str(os.getpriority(os.PRIO_PROCESS, 0)))


def _window(env: Mapping[str, str]) -> tuple[int, int]:
    """(lines, columns) of a terminal: the caller's own where it says so, else 24 by 80."""
    lines, columns = env.get("LINES", ""), env.get("COLUMNS", "")
    return int(lines) if lines.isdecimal() else 24, int(columns) if columns.isdecimal() else 80


def _program(name: str, cwd: str, env: Mapping[str, str]) -> str:
    """The file to run: looked up in the task's own PATH, not the worker's."""
    if not os.path.isdir(cwd):
        raise NotADirectoryError(errno.ENOTDIR, "no such folder", cwd)
    if "/" in name:
        path = os.path.join(cwd, name)
        if not os.path.exists(path):
            raise FileNotFoundError(errno.ENOENT, "no such program", name)
        return path
    denied = False
    for folder in env.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(cwd, folder, name)
        if os.path.isfile(path):
            if os.access(path, os.X_OK):
                return path
            denied = True
    if denied:
        raise PermissionError(errno.EACCES, "not executable", name)
    raise FileNotFoundError(errno.ENOENT, "no such program", name)


def _why_not(spec: Mapping[str, object], error: Exception) -> tuple[str, int]:
    """Why a command could not start, in words, and the exit code a shell would give."""
    name = str(spec["command"][0])[:100]  # type: ignore[index]
    if isinstance(error, NotADirectoryError):
        return f"the working folder {spec.get('cwd')} does not exist", NOT_EXECUTABLE
    if isinstance(error, FileNotFoundError):
        is_gone = error.strerror == MISSING
        words = (
            f"the file of the script is gone: {error.filename}" if is_gone else f"command not found: {name}"
        )
        return words, NOT_FOUND
    if isinstance(error, PermissionError):
        return f"not executable: {name} (chmod +x makes a script executable)", NOT_EXECUTABLE
    if isinstance(error, OSError) and error.errno == errno.ENOEXEC:
        return f"not a program: {name} has no #! line and is no binary", NOT_EXECUTABLE
    if isinstance(error, OSError) and error.errno == errno.E2BIG:
        return "the command line or the environment is too long", NOT_EXECUTABLE
    return f"could not start {name}: {error}", NOT_EXECUTABLE


def _follow(
    process: subprocess.Popen[bytes],
    fd: int,
    context: RunContext,
    tail: _Tail,
    *,
    input_fd: int | None,
    fence: Fence,
) -> tuple[int, resource.struct_rusage]:
    """Read output and feed input until the command itself ends; children that hold the pipe do not keep it."""
    ended = _exit_watch(process.pid)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if ended is not None:
        poll.register(ended, select.POLLIN)
    fence.watch(poll)
    feeder = None
    if input_fd is not None:
        feeder = Feeder(poll, context.open_input(), input_fd, is_terminal=os.isatty(input_fd))
    while True:
        wait_ms = None if ended is not None else 200
        ready = {key for key, _ in poll.poll(wait_ms if feeder is None else feeder.wait_ms(wait_ms))}
        if feeder is not None:
            feeder.turn(ready)
        if fd in ready and not _pump(fd, context, tail):
            poll.unregister(fd)
        fence.turn(ready)
        if (ended is not None and ended in ready) or (ended is None and _has_ended(process.pid)):
            break
    if feeder is not None:
        feeder.close()
    if ended is not None:
        os.close(ended)
    _, status, rusage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    os.set_blocking(fd, False)
    with contextlib.suppress(BlockingIOError):
        # No more than a pipe holds: what the command left behind may go on printing for ever.
        for _ in range(PIPE_BYTES // CHUNK_BYTES + 1):
            if not _pump(fd, context, tail):
                break
    return process.returncode, rusage


def _pump(fd: int, context: RunContext, tail: _Tail) -> bool:
    """Move one chunk; False at end of file (a closed terminal gives EIO)."""
    try:
        data = os.read(fd, CHUNK_BYTES)
    except BlockingIOError:
        raise
    except OSError:
        return False
    if not data:
        return False
    context.output.write(data)
    tail.feed(data)
    return True


def _exit_watch(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends (Linux), or None."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _ending(code: int) -> tuple[Reason | None, str, int]:
    """(reason, message, exit code) of a process that ended with `code` (negative: by that signal)."""
    if code == 0:
        return None, "", 0
    if code > 0:
        return "exit", f"exited with code {code}", code
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    return "killed", f"killed by signal {-code} ({name})", 128 - code


class _Tail:
    """The end of an output, for its last line."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> None:
        self._held = (self._held + data[-TAIL_BYTES:])[-TAIL_BYTES:]

    def text(self) -> str:
        """As text."""
        return self._held.decode("utf-8", "replace")

    def last_line(self) -> str | None:
        """The last line that says something, at most 200 characters."""
        for line in reversed(self._held.replace(b"\r", b"\n").splitlines()):
            text = line.decode("utf-8", "replace").strip()
            if text and not text.startswith("::koubou "):
                return text[:200]
        return None
