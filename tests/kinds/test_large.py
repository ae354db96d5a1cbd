"""Large arguments and results cross in files: mapped, not copied; nothing is left of what did not come about."""

from __future__ import annotations

import errno
import os
import pickle
import resource
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from koubou_panel.core.records import Job, Outcome
from koubou_panel.errors import Refused, TaskFailure
from koubou_panel.kinds import spill
from koubou_panel.kinds.call import Desk
from koubou_panel.kinds.function import FunctionKind, result_of
from koubou_panel.kinds.mapped import mapped
from koubou_panel.kinds.packing import pickled_function, unpack_value

MB = 1 << 20


class Context:
    """A run in a home, where the results of others are known."""

    def __init__(self, home: Path) -> None:
        self.home = str(home)
        self.values: dict[str, bytes] = {}

    def value_of(self, task_id: str) -> bytes:
        return self.values[task_id]


class Crossing:
    """A caller and a worker of one home."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "values"
        self.desk = Desk(self.folder, [])
        self.kind = FunctionKind()
        self.context = Context(home)

    def pack(self, task_id, function, *args, reducers=None) -> bytes:
        return self.desk.packed(task_id, pickled_function(function), args, {}, lambda: reducers or {})

    def run(self, task_id, payload, run=1) -> Outcome:
        return self.kind.run(Job(task_id, run, 0, "function", {}, payload), self.context)

    def call(self, function, *args, task_id="task0000000001") -> object:
        outcome = self.run(task_id, self.pack(task_id, function, *args))
        self.context.values[task_id] = outcome.value
        return unpack_value(outcome.value, self.folder, task_id)

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []


@pytest.fixture
def crossing(tmp_path):
    """A home where nothing has crossed yet."""
    return Crossing(tmp_path)


def same(value):
    """What it is given."""
    return value


def changed(array):
    """The sum, after the first number was changed in place."""
    array[0] = 7
    return int(array.sum())


FRAME = pd.DataFrame({"a": np.arange(200_000), "b": np.arange(200_000) * 0.5, "c": ["x"] * 200_000})
VALUES = {
    "an array": np.arange(2 * MB),
    "one of columns": np.asfortranarray(np.arange(2 * MB, dtype=np.int32).reshape(2, MB)),
    "a slice of one": np.arange(4 * MB)[::2],
    "one that may not be changed": np.frombuffer(bytes(3 * MB), dtype=np.uint8),
    "a table": FRAME,
    "many in a nest": {"list": [np.full(10_000, n) for n in range(40)], "one": np.zeros(MB), "text": "工房"},
    "bytes": os.urandom(3 * MB),
    "a bytearray": bytearray(os.urandom(3 * MB)),
    "a long text": "工房" * MB,
    "a long list": list(range(400_000)),
    "nearly large ones": [np.zeros(50_000), bytes(900_000)],
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_it_comes_back_as_it_was(crossing, value):
    """Through argument and result: the same content, of the same type, as free to be changed."""
    back = crossing.call(same, value)
    assert type(back) is type(value)
    assert pickle.dumps(back) == pickle.dumps(pickle.loads(pickle.dumps(value, protocol=5)))
    if isinstance(value, np.ndarray):
        plain = pickle.loads(pickle.dumps(value, protocol=5))
        assert (back.flags.writeable, back.flags.f_contiguous) == (
            plain.flags.writeable,
            plain.flags.f_contiguous,
        )


def test_only_a_record_is_left_of_what_is_large(crossing):
    """Payload and value are small; the files are this user's alone, and none is half written."""
    payload = crossing.pack("task0000000001", same, np.zeros(MB), bytes(2 * MB))
    assert len(payload) < 1000
    assert crossing.files == ["task0000000001.a-0", "task0000000001.a-1"]
    assert {(crossing.folder / name).stat().st_mode & 0o777 for name in crossing.files} == {0o600}
    assert crossing.folder.stat().st_mode & 0o777 == 0o700


def test_small_values_make_no_files(crossing):
    """Below a megabyte all goes as ever."""
    assert crossing.call(same, np.arange(1000))[-1] == 999
    assert crossing.files == []


def test_what_is_changed_in_place_stays_where_it_was_changed(crossing):
    """Arguments can be written to, and another run of the same task sees them as they were."""
    payload = crossing.pack("task0000000001", changed, np.ones(2 * MB, dtype=np.uint8))
    for run in (1, 2):
        outcome = crossing.run("task0000000001", payload, run)
        assert unpack_value(outcome.value) == 2 * MB + 6


