"""What a workshop, a task and a future are under a cell: live where that can be, and a dated still everywhere else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from contextlib import suppress
from secrets import token_hex
from typing import TYPE_CHECKING, Any, cast

from msgspec.structs import replace

from koubou_panel.archive.output import output_path, read_output
from koubou_panel.core.commands import Caller
from koubou_panel.core.ports import OutputPage, Shop
from koubou_panel.core.records import Task, TaskId
from koubou_panel.errors import Refused
from koubou_panel.notebook.cells import with_cells
from koubou_panel.notebook.endings import EXEC, Bundle
from koubou_panel.notebook.extension import language, load
from koubou_panel.notebook.hop import Hops
from koubou_panel.notebook.showroom import Open, Post, Session, Showroom, showroom
from koubou_panel.views.ends import (
    AS_IT_STOOD,
    KERNEL_ENDED,
    MOVES,
    NOT_KNOWN,
    NOT_LOADED,
    REFUSED,
    SHUT,
    SUBMIT_AGAIN,
)
from koubou_panel.views.language import _, speaking

if TYPE_CHECKING:
    from koubou_panel.notebook.future import Keeper, TaskFuture
    from koubou_panel.notebook.workshop import Workshop

STILL_OUTPUT_BYTES = 4_096
ENDED_OUTPUT_BYTES = 16_384
REFUSAL_LIMIT_S = 1.0


def workshop_bundle(
    workshop: Workshop, include: Iterable[str] | None = None, exclude: Iterable[str] | None = None
) -> Bundle:
    """A workshop as MIME types: the live dashboard, a still of it, and a line of text."""
    with speaking(_language()):
        return _chosen(*_workshop_shown(workshop), include, exclude)


def _workshop_shown(workshop: Workshop) -> Bundle:
    from koubou_panel.views.still import taken_at, workshop_html, workshop_words

    place, now = str(workshop.home.root), time.time()
    if workshop.is_shut:
        return {"text/plain": _(SHUT).format(place=place)}, {}
    model, ended = _look(workshop)
    text = workshop_words(model, place=place, at=taken_at(now))
    still = workshop_html(model, ended, place=place, foot=_foot(taken_at(now)))
    hops, caller = workshop.hops, workshop.caller

    async def open_session(post: Post) -> tuple[Session, Callable[[], None]]:
        from koubou_panel.views.inline import WorkshopShown

        return _session(hops, caller, post, WorkshopShown, place=place)

    return _live(text, still, open_session)


def task_bundle(
    keeper: Keeper,
    task_id: TaskId,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] | None = None,
    *,
    future: TaskFuture | None = None,
) -> Bundle:
    """A task as MIME types: its live card, a still of it, and a line of text.

    Args:
        keeper: its workshop.
        task_id: which it is.
        include, exclude: the types that are wanted, as IPython has it.
        future: its future, where that is what is shown: it knows why a task was refused.
    """
    workshop = cast("Workshop", keeper)  # nobody else makes futures
    task = workshop.record(task_id)  # before the imports, which take a moment the first time
    with speaking(_language()):
        if task is None:
            return _chosen(*_unknown(workshop, task_id, future), include, exclude)
        if task.is_finished:
            return _chosen(*_ended(workshop, task), include, exclude)
        return _task_shown(workshop, task, include, exclude)


def _task_shown(
    workshop: Workshop, task: Task, include: Iterable[str] | None, exclude: Iterable[str] | None
) -> Bundle:
    """One that has not ended: its card, which becomes the still of its end."""
    from koubou_panel.views.still import taken_at, task_html, task_words

    now = time.time()
    text = f"{task_words(task)} ({task.task_id}, {taken_at(now)})"
    still = task_html(
        _model(task, now), _log(workshop, task, STILL_OUTPUT_BYTES), now, foot=_foot(taken_at(now))
    )
    hops, caller = workshop.hops, workshop.caller

    async def open_session(post: Post) -> tuple[Session, Callable[[], None]]:
        from koubou_panel.views.inline import TaskShown

        shop = hops.acquire()
        try:
            found = shop.state.tasks.get(task.task_id) or await shop.get(task.task_id) or task
        finally:
            shop.release()
        return _session(hops, caller, post, lambda visit: TaskShown(visit, found))

    shown = _chosen(*_live(text, still, open_session), include, exclude)
    _follow(shown, workshop, task.task_id, lambda bundle: _chosen(*bundle, include, exclude))
    return shown


def _follow(shown: Bundle, workshop: Workshop, task_id: TaskId, chosen: Callable[[Bundle], Bundle]) -> None:
    """Have what is `shown` told anew when its task has ended."""
    endings = showroom().endings
    if EXEC not in shown[0] or endings is None:
        return

    def ended() -> Bundle | None:
        task = workshop.record(task_id)
        if task is None or not task.is_finished:
            return None  # the workshop was left, or has ended with it
        with speaking(_language()):
            return chosen(_ended(workshop, task, with_output=True))

    with suppress(Refused, RuntimeError):  # it is gone, or the workshop is
        endings.follow(shown[1][EXEC]["id"], workshop.future(task_id), ended)


def _ended(workshop: Workshop, task: Task, *, with_output: bool = False) -> Bundle:
    """One that has ended; its text `with_output`: for a notebook that is kept, where nothing else may be read of it."""
    from koubou_panel.views.inline import result_words
    from koubou_panel.views.still import log_words, taken_at, task_html, task_words

    task = replace(task, message=with_cells(task.message))
    log = _log(workshop, task, ENDED_OUTPUT_BYTES)
    html = task_html(_model(task, time.time()), log, time.time(), result=result_words(task))
    text = f"{task_words(task)} ({task.task_id}, {taken_at(task.finished_at or time.time())})"
    printed = log_words(log, task.task_id) if with_output else ""
    return {"text/plain": f"{text}\n{printed}" if printed else text, "text/html": html}, {}


def _unknown(workshop: Workshop, task_id: TaskId, future: TaskFuture | None) -> Bundle:
    """One that the workshop knows nothing of: it was refused, and why; or it has never heard of it."""
    from koubou_panel.views.still import refused_html

    error: BaseException | None = None
    with suppress(TimeoutError, CancelledError):
        error = None if future is None else future.exception(REFUSAL_LIMIT_S)
    if error is None:
        return {"text/plain": _(NOT_KNOWN).format(task=task_id, place=workshop.home.root)}, {}
    why = str(error) or type(error).__name__
    return {
        "text/plain": _(REFUSED).format(task=task_id, why=why),
        "text/html": refused_html(why, foot=_(SUBMIT_AGAIN)),
    }, {}


def _model(task: Task, now: float) -> Any:
    from koubou_panel.reactive.models import TaskModel, task_values

    return TaskModel(**task_values(task, {}, told_at=now))


def _foot(moment: str) -> str:
    return f"{_(AS_IT_STOOD).format(moment=moment)} {_(MOVES)}"


def _language() -> str:
    """What is spoken here: in a terminal and in scripts English, as the command line does."""
    return language(showroom().language) if _kernel() is not None else "en"


def _session(
    hops: Hops, caller: Caller, post: Post, make: Callable[[Any], Any], *, place: str = ""
) -> tuple[Session, Callable[[], None]]:
    from koubou_panel.views.inline_session import InlineSession

    shop = hops.acquire()
    try:
        session = InlineSession(
            shop,
            caller=caller,
            make=make,
            post=post,
            place=place,
            full=_dashboard(shop),
            has_ended=lambda: shop.is_over,
        )
    except BaseException:
        shop.release()
        raise
    return session, shop.release


def _dashboard(shop: Shop) -> str:
    """The address of the workshop's full dashboard; empty where none runs."""
    service = shop.state.services.get("dashboard")
    is_up = service is not None and service.state == "running" and service.port
    return f"http://127.0.0.1:{service.port}/" if service and is_up else ""


