"""Output becomes the lines that a terminal would show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koubou_panel.views.ansi import LineReader


def text_of(runs: list[tuple[str, str]]) -> str:
    """A line's text without its styles."""
    return "".join(text for _, text in runs)


def read(*pieces: str) -> tuple[list[str], str]:
    """The finished lines and the open one after these pieces."""
    reader = LineReader()
    lines = [text_of(runs) for piece in pieces for runs in reader.feed(piece)]
    return lines, text_of(reader.open_line)


@pytest.mark.parametrize(
    ("pieces", "lines", "open_line"),
    [
        (["a\nb"], ["a"], "b"),
        (["a\r\nb\r\r\n"], ["a", "b"], ""),
        (["10%\r20%\r30%"], [], "30%"),
        (["longer\rshort"], [], "shortr"),
        (["longer\r\x1b[Kshort"], [], "short"),
        (["longer\x1b[2K\rshort"], [], "short"),
        (["ab\x08c"], [], "ac"),
        (["a\r", "\nb"], ["a"], "b"),
        (["\x1b[3", "1mred\x1b[0m"], [], "red"),
        (["\x1b]0;title\x07shown"], [], "shown"),
        (["\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\"], [], "link"),
        (["\x1b[10;5Hx\x1b[?25l"], [], "x"),
        (["a\x00\x07b"], [], "ab"),
        (["工房\r工"], [], "工房"),
    ],
)
def test_lines(pieces: list[str], lines: list[str], open_line: str) -> None:
    """Line ends, returns, erasing and control sequences do what they do in a terminal."""
    assert read(*pieces) == (lines, open_line)


def test_colours_become_classes() -> None:
    """A colour and a weight last until they are taken back, over line ends too."""
    reader = LineReader()
    (first,) = reader.feed("\x1b[1;31merror\x1b[22m: no\n")
    assert first == [("f1 b", "error"), ("f1", ": no")]
    (second,) = reader.feed("still\x1b[39m not\n")
    assert second == [("f1", "still"), ("", " not")]


@pytest.mark.parametrize(
    ("codes", "style"),
    [
        ("92", "f10"),
        ("38;5;9", "f9"),
        ("38;5;196", "f9"),
        ("38;5;240", "f8"),
        ("38;2;0;200;0", "f2"),
        ("38;2;255;255;255", "f7"),
        ("48;5;1", ""),
        ("38", ""),
        ("1;;4", "u"),
    ],
)
def test_more_colours_become_the_nearest_of_sixteen(codes: str, style: str) -> None:
    """256 and 24-bit colours are shown by the nearest of the palette's sixteen; backgrounds are dropped."""
    reader = LineReader()
    reader.feed(f"\x1b[{codes}mx")
    assert reader.open_line == [(style, "x")]


def test_a_line_has_an_end() -> None:
    """A line of a hundred megabytes is held to a width."""
    reader = LineReader()
    for _ in range(10):
        reader.feed("x" * 10_000)
    assert len(text_of(reader.open_line)) <= 2_000


@given(st.lists(st.text(alphabet="ab\r\n\x08\x1b[0;31mK]\x07工", max_size=12), max_size=8))
def test_cutting_does_not_matter(pieces: list[str]) -> None:
    """However output is cut into pieces, the lines are the same."""
    whole = read("".join(pieces) + "\n.")
    assert read(*pieces, "\n.") == whole


def test_a_long_line_goes_on_in_the_next() -> None:
    """Nothing of a line is lost, however long it is, and no word of it is parted."""
    lines, left = read("word " * 300, "word " * 300 + "end")
    assert "".join([*lines, left]) == "word " * 600 + "end"
    assert lines[0].endswith("word ")
