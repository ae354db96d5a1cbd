"""Which task an open one is another run of, and which ones are other runs of it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from koubou_panel.core.records import Task, TaskId
from koubou_panel.views.language import _

MOST_LOOKED_AT = 5_000
MOST_SHOWN = 8
_MARKS = {
    "pending": "wait",
    "in_progress": "run",
    "completed": "ok",
    "failed": "fail",
    "cancelled": "cancel",
}

Link = dict[str, str]


def reruns(task: Task, tasks: Mapping[TaskId, Task]) -> list[Link]:
    """Of id, words and mark: what it repeats, then what repeats it, as far as `tasks` knows of them; newest last.

    A rerun is submitted after what it repeats: of the newest few thousand only those behind it are looked at.
    """
    links = []
    first = task.request.rerun_of
    if first:
        known = tasks.get(first)
        links.append(_link(first, _("runs {id} again").format(id=first), known))
    later: list[Link] = []
    for other in islice(reversed(tasks.values()), MOST_LOOKED_AT):  # type: ignore[call-overload]
        if other.order <= task.order or len(later) == MOST_SHOWN:
            break
        if other.request.rerun_of == task.task_id:
            words = _("run again as {id}").format(id=other.task_id)
            later.append(_link(other.task_id, words, other))
    return links + later[::-1]


def _link(task_id: TaskId, words: str, task: Task | None) -> Link:
    return {"id": task_id, "words": words, "mark": _MARKS[task.status] if task else "wait"}
