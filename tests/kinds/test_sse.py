"""The events of a streamed answer."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koubou_panel.kinds.sse import NotAStream, documents, lines

STREAM = (
    'data: {"a": 1}\r\n\r\n: a comment\n\nevent: x\ndata:{"b":"\u2028é"}\n\ndata: [DONE]\n\ndata: {"c": 3}\n'
)


@given(st.lists(st.integers(0, len(STREAM.encode())), max_size=20))
def test_documents_do_not_depend_on_the_pieces(cuts) -> None:
    """However a stream is cut, the same documents come out, up to [DONE]."""
    data, places = STREAM.encode(), [0, *sorted(cuts), None]
    pieces = [data[one:other] for one, other in pairwise(places)]
    assert list(documents(pieces)) == [{"a": 1}, {"b": "\u2028é"}]


def test_last_line_needs_no_end() -> None:
    """What stands behind the last line end is a line too."""
    assert list(lines([b"a\nb", b"c"])) == [b"a", b"bc"]


def test_error_field_is_an_error() -> None:
    """An `error:` line is as good as an error in the data."""
    assert list(documents([b'error: {"message": "x"}\n'])) == [{"error": {"message": "x"}}]


def test_what_is_no_json_is_told() -> None:
    """Data that are no JSON object are quoted."""
    with pytest.raises(NotAStream, match="nonsense"):
        list(documents([b"data: nonsense\n"]))


def test_endless_line_is_given_up() -> None:
    """A stream without line ends does not fill the memory."""
    with pytest.raises(NotAStream, match="longer than"):
        list(lines(b"x" * (1 << 20) for _ in range(100)))
