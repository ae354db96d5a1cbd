"""The tail of what tasks write, whatever and however much they write."""

import asyncio
from types import SimpleNamespace

from koubou_panel.core.ports import OutputPage
from koubou_panel.errors import Refused
from koubou_panel.views.output import KEEP_LINES, KEEP_SOURCES, READ_BYTES, OutputTail


class Logs:
    """Output logs in memory, read as a shop's are."""

    def __init__(self) -> None:
        self.logs: dict[str, bytes] = {}
        self.start = 0
        self.reads = 0

    async def read_output(self, task_id: str, offset: int, limit: int) -> OutputPage:
        self.reads += 1
        if task_id not in self.logs:
            raise Refused("not_found", "no output")
        log = self.logs[task_id]
        begin = max(self.start, offset if offset >= 0 else len(log) + offset)
        piece = log[begin : begin + limit]
        return OutputPage(
            piece.decode(errors="replace"), begin, begin + len(piece), len(log), start=self.start
        )

    def task(self, task_id: str, *, ended: bool = False) -> SimpleNamespace:
        """What the tail sees of a task's model."""
        size = len(self.logs.get(task_id, b""))
        return SimpleNamespace(task_id=task_id, label=f"task {task_id}", output_bytes=size, is_finished=ended)


def texts(message: dict) -> list[str]:
    """The text of a message's lines."""
    return ["".join(text for _, text in runs) for _, runs in message["lines"]]


async def test_lines_come_once_and_in_order() -> None:
    """What is written between two readings is given once, the unfinished line apart."""
    logs = Logs()
    tail = OutputTail(logs)
    logs.logs["a"] = b"one\ntwo\nthr"
    assert tail.follow([logs.task("a")], [])
    await tail.read()
    first = tail.take()
    assert texts(first) == ["one", "two"]
    assert first["open"] == [("a", [("", "thr")])]
    logs.logs["a"] += b"ee\n"
    tail.follow([logs.task("a")], [])
    await tail.read()
    second = tail.take()
    assert texts(second) == ["three"]
    assert second["open"] == []
    assert not tail.is_new
    assert texts(tail.all()) == ["one", "two", "three"]


async def test_what_is_no_longer_held_is_said() -> None:
    """Where the log has moved on beyond what was read, a line says how much is missing, and whole lines follow."""
    logs = Logs()
    tail = OutputTail(logs)
    logs.logs["a"] = b"one\nhalf a li"
    tail.follow([logs.task("a")], [])
    await tail.read()
    logs.logs["a"] += b"ne\n" + b"gone\n" * 1_000 + b"rest of a line\nlast\n"
    logs.start = len(logs.logs["a"]) - 12
    tail.follow([logs.task("a")], [])
    await tail.read()
    assert texts(tail.take()) == ["one", "… 4.9 KB not kept …", "last"]


async def test_a_finished_task_is_read_to_its_end() -> None:
    """The last words of a task that has ended are read too."""
    logs = Logs()
    tail = OutputTail(logs)
    logs.logs["a"] = b"begin\n"
    tail.follow([logs.task("a")], [])
    await tail.read()
    logs.logs["a"] += b"end\n"
    assert tail.follow([], [logs.task("a", ended=True)])
    await tail.read()
    message = tail.take()
    assert texts(message) == ["begin", "end"]
    assert [source["quiet"] for source in message["sources"]] == [True]


async def test_where_nothing_runs_the_last_output_is_shown() -> None:
    """A page opened after everything ended shows what the last tasks wrote, the later one last."""
    logs = Logs()
    tail = OutputTail(logs)
    logs.logs |= {"a": b"older\n", "b": b"newer\n", "c": b"oldest\n"}
    tail.follow([], [logs.task(key, ended=True) for key in "bac"])
    await tail.read()
    assert texts(tail.take()) == ["older", "newer"]


async def test_tasks_that_came_and_went_are_shown() -> None:
    """What a task printed that ran only between two looks is shown; of a burst of them the last few."""
    logs = Logs()
    tail = OutputTail(logs)
    assert not tail.follow([], [])
    logs.logs["quick"] = b"was here\n"
    assert tail.follow([], [logs.task("quick", ended=True)])
    await tail.read()
    assert texts(tail.take()) == ["was here"]
    logs.logs |= {f"b{n}": b"burst %d\n" % n for n in range(50)}
    assert tail.follow([], [logs.task(f"b{n}", ended=True) for n in reversed(range(50))])
    await tail.read()
    assert texts(tail.take()) == [f"burst {n}" for n in range(46, 50)]
    assert not tail.follow([], [logs.task(f"b{n}", ended=True) for n in reversed(range(50))])


async def test_a_storm_of_output_is_bounded() -> None:
    """Of a hundred megabytes only a bounded tail is read, kept and sent, and what was left out is said."""
    logs = Logs()
    tail = OutputTail(logs)
    logs.logs["a"] = b"start\n"
    tail.follow([logs.task("a")], [])
    await tail.read()
    tail.take()
    logs.logs["a"] += b"x" * (20 * READ_BYTES) + b"\nlast\n"
    tail.follow([logs.task("a")], [])
    await tail.read()
    message = tail.take()
    assert texts(message)[-1] == "last"
    assert "not shown" in texts(message)[0]
    assert logs.reads == 2
    logs.logs["a"] += b"y\n" * 20_000
    tail.follow([logs.task("a")], [])
    await tail.read()
    assert len(tail.take()["lines"]) <= KEEP_LINES
    assert len(tail.all()["lines"]) == KEEP_LINES


