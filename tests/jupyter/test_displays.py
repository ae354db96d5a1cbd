"""What a workshop and a task are under a cell, in a real JupyterLab 4 and Notebook 7, without network."""

import json
from pathlib import Path

import nbformat
import psutil
import pytest

from koubou_panel.core.ports import OutputPage
from koubou_panel.reactive.models import TaskModel
from koubou_panel.testing import until
from koubou_panel.views.still import task_html

TOUR = Path(__file__).parents[2] / "notebooks" / "tour.ipynb"
OPEN = """import time
import koubou_panel as kp
shop = kp.Workshop({home!r}, workers=2)

def work(steps):
    for step in range(steps):
        kp.progress(step + 1, steps)
        print("step", step)
        time.sleep(0.2)
    return steps
"""
COUNT = """from koubou_panel.notebook.showroom import showroom
print(len(showroom()), "followed", len(shop.hops), "hops")
"""


@pytest.fixture
def first(tmp_path):
    """The cell that opens a workshop."""
    return OPEN.format(home=str(tmp_path / "home"))


async def test_a_card_moves_and_is_cancelled_while_its_cell_waits(open_notebook, first):
    """A cell that blocks in `result()` still sees its task move, and Cancel ends it."""
    notebook = await open_notebook([first, "f = shop.submit(work, 600)\ndisplay(f)\nf.result()", COUNT])
    await notebook.run(0, 1)
    await notebook.shows(".onetask .log", "step 2", cell=1)
    assert "*" in await notebook.text(".jp-InputPrompt", cell=1)
    before = await notebook.text(".onetask .meta", cell=1)
    await until(lambda: _differs(notebook, before))
    cancel = notebook.cell(1).locator(".onetask .cancel")
    await cancel.click()
    await cancel.click()
    await notebook.shows(".koubou-ended", "cancelled", cell=1)
    await notebook.done(1)
    assert "CancelledError" in await notebook.output(1)
    await notebook.run(2)
    await notebook.shows(".jp-OutputArea", "0 followed 0 hops", cell=2)


async def _differs(notebook, before):
    return await notebook.text(".onetask .meta", cell=1) != before


@pytest.mark.parametrize("where", ["lab", "notebook"])
async def test_a_workshop_is_seen_to_work(open_notebook, first, tmp_path, where):
    """The dashboard under a cell: its charts move, a task's end is saved, and clearing the outputs ends both."""
    cells = [
        first,
        "shop",
        "f = shop.submit(work, 8)\nf",
        COUNT,
        "[shop.submit(work, 2) for _ in range(4)]; None",
    ]
    notebook = await open_notebook(cells, where=where)
    await notebook.run(0, 1)
    dashboard = notebook.cell(1).locator(".k-of-workshop")
    await notebook.shows(".k-of-workshop .pill", "live", cell=1)
    await dashboard.locator("canvas").first.wait_for()
    before = await dashboard.screenshot(path=tmp_path / "before.png")
    await notebook.run(2, 4)
    await notebook.shows(".koubou-ended", "completed", cell=2)
    ((kept, shown),) = [(one.data, one) for one in await notebook.saved(2)]
    assert "step 7" in kept["text/html"]
    assert "<script" not in kept["text/html"]
    assert "transient" not in shown
    await notebook.shows(".k-of-workshop .tile:nth-child(3) .value", "5", cell=1)
    charts = notebook.cell(1).locator(".k-throughput .k-plot")
    await until(lambda: _has_bars(charts, notebook))
    assert await dashboard.screenshot(path=tmp_path / "after.png") != before
    await notebook.run(3)
    await notebook.shows(".jp-OutputArea", "1 followed 1 hops", cell=3)
    await notebook.run(1)  # anew: the one before ends, and there is one again
    await notebook.shows(".k-of-workshop .pill", "live", cell=1)
    await until(lambda: _counts(notebook, "1 followed 1 hops"))
    await notebook.page.evaluate(
        "() => { window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs') }"
    )
    await until(lambda: _counts(notebook, "0 followed 0 hops"))


async def _has_bars(charts, notebook):
    """Whether the chart is painted in the colour of completed tasks somewhere."""
    return await charts.evaluate(
        """(plot) => {
          const canvases = []
          const walk = (root) => {
            for (const node of root.querySelectorAll("*")) {
              if (node.tagName === "CANVAS") canvases.push(node)
              if (node.shadowRoot) walk(node.shadowRoot)
            }
          }
          walk(plot)
          return canvases.some((canvas) => {
            if (!canvas.width || !canvas.height) return false
            const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
            let green = 0
            for (let i = 0; i < data.length; i += 4) green += data[i + 1] > 120 && data[i] < 80 && data[i + 2] < 170
            return green > 20
          })
        }"""
    )


async def _counts(notebook, wanted):
    """Whether the cell that counts prints this, run once more."""
    await notebook.run_anew(3)
    return wanted in await notebook.output(3)


async def test_the_tour_is_live(open_notebook):
    """The tour in JupyterLab: a card finishes, the dashboard is live, and says at the end that it is over."""
    notebook = await open_notebook(TOUR)
    sources = [cell.source for cell in nbformat.read(TOUR, 4).cells if cell.cell_type == "code"]
    card = next(n for n, source in enumerate(sources) if source.endswith("slow"))
    board = sources.index("shop")
    await notebook.run(*range(board + 1))
    await notebook.shows(".koubou-ended", "completed", cell=card)
    await notebook.shows(".k-of-workshop .pill", "live", cell=board)
    plots = notebook.cell(board).locator(".k-grid")
    await until(lambda: _has_bars(plots, notebook))
    before = await plots.screenshot()
    await until(lambda: _looks_different(plots, before))
    await notebook.run(*range(board + 1, len(sources)))
    await notebook.shows(".k-note", "was shut down", cell=board)
    await notebook.page.wait_for_timeout(1_500)  # two looks at whether the output is still there
    assert await _has_bars(plots, notebook)


