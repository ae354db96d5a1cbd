"""Lines of a log by number: windows joined are the whole, with the colours that were set before them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from koubou_panel.views import lines
from koubou_panel.views.ansi import LineReader, style_after
from koubou_panel.views.lines import LINE_BYTES, Cutter, LineIndex, lines_with

PIECES = st.one_of(
    st.sampled_from(
        [
            *(
                b"\n",
                b"\r\n",
                b"\r",
                b"\b",
                b"word ",
                "h\u00e9llo \u5de5\u623f \U0001f600 ".encode(),
                b"\xff\xc3",
            ),
            *(
                b"\x1b[31m",
                b"\x1b[0m",
                b"\x1b[m",
                b"\x1b[1;4m",
                b"\x1b[38;5;208m",
                b"\x1b[39m",
                b"\x1b[22m",
                b"\x1b",
            ),
            *(b"\x1b[K", b"\x1b[2K", b"\x1b]0;title\x07", b"\x1b[?25l", b"\x1b[7;m", b"x" * 700),
        ]
    ),
    st.binary(max_size=6),
)
LOGS = st.lists(PIECES, max_size=60).map(b"".join)


def index_of(data: bytes, piece: int) -> LineIndex:
    """An index that was fed in pieces."""
    index = LineIndex()
    for at in range(0, len(data), piece):
        index.feed(data[at : at + piece])
    return index


def cut(data: bytes, index: LineIndex, first: int, count: int, piece: int = 1 << 20) -> Cutter:
    """Lines as a viewer reads them."""
    cutter = Cutter(index.before(line=first), first=first, count=count, most_bytes=1 << 30)
    while not cutter.is_full and cutter.end < len(data):
        cutter.feed(data[cutter.end : cutter.end + piece])
    cutter.finish()
    return cutter


@settings(deadline=None)
@given(LOGS, st.integers(1, 50), st.integers(1, 7), st.integers(1, 40))
def test_windows_joined_are_the_whole(data: bytes, piece: int, count: int, step: int) -> None:
    """Whatever is printed, and however it is read, windows of any size hold together what one that has all holds."""
    before = lines.STEP_BYTES, lines.LINE_BYTES
    lines.STEP_BYTES, lines.LINE_BYTES = step, 512
    try:
        index = index_of(data, piece)
        whole = cut(data, LineIndex(), 0, 1 << 30)
        assert len(whole.lines) == index.count
        joined = [
            shown
            for first in range(0, index.count, count)
            for shown in cut(data, index, first, count, piece).lines
        ]
        assert joined == whole.lines
        for number, shown in enumerate(whole.lines):
            mark = index.before(offset=shown.offset)
            found = Cutter(mark, first=None, offset=shown.offset, count=1, most_bytes=1 << 30)
            found.feed(data[mark.offset :])
            found.finish()
            assert (found.first, found.lines) == (number, [shown])
    finally:
        lines.STEP_BYTES, lines.LINE_BYTES = before


@given(LOGS)
def test_a_style_is_found_without_reading_the_text(data: bytes) -> None:
    """The style that some output leaves is the one that reading it as a terminal does would leave."""
    reader = LineReader()
    reader.feed(data.decode("utf-8", "replace") + "\n")
    assert style_after("", data) == reader.style


def test_colours_go_on_over_the_border_of_a_window() -> None:
    """A line far behind the one that set its colour has it."""
    data = b"\x1b[31mred\n" + b"still red\n" * 50_000 + b"\x1b[0mplain\n"
    index = index_of(data, 10_000)
    assert cut(data, index, 49_999, 2).lines[0].runs == [("f1", "still red")]
    assert cut(data, index, 50_001, 2).lines[0].runs == [("", "plain")]


def test_what_was_drawn_over_is_passed_over() -> None:
    """A progress bar that was drawn a hundred thousand times is one line, and a long line is cut between characters."""
    bar = b"".join(b"\r%6d/100000 working on it" % n for n in range(100_000)) + b" done\nnext\n"
    index = index_of(bar, 65_536)
    assert [runs for _, runs in cut(bar, index, 0, 9).lines] == [
        [("", " 99999/100000 working on it done")],
        [("", "next")],
    ]
    long = "\u5de5".encode() * LINE_BYTES
    index = index_of(long, 1_000)
    shown = cut(long, index, 0, 9).lines
    assert len(shown) == index.count == 4
    assert "".join(text for _, runs in shown for _, text in runs) == "\u5de5" * LINE_BYTES


def test_the_index_stays_small() -> None:
    """A log of 600 MB has no more marks than one of 256 MB, and any of its lines is a few marks away."""
    index = LineIndex()
    piece = b"x" * 99 + b"\n"
    for _ in range(2_400):
        index.feed(piece * 2_500)
    assert index.lines == 6_000_000
    assert len(index.marks) <= lines.MOST_MARKS
    mark = index.before(line=5_000_000)
    assert 0 <= 5_000_000 - mark.line < 10_000
    assert mark.offset == mark.line * 100


def test_lines_are_found_as_they_are_seen() -> None:
    """Colours within a word do not hide it, what was drawn over does not count, and case does not matter."""
    data = b"one\n\x1b[31mTW\x1b[0mO\nthree two\rfour five\n\xe5\xb7\xa5\xe6\x88\xbf Two\n"
    assert [place for place, _ in lines_with(data, "two")] == [1, 3]
    assert [place for place, _ in lines_with(data, "\u5de5")] == [3]
    assert list(lines_with(data, "none")) == []
