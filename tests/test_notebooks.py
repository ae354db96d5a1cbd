"""The notebooks run from top to bottom in a kernel, and are kept without outputs.

What a cell looks like in a browser is another matter (`tests/jupyter`).
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LIMIT_S = 110  # for a cell, on a machine that is busy otherwise
LINK = re.compile(r"\]\(([^)#]+)\)")


def cells(path: Path, kind: str) -> list[nbformat.NotebookNode]:
    """The cells of this kind."""
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == kind]


def test_all_are_there() -> None:
    """Those that the docs link."""
    names = {path.stem for path in NOTEBOOKS}
    assert names == {"tour", "sweep", "watching", "own_dashboard", "exporting"}


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch) -> None:
    """Every cell works, in a home of its own, and says something or shows something."""
    monkeypatch.setenv("KOUBOU_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(path, 4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=LIMIT_S, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert outputs
    assert [output for output in outputs if output.get("name") == "stderr"] == []


ENDS = [
    "import time, koubou_panel as kp\nshop = kp.Workshop(workers=2)\n%load_ext koubou_panel",
    "over = shop.run('sh', '-c', 'sleep 0.3; echo from a cell that is over')\nover",
    "%%koubou found\nprint('from a magic')\n6 * 7",
    "done = over.result()",
    "shop.submit(time.sleep, 600)",
]


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_notebook_that_was_run_has_the_end_of_its_tasks(tmp_path, monkeypatch) -> None:
    """With what they printed, in one output each; what was running when the kernel ended stays as it was shown."""
    monkeypatch.setenv("KOUBOU_HOME", str(tmp_path / "home"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in ENDS])
    NotebookClient(notebook, timeout=LIMIT_S, kernel_name="python3").execute()
    over, magic, _waited, running = [
        [output["data"]["text/html"] for output in cell.outputs] for cell in notebook.cells[1:]
    ]
    assert [("from a cell that is over" in html, "<script" in html) for html in over] == [(True, False)]
    assert [("from a magic" in html, "→</span> 42" in html) for html in magic] == [(True, True)]
    assert ["koubou-ended" in html for html in running] == [False]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path) -> None:
    """No outputs and no counts are committed, and nothing of the machine that wrote it."""
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    code = cells(path, "code")
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_one_to_read(path) -> None:
    """It begins with a title, has a text before most cells, uses public names alone, and its links lead somewhere."""
    texts, code = cells(path, "markdown"), cells(path, "code")
    assert nbformat.read(path, 4).cells[0].source.startswith("# ")
    assert len(texts) >= len(code) / 2
    source = "\n".join(cell.source for cell in code)
    assert "from koubou_panel." not in source
    assert not re.search(r"\b(?:shop|state|future)\._\w", source)
    links = [link for cell in texts for link in LINK.findall(cell.source) if "://" not in link]
    assert all((path.parent / link).exists() for link in links)
