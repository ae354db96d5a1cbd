"""Requests for tasks of each kind, made from what the methods of a `Workshop` are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import PicklingError
from typing import Any

from koubou_panel import registry
from koubou_panel.core.decide import MAX_WORKERS
from koubou_panel.core.records import Request, TaskId
from koubou_panel.errors import Refused
from koubou_panel.kinds.call import Desk
from koubou_panel.notebook.future import Keeper
from koubou_panel.notebook.options import request_fields
from koubou_panel.notebook.references import reducers


class Unpicklable(Refused, PicklingError):
    """A function, or what it is called with, cannot be pickled.

    Args:
        code, message, field, nearest: as of `Refused`.

    """


def unpicklable(refused: Refused) -> Refused:
    """`refused` as who waits for the task's result is told, as by a pool of the standard library."""
    if refused.code != "invalid":
        return refused
    error = Unpicklable(refused.code, refused.message, field=refused.field)
    error.__cause__ = refused.__cause__
    return error


def function_fields(
    task_id: TaskId,
    function: bytes,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    *,
    desk: Desk,
    keeper: Keeper,
) -> dict[str, Any]:
    """The payload of a call, and what it is to follow: the futures among its arguments.

    Raises:
        Refused: `invalid`: an argument cannot be pickled; `storage`: a large one cannot be stored.
        TypeError: a future of another workshop or executor is among them.
    """
    found: dict[TaskId, None] = {}
    payload = desk.packed(task_id, function, args, kwargs, lambda: reducers(found, keeper))
    return {"payload": payload, "after": tuple(found)} if found else {"payload": payload}


def with_options(fields: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """`fields` with those `told` by options; what a task is to follow is in either."""
    after = tuple(dict.fromkeys((*told.get("after", ()), *fields.get("after", ()))))
    return fields | told | {"after": after}


def command_request(
    task_id: TaskId,
    command: Sequence[str],
    *,
    cwd: str | Path | None,
    env: dict[str, str] | None,
    stdin: bool,
    options: dict[str, Any],
    keeper: Keeper,
) -> Request:
    """The request of `Workshop.run`; raises as that does."""
    _check_command(command)
    spec: dict[str, object] = {"command": list(command), "cwd": str(cwd or Path.cwd())}
    if env is not None and not isinstance(env, Mapping):
        raise TypeError(f'env is a dict such as {{"NAME": "value"}}, not {env!r:.80}')
    if env:
        spec["env"] = dict(env)
    if stdin:
        if options.get("retries") or options.get("on_crash") == "retry":
            raise ValueError(
                "stdin: input that was read cannot be given to another try; leave out the retries"
            )
        spec["stdin"] = stdin
    return _checked(task_id, "script", spec, options, keeper)


def _check_command(command: Sequence[object]) -> None:
    if len(command) == 1 and isinstance(command[0], list | tuple):
        words = f"give the program and its arguments apart: run(*{list(command[0])!r})"
        raise TypeError(words)
    for part in command:
        if not isinstance(part, str):
            words = (
                f"the program and its arguments are texts, but {part!r:.80} is of type {type(part).__name__}"
            )
            raise TypeError(f"{words}: give str({part!r:.80})")


def check_home(home: object) -> None:
    """Check that a folder is given as the home, or none.

    Raises:
        TypeError: it is something else, such as a number of workers.
        ValueError: an empty text, or a file.
    """
    if home == "":
        raise ValueError("home is the workshop's folder, not ''; leave it out for the usual one")
    if home is not None and not isinstance(home, str | Path):
        words = f"home is the workshop's folder, a text or a Path, not {home!r:.80}"
        raise TypeError(
            f"{words}; for so many workers: Workshop(workers={home})" if type(home) is int else words
        )
    if home is not None and Path(home).is_file():
        raise ValueError(f"home is the workshop's folder, and {home} is a file")


def checked_workers(workers: object) -> tuple[int, int] | None:
    """The least and the most workers that are meant.

    Raises:
        TypeError: neither a number nor two.
        ValueError: no worker, too many, or fewer at most than at least.
    """
    if workers is None:
        return None
    pair = (workers, workers) if isinstance(workers, int) else workers
    if not isinstance(pair, tuple | list) or [type(bound) for bound in pair] != [int, int]:
        raise TypeError(
            f"workers is a number such as 2, or (least, most) such as (1, 4), not {workers!r:.80}"
        )
    least, most = pair
    if most < 1:
        raise ValueError("workers must be greater than 0")
    if not 0 <= least <= most <= MAX_WORKERS:
        raise ValueError(
            f"workers is (least, most) with 0 <= least <= most <= {MAX_WORKERS}, not {workers!r}"
        )
    return least, most


def prompt_request(task_id: TaskId, told: dict[str, Any], options: dict[str, Any], keeper: Keeper) -> Request:
    """The request of `Workshop.prompt`, of its arguments that were given; raises as that does."""
    spec = {name: value for name, value in told.items() if value is not None}
    return _checked(task_id, "prompt", spec, options, keeper)


def _checked(
    task_id: TaskId, kind: str, spec: dict[str, object], options: dict[str, Any], keeper: Keeper
) -> Request:
    fields = request_fields(options, keeper)
    request = Request(task_id=task_id, kind=kind, created_at=0.0, spec=spec, **fields)
    return registry.prepare(request, from_network=False)
