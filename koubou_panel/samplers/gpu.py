"""NVIDIA's GPUs, by NVML: how busy and full they are, and what single processes use of them.

NVML is asked through `nvidia-ml-py` (`pynvml`), which finds the driver's own library. A machine without one is asked
again only every ten minutes: somebody may have installed it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

from koubou_panel.core.ports import Sampler

ASK_AGAIN_S = 600.0
_DECIMALS = 1

T = TypeVar("T")


class GpuUse(NamedTuple):
    """What a process uses: percent of one GPU, bytes of GPU memory."""

    percent: float
    memory_bytes: int


class GpuSampler(Sampler):
    """Samples of all GPUs. One thread at a time.

    What a device does not tell is left out; a whole machine without GPUs gives nothing.

    Args:
        nvml: the module `pynvml`, or what stands in for it; imported when first needed if None.
        clock: seconds of a monotonic clock.

    """

    name = "gpu"
    every_s = 2.0

    def __init__(self, nvml: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is asked before the first sample."""
        self._nvml = nvml
        self._clock = clock
        self._devices: list[Any] = []
        self._ask_at: float | None = None
        self._seen_until: dict[int, int] = {}

    def sample(self) -> dict[str, object]:
        """Values by metric name: percents and bytes of all GPUs together, and lists with a value for each."""
        if not self._is_open():
            return {}
        nvml = self._nvml
        busy = self._of_each(lambda device: float(nvml.nvmlDeviceGetUtilizationRates(device).gpu))
        memory = self._of_each(nvml.nvmlDeviceGetMemoryInfo)
        heat = self._of_each(lambda d: int(nvml.nvmlDeviceGetTemperature(d, nvml.NVML_TEMPERATURE_GPU)))
        power = self._of_each(lambda d: round(nvml.nvmlDeviceGetPowerUsage(d) / 1000, _DECIMALS))
        values: dict[str, object] = {}
        if busy:
            values |= {"gpu_percent": round(sum(busy) / len(busy), _DECIMALS), "gpu_percents": busy}
        if memory:
            values["gpu_memory_used_bytes"] = sum(int(told.used) for told in memory)
            values["gpu_memory_total_bytes"] = sum(int(told.total) for told in memory)
        if heat:
            values["gpu_temperatures_c"] = heat
        if power:
            values["gpu_powers_w"] = power
        if not values:  # the driver was unloaded or updated below us
            self._close()
        return values

    def processes(self) -> dict[int, GpuUse] | None:
        """What each process uses, by pid as this machine's driver counts them; None where there is no GPU."""
        if not self._is_open():
            return None
        uses: dict[int, GpuUse] = {}
        for number, device in enumerate(self._devices):
            shares = self._shares(number, device)
            memory = self._memory(device)
            for pid in shares.keys() | memory.keys():
                percent, held = uses.get(pid, (0.0, 0))
                uses[pid] = GpuUse(percent + shares.get(pid, 0.0), held + memory.get(pid, 0))
        return uses

    # -- what NVML tells --------------------------------------------------------------------------------------

    def _is_open(self) -> bool:
        """Whether there is a GPU to ask; a machine without is not asked each time."""
        if self._devices:
            return True
        now = self._clock()
        if self._ask_at is not None and now < self._ask_at:
            return False
        self._ask_at = now + ASK_AGAIN_S
        try:
            self._nvml = self._nvml or import_module("pynvml")
            self._nvml.nvmlInit()
            count = self._nvml.nvmlDeviceGetCount()
            self._devices = [self._nvml.nvmlDeviceGetHandleByIndex(number) for number in range(count)]
        except Exception:  # noqa: BLE001 - no library, no driver, no permission: there is no GPU for us
            self._devices = []
        return bool(self._devices)

    def _close(self) -> None:
        self._devices = []
        self._seen_until.clear()
        _or_none(self._nvml.nvmlShutdown)

    def _of_each(self, ask: Callable[[Any], T]) -> list[T]:
        """What each device that answers tells."""
        answers = (_or_none(lambda device=device: ask(device)) for device in self._devices)  # type: ignore[misc]
        return [answer for answer in answers if answer is not None]

    def _memory(self, device: Any) -> dict[int, int]:
        nvml = self._nvml
        held: dict[int, int] = {}
        for ask in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
            told: Iterable[Any] = _or_none(lambda ask=ask: ask(device)) or ()  # type: ignore[misc]
            for process in told:
                # One that computes and draws is told twice, each time with all that it holds.
                held[process.pid] = max(held.get(process.pid, 0), int(process.usedGpuMemory or 0))
        return held

    def _shares(self, number: int, device: Any) -> dict[int, float]:
        """Percent of the device by process, of the last moment that is told since the call before."""
        since = self._seen_until.get(number, 0)
        told = _or_none(lambda: self._nvml.nvmlDeviceGetProcessUtilization(device, since)) or ()
        samples = sorted((sample.timeStamp, sample.pid, sample.smUtil) for sample in told)
        if samples:
            self._seen_until[number] = samples[-1][0]
        return {pid: float(percent) for _, pid, percent in samples}


def _or_none(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except Exception:  # noqa: BLE001 - a device that does not tell one thing may tell another
        return None
