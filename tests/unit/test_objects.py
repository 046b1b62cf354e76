"""The safe codec keeps data as it was, and refuses everything else on both sides."""

from __future__ import annotations

import contextlib
import pickle

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycomm.errors import ProtocolError, UsageError
from pycomm.objects import decode, encode

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary()
)
HASHABLE = LEAVES | st.tuples(LEAVES, LEAVES) | st.frozensets(LEAVES)
DATA = st.recursive(
    LEAVES | st.sets(LEAVES) | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(HASHABLE, inner)
        | st.dictionaries(st.text(), inner)
    ),
    max_leaves=12,
)


def shape_of(value):
    """Types at every depth: 1, 1.0 and True are equal but not the same."""
    if isinstance(value, dict):
        return dict, [(shape_of(k), shape_of(v)) for k, v in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [shape_of(v) for v in value]
    return type(value)


@settings(max_examples=60)
@given(DATA)
def test_round_trip(value):
    back = decode(encode(value))
    assert back == value
    assert shape_of(back) == shape_of(value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int16).reshape(2, 3),
        np.array(2.5),
        np.empty((0, 3), np.float32),
        np.arange(6)[::2],
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([1, 2], ">i4"),
        np.array(["2026-11-21"], "datetime64[D]"),
        np.array(["abc", "d"]),
        np.ones(3, ml_dtypes.bfloat16),
        np.ones(3, ml_dtypes.float8_e4m3fn),
        np.array([1 + 2j]),
    ],
    ids=lambda a: a.dtype.name,
)
def test_arrays_keep_dtype_and_shape(array):
    back = decode(encode([array]))[0]
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable


def test_numpy_scalars():
    back = decode(encode(np.float32(1.5)))
    assert type(back) is np.float32
    assert back == 1.5


class Custom:
    pass


@pytest.mark.parametrize(
    "value", [Custom(), print, np.array([object()]), np.ones(1, "f4,i4"), [{"x": Custom()}], Exception("x")]
)
def test_what_is_not_data_is_refused(value):
    with pytest.raises(UsageError, match="pickle"):
        encode(value)


def test_an_object_that_contains_itself_is_refused():
    loop: list = []
    loop.append(loop)
    with pytest.raises(UsageError, match="contains itself"):
        encode(loop)


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of a peer was run')",)


def test_decoding_runs_no_code_of_the_sender():
    with pytest.raises(ProtocolError):
        decode(pickle.dumps(Bomb()))


def test_pickle_only_by_name():
    assert isinstance(decode(encode(Custom(), "pickle"), "pickle"), Custom)
    with pytest.raises(UsageError, match="codec"):
        encode(1, "json")


def ext(code, payload):
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(code, payload))


def array_head(name, shape):
    head = msgspec.msgpack.encode([name, shape])
    return len(head).to_bytes(4, "little") + head


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        ext(99, b""),
        ext(1, b"\xc1"),
        ext(7, b""),
        ext(7, array_head("<f8", [2]) + bytes(8)),
        ext(7, array_head("<f8", [-1, -1]) + bytes(8)),
        ext(7, array_head("<f8", [2**62, 4]) + bytes(8)),
        ext(7, array_head("|O", [1]) + bytes(8)),
        ext(7, array_head("os.system", [1]) + bytes(8)),
        ext(4, msgspec.msgpack.encode([1, 2, 3])),
        encode([1, 2])[:-1],
    ],
)
def test_wrong_bytes_are_a_protocol_error(data):
    with pytest.raises(ProtocolError):
        decode(data)


@given(st.binary(max_size=64))
def test_random_bytes_never_raise_anything_else(data):
    with contextlib.suppress(ProtocolError):
        decode(data)
