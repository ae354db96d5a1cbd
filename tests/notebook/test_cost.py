"""What a notebook pays before its first task: the imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"panel", "bokeh", "param", "pandas", "numpy", "IPython", "joblib", "tornado", "multiprocessing"}


@pytest.mark.parametrize(
    ("program", "heavy"),
    [
        ("import koubou_panel", HEAVY | {"asyncio", "msgspec", "concurrent.futures"}),
        ("from koubou_panel import Workshop", HEAVY - {"multiprocessing"}),
    ],
)
def test_an_import_loads_nothing_heavy(program, heavy):
    """`import koubou_panel` next to nothing, and `Workshop` no plotting and no tables."""
    ran = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*({heavy!r} & sys.modules.keys()))"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout.split() == []
