"""A panel of your own over the running workshop: counts, the newest tasks, and the processor.

    panel serve apps/own_panel.py --address 127.0.0.1 --port 5007

`shop.state` is a Param model like any other: `pn.bind`, `param.watch`, `param.depends` and `.rx` follow it.
"""

import pandas as pd
import panel as pn

import koubou_panel as kp

pn.extension("tabulator")

shop = pn.state.as_cached("workshop", kp.Workshop)  # one for the server; `state` is each visitor's own
state = shop.state


def rows(running, tasks):
    """What runs, then the newest tasks. Cells show text as text, whatever a task is called."""
    shown = {task.task_id: task for task in [*running, *tasks]}
    cells = [(t.label, t.status, 100 * (t.fraction or 0), t.duration_s) for t in shown.values()]
    return pd.DataFrame(cells[:12], columns=["task", "status", "progress", "seconds"])


def measure(event):
    """Add the host's latest sample to the trend."""
    cpu.stream({"x": [event.new.at], "y": [event.new.cpu_percent]}, rollover=120)


counts = [
    pn.indicators.Number(
        label=name.replace("_", " "), value=state.param[name], font_size="28pt", title_size="12pt"
    )
    for name in ("pending", "in_progress", "completed", "failed")
]
table = pn.widgets.Tabulator(
    pn.bind(rows, state.param.running, state.param.tasks),
    formatters={"progress": {"type": "progress", "max": 100}},
    layout="fit_columns",
    show_index=False,
    disabled=True,
    sizing_mode="stretch_width",
)
now = {"x": [state.metrics.at or 0], "y": [state.metrics.cpu_percent or 0]}
cpu = pn.indicators.Trend(label="CPU, percent", data=now, width=220, height=160, plot_type="area")
state.param.watch(measure, "metrics")

pn.Row(pn.Column(*counts, cpu, width=260), table, sizing_mode="stretch_width").servable(title="My panel")
