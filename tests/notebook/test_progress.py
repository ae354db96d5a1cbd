"""Progress with no code: what libraries do inside a task moves the task's progress."""

from __future__ import annotations

import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

WORKERS = 1


def wait_for(gate):
    """Until the test has seen enough."""
    while not Path(gate).exists():
        time.sleep(0.01)


def by_tqdm(gate):
    """A bar of tqdm that stands at 3 of 8."""
    from tqdm import tqdm

    for n in tqdm(range(8), desc="rows", mininterval=0):
        if n == 3:
            wait_for(gate)


def by_tqdm_auto(gate):
    """As notebooks import it."""
    from tqdm.auto import tqdm

    for n in tqdm(range(8), mininterval=0):
        if n == 3:
            wait_for(gate)


def by_tqdm_notebook(gate):
    """A widget's bar, where there is no notebook."""
    from tqdm.notebook import tqdm, trange

    assert len(list(trange(2))) == 2
    for n in tqdm(range(8), mininterval=0):
        if n == 3:
            wait_for(gate)


def by_rich(gate):
    """Rich draws nothing into a file."""
    from rich.progress import Progress

    with Progress(refresh_per_second=50) as progress:
        task = progress.add_task("rows", total=8)
        progress.advance(task, 3)
        wait_for(gate)


def by_track(gate):
    """Rich's loop."""
    from rich.progress import track

    for n in track(range(8), update_period=0.01):
        if n == 3:
            wait_for(gate)


def by_joblib(gate):
    """Calls of joblib that nobody made verbose."""
    from joblib import Parallel, delayed

    Parallel(n_jobs=1)([delayed(lambda n: wait_for(gate) if n == 3 else n)(n) for n in range(8)])


def by_threads(gate):
    """From a thread of the task's own, and from a generator."""
    import koubou_panel as kp

    def rows():
        for n in range(4):
            kp.progress(n, 8)
            yield n

    thread = threading.Thread(target=lambda: list(rows()))
    thread.start()
    thread.join()
    wait_for(gate)


def tqdm_around_others(gate):
    """The outermost counts: joblib's and rich's inside it do not."""
    from joblib import Parallel, delayed
    from rich.progress import track
    from tqdm import tqdm

    for n in tqdm(range(8), mininterval=0):
        Parallel(n_jobs=1)(delayed(abs)(k) for k in range(5))
        list(track(range(5)))
        if n == 3:
            wait_for(gate)


def rich_around_others(gate):
    """And the other way round."""
    from joblib import Parallel, delayed
    from rich.progress import track
    from tqdm import tqdm

    for n in track(range(8), update_period=0.01):
        Parallel(n_jobs=1)(delayed(abs)(k) for k in range(5))
        list(tqdm(range(5), mininterval=0))
        if n == 3:
            wait_for(gate)


def said_wins(gate):
    """What the task says itself wins over all of them."""
    from joblib import Parallel, delayed

    import koubou_panel as kp

    kp.progress(3, 8)
    Parallel(n_jobs=1)(delayed(lambda n: wait_for(gate) if n == 4 else n)(n) for n in range(5))


@pytest.fixture
def gate(tmp_path):
    """A file that lets the task go on; it does so at the latest when the test ends."""
    yield tmp_path / "gate"
    (tmp_path / "gate").touch()


def until_seen(shop, future, wanted):
    """The progress, when it is what is wanted."""
    deadline = time.monotonic() + 15
    seen = None
    while time.monotonic() < deadline:
        task = shop.shop.state.tasks.get(future.task_id)
        seen = task.progress if task is not None else None
        if seen is not None and (seen.done, seen.total) == wanted:
            return seen
        time.sleep(0.01)
    raise AssertionError(f"still {seen}, not {wanted}; {future}")


@pytest.mark.parametrize(
    "work",
    [
        by_tqdm,
        by_tqdm_auto,
        by_tqdm_notebook,
        by_rich,
        by_track,
        by_threads,
        tqdm_around_others,
        rich_around_others,
        said_wins,
    ],
    ids=lambda work: work.__name__,
)
def test_a_function_shows_how_far_it_is(shop, gate, work):
    """Three of eight are seen while it runs, whichever library counts."""
    future = shop.submit(work, str(gate))
    until_seen(shop, future, (3, 8))
    gate.touch()
    assert future.result(30) is None


def test_joblib_in_a_function_is_seen(shop, gate):
    """Its calls are counted, without `verbose`."""
    future = shop.submit(by_joblib, str(gate))
    seen = until_seen(shop, future, (3, 8))
    gate.touch()
    future.result(30)
    assert seen.fraction == pytest.approx(3 / 8)


SCRIPTS = {
    "tqdm": "from tqdm import tqdm\nfor n in tqdm(range(8), mininterval=0):\n    n == 3 and wait()",
    "tqdm.auto": "from tqdm.auto import tqdm\nfor n in tqdm(range(8), mininterval=0):\n    n == 3 and wait()",
    "kp.progress": "import koubou_panel as kp\nkp.progress(3, 8)\nwait()",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_shows_how_far_it_is(shop, tmp_path, gate, name):
    """Unchanged, through a pipe."""
    script = tmp_path / "script.py"
    head = f"""
        import time
        from pathlib import Path
        def wait():
            while not Path({str(gate)!r}).exists():
                time.sleep(0.01)
        """
    script.write_text(textwrap.dedent(head) + SCRIPTS[name])
    future = shop.run(sys.executable, str(script))
    until_seen(shop, future, (3, 8))
    gate.touch()
    assert future.result(30) is None


def test_what_is_no_number_fails_the_task_with_words(shop):
    """`kp.progress("3", 8)` is a TypeError in the task, at its line; a number that makes no sense is passed over."""
    with pytest.raises(TypeError, match=r"progress takes numbers, such as progress\(12, 80\), not str"):
        shop.submit(_say, "3").result(30)
    assert shop.submit(_say, float("nan")).result(30) is None
    assert shop.submit(_say, -1).result(30) is None


def _say(value):
    import koubou_panel as kp

    kp.progress(value, 8)
