"""Tasks give way: the workshop, and whoever else uses the machine, goes first."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from koubou_panel.engines.guard import NICE
from koubou_panel.testing import ended, open_shop, submit

TELL = """
import os
from pathlib import Path
group = Path("/proc/self/autogroup")
print(os.getpriority(os.PRIO_PROCESS, 0), *(group.read_text().split()[-1:] if group.exists() else []))
"""


async def test_a_command_and_its_session_are_nicer_than_the_workshop(tmp_path) -> None:
    """Its processes are, and where Linux shares the cores out by session, the session is too."""
    nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICE)
    async with open_shop(tmp_path, workers=1) as shop:
        # What a session's niceness is set to a moment after the start is seen by the second look.
        task_id = await submit(shop, "sh", "-c", 'sleep 0.3; exec "$@"', "-", sys.executable, "-c", TELL)
        await ended(shop, task_id)
        said = (await shop.read_output(task_id, 0, 100)).text.split()
    # Who is not root may set so many in a second, and then the session stays as it was.
    has_groups = Path("/proc/self/autogroup").exists() and os.geteuid() == 0
    assert said[:1] == [str(nice)]
    assert not has_groups or said[1:] == [str(nice)]
