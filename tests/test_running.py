"""`koubou_panel.progress`: whom it tells, what it prints, and what it costs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import koubou_panel
from koubou_panel.core.progress.meter import printable
from koubou_panel.core.progress.reader import ProgressReader
from koubou_panel.core.progress.told import Teller
from koubou_panel.core.progress.told import told as meant
from koubou_panel.running import OUTPUT_VARIABLE, line, tell_to


@pytest.fixture
def told():
    """What this process tells from now on."""
    found = []
    tell_to(lambda *said: found.append(said))
    yield found
    tell_to(None)


def printed(code: str, *, elsewhere: bool = False) -> bytes:
    """What a script prints whose output is a task's, or is not."""
    read_end, write_end = os.pipe()
    stat = os.fstat(write_end)
    env = os.environ | {OUTPUT_VARIABLE: f"{stat.st_dev}:{stat.st_ino + elsewhere}"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=write_end, env=env)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        data = pipe.read()
    assert process.wait() == 0
    return data


def test_a_worker_is_told_what_was_said(told):
    """Done, total, unit and message, in the order that a kind's context takes."""
    koubou_panel.progress(12, 80, "reading", "files")
    koubou_panel.progress(3)
    koubou_panel.progress(None, message="warming up")
    assert told == [(12, 80, "files", "reading"), (3, None, "", ""), (None, None, "", "warming up")]


class Untellable:
    """What has no text."""

    def __str__(self) -> str:
        raise ValueError("no text")


def test_text_is_made_where_it_is_said(told):
    """Whatever has a text can be a message; a failure to make it is the caller's."""
    koubou_panel.progress(1, 2, Decimal(3), np.str_("files"))
    assert told == [(1, 2, "files", "3")]
    assert [type(text) for text in told[0][2:]] == [str, str]
    for field in ("message", "unit"):
        with pytest.raises(ValueError, match="no text"):
            koubou_panel.progress(1, 2, **{field: Untellable()})
    assert len(told) == 1


@pytest.mark.parametrize("number", [np.int64(3), np.float32(3), Decimal(3), Fraction(3), True, 3.0])
def test_numbers_of_any_library_are_numbers(told, number):
    """NumPy, Decimal, Fraction: what counts can be told."""
    koubou_panel.progress(number, number)
    assert len(told) == 1


@pytest.mark.parametrize("wrong", ["3", b"3", [3], object()])
def test_what_is_no_number_is_refused(told, wrong):
    """A text as a count is a TypeError that says what would be right, at the line that said it."""
    with pytest.raises(TypeError, match=r"progress takes numbers, such as progress\(12, 80\), not"):
        koubou_panel.progress(wrong, 80)
    with pytest.raises(TypeError, match="progress takes numbers"):
        koubou_panel.progress(1, wrong)
    assert told == []