async def test_a_page_opened_late_starts_at_a_whole_line() -> None:
    """Of a long log the first line shown is not the half of one."""
    logs = Logs()
    tail = OutputTail(logs)
    logs.logs["a"] = b"".join(b"line %d\n" % n for n in range(5_000))
    tail.follow([logs.task("a")], [])
    await tail.read()
    lines = texts(tail.take())
    assert lines[-1] == "line 4999"
    assert all(line.startswith("line ") for line in lines)


async def test_a_bar_alone_is_shown_however_often_it_was_drawn() -> None:
    """Output that is one line, drawn again and again, is shown as it was drawn last."""
    logs = Logs()
    tail = OutputTail(logs)
    logs.logs["a"] = b"".join(b"\r%3d%%|####| %d/500" % (n / 5, n) for n in range(501)) * 2 + b"\n"
    tail.follow([], [logs.task("a", ended=True)])
    await tail.read()
    assert texts(tail.take()) == ["100%|####| 500/500"]


async def test_only_so_many_are_followed() -> None:
    """Of a hundred running tasks a few are followed, and ended ones make room first."""
    logs = Logs()
    tail = OutputTail(logs)
    logs.logs |= {f"t{n}": b"x\n" for n in range(100)}
    tail.follow([logs.task(f"t{n}") for n in range(100)], [])
    await tail.read()
    assert len(tail.take()["sources"]) == KEEP_SOURCES
    assert logs.reads == KEEP_SOURCES


async def test_output_that_is_gone_is_not_asked_for_again() -> None:
    """A log that cannot be read any more is left alone."""
    logs = Logs()
    tail = OutputTail(logs)
    tail.follow([SimpleNamespace(task_id="gone", label="gone", output_bytes=9, is_finished=False)], [])
    await tail.read()
    assert not tail.follow([], [])
    assert logs.reads == 1


async def test_two_readings_do_not_mix() -> None:
    """Two tasks that write at once keep their own lines and colours."""
    logs = Logs()
    tail = OutputTail(logs)
    logs.logs |= {"a": b"\x1b[31mred", "b": b"plain\n"}
    tail.follow([logs.task("a"), logs.task("b")], [])
    await asyncio.gather(tail.read())
    message = tail.take()
    assert message["lines"] == [("b", [("", "plain")])]
    assert message["open"] == [("a", [("f1", "red")])]


async def test_more_tasks_than_can_be_followed() -> None:
    """Of twelve running tasks those that print are followed, no line is read twice, and none is asked for again."""
    logs = Logs()
    tail = OutputTail(logs)
    names = [f"t{n:02d}" for n in range(12)]
    logs.logs = dict.fromkeys(names, b"")
    logs.logs["t00"] = b"first\n"
    said: list[str] = []
    for n in range(6):
        tail.follow([logs.task(name) for name in names], [])
        await tail.read()
        said += texts(tail.take())
        logs.logs["t00"] += f"line {n}\n".encode()
    assert said == ["first", *(f"line {n}" for n in range(5))]
    for name in names[
        1:
    ]:  # others begin to print: the first is left, and followed again when they have ended
        logs.logs[name] = b"x\n"
    tail.follow([logs.task(name) for name in names], [])
    await tail.read()
    tail.take()
    tail.follow([logs.task("t00")], [logs.task(name, ended=True) for name in names[1:]])
    await tail.read()
    assert [text for text in texts(tail.take()) if text != "x"] == ["line 5"]


async def test_tasks_of_one_name_are_told_apart_by_their_ids() -> None:
    """Where followed tasks share a name each is shown with the end of its id; a name of its own stays as it is."""
    logs = Logs()
    tail = OutputTail(logs)
    one, two, other = logs.task("01a-h930"), logs.task("01b-k2zz"), logs.task("01c-0000")
    one.label = two.label = "train"
    other.label = "a name that is much too long for its place"
    tail.follow([one], [])
    assert [source["label"] for source in tail.take()["sources"]] == ["train"]
    tail.follow([one, two, other], [])
    sources = tail.take()["sources"]
    assert [source["label"] for source in sources[:2]] == ["train ·h930", "train ·k2zz"]
    assert [source["tag"] for source in sources[:2]] == ["train ·h930", "train ·k2zz"]
    assert "·" not in sources[2]["label"]


async def test_a_last_line_needs_no_end() -> None:
    """When its task has ended, a line without an end is a line like the others, whole however long it is."""
    logs = Logs()
    tail = OutputTail(logs, READ_BYTES)
    logs.logs["a"] = b"first\n" + b"word " * 3_000 + b"END"
    tail.follow([logs.task("a")], [])
    await tail.read()
    assert tail.all()["open"][0][1][-1][1].endswith("END")
    tail.follow([], [logs.task("a", ended=True)])
    message = tail.all()
    assert message["open"] == []
    assert "".join(texts(message)[1:]) == "word " * 3_000 + "END"


async def test_the_end_of_one_long_line_is_shown() -> None:
    """Of a line that began before what is read its end is shown, and that it is cut."""
    logs = Logs()
    tail = OutputTail(logs)
    logs.logs["a"] = b"x" * 20_000 + b" END\n"
    tail.follow([], [logs.task("a", ended=True)])
    await tail.read()
    lines = texts(tail.take())
    assert lines[0].startswith("… xxx")
    assert lines[-1].endswith(" END")
