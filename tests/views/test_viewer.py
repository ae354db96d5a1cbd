"""One task's whole output, read by lines."""

import asyncio
from pathlib import Path

import pytest

from koubou_panel.archive.output import OutputLog, output_path, read_output_bytes
from koubou_panel.core.ports import OutputBytes
from koubou_panel.core.records import TaskId
from koubou_panel.errors import Refused
from koubou_panel.views.viewer import MOST_LINES, MOST_MATCHES, Viewer

TASK = TaskId("2pwhe5r7000000")


class Logs:
    """The part of a shop that a viewer reads: real logs in a folder."""

    def __init__(self, folder: Path) -> None:
        self.path = output_path(folder, TASK)
        self.reads = 0

    async def read_bytes(self, task_id: TaskId, offset: int, limit: int) -> OutputBytes:
        """A piece of the log."""
        assert task_id == TASK
        self.reads += 1
        return read_output_bytes(self.path, offset, limit)


async def viewer_of(folder: Path, data: bytes, *, quota: int = 1 << 30) -> tuple[Viewer, OutputLog]:
    """A viewer of a log, which has read all of it."""
    log = OutputLog(output_path(folder, TASK), quota)
    log.write(data)
    viewer = Viewer(Logs(folder), TASK)  # type: ignore[arg-type]
    viewer.grow(log.size)
    while viewer.is_behind:
        await viewer.read_on()
    return viewer, log


def texts(answer: dict[str, object]) -> list[str]:
    """The lines of an answer, without their colours."""
    return ["".join(text for _, text in runs) for _, runs in answer["lines"]]  # type: ignore[attr-defined]


async def test_any_line_is_read_with_few_reads(tmp_path: Path) -> None:
    """Of 300,000 lines the first, the last and those in the middle are each a read or two away."""
    viewer, _ = await viewer_of(tmp_path, b"".join(b"line %d\n" % n for n in range(300_000)))
    assert viewer.state["lines"] == 300_000
    for first in (0, 150_000, 299_990):
        viewer._shop.reads = 0  # type: ignore[attr-defined]
        answer = await viewer.window({"line": first, "count": 10})
        assert (answer["first"], texts(answer)) == (first, [f"line {first + n}" for n in range(10)])
        assert viewer._shop.reads <= 2  # type: ignore[attr-defined]
    last = await viewer.window({"count": 3})
    assert (last["first"], last["is_open"], last["total"]) == (299_997, False, 300_000)


async def test_a_line_is_found_by_its_byte(tmp_path: Path) -> None:
    """What stands at a byte is given with the number of its line."""
    viewer, _ = await viewer_of(tmp_path, b"".join(b"line %06d\n" % n for n in range(50_000)))
    answer = await viewer.window({"byte": 12 * 40_000 + 5, "count": 1})
    assert (answer["first"], texts(answer)) == (40_000, ["line 040000"])


async def test_the_end_is_there_before_the_lines_are_counted(tmp_path: Path) -> None:
    """A viewer that has read nothing yet gives the last lines, without numbers."""
    whole, log = await viewer_of(tmp_path, b"".join(b"line %d\n" % n for n in range(100_000)) + b"open")
    viewer = Viewer(whole._shop, TASK)
    viewer.grow(log.size)
    assert not viewer.is_known
    answer = await viewer.window({"count": 3})
    assert (answer["first"], answer["is_open"]) == (None, True)
    assert texts(answer) == ["line 99998", "line 99999", "open"]


async def test_it_grows(tmp_path: Path) -> None:
    """What is printed later is counted on, and a line without an end is the last until it has one."""
    viewer, log = await viewer_of(tmp_path, b"one\ntwo")
    assert texts(await viewer.window({"count": 9})) == ["one", "two"]
    assert viewer.grow(log.size) is False
    log.write(b" and a half\nthree\n")
    assert viewer.grow(log.size) is True
    await viewer.read_on()
    answer = await viewer.window({"line": 1, "count": 9})
    assert (texts(answer), answer["is_open"], viewer.state["lines"]) == (
        ["two and a half", "three"],
        False,
        3,
    )


async def test_what_is_kept_no_more_is_passed_over(tmp_path: Path) -> None:
    """Lines are counted from the first that is held; one that was removed since gives those after it."""
    data = b"".join(b"line %06d\n" % n for n in range(40_000))
    viewer, log = await viewer_of(tmp_path, data, quota=300_000)
    start = viewer.state["start"]
    assert start > 0
    assert texts(await viewer.window({"line": 0, "count": 2}))[1] == f"line {start // 12 + 1:06d}"
    log.write(b"more\n" * 50_000)
    viewer.grow(log.size)
    while viewer.is_behind:
        await viewer.read_on()
    assert texts(await viewer.window({"line": 0, "count": 2}))


async def test_the_whole_output_is_searched(tmp_path: Path) -> None:
    """Matches are told by the numbers of their lines, over the borders of what is read at once; too many are cut."""
    data = b"".join(b"Line %06d%s\n" % (n, b" NEEDLE" if n % 30_000 == 7 else b"") for n in range(100_000))
    viewer, _ = await viewer_of(tmp_path, data + b"a needle without an end")
    found = await viewer.search({"text": "needle"})
    assert found == {"lines": [7, 30_007, 60_007, 90_007, 100_000], "is_cut": False, "is_old": False}
    many = await viewer.search({"text": "line"})
    assert (len(many["lines"]), many["is_cut"]) == (MOST_MATCHES, True)  # type: ignore[arg-type]


async def test_a_later_search_ends_an_earlier_one(tmp_path: Path) -> None:
    """Of two searches at once the first says that it is old."""
    viewer, _ = await viewer_of(tmp_path, b"word\n" * 200_000)
    first, second = await asyncio.gather(viewer.search({"text": "nothing"}), viewer.search({"text": "word"}))
    assert (first["is_old"], second["is_old"]) == (True, False)


@pytest.mark.parametrize("text", [None, 3, "", "x" * 300, "a\nb"])
async def test_what_cannot_be_searched_is_refused(tmp_path: Path, text: object) -> None:
    """A search for no text, or for too long a one, is refused."""
    viewer, _ = await viewer_of(tmp_path, b"word\n")
    with pytest.raises(Refused):
        await viewer.search({"text": text})


@pytest.mark.parametrize(
    "message",
    [{}, {"line": -1}, {"line": "x", "count": None}, {"line": 2**60}, {"count": True}, {"byte": -5}],
)
async def test_a_strange_question_gives_lines_or_none(tmp_path: Path, message: dict[str, object]) -> None:
    """Whatever is asked, the answer is bounded."""
    viewer, _ = await viewer_of(tmp_path, b"word\n" * 2_000)
    answer = await viewer.window(message)
    assert len(texts(answer)) <= MOST_LINES


async def test_nothing_printed(tmp_path: Path) -> None:
    """Without output there are no lines."""
    viewer = Viewer(Logs(tmp_path), TASK)  # type: ignore[arg-type]
    assert (viewer.is_behind, texts(await viewer.window({}))) == (False, [])