def test_elsewhere_nothing_happens(capfd):
    """In any other program it prints nothing and asks for nothing."""
    code = (
        "import sys, koubou_panel; koubou_panel.progress(1, 2); assert 'koubou_panel.core' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b""
    assert printed("import koubou_panel; koubou_panel.progress(1, 2)", elsewhere=True) == b""


def test_a_script_prints_the_protocols_line():
    """In a command of a workshop the line of docs/progress.md is printed, and is read back as it was meant."""
    data = printed("import koubou_panel; koubou_panel.progress(12, 80, 'reading\\nfiles', 'of them')")
    assert data == b"::koubou progress 12/80ofthem reading files\n"
    reader = ProgressReader()
    reader.feed(data)
    assert reader.latest(0.0).done == 12


def test_a_script_that_says_much_prints_little():
    """A hundred thousand calls are a handful of lines, and the last word is among them, also before a long silence."""
    code = (
        "import koubou_panel, sys, time\nfor n in range(100_000): koubou_panel.progress(n, 200_000)\n"
        "time.sleep(0.5)\nprint('silence')\nfor n in 0, 1: koubou_panel.progress(150_000 + n, 200_000)"
    )
    lines = printed(code).decode().splitlines()
    assert len(lines) < 500
    assert lines[lines.index("silence") - 1] == "::koubou progress 99999/200000"
    assert lines[-1] == "::koubou progress 150001/200000"


def test_a_fork_can_say_it_too():
    """A child process of a script tells as its parent does, with no thread of the parent's."""
    code = (
        "import koubou_panel, os, time\nkoubou_panel.progress(1, 4)\nkoubou_panel.progress(2, 4)\n"
        "if os.fork() == 0:\n    koubou_panel.progress(3, 4)\n    koubou_panel.progress(4, 4)\n    time.sleep(0.4)\n"
        "    os._exit(0)\nos.wait()"
    )
    assert b"::koubou progress 4/4\n" in printed(code)


def test_a_call_costs_next_to_nothing(told):
    """A million calls in a worker are well under a second of the processor's time."""
    tell_to(None)
    started = time.process_time()
    for n in range(100_000):
        koubou_panel.progress(n, 100_000, "message")
    assert time.process_time() - started < 0.3


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ((12, 80, "", ""), "12/80"),
        ((12, None, "", ""), "12"),
        ((0.5, 1.0, "", "half"), "0.5/1 half"),
        ((1e-7, 1.0, "", ""), "1e-07/1"),
        ((None, None, "", "words"), "? words"),
        ((1, 2, "B", ""), "1/2B"),
        ((True, 2, "", ""), "1/2"),
        ((10**20, 10**21, "", "huge"), "? huge"),
        ((1, float("nan"), "", ""), "1"),
        ((80, 803, "3d", ""), "80/803"),
        ((1, 2, "e2", ""), "1/2"),
        ((1, 2, "%", ""), "1/2"),
        ((1, 2, "km/h", ""), "1/2km/h"),
        ((1, 2, "件", ""), "1/2件"),
        ((1, 2, "", "a ::koubou progress clear"), "1/2 a koubou progress clear"),
        ((12, None, "", "% of them"), "12 - % of them"),
        ((12, None, "", "/home/a"), "12 /home/a"),
    ],
)
def test_the_line_says_it_in_short(said, text):
    """Numbers are written as the protocol reads them."""
    assert line(*said) == f"::koubou progress {text}\n"


FLOATS = st.floats().filter(lambda x: not 0 < x < 1e-20).map(lambda x: float(f"{x:.12g}"))
NUMBERS = st.none() | st.booleans() | st.integers() | FLOATS


@given(
    NUMBERS,
    NUMBERS,
    st.text(max_size=20) | st.sampled_from(["%", "件", "3d", "e2", "km/h", "m/2", "MB", "GiB", "_", "°C"]),
    st.text(st.characters(exclude_characters="\x1b"))
    | st.sampled_from(["/ 80", "/80", "% done", "a ::koubou progress clear", "\n", "x" * 2_000]),
)
def test_what_a_script_says_is_what_a_function_says(done, total, unit, message):
    """Whatever the numbers, the unit and the words: the line is read as its numbers and words were meant."""
    teller = Teller()
    assert teller.feed(line(done, total, unit, message).encode("utf-8", "replace"))
    said = teller.progress
    unit = "".join(printable(unit).split())[:16]
    message = message.encode("utf-8", "replace").decode().replace("::koubou", "koubou")
    wanted = meant(done, total, unit=unit if said.unit else "", message=" ".join(message.split()))
    assert said.unit == wanted.unit
    assert said.message.lstrip("- ")[:150].split() == wanted.message.lstrip("- ")[:150].split()
    if wanted.done is None:
        assert (said.fraction, said.done) == (None, None)
    else:
        assert said.done == pytest.approx(wanted.done, rel=1e-9)
        assert said.total == (None if wanted.total is None else pytest.approx(wanted.total, rel=1e-9))


def test_a_redirected_script_keeps_its_file_to_itself(tmp_path):
    """Where standard output goes into a file from now on, nothing is printed there; once it is back, it is again."""
    file = tmp_path / "data.csv"
    code = (
        "import koubou_panel, os, time\nkoubou_panel.progress(1, 3)\n"
        f"file, saved = os.open({str(file)!r}, os.O_WRONLY | os.O_CREAT), os.dup(1)\nos.dup2(file, 1)\n"
        "os.write(1, b'x,y')\nkoubou_panel.progress(2, 3)\ntime.sleep(0.3)\nos.dup2(saved, 1)\n"
        "koubou_panel.progress(3, 3)"
    )
    assert printed(code) == b"::koubou progress 1/3\n::koubou progress 3/3\n"
    assert file.read_bytes() == b"x,y"
