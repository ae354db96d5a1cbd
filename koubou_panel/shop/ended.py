"""Whether a workshop that does not answer is to answer again by itself."""

from __future__ import annotations

import json
import os

from koubou_panel.home import Home

SAME_S = 2.0  # the system tells start times by a clock that may be set


def why_ended(home: Home) -> str | None:
    """Why nobody is to be waited for at `home`, in words; None: somebody holds it, or a supervisor lives. Blocks."""
    if home.is_held():
        return None
    services = _services(home)
    if services is None:
        what = "has ended" if home.root.exists() else "has ended, and its folder was removed"
        return (
            f"the workshop of {home.root} {what}; `koubou up` or a new koubou_panel.Workshop() opens it again"
        )
    if services.get("pool") == "failed":
        return f"the workshop of {home.root} has failed; `koubou restart` starts it again"
    return None


def is_supervised(home: Home) -> bool:
    """Whether a supervisor lives there, which may start a workshop that ends again. Blocks."""
    return _services(home) is not None


def _services(home: Home) -> dict[str, str] | None:
    """The services of a supervisor that lives, and how each stands; None: there is none, whatever a dead one left."""
    try:
        said = json.loads((home.runtime / "status.json").read_bytes())
        if not _lives(said["pid"], said["started_at"]):
            return None
        return {service["name"]: service["state"] for service in said["services"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _lives(pid: int, started_at: float) -> bool:
    import psutil

    if pid == os.getpid():
        return True
    try:
        process = psutil.Process(pid)
        is_same = abs(process.create_time() - started_at) < SAME_S
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
