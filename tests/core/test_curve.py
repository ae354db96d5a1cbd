"""The curve of a run: bounded, in order, and true where it matters: peaks, totals, means."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koubou_panel.core.curve import COLUMNS, MOST_POINTS, Curve, decode_curve, encode_curve
from koubou_panel.core.records import Use

sizes = st.integers(0, 2**50)
percents = st.floats(0, 6_400)
uses = st.builds(
    Use,
    cpu_percent=percents,
    rss_bytes=sizes,
    cpu_s=st.floats(0, 1e9),
    read_bytes=sizes,
    written_bytes=sizes,
    threads=st.integers(0, 10_000),
    processes=st.integers(0, 10_000),
    gpu_percent=st.none() | percents,
    gpu_memory_bytes=st.none() | sizes,
)
samples = st.lists(st.tuples(st.floats(0, 1e10), uses), min_size=1, max_size=30)


def curve_of(found):
    """A curve with these samples."""
    curve = Curve()
    for at, use in found:
        curve.add(at, use)
    return curve


def repeated(found, times):
    """Many samples from a few: what hypothesis draws would not fill a curve."""
    return [(index * 10.0, use) for index, (_, use) in enumerate(found * times)]


@given(samples, st.integers(1, 120))
def test_columns_are_of_one_bounded_length(found, times):
    """However long a run is, there are at most MOST_POINTS points; once full, half of that or more."""
    many = repeated(found, times)
    curve = curve_of(many)
    lengths = {len(column) for column in curve.points().values()}
    assert lengths == {len(curve)}
    assert min(len(many), MOST_POINTS // 2) <= len(curve) <= MOST_POINTS


@given(samples)
def test_times_are_in_order(found):
    """A clock that is set back makes no time run back."""
    times = curve_of(found).points()["at"]
    assert times == sorted(times)


@given(samples, st.integers(1, 120))
def test_peaks_stay_and_totals_end_as_they_stood(found, times):
    """Merging loses no peak, and neither the last total nor the last moment."""
    many = repeated(found, times)
    points = curve_of(many).points()
    for name in ("rss_bytes", "threads", "processes"):
        assert max(points[name]) == max(getattr(use, name) for _, use in many)
    told = [use.gpu_memory_bytes for _, use in many if use.gpu_memory_bytes is not None]
    assert max((value for value in points["gpu_memory_bytes"] if value is not None), default=None) == max(
        told, default=None
    )
    for name in ("cpu_s", "read_bytes", "written_bytes"):
        assert points[name][-1] == getattr(many[-1][1], name)
    assert points["at"][-1] == many[-1][0]


@given(samples, st.integers(1, 120))
def test_the_mean_share_stays(found, times):
    """A merged point has the mean of its samples: weighed by how many they are, the whole mean is unchanged."""
    many = repeated(found, times)
    curve = curve_of(many)
    weights = [curve.step] * (len(curve) - 1) + [curve.held]
    mean = sum(w * p for w, p in zip(weights, curve.cpu_percent, strict=True)) / len(many)
    assert sum(weights) == len(many)
    assert mean == pytest.approx(sum(use.cpu_percent for _, use in many) / len(many), abs=1e-6)


@given(samples, st.integers(1, 120))
def test_bytes_give_the_curve_back(found, times):
    """What is decoded is what was encoded, and goes on as the other would."""
    curve = curve_of(repeated(found, times))
    again = decode_curve(encode_curve(curve))
    assert again == curve == curve.copy()
    at, use = found[0]
    again.add(at, use)
    copied = curve.copy()
    copied.add(at, use)
    assert again == copied != curve


def test_every_field_of_a_use_is_a_column():
    """A new field of `Use` without a column of its own would be lost."""
    assert ("step", "held", "at", *COLUMNS) == Curve.__struct_fields__


def test_damaged_bytes_are_refused():
    """No half curve comes of a blob that is none."""
    with pytest.raises(msgspec.DecodeError):
        decode_curve(b"\xc1")
