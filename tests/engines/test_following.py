"""How far runs are, through real workers: what they draw, what they say, and what stays when they have ended."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from koubou_panel.core.commands import Caller, SubmitTask
from koubou_panel.core.events import TaskProgressed
from koubou_panel.core.records import Progress, Request, TaskId
from koubou_panel.engines.following import ESTIMATES_EVERY_S, Following
from koubou_panel.kinds.packing import pack, pickled_arguments, pickled_function
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import Collector, ended, open_shop, submit, until


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[LocalShop]:
    """A workshop with one worker."""
    async with open_shop(tmp_path / "home", workers=1) as opened:
        yield opened


def python(code: str) -> tuple[str, ...]:
    """A command that runs `code` in this interpreter."""
    return (sys.executable, "-c", code)


def progress(shop: LocalShop, task_id: TaskId) -> Progress | None:
    """What the shop knows of a task's progress."""
    return shop.state.tasks[task_id].progress


async def test_a_bar_that_a_command_draws_is_its_progress(shop, tmp_path):
    """A script with tqdm and no other change: fraction, counts, unit and words are on the record while it runs."""
    code = (
        "import os, time\nfrom tqdm import tqdm\nbar = tqdm(total=80, desc='train')\nbar.update(12)\nbar.refresh()\n"
        f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.02)\nbar.update(68)\nbar.close()\n"
    )
    task_id = await submit(shop, *python(code))
    await until(lambda: progress(shop, task_id) is not None and progress(shop, task_id).done == 12)
    seen = progress(shop, task_id)
    assert (seen.fraction, seen.total, seen.unit, seen.message) == (0.15, 80.0, "it", "train")
    (tmp_path / "go").touch()
    assert (await ended(shop, task_id)).progress.fraction == 1


async def test_a_script_says_its_progress_in_any_language(shop, tmp_path):
    """One line of a shell script is enough; it can be taken back."""
    go = tmp_path / "go"
    wait = f"while [ ! -e {go} ]; do sleep 0.02; done; rm {go}"
    line = "echo '::koubou progress 12/80files reading'"
    task_id = await submit(shop, "sh", "-c", f"{line}; {wait}; echo '::koubou progress clear'; {wait}")
    await until(lambda: progress(shop, task_id) is not None)
    seen = progress(shop, task_id)
    assert (seen.done, seen.total, seen.unit, seen.message) == (12.0, 80.0, "files", "reading")
    go.touch()
    await until(lambda: progress(shop, task_id) is None)
    await until(lambda: not go.exists())
    go.touch()
    await ended(shop, task_id)


async def test_a_python_script_says_its_progress(shop):
    """`koubou_panel.progress` in a command's own process; the last word is not held back."""
    code = "import koubou_panel\nfor n in range(100_001): koubou_panel.progress(n, 100_000, 'counting', 'rows')\n"
    task = await ended(shop, await submit(shop, *python(code)))
    assert task.status == "completed", task.message
    assert (task.progress.done, task.progress.unit, task.progress.message) == (100_000.0, "rows", "counting")
    assert (await shop.read_output(task.task_id, 0, 200_000)).text.count("\n") < 2_000


async def test_what_a_script_says_goes_nowhere_else(shop, tmp_path):
    """Where its output is not the task's, nothing is printed into it."""
    code = "import koubou_panel\nkoubou_panel.progress(1, 2)\nprint('data')"
    file = tmp_path / "data.txt"
    task = await ended(shop, await submit(shop, "sh", "-c", f'"{sys.executable}" -c "{code}" > {file} 2>&1'))
    assert task.status == "completed"
    assert file.read_text() == "data\n"


def count(path: str) -> None:
    """Say three eighths, then wait for a file."""
    import time

    import koubou_panel

    koubou_panel.progress(3, 8, "counting", "rows")
    while not Path(path).exists():
        time.sleep(0.02)
    koubou_panel.progress(8, 8)


async def test_a_function_says_its_progress(shop, tmp_path):
    """`koubou_panel.progress` in a function task needs no output at all."""
    payload = pack(pickled_function(count), pickled_arguments((str(tmp_path / "go"),), {}), sys.path)
    request = Request(task_id=shop.next_id(), kind="function", created_at=0, payload=payload, name="count")
    task_id = await shop.do(SubmitTask(request), Caller("test"))
    await until(lambda: progress(shop, task_id) is not None)
    seen = progress(shop, task_id)
    assert (seen.done, seen.total, seen.unit, seen.message) == (3.0, 8.0, "rows", "counting")
    (tmp_path / "go").touch()
    task = await ended(shop, task_id)
    assert (task.progress.fraction, task.usage.output_bytes) == (1.0, 0)


@pytest.mark.parametrize(("code", "left"), [(0, None), (3, 0.98)])
async def test_a_success_is_not_left_at_98_percent(shop, code, left):
    """What did not come to its end says where it broke off; a success says nothing that confuses."""
    line = "echo '::koubou progress 98/100'; sleep 0.2"
    task = await ended(shop, await submit(shop, "sh", "-c", f"{line}; exit {code}"))
    assert (task.progress.fraction if task.progress else None) == left


async def test_a_fast_bar_is_told_seldom(shop):
    """Thousands of redraws are a few samples: no more than the pulse has beats."""
    collector = Collector()
    shop.subscribe(collector)
    code = "for n in range(20_000): print(f'\\r{n // 200}%|##  | {n}/20000 [00:02<00:02, 3.1it/s]', end='')"
    await ended(shop, await submit(shop, *python(code)))
    told = [sample for sample in collector.samples if isinstance(sample, TaskProgressed)]
    assert 1 <= len(told) < 200


def test_estimates_alone_are_told_once_a_second():
    """A rate that wavers is no news; a count that rises is."""
    following = Following()
    bar = "\rx:  {0}0%|##  | {0}/10 [00:02<00:02, {1}it/s]\r"
    following.feed(bar.format(1, 1.0).encode())
    first = following.latest(0.0)
    following.feed(bar.format(1, 1.5).encode())
    assert following.latest(ESTIMATES_EVERY_S / 2) is first
    assert following.latest(100.0).rate_per_s == 1.5
    following.feed(bar.format(2, 1.5).encode())
    assert following.latest(200.0).done == 2


def test_a_run_that_says_and_prints_nothing_has_no_progress():
    """Nothing is made up, and nothing is left behind."""
    following = Following()
    assert following.latest(1.0) is None
    assert following.last(2.0, succeeded=True) is None


def test_what_a_function_says_wins_over_what_it_prints():
    """Its own word counts, whatever bar it draws beside it."""
    following = Following()
    following.say(1, 4, "", "own")
    following.feed(b"\rx:  50%|##  | 5/10 [00:02<00:02, 3.1it/s]\r")
    assert following.latest(1.0).message == "own"
