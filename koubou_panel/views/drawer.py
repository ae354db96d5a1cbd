"""The task that a visitor has opened beside the page: it is read while it is open, and let go when it is closed."""

from __future__ import annotations

import asyncio
import logging

from koubou_panel.core.ids import is_task_id
from koubou_panel.core.records import Task, TaskId
from koubou_panel.errors import KoubouError
from koubou_panel.reactive.mirror import Changes
from koubou_panel.views.escape import line
from koubou_panel.views.language import _
from koubou_panel.views.pages.task import TaskView
from koubou_panel.views.viewer import Viewer
from koubou_panel.views.visit import Visit

log = logging.getLogger(__name__)


class Drawer:
    """Opens, reads and closes a task's view. Loop thread only."""

    def __init__(self, visit: Visit) -> None:
        """Closed."""
        self._shop = visit.shop
        self.view = TaskView(visit)
        self._spawn = visit.spawn
        self._locked = visit.locked
        self._toast = visit.toast
        self._viewer: Viewer | None = None
        self._wanted = ""
        self._is_reading = False
        self._is_loading = False

    def want(self, task_id: str) -> None:
        """Open this task's view; an empty id closes it."""
        if task_id == self._wanted:
            return
        self._wanted = task_id
        if task_id:
            self._spawn(self._open(TaskId(task_id)))
        else:
            self._close()

    def update(self, changes: Changes) -> None:
        """Show what changed, and read on. Under the document's lock."""
        self.view.update(changes)
        if self.view.model is not None:
            self._read_on()

    async def _open(self, task_id: TaskId) -> None:
        try:
            task = await self._find(task_id)
            why = _("There is no task {id} here.").format(id=line(task_id, 40))
        except KoubouError as error:
            task, why = None, str(error)
        if task_id != self._wanted:  # another was opened meanwhile
            return
        if task is None:
            self._wanted = ""
            self._toast(why)
            self._locked(lambda: self._refuse(task_id))
            return
        self._locked(lambda: self._show(task))

    async def _find(self, task_id: TaskId) -> Task | None:
        if not is_task_id(task_id):  # an address can hold anything
            return None
        return self._shop.state.tasks.get(task_id) or await self._shop.get(task_id)

    def _refuse(self, task_id: TaskId) -> None:
        if self._wanted:  # another was opened before this could be told
            return
        self._close()
        self.view.head.refuse(task_id)

    def _show(self, task: Task) -> None:
        if task.task_id != self._wanted:  # it was closed, or another opened, before this could be shown
            return
        self._viewer = Viewer(self._shop, task.task_id)
        self.view.show(task, self._viewer)
        self._read_on()

    def _close(self) -> None:
        self._viewer = None
        self.view.close()

    # -- what is read beside the state ------------------------------------------------------------------------

    def _read_on(self) -> None:
        model = self.view.model
        if model is None:
            return
        if self.view.is_outdated and not self._is_loading:
            self._is_loading = True
            self._spawn(self._load(TaskId(model.task_id), model.run))
        viewer = self._viewer
        if viewer is not None and viewer.grow(model.output_bytes) and not self._is_reading:
            self._is_reading = True
            self._spawn(self._read(viewer))

    async def _load(self, task_id: TaskId, run: int) -> None:
        points = None
        try:
            curve = await self._shop.curve(task_id)
            points = None if curve is None else curve.points()
            await asyncio.to_thread(self.view.prepare)
        except KoubouError as error:
            log.debug("the curve of task %s could not be read: %s", task_id, error)
        finally:
            self._is_loading = False
        model = self.view.model
        if model is not None and (model.task_id, model.run) == (task_id, run):
            self._locked(lambda: self.view.fill(points))

    async def _read(self, viewer: Viewer) -> None:
        try:
            while viewer is self._viewer and viewer.is_behind:
                await viewer.read_on()
        except KoubouError as error:
            log.debug("output could not be read: %s", error)
        finally:
            self._is_reading = False
        if viewer is self._viewer:
            self._locked(self.view.draw_output)
        else:
            self._locked(self._read_on)
