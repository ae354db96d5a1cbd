"""What `make soak` looks at for half an hour, for as long as a test may take."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(os.environ.get("SOAK") != "1", reason="takes minutes: SOAK=1 has it run")
@pytest.mark.timeout(420)
async def test_a_page_left_open_and_many_closed_leave_nothing() -> None:
    """At 20 tasks a second its heap and its nodes stay as they were; closed pages leave no session and no memory.

    In a process of its own: what other tests hold there is not what is measured.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.soak", "--minutes", "0.5", "--rate", "20", "--pages", "30"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, told.decode()
    assert "0 sessions and 0 followers left" in told.decode()
