"""`kp.extension()`: makes a notebook ready, and says what is missing where something is.

It is not needed for displays, which make themselves ready; it says why one stays still, and loads what the first one
would wait for.
"""

from __future__ import annotations

import json
import locale
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

PLAIN = (
    "koubou_panel.extension(): no notebook runs this, so there is nothing to show live; workshops and futures work as "
    "ever. `koubou up` opens the dashboard in a browser, `koubou watch` in a terminal."
)
TERMINAL = (
    "koubou_panel.extension(): a terminal shows a line of text for a Workshop or a future, nothing live. "
    "`koubou watch` shows it live here, `koubou up` in a browser."
)
LABEXTENSION = Path("labextensions", "@pyviz", "jupyterlab_pyviz", "package.json")
LANGUAGE_SETTING = Path("@jupyterlab", "translation-extension", "plugin.jupyterlab-settings")
_LOCALE = re.compile(r'^[^/\n]*"locale"\s*:\s*"([\w-]+)"', re.MULTILINE)  # its lines may be comments


def extension(*, panel: bool = False) -> None:
    """Make this notebook ready for live displays, and say so, or what is missing; calling it again does no harm.

    Args:
        panel: whether to load Panel's own extension, too, without network: for panels that you build yourself. It puts
            6 MB of script into the cell's output.
    """
    shell = _shell()
    if shell is None:
        _say(PLAIN)
        return
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        _say(TERMINAL)
        return
    from koubou_panel.notebook.showroom import showroom
    from koubou_panel.views.ends import READY
    from koubou_panel.views.language import _, speaking

    room = showroom()
    room.serve(kernel)
    load()
    if panel:
        import panel as pn

        pn.extension(inline=True)
    with speaking(language(room.language)):
        _say(_(missing() or READY))


def language(told: str = "") -> str:
    """The language of what is said here: the one that the notebook's page has told, else as Jupyter is set to.

    That is found out as its server does it: by its settings, and where those have none, by the system's locale.
    """
    from koubou_panel.views.language import language_of

    if told:
        return told
    chosen = _LOCALE.search(_settings())
    name = chosen[1] if chosen else "default"
    system = locale.getlocale()[0] or "en"
    return language_of(accepted=(system if name == "default" else name).replace("_", "-"))


def _settings() -> str:
    """JupyterLab's setting of the language, as it was written; empty where nobody has chosen one."""
    folder = os.environ.get("JUPYTERLAB_SETTINGS_DIR") or Path(
        import_module("jupyter_core.paths").jupyter_config_dir(), "lab", "user-settings"
    )
    try:
        return Path(folder, LANGUAGE_SETTING).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def missing(folders: list[str] | None = None) -> str:
    """The piece of Jupyter that displays need and that is not there, and the line that mends it; empty: all is there.

    In English, for the catalogues.

    As far as can be seen from the kernel: JupyterLab may have been started from another environment.

    Args:
        folders: where Jupyter looks for its data; where it does, if not given.
    """
    from koubou_panel.views.ends import NO_LABEXTENSION, SWITCHED_OFF

    if folders is None:
        folders = import_module("jupyter_core.paths").jupyter_path()
    if not any((Path(folder) / LABEXTENSION).is_file() for folder in folders) and not os.environ.get(
        "_PYVIZ_COMMS_INSTALLED"  # pyviz_comms, to kernels of a server that has it
    ):
        return NO_LABEXTENSION
    return SWITCHED_OFF if any(map(_is_off, folders)) else ""


def load() -> None:
    """Import what a live display is made of, which takes a second the first time; and here, before this returns.

    Not in the background: Panel's and Bokeh's modules import each other in circles, and where two threads import them
    at once (the user's own cell is the other) Python hands one of them modules that are not whole yet.
    """
    import_module("koubou_panel.views.still")
    import_module("koubou_panel.views.inline")
    import_module("koubou_panel.views.inline_session")
    import_module("koubou_panel.views.joined").inline_code()


def _is_off(folder: str) -> bool:
    file = Path(folder).parent.parent / "etc" / "jupyter" / "labconfig" / "page_config.json"
    try:
        off = json.loads(file.read_text(encoding="utf-8")).get("disabledExtensions", {})
    except (OSError, ValueError, AttributeError):
        return False
    return (
        bool(off.get("@pyviz/jupyterlab_pyviz"))
        if isinstance(off, dict)
        else "@pyviz/jupyterlab_pyviz" in off
    )


def _shell() -> Any:
    """The IPython that this runs in; None: it runs in none."""
    found = sys.modules.get("IPython")
    return found.get_ipython() if found else None


def _say(words: str) -> None:
    print(words)  # noqa: T201 - who calls it is to read it
