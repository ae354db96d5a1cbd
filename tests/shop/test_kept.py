"""The files of large values: kept as long as a task may need them, and no longer than that."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from koubou_panel import Workshop
from koubou_panel.core.commands import Caller, CancelTask, RetryTask, SubmitTask
from koubou_panel.core.records import Request
from koubou_panel.errors import Refused
from koubou_panel.home import Home
from koubou_panel.kinds.call import Desk
from koubou_panel.kinds.function import result_of
from koubou_panel.kinds.packing import pickled_function, unpack_value
from koubou_panel.kinds.spill import FileName, read_name
from koubou_panel.settings import load
from koubou_panel.shop import local
from koubou_panel.shop.kept import DAY_S, USUAL, Found, Kept, Retention, old_files, useless_files
from koubou_panel.supervising.children import children_of
from koubou_panel.testing import ended, open_shop, until

MB = 1 << 20
ME = Caller("test")
NOW = 1_700_000_000.0


def a_file(name: str, *, age_s: float = 0.0, inode: int = 0, size_bytes: int = 10) -> Found:
    """A file as it may lie in the folder."""
    read = read_name(name)
    assert read is not None
    return Found(Path(name), read, inode or hash(name), size_bytes, NOW - age_s)


def names(files) -> list[str]:
    """Their names."""
    return [file.path.name for file in files]


def test_a_name_says_whose_and_what_it_is():
    """The task, of what, of which run, and whether it is still written."""
    assert read_name("2mza3c0ae1xj9t.r12-3") == FileName("2mza3c0ae1xj9t", "r", 12, is_part=False)
    assert read_name("2mza3c0ae1xj9t.a-0.part") == FileName("2mza3c0ae1xj9t", "a", 0, is_part=True)
    assert read_name("notes.txt") is None


def test_what_an_unfinished_task_has_stays():
    """However old it is, also what is being written."""
    found = [a_file(f"t.{part}", age_s=100 * DAY_S) for part in ("a-0", "f-0", "r1-0", "r2-0.part")]
    for status in ("pending", "in_progress"):
        assert useless_files(found, {"t": status}, NOW) == []
        assert old_files(found, {"t": status}, NOW, Retention(keep_bytes=0)) == []


def test_what_nobody_has_submitted_goes_after_a_day():
    """A submission may be under way, or be sent again when the workshop is back."""
    found = [a_file("new.a-0", age_s=DAY_S - 1), a_file("old.a-0", age_s=DAY_S + 1)]
    assert names(useless_files(found, {}, NOW)) == ["old.a-0"]


@pytest.mark.parametrize(
    ("status", "gone"),
    [("completed", ["t.r1-0", "t.r3-0.part"]), ("failed", ["t.r1-0", "t.r2-0", "t.r2-1", "t.r3-0.part"])],
)
def test_results_that_do_not_count_go_at_once(status, gone):
    """Of earlier runs, of tasks that did not succeed, and what was never whole."""
    found = [a_file(f"t.{part}") for part in ("a-0", "r1-0", "r2-0", "r2-1", "r3-0.part")]
    assert names(useless_files(found, {"t": status}, NOW)) == gone


def test_ended_tasks_have_their_time():
    """A week for each."""
    found = [a_file("old.r1-0", age_s=USUAL.keep_s + 1), a_file("new.r1-0", age_s=USUAL.keep_s - 1)]
    assert names(old_files(found, {"old": "completed", "new": "completed"}, NOW, USUAL)) == ["old.r1-0"]


def test_beyond_the_room_the_oldest_goes_but_nothing_of_today():
    """Arguments first, as they are of use for a retry alone; what has many names takes its room once."""
    found = [
        a_file("one.r1-0", age_s=3 * DAY_S),
        a_file("two.a-0", age_s=2 * DAY_S, inode=7),
        a_file("three.a-0", age_s=2 * DAY_S, inode=7),
        a_file("four.r1-0", age_s=0),
    ]
    ended = dict.fromkeys(("one", "two", "three", "four"), "completed")
    assert old_files(found, ended, NOW, Retention(keep_bytes=30)) == []
    assert names(old_files(found, ended, NOW, Retention(keep_bytes=20))) == ["two.a-0", "three.a-0"]
    assert names(old_files(found, ended, NOW, Retention(keep_bytes=0))) == [
        "two.a-0",
        "three.a-0",
        "one.r1-0",
    ]


def test_how_long_and_how_much_is_a_setting(tmp_path, monkeypatch):
    """A workshop in Python goes by the home's file; `koubou up` hands it to the workshop's process."""
    home = Home(tmp_path / "home")
    home.prepare()
    (home.root / "settings.toml").write_text("values_days = 2\nvalues_gb = 0.5\n")
    made = []
    monkeypatch.setattr(local, "Kept", lambda **about: made.append(about["retention"]) or Kept(**about))
    with Workshop(home.root, workers=1):
        assert made == [Retention(keep_s=2 * DAY_S, keep_bytes=512 * MB)]
    program = children_of(load({}, {"home": home.root}), dashboard=False, flags=[], label="", say=print)[
        0
    ].program
    assert {"--values-days", "2", "--values-gb", "0.5"} <= set(program.argv)
    found = [a_file("one.r1-0", age_s=2 * DAY_S + 1), a_file("two.r1-0", age_s=2 * DAY_S - 1)]
    ended = {"one": "completed", "two": "completed"}
    assert names(old_files(found, ended, NOW, made[0])) == ["one.r1-0"]


def total(array):
    """Its sum."""
    return int(array.sum())


class Caught:
    """A caller's desk at a shop."""

    def __init__(self, shop) -> None:
        self.shop = shop
        self.desk = Desk(shop.home.values, [str(Path(__file__).parents[2])])

    async def submit(self, function, *args, reducers=None, **fields) -> str:
        task_id = self.shop.next_id()
        payload = self.desk.packed(task_id, pickled_function(function), args, {}, lambda: reducers or {})
        request = Request(task_id=task_id, kind="function", created_at=0.0, payload=payload, **fields)
        return await self.shop.do(SubmitTask(request), ME)

    async def end_of(self, task_id) -> str:
        await ended(self.shop, task_id)
        await self.shop.hub.stored()
        return self.shop.state.tasks[task_id].status

    async def result(self, task_id) -> object:
        assert await self.end_of(task_id) == "completed"
        (value,) = await self.shop.values([task_id])
        return unpack_value(value, self.shop.home.values, task_id)

    @property
    def files(self) -> set[str]:
        return {path.name for path in self.shop.home.values.iterdir()}

    def kept(self, days: float) -> Kept:
        shop = self.shop
        clock = lambda: shop.clock() + days * DAY_S  # noqa: E731
        return Kept(
            hub=shop.hub, archive=shop._archive, folder=shop.home.values, clock=clock, read=shop._read
        )