def _live(text: str, still: str, open_session: Open) -> Bundle:
    """The still, and with it the few lines that make it live where Jupyter has the extension."""
    plain = {"text/plain": text, "text/html": still}
    kernel = _kernel()
    if kernel is None:
        return plain, {}
    from koubou_panel.views.joined import JS, inline_version

    load()
    display_id = f"koubou-{token_hex(8)}"
    room: Showroom = showroom()
    room.add(display_id, open_session)
    room.serve(kernel)
    code = (JS / "inline" / "boot.js").read_text(encoding="utf-8")
    told = {"ID": display_id, "VERSION": inline_version(), "GONE": KERNEL_ENDED, "DEAD": NOT_LOADED}
    for name, value in told.items():
        code = code.replace(f"KOUBOU_{name}", json.dumps(value))
    live = f'{still}<script type="text/javascript">{code}</script>'
    return {"text/plain": text, "text/html": live, EXEC: ""}, {EXEC: {"id": display_id}}


def _kernel() -> Any:
    """The IPython kernel that this runs in; None: it runs in none."""
    import sys

    found = sys.modules.get("IPython")
    shell = found.get_ipython() if found else None
    return getattr(shell, "kernel", None)


def _look(workshop: Workshop) -> tuple[Any, list[Task]]:
    """The workshop's models at this moment, and what ended last, the latest first."""
    from koubou_panel.reactive.mirror import Mirror

    async def look() -> tuple[Any, list[Task]]:
        mirror = Mirror(workshop.shop)
        mirror.close()
        return mirror.model, list(mirror.recent)[-20:][::-1]

    return workshop.call(look())


def _log(workshop: Workshop, task: Task, most_bytes: int) -> OutputPage:
    """The last of what it has printed: from where it lies, since the workshop may have ended with the task."""
    try:
        return read_output(output_path(workshop.home.output, task.task_id), -most_bytes, most_bytes)
    except (OSError, Refused):
        return OutputPage("", 0, 0, 0)


def _chosen(
    data: dict[str, str],
    metadata: dict[str, Any],
    include: Iterable[str] | None,
    exclude: Iterable[str] | None,
) -> Bundle:
    """What was asked for."""
    wanted = set(data if include is None else include) - set(exclude or ())
    return {name: value for name, value in data.items() if name in wanted}, metadata
