"""What was acknowledged outlives the process, whenever it is killed."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koubou_panel.archive.sqlite import Archive, Batch
from koubou_panel.core.events import SystemNoted
from koubou_panel.core.records import Metrics, Pool, Task

ROUNDS = 10

# Commits tasks with numbers from the given one on, in batches of a random size, through the writer thread; the
# loop of this process is a queue. Each number is printed once its batch is acknowledged.
COMMIT_FOREVER = """
import random, sys
from pathlib import Path
from queue import SimpleQueue
from koubou_panel.archive.sqlite import Archive, Batch
from koubou_panel.archive.writer import Writer
from koubou_panel.core.records import Request, Task

number = int(sys.argv[2])
calls = SimpleQueue()
writer = Writer(Archive.open(Path(sys.argv[1])), calls.put)
waiting = 0

def acknowledge(last):
    def done(error):
        global waiting
        waiting -= 1
        if error is None:
            sys.stdout.write(f"{last}\\n")
            sys.stdout.flush()
    return done

while True:
    tasks = [
        Task(request=Request(task_id=f"t{n}", kind="script", created_at=0.0, payload=b"p" * n), order=n)
        for n in range(number, number + random.randint(1, 40))
    ]
    number += len(tasks)
    writer.put(Batch(tasks={t.task_id: t for t in tasks}, new={t.task_id for t in tasks}), acknowledge(number - 1))
    waiting += 1
    while waiting > 3:
        calls.get()()
"""


@pytest.mark.faults
def test_no_acknowledged_commit_is_lost_by_a_kill(path):
    """After SIGKILL at a random moment every acknowledged task is there, whole, with all before it."""
    chance = random.Random(5)
    acknowledged = 0
    for _ in range(ROUNDS):
        child = subprocess.Popen(
            [sys.executable, "-c", COMMIT_FOREVER, str(path), str(acknowledged + 1)],
            stdout=subprocess.PIPE,
            text=True,
        )
        with child:
            for _ in range(chance.randint(1, 60)):
                acknowledged = int(child.stdout.readline())
            child.kill()
            acknowledged = int((child.stdout.read().split("\n")[:-1] or [acknowledged])[-1])
        archive = Archive.open(path)
        loaded = archive.load().unfinished
        assert [task.order for task in loaded] == list(range(1, len(loaded) + 1))
        assert len(loaded) >= acknowledged
        assert all(task.request.payload == b"p" * task.order for task in loaded)
        acknowledged = len(loaded)
        archive.close()
    assert acknowledged > ROUNDS


times = st.floats(0, 1e10)
changes = st.lists(
    st.tuples(
        st.integers(1, 12),
        st.sampled_from(["pending", "in_progress", "completed", "failed", "cancelled"]),
        st.binary(max_size=20),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    ),
    max_size=8,
)
batches = st.lists(st.tuples(changes, st.none() | st.integers(1, 9), st.lists(times, max_size=3)), max_size=8)


class Model:
    """What an archive should hold, as plain dictionaries."""

    def __init__(self, tasks):
        self.make = tasks.make
        self.tasks: dict[int, Task] = {}
        self.payloads, self.values = {}, {}
        self.pool, self.metrics, self.facts = None, [], []

    def batch(self, change, at):
        """The batch of a drawn change, which the model takes in too."""
        wanted, workers, samples = change
        batch = Batch(metrics=[Metrics(moment, {"a": [moment]}) for moment in samples])
        for touched in wanted:
            self._touch(batch, at, *touched)
        if workers is not None:
            batch.pool = self.pool = Pool(workers, workers)
        self.metrics += batch.metrics
        self.facts += batch.facts
        return batch

    def _touch(self, batch, at, *touched):
        order, status, blob, text = touched
        is_finished = status not in ("pending", "in_progress")
        if order not in self.tasks:
            payload = self.payloads[order] = blob
            task_id = self.make(order).task_id
            batch.new.add(task_id)
            batch.payloads[task_id] = blob
        payload = b"" if is_finished else self.payloads[order]
        name = self.tasks[order].request.name if order in self.tasks else text
        end = at + order if is_finished else None
        task = self.make(order, name=name, payload=payload, status=status, message=text, finished_at=end)
        self.tasks[order] = batch.tasks[task.task_id] = task
        batch.facts.append(SystemNoted(at, "touched", text))
        if is_finished and blob:
            self.values[order] = batch.values[task.task_id] = blob


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=batches, groups=st.lists(st.integers(1, 4), min_size=1), in_file=st.booleans())
def test_load_equals_what_was_committed(tasks, tmp_path_factory, drawn, groups, in_file):
    """However batches are grouped into commits, what is loaded again is what they said together."""
    path = tmp_path_factory.mktemp("home") / "koubou.db" if in_file else None
    archive = Archive.open(path)
    model = Model(tasks)
    waiting = [model.batch(change, 100.0 * place) for place, change in enumerate(drawn)]
    while waiting:
        size = groups.pop() if groups else 1
        archive.commit(waiting[:size])
        waiting = waiting[size:]
    if path is not None:
        archive.close()
        archive = Archive.open(path)
    loaded = archive.load()
    made = list(model.tasks.values())
    assert loaded.unfinished == sorted((t for t in made if not t.is_finished), key=lambda t: t.order)
    ended = sorted((t for t in made if t.is_finished), key=lambda t: (t.finished_at, t.order))
    assert loaded.finished == ended
    assert loaded.counts == {status: sum(t.status == status for t in made) for status in loaded.counts}
    assert (loaded.pool, loaded.metrics) == (model.pool, model.metrics)
    assert archive.journal(1_000) == model.facts
    ids = [task.task_id for task in made]
    assert archive.values(ids) == [model.values.get(task.order, b"") for task in made]
    assert [archive.payload(task_id) for task_id in ids] == [model.payloads[task.order] for task in made]
    archive.close()
