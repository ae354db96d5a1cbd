"""＋Run: a command, a script of the catalogue or a prompt, filled in, checked as it is typed, and submitted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

import param

from koubou_panel.core.commands import Command
from koubou_panel.core.decide import role_refusal
from koubou_panel.core.ids import is_task_id
from koubou_panel.core.records import TaskId
from koubou_panel.errors import Refused
from koubou_panel.views.cards import Card, Message
from koubou_panel.views.escape import block, line
from koubou_panel.views.language import _
from koubou_panel.views.run_form import check_may, command_of, faults_of, form_of, parameter_row, wants_shell
from koubou_panel.views.visit import Visit

MOST_SCRIPTS = 1_000


class RunCard(Card):
    """The dialog of `?run=…`. Asks `scripts`, `again`, `check` and `submit`."""

    may = param.String(default="full", doc="the visitor's role: `full`, `run`, `read`")


class RunDialog:
    """Answers the dialog's questions. Loop thread only."""

    def __init__(self, visit: Visit) -> None:
        """Closed: the address opens it."""
        self._visit = visit
        asks = {
            "scripts": self._scripts,
            "again": self._again,
            "check": self._check,
            "submit": self._submit,
        }
        self.card = visit.card(RunCard, may=visit.caller.role, asks=asks)

    @property
    def roots(self) -> dict[str, object]:
        """What stands where in the document."""
        return {"run": self.card}

    async def _scripts(self, _message: Message) -> Message:
        """The catalogue: by name, with what each takes."""
        entries = sorted(self._visit.shop.state.scripts.values(), key=lambda entry: entry.name.casefold())
        return {
            "scripts": [
                {
                    "name": entry.name,
                    "label": line(entry.name, 100),
                    "about": block(entry.script.description, 500),
                    "timeout": entry.script.timeout_s,
                    "priority": entry.script.priority,
                    "retries": entry.script.retries,
                    "parameters": [parameter_row(parameter) for parameter in entry.script.parameters],
                }
                for entry in entries[:MOST_SCRIPTS]
            ]
        }

    async def _again(self, message: Message) -> Message:
        """The form as it would be filled in for a task."""
        self._may_run()
        task_id = message.get("task_id")
        task = None
        if isinstance(task_id, str) and is_task_id(task_id):
            task = self._visit.shop.state.tasks.get(TaskId(task_id)) or await self._visit.shop.get(
                TaskId(task_id)
            )
        if task is None:
            raise Refused(
                "not_found", _("There is no task {id} here.").format(id=line(message.get("task_id"), 40))
            )
        form = form_of(task, self._visit.shop.state.scripts)
        if form["what"] != "script" and self._visit.caller.role != "full":
            raise role_refusal(self._visit.caller.role, "full")
        return {"form": form}

    async def _check(self, message: Message) -> Message:
        """Whether what is filled in so far could be submitted; a refusal names the field."""
        form = self._form(message)
        await self._command(form)
        typed = form.get("command")
        is_shell = form.get("what") == "command" and isinstance(typed, str) and wants_shell(typed)
        return {"ok": True, "shell": is_shell}

    async def _submit(self, message: Message) -> Message:
        """Submit it: the task's id, as the workshop knows it."""
        command = await self._command(self._form(message))
        return {"task_id": await self._visit.shop.do(command, self._visit.caller)}

    async def _command(self, form: Mapping[str, object]) -> Command:
        """What the form asks for. It looks at folders, which may be far away."""
        scripts, new_id = self._visit.shop.state.scripts, self._visit.shop.next_id
        try:
            return await asyncio.to_thread(command_of, form, scripts, new_id)
        except Refused as refused:
            raise await asyncio.to_thread(faults_of, refused, form, scripts, new_id) from None

    def _may_run(self) -> None:
        if self._visit.caller.role == "read":
            raise role_refusal("read", "run")

    def _form(self, message: Message) -> Mapping[str, object]:
        """The form of a visitor who may submit it."""
        self._may_run()
        form = message.get("form")
        if not isinstance(form, dict):
            raise Refused("invalid", "there is no form")
        asked = cast("Mapping[str, object]", form)
        check_may(asked, self._visit.caller.role)
        return asked
