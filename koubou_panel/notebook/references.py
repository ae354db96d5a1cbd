"""Futures among the arguments of a task: each becomes a reference, for which a worker puts the value in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import NoReturn

from koubou_panel.core.records import TaskId
from koubou_panel.kinds.function import result_of
from koubou_panel.kinds.packing import ForeignFuture, Reducers
from koubou_panel.notebook.future import Keeper, TaskFuture

FOREIGN: tuple[type, ...] = (Future, asyncio.Future, asyncio.Task)


def reducers(found: dict[TaskId, None], keeper: Keeper) -> Reducers:
    """How futures are pickled for a task of `keeper`'s workshop; the ids of those that are met go into `found`."""

    def reduce(future: TaskFuture) -> tuple[Callable[..., object], tuple[object, ...]]:
        task_id = same_workshop(future, keeper).task_id
        found[task_id] = None
        return result_of, (task_id,)

    return {TaskFuture: reduce} | dict.fromkeys(FOREIGN, _refuse)


def same_workshop(future: TaskFuture, keeper: Keeper) -> TaskFuture:
    """`future`, if it is of `keeper`'s workshop.

    Raises:
        ForeignFuture: it is of another.
    """
    if future.keeper.home.root != keeper.home.root:
        raise ForeignFuture(
            f"task {future.task_id} is of another workshop ({future.keeper.home.root}), whose results this one "
            "cannot read; pass its result() instead"
        )
    return future


def _refuse_inside(future: object) -> NoReturn:  # noqa: ARG001 - a reducer's signature
    raise ForeignFuture(
        "a future inside the function itself (in its closure, or a partial's) cannot stand for its result: pass it "
        "as an argument"
    )


INSIDE: Reducers = dict.fromkeys((TaskFuture, *FOREIGN), _refuse_inside)


def _refuse(future: object) -> NoReturn:
    raise ForeignFuture(
        f"a {type(future).__module__}.{type(future).__name__} cannot be passed to a task: only futures of this "
        "workshop can; pass its result() instead"
    )
