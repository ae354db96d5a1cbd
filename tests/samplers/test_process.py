"""Process trees: every descendant counts, once, from its start to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack

import psutil
import pytest

from koubou_panel.core.records import Limits, TaskId, WorkerId
from koubou_panel.samplers import host as hosts
from koubou_panel.samplers import process as module
from koubou_panel.samplers.gpu import GpuUse
from koubou_panel.samplers.host import Seen
from koubou_panel.samplers.process import Tree, TreeSampler, Watch
from koubou_panel.testing import ManualClock, until

MB = 1024 * 1024
WORKER = WorkerId("worker-1")
TASK = TaskId("t")

# A child with a child of its own. Each holds 30 MB and tells when it is there; a line tells the inner one to work
# for 0.2 s of processor time, and to write a megabyte to storage.
TREE = f"""
import subprocess, sys
held = bytearray({30 * MB})
inner = '''
import os, sys, time
held = bytearray({30 * MB})
print("there", flush=True)
for line in sys.stdin:
    start = time.process_time()
    while time.process_time() - start < 0.2: pass
    with open(line.strip(), "wb") as file:
        file.write(bytes({MB}))
        file.flush()
        os.fsync(file.fileno())
    print("worked", flush=True)
'''
raise SystemExit(subprocess.run([sys.executable, "-c", inner]).returncode)
"""


@pytest.fixture
def tree():
    """A process with a child, both there; closing its input ends both."""
    with ExitStack() as stack:
        child = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", TREE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
        stack.callback(child.stdin.close)
        assert child.stdout.readline() == "there\n"
        yield child


class Host:
    """Processes that are made up."""

    def __init__(self):
        self.processes = []
        self.looks = 0

    def __call__(self):
        self.looks += 1
        return self

    def read(self, pid):
        return next((seen for seen in self.processes if seen.pid == pid), None)

    def children(self, pid):
        return [seen.pid for seen in self.processes if seen.parent == pid]


@pytest.fixture
def host():
    """A host with made-up processes."""
    return Host()


@pytest.fixture
def clock():
    """A monotonic clock that is set by hand."""
    return ManualClock(50.0)


@pytest.fixture
def sampler(host, clock):
    """A sampler of made-up processes."""
    return TreeSampler(clock, host)


def a_tree(*, shares_worker=False, age_s=2.0, limits=None, run=1):
    """Guard 10, worker 11, and a run."""
    return Tree(WORKER, 10, 11, Watch(TASK, run, shares_worker, age_s, limits or Limits()))


def a_worker(cpu_s=5.0, **fields):
    """The processes of a worker that rests."""
    return [Seen(10, 1, 1.0, 0.0, 100), Seen(11, 10, 1.0, cpu_s, 2_000, **fields)]


def only_use(looks):
    """The use of the one run."""
    ((_, _, use),) = looks.uses
    return use


def test_a_real_tree_is_measured_whole(tree, clock, tmp_path):
    """Memory, threads and processes are those of parent and child; the child's work shows as a share and in totals."""
    sampler = TreeSampler(clock)
    watched = Tree(WORKER, os.getpid(), tree.pid, Watch(TASK, 1, shares_worker=True, age_s=1.0))
    assert sampler.sample([watched]).uses == []
    tree.stdin.write(f"{tmp_path / 'written'}\n")
    tree.stdin.flush()
    assert tree.stdout.readline() == "worked\n"
    clock.advance(1.0)
    use = only_use(sampler.sample([watched]))
    assert 50 * MB < use.rss_bytes < 600 * MB
    assert (use.processes, use.threads) == (2, 2)
    assert 15.0 <= use.cpu_percent <= 60.0
    assert 0.15 <= use.cpu_s <= 0.6
    assert MB <= use.written_bytes < 8 * MB


@pytest.mark.parametrize("host", [hosts.ProcTrees, hosts.ProcPass, hosts.PsutilPass])
def test_every_way_to_see_processes_tells_the_same(tree, host):
    """Asking single processes for their children, a pass over /proc, and psutil agree with psutil's own words."""
    found = hosts.walk(tree.pid, host())
    real = [tree.pid, *(child.pid for child in psutil.Process(tree.pid).children(recursive=True))]
    assert [seen.pid for seen in found] == real
    for seen in found:
        process = psutil.Process(seen.pid)
        assert seen.parent == process.ppid()
        assert seen.cpu_s == pytest.approx(sum(process.cpu_times()[:2]), abs=0.1)
        assert seen.rss_bytes == pytest.approx(process.memory_info().rss, rel=0.3)
        assert (seen.threads, seen.is_zombie) == (1, False)


