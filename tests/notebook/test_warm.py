"""What a function does to the process of its worker is undone before the next one runs there."""

from __future__ import annotations

import builtins
import gc
import io
import logging
import os
import signal
import sys
import tempfile
import time

import pytest

WORKERS = 1


def closed():
    """Close the stream."""
    sys.stdout.close()


def unread():
    """Close what is read from, descriptor and all."""
    os.close(0)
    sys.stdin = None


def closed_by_its_number():
    """Read all by a stream of its own, which closes the descriptor."""
    with open(0) as stream:
        stream.read()


def given_input():
    """Point the descriptor at something to read, and leave some of it."""
    os.dup2(_text(), 0)


def half_read():
    """Leave it in the buffer of the stream, which has looked ahead."""
    os.dup2(_text(), 0)
    assert sys.stdin.readline() == "one\n"


def looked_at():
    """Leave it in the one below, with the descriptor as it was."""
    before = os.dup(0)
    os.dup2(_text(), 0)
    assert sys.stdin.buffer.peek()
    os.dup2(before, 0)


def piped():
    """Leave what comes from another process."""
    ours, its = os.pipe()
    os.write(its, b"one\ntwo\n")
    os.dup2(ours, 0)
    for _ in sys.stdin:
        break
    sys.stdin.flush()  # a stream can say where it stands again then, as if nothing were left


def _text():
    file = tempfile.TemporaryFile("w+")  # noqa: SIM115
    print("one\ntwo\nthree\n" * 3000, file=file, flush=True)
    file.seek(0)
    return os.dup(file.fileno())


def replaced():
    """Leave another object in its place."""
    sys.stdout = sys.stderr = io.StringIO()


def wrapped():
    """Put a stream around its buffer, which closes it when it goes."""
    sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding="latin-1")


def set_up_otherwise():
    """Have it print in another encoding."""
    sys.stdout.reconfigure(encoding="utf-16", line_buffering=False)


def with_other_ends_of_lines():
    """Have it print those of another system."""
    sys.stdout.reconfigure(newline="\r\n")


def redirected():
    """Point the descriptors elsewhere, one at nothing at all."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.close(2)


def raised():
    """Fail with a stream that raises, too."""
    sys.stdout = object()
    raise ValueError("no")


def patched():
    """Give names that everybody uses another meaning."""
    builtins.print = time.sleep = lambda *_: None


def alarmed():
    """Leave a handler, and an alarm, which would end a process."""
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.05)


def timed():
    """Leave timers that count what the process computes."""
    signal.signal(signal.SIGPROF, lambda *_: None)
    signal.setitimer(signal.ITIMER_PROF, 0.05)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.05)


def told():
    """Print to both streams, look for what another has left, and say which process this is."""
    fd = os.dup(1)
    os.close(fd)
    assert fd > 2
    assert not sys.stdin.readline()
    assert not sys.stdin.read()
    assert not os.read(0, 1)
    print("é out")  # noqa: T201
    print("err", file=sys.stderr)  # noqa: T201
    assert signal.getsignal(signal.SIGUSR1) is signal.getsignal(signal.SIGPROF) is signal.SIG_DFL
    assert type(time.sleep) is type(builtins.print) is type(len)
    begun = time.monotonic()
    while time.monotonic() < begun + 0.1:
        """Long enough for the alarm and the timers."""
    return os.getpid()


@pytest.mark.parametrize(
    "spoil",
    [
        closed,
        unread,
        closed_by_its_number,
        given_input,
        half_read,
        looked_at,
        piped,
        replaced,
        wrapped,
        set_up_otherwise,
        with_other_ends_of_lines,
        redirected,
        raised,
        patched,
        alarmed,
        timed,
    ],
)
def test_the_next_function_finds_the_process_as_it_was(shop, spoil):
    """What it prints is there, whoever ran before, in the same process."""
    before = shop.submit(os.getpid).result(20)
    shop.submit(spoil).exception(20)
    after = shop.submit(told)
    assert after.result(20) == before
    assert sorted(after.output.splitlines(keepends=True)) == ["err\n", "é out\n"]


def prints_twice(number, go_on):
    """Close a descriptor, and print before and after the log was opened."""
    os.close(number)
    os.write(3 - number if number else 1, b"first\n")
    begun = time.monotonic()
    while not go_on.exists() and time.monotonic() < begun + 20:
        """Until it is told to."""
    os.write(3 - number if number else 1, b"second\n")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_log_takes_no_descriptor_that_a_function_has_closed(shop, tmp_path, number):
    """All of its output is there, and the next one finds its own descriptors."""
    go_on = tmp_path / "go_on"
    future = shop.submit(prints_twice, number, go_on)
    begun = time.monotonic()
    while future.output != "first\n" and time.monotonic() < begun + 20:
        """It is moved to the log while it runs."""
    go_on.touch()
    future.result(20)
    assert future.output == "first\nsecond\n"
    after = shop.submit(told)
    after.result(20)
    assert sorted(after.output.splitlines(keepends=True)) == ["err\n", "é out\n"]


def reopened():
    """Print by a stream that closes the descriptor when it goes."""
    sys.stdout = os.fdopen(sys.stdout.fileno(), "w", 1)


def reopened_both():
    """One stream instead of two, and one of bytes."""
    sys.stdout = sys.stderr = open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stdin = open(0, "rb", 0)  # noqa: SIM115


def kept_by_a_handler():
    """Log to the stream that a task has opened."""
    reopened()
    logging.getLogger("kept").addHandler(logging.StreamHandler(sys.stdout))


@pytest.mark.parametrize("spoil", [reopened, reopened_both, kept_by_a_handler])
def test_a_stream_that_a_task_opened_closes_nothing_of_the_next(shop, tmp_path, spoil):
    """What that one prints is in its output, and its files hold what it writes to them."""

    def work(path):
        gc.collect()
        with path.open("w") as file:
            print("printed")  # noqa: T201
            logging.getLogger("kept").warning("logged")
            file.write("written")
            return file.fileno()

    for _ in range(2):
        shop.submit(spoil).result(20)
    after = shop.submit(work, tmp_path / "file")
    assert after.result(20) > 2
    logged = 2 if spoil is kept_by_a_handler else 1
    assert after.output.splitlines() == ["printed"] + ["logged"] * logged
    assert (tmp_path / "file").read_text() == "written"


def test_what_was_printed_stays_before_the_stream_was_spoilt(shop):
    """Also what is no whole line yet."""

    def spoil():
        print("begun", end="")  # noqa: T201
        sys.stdout = None

    future = shop.submit(spoil)
    future.result(20)
    assert future.output == "begun"


def test_what_a_first_run_leaves_is_collected_before_the_next(shop):
    """Who imports much has all objects looked through soon: between two runs, not in the middle of one."""
    assert shop.submit(import_much).result(20) == 0
    assert shop.submit(full_collections).result(20) == 1


def import_much():
    """Bring as many modules as a large library; the interpreter collects nothing meanwhile."""
    gc.disable()
    for number in range(200):
        name = f"brought{number}"
        sys.modules[name] = type(sys)(name)
    sys.seen_collections = gc.get_stats()[2]["collections"]
    return full_collections()


def full_collections():
    """How often it has looked through all objects since."""
    return gc.get_stats()[2]["collections"] - sys.seen_collections
