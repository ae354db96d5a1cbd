"""Koubou Panel 工房: runs long work on your own machine and shows it live.

The public names below are imported when they are first used: `import koubou_panel` itself costs nothing, and
loads no Panel into a worker or into the workshop process.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# public name -> the module that defines it
_HOME_OF = {
    "CorruptStream": "koubou_panel.errors",
    "DependencyFailed": "koubou_panel.errors",
    "KoubouError": "koubou_panel.errors",
    "Limits": "koubou_panel.core.records",
    "ProtocolFault": "koubou_panel.errors",
    "Refused": "koubou_panel.errors",
    "SettingsError": "koubou_panel.errors",
    "TaskFailure": "koubou_panel.errors",
    "Workshop": "koubou_panel.notebook.workshop",
    "progress": "koubou_panel.running",
}

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
