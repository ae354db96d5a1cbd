"""Input for running commands: real workers, real processes that read or do not."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from koubou_panel.core.commands import Caller, CancelTask, SendInput, SubmitTask
from koubou_panel.core.records import Request, TaskId
from koubou_panel.engines.frames import Input
from koubou_panel.engines.inputs import CROWDED, ENDED, MOST_WAITING, Inputs
from koubou_panel.errors import Refused
from koubou_panel.kinds.packing import pack, pickled_arguments, pickled_function
from koubou_panel.shop.inputs import MOST_INPUT_BYTES
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import Collector, ended, open_inline_shop, open_shop, submit, until

ME = Caller("test")


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[LocalShop]:
    """A workshop with one worker."""
    async with open_shop(tmp_path / "home", workers=1) as opened:
        yield opened


async def begin(shop: LocalShop, *command: str, **spec: object) -> TaskId:
    """A command that takes input, in progress."""
    task_id = await submit(shop, spec={"command": list(command), "stdin": True} | spec)
    await until(lambda: shop.state.tasks[task_id].status != "pending")
    return task_id


async def send(shop: LocalShop, task_id: TaskId, data: bytes = b"", *, is_last: bool = False) -> None:
    """Send input, and wait until it is taken."""
    assert await shop.do(SendInput(task_id, data, is_last), ME) == task_id


async def refusal(shop: LocalShop, task_id: TaskId, data: bytes = b"x", caller: Caller = ME) -> Refused:
    """Why input is not taken."""
    with pytest.raises(Refused) as refused:
        await shop.do(SendInput(task_id, data), caller)
    return refused.value


async def output(shop: LocalShop, task_id: TaskId) -> str:
    """All that the task printed, once it has ended well."""
    await ended(shop, task_id)
    assert shop.state.tasks[task_id].status == "completed", shop.state.tasks[task_id].message
    return (await shop.read_output(task_id, 0, 100_000)).text


async def shows(shop: LocalShop, task_id: TaskId, text: str) -> None:
    """Wait until the task has printed this."""

    async def has() -> bool:
        return text in (await shop.read_output(task_id, 0, 100_000)).text

    await until(has)


async def test_input_is_read_as_it_was_sent(shop):
    """Pieces come in their order, byte for byte, and the last ends it."""
    task_id = await begin(shop, "od", "-An", "-c")
    for piece in (b"a\x00", b"", b"\xff\x04"):
        await send(shop, task_id, piece)
    await send(shop, task_id, b"z", is_last=True)
    assert (await output(shop, task_id)).split() == ["a", "\\0", "377", "004", "z"]


async def test_a_command_answers_what_it_is_asked(shop):
    """Input and output go on side by side while it runs."""
    task_id = await begin(shop, "sh", "-c", "while read x; do echo got $x; done")
    for number in range(3):
        await send(shop, task_id, f"{number}\n".encode())
        await shows(shop, task_id, f"got {number}\n")
    await send(shop, task_id, is_last=True)
    assert await output(shop, task_id) == "got 0\ngot 1\ngot 2\n"


async def test_input_while_much_is_printed(shop):
    """A command that prints all it reads is never waited for by its own input."""
    data = os.urandom(MOST_INPUT_BYTES)
    task_id = await begin(shop, "cat")
    for _ in range(50):
        await send(shop, task_id, data)
    await send(shop, task_id, is_last=True)
    await ended(shop, task_id)
    digest, at = hashlib.sha256(), 0
    while (page := await shop.read_bytes(task_id, at, 1 << 20)).data:
        digest.update(page.data)
        at = page.end
    assert digest.digest() == hashlib.sha256(data * 50).digest()


async def test_pieces_sent_together_keep_their_order(shop):
    """Who does not wait for the answer is served in order all the same."""
    task_id = await begin(shop, "cat")
    pieces = [SendInput(task_id, f"{number}\n".encode()) for number in range(30)]
    assert await shop.do_many([*pieces, SendInput(task_id, b"", is_last=True)], ME) == [task_id] * 31
    assert await output(shop, task_id) == "".join(f"{number}\n" for number in range(30))


async def test_who_does_not_read_is_waited_for_until_its_end(shop):
    """The answer comes when the process has taken the piece; or, when it has ended, that it has not."""
    task_id = await begin(shop, "sleep", "60")
    await send(shop, task_id, bytes(MOST_INPUT_BYTES))  # what the pipe holds
    waiting = asyncio.create_task(shop.do(SendInput(task_id, b"more"), ME))
    assert not (await asyncio.wait([waiting], timeout=0.3))[0]
    await shop.do(CancelTask(task_id), ME)
    with pytest.raises(Refused) as refused:
        await waiting
    assert refused.value.code == "conflict"
    await ended(shop, task_id)


async def test_a_worker_that_does_not_read_fills_nothing(shop):
    """What a stopped worker has not read is bounded in the workshop too: the rest is refused at once."""
    task_id = await begin(shop, "cat")
    (worker,) = shop.state.workers.values()
    os.kill(worker.pid, signal.SIGSTOP)
    pieces = [SendInput(task_id, b"x") for _ in range(MOST_WAITING + 5)]
    sending = asyncio.create_task(shop.do_many(pieces, ME))
    senders = shop.engine._links[worker.worker_id].senders
    await until(lambda: len(senders._waiting) == MOST_WAITING)
    refused = await refusal(shop, task_id)
    assert CROWDED in refused.message
    os.kill(worker.pid, signal.SIGCONT)
    answers = await sending
    assert answers[:MOST_WAITING] == [task_id] * MOST_WAITING
    assert [CROWDED in str(answer) for answer in answers[MOST_WAITING:]] == [True] * 5
    await send(shop, task_id, is_last=True)
    assert await output(shop, task_id) == "x" * MOST_WAITING


async def test_a_worker_that_is_killed_leaves_nobody_waiting(shop):
    """Input that was on its way is refused when the worker dies."""
    task_id = await begin(shop, "sleep", "60")
    await send(shop, task_id, bytes(MOST_INPUT_BYTES))
    waiting = asyncio.create_task(shop.do(SendInput(task_id, b"more"), ME))
    await asyncio.wait([waiting], timeout=0.2)
    (worker,) = shop.state.workers.values()
    os.kill(worker.pid, 9)
    with pytest.raises(Refused) as refused:
        await waiting
    assert refused.value.code == "conflict"


async def test_a_command_that_closed_its_input_says_so(shop):
    """What nobody can read any more is refused, and the command goes on."""
    task_id = await begin(shop, "sh", "-c", "exec <&-; echo closed; read x; sleep 60")
    await shows(shop, task_id, "closed")
    assert "no longer reads" in (await refusal(shop, task_id)).message
    assert shop.state.tasks[task_id].status == "in_progress"


async def test_nothing_is_taken_after_the_end(shop):
    """Input after the last is refused."""
    task_id = await begin(shop, "sh", "-c", "cat; echo over; sleep 60")
    await send(shop, task_id, b"a", is_last=True)
    await shows(shop, task_id, "over")
    error = await refusal(shop, task_id)
    assert (error.code, "its input has ended" in error.message) == ("conflict", True)


async def test_what_takes_no_input_is_refused(shop):
    """A finished task, a function, a command without input, too much at once, a reader, an unknown task."""
    task_id = await begin(shop, "true")
    await ended(shop, task_id)
    assert "only a running task takes input" in (await refusal(shop, task_id)).message
    plain = await submit(shop, "sleep", "60")
    await until(lambda: shop.state.tasks[plain].status == "in_progress")
    assert "koubou run -i" in (await refusal(shop, plain)).message
    pending = await submit(shop, spec={"command": ["cat"], "stdin": True})
    assert "is pending" in (await refusal(shop, pending)).message
    assert (await refusal(shop, plain, bytes(MOST_INPUT_BYTES + 1))).code == "invalid"
    assert (await refusal(shop, plain, caller=Caller("x", "read"))).code == "forbidden"
    assert (await refusal(shop, TaskId("nobody"))).code == "not_found"


async def test_a_function_takes_no_input(shop):
    """Functions share the worker's process: there is nothing to give input to."""
    payload = pack(pickled_function(__import__("time").sleep), pickled_arguments((60,), {}), [])
    task_id = shop.next_id()
    request = Request(task_id=task_id, kind="function", created_at=0, payload=payload, name="sleep")
    await shop.do(SubmitTask(request), ME)
    await until(lambda: shop.state.tasks[task_id].status == "in_progress")
    assert "takes no input" in (await refusal(shop, task_id)).message


