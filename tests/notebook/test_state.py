"""`shop.state`: Param models that follow the workshop, where they are used."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from contextlib import AsyncExitStack

import panel as pn
import param
import pytest

from koubou_panel.core.commands import Caller, SubmitTask
from koubou_panel.core.events import MetricsSampled
from koubou_panel.core.records import Metrics, Progress, Request
from koubou_panel.notebook import state
from koubou_panel.notebook.hop import Hops
from koubou_panel.notebook.loop_thread import LoopThread
from koubou_panel.notebook.state import States
from koubou_panel.testing import ManualClock, open_inline_shop, until

CALLER = Caller("test")
LIMIT_S = 90.0


class There:
    """A workshop on a thread of its own, with its states, as `Workshop` has them."""

    def __init__(self) -> None:
        self.thread = LoopThread()
        self.stack = AsyncExitStack()
        clock = ManualClock(time.time())
        self.shop = self.thread.call(self.stack.enter_async_context(open_inline_shop(clock=clock)))
        self.hops = Hops(self.shop, self.thread)
        self.states = States(self.hops, self.thread)

    @property
    def state(self):
        """As `Workshop.state`."""
        return self.states.model()

    def submit(self, **fields):
        """The id of a new task, once it is durable."""
        spec = {"command": ["true"]}
        request = Request(task_id=self.shop.next_id(), kind="script", created_at=0.0, spec=spec, **fields)
        return self.thread.call(self.shop.do(SubmitTask(request), CALLER))

    def call(self, function, *args, **kwargs):
        """Do it on the workshop's thread, and wait until what it led to is stored."""

        async def there():
            function(*args, **kwargs)
            await asyncio.sleep(0)
            await self.shop.hub.stored()

        self.thread.call(there())

    def finish(self, task_id, **outcome):
        """End a run."""
        self.call(self.shop.engine.finish, task_id, **outcome)

    def close(self):
        """End as `Workshop.shutdown` does."""

        async def close():
            await self.stack.aclose()
            self.hops.shut()

        self.thread.close(close())


@pytest.fixture
def there():
    """A workshop on a thread."""
    opened = There()
    yield opened
    if not opened.thread.is_closed:
        opened.close()


async def test_the_models_say_how_the_workshop_stands(there) -> None:
    """Tasks newest first, workers, counts and the host, with their values."""
    first, second = there.submit(name="first"), there.submit(name="second")
    there.call(there.shop.hub.note, MetricsSampled(1.0, Metrics(1.0, {"cpu_percent": 12.5, "load_1m": 0.5})))
    found = there.state
    assert [task.label for task in found.tasks] == ["second", "first"]
    assert {worker.current_task for worker in found.workers} == {first, second}
    assert (found.in_progress, found.pending, found.workers_busy) == (2, 0, 2)
    assert (found.metrics.cpu_percent, found.metrics.load_1m) == (12.5, 0.5)


async def test_every_parameter_says_what_it_is(there) -> None:
    """Whoever asks for help is given it, with the unit; names that end in one say it themselves."""
    found = there.state
    there.submit()
    models = [found, there.state.tasks[0], found.workers[0], found.metrics]
    unsaid = [
        f"{type(model).__name__}.{name}"
        for model in models
        for name in model.param
        if name != "name" and not model.param[name].doc and not name.endswith(("_bytes", "_percent", "_s"))
    ]
    assert unsaid == []


async def test_asked_twice_it_is_the_same(there) -> None:
    """One set of models for a loop, one subscription."""
    before = there.shop.hub.subscribers
    assert there.state is there.state
    assert there.shop.hub.subscribers == before + 1


async def test_what_is_known_is_in_it(there) -> None:
    """A cell that waits and then looks sees what it waited for, though its loop did not turn."""
    found = there.state
    task_id = there.submit()
    assert there.state.in_progress == 1
    there.finish(task_id, exit_code=0)
    assert there.state.completed == 1
    assert found.tasks[0].status == "completed"


async def test_watchers_are_called_on_this_loop(there) -> None:
    """A change arrives by itself, where the watcher was set up."""
    heard = []
    there.state.param.watch(lambda event: heard.append((event.new, threading.get_ident())), "completed")
    task_id = there.submit()
    there.finish(task_id, exit_code=0)
    assert heard == []
    await until(lambda: heard)
    assert heard == [(1, threading.get_ident())]


