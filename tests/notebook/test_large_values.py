"""Large arguments and results of a `Workshop`: they cross in files, and outlive crashes, kills and a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from koubou_panel import Workshop
from koubou_panel.errors import Refused

MB = 1 << 20
HOLD = """
import sys
from koubou_panel import Workshop
with Workshop(sys.argv[1], workers=1):
    print("ready", flush=True)
    sys.stdin.read()
"""


def doubled(values):
    """Twice as much, in place."""
    values *= 2
    return values


def made(size):
    """An array of so many bytes."""
    return np.ones(size, dtype=np.uint8)


def crash_once(array, mark):
    """Kill the worker at the first try."""
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return int(array.sum())


def files(home) -> set[str]:
    """What lies in the home's folder of large values."""
    return {path.name for path in (home / "values").iterdir()}


def test_an_array_goes_there_and_back(either):
    """Twice as much of it comes, of its own; the caller's stays."""
    array = np.arange(2 * MB)
    back = either.submit(doubled, array).result(30)
    assert (back == array * 2).all()
    assert array[1] == 1
    back[0] = 5


def test_a_table_and_what_is_around_it_come_as_one(either):
    """Containers keep their shape, and small things are among large."""
    table = pd.DataFrame({"x": np.arange(300_000), "y": np.arange(300_000) / 7})
    back = either.submit(dict, table=table, name="工房", parts=[np.zeros(MB), None]).result(30)
    pd.testing.assert_frame_equal(back["table"], table)
    assert (back["name"], back["parts"][1], len(back["parts"][0])) == ("工房", None, MB)


def test_a_future_hands_its_file_on(either, home):
    """The result of one task is mapped by many others: the caller sends nothing."""
    future = either.submit(made, 3 * MB)
    sums = [either.submit(np.sum, future) for _ in range(4)]
    assert [taken.result(30) for taken in sums] == [3 * MB] * 4
    ours = {name for name in files(home) if name.split(".")[0] in {f.task_id for f in (future, *sums)}}
    assert ours == {f"{future.task_id}.r1-0"}


def test_another_handle_fetches_the_result(shop, attached):
    """By the task's id alone."""
    future = shop.submit(made, 2 * MB)
    assert attached.result(future.task_id, 30).sum() == 2 * MB


def test_a_crashed_worker_leaves_the_arguments_for_the_next(either, tmp_path):
    """They live as long as the task may run again."""
    options = {"on_crash": "retry"}
    future = either.submit_with(crash_once, np.ones(2 * MB, dtype=np.uint8), tmp_path / "m", options=options)
    assert future.result(60) == 2 * MB
    assert future.task.run == 2


def test_a_result_whose_files_were_removed_is_refused(shop, home):
    """It is said what is missing, and how to get it again."""
    future = shop.submit(made, 2 * MB)
    wait([future], 30)
    (home / "values" / f"{future.task_id}.r1-0").unlink()
    with pytest.raises(Refused, match=r"not there any more \(2 MB\); `koubou retry` runs it again"):
        future.result()


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_a_kill_of_the_workshop_loses_nothing_that_is_large(tmp_path):
    """Results can be fetched, and what waited runs, with its arguments, in the workshop that comes after it."""
    home = tmp_path / "home"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "ready\n"
    caller = Workshop(home)
    ended = caller.submit(made, 4 * MB)
    assert ended.exception(30) is None
    caller.pause()
    waiting = caller.submit(doubled, np.full(2 * MB, 4))
    assert waiting.task.status == "pending"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    caller.leave()
    with Workshop(home, workers=1) as after:
        assert after.result(ended.task_id, 30).sum() == 4 * MB
        after.resume()
        assert after.result(waiting.task_id, 60)[-1] == 8


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 100 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root may make a disk of its own")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100m,mode=700", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no disk can be made here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_a_full_disk_refuses_what_is_large_and_nothing_else(small_disk: Path):
    """Caller and worker are told how much could not be stored; the workshop goes on, and what was written is gone."""
    with Workshop(small_disk / "home", workers=1) as shop:
        too_large = np.zeros(60 * MB, dtype=np.uint8)
        with pytest.raises(
            Refused, match=r"the arguments could not be stored: No space left on device for 60 MB"
        ):
            shop.submit(doubled, too_large).result(30)
        with pytest.raises(OSError, match=r"No space left on device for 60 MB .* free some space") as raised:
            shop.submit(made, 60 * MB).result(60)
        assert raised.value.__cause__ is not None
        assert shop.submit(pow, 2, 10).result(30) == 1024
        assert shop.submit(made, 9 * MB).result(30).sum() == 9 * MB
        assert len(files(small_disk / "home")) == 1