@pytest.mark.parametrize("host", [hosts.ProcTrees, hosts.ProcPass, hosts.PsutilPass])
def test_a_process_that_is_gone_is_none(host):
    """A pid of nobody is no process and has no children."""
    assert host().read(2**22 + 1) is None
    assert list(host().children(2**22 + 1)) == []


def test_this_machine_is_asked_for_children():
    """Linux with CONFIG_PROC_CHILDREN takes the cheapest way."""
    assert hosts.fitting_host() is hosts.ProcTrees


@pytest.mark.parametrize(("has_proc", "way"), [(True, hosts.ProcPass), (False, hosts.PsutilPass)])
def test_other_machines_are_seen_by_a_pass(monkeypatch, tmp_path, has_proc, way):
    """Without the kernel's lists of children there is one pass; without /proc psutil makes it."""
    if has_proc:
        (tmp_path / "self").mkdir()
        (tmp_path / "self" / "stat").touch()
    monkeypatch.setattr(hosts, "_PROC", tmp_path)
    assert hosts.fitting_host() is way


async def test_an_ended_child_is_in_its_parents_total(clock):
    """What a child used that was waited for is not lost between two looks."""
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    code = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {busy!r}])\n"
        "print('done', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout.readline() == b"done\n"
        await until(lambda: not psutil.Process(child.pid).children())
        assert hosts.ProcTrees().read(child.pid).cpu_s >= 0.3
        child.stdin.close()


@pytest.mark.parametrize("name", [b"python", b"a) S 1 (b", b"with space", b"((("])
def test_a_process_may_have_any_name(name):
    """Parentheses and spaces in a name shift no field."""
    fields = [
        b"Z",
        b"7",
        *[b"0"] * 9,
        b"150",
        b"50",
        b"90",
        b"10",
        b"20",
        b"0",
        b"4",
        b"0",
        b"12345",
        b"0",
        b"10",
    ]
    seen = hosts.parsed(42, b"42 (" + name + b") " + b" ".join([*fields, b"0"]) + b"\n")
    assert seen == Seen(42, 7, pytest.approx(123.45), 3.0, 10 * os.sysconf("SC_PAGE_SIZE"), 4, is_zombie=True)


def test_workers_are_told_apart(host, sampler):
    """Each worker has its own guard's tree; processes of neither count for none."""
    host.processes = [
        Seen(10, 1, 1.0, 5.0, 100),
        Seen(11, 10, 1.0, 5.0, 20),
        Seen(12, 11, 1.0, 5.0, 3),
        Seen(20, 1, 1.0, 5.0, 7_000),
        Seen(99, 1, 1.0, 5.0, 10**6),
    ]
    trees = [Tree(WorkerId("a"), 10, 11), Tree(WorkerId("b"), 20), Tree(WorkerId("c"), 77)]
    assert sampler.sample(trees).workers == {"a": (0.0, 123), "b": (0.0, 7_000)}


def test_a_command_is_what_is_below_the_worker(host, sampler):
    """A script's use leaves the worker out, and counts from its start also when it is seen late."""
    host.processes = [*a_worker(), Seen(12, 11, 9.0, 0.5, 30, 2), Seen(13, 12, 9.0, 1.0, 4, 3)]
    use = only_use(sampler.sample([a_tree(age_s=2.0)]))
    assert (use.rss_bytes, use.threads, use.processes) == (34, 5, 2)
    assert (use.cpu_s, use.cpu_percent) == (1.5, 75.0)


def test_a_function_counts_from_its_first_look(host, sampler, clock):
    """A function's use is its worker's, children too, less what the worker had used and held when first seen."""
    host.processes = a_worker(5.0)
    assert sampler.sample([a_tree(shares_worker=True)]).uses == []
    clock.advance(2.0)
    host.processes = [*a_worker(5.5), Seen(12, 11, 9.0, 0.5, 30)]
    use = only_use(sampler.sample([a_tree(shares_worker=True)]))
    assert (use.rss_bytes, use.processes) == (30, 2)
    assert (use.cpu_s, use.cpu_percent) == (1.0, 50.0)


def a_run(claim, began=0.0, **fields):
    """A function's run as the worker's claim of that number."""
    return Tree(WORKER, 10, 11, Watch(TASK, 1, True, 2.0, Limits(**fields), claim, began))


def holding(rss_bytes, *others):
    """The processes of a worker that holds so much, with others below it."""
    return [Seen(10, 1, 1.0, 0.0, 100), Seen(11, 10, 1.0, 5.0, rss_bytes), *others]