async def test_a_list_is_told_anew_when_a_member_changes(there) -> None:
    """Who watches the tasks hears that one of them ended; who watches the host hears every sample."""
    found = there.state
    statuses, shares = [], []
    task_id = there.submit()
    await until(lambda: found.tasks)
    found.param.watch(lambda event: statuses.append([task.status for task in event.new]), "tasks")
    found.param.watch(lambda event: shares.append(event.new.cpu_percent), "metrics")
    there.call(there.shop.engine.progress, task_id, Progress(done=1, total=2))
    await until(lambda: statuses == [["in_progress"]])
    there.finish(task_id, exit_code=0)
    await until(lambda: statuses[-1] == ["completed"])
    for share in (1.0, 2.0):
        there.call(there.shop.hub.note, MetricsSampled(share, Metrics(share, {"cpu_percent": share})))
        await until(lambda share=share: shares[-1:] == [share])


async def test_depends_bind_and_rx_follow(there) -> None:
    """The three ways that Param and Panel have of following a value all do."""

    class Board(param.Parameterized):
        """A user's own."""

        state = param.Parameter()
        seen = param.List()

        @param.depends("state.completed", watch=True)
        def note(self):
            """Keep what is new."""
            self.seen.append(self.state.completed)

    board = Board(state=there.state)
    bound = pn.bind(lambda n: f"{n} done", there.state.param.completed)
    pane = pn.pane.Str(bound)
    rx = there.state.param.completed.rx() * 10
    there.finish(there.submit(), exit_code=0)
    await until(lambda: board.seen == [1])
    assert bound() == "1 done"
    assert pane.object == "1 done"
    assert rx.rx.value == 10


async def test_a_watcher_that_fails_holds_up_nobody(there, caplog) -> None:
    """It is told in the log, and the others are called."""
    heard = []
    there.state.metrics.param.watch(lambda _: 1 / 0, "at")
    there.state.param.watch(lambda event: heard.append(event.new), "completed")
    there.call(there.shop.hub.note, MetricsSampled(1.0, Metrics(1.0, {"cpu_percent": 1.0})))
    there.finish(there.submit(), exit_code=0)
    await until(lambda: heard == [1])
    assert "a watcher of shop.state failed" in caplog.text


def test_a_watcher_that_exits_ends_no_thread(there, caplog) -> None:
    """In a script it is told in the log; the models go on, and stand still after the shutdown."""
    found = there.state
    found.param.watch(lambda _: sys.exit(3), "completed")
    for _ in range(2):
        there.finish(there.submit(), exit_code=0)
    assert there.state.completed == 2
    there.close()
    there.states._own._ended.result(LIMIT_S)
    assert found.link_status == "closed"
    assert "SystemExit" in caplog.text


async def test_an_interrupted_watcher_holds_up_no_other(there) -> None:
    """A cell that was interrupted is told so, and the next, that blocks too, has what it asks for."""
    found, heard, interrupts = there.state, [], [KeyboardInterrupt()]
    found.metrics.param.watch(lambda _: _raise(interrupts.pop()) if interrupts else None, "at")
    found.param.watch(lambda event: heard.append(event.new), "completed")
    there.call(there.shop.hub.note, MetricsSampled(1.0, Metrics(1.0, {"cpu_percent": 1.0})))
    there.finish(there.submit(), exit_code=0)
    with pytest.raises(KeyboardInterrupt):
        _ = there.state
    assert (there.state.completed, heard) == (1, [1])


def _raise(error):
    raise error


async def test_a_watcher_may_ask_for_the_state(there) -> None:
    """Within a change, the state is what it is, and asking for it starts no other."""
    heard = []
    there.state.param.watch(lambda _: heard.append(there.state.completed), "completed")
    there.finish(there.submit(), exit_code=0)
    await until(lambda: heard == [1])


async def test_the_newest_are_bounded(there, monkeypatch) -> None:
    """However many there are, as many have models as are shown."""
    monkeypatch.setattr(state, "SHOW_TASKS", 3)
    made = [there.submit() for _ in range(5)]
    assert [task.task_id for task in there.state.tasks] == made[:1:-1]


async def test_after_a_shutdown_it_stands_still(there) -> None:
    """The last state is kept, and says that the link is closed; nothing goes on in the background."""
    found = there.state
    there.submit(name="last")
    await asyncio.to_thread(there.close)
    await until(lambda: found.link_status == "closed")
    assert there.state is found
    assert found.tasks[0].status == "cancelled"


def test_a_closed_loop_leaves_nothing(there) -> None:
    """Each loop has its own; what belonged to one that was closed is forgotten."""
    before = there.shop.hub.subscribers

    async def look():
        return there.state

    first, second = asyncio.run(look()), asyncio.run(look())
    assert first is not second
    there.submit()
    there.call(there.shop.hub.note, MetricsSampled(1.0, Metrics(1.0, {})))
    assert there.shop.hub.subscribers == before
    assert len(there.states) == 1


