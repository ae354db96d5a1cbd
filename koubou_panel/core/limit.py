"""The limits of a run: which are possible, which one is passed, and the words for a run that ended by one."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from koubou_panel.core.quantity import seconds_text, size_text
from koubou_panel.core.records import (
    NO_LIMITS,
    Limited,
    Limits,
    Metrics,
    Outcome,
    Reason,
    StopCause,
    Task,
    Use,
)
from koubou_panel.errors import Refused

BYTES_MOST = 2**53  # what every reader of JSON knows exactly
MEMORY_BYTES = (1 << 20, BYTES_MOST)
OUTPUT_BYTES = (1 << 16, BYTES_MOST)
CPU_S = (0.01, 1e9)
PROCESSES = (1, 2**31 - 1)
SCARCE_S = 5.0
SCARCE_BYTES = 256 << 20
SCARCE_SHARE = 0.03
SIGKILLED = 128 + 9


def check_limits(limits: Limits) -> None:
    """Check that every limit can be kept.

    Raises:
        Refused: code `invalid`, naming the limit and its range.
    """
    if limits == NO_LIMITS:
        return
    ranges: dict[str, tuple[tuple[float, float], str]] = {
        "memory_bytes": (MEMORY_BYTES, "bytes"),
        "cpu_s": (CPU_S, "seconds"),
        "processes": (PROCESSES, "processes"),
        "output_bytes": (OUTPUT_BYTES, "bytes"),
    }
    for name, ((low, high), unit) in ranges.items():
        value = getattr(limits, name)
        if value is not None and not low <= value <= high:
            words = f"limits.{name} must be {low} to {high:.0f} {unit}"
            raise Refused("invalid", words, field=f"limits.{name}")


def exceeded(limits: Limits, use: Use) -> Limited | None:
    """The limit that a run is over, if it is; the most dangerous first."""
    if limits.memory_bytes is not None and use.rss_bytes > limits.memory_bytes:
        return "memory"
    if limits.processes is not None and use.processes > limits.processes:
        return "processes"
    if limits.cpu_s is not None and use.cpu_s > limits.cpu_s:
        return "cpu"
    return None


def limit_words(cause: StopCause, limits: Limits) -> tuple[Reason, str]:
    """The reason of a run that was stopped for a limit, and the same in words."""
    if cause == "memory":
        return "memory", f"killed: reached its {size_text(limits.memory_bytes or 0)} memory limit"
    if cause == "processes":
        most = "one process" if limits.processes == 1 else f"its {limits.processes} processes"
        return "killed", f"killed: ran more than {most}"
    return "killed", f"killed: used its {seconds_text(limits.cpu_s or 0.0)} of processor time"


def explain_kill(outcome: Outcome, task: Task, metrics: Sequence[Metrics], now: float) -> Outcome:
    """`outcome`; where nobody here sent its SIGKILL and the host was short of memory, with that said."""
    if outcome.reason != "killed" or outcome.exit_code != SIGKILLED or task.stopping is not None:
        return outcome
    seen = [one.values for one in metrics if now - SCARCE_S <= one.at <= now]
    free = [value for values in seen if isinstance(value := values.get("memory_available_bytes"), int)]
    total = [value for values in seen if isinstance(value := values.get("memory_total_bytes"), int)]
    if not free or min(free) > max(SCARCE_BYTES, SCARCE_SHARE * max(total, default=0)):
        return outcome
    words = f"killed by signal 9, likely out of memory: the host had {size_text(min(free))} free"
    return replace(outcome, reason="memory", message=words)
