"""Sizes as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koubou_panel.core.quantity import parse_size, size_text


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("1048576", 1 << 20),
        ("2G", 2 << 30),
        ("2g", 2 << 30),
        ("2 GB", 2 << 30),
        ("2GiB", 2 << 30),
        (" 1.5M ", 3 << 19),
        ("64kB", 64 << 10),
        ("64K", 64 << 10),
        ("1T", 1 << 40),
        ("7B", 7),
        ("0.5k", 512),
    ],
)
def test_a_size_is_read(text, size_bytes):
    """With or without a unit, in powers of 1,024."""
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    ["", "G", "0", "0.0001", "-1", "+1", "2 gigs", "1e9", "2GG", "nan", "1,5G", "²G", "2G 3M", "9" * 400],
)
def test_what_is_no_size_is_refused(text):
    """The message says what would be one, and quotes at most a part of what was given."""
    with pytest.raises(ValueError, match="must be a size such as 512M or 2G") as refused:
        parse_size(text)
    assert len(str(refused.value)) < 120


@pytest.mark.parametrize("text", ["8193T", "999999999T", "999999999999999G"])
def test_what_no_machine_has_is_refused(text):
    """The message says how much is possible."""
    with pytest.raises(ValueError, match="must be at most 8192 TB, not"):
        parse_size(text)


@given(st.integers(1, 1 << 50))
def test_what_is_written_reads_back(size_bytes):
    """The words for a size mean that size, to the digits that they have."""
    assert parse_size(size_text(size_bytes)) == pytest.approx(size_bytes, rel=0.06)
