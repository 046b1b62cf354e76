"""Every form of a schedule says the same: text, msgpack and JSON give back what went in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycomm.errors import UsageError
from pycomm.schedule import Schedule
from pycomm.schedule.codec import assemble, decode, decode_json, encode, encode_json
from pycomm.schedule.text import format_schedule, parse_schedule
from pycomm.types import CollectiveKind

INT32 = st.integers(-(2**31), 2**31 - 1)
SMALL = st.integers(-2, 6)
ROWS = st.lists(st.tuples(*[st.one_of(SMALL, SMALL, INT32)] * 8), max_size=6)
SLOTS = st.lists(st.one_of(st.integers(0, 5), INT32), max_size=5)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Any well-formed tables, nearly all of them nonsense: a form must carry wrong schedules too."""
    nranks = draw(st.integers(1, 4))
    return assemble(
        name=draw(st.text(max_size=12)),
        kind=draw(st.sampled_from(CollectiveKind)),
        nranks=nranks,
        root=draw(SMALL),
        pieces=draw(INT32),
        in_place=draw(st.booleans()),
        channels=draw(SMALL),
        capacity=draw(INT32),
        programs=[np.array(draw(ROWS), np.int32).reshape(-1, 8) for _ in range(nranks)],
        scratch=[np.array(draw(SLOTS), np.int32) for _ in range(nranks)],
    )


@pytest.mark.parametrize(
    ("write", "read"),
    [(format_schedule, parse_schedule), (encode, decode), (encode_json, decode_json)],
    ids=["text", "msgpack", "json"],
)
@given(schedule=schedules())
@settings(max_examples=60, deadline=None)
def test_every_form_gives_back_the_schedule(write, read, schedule):
    again = read(write(schedule))
    assert again == schedule
    assert again.name == schedule.name
    assert np.array_equal(again.ops, schedule.ops)
    assert not again.ops.flags.writeable
    assert write(again) == write(schedule)


@given(schedule=schedules(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_damage_to_the_binary_form_never_passes_unnoticed(schedule, data):
    whole = encode(schedule)
    place = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 7))
    damaged = bytearray(whole)
    damaged[place] ^= 1 << bit
    try:
        again = decode(bytes(damaged))
    except UsageError:
        return
    # Only the name has no meaning, and so is not under the digest.
    assert again == schedule
    assert again.name != schedule.name


@given(schedule=schedules(), data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_truncated_file_is_refused(schedule, data):
    whole = encode(schedule)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(UsageError):
        decode(whole[:cut])


@given(st.text(max_size=200))
@settings(max_examples=40, deadline=None)
def test_any_text_is_parsed_or_refused_with_a_reason(text):
    with pytest.raises(UsageError, match=r"line \d+: expected"):
        parse_schedule(text)
