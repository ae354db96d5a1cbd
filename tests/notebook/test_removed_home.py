"""A home whose folder is removed while the workshop is open."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
from pathlib import Path

import psutil
import pytest

from koubou_panel import TaskFailure, Workshop
from koubou_panel.home import Home
from koubou_panel.notebook import seat
from koubou_panel.testing import until

LIMIT_S = 90.0
GONE = "was removed while it was open"


def _workers():
    return [one for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]


def test_a_workshop_ends_when_its_folder_is_removed(tmp_path, caplog):
    """What runs comes to its end, all else is told why at once, and nothing is left; another one can be opened."""
    home, go_on = tmp_path / "home", tmp_path / "go on"
    before = {one.pid for one in _workers()}
    shop = Workshop(home, workers=1)
    old = shop.submit(pow, 2, 9)
    assert old.result(LIMIT_S) == 512
    running = shop.run("sh", "-c", f"until [ -e '{go_on}' ]; do sleep 0.05; done")
    waiting = shop.submit(pow, 2, 2)
    asyncio.run(until(running.running))
    shutil.rmtree(home)
    with pytest.raises(TaskFailure, match=GONE):
        waiting.result(LIMIT_S)
    with pytest.raises(RuntimeError, match=GONE):
        shop.submit(pow, 2, 2)
    with Workshop(home, workers=1) as another:
        assert not another.is_attached
        assert another.submit(pow, 2, 2).result(LIMIT_S) == 4
    assert "is made again" not in caplog.text
    go_on.touch()
    assert running.result(LIMIT_S) is None
    shop.shutdown()
    with pytest.raises(RuntimeError, match=GONE):
        shop.pause()
    asyncio.run(until(lambda: {one.pid for one in _workers()} <= before))


def test_a_shutdown_under_way_ends_where_the_folder_is_removed(tmp_path):
    """Also with a task that would never begin."""
    shop = Workshop(tmp_path / "home", workers=1)
    shop.pause()
    waiting = shop.submit(time.sleep, 60)
    shop.shutdown(wait=False)
    shutil.rmtree(tmp_path / "home")
    shop.shutdown()
    with pytest.raises(TaskFailure, match=GONE):
        waiting.result(0)


def test_a_shutdown_is_not_taken_for_a_removed_folder(tmp_path, monkeypatch, caplog):
    """Also where the folder is looked at between the moment when it is let go of and the end of the thread."""
    monkeypatch.setattr(seat, "WATCH_S", 0)
    shop = Workshop(tmp_path / "home", workers=1)
    shop.shutdown()
    assert GONE not in caplog.text
    with pytest.raises(RuntimeError, match="shut down"):
        shop.pause()


def test_a_home_knows_whether_it_is_in_place(tmp_path):
    """Another folder of that name is another home."""
    home = Home(tmp_path / "home")
    home.prepare()
    assert not home.is_in_place()
    home.lock()
    assert home.is_in_place()
    home.root.rename(tmp_path / "elsewhere")
    assert not home.is_in_place()
    Home(home.root).prepare()
    home.lock_file.touch()
    assert not home.is_in_place()
    shutil.rmtree(home.root)
    home.root.touch()
    assert not home.is_in_place()
    home.unlock()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENFILE, errno.ETIMEDOUT])
def test_a_home_that_cannot_be_looked_at_is_in_place(tmp_path, monkeypatch, number):
    """A disk that is away for a moment, or a permission, ends no workshop."""

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    home = Home(tmp_path / "home")
    home.prepare()
    home.lock()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", fail)
        assert home.is_in_place()
    assert home.is_in_place()
    home.unlock()
