"""Koubou Panel 工房: runs long work on your own machine and shows it live.

The public names below are imported when they are first used: `import koubou_panel` itself costs nothing, and
loads no Panel into a worker or into the workshop process.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from koubou_panel.on_import import on_import

__version__ = "0.1.0"

# public name -> the module that defines it
_HOME_OF = {
    "CorruptStream": "koubou_panel.errors",
    "DependencyFailed": "koubou_panel.errors",
    "JoblibBackend": "koubou_panel.notebook.joblib_backend",
    "KoubouError": "koubou_panel.errors",
    "Limits": "koubou_panel.core.records",
    "LiveTask": "koubou_panel.notebook.task",
    "ProtocolFault": "koubou_panel.errors",
    "Refused": "koubou_panel.errors",
    "SettingsError": "koubou_panel.errors",
    "Snapshot": "koubou_panel.notebook.snapshot",
    "TaskFailure": "koubou_panel.errors",
    "TaskFuture": "koubou_panel.notebook.future",
    "TaskLost": "koubou_panel.notebook.results",
    "Workshop": "koubou_panel.notebook.workshop",
    "extension": "koubou_panel.notebook.extension",
    "progress": "koubou_panel.running",
}

_MAGICS = "koubou_panel.notebook.magics"

__all__ = ["__version__", *_HOME_OF]  # noqa: PLE0604 - names from a table, which the rule cannot see into


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext koubou_panel`."""
    import_module(_MAGICS).load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext koubou_panel`."""
    import_module(_MAGICS).unload(shell)


def _joblib_backend(**options: Any) -> Any:
    return __getattr__("JoblibBackend")(**options)


def _tell_joblib(parallel: Any) -> None:
    parallel.BACKENDS.setdefault("koubou", _joblib_backend)


# joblib has no door for backends of others that are not imported yet: it is told the name when it is imported itself.
on_import("joblib.parallel", _tell_joblib)
