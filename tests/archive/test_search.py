"""Searching logs: lines as a person sees them, whatever was printed around them."""

from __future__ import annotations

import pytest

from koubou_panel.archive.output import OutputLog, held_bytes, read_output_bytes, remove_output
from koubou_panel.archive.search import CHUNK_BYTES, LINE_BYTES, REACH_BYTES, SHOWN_CHARS, around, search_log


def search(tmp_path, data, text, *, quota_bytes=1 << 24):
    """What is found in a log of these bytes."""
    path = tmp_path / "ab" / "x.log"
    log = OutputLog(path, quota_bytes)
    for at in range(0, len(data), 100_000):
        log.write(data[at : at + 100_000])
    log.close()
    return [found for found in search_log(path, text) if found is not None]


@pytest.mark.parametrize(
    ("data", "text", "found"),
    [
        (b"one\ntwo\nthree\n", "two", [(2, 4, "two")]),
        (b"one\nTWO\nthree", "two", [(2, 4, "TWO")]),
        (b"one\nno end two", "TWO", [(2, 4, "no end two")]),
        (b"a \x1b[31mre\x1b[0md word\n", "red word", [(1, 0, "a red word")]),
        (b"\x1b]0;title\x07said\n", "title", []),
        (b"\x1b]8;;http://x\x1b\\said\x1b]8;;\x1b\\\n", "said", [(1, 0, "said")]),
        (b"one\r\ntwo\r\n", "two", [(2, 5, "two")]),
        (b"10%\r50%\r100% done\nend\n", "50%", [(1, 4, "50%")]),
        ("größe ä\nx\n".encode(), "GRÖSSE", [(1, 0, "größe ä")]),
        (b"\xff\xfe bad bytes\n", "bad", [(1, 0, "\ufffd\ufffd bad bytes")]),
        (b"::koubou progress 1/2\n", "progress", []),
        (b"", "x", []),
        (b"\n\n\n", "x", []),
    ],
)
def test_lines_are_found_as_they_are_seen(tmp_path, data, text, found):
    """Without colours, in upper or lower case, each drawing of a line that was drawn again and again."""
    assert search(tmp_path, data, text) == found


@pytest.mark.parametrize("filler", ["words of a line", "\u00e9 \x1b[31mred\x1b[0m words"])
def test_each_matching_line_among_many_is_found_once(tmp_path, filler):
    """With its own number and place, in plain text, in other letters and in colours."""
    lines = [f"{filler} NEEDLE" * 2 if number % 500 == 7 else filler for number in range(20_000)]
    data = ("\n".join(lines) + "\n").encode()
    found = search(tmp_path, data, "needle")
    assert [one.line for one in found] == list(range(8, 20_001, 500))
    assert all(data[one.offset - 1 :].startswith(f"\n{filler} NEEDLE".encode()) for one in found)


def test_lines_are_counted_over_many_reads(tmp_path):
    """A line that is cut by a read is one."""
    lines = [f"line {number} of many" for number in range(60_000)]
    data = ("\n".join(lines) + "\n").encode()
    assert len(data) > 3 * CHUNK_BYTES
    (found,) = search(tmp_path, data, "line 54321 of")
    assert (found.line, found.text) == (54_322, "line 54321 of many")
    assert data[found.offset :].startswith(b"line 54321 of many\n")


def test_a_line_without_end_takes_little_memory(tmp_path):
    """It is looked at piece by piece; what is shown is what is around the text."""
    data = b"x" * (4 * LINE_BYTES) + b" needle " + b"y" * LINE_BYTES + b"\nlast needle\n"
    found = search(tmp_path, data, "needle")
    assert {one.line for one in found} == {1, 2}
    assert all(len(one.text) <= SHOWN_CHARS + 2 for one in found)


def test_a_log_that_lost_its_beginning_is_searched_in_what_is_held(tmp_path):
    """Places are those of the whole log."""
    data = b"".join(b"line %06d\n" % number for number in range(20_000))
    (found,) = search(tmp_path, data, "019999", quota_bytes=50_000)
    assert found.offset == data.index(b"line 019999")
    assert search(tmp_path, b"", "000001", quota_bytes=50_000) == []


def test_a_log_is_removed_with_all_its_pieces(tmp_path):
    """What it took is told; a reader finds nothing, and no error."""
    path = tmp_path / "ab" / "x.log"
    log = OutputLog(path, 8_000)
    for _ in range(100):
        log.write(b"x" * 100)
    log.close()
    held = held_bytes(path)
    assert 0 < held <= 8_000
    assert remove_output(path) == held
    assert list(path.parent.iterdir()) == []
    assert read_output_bytes(path, 0, 10).size == 0
    assert (remove_output(path), held_bytes(path)) == (0, 0)


def test_the_lines_around_one_are_told(tmp_path):
    """As they stand in the end, without colours; fewer where there are fewer, and no piece of a line."""
    path = tmp_path / "ab" / "x.log"
    log = OutputLog(path, 1 << 24)
    log.write(b"one\r\n\x1b[31mtwo\x1b[0m\n10%\r20%\nneedle\n  four\nfive\n")
    log.close()
    (found,) = [found for found in search_log(path, "needle") if found]
    assert around(path, found.offset, 2) == (["two", "20%"], ["  four", "five"])
    assert around(path, found.offset, 9) == (["one", "two", "20%"], ["  four", "five"])
    assert around(path, 0, 1) == ([], ["two"])
    assert around(path, found.offset, 0) == ([], [])
    assert around(path, 10_000, 2) == ([], [])
    assert around(tmp_path / "none", 0, 2) == ([], [])


def test_around_a_place_far_within_no_line_is_half(tmp_path):
    """What begins before what is read is left out."""
    path = tmp_path / "ab" / "x.log"
    log = OutputLog(path, 1 << 24)
    log.write(b"x" * (2 * REACH_BYTES) + b"\nbefore\nneedle\n" + b"y" * (2 * REACH_BYTES))
    log.close()
    (found,) = [found for found in search_log(path, "needle") if found]
    before, after = around(path, found.offset, 5)
    assert before == ["before"]
    assert after == ["y" * SHOWN_CHARS + "…"]
