"""Interrupts (SIGINT) wherever a person may be waiting: the pool and the workshop stay well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from jupyter_client.manager import KernelManager

LIMIT_S = 90.0

BEGIN = """
import sys, time, threading, os, signal
from koubou_panel import Workshop
def interrupted(call):
    print("waiting", flush=True)
    try:
        call()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    else:
        print("ended", flush=True)
def many():
    while True:
        [shop.submit(pow, 2, 2) for _ in range(20)]
home = sys.argv[1]
shop = Workshop(home, workers=1)
shop.submit(pow, 2, 2).result()
"""
PLACES = {
    "result": "lambda: shop.submit(time.sleep, 60).result()",
    "exception": "lambda: shop.submit(time.sleep, 60).exception()",
    "submit": "many",
    "map": "lambda: list(shop.map(time.sleep, [60, 60, 60]))",
    "a wait": "lambda: __import__('concurrent.futures').futures.wait([shop.submit(time.sleep, 60)])",
    "a drain": "lambda: (shop.submit(time.sleep, 60), time.sleep(0.5), shop.drain())",
}
GO_ON = """
shop.resume()
for task in list(shop.shop.state.tasks.values()):
    if not task.is_finished:
        shop.cancel(task.task_id)
print(shop.submit(pow, 2, 10).result(30), list(shop.map(abs, [-1, -2])), flush=True)
shop.shutdown(cancel_futures=True)
with Workshop(home, workers=1) as again:
    print(again.is_attached, again.submit(pow, 2, 3).result(30), flush=True)
"""


@contextmanager
def started(text, home):
    """A fresh interpreter in a group of its own, as a kernel is; it runs `text`."""
    with subprocess.Popen(
        [sys.executable, "-c", text, str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def interrupt(process):
    """Interrupt its whole group, as a terminal and a notebook's server do, once it waits."""
    assert process.stdout.readline() == "waiting\n"
    time.sleep(0.3)  # it is about to wait; a moment sooner or later is as good
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n"


@pytest.mark.parametrize("place", PLACES)
def test_an_interrupt_is_told_where_it_waits_and_all_goes_on(tmp_path, place):
    """A second one too: afterwards tasks run, and the workshop can be shut down and opened again."""
    text = BEGIN + f"interrupted({PLACES[place]})\n" * 2 + GO_ON
    with started(text, tmp_path / "home") as process:
        interrupt(process)
        interrupt(process)
        out, err = process.stdout.read(), process.stderr.read()
    assert (out, err) == ("1024 [1, 2]\nFalse 8\n", "")


LEAVING = """
def leave():
    with shop:
        shop.submit(time.sleep, 3)
interrupted(leave)
interrupted(shop.shutdown)
try:
    shop.submit(pow, 2, 2)
except RuntimeError as error:
    print(error, flush=True)
shop.shutdown()
with Workshop(home, workers=1) as again:
    print(again.is_attached, again.submit(pow, 2, 3).result(30), flush=True)
"""


def test_an_interrupted_shutdown_goes_on_by_itself(tmp_path):
    """At the end of a block, then in `shutdown` itself: a third wait finds it ended, and the home is free."""
    with started(BEGIN + LEAVING, tmp_path / "home") as process:
        interrupt(process)
        interrupt(process)
        out, err = process.stdout.read(), process.stderr.read()
    assert (out, err) == ("cannot schedule new futures after shutdown\nFalse 8\n", "")


def test_an_interrupted_opening_leaves_the_home_free(tmp_path):
    """Whenever it comes."""
    text = """
import sys, time, os, signal, threading
from koubou_panel import Workshop
Workshop(sys.argv[1], workers=1).shutdown()
for delay in (0.001, 0.005, 0.02, 0.05, 0.1):
    threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        shop = Workshop(sys.argv[1], workers=1)
        time.sleep(5)
    except KeyboardInterrupt:
        pass
    else:
        print("not interrupted")
    try:
        shop.shutdown()
    except NameError:
        pass
    with Workshop(sys.argv[1], workers=1) as again:
        assert again.submit(pow, 2, 3).result(30) == 8
print("well")
"""
    with started(text, tmp_path / "home") as process:
        out, err = process.stdout.read(), process.stderr.read()
    assert (out, err) == ("well\n", "")


@pytest.fixture
def kernel(tmp_path):
    """A client of a real ipykernel, in an empty folder."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(tmp_path))
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=LIMIT_S)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=False)


def run(client, code):
    """What a cell prints and how it ends: (text, the name of its error or None)."""
    said = []
    reply = client.execute_interactive(
        code, timeout=LIMIT_S, output_hook=lambda m: said.append(m["content"].get("text", ""))
    )
    return "".join(said), reply["content"].get("ename")


def test_the_kernel_can_be_interrupted(kernel, tmp_path):
    """Again and again; the next cells work, awaiting ones too. (ipykernel 7.4 cannot interrupt those.)."""
    manager, client = kernel
    home = str(tmp_path / "home")
    opening = f"import time\nfrom koubou_panel import Workshop\nshop = Workshop({home!r}, workers=1)"
    assert run(client, opening) == ("", None)
    for cell in ("shop.submit(time.sleep, 60).result()", "list(shop.map(time.sleep, [60, 60]))") * 2:
        asked = client.execute(cell, stop_on_error=False)
        while client.get_iopub_msg(timeout=LIMIT_S)["msg_type"] != "execute_input":
            pass
        time.sleep(0.3)
        manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=LIMIT_S)
        while reply["parent_header"]["msg_id"] != asked:
            reply = client.get_shell_msg(timeout=LIMIT_S)
        assert reply["content"]["ename"] == "KeyboardInterrupt"
    code = """
for task in list(shop.shop.state.tasks.values()):
    task.is_finished or shop.cancel(task.task_id)
print(await shop.submit(pow, 2, 10), shop.submit(lambda x: x + 1, 1).result(30))
"""
    assert run(client, code) == ("1024 2\n", None)
    assert run(client, "shop.shutdown(); print(shop.is_shut)") == ("True\n", None)
