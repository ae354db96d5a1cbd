"""The one place where families of plug-ins meet: built-ins and third parties enter by the same door.

A third party registers an entry point in the group `koubou_panel.<family>`; a built-in is named in the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from msgspec.structs import replace

from koubou_panel.core.ports import Prepared, TaskKind
from koubou_panel.core.records import Request
from koubou_panel.core.suggest import nearest, unknown
from koubou_panel.errors import Refused

BUILT_IN: dict[str, dict[str, str]] = {
    "kinds": {
        "function": "koubou_panel.kinds.function:FunctionKind",
        "prompt": "koubou_panel.kinds.prompt:PromptKind",
        "pull": "koubou_panel.kinds.pull:PullKind",
        "script": "koubou_panel.kinds.script:ScriptKind",
    },
    "pages": {
        "scripts": "koubou_panel.views.pages.scripts:ScriptsPage",
        "logs": "koubou_panel.views.pages.logs:LogsPage",
        "services": "koubou_panel.views.pages.services:ServicesPage",
        "settings": "koubou_panel.views.pages.settings:SettingsPage",
        "tasks": "koubou_panel.views.pages.tasks:TasksPage",
        "system": "koubou_panel.views.pages.system:SystemPage",
        "workers": "koubou_panel.views.pages.workers:WorkersPage",
    },
}


def names(family: str) -> list[str]:
    """The names that `family` knows, built-in and installed."""
    return sorted({*BUILT_IN.get(family, {}), *_installed(family)})


def find(family: str, name: str) -> object | None:
    """What is registered as `name`, made once; None if nothing is."""
    if name in BUILT_IN.get(family, {}) or name in _installed(family):
        return _made(family, name)
    return None


@cache
def _made(family: str, name: str) -> object:
    target = BUILT_IN.get(family, {}).get(name)
    if target is None:
        return cast("object", _installed(family)[name].load()())
    module, _, attribute = target.partition(":")
    return cast("object", getattr(import_module(module), attribute)())


@cache
def _installed(family: str) -> Mapping[str, EntryPoint]:
    """What third parties have installed: to find it takes milliseconds. Of two of a name the first on the path wins."""
    return {point.name: point for point in reversed(tuple(entry_points(group=f"koubou_panel.{family}")))}


def kind(name: str) -> TaskKind:
    """The task kind `name`.

    Raises:
        Refused: code `invalid`, naming the nearest kind.
    """
    found = find("kinds", name)
    if found is None:
        known = names("kinds")
        raise Refused("invalid", unknown("kind", name, known), nearest=nearest(name, known), field="kind")
    return cast("TaskKind", found)


def batches(name: str) -> bool:
    """Whether tasks of a kind may share a worker's window; False for an unknown kind."""
    found = find("kinds", name)
    return found is not None and cast("TaskKind", found).batches


def shares_worker(name: str) -> bool:
    """Whether runs of a kind are part of their worker's own process, which ends with one that is stopped."""
    found = find("kinds", name)
    return found is not None and cast("TaskKind", found).shares_worker


def prepare(request: Request, *, from_network: bool) -> Request:
    """`request` with its spec checked and its name and summary filled in.

    Raises:
        Refused: code `invalid`, naming the field.
    """
    task_kind = kind(request.kind)
    if from_network and not task_kind.from_network:
        raise Refused(
            "invalid",
            f"a {request.kind} is never taken from the network; use the Python face on this machine",
            field="kind",
        )
    prepared: Prepared = task_kind.prepare(request.spec, request.payload)
    if request.name and prepared.spec == request.spec and (request.summary or not prepared.summary):
        return request
    return replace(
        request,
        spec=prepared.spec,
        name=request.name or prepared.name,
        summary=request.summary or prepared.summary,
    )
