"""Numbers in the units that people use."""

import pytest

from koubou_panel.views.words import count, duration, listed, rate, size


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0 ms"),
        (0.012, "12 ms"),
        (0.34, "0.3 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (187, "3:07"),
        (7_387, "2:03:07"),
        (273_600, "3 d 4 h"),
    ],
)
def test_duration(seconds: float, shown: str) -> None:
    """A duration is shown in the unit that fits it."""
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 B"), (812, "812 B"), (1_500, "1.5 KB"), (4_404_019, "4.2 MB"), (210 * 1024**2, "210 MB")],
)
def test_size(number: int, shown: str) -> None:
    """A size is shown in the unit that fits it."""
    assert size(number) == shown


@pytest.mark.parametrize(
    ("number", "shown"), [(7, "7"), (1_204, "1,204"), (62_100, "62.1k"), (3_400_000, "3.4M")]
)
def test_count(number: int, shown: str) -> None:
    """A count is shown in full as long as it is short."""
    assert count(number) == shown


@pytest.mark.parametrize(("texts", "said"), [([], ""), (["{a}"], "{a}"), (["a", "{b}", "c"], "a, {b}, c")])
def test_texts_are_listed_as_they_are(texts: list[str], said: str) -> None:
    """They are set apart, and nothing in them is taken for a placeholder."""
    assert listed(texts) == said


@pytest.mark.parametrize(
    ("per_s", "unit", "said"),
    [
        (3.14, "", "3.1/s"),
        (12.6, "it", "13/s"),
        (0.5, "it", "30/min"),
        (0.01, "", "36/h"),
        (0.001, "", "3.6/h"),
        (4.2 * 1024**2, "B", "4.2 MB/s"),
    ],
)
def test_rates_are_per_what_can_be_imagined(per_s: float, unit: str, said: str) -> None:
    """A rate is told per second, per minute or per hour, so that its number is not below one if it can be helped."""
    assert rate(per_s, unit) == said
