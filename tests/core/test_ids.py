"""Task ids: unique, sortable in the order of making, and told from other text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koubou_panel.core.ids import TaskIds, is_task_id, make_task_id

moments = st.floats(1.71e9, 2.7e9)


@given(st.lists(st.tuples(moments, st.integers(0, 2**30 - 1)), max_size=50))
def test_ids_sort_in_the_order_they_were_made(calls):
    """Whatever the clock does, each id comes after the one before."""
    ids = TaskIds()
    made = [ids.make(now, bits) for now, bits in calls]
    assert made == sorted(set(made))


@given(moments, st.integers(0, 2**30 - 1))
def test_ids_of_later_milliseconds_sort_later(now, bits):
    """A new millisecond beats every count within the one before, also where the clock's last digits round."""
    ids = TaskIds()
    before = ids.make(now, 2**30 - 1)
    assert ids.make(now + 0.001, bits) > before


def test_the_head_of_an_id_is_its_own_millisecond():
    """At this moment two ways of rounding disagree: counting by one and heading by the other went backwards."""
    now = 1790156406.767
    before, after = TaskIds(), TaskIds()
    assert after.make(now, 0)[:8] == make_task_id(int(now * 1000), 0)[:8]
    assert after.make(now, 0) > before.make(now - 0.001, 2**30 - 1)


def test_ids_of_one_millisecond_count_up():
    """Within a millisecond nothing is random but the first."""
    ids = TaskIds()
    first = ids.make(1.8e9, 64)
    assert ids.make(1.8e9, 5)[:-1] == first[:-1]
    assert ids.make(1.7e9, 5)[:8] == first[:8]


def test_two_makers_do_not_agree():
    """With other random bits the same moment gives another id."""
    assert TaskIds().make(1.8e9, 10) != TaskIds().make(1.8e9, 20)


@given(moments, st.integers(0, 2**40))
def test_every_id_has_its_shape(now, bits):
    """Both ways of making one give 14 characters of the alphabet."""
    assert is_task_id(TaskIds().make(now, bits))
    assert is_task_id(make_task_id(int(now * 1000), bits))


@pytest.mark.parametrize(
    "text", ["", "0123456789abc", "0123456789abcdd", "0123456789abcI", "../../etc/passw", "0123456789abci\n"]
)
def test_other_text_is_no_id(text):
    """Wrong length, letters that are left out because they look like digits, anything else."""
    assert not is_task_id(text)