def test_each_opening_of_a_result_is_its_own(crossing):
    """A result that somebody changed is still as it was returned for the next who asks."""
    crossing.call(same, np.zeros(2 * MB))[0] = 1
    assert unpack_value(crossing.context.values["task0000000001"], crossing.folder, "task0000000001")[0] == 0


def test_a_reference_maps_the_other_tasks_file(crossing):
    """A large result that is another task's argument is not stored twice."""
    crossing.call(same, np.full(2 * MB, 3), task_id="task0000000001")
    before = crossing.files

    class Promise:
        pass

    reducers = {Promise: lambda _: (result_of, ("task0000000001",))}
    payload = crossing.pack("task0000000002", np.sum, Promise(), reducers=reducers)
    assert unpack_value(crossing.run("task0000000002", payload).value) == 6 * MB
    assert crossing.files == before


def test_the_same_buffer_is_stored_once(crossing):
    """Given to many tasks it has many names and one content; one that differs in a single byte has its own."""
    array = np.random.default_rng(1).integers(0, 255, 10 * MB, dtype=np.uint8)
    for n in range(3):
        crossing.pack(f"task000000000{n}", same, array, n)
    array[5 * MB + 1] ^= 1
    crossing.pack("task0000000009", same, array)
    inodes = [(crossing.folder / name).stat().st_ino for name in crossing.files]
    assert len(inodes) == 4
    assert len(set(inodes)) == 2
    assert inodes[0] == inodes[2] != inodes[3]


def test_a_large_function_is_in_a_file_and_loaded_once(crossing):
    """A closure over much is stored once for many calls, and a worker keeps the last one."""
    big = os.urandom(2 * MB)
    function = pickled_function(lambda n: (id(big), big[n]))
    found = set()
    for n in range(3):
        task_id = f"task000000000{n}"
        payload = crossing.desk.packed(task_id, function, (n,), {}, dict)
        assert len(payload) < 1000
        place, byte = unpack_value(crossing.run(task_id, payload).value)
        assert byte == big[n]
        found.add(place)
    assert len(found) == 1
    assert len({(crossing.folder / name).stat().st_ino for name in crossing.files}) == 1


class Odd:
    """Cannot be pickled, but what is before it could."""

    def __reduce__(self):
        raise ValueError("odd")


def test_nothing_is_left_of_what_cannot_be_pickled(crossing):
    """Neither of arguments nor of a result."""
    with pytest.raises(Refused, match="an argument cannot be pickled"):
        crossing.pack("task0000000001", same, bytes(3 * MB), Odd())
    outcome = crossing.run("task0000000001", crossing.pack("task0000000001", lambda: [bytes(3 * MB), Odd()]))
    assert outcome.message.startswith("the result cannot be pickled: ")
    assert crossing.files == []


def test_what_is_in_main_goes_by_value_beside_large_buffers(crossing, monkeypatch):
    """A class that no worker could import, around an array that is not copied."""
    kind = type("Kept", (), {"__module__": "__main__", "__qualname__": "Kept"})
    thing = kind()
    thing.array = np.ones(2 * MB)
    assert crossing.call(lambda one: float(one.array.sum()), thing) == 2 * MB


def test_a_full_disk_refuses_and_leaves_nothing(crossing, monkeypatch):
    """The caller is refused, a run fails, each with how much and where; the archive's own space is left alone."""
    payload = crossing.pack("task0000000001", np.zeros, 10 * MB)
    monkeypatch.setattr(spill, "RESERVE_BYTES", 1 << 60)
    words = r"the arguments could not be stored: No space left .* for 80 MB \(in .*values\); free"
    with pytest.raises(Refused, match=words) as refused:
        crossing.pack("task0000000002", same, np.zeros(10 * MB))
    assert refused.value.code == "storage"
    outcome = crossing.run("task0000000001", payload)
    assert outcome.message.startswith(
        "the result could not be stored: OSError: No space left on device for 80 MB"
    )
    assert crossing.files == []