async def test_large_values_are_looked_after(tmp_path):
    """What pending tasks are to be given outlives its week; then it goes, and a retry brings its arguments along."""
    async with open_shop(tmp_path / "home", workers=1) as shop:
        caught = Caught(shop)
        ones = np.ones(2 * MB, dtype=np.uint8)
        first = await caught.submit(total, ones)
        assert await caught.result(first) == 2 * MB
        maker = await caught.submit(np.zeros, 2 * MB)
        await caught.result(maker)
        gate = tmp_path / "gate"
        blocking = await shop.do(_waits_for(shop, gate), ME)
        reference = {Promised: lambda _: (result_of, (maker,))}
        taker = await caught.submit(total, Promised(), reducers=reference, after=(maker, blocking))
        again = await shop.do(RetryTask(first, shop.next_id()), ME)
        assert await caught.kept(days=8).look() == 1
        assert caught.files == {f"{maker}.r1-0", f"{again}.a-0"}
        gate.touch()
        assert await caught.result(taker) == 0
        assert await caught.result(again) == 2 * MB
        assert await caught.kept(days=8).look() == 2
        assert caught.files == set()
        with pytest.raises(
            Refused, match=r"arguments of task .* are not kept any more: submit it again"
        ) as no:
            await shop.do(RetryTask(first, shop.next_id()), ME)
        assert no.value.code == "not_found"
        assert caught.files == set()


class Promised:
    """Stands for a result."""


def _waits_for(shop, gate: Path) -> SubmitTask:
    words = ["sh", "-c", 'while [ ! -e "$0" ]; do sleep 0.05; done', str(gate)]
    return SubmitTask(Request(task_id=shop.next_id(), kind="script", created_at=0.0, spec={"command": words}))


def write_and_wait(gate):
    """A result that is on its way while its task is cancelled."""
    Path(gate).touch()
    return Slow()


class Slow:
    """Takes for ever to be pickled, behind much that was; at the first try, which is for small results, it fails."""

    tries = 0

    def __reduce_ex__(self, protocol):
        return list, ((bytes(4 * MB), _Endless()),)


class _Endless:
    def __reduce__(self):
        Slow.tries += 1
        if Slow.tries == 1:
            raise ValueError("again")
        time.sleep(60)


async def test_a_run_that_is_cancelled_while_its_result_is_written_leaves_nothing(tmp_path):
    """Half a file is found and removed."""
    async with open_shop(tmp_path / "home", workers=1) as shop:
        caught = Caught(shop)
        task_id = await caught.submit(write_and_wait, str(tmp_path / "gate"))
        await until(lambda: shop.home.values.exists() and caught.files)
        assert caught.files == {f"{task_id}.r1-0.part"}
        await shop.do(CancelTask(task_id), ME)
        assert await caught.end_of(task_id) == "cancelled"
        assert await caught.kept(days=0).look() == 1
        assert caught.files == set()
