"""Events and snapshots as bytes: what is decoded is what was encoded."""

from __future__ import annotations

from functools import cache
from types import NoneType, UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koubou_panel.core.codec import (
    decode_events,
    decode_snapshot,
    encode_events,
    encode_snapshot,
    without_bytes,
)
from koubou_panel.core.events import FACTS, SAMPLES, TaskCompleted, TaskFailed, TaskSubmitted
from koubou_panel.core.records import CHANNELS
from koubou_panel.core.state import Snapshot, State

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(2**63), 2**63 - 1)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
PLAIN = {
    float: st.floats(allow_nan=False),
    int: numbers,
    str: text,
    bytes: st.binary(max_size=20),
    bool: st.booleans(),
    NoneType: st.none(),
    object: values,
}


COMPOUND = {
    Literal: lambda *words: st.sampled_from(words),
    Union: lambda *hints: st.one_of(list(map(anything, hints))),
    UnionType: lambda *hints: st.one_of(list(map(anything, hints))),
    list: lambda hint: st.lists(anything(hint), max_size=3),
    tuple: lambda *hints: (
        st.lists(anything(hints[0]), max_size=3).map(tuple)
        if hints[-1] is ...
        else st.tuples(*map(anything, hints))
    ),
    dict: lambda key, value: st.dictionaries(anything(key), anything(value), max_size=3),
}


@cache
def anything(hint):
    """Any value of a type, as the records' annotations use them."""
    hint = getattr(hint, "__supertype__", hint)
    if hint in PLAIN:
        return PLAIN[hint]
    if get_origin(hint) in COMPOUND:
        return COMPOUND[get_origin(hint)](*get_args(hint))
    hints = get_type_hints(hint)
    return st.builds(hint, **{name: anything(hints[name]) for name in hint.__struct_fields__})


@pytest.mark.parametrize("kind", [*FACTS, *SAMPLES])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=st.data())
def test_every_event_round_trips(kind, drawn):
    """No type of event and no field of it is left out."""
    event = drawn.draw(anything(kind))
    (decoded,) = decode_events(encode_events([event]))
    assert decoded == event
    assert type(decoded) is kind


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of([anything(kind) for kind in (*FACTS, *SAMPLES)]), max_size=5))
def test_events_keep_their_order(some):
    """Many in one blob come out as they went in."""
    assert decode_events(encode_events(some)) == some


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(anything(Snapshot))
def test_a_snapshot_round_trips(snapshot):
    """Any snapshot, and the state that is made of it."""
    assert decode_snapshot(encode_snapshot(snapshot)) == snapshot


def test_an_empty_state_round_trips():
    """The first thing that a replica of a new workshop is told."""
    snapshot = State("epoch").snapshot()
    assert State.from_snapshot(decode_snapshot(encode_snapshot(snapshot))).snapshot() == snapshot


@pytest.mark.parametrize("blob", [b"", b"\xc1", b"\x91\x81\xa4type\xa7Unknown", encode_events([])[:0]])
def test_other_bytes_are_no_events(blob):
    """Whoever reads a damaged journal is told."""
    with pytest.raises(msgspec.DecodeError):
        decode_events(blob)


@given(st.one_of([anything(kind) for kind in FACTS]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_without_bytes_takes_the_opaque_bytes_alone(fact):
    """No payload and no value is left; facts that have none are the very same."""
    bare = without_bytes(fact)
    if type(fact) is TaskSubmitted:
        assert bare.request.payload == b""
        assert bare.request.spec == fact.request.spec
    elif type(fact) in (TaskCompleted, TaskFailed):
        assert bare.value == b""
        assert (bare.task_id, bare.run, bare.usage) == (fact.task_id, fact.run, fact.usage)
    else:
        assert bare is fact
    assert without_bytes(bare) is bare


def test_every_fact_has_a_channel_and_no_sample_has():
    """Facts are ordered within a channel; samples are not ordered."""
    assert {fact.channel for fact in FACTS} <= set(CHANNELS)
    assert not [sample for sample in SAMPLES if hasattr(sample, "channel")]
