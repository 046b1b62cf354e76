"""The file forms refuse what they do not know, one fact at a time."""

from __future__ import annotations

import dataclasses
import json

import msgspec
import numpy as np
import pytest

from pycomm.errors import UsageError
from pycomm.schedule.codec import decode, decode_json, encode, encode_json, malformed
from pycomm.schedule.text import format_schedule, parse_schedule

PAIR = parse_schedule(
    "schedule 1\nname pair\ncollective broadcast\nranks 2\nroot 0\npieces 1\n"
    "rank 0\n copy input[0] to output[0]\n send input[0] to 1\nrank 1 scratch 0\n recv output[0] from 0\n"
)
WRONG_FACTS = [
    ("format", "other", "format is 'other'"),
    ("format_version", 2, "format version 2, this pycomm reads 1"),
    ("collective", "broadcasts", "unknown collective"),
    ("ranks", 0, "'ranks' cannot be 0"),
    ("ranks", "2", "str"),
    ("root", 2**31, "'root' cannot be"),
    ("in_place", 1, "int"),
    ("extra", 1, "unknown field `extra`"),
]
WRONG_TABLES = [
    ("ops", b"1234", "rows of 32 bytes"),
    ("offsets", b"\0" * 23, "multiple of 8"),
    ("offsets", np.array([0, 1, 2], "<i8").tobytes(), "offsets must rise from 0 to 3"),
    ("offsets", np.array([0, 4, 3], "<i8").tobytes(), "offsets must rise from 0 to 3"),
    ("offsets", np.array([1, 2, 3], "<i8").tobytes(), "offsets must rise from 0 to 3"),
    ("offsets", np.array([0, 3], "<i8").tobytes(), "shape"),
    ("scratch", b"", "scratch_offsets must rise from 0 to 0"),
    ("scratch", np.array([1], "<i4").tobytes(), "damaged"),
    ("pieces", 2, "damaged"),
    ("digest", b"", "damaged"),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG_FACTS + WRONG_TABLES)
def test_msgpack_with_a_wrong_fact_is_refused(key, value, message):
    facts = msgspec.msgpack.decode(encode(PAIR))
    assert decode(msgspec.msgpack.encode(facts)) == PAIR
    with pytest.raises(UsageError, match=message):
        decode(msgspec.msgpack.encode({**facts, key: value}))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        *WRONG_FACTS,
        ("ranks", 3, "3 ranks must list as many"),
        ("programs", [[]], "2 ranks must list as many"),
        ("programs", [[[1, 2, 3]], []], "length"),
        ("programs", [[[2**31, 0, 0, 0, 0, 0, 0, 0]], []], "beyond 32 bits"),
        ("scratch", [["a"], []], "int"),
    ],
)
def test_json_with_a_wrong_fact_is_refused(key, value, message):
    facts = json.loads(encode_json(PAIR))
    assert decode_json(json.dumps(facts).encode()) == PAIR
    with pytest.raises(UsageError, match=message):
        decode_json(json.dumps({**facts, key: value}).encode())


@pytest.mark.parametrize("key", ["format", "name", "ranks", "ops", "digest"])
def test_a_missing_fact_is_refused(key):
    facts = msgspec.msgpack.decode(encode(PAIR))
    del facts[key]
    with pytest.raises(UsageError, match=key):
        decode(msgspec.msgpack.encode(facts))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ops", np.zeros((3, 8), np.int64)),
        ("ops", np.zeros((3, 7), np.int32)),
        ("offsets", np.array([0, 3], np.int64)),
        ("offsets", np.array([0, 2, 1], np.int64)),
        ("scratch", np.zeros(2, np.int32)),
    ],
)
def test_tables_that_do_not_fit_are_not_written(field, value):
    broken = dataclasses.replace(PAIR, **{field: value, "_digest": []})
    assert malformed(broken)
    for write in (encode, encode_json, format_schedule):
        with pytest.raises(UsageError, match="do not fit together"):
            write(broken)
