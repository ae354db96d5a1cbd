"""Text from people and programs is made fit for a page."""

import pytest

from koubou_panel.views.escape import block, line, markup, middle_cut

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "'-alert(1)-'",
    "</title><svg/onload=alert(1)>",
    "&lt;script&gt;",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_markup_leaves_nothing_that_runs(text: str) -> None:
    """Whatever is typed, no tag, quote or bare ampersand of it is left as markup."""
    shown = markup(text)
    assert not set("<>\"'") & set(shown)
    assert "&" not in shown.replace("&lt;", "").replace("&gt;", "").replace("&amp;", "").replace(
        "&quot;", ""
    ).replace("&#x27;", "")


def test_line_is_one_line() -> None:
    """Line ends, control characters and what turns the writing round become one space."""
    assert line("a\r\nb\x1b[31m\u202ec\u200b\ud800") == "a b [31m c"


def test_a_long_line_is_cut_in_the_middle() -> None:
    """Of a long name the beginning and the end are kept, in exactly the room there is."""
    shown = line("x" * 50 + "end.py", 21)
    assert len(shown) == 21
    assert shown.startswith("xxx")
    assert shown.endswith("end.py")
    assert "…" in shown


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
def test_cutting_keeps_to_its_limit(limit: int) -> None:
    """Even the smallest room is kept to."""
    assert len(middle_cut("abcdefghijkl", limit)) == limit


def test_block_keeps_lines_and_the_end() -> None:
    """Output keeps its line ends and tabs; of too much the end is shown."""
    assert block("a\n\tb\x00\x07") == "a\n\tb"
    assert block("x" * 10 + "end", 5) == "…xend"
