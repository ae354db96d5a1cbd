"""The processes of a workshop, as its settings want them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from koubou_panel.home import Home
from koubou_panel.settings import Settings
from koubou_panel.supervising.model import embedded, python
from koubou_panel.supervising.process import Child, Program


def children_of(
    settings: Settings, *, dashboard: bool, flags: Sequence[str], label: str, say: Callable[[str], None]
) -> tuple[Child, Child | None, Child]:
    """The workshop, the dashboard (None: not wanted) and the model server; none is started.

    Args:
        settings: the settings in force.
        dashboard: whether there is to be a dashboard.
        flags: what both take beside the settings.
        label: a word for what kind of workshop this is.
        say: takes what they print, line by line.
    """
    common = ["--home", str(settings.home), "--host", settings.host, *flags]
    model = Child("model", ("model",), embedded(Home(settings.home)), {}, say, state="idle")
    page = None
    if dashboard:
        labelled = ["--label", label] if label else []
        argv = [*python("dashboard"), *common, *labelled]
        program = Program(argv, {"dashboard": "--dashboard-port"}, is_told=True)
        page = Child("dashboard", ("dashboard",), program, {"dashboard": settings.dashboard_port}, say)
    return _workshop(settings, common, dashboard=dashboard, say=say), page, model


def _workshop(
    settings: Settings, common: Sequence[str], *, dashboard: bool, say: Callable[[str], None]
) -> Child:
    own = ["--grace", f"{settings.grace_s:g}", "--agent-tasks", str(settings.agent_tasks)]
    own += ["--dashboard-port", str(settings.dashboard_port)] if dashboard else []
    flags = {"websocket": "--socket-port", "agents": "--agents-port"}
    ports = {"websocket": settings.socket_port, "agents": settings.agents_port}
    program = Program([*python("workshop"), *common, *own], flags, is_told=True)
    workshop = Child("workshop", ("agents", "pool", "websocket"), program, ports, say)
    if settings.sources["workers"] != "default":
        low, high = settings.workers
        workshop.first_flags = ["--workers", f"{low}:{high}"]
    return workshop
