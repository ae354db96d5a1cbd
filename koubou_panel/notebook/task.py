"""`LiveTask`: a task as it stands whenever it is looked at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from koubou_panel.core.records import Request, Task, TaskId
from koubou_panel.errors import Refused

if TYPE_CHECKING:  # the same layer: a future has a task, and a task has a future
    from koubou_panel.notebook.future import Keeper, TaskFuture


def id_of(task: object) -> TaskId:
    """The id of a task that is given as its id, its future, a live view, a model of `shop.state` or a record.

    Raises:
        TypeError: it is none of these.
    """
    found = task if isinstance(task, str) else getattr(task, "task_id", None)
    if not isinstance(found, str):
        raise TypeError(
            f"a task is named by its id (a text), by its future, or by what shop.task() or shop.state gives, not by "
            f"{type(task).__name__}"
        )
    return TaskId(found)


class LiveTask:
    """A task: each attribute of its record is read when it is asked for (`status`, `progress`, `usage`, `use`, ...).

    So is each of its request (`name`, `priority`, `labels`, ...); `label` is what it is called. One record whose parts
    are of the same moment is `.record`. Any thread; nothing is kept, so nothing needs an end.
    """

    def __init__(self, task_id: TaskId, keeper: Keeper) -> None:
        """The task `task_id` of `keeper`'s workshop."""
        self.task_id = task_id
        self.keeper = keeper

    @property
    def record(self) -> Task:
        """The task at this moment.

        Raises:
            Refused: `not_found`: the workshop has no such task, or cannot be asked.
        """
        found = self.keeper.record(self.task_id)
        if found is None:
            raise Refused(
                "not_found", f"no task {self.task_id!r} in {self.keeper.home.root}", field="task_id"
            )
        return found

    def __getattr__(self, name: str) -> Any:
        """What the record has by that name, else its request."""
        if name.startswith("_") or not (hasattr(Task, name) or hasattr(Request, name)):
            raise AttributeError(f"a task has no attribute {name!r}", name=name, obj=self)
        record = self.record
        return getattr(record if hasattr(Task, name) else record.request, name)

    def __dir__(self) -> list[str]:
        """With the attributes of the record and of its request."""
        fields = {*Task.__struct_fields__, *Request.__struct_fields__}
        return sorted({*super().__dir__(), *fields, "is_finished", "label"})

    @property
    def output(self) -> str:
        """All that it has printed and that is held."""
        return self.keeper.output(self.task_id)

    @property
    def future(self) -> TaskFuture:
        """Its future, with its result."""
        return self.keeper.future(self.task_id)

    def cancel(self) -> None:
        """Ask for its end, running or not; what has ended stays as it is."""
        self.keeper.cancel(self.task_id)

    def _repr_mimebundle_(
        self, include: Iterable[str] | None = None, exclude: Iterable[str] | None = None
    ) -> tuple[dict[str, str], dict[str, Any]]:
        """In a notebook: a live card, and a dated still for where nothing can be live."""
        from koubou_panel.notebook.display import task_bundle

        return task_bundle(self.keeper, self.task_id, include, exclude)

    def __repr__(self) -> str:
        """Its id, name and status, and how far it is."""
        try:
            record = self.record
        except (Refused, RuntimeError):
            return f"<LiveTask {self.task_id}>"
        progress = record.progress
        done = "" if progress is None or progress.fraction is None else f" {progress.fraction:.0%}"
        reason = f" ({record.reason})" if record.reason else ""
        return f"<LiveTask {self.task_id} {record.request.name!r} {record.status}{reason}{done}>"
