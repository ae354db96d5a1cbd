"""A process that forks: the workshop stays its own, and the fork is told so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

LIMIT_S = 90.0
BEGIN = """
import multiprocessing, os, sys, time
from koubou_panel import Workshop
def tried(call):
    try:
        return call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
def child():
    print(tried(lambda: shop.submit(pow, 2, 2)))
    print(tried(lambda: list(shop.map(abs, [1]))))
    print(tried(waiting.result))
    print(tried(lambda: shop.output(ended.task_id)))
    print("was forked from" in repr(shop), ended.result(), tried(shop.shutdown))
    with Workshop(sys.argv[1]) as own:
        print(own.is_attached, own.submit(pow, 2, 3).result(30), flush=True)
shop = Workshop(sys.argv[1], workers=2)
ended = shop.submit(pow, 2, 10)
ended.result()
waiting = shop.submit(time.sleep, 1)
"""
FORKS = {
    "os.fork": "pid = os.fork()\nif not pid:\n    child()\n    sys.exit()\nassert os.waitpid(pid, 0)[1] == 0\n",
    "multiprocessing": (
        "p = multiprocessing.get_context('fork').Process(target=child)\n"
        "p.start()\np.join()\nassert p.exitcode == 0\n"
    ),
}
TOLD = "this process was forked from the one that opened the workshop"


@pytest.mark.parametrize("fork", FORKS)
def test_a_fork_is_told_and_the_workshop_goes_on(tmp_path, fork):
    """All that would reach for the workshop's thread; one of its own can be opened, and ends with it."""
    text = BEGIN + FORKS[fork] + "print(waiting.result(30), shop.submit(pow, 2, 4).result(30), flush=True)"
    ran = subprocess.run(
        [sys.executable, "-c", text, str(tmp_path / "home")],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    lines = ran.stdout.splitlines()
    assert len(lines) == 7, ran.stderr
    assert all(TOLD in line for line in lines[:4])
    assert lines[4:] == ["True 1024 None", "True 8", "None 16"]
    assert ran.stderr == ""


def test_a_fork_that_lives_on_keeps_no_worker_alive(tmp_path):
    """Nor the home taken, once the process that held the workshop was killed."""
    text = BEGIN + (
        "child = os.fork()\n"
        "if not child:\n    time.sleep(600)\n"
        "print(child, *(p.pid for p in __import__('psutil').Process().children(recursive=True)), flush=True)\n"
        "time.sleep(600)"
    )
    command = [sys.executable, "-c", text, str(tmp_path / "home")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        child, *rest = map(int, process.stdout.readline().split())
        process.send_signal(signal.SIGKILL)
    below = [psutil.Process(pid) for pid in rest if pid != child and psutil.pid_exists(pid)]
    try:
        assert len(rest) > 2
        assert not psutil.wait_procs(below, LIMIT_S)[1]
        assert Path(f"/proc/{child}").exists()
        opening = "import sys\nfrom koubou_panel import Workshop\nprint(Workshop(sys.argv[1], workers=1).is_attached)"
        again = subprocess.run(
            [sys.executable, "-c", opening, str(tmp_path / "home")],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert again.stdout == "False\n", again.stderr
    finally:
        os.kill(child, signal.SIGKILL)
