"""What the command palette finds: tasks by id or words, and the scripts of the catalogue."""

from __future__ import annotations

from koubou_panel.core.ids import is_task_id
from koubou_panel.core.ports import TaskQuery
from koubou_panel.core.records import Task, TaskId
from koubou_panel.views.cards import Message
from koubou_panel.views.escape import line
from koubou_panel.views.visit import Visit

MOST_TASKS = 8
MOST_SCRIPTS = 500
MOST_CHARS = 200


class Palette:
    """Answers what is asked while somebody types. Loop thread only."""

    def __init__(self, visit: Visit) -> None:
        """Nothing was asked yet."""
        self._visit = visit

    async def offers(self, _message: Message) -> Message:
        """What there is before a word is typed: the scripts, and whether the pool works."""
        shop = self._visit.shop
        names = sorted(shop.state.scripts, key=str.casefold)[:MOST_SCRIPTS]
        pool = shop.state.pool
        return {
            "scripts": [[name, line(name, 100)] for name in names],
            "is_held": not pool.starts_work,
        }

    async def find(self, message: Message) -> Message:
        """The tasks that fit, newest first."""
        text = message.get("text")
        if not isinstance(text, str) or not text.strip():
            return {"tasks": []}
        text = text.strip()[:MOST_CHARS]
        found = await self._by_id(text)
        if not found:
            page = await self._visit.shop.find(TaskQuery(text=text, limit=MOST_TASKS))
            found = page.tasks
        return {"tasks": [_row(task) for task in found]}

    async def _by_id(self, text: str) -> list[Task]:
        if not is_task_id(text):
            return []
        task_id = TaskId(text)
        task = self._visit.shop.state.tasks.get(task_id) or await self._visit.shop.get(task_id)
        return [task] if task is not None else []


def _row(task: Task) -> dict[str, object]:
    request = task.request
    return {
        "id": task.task_id,
        "label": line(request.name or request.summary or request.kind),
        "status": task.status,
        "at": task.finished_at or task.started_at or request.created_at,
    }
