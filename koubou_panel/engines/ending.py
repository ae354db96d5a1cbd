"""How a worker came to its end, in words and as the outcome of the run that it was in."""

from __future__ import annotations

import re
import signal

from koubou_panel.core.commands import WorkerDied
from koubou_panel.core.conclude import loss_words
from koubou_panel.core.records import Fault, Job, Outcome, Reason, Usage, WorkerId

SIGKILL = 9
_OUR_FRAMES = "/koubou_panel/kinds/"
# What `faulthandler` writes: a headline, then the stack of each thread, innermost call first.
_CRASH = re.compile(
    r"^(?P<headline>Fatal Python error: .*\n)(?:.*\n)*?"
    r"Current thread .*\(most recent call first\):\n(?P<stack>(?:  File .*\n?)+)",
    re.MULTILINE,
)
_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.*)$', re.MULTILINE)


def death(
    worker_id: WorkerId, begun: int, said: str, *, is_leaving: bool = False, ended_for: str = ""
) -> WorkerDied:
    """What the guard `said` of a worker's end, as a report.

    Args:
        worker_id: the worker.
        begun: how many of its claims it had begun.
        said: `exit N`, `signal N`, or nothing from a guard that is gone itself.
        is_leaving: whether it was told to end by itself.
        ended_for: why it was killed, if that was the engine's doing.
    """
    word, _, number = said.partition(" ")
    code = int(number) if number.isdigit() else None
    if word == "signal" and code is not None:
        message = f"killed by signal {code} ({signal_name(code)})"
        if ended_for and code == SIGKILL:
            return WorkerDied(worker_id, begun, ended_for, signal=code, expected=True)
        return WorkerDied(worker_id, begun, message, signal=code)
    if word == "exit" and code is not None:
        has_left = is_leaving and code == 0
        message = "left" if has_left else f"the worker process exited with code {code}"
        return WorkerDied(worker_id, begun, message, code, expected=is_leaving)
    return WorkerDied(worker_id, begun, "its guard was killed", signal=SIGKILL)


def signal_name(number: int) -> str:
    """`SIGSEGV` of 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def cut_off(job: Job, died: WorkerDied, *, last_words: str, was_starved: bool) -> Outcome:
    """The outcome of the run that a worker died in.

    Args:
        job: the run.
        died: the worker's end.
        last_words: the end of what it printed; a crash leaves its stack there.
        was_starved: whether the kernel ended a process for want of memory at that moment.
    """
    reason: Reason = "killed" if died.signal is not None else "exit"
    message = loss_words(died)
    stack = _CRASH.search(last_words)
    if died.signal == SIGKILL and was_starved:
        reason, message = "memory", f"{died.message}, out of memory: the kernel ended it"
    elif stack is not None and died.signal is not None:
        message += _place(stack["stack"])
    return Outcome(
        job.task_id,
        job.run,
        reason,
        message,
        died.exit_code if died.signal is None else 128 + died.signal,
        error=Fault("WorkerDied", message, stack["headline"] + stack["stack"] if stack else ""),
        usage=Usage(),
    )


def _place(stack: str) -> str:
    """Where in the user's own code a crash was: the innermost frame that is not ours."""
    for frame in _FRAME.finditer(stack):
        if _OUR_FRAMES not in frame["file"]:
            return f" in {frame['name']}, line {frame['line']} of {frame['file']}"
        break
    return ""