@pytest.mark.parametrize(
    ("rested", "seen"),
    [
        ((3, 300), (350, 100)),  # seen at rest just before it: all beyond that is its own, from its begin on
        ((2, 300), (350, 50)),  # another ran since: what that one left is not to be told from its own
        ((3, 300), (200, 200)),  # it gave back what others had left
        (None, (350, 50)),
    ],
)
def test_what_others_left_in_the_worker_is_not_the_functions(host, sampler, clock, rested, seen):
    """A function has what its worker holds beyond what it held before the function began."""
    first, use = seen
    if rested is not None:
        claim, rss_bytes = rested
        host.processes = holding(rss_bytes * MB)
        sampler.sample([Tree(WORKER, 10, 11, next_claim=claim)])
    host.processes = holding(first * MB)
    assert sampler.sample([a_run(3)]).uses == []
    clock.advance(1.0)
    host.processes = holding(400 * MB)
    assert only_use(sampler.sample([a_run(3)])).rss_bytes == use * MB
    host.processes = holding(10 * MB)
    ((_, _, now),) = sampler.look_again([a_run(3)])
    assert now.rss_bytes == 0


def test_a_new_worker_holds_little_that_is_not_the_functions(host, sampler, clock):
    """The first function of a worker that was never seen at rest answers for nearly all that it holds."""
    host.processes = holding(324 * MB)
    assert sampler.sample([a_run(0)]).uses == []
    clock.advance(1.0)
    assert only_use(sampler.sample([a_run(0)])).rss_bytes == 300 * MB


def test_processes_that_others_left_are_not_the_functions(host, sampler, clock):
    """What was born before the function began counts for neither its processes nor its memory and time."""
    left = [Seen(pid, 11, 49.5, 7.0, MB, 5) for pid in (12, 13)]
    host.processes = holding(30 * MB, *left, Seen(14, 11, 50.0, 0.5, 7))
    assert sampler.sample([a_run(0, began=50.0)]).uses == []
    clock.advance(1.0)
    host.processes = holding(30 * MB, *left, Seen(14, 11, 50.0, 0.75, 7), Seen(15, 14, 60.0, 0.25, 8))
    use = only_use(sampler.sample([a_run(0, began=50.0)]))
    assert (use.processes, use.threads, use.rss_bytes, use.cpu_s) == (3, 3, 6 * MB + 15, 0.5)


@pytest.mark.parametrize("host", [hosts.ProcTrees, hosts.ProcPass])
def test_births_are_told_by_the_present_clock(tree, host):
    """A process was born a little before now."""
    before = hosts.present()
    assert before - 60 < host().read(tree.pid).born <= before


def test_another_run_begins_anew(host, sampler, clock):
    """What the run before it used is not the next one's."""
    host.processes = a_worker(5.0)
    sampler.sample([a_tree(shares_worker=True)])
    clock.advance(1.0)
    host.processes = a_worker(6.0)
    sampler.sample([a_tree(shares_worker=True)])
    assert sampler.sample([a_tree(shares_worker=True, run=2)]).uses == []
    clock.advance(1.0)
    host.processes = a_worker(6.25)
    assert only_use(sampler.sample([a_tree(shares_worker=True, run=2)])).cpu_s == 0.25


def test_a_child_that_ended_takes_nothing_back(host, sampler, clock):
    """Totals never fall, and go on from where they stood."""
    host.processes = [*a_worker(), Seen(12, 11, 9.0, 1.0, 1), Seen(13, 12, 9.0, 3.0, 1)]
    assert only_use(sampler.sample([a_tree()])).cpu_s == 4.0
    clock.advance(1.0)
    host.processes = [*a_worker(), Seen(12, 11, 9.0, 1.25, 1)]
    assert only_use(sampler.sample([a_tree()])).cpu_s == 4.0
    clock.advance(1.0)
    host.processes = [*a_worker(), Seen(12, 11, 9.0, 1.5, 1)]
    use = only_use(sampler.sample([a_tree()]))
    assert (use.cpu_s, use.cpu_percent) == (4.25, 25.0)


def test_zombies_cost_but_are_no_processes(host, sampler):
    """One that has ended and was not waited for has used what it used, and is not counted."""
    host.processes = [*a_worker(), Seen(12, 11, 9.0, 1.0, 7), Seen(13, 12, 9.0, 3.0, 0, is_zombie=True)]
    use = only_use(sampler.sample([a_tree()]))
    assert (use.cpu_s, use.processes, use.threads) == (4.0, 1, 1)


