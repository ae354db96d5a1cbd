"""The host's sample: every metric that the page shows, rates from a clock, and no failure for what is missing."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from koubou_panel.samplers.system import SystemSampler
from koubou_panel.testing import ManualClock

NAMES = {
    "cpu_percent",
    "cpu_percents",
    "memory_percent",
    "memory_used_bytes",
    "memory_total_bytes",
    "memory_available_bytes",
    "swap_percent",
    "swap_used_bytes",
    "swap_total_bytes",
    "disk_percent",
    "disk_free_bytes",
    "disk_total_bytes",
    "disk_read_bytes_per_s",
    "disk_write_bytes_per_s",
    "net_sent_bytes_per_s",
    "net_received_bytes_per_s",
    "load_1m",
    "process_count",
}


class Host:
    """A host whose counters are set by hand."""

    def __init__(self, monkeypatch):
        self.cores = [(0.0, 0.0)]
        self.disk = (0, 0)
        self.cards = {"eth0": (0, 0)}
        monkeypatch.setattr(psutil, "cpu_times", self._cpu_times)
        monkeypatch.setattr(psutil, "disk_io_counters", self._disk_counters)
        monkeypatch.setattr(psutil, "net_io_counters", self._net_counters)

    def _cpu_times(self, percpu):
        fields = ("user", "idle", "iowait", "guest")
        return [psutil_like(zip(fields, (busy, idle, 0.0, 0.0), strict=True)) for busy, idle in self.cores]

    def _disk_counters(self, nowrap):
        return SimpleNamespace(read_bytes=self.disk[0], write_bytes=self.disk[1])

    def _net_counters(self, pernic, nowrap):
        return {
            name: SimpleNamespace(bytes_sent=sent, bytes_recv=received)
            for name, (sent, received) in self.cards.items()
        }


def psutil_like(pairs):
    """Something that tells its fields as psutil's records do."""
    fields = dict(pairs)
    return SimpleNamespace(_asdict=lambda: fields)


@pytest.fixture
def clock():
    """A monotonic clock that is set by hand."""
    return ManualClock(50.0)


@pytest.fixture
def host(monkeypatch):
    """A made-up host."""
    return Host(monkeypatch)


def test_a_real_sample_has_every_metric(tmp_path):
    """On this machine nothing is missing, the first time too, and percents are percents."""
    sampler = SystemSampler(tmp_path)
    sampler.sample()
    values = sampler.sample()
    assert set(values) == NAMES
    assert len(values["cpu_percents"]) == psutil.cpu_count()
    percents = [value for name, value in values.items() if name.endswith("percent")]
    assert all(0 <= value <= 100 for value in [*percents, *values["cpu_percents"]])
    assert 0 < values["memory_used_bytes"] < values["memory_total_bytes"] == psutil.virtual_memory().total
    assert values["process_count"] > 0
    assert (sampler.name, sampler.every_s) == ("system", 1.0)


def test_processor_shares_are_means_since_the_last_call(host, tmp_path, clock):
    """Busy seconds against all seconds, for each core and for all."""
    host.cores = [(10.0, 90.0), (20.0, 80.0)]
    sampler = SystemSampler(tmp_path, clock)
    host.cores = [(11.0, 90.0), (20.25, 80.75)]
    values = sampler.sample()
    assert values["cpu_percents"] == [100.0, 25.0]
    assert values["cpu_percent"] == 62.5
    assert sampler.sample()["cpu_percent"] == 0.0


def test_shares_do_not_depend_on_the_calling_thread(host, tmp_path, clock):
    """The sampler remembers for itself: psutil's own memory is one per thread."""
    sampler = SystemSampler(tmp_path, clock)
    host.cores = [(1.0, 1.0)]
    other = SystemSampler(tmp_path, clock)
    assert sampler.sample()["cpu_percent"] == 50.0
    assert other.sample()["cpu_percent"] == 0.0


def test_a_change_in_the_number_of_cores_is_no_failure(host, tmp_path, clock):
    """The next sample starts anew."""
    sampler = SystemSampler(tmp_path, clock)
    host.cores = [(1.0, 1.0), (1.0, 1.0)]
    assert sampler.sample()["cpu_percents"] == [0.0, 0.0]