def test_in_a_script_a_thread_keeps_it(there) -> None:
    """Without a loop it follows on a thread of its own; what was waited for is in it."""
    heard = []
    called = threading.Event()
    found = there.state
    found.param.watch(lambda event: (heard.append(threading.current_thread()), called.set()), "completed")
    there.finish(there.submit(), exit_code=0)
    assert there.state is found
    assert found.completed == 1
    assert called.wait(10)
    assert heard[0] not in (threading.main_thread(), there.thread._thread)


def test_in_a_script_a_slow_watcher_holds_up_no_workshop(there) -> None:
    """The workshop goes on while one of its watchers sleeps."""
    awake, asleep = threading.Event(), threading.Event()

    def sleep(_):
        asleep.set()
        assert awake.wait(10)

    there.state.param.watch(sleep, "in_progress")
    first = there.submit()
    assert asleep.wait(10)
    there.finish(first, exit_code=0)
    assert there.shop.state.counts["completed"] == 1
    awake.set()


def test_in_a_script_the_thread_ends_with_the_workshop(there) -> None:
    """After the shutdown the last state is there, and no thread is left."""
    found = there.state
    there.submit(name="last")
    threads = threading.active_count()
    there.close()
    assert there.state is found
    assert found.link_status == "closed"
    assert found.tasks[0].status == "cancelled"
    there.states._own.join()
    assert threading.active_count() <= threads - 1


def test_the_workshops_own_thread_may_not_ask(there) -> None:
    """A callback of a future runs there, where nothing may wait: it is told so."""
    with pytest.raises(RuntimeError, match="another thread"):
        there.call(there.states.model)


def test_who_asks_on_the_workshops_own_thread_holds_up_nobody(there, monkeypatch) -> None:
    """It is refused at once while another thread's models are being made, which wait for a turn of that thread."""
    is_making, said = threading.Event(), []

    async def ask():
        is_making.wait(LIMIT_S)
        try:
            there.states.model()
        except RuntimeError as error:
            said.append(error)

    begin = States._begin_apart

    def noted(self, document):
        is_making.set()
        return begin(self, document)

    monkeypatch.setattr(States, "_begin_apart", noted)
    asking = there.thread.start(ask())
    found = []
    other = threading.Thread(target=lambda: found.append(there.state), daemon=True)
    other.start()
    asking.result(LIMIT_S)
    other.join(LIMIT_S)
    assert (len(said), len(found)) == (1, 1)


def test_many_threads_of_a_script_have_the_same(there) -> None:
    """However many ask first at once."""
    found = []
    threads = [threading.Thread(target=lambda: found.append(there.state)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert len(found) == 8
    assert len({id(model) for model in found}) == len(there.states) == 1


def test_asked_first_after_a_shutdown_it_leaves_no_thread(there) -> None:
    """It says that the workshop was shut down, each time."""
    before = set(threading.enumerate())
    there.close()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="was shut down"):
            _ = there.state
    assert [thread for thread in set(threading.enumerate()) - before if thread.name == "koubou"] == []


def test_models_and_records_are_one_line(shop):
    """What a cell shows of them is short, and has no pickle in it."""
    future = shop.submit_with(pow, 2, 3, options={"name": "short"})
    assert future.result(20) == 8
    state = shop.state
    model = next(model for model in state.tasks if model.task_id == future.task_id)
    assert repr(model) == f"<TaskModel {future.task_id} 'short' completed>"
    assert repr(state.workers[0]).startswith("<WorkerModel worker-1 ")
    assert repr(state.metrics).startswith("<MetricsModel ")
    assert "pending, " in repr(state)
    assert all(len(repr(each)) < 200 for each in (state, state.metrics, *state.workers))
    request = Request(task_id=future.task_id, kind="function", created_at=1.0, payload=b"\x80" * 99)
    assert "payload='<99 bytes>'" in repr(request)
    assert "x80" not in repr(request)


def test_models_refuse_what_is_written(shop):
    """They tell how the workshop stands; the words say what changes it. Watchers can be called anew."""
    shop.submit(pow, 2, 2).result(LIMIT_S)
    state, called = shop.state, []
    state.param.watch(called.append, "completed", onlychanged=False)
    for write in (
        lambda: setattr(state, "completed", -1),
        lambda: state.param.update(completed=-1),
        lambda: setattr(state.tasks[0], "status", "failed"),
        lambda: setattr(state.metrics, "values", {}),
    ):
        with pytest.raises(TypeError, match=r"cannot be set: a `Workshop` has methods"):
            write()
    assert called == []
    state.param.trigger("completed")
    assert [event.type for event in called] == ["triggered"]
    count = state.completed
    shop.submit(pow, 2, 2).result(LIMIT_S)
    assert shop.state.completed == count + 1
