"""Process trees: every descendant counts, once, from its start to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack

import psutil
import pytest

from koubou_panel.samplers import process as module
from koubou_panel.samplers.process import TreeSampler, _Seen
from koubou_panel.testing import ManualClock

MB = 1024 * 1024

# A child with a child of its own. Each holds 30 MB and tells when it is there; a line tells the inner one to work
# for 0.2 s of processor time.
TREE = f"""
import subprocess, sys
held = bytearray({30 * MB})
inner = '''
import sys, time
held = bytearray({30 * MB})
print("there", flush=True)
for line in sys.stdin:
    start = time.process_time()
    while time.process_time() - start < 0.2: pass
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

    def __init__(self, monkeypatch):
        self.processes = []
        monkeypatch.setattr(module, "_processes", lambda: iter(self.processes))


@pytest.fixture
def host(monkeypatch):
    """A host with made-up processes."""
    return Host(monkeypatch)


@pytest.fixture
def clock():
    """A monotonic clock that is set by hand."""
    return ManualClock(50.0)


def test_a_real_tree_is_measured_whole(tree, clock):
    """Memory is that of parent and child, and the child's work shows as percent of one core."""
    sampler = TreeSampler(clock)
    ((percent, rss_bytes),) = sampler.sample({"w": tree.pid}).values()
    assert percent == 0.0
    assert 60 * MB < rss_bytes < 600 * MB
    tree.stdin.write("work\n")
    tree.stdin.flush()
    assert tree.stdout.readline() == "worked\n"
    clock.advance(1.0)
    percent, _ = sampler.sample({"w": tree.pid})["w"]
    assert 15.0 <= percent <= 40.0


def test_what_proc_tells_is_what_psutil_tells():
    """The fields of /proc are read as psutil reads them."""
    me = psutil.Process()
    mine = next(seen for seen in module._processes() if seen.pid == os.getpid())
    assert mine.parent == me.ppid()
    assert mine.cpu_s == pytest.approx(sum(me.cpu_times()[:2]), abs=0.5)
    assert mine.rss_bytes == pytest.approx(me.memory_info().rss, rel=0.3)


def test_where_there_is_no_proc_psutil_is_asked(monkeypatch, tmp_path):
    """Other systems give the same records by another way."""
    monkeypatch.setattr(module, "_PROC", tmp_path)
    mine = next(seen for seen in module._processes() if seen.pid == os.getpid())
    assert mine.parent == os.getppid()
    assert mine.rss_bytes > MB


@pytest.mark.parametrize("name", [b"python", b"a) S 1 (b", b"with space", b"((("])
def test_a_process_may_have_any_name(name):
    """Parentheses and spaces in a name shift no field."""
    fields = [b"S", b"7", *[b"0"] * 9, b"150", b"50", *[b"0"] * 6, b"12345", b"0", b"10", b"0"]
    seen = module._parsed(42, b"42 (" + name + b") " + b" ".join(fields) + b"\n", 0.01, 4_096)
    assert seen == _Seen(42, 7, 12_345.0, 2.0, 40_960)


def test_trees_are_told_apart(host, clock):
    """Each name has its own root's tree; processes of neither count for none."""
    host.processes = [
        _Seen(10, 1, 1.0, 5.0, 100),
        _Seen(11, 10, 1.0, 5.0, 20),
        _Seen(12, 11, 1.0, 5.0, 3),
        _Seen(20, 1, 1.0, 5.0, 7_000),
        _Seen(99, 1, 1.0, 5.0, 10**6),
    ]
    sampler = TreeSampler(clock)
    assert sampler.sample({"a": 10, "b": 20}) == {"a": (0.0, 123), "b": (0.0, 7_000)}


def test_the_share_is_of_the_seconds_since_the_last_call(host, clock):
    """Processor seconds of all of the tree, by the clock."""
    sampler = TreeSampler(clock)
    host.processes = [_Seen(10, 1, 1.0, 5.0, 1), _Seen(11, 10, 1.0, 5.0, 1)]
    sampler.sample({"a": 10})
    clock.advance(2.0)
    host.processes = [_Seen(10, 1, 1.0, 5.5, 1), _Seen(11, 10, 1.0, 7.0, 1)]
    assert sampler.sample({"a": 10}) == {"a": (125.0, 2)}


def test_a_new_child_counts_from_its_start(host, clock):
    """What a process spent before it was first seen belongs to the interval in which it appeared."""
    sampler = TreeSampler(clock)
    host.processes = [_Seen(10, 1, 1.0, 5.0, 1)]
    sampler.sample({"a": 10})
    clock.advance(1.0)
    host.processes = [_Seen(10, 1, 1.0, 5.0, 1), _Seen(11, 10, 9.0, 0.5, 1)]
    assert sampler.sample({"a": 10})["a"][0] == 50.0


def test_a_child_that_ended_takes_nothing_back(host, clock):
    """The share of a tree never falls below zero."""
    sampler = TreeSampler(clock)
    host.processes = [_Seen(10, 1, 1.0, 5.0, 1), _Seen(11, 10, 1.0, 60.0, 1)]
    sampler.sample({"a": 10})
    clock.advance(1.0)
    host.processes = [_Seen(10, 1, 1.0, 5.1, 1)]
    assert sampler.sample({"a": 10})["a"][0] == 10.0


def test_a_reused_pid_is_another_process(host, clock):
    """A root that was born at another time is a new tree and has no share yet."""
    sampler = TreeSampler(clock)
    host.processes = [_Seen(10, 1, 1.0, 5.0, 1)]
    sampler.sample({"a": 10})
    clock.advance(1.0)
    host.processes = [_Seen(10, 1, 9.0, 50.0, 1)]
    assert sampler.sample({"a": 10}) == {"a": (0.0, 1)}


def test_a_tree_that_is_gone_is_left_out(host, clock):
    """No process, no sample; the others are told."""
    host.processes = [_Seen(10, 1, 1.0, 5.0, 1)]
    assert TreeSampler(clock).sample({"a": 10, "b": 77}) == {"a": (0.0, 1)}


def test_no_tree_costs_no_pass(monkeypatch, clock):
    """Without a worker nothing is read."""
    monkeypatch.setattr(module, "_processes", lambda: pytest.fail("read all processes"))
    assert TreeSampler(clock).sample({}) == {}


def test_parents_in_a_ring_end(host, clock):
    """A pass is no moment: pids reused during it may make a ring, which is walked once."""
    host.processes = [_Seen(10, 11, 1.0, 5.0, 1), _Seen(11, 10, 1.0, 5.0, 2)]
    assert TreeSampler(clock).sample({"a": 10}) == {"a": (0.0, 3)}


def test_two_calls_at_one_moment_give_no_share(host, clock):
    """Nothing is divided by nothing."""
    sampler = TreeSampler(clock)
    host.processes = [_Seen(10, 1, 1.0, 5.0, 1)]
    sampler.sample({"a": 10})
    assert sampler.sample({"a": 10}) == {"a": (0.0, 1)}