def test_rates_are_differences_over_the_clock(host, tmp_path, clock):
    """Bytes since the last call by the seconds between, loopback left out."""
    host.cards = {"lo": (10**9, 10**9), "eth0": (1_000, 2_000), "wlan0": (10, 20)}
    sampler = SystemSampler(tmp_path, clock)
    clock.advance(2.0)
    host.disk = (4_096, 1_024)
    host.cards = {"lo": (10**10, 10**10), "eth0": (3_000, 2_500), "wlan0": (10, 40)}
    values = sampler.sample()
    assert values["disk_read_bytes_per_s"] == 2_048.0
    assert values["disk_write_bytes_per_s"] == 512.0
    assert values["net_sent_bytes_per_s"] == 1_000.0
    assert values["net_received_bytes_per_s"] == 260.0


def test_a_counter_that_was_reset_gives_no_rate(host, tmp_path, clock):
    """A counter that went back says nothing about this second; the next one is right again."""
    host.disk = (10_000, 10_000)
    sampler = SystemSampler(tmp_path, clock)
    clock.advance(1.0)
    host.disk = (500, 12_000)
    values = sampler.sample()
    assert (values["disk_read_bytes_per_s"], values["disk_write_bytes_per_s"]) == (0.0, 2_000.0)
    clock.advance(1.0)
    host.disk = (700, 12_000)
    assert sampler.sample()["disk_read_bytes_per_s"] == 200.0


def test_two_calls_at_one_moment_give_no_rate(host, tmp_path, clock):
    """Nothing is divided by nothing."""
    sampler = SystemSampler(tmp_path, clock)
    host.disk = (500, 500)
    assert sampler.sample()["disk_read_bytes_per_s"] == 0.0


@pytest.mark.parametrize(
    ("function", "missing"),
    [
        ("psutil.cpu_times", {"cpu_percent", "cpu_percents"}),
        (
            "psutil.virtual_memory",
            {"memory_percent", "memory_used_bytes", "memory_total_bytes", "memory_available_bytes"},
        ),
        ("psutil.swap_memory", {"swap_percent", "swap_used_bytes", "swap_total_bytes"}),
        ("psutil.disk_usage", {"disk_percent", "disk_free_bytes", "disk_total_bytes"}),
        ("psutil.disk_io_counters", {"disk_read_bytes_per_s", "disk_write_bytes_per_s"}),
        ("psutil.net_io_counters", {"net_sent_bytes_per_s", "net_received_bytes_per_s"}),
        ("psutil.pids", {"process_count"}),
        ("os.getloadavg", {"load_1m"}),
    ],
)
@pytest.mark.parametrize(
    "error", [psutil.AccessDenied(1), OSError("no"), NotImplementedError(), RuntimeError("odd")]
)
def test_what_cannot_be_measured_is_left_out(monkeypatch, tmp_path, function, missing, error):
    """One failing source leaves out its own metrics and no other."""

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(function, fail)
    sampler = SystemSampler(tmp_path)
    assert set(sampler.sample()) == NAMES - missing


def test_a_host_without_disks_has_no_disk_rates(monkeypatch, tmp_path):
    """None is told where there is no counter at all."""
    monkeypatch.setattr(psutil, "disk_io_counters", lambda nowrap: None)
    assert "disk_read_bytes_per_s" not in SystemSampler(tmp_path).sample()


def test_a_source_that_comes_back_is_measured_again(host, monkeypatch, tmp_path, clock):
    """After a failure the first value is 0, not everything since the machine was started."""
    sampler = SystemSampler(tmp_path, clock)
    working = psutil.disk_io_counters
    monkeypatch.setattr(psutil, "disk_io_counters", lambda nowrap: None)
    sampler.sample()
    monkeypatch.setattr(psutil, "disk_io_counters", working)
    host.disk = (10**12, 10**12)
    clock.advance(1.0)
    assert sampler.sample()["disk_read_bytes_per_s"] == 0.0
