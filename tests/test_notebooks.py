"""The notebooks run from top to bottom, and are kept without outputs.

Their code is run as a script here; what a cell looks like in a browser is another matter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def code_cells(path: Path) -> list[dict]:
    """The code cells of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_there_is_one():
    """The folder is not empty."""
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    """Every cell works, in a home of its own."""
    source = "\n\n".join("".join(cell["source"]) for cell in code_cells(path))
    env = os.environ | {"KOUBOU_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", source], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path):
    """No outputs and no counts are committed."""
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code_cells(path))
