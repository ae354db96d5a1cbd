"""GPUs by NVML: what is told is passed on, what is not is left out, and a machine without one is left alone."""

# ruff: noqa: N802 - the fake has the names of NVML's own functions

from __future__ import annotations

from types import SimpleNamespace

import pytest

from koubou_panel.samplers.gpu import ASK_AGAIN_S, GpuSampler, GpuUse
from koubou_panel.testing import ManualClock

MB = 1024 * 1024


class NotFoundError(Exception):
    """As NVML's own."""


class FakeNvml:
    """A fake of the module `pynvml`, for machines without a GPU: two devices with made-up readings."""

    NVML_TEMPERATURE_GPU = 0

    def __init__(self):
        self.has_library = True
        self.inits = 0
        self.is_open = False
        self.broken = set()
        self.shares = {0: [(11, 30, 1_000), (12, 5, 1_000)], 1: [(11, 50, 2_000)]}
        self.since = []

    def __getattribute__(self, name):
        if name.startswith("nvml") and name in object.__getattribute__(self, "broken"):
            return object.__getattribute__(self, "fail")
        return object.__getattribute__(self, name)

    def fail(self, *_):
        raise NotFoundError("not supported")

    def nvmlInit(self):
        self.inits += 1
        if not self.has_library:
            raise NotFoundError("NVML Shared Library Not Found")
        self.is_open = True

    def nvmlShutdown(self):
        self.is_open = False

    def nvmlDeviceGetCount(self):
        return 2

    def nvmlDeviceGetHandleByIndex(self, number):
        return number

    def nvmlDeviceGetUtilizationRates(self, device):
        return SimpleNamespace(gpu=(80, 20)[device], memory=10)

    def nvmlDeviceGetMemoryInfo(self, device):
        return SimpleNamespace(used=(3, 1)[device] * MB, total=8 * MB)

    def nvmlDeviceGetTemperature(self, device, sensor):
        return (61, 40)[device]

    def nvmlDeviceGetPowerUsage(self, device):
        return (120_440, 30_000)[device]

    def nvmlDeviceGetComputeRunningProcesses(self, device):
        found = {0: [(11, 2 * MB), (12, None)], 1: [(11, MB)]}[device]
        return [SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in found]

    def nvmlDeviceGetGraphicsRunningProcesses(self, device):
        found = {0: [(11, 2 * MB), (13, MB)], 1: []}[device]
        return [SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in found]

    def nvmlDeviceGetProcessUtilization(self, device, since):
        self.since.append(since)
        found = [sample for sample in self.shares[device] if sample[2] > since]
        if not found:
            raise NotFoundError("no sample")
        return [SimpleNamespace(pid=pid, smUtil=share, timeStamp=at) for pid, share, at in found]


@pytest.fixture
def nvml():
    """Two GPUs that are made up."""
    return FakeNvml()


@pytest.fixture
def clock():
    """A monotonic clock that is set by hand."""
    return ManualClock(0.0)


def test_the_host_has_sums_and_a_value_for_each_device(nvml, clock):
    """Percents and bytes of all GPUs together; lists by device."""
    assert GpuSampler(nvml, clock).sample() == {
        "gpu_percent": 50.0,
        "gpu_percents": [80.0, 20.0],
        "gpu_memory_used_bytes": 4 * MB,
        "gpu_memory_total_bytes": 16 * MB,
        "gpu_temperatures_c": [61, 40],
        "gpu_powers_w": [120.4, 30.0],
    }


def test_processes_have_what_they_use_on_all_devices(nvml, clock):
    """Shares and memory add up over devices; who computes and draws on one is counted once."""
    assert GpuSampler(nvml, clock).processes() == {
        11: GpuUse(80.0, 3 * MB),
        12: GpuUse(5.0, 0),
        13: GpuUse(0.0, MB),
    }


def test_shares_are_those_since_the_last_call(nvml, clock):
    """NVML is told what was seen already; of many samples of a process the newest counts."""
    sampler = GpuSampler(nvml, clock)
    sampler.processes()
    nvml.shares = {0: [(12, 70, 3_000), (12, 20, 4_000)], 1: []}
    assert sampler.processes()[12].percent == 20.0
    assert nvml.since == [0, 0, 1_000, 2_000]


def test_a_machine_without_a_gpu_is_asked_once(nvml, clock):
    """No library: no values, no failure, and no further try for ten minutes."""
    nvml.has_library = False
    sampler = GpuSampler(nvml, clock)
    assert (sampler.sample(), sampler.processes(), sampler.sample()) == ({}, None, {})
    assert nvml.inits == 1
    nvml.has_library = True
    clock.advance(ASK_AGAIN_S)
    assert sampler.sample()["gpu_percent"] == 50.0
    assert nvml.inits == 2


def test_the_real_library_is_asked_when_none_is_given(clock):
    """On a machine without a driver the real `pynvml` says so, and that is no failure."""
    values = GpuSampler(clock=clock).sample()
    assert set(values) <= {
        "gpu_percent",
        "gpu_percents",
        "gpu_memory_used_bytes",
        "gpu_memory_total_bytes",
        "gpu_temperatures_c",
        "gpu_powers_w",
    }


@pytest.mark.parametrize(
    ("broken", "missing"),
    [
        ("nvmlDeviceGetUtilizationRates", {"gpu_percent", "gpu_percents"}),
        ("nvmlDeviceGetMemoryInfo", {"gpu_memory_used_bytes", "gpu_memory_total_bytes"}),
        ("nvmlDeviceGetTemperature", {"gpu_temperatures_c"}),
        ("nvmlDeviceGetPowerUsage", {"gpu_powers_w"}),
    ],
)
def test_what_a_device_does_not_tell_is_left_out(nvml, clock, broken, missing):
    """Consumer cards tell less; the rest is told."""
    whole = set(GpuSampler(FakeNvml(), clock).sample())
    sampler = GpuSampler(nvml, clock)
    sampler.processes()
    nvml.broken = {broken}
    assert set(sampler.sample()) == whole - missing


def test_a_driver_that_goes_away_is_let_go(nvml, clock):
    """When no device answers any more, NVML is closed, and asked anew later."""
    sampler = GpuSampler(nvml, clock)
    sampler.sample()
    nvml.broken = {name for name in dir(FakeNvml) if name.startswith("nvmlDeviceGet")}
    assert sampler.sample() == {}
    assert not nvml.is_open
    nvml.broken = set()
    clock.advance(ASK_AGAIN_S)
    assert sampler.sample()["gpu_percent"] == 50.0
