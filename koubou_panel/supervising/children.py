"""The processes of a workshop, as its settings want them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from koubou_panel.home import Home
from koubou_panel.servers.child import CannotStart, require_free
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
        argv = [*python("dashboard"), *common, *labelled, *_given(settings)]
        program = Program(argv, {"dashboard": "--dashboard-port"}, is_told=True)
        page = Child("dashboard", ("dashboard",), program, {"dashboard": settings.dashboard_port}, say)
    return _workshop(settings, common, dashboard=dashboard, say=say), page, model


def go_on_at(children: Sequence[Child], ports: Mapping[str, int], host: str) -> None:
    """Have children that may take any port take those that they had, by service, where nobody else has them by now."""
    for child in children:
        for service, wanted in child.ports.items():
            had = ports.get(service, 0)
            if not wanted and had and _is_free(host, had):
                child.ports[service] = had


def _is_free(host: str, port: int) -> bool:
    try:
        require_free(host, port, flag="")
    except CannotStart:
        return False
    return True


def _given(settings: Settings) -> list[str]:
    """What flags say, for the page to tell: they are stronger than the file that it changes."""
    low, high = settings.workers
    said = {"workers": f"{low}:{high}"}
    names = [name for name, source in settings.sources.items() if source.startswith("--") and name != "home"]
    return [f"--given={name}={said.get(name, getattr(settings, name))}" for name in names]


def _workshop(
    settings: Settings, common: Sequence[str], *, dashboard: bool, say: Callable[[str], None]
) -> Child:
    own = ["--grace", f"{settings.grace_s:g}", "--agent-tasks", str(settings.agent_tasks)]
    own += ["--values-days", f"{settings.values_days:g}", "--values-gb", f"{settings.values_gb:g}"]
    own += ["--dashboard-port", str(settings.dashboard_port)] if dashboard else []
    flags = {"websocket": "--socket-port", "agents": "--agents-port"}
    ports = {"websocket": settings.socket_port, "agents": settings.agents_port}
    program = Program([*python("workshop"), *common, *own], flags, is_told=True)
    workshop = Child("workshop", ("agents", "pool", "websocket"), program, ports, say)
    if settings.sources["workers"] != "default":
        low, high = settings.workers
        workshop.first_flags = ["--workers", f"{low}:{high}"]
    return workshop