async def test_nothing_of_it_is_stored(tmp_path):
    """Input is no fact: subscribers are told nothing, and the database does not hold it."""
    async with open_shop(tmp_path / "home", workers=1) as shop:
        told = Collector()
        task_id = await begin(shop, "sh", "-c", "cat >/dev/null")
        shop.subscribe(told)
        await send(shop, task_id, b"a secret password", is_last=True)
        await ended(shop, task_id)
        assert "SendInput" not in repr(told.facts)
    for path in (tmp_path / "home").rglob("*"):
        assert not path.is_file() or b"a secret password" not in path.read_bytes()


ASKING = """
while True:
    try: print("got", input())
    except KeyboardInterrupt: print("stopped")
    except EOFError: break
"""


async def test_a_terminal_can_be_typed_at(shop):
    """A command with a terminal takes keys, its signals and its end of file among them."""
    task_id = await begin(shop, sys.executable, "-u", "-c", ASKING, stdin=False, pty=True)
    await send(shop, task_id, b"one\n")
    await shows(shop, task_id, "got one")
    await send(shop, task_id, b"half\x03")
    await shows(shop, task_id, "stopped")
    await send(shop, task_id, b"two\n", is_last=True)
    assert (await output(shop, task_id)).endswith("got two\r\n")


async def test_the_end_of_file_ends_an_unfinished_line(shop):
    """At a terminal one end of file hands over the line, and the next ends the input."""
    task_id = await begin(shop, "sh", "-c", "echo ready; cat; echo; echo over; sleep 60", pty=True)
    await shows(shop, task_id, "ready")
    await send(shop, task_id, b"no end", is_last=True)
    await shows(shop, task_id, "over")
    assert "its input has ended" in (await refusal(shop, task_id)).message


