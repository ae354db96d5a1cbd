"""The MCP prompts: they teach an agent to delegate well."""

from __future__ import annotations

from typing import Annotated

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from pydantic import Field

from koubou_panel.core.records import TaskId
from koubou_panel.errors import Refused
from koubou_panel.servers.agents.delegate import Delegation
from koubou_panel.servers.agents.mcp_frame import Frame
from koubou_panel.servers.agents.mcp_views import TaskView

TAIL_BYTES = 8 * 1024

DELEGATE = """\
Get this done with the workshop: {goal}

How to delegate well:
1. Look first: list_scripts (is there a registered script for it?) and get_statistics (how many workers are there, how \
long is the queue?).
2. Cut the work into tasks that do not need each other. Submit them all at once, with a name that says what each is \
for, a timeout_s that is generous but not endless, and an idempotency_key each, so that a call whose answer is lost \
can be repeated. Where one needs another's result, name that in `after`.
3. Do not ask again and again: call wait with all the ids and until="any" or "all". When it returns with is_done \
false, call it again. Between two waits you may do other work: tasks go on without you.
4. Read output from the last next_offset on, not from 0 each time. Long output: the end says most (offset -4000).
5. When a task fails, read reason, message and the end of its output before you do anything. retry_task is for what \
may go well the second time (reason lost, killed, timeout), not for a mistake in the command.
6. Cancel what is no longer needed. At the end say what was done, with the ids of the tasks.
"""

EXPLAIN = """\
A task in the workshop needs an explanation. Say in plain words what happened, why, and what to do next (a changed \
command, more time or memory, retry_task, or nothing). If what follows does not tell, read more with read_output.

The task:
{task}

The end of its output:
{output}
"""


class Prompts:
    """The prompts over one delegation. Loop thread only."""

    def __init__(self, delegation: Delegation) -> None:
        """Look through `delegation`."""
        self._delegation = delegation

    async def delegate(
        self, goal: Annotated[str, Field(description="What is to be done, in your words")]
    ) -> str:
        """How to get work done by the workshop: cut it up, submit, wait, read, recover."""
        return DELEGATE.format(goal=goal)

    async def explain_task(
        self, task_id: Annotated[str, Field(description="The task's id, as list_tasks shows it")]
    ) -> str:
        """What became of a task, and what to do about it."""
        try:
            task = await self._delegation.task(TaskId(task_id))
        except Refused as refusal:
            raise MCPError(INVALID_PARAMS, refusal.message, {"argument": "task_id"}) from None
        page = await self._delegation.output(task.task_id, -TAIL_BYTES, TAIL_BYTES)
        return EXPLAIN.format(task=TaskView.of(task).as_text(), output=page.text or "(nothing)")


def add_prompts(frame: Frame, delegation: Delegation) -> None:
    """Offer the prompts."""
    prompts = Prompts(delegation)
    frame.prompt(title="Delegate work", description=prompts.delegate.__doc__)(prompts.delegate)
    frame.prompt(title="Explain a task", description=prompts.explain_task.__doc__)(prompts.explain_task)
