"""The MCP resources: tasks, their output, the pool and the scripts, and the notices when one of them changes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from mcp_types import (
    Annotations,
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    Resource,
    ResourceTemplateReference,
)

from koubou_panel.core.events import OutputGrew, Sample, TaskProgressed, TaskSubmitted
from koubou_panel.core.ports import Shop
from koubou_panel.core.records import Task, TaskId, Worker
from koubou_panel.core.script import Entry
from koubou_panel.core.state import Folded, State
from koubou_panel.servers.agents.mcp_frame import Frame
from koubou_panel.servers.agents.mcp_notices import LIST, Notices
from koubou_panel.servers.agents.mcp_views import (
    OUTPUT,
    POOL,
    SCRIPT,
    SCRIPTS,
    TASK,
    PoolView,
    ScriptListView,
    ScriptView,
    TaskView,
    output_uri,
    script_uri,
    task_uri,
)

JSON = "application/json"
LISTED_TASKS = 50
LISTED_SCRIPTS = 100
COMPLETIONS = 100
OUTPUT_BYTES = 256 * 1024


class Resources:
    """The resources over one shop. Loop thread only."""

    def __init__(self, shop: Shop) -> None:
        """Read from `shop`."""
        self._shop = shop

    async def task(self, task_id: str) -> str:
        """A task as it stands: status, progress, result, error, times."""
        return TaskView.of(await self._task(task_id)).as_text()

    async def output(self, task_id: str) -> str:
        """What a task has printed: the last 256 KiB. The tool read_output reads all of it, piece by piece."""
        task = await self._task(task_id)
        page = await self._shop.read_output(task.task_id, -OUTPUT_BYTES, OUTPUT_BYTES)
        return page.text

    async def pool(self) -> str:
        """How busy the workshop is: tasks by status, workers, the machine."""
        return PoolView.of(self._shop.state).as_text()

    async def scripts(self) -> str:
        """The first 100 registered scripts in short; the tool list_scripts goes on from `cursor`."""
        return ScriptListView.page(self._shop.state.scripts, LISTED_SCRIPTS).as_text()

    async def script(self, script_name: str) -> str:
        """One registered script: its parameters, its schedule's next time, how its last run stands."""
        entry = self._shop.state.scripts.get(script_name)
        if entry is None:
            raise ResourceNotFoundError(f"Unknown resource: {script_uri(script_name)[:200]}")
        return ScriptView.of(entry).as_text()

    async def _task(self, task_id: str) -> Task:
        task = await self._shop.get(TaskId(task_id))
        if task is None:
            raise ResourceNotFoundError(f"Unknown resource: {task_uri(task_id)[:200]}")
        return task

    def latest(self) -> list[Resource]:
        """The newest tasks, as resources."""
        tasks = islice(reversed(self._shop.state.tasks.values()), LISTED_TASKS)
        return [
            Resource(
                uri=task_uri(task.task_id),
                name=task.task_id,
                title=task.request.name or None,
                description=f"{task.status}: {task.request.summary or task.request.name}",
                mime_type=JSON,
            )
            for task in tasks
        ]

    async def complete(
        self,
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        _context: CompletionContext | None,
    ) -> Completion | None:
        """Task ids and names of scripts that begin as `argument` does."""
        if argument.name == "task_id":
            known: list[str] = [*islice(reversed(self._shop.state.tasks), 10_000)]
        elif argument.name == "script_name":
            known = sorted(self._shop.state.scripts)
        else:
            return None
        found = [name for name in known if name.startswith(argument.value)]
        return Completion(values=found[:COMPLETIONS], total=len(found), has_more=len(found) > COMPLETIONS)


class Changes:
    """What a shop's facts and samples change among the resources. A subscriber of the shop; loop thread only."""

    def __init__(self, notices: Notices) -> None:
        """Say it to `notices`."""
        self._notices = notices

    def on_reset(self, state: State) -> None:
        """Everything may have changed."""
        self._notices.touch_all()

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Say which resources these facts change."""
        notices = self._notices
        if not notices.wanted:
            return
        for fact, _, record in folded:
            if isinstance(record, Task):
                notices.touch(task_uri(record.task_id))
                # Its status is the end of its output too.
                notices.touch(output_uri(record.task_id))
                if isinstance(fact, TaskSubmitted):
                    notices.touch(LIST)
            elif isinstance(record, Entry):
                notices.touch(SCRIPTS)
                notices.touch(script_uri(record.name))
            elif fact.channel == "script":
                notices.touch(SCRIPTS)
            if isinstance(record, Task | Worker) or fact.channel == "system":
                notices.touch(POOL)

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """Say which resources these samples change. The machine's own are no news: there is one each second."""
        if not self._notices.wanted:
            return
        for sample in samples:
            if isinstance(sample, TaskProgressed):
                self._notices.touch(task_uri(sample.task_id))
            elif isinstance(sample, OutputGrew):
                self._notices.touch(output_uri(sample.task_id))


def add_resources(frame: Frame, shop: Shop) -> None:
    """Offer the resources."""
    resources = Resources(shop)
    now = Annotations(audience=["assistant"])
    for function, uri, title, mime_type in (
        (resources.task, TASK + "{task_id}", "A task", JSON),
        (resources.output, TASK + "{task_id}" + OUTPUT, "A task's output", "text/plain"),
        (resources.pool, POOL, "The pool", JSON),
        (resources.scripts, SCRIPTS, "The registered scripts", JSON),
        (resources.script, SCRIPT + "{script_name}", "A registered script", JSON),
    ):
        frame.resource(
            uri,
            name=function.__name__,
            title=title,
            description=function.__doc__,
            mime_type=mime_type,
            annotations=now,
        )(function)
    frame.more_resources = resources.latest
    frame.completion()(resources.complete)  # type: ignore[no-untyped-call]
