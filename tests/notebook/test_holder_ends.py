"""A handle that is attached to a workshop whose process is killed: what it says, and when that is opened again."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from concurrent.futures import CancelledError
from contextlib import contextmanager

import msgspec
import psutil
import pytest

from koubou_panel import TaskFailure, Workshop
from koubou_panel.errors import Refused
from koubou_panel.home import Home
from koubou_panel.notebook import patience
from koubou_panel.shop.ended import why_ended
from koubou_panel.testing import until
from koubou_panel.views.inline import WorkshopShown
from koubou_panel.views.inline_session import InlineSession

HOLDS = "import sys, koubou_panel as kp; shop = kp.Workshop(sys.argv[1], workers=1); print('open', flush=True); input()"
SOON_S = 3.0  # far below the ten seconds for which one that restarts is waited for


@contextmanager
def _holder(home):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline() == b"open\n"
        yield process
        process.kill()


def _begun(shop):
    """A run that is at work for certain: one that was only handed over would begin anew in the next workshop."""
    run = shop.run("sh", "-c", "echo on; exec sleep 60")
    asyncio.run(until(lambda: run.output))
    return run


def _refused_in_s(ask):
    begun = time.monotonic()
    with pytest.raises(Refused, match="has ended") as refused:
        ask()
    assert refused.value.code == "unavailable"
    return time.monotonic() - begun


async def _shown(shop, status):
    """Until a display of `shop` says that the link to it is in this state."""
    hopped, posted = shop.hops.acquire(), []
    session = InlineSession(hopped, caller=shop.caller, make=WorkshopShown, post=posted.append)
    try:
        await until(lambda: any(f'"link":{{"status":"{status}"' in text for text in posted))
    finally:
        session.close()
        hopped.release()


def test_a_workshop_that_was_killed_is_known_to_be_gone(tmp_path, monkeypatch):
    """Commands are refused at once, displays and models say so, futures end; opened again, the handle goes on."""
    monkeypatch.setattr(patience, "LIMIT_S", 0.5)
    home = tmp_path / "{home}"
    with _holder(home) as process:
        shop = Workshop(home)
        future = _begun(shop)
        process.kill()
        assert _refused_in_s(lambda: shop.submit(pow, 2, 2).result(20)) < SOON_S
        assert _refused_in_s(shop.pause) < SOON_S
    assert shop.state.link_status == "closed"
    asyncio.run(_shown(shop, "closed"))
    assert "workshop stopped" in shop._repr_mimebundle_()[0]["text/html"]
    with pytest.raises(TaskFailure, match=rf"has ended before .* shop\.result\('{future.task_id}'\)"):
        future.result(20)
    with Workshop(home, workers=1) as again:
        assert not again.is_attached
        assert shop.submit(pow, 2, 2).result(20) == 4
        assert shop.state.link_status == "live"
        with pytest.raises(TaskFailure, match="the workshop stopped while it ran"):
            shop.result(future.task_id, timeout=20)
        shop.leave()


def test_futures_wait_for_a_workshop_that_is_opened_again(tmp_path):
    """What had not begun runs then, and its future has the result."""
    home = tmp_path / "home"
    with _holder(home) as process:
        shop = Workshop(home)
        _begun(shop)
        waiting = shop.submit(pow, 2, 2)
        # Else its submission may be on its way still, and be refused.
        assert shop.future(waiting.task_id) is waiting
        process.kill()
        asyncio.run(until(lambda: shop.state.link_status == "closed"))
    with Workshop(home, workers=1):
        assert waiting.result(20) == 4
        shop.leave()


def test_who_is_attached_sees_his_tasks_end_with_the_workshop(tmp_path):
    """Where it is shut, and not killed: each running task says why it ended."""
    holding = Workshop(tmp_path / "home", workers=1)
    shop = Workshop(tmp_path / "home")
    running = _begun(shop)
    holding.leave()
    with pytest.raises(
        CancelledError, match=f"{running.task_id} was interrupted by a shutdown of the workshop"
    ):
        running.result(5)
    shop.leave()


def test_a_home_that_somebody_holds_is_waited_for(tmp_path):
    """Whether it is held is seen without taking it; one without a folder is nobody's."""
    home = Home(tmp_path / "home")
    assert "folder was removed" in why_ended(home)
    home.prepare()
    assert not home.is_held()
    home.lock()
    assert Home(home.root).is_held()
    assert why_ended(Home(home.root)) is None
    home.unlock()
    assert "has ended;" in why_ended(home)


@pytest.mark.parametrize(
    ("state", "word"), [("running", None), ("failed", "koubou restart"), (None, "koubou up")]
)
def test_a_workshop_whose_supervisor_lives_is_waited_for(tmp_path, state, word):
    """It starts it again, unless it has given it up; what a dead one said counts no more."""
    home = Home(tmp_path / "home")
    home.prepare()
    started_at = psutil.Process().create_time() if state else 1.0
    pid = os.getppid() if state is None else os.getpid()
    said = {"pid": pid, "started_at": started_at, "services": [{"name": "pool", "state": state or "running"}]}
    (home.runtime / "status.json").write_bytes(msgspec.json.encode(said))
    why = why_ended(home)
    assert why is None if word is None else word in why