def test_a_disk_that_fills_up_meanwhile_refuses(crossing, monkeypatch):
    """Whatever was written of it is removed."""

    def full(fd, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(spill.os, "write", full)
    with pytest.raises(Refused, match="No space left"):
        crossing.pack("task0000000001", same, np.zeros(2 * MB))
    assert crossing.files == []


def test_a_folder_of_somebody_else_is_not_written_to(crossing):
    """Nor one that others may write to, nor a link to elsewhere."""
    crossing.folder.mkdir()
    crossing.folder.chmod(0o777)
    with pytest.raises(Refused, match="not a folder of this user alone"):
        crossing.pack("task0000000001", same, np.zeros(2 * MB))
    crossing.folder.rmdir()
    crossing.folder.symlink_to("/tmp")
    with pytest.raises(Refused, match=r"it is a link.*put the whole home there"):
        crossing.pack("task0000000001", same, np.zeros(2 * MB))


def test_what_was_removed_is_told_with_its_size(crossing):
    """An argument's run fails at its start, a result is refused; both say what to do or where it was."""
    payload = crossing.pack("task0000000001", same, np.zeros(2 * MB))
    outcome = crossing.run("task0000000001", payload)
    (crossing.folder / "task0000000001.r1-0").unlink()
    with pytest.raises(
        Refused,
        match=r"the result of task task0000000001 is not kept any more: .*r1-0 is not there any more \(16 MB\)",
    ):
        unpack_value(outcome.value, crossing.folder, "task0000000001")
    (crossing.folder / "task0000000001.a-0").unlink()
    outcome = crossing.run("task0000000001", payload)
    assert outcome.reason == "start"
    with pytest.raises(
        Refused, match=r"not kept any more: .*a-0 is not there any more \(16 MB\); submit it again"
    ):
        unpack_value(outcome.value, crossing.folder)


def test_a_file_that_was_cut_is_told(crossing):
    """Nobody reads past its end."""
    payload = crossing.pack("task0000000001", same, np.zeros(2 * MB))
    os.truncate(crossing.folder / "task0000000001.a-0", MB)
    outcome = crossing.run("task0000000001", payload)
    assert "is shorter than it was written (16 MB)" in outcome.message


def test_many_results_at_once_need_no_descriptors(crossing):
    """Far more than a process may have files open are held, and each lets its memory go."""
    crossing.call(same, np.zeros(2 * MB))
    value = crossing.context.values["task0000000001"]
    before, limits = len(list(Path("/proc/self/fd").iterdir())), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 10, limits[1]))
    try:
        held = [unpack_value(value, crossing.folder, "task0000000001") for _ in range(50)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert held[-1].sum() == 0
    assert mappings_of("task0000000001.r1-0") == 50
    last = held.pop()[5:]
    held.clear()
    assert mappings_of("task0000000001.r1-0") == 1
    del last
    assert mappings_of("task0000000001.r1-0") == 0


def mappings_of(name):
    """How often this process has a file of that name mapped."""
    with Path("/proc/self/maps").open() as lines:
        return sum(name in line for line in lines)


@pytest.mark.skipif(
    Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2", reason="this machine lends no memory"
)
def test_what_is_larger_than_the_memory_can_be_opened(tmp_path):
    """As large as the disk has room for: what nobody looks at takes none of the memory and swap."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    sizes = {name: int(size.split()[0]) << 10 for name, size in (line.split(":") for line in lines)}
    size_bytes = (sizes["MemTotal"] + sizes["SwapTotal"]) * 11 // 10
    with (tmp_path / "large").open("xb") as file:
        file.truncate(size_bytes)
    with (tmp_path / "large").open("rb") as file:
        assert len(mapped(file.fileno(), size_bytes)) == size_bytes


def test_an_exception_that_is_too_large_is_told_with_its_size(crossing):
    """Its words and its size come, not itself."""

    def fail():
        raise ValueError(bytes(20 * MB))

    with pytest.raises(TaskFailure, match=r"ValueError: .*20 MB, is too large"):
        crossing.call(fail)


class Counted:
    """How often it was pickled is seen in its process."""

    times = 0

    def __init__(self, values):
        self.values = values

    def __reduce__(self):
        type(self).times += 1
        return Counted, (self.values,)


def test_what_is_large_without_buffers_is_pickled_once(crossing):
    """An argument and a result: once each."""
    Counted.times = 0
    assert crossing.call(same, Counted(list(range(400_000)))).values[-1] == 399_999
    assert Counted.times == 2
    assert crossing.files == ["task0000000001.a-0", "task0000000001.r1-0"]


def test_large_buffers_beside_a_large_pickle_leave_it_at_once(crossing):
    """An argument and a result: once each, and in files alone."""
    Counted.times = 0
    found = crossing.call(same, Counted([np.arange(2 * MB), bytes(3 * MB)])).values
    assert Counted.times == 2
    assert (found[0].sum(), len(found[1])) == (np.arange(2 * MB).sum(), 3 * MB)
    assert crossing.files == [f"task0000000001.{of}-{n}" for of in ("a", "r1") for n in (0, 1)]
