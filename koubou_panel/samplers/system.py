"""The host: processor, memory, disk, network, load."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import psutil

from koubou_panel.core.ports import Sampler

T = TypeVar("T")

_LOOPBACK = re.compile(r"lo\d*")
_DECIMALS = 1


class _Core(NamedTuple):
    """Seconds that one core has worked, and has had, since it was started."""

    busy_s: float
    total_s: float


class _Counters(NamedTuple):
    """What only ever grows, as it stood at the second `at` of a monotonic clock."""

    at: float
    cores: list[_Core]
    bytes_by_name: dict[str, int]


class SystemSampler(Sampler):
    """Samples of the host. One thread at a time, not always the same one.

    What cannot be measured here is left out. Rates and processor shares are means since the call before (the first
    time since the sampler was made); they are counted here because psutil's own memory is one per thread.

    Args:
        folder: a folder in the file system whose use is told.
        clock: seconds of a monotonic clock.

    """

    name = "system"
    every_s = 1.0

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Remember where the counters stand."""
        self._folder = folder
        self._clock = clock
        self._before = self._counters()

    def sample(self) -> dict[str, object]:
        """Values by metric name, the unit in the name; numbers or lists of numbers."""
        before, now = self._before, self._counters()
        self._before = now
        values: dict[str, object] = {}
        for measure in (_memory, _swap, self._disk, _load, _process_count):
            values |= _or_none(measure) or {}
        return values | _cpu(before.cores, now.cores) | _rates(before, now)

    def _counters(self) -> _Counters:
        counts = (_or_none(_disk_bytes) or {}) | (_or_none(_network_bytes) or {})
        return _Counters(self._clock(), _or_none(_cores) or [], counts)

    def _disk(self) -> dict[str, object]:
        disk = psutil.disk_usage(str(self._folder))
        return {
            "disk_percent": disk.percent,
            "disk_free_bytes": disk.free,
            "disk_total_bytes": disk.total,
        }


def _or_none(measure: Callable[[], T]) -> T | None:
    try:
        return measure()
    except Exception:  # noqa: BLE001 - whatever this machine does not tell, the rest is told
        return None


def _memory() -> dict[str, object]:
    memory = psutil.virtual_memory()
    return {
        "memory_percent": memory.percent,
        "memory_used_bytes": memory.used,
        "memory_total_bytes": memory.total,
        "memory_available_bytes": memory.available,
    }


def _swap() -> dict[str, object]:
    swap = psutil.swap_memory()
    return {"swap_percent": swap.percent, "swap_used_bytes": swap.used, "swap_total_bytes": swap.total}


def _load() -> dict[str, object]:
    return {"load_1m": round(os.getloadavg()[0], 2)}


def _process_count() -> dict[str, object]:
    return {"process_count": len(psutil.pids())}


def _cores() -> list[_Core]:
    cores = []
    for times in psutil.cpu_times(percpu=True):
        spent = times._asdict()
        # Linux counts a guest's time in `user` already
        total_s = sum(spent.values()) - spent.get("guest", 0.0) - spent.get("guest_nice", 0.0)
        cores.append(_Core(total_s - spent["idle"] - spent.get("iowait", 0.0), total_s))
    return cores


def _disk_bytes() -> dict[str, int]:
    disks = psutil.disk_io_counters(nowrap=False)
    return {} if disks is None else {"disk_read": disks.read_bytes, "disk_write": disks.write_bytes}


def _network_bytes() -> dict[str, int]:
    """Without loopback, where the workshop talks to itself."""
    cards = psutil.net_io_counters(pernic=True, nowrap=False)
    real = [counters for name, counters in cards.items() if _LOOPBACK.fullmatch(name) is None]
    return {
        "net_sent": sum(counters.bytes_sent for counters in real),
        "net_received": sum(counters.bytes_recv for counters in real),
    }


def _cpu(before: list[_Core], now: list[_Core]) -> dict[str, object]:
    if not now:
        return {}
    if len(before) != len(now):  # a core was switched on or off
        before = now
    return {
        "cpu_percent": _busy_percent(_sum(before), _sum(now)),
        "cpu_percents": [_busy_percent(*pair) for pair in zip(before, now, strict=True)],
    }


def _sum(cores: list[_Core]) -> _Core:
    return _Core(sum(core.busy_s for core in cores), sum(core.total_s for core in cores))


def _busy_percent(before: _Core, now: _Core) -> float:
    total_s = now.total_s - before.total_s
    if total_s <= 0:
        return 0.0
    return round(min(100.0, max(0.0, 100.0 * (now.busy_s - before.busy_s) / total_s)), _DECIMALS)


def _rates(before: _Counters, now: _Counters) -> dict[str, object]:
    """Bytes per second by name; 0 for a counter that was reset, or was not there before."""
    elapsed_s = now.at - before.at
    rates: dict[str, object] = {}
    for name, count in now.bytes_by_name.items():
        grown = count - before.bytes_by_name.get(name, count)
        rates[f"{name}_bytes_per_s"] = round(max(0, grown) / elapsed_s, _DECIMALS) if elapsed_s > 0 else 0.0
    return rates
