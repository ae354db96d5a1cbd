"""Unknown names are answered with the nearest known one."""

from __future__ import annotations

import pytest

from koubou_panel.core.suggest import nearest, unknown


@pytest.mark.parametrize(
    ("name", "found"),
    [("complete", "completed"), ("faild", "failed"), ("", None), ("xyz", None), ("Failed", "failed")],
)
def test_the_nearest_name_is_found(name, found):
    """Or none, if none is like it."""
    assert nearest(name, ["pending", "completed", "failed"]) == found


def test_the_sentence_names_the_nearest():
    """One guess, in quotes."""
    assert (
        unknown("status", "faild", ["failed", "pending"]) == "unknown status 'faild'; did you mean 'failed'?"
    )


def test_without_a_near_one_all_are_listed():
    """So that the asker need not look further."""
    assert unknown("kind", "zzz", ["script", "function"]) == "unknown kind 'zzz'; known: function, script"
    assert unknown("kind", "zzz", []) == "unknown kind 'zzz'"


def test_a_huge_name_is_cut():
    """What a stranger sends is not sent back whole, nor compared whole."""
    assert len(unknown("channel", "x" * 10_000, ["task"])) < 200
