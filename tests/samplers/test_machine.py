"""The machine, and what single processes of ours use."""

import os

from koubou_panel.samplers.machine import ProcessLooks, machine
from koubou_panel.testing import ManualClock


def test_a_machine_says_what_it_is() -> None:
    """Its name and system, at least one core, and some memory."""
    found = machine()
    assert found.name
    assert found.system
    assert found.cores >= 1
    assert found.memory_bytes > 1 << 20


def test_a_process_tells_its_share_from_the_second_look_on() -> None:
    """Memory at once, CPU as the mean since the look before; one that is gone is left out."""
    clock = ManualClock()
    looks = ProcessLooks(clock)
    first = looks.look([os.getpid(), 2**22 + 1])
    assert list(first) == [os.getpid()]
    assert first[os.getpid()].cpu_percent is None
    assert first[os.getpid()].rss_bytes > 1 << 20
    clock.advance(2.0)
    assert looks.look([os.getpid()])[os.getpid()].cpu_percent >= 0.0
