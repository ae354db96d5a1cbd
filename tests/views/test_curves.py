"""The curves of one run: one source, one stream a tick, from its history on."""

from math import isnan

from bokeh.document import Document

from koubou_panel.core.curve import Curve
from koubou_panel.core.records import Use
from koubou_panel.views.curves import LEAST_SPAN_S, MOST_STREAMED, PANELS, TaskCurves

START = 1_700_000_000.0


def use(n: int, **fields: object) -> Use:
    """What a run uses in its nth second: it writes 100 bytes a second."""
    return Use(
        **({"cpu_percent": 50.0, "rss_bytes": 1_000 * n, "cpu_s": n / 2, "written_bytes": 100 * n} | fields)
    )


def test_history_then_live() -> None:
    """What was measured before is shown first; of what comes later only what is new, as speeds and run seconds."""
    history = Curve()
    for n in range(1, 5):
        history.add(START + n, use(n))
    curves = TaskCurves(START)
    curves.reset(history.points())
    curves.extend([(START + n, use(n)) for n in range(3, 8)])
    data = curves.source.data
    assert list(data["at"]) == [1, 2, 3, 4, 5, 6, 7]
    assert list(data["rss"]) == [1_000 * n for n in range(1, 8)]
    assert isnan(data["written"][0])
    assert list(data["written"][1:]) == [100] * 6
    assert {len(column) for column in data.values()} == {7}


def test_one_stream_a_tick() -> None:
    """All figures read one source, and however many samples came they are one event."""
    curves = TaskCurves(START)
    document = Document()
    for name in PANELS:
        document.add_root(curves.figure(name))
    events: list[object] = []
    document.on_change(events.append)
    curves.extend([(START + n, use(n)) for n in range(1, 6)])
    assert [type(event).__name__ for event in events] == ["ColumnsStreamedEvent"]
    assert {line.data_source for fig in curves.figures.values() for line in fig.renderers} == {curves.source}


def test_an_empty_history_is_no_history() -> None:
    """Where nothing was measured the curves are empty, and begin with the first sample."""
    curves = TaskCurves(START)
    curves.reset({})
    curves.extend([])
    assert curves.is_empty
    curves.extend([(START + 1, use(1))])
    assert not curves.is_empty
    assert list(curves.source.data["cpu"]) == [50.0]


def test_a_gpu_is_told_of_where_there_is_one() -> None:
    """Only a run that used a GPU has its curve."""
    curves = TaskCurves(START)
    curves.extend([(START + 1, use(1))])
    assert not curves.has_gpu
    curves.extend([(START + 2, use(2, gpu_percent=80.0, gpu_memory_bytes=5))])
    assert curves.has_gpu
    assert curves.source.data["gpu"][-1] == 80.0


def test_long_watching_asks_for_the_whole_anew() -> None:
    """After ten minutes of live samples the history is to be read again, in fewer points."""
    curves = TaskCurves(START)
    curves.extend([(START + n, use(n)) for n in range(1, MOST_STREAMED + 2)])
    assert curves.is_full
    curves.reset({})
    assert not curves.is_full


def test_the_axis_begins_with_the_run() -> None:
    """The time axis goes from the run's start to now, and is never too short to be read."""
    curves = TaskCurves(START)
    curves.show_until(START + 2)
    assert (curves.range.start, curves.range.end) == (0, LEAST_SPAN_S)
    curves.show_until(START + 120)
    assert curves.range.end == 120