async def _looks_different(part, before):
    return await part.screenshot() != before


async def test_a_restart_leaves_no_process_and_finds_its_tasks_again(open_notebook, first, tmp_path):
    """A kernel that is restarted in the middle leaves no worker; a new one has the results of the old one's tasks."""
    reattach = first + "print(shop.result({task!r}))"
    notebook = await open_notebook(
        [
            first
            + "done = shop.submit(work, 2); done.result(); f = shop.submit(work, 900)\nprint(done.task_id)",
            "f",
            "",
        ]
    )
    await notebook.run(0, 1)
    await notebook.shows(".onetask .log", "step 1", cell=1)
    task = (await notebook.output(0)).split()[-1]
    home = str(tmp_path / "home")
    assert _of_home(home)
    await notebook.page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel.restart()"
    )
    await until(lambda: not _of_home(home))
    await notebook.shows(".k-note", "has ended", cell=1)
    source = json.dumps(reattach.format(task=task))
    await notebook.page.evaluate(
        f"() => window.jupyterapp.shell.currentWidget.content.widgets[2].model.sharedModel.setSource({source})"
    )
    await notebook.run(2)
    await notebook.shows(".jp-OutputArea", "2", cell=2)


def _of_home(home):
    """The processes that were started for a workshop there."""
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if one.info["cmdline"] and any(home in part for part in one.info["cmdline"])
    ]


LOSE = """from koubou_panel.notebook.showroom import showroom
viewers = [viewer for display in showroom()._displays.values() for viewer in display.viewers]
for viewer in viewers:
    viewer.kept, viewer._send = viewer._send, lambda data: None
shop.submit(work, 1).result()
sleeper.cancel()
import time; time.sleep(3)
for viewer in viewers:
    viewer._send = viewer.kept
"""
# Whoever goes is sent to all the same, as by a kernel that is busy.
DEAF = """room, heard = showroom(), showroom()._heard
def hear(viewer, comm, message):
    if "bye" not in str(message["content"]["data"]):
        heard(viewer, comm, message)
room._heard = hear
"""
SCRIPTS = (
    "() => [...document.head.querySelectorAll('script')].filter((one) => one.textContent.length > 1e6).length"
)
CELLS = "() => window.jupyterapp.shell.currentWidget.content.widgets.length"


async def test_displays_bear_what_happens_to_them(open_notebook, first):
    """Two share one Bokeh; keys in them are theirs; messages that were lost, and a second view, do no harm."""
    notebook = await open_notebook(
        [first, "shop", "shop", "sleeper = shop.submit(work, 600)\nsleeper", LOSE, DEAF]
    )
    page = notebook.page
    await notebook.run(0, 1, 2, 3)
    for cell in (1, 2):
        await notebook.cell(cell).locator(".k-of-workshop canvas").first.wait_for()
    assert await page.evaluate(SCRIPTS) == 1
    await notebook.shows(".onetask .log", "step 1", cell=3)

    count = await page.evaluate(CELLS)
    await notebook.cell(1).locator(".segments button").first.click()
    for key in ("d", "d", "x"):
        await page.keyboard.press(key)
    assert await page.evaluate(CELLS) == count

    await notebook.run(4)
    await notebook.shows(".koubou-ended", "cancelled", cell=3)
    await notebook.shows(".k-of-workshop .tile:nth-child(3) .value", "1", cell=1)
    await notebook.run(5)

    await page.evaluate(
        """() => {
          const {shell, commands} = window.jupyterapp
          shell.currentWidget.content.activeCellIndex = 1
          return commands.execute("notebook:create-output-view")
        }"""
    )
    view = page.locator(".jp-LinkedOutputView")
    await view.locator(".k-of-workshop canvas").first.wait_for()
    await page.evaluate(
        """() => {
          const {shell} = window.jupyterapp
          for (const one of shell.widgets("main")) if (one.node.querySelector(".jp-LinkedOutputView")) one.close()
        }"""
    )
    await view.wait_for(state="detached")
    await page.wait_for_timeout(6_000)  # longer than a kernel has to answer
    assert "not live" not in await notebook.text(".k-of-workshop .pill", cell=1)
    await notebook.shows(".k-of-workshop .pill", "live", cell=1)
    assert not await notebook.cell(1).locator(".k-note").is_visible()


async def test_a_card_in_an_exported_page_stands_under_its_cell(chromium):
    """By itself nbconvert has what is displayed stand further left than the value of a cell."""
    from nbconvert import HTMLExporter

    data = {"text/html": task_html(TaskModel(task_id="t1", status="completed"), OutputPage("", 0, 0, 0), 1.0)}
    outputs = [
        nbformat.v4.new_output("display_data", data),
        nbformat.v4.new_output("execute_result", data, execution_count=1),
    ]
    cell = nbformat.v4.new_code_cell("task", outputs=outputs)
    text, _resources = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    page = await chromium.new_page()
    await page.route("**/*", lambda route: route.abort())  # it would fetch MathJax
    await page.set_content(text, wait_until="domcontentloaded")
    lefts = await page.evaluate(
        """() => [".jp-InputArea-editor", ".koubou-output", ".jp-OutputArea-executeResult .koubou-output"]
          .map((name) => document.querySelector(name).getBoundingClientRect().left)"""
    )
    await page.close()
    assert len(set(lefts)) == 1