def test_a_share_is_a_mean_of_nearly_a_second(host, sampler, clock):
    """Looks between samples move totals and memory, and leave the share alone."""
    host.processes = [*a_worker(), Seen(12, 11, 9.0, 1.0, 7)]
    sampler.sample([a_tree(age_s=2.0)])
    clock.advance(0.25)
    host.processes = [*a_worker(), Seen(12, 11, 9.0, 1.25, 70)]
    ((_, _, use),) = sampler.look_again([a_tree(age_s=2.25)])
    assert (use.cpu_s, use.rss_bytes, use.cpu_percent) == (1.25, 70, 50.0)
    clock.advance(0.75)
    assert only_use(sampler.sample([a_tree(age_s=3.0)])).cpu_percent == 25.0


def test_looking_again_forgets_nobody(host, sampler, clock):
    """Runs that have no limit are left alone between samples, not forgotten."""
    host.processes = a_worker(5.0)
    sampler.sample([a_tree(shares_worker=True)])
    assert sampler.look_again([]) == []
    clock.advance(1.0)
    assert only_use(sampler.sample([a_tree(shares_worker=True)])).cpu_s == 0.0


def test_a_worker_whose_name_is_used_again_is_another(host, sampler, clock):
    """A guard that was born at another time is a new tree and has no share yet."""
    host.processes = [Seen(10, 1, 1.0, 5.0, 1)]
    sampler.sample([Tree(WORKER, 10)])
    clock.advance(1.0)
    host.processes = [Seen(10, 1, 9.0, 50.0, 1)]
    assert sampler.sample([Tree(WORKER, 10)]).workers == {WORKER: (0.0, 1)}


def test_a_worker_that_is_not_its_guards_child_has_no_run(host, sampler):
    """A pid that is somebody else's by now is not looked at."""
    host.processes = [Seen(10, 1, 1.0, 5.0, 1), Seen(11, 1, 1.0, 5.0, 10**6), Seen(12, 11, 1.0, 5.0, 10**6)]
    assert sampler.sample([a_tree()]) == ({WORKER: (0.0, 1)}, [])


def test_the_gpu_is_attributed_by_pid(host, sampler):
    """A run has what its processes use of the GPUs; zero where others use them, nothing where there is none."""
    host.processes = [*a_worker(), Seen(12, 11, 9.0, 0.5, 30), Seen(13, 12, 9.0, 1.0, 4)]
    gpu = {12: GpuUse(30.0, 5 * MB), 13: GpuUse(12.5, MB), 99: GpuUse(50.0, MB)}
    use = only_use(sampler.sample([a_tree()], gpu))
    assert (use.gpu_percent, use.gpu_memory_bytes) == (42.5, 6 * MB)
    use = only_use(sampler.sample([a_tree()], {}))
    assert (use.gpu_percent, use.gpu_memory_bytes) == (0.0, 0)
    use = only_use(sampler.sample([a_tree()], None))
    assert (use.gpu_percent, use.gpu_memory_bytes) == (None, None)


def test_no_worker_costs_no_look(host, sampler):
    """Without a worker nothing is read."""
    assert sampler.sample([]) == ({}, [])
    assert host.looks == 0


def test_parents_in_a_ring_end(host, sampler):
    """A look is no moment: pids reused during it may make a ring, which is walked once."""
    host.processes = [Seen(10, 11, 1.0, 5.0, 1), Seen(11, 10, 1.0, 5.0, 2)]
    assert sampler.sample([Tree(WORKER, 10)]).workers == {WORKER: (0.0, 3)}


def test_two_looks_at_one_moment_give_no_share(host, sampler):
    """Nothing is divided by nothing."""
    host.processes = [Seen(10, 1, 1.0, 5.0, 1)]
    sampler.sample([Tree(WORKER, 10)])
    assert sampler.sample([Tree(WORKER, 10)]).workers == {WORKER: (0.0, 1)}


def test_pages_that_forks_share_count_once_where_they_decide(clock):
    """Four processes that share 40 MB hold 160 MB by the sum; against a limit of 100 MB they are told as they are."""
    code = (
        "import os, sys\n"
        f"held = bytearray(b'x' * {40 * MB})\n"
        "left, right = os.pipe()\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        os.write(right, b'.'); sys.stdin.read(); os._exit(0)\n"
        "seen = b''\n"
        "while len(seen) < 3: seen += os.read(left, 3)\n"
        "print('there', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout.readline() == b"there\n"
        living = hosts.walk(child.pid, hosts.ProcTrees())
        assert len(living) == 4
        assert module._resident_bytes(living, None) > 160 * MB
        assert module._resident_bytes(living, 100 * MB) < 100 * MB
        child.stdin.close()