async def test_an_engine_of_tests_notes_input():
    """`InlineEngine` takes input at once, for tests of what sends it."""
    async with open_inline_shop() as shop:
        task_id = await submit(shop, spec={"command": ["cat"], "stdin": True})
        await until(lambda: shop.state.tasks[task_id].status == "in_progress")
        await send(shop, task_id, b"yes\n")
        assert shop.engine.inputs == [(task_id, b"yes\n", False)]


# -- within the worker ----------------------------------------------------------------------------------------


def test_input_for_a_run_that_is_over_or_crowded():
    """What comes too late, or in too great a hurry, is answered at once, and no descriptor is left."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    answers: dict[int, str] = {}
    inputs = Inputs(answers.__setitem__)
    for number in range(MOST_WAITING + 1):
        inputs.put(Input(7, number, b"x", False))
    assert answers == {MOST_WAITING: CROWDED}
    assert inputs.of(7).peek() == (b"x", False)
    inputs.of(7).taken()
    assert answers.pop(0) == ""
    inputs.end(7)
    inputs.put(Input(7, 100, b"late", False))
    inputs.put(Input(3, 101, b"later", False))
    assert set(answers) == {*range(1, MOST_WAITING + 1), 100, 101}
    assert answers[1] == answers[100] == answers[101] == ENDED
    assert len(list(Path("/proc/self/fd").iterdir())) == before
