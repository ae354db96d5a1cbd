"""When a failed run is tried again, and when it is not."""

from __future__ import annotations

from zlib import crc32

from koubou_panel.core.records import Task

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 300.0
CRASHES_IN_A_ROW = 3


def delay_s(task: Task) -> float:
    """Seconds to wait before the next run: 1 doubling to 300, ± 20 % by task so that a batch does not beat.

    Source: exponential backoff with jitter; the jitter is a hash, so that a replay gives the same.
    """
    doubled: float = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(task.failures, 20))
    jitter = crc32(f"{task.task_id}/{task.failures}".encode()) / 0xFFFFFFFF
    return round(doubled * (0.8 + 0.4 * jitter), 3)


def may_fail_again(task: Task) -> bool:
    """Whether a failed attempt leaves another one."""
    return task.failures < task.request.retries


def loops(task: Task) -> bool:
    """Whether one more crash would be the third in a row."""
    return task.crashes + 1 >= CRASHES_IN_A_ROW
