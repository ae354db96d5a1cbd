"""A long time as few samples."""

from hypothesis import given
from hypothesis import strategies as st

from koubou_panel.core.bins import binned
from koubou_panel.core.records import Metrics


def test_a_span_is_its_mean_and_its_peak() -> None:
    """Numbers and lists are means; of a percent and a rate the peak is kept too."""
    samples = [
        Metrics(60.0, {"cpu_percent": 10.0, "load_1m": 1.0, "cpu_percents": [0.0, 20.0]}),
        Metrics(61.0, {"cpu_percent": 90.0, "load_1m": 2.0, "cpu_percents": [40.0, 20.0]}),
        Metrics(120.0, {"net_sent_bytes_per_s": 7}),
    ]
    assert list(binned(samples, 60.0)) == [
        Metrics(
            90.0, {"cpu_percent": 50.0, "cpu_percent_max": 90.0, "load_1m": 1.5, "cpu_percents": [20.0, 20.0]}
        ),
        Metrics(150.0, {"net_sent_bytes_per_s": 7.0, "net_sent_bytes_per_s_max": 7}),
    ]


def test_what_has_no_mean_is_left_out() -> None:
    """Lists of two lengths (a core was switched off), words and truths make no number."""
    samples = [
        Metrics(1.0, {"cpu_percents": [1.0], "x": "y", "z": True}),
        Metrics(2.0, {"cpu_percents": [1.0, 2.0]}),
    ]
    assert list(binned(samples, 10.0)) == [Metrics(5.0, {})]


@given(
    st.lists(st.floats(0, 100), max_size=60),
    st.lists(st.floats(0, 100_000), max_size=60),
    st.floats(0.5, 3_600),
)
def test_spans_are_in_order_and_within_what_was_measured(
    values: list[float], moments: list[float], step_s: float
) -> None:
    """Each span comes once, in the order of time, and its mean lies between the least and the most."""
    samples = [
        Metrics(at, {"cpu_percent": value}) for at, value in zip(sorted(moments), values, strict=False)
    ]
    found = list(binned(samples, step_s))
    assert [sample.at for sample in found] == sorted({sample.at for sample in found})
    for sample in found:
        assert min(values) - 0.01 <= sample.values["cpu_percent"] <= max(values) + 0.01
        assert sample.values["cpu_percent"] <= sample.values["cpu_percent_max"] + 0.01
