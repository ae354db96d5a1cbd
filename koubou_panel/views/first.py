"""The first minute: nothing has run yet, and one card offers what to begin with.

A demo load of a few small tasks, all of them labelled `demo`, which one click clears; a command to paste; and a line
for each way in.
"""

from __future__ import annotations

import asyncio
import itertools
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import param

from koubou_panel.core.commands import CancelTask, SubmitTask
from koubou_panel.core.ports import Shop
from koubou_panel.core.records import Request, TaskId
from koubou_panel.core.state import State
from koubou_panel.errors import Refused
from koubou_panel.settings import default_home
from koubou_panel.views.cards import Card, Message, set_changed
from koubou_panel.views.language import _
from koubou_panel.views.run_form import check_may, command_of
from koubou_panel.views.visit import Visit

DEMO_LABEL = "demo"
DEMO_TASKS = 24
MOST_LOOKED_AT = 500
AGENTS_PORT = 8765

# Real work, though little of it: each takes a few seconds, and one in four fails.
_BLOCKS = """
import hashlib, time
for n in range(1, 41):
    hashlib.sha256(bytes(1 << 20)).hexdigest()
    time.sleep(0.08)
    print(f"::koubou progress {n}/40 blocks", flush=True)
print("40 blocks of 1 MiB hashed")
"""
_EPOCHS = """
import random, time
loss = 2.0
for epoch in range(1, 13):
    loss *= random.uniform(0.86, 0.99)
    time.sleep(0.3)
    print(f"::koubou progress {epoch}/12 epochs loss {loss:.3f}", flush=True)
    print(f"epoch {epoch:2d}  loss {loss:.4f}", flush=True)
"""
_QUICK = "print(sum(n * n for n in range(200_000)))"
_FAILS = """
import time
for n in range(1, 4):
    print(f"reading part {n} of 8", flush=True)
    time.sleep(0.4)
raise ConnectionError("the other side hung up (this demo task fails on purpose)")
"""
_DEMO = (
    ("hash blocks", _BLOCKS),
    ("quick sum", _QUICK),
    ("train a toy", _EPOCHS),
    ("fails on purpose", _FAILS),
)


class FirstMinute(Card):
    """What to begin with, shown as long as nothing has run. Asks `demo` and `run` (`command`)."""

    lines = param.List(default=[], doc="of (way in, line, note)")
    shown = param.Boolean(default=False)
    can_act = param.Boolean(default=True)


class First:
    """The card, and what it starts. Under the document's lock."""

    def __init__(self, visit: Visit) -> None:
        """Empty: see `draw`."""
        self._visit = visit
        self.card = visit.card(
            FirstMinute, can_act=visit.can_act, asks={"demo": self._start_demo, "run": self._run}
        )

    def draw(self) -> None:
        """Show it, or not."""
        model = self._visit.mirror.model
        counts = (model.pending, model.in_progress, model.completed, model.failed, model.cancelled)
        port = next((service.port for service in model.services if service.name_of == "agents"), None)
        home = self._visit.home
        own = None if home is None or home.root == default_home() else str(home.root)
        set_changed(self.card, shown=sum(counts) == 0, lines=_lines(port or AGENTS_PORT, own))

    async def _start_demo(self, _message: Message) -> Mapping[str, object]:
        shop = self._visit.shop
        requests = itertools.islice(demo_requests(shop.next_id), DEMO_TASKS)
        answers = await shop.do_many([SubmitTask(request) for request in requests], self._visit.caller)
        refused = next((answer for answer in answers if isinstance(answer, Refused)), None)
        if refused is not None:
            raise refused
        return {"tasks": len(answers)}

    async def _run(self, message: Message) -> Mapping[str, object]:
        shop = self._visit.shop
        form = {"what": "command", "command": message.get("command"), "key": message.get("key", "")}
        check_may(form, self._visit.caller.role)
        command = await asyncio.to_thread(command_of, form, shop.state.scripts, shop.next_id)
        return {"task_id": await shop.do(command, self._visit.caller)}


def demo_requests(next_id: Callable[[], TaskId]) -> Iterator[Request]:
    """Small tasks that are labelled as a demo, one after the other, without end."""
    for name, code in itertools.cycle(_DEMO):
        yield Request(
            task_id=next_id(),
            kind="script",
            created_at=0.0,
            spec={"command": [sys.executable, "-c", code], "cwd": str(Path.home())},
            name=name,
            labels={DEMO_LABEL: "yes"},
            timeout_s=60.0,
        )


def demo_left(state: State) -> list[TaskId]:
    """The demo's tasks that have not ended; none where so much waits that it is no demo any more."""
    if state.counts["pending"] + state.counts["in_progress"] > MOST_LOOKED_AT:
        return []
    return [task.task_id for task in state.tasks.values() if not task.is_finished and _is_demo(task.request)]


def _is_demo(request: Request) -> bool:
    """Whether it is one of `demo_requests`: people may label their own tasks as a demo."""
    command = request.spec.get("command")
    if request.labels.get(DEMO_LABEL) != "yes" or not isinstance(command, list):
        return False
    return (request.name, command[2:]) in [(name, [code]) for name, code in _DEMO]


async def clear_demo(shop: Shop, visit: Visit) -> int:
    """Cancel what is left of the demo; how many tasks that were.

    Raises:
        Refused: the first that could not be cancelled, but for those that ended meanwhile.
    """
    left = demo_left(shop.state)
    answers = await shop.do_many([CancelTask(task_id) for task_id in left], visit.caller)
    for answer in answers:
        if isinstance(answer, Refused) and answer.code not in ("conflict", "not_found"):
            raise answer
    return len(left)


def _lines(port: int, home: str | None) -> list[tuple[str, str, str]]:
    """`home`: where it is not the one that is taken if nothing is said."""
    token = "koubou token" if home is None else f"koubou --home {shlex.quote(home)} token"
    place = "" if home is None else repr(home)
    header = f'-H "Authorization: Bearer $({token})"'
    agent = f'--header "Authorization: Bearer $({token})"'
    kind = '-H "Content-Type: application/json"'
    body = """-d '{"command": ["echo", "hello"]}'"""
    return [
        (
            _("Notebook"),
            f"import koubou_panel as kp; shop = kp.Workshop({place}); shop",
            _("the live panel in a cell"),
        ),
        (
            _("Python"),
            f"import koubou_panel as kp; print(kp.Workshop({place}).submit(pow, 2, 10).result())",
            _("a function, run by a worker"),
        ),
        ("curl", f"curl {header} {kind} {body} http://127.0.0.1:{port}/task/delegate", ""),
        (
            _("An AI agent"),
            f"claude mcp add --transport http koubou http://127.0.0.1:{port}/mcp {agent}",
            _("it can then run, follow and cancel tasks"),
        ),
    ]
