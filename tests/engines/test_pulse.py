"""A worker's pulse: quick while there is news, slow while there is not, and woken by who has some."""

from __future__ import annotations

import threading
import time

from koubou_panel.engines import pulse as module
from koubou_panel.engines.pulse import PULSE_S, Pulse


def test_news_brings_the_next_look_soon():
    """After news the rest is one pulse, however long it was before."""
    pulse = Pulse()
    for _ in range(3):
        pulse.begin()
        pulse.rest(had_news=False, longest_s=PULSE_S)
    began = time.monotonic()
    pulse.begin()
    pulse.rest(had_news=True, longest_s=60.0)
    assert PULSE_S <= time.monotonic() - began < 30.0


def test_rests_grow_up_to_the_longest(monkeypatch):
    """Without news each rest is twice the one before, to a bound."""
    waits = []
    pulse = Pulse()
    monkeypatch.setattr(pulse._bell, "wait", waits.append)
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    for _ in range(8):
        pulse.begin()
        pulse.rest(had_news=False, longest_s=1.0)
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    pulse.rest(had_news=False, longest_s=0.25)
    assert waits[-1] == 0.25


def test_who_rings_ends_the_rest():
    """A rest of a minute ends when there may be news, also if it was said before the rest began."""
    pulse = Pulse()
    pulse._rest_s = 60.0
    pulse.begin()
    ringer = threading.Timer(0.05, pulse.ring)
    began = time.monotonic()
    ringer.start()
    pulse.rest(had_news=False, longest_s=60.0)
    ringer.join()
    pulse._rest_s = 60.0
    pulse.begin()
    pulse.ring()
    pulse.rest(had_news=False, longest_s=60.0)
    assert time.monotonic() - began < 30.0
