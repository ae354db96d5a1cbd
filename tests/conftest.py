"""Which tests begin first, and how one has the machine for itself; CONTRIBUTING.md says how tests are run."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler.loadfile import LoadFileScheduling

#: What takes long begins first, so that no process is left with it at the end, when the others have nothing more to do.
#: What computes and what waits take turns, so that there is always some of both.
COMPUTES = ("tests/browser/", "tests/jupyter/")
WAITS = (
    "tests/test_supervisor.py",
    "tests/faults/",
    "tests/conformance/",
    "tests/cli/",
    "tests/engines/",
    "tests/notebook/",
    "tests/servers/",
    "tests/shop/",
)
# jsonschema looks for it, and it compiles grammars for seconds, in every process: for formats that nothing here has.
sys.modules.setdefault("rfc3987_syntax", None)
ALONE = "alone"
LAST = 2.0
ROOM = "ROOM_OF_THE_TESTS"

# How long an example takes says little of it where other tests run beside. CI judges a change by the same examples each
# time; new ones are looked for everywhere else.
settings.register_profile(
    "beside others",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
)
settings.load_profile("beside others")


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder that the processes of this run share, before they are started."""
    if not hasattr(config, "workerinput"):
        os.environ[ROOM] = tempfile.mkdtemp(prefix="koubou-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(ROOM), ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long first, and what is to run alone last; within a file all stays in its order."""
    files = list(dict.fromkeys(_file(item) for item in items))
    places: dict[str, float] = {}
    for names in (COMPUTES, WAITS):
        some = sorted(filter(lambda file: file.startswith(names), files), key=lambda file: _rank(file, names))
        places |= {file: n / len(some) for n, file in enumerate(some)}
    for item in filter(_is_alone, items):
        item.add_marker(pytest.mark.xdist_group(ALONE))
    items.sort(key=lambda item: LAST if _is_alone(item) else places.get(_file(item), 1.0))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """Give each process a file at a time; those that run alone are one such file, or others would wait for each."""
    return Scheduling(config, log) if config.getoption("dist") == "loadgroup" else None


class Scheduling(LoadFileScheduling):
    """By files, and one more for what is of a group: `--dist loadgroup` ends the names of its tests with it."""

    def _split_scope(self, nodeid: str) -> str:
        return ALONE if nodeid.endswith(f"@{ALONE}") else super()._split_scope(nodeid)


def _is_alone(item: pytest.Item) -> bool:
    return "PYTEST_XDIST_WORKER" in os.environ and item.get_closest_marker(ALONE) is not None


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _rank(file: str, names: tuple[str, ...]) -> int:
    return next(n for n, name in enumerate(names) if file.startswith(name))


# First: to wait for the room is no part of a test's own time.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run a test beside those of other processes, or, if it is marked `alone`, while none of them runs one."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    with _room(is_alone=_is_alone(item)):
        return (yield)


@contextmanager
def _room(*, is_alone: bool) -> Iterator[None]:
    """A place in the room. Who is to be alone holds the door meanwhile, and nobody comes in before it has left."""
    folder = Path(os.environ[ROOM])
    # Locks of a process: they end with it, however it ends, and what a test starts does not inherit them.
    with (folder / "door").open("a+") as door, (folder / "inside").open("a+") as inside:
        fcntl.lockf(door, fcntl.LOCK_EX)
        fcntl.lockf(inside, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH)
        if not is_alone:
            fcntl.lockf(door, fcntl.LOCK_UN)
        yield
