"""Python objects as bytes, safely: decoding creates data and runs nothing.

The default codec ``"safe"`` keeps ``None``, bool, int, float, complex, str, bytes, bytearray, list, tuple,
set, frozenset, dict, NumPy arrays and scalars (also ml_dtypes), at any depth. It is MessagePack with
extension types for what MessagePack has not. ``"pickle"`` keeps nearly everything, and lets whoever sends the
bytes run code here: it must be asked for by name, on both sides.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec
import numpy as np

from pycomm.errors import ProtocolError, UsageError

__all__ = ["MAX_NBYTES", "Codec", "decode", "encode"]

Codec = Literal["safe", "pickle"]

MAX_NBYTES: Final = 1 << 30
"""Largest encoded object that is accepted."""

_TUPLE, _SET, _FROZENSET, _COMPLEX, _BIG_INT, _BYTEARRAY, _ARRAY, _SCALAR, _MAP = range(1, 10)
_MAX_DEPTH: Final = 200
_encoder = msgspec.msgpack.Encoder()


def _ext(code: int, payload: Any) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, _encoder.encode(payload))


def _pack_array(array: np.ndarray[Any, Any], code: int) -> msgspec.msgpack.Ext:
    dtype = array.dtype
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        raise UsageError(
            f"an array of {dtype} cannot be encoded safely; convert it to a plain dtype, or use "
            "codec='pickle'"
        )
    # ml_dtypes call themselves void in .str; their name says what they are.
    name = dtype.name if dtype.kind == "V" and dtype.name != f"void{dtype.itemsize * 8}" else dtype.str
    head = _encoder.encode([name, list(array.shape)])
    return msgspec.msgpack.Ext(code, len(head).to_bytes(4, "little") + head + array.tobytes())


def _pack(obj: Any, depth: int = 0) -> Any:
    """Replace what MessagePack has not by extension values."""
    if type(obj) in (bool, float, str, bytes):
        return obj
    if depth > _MAX_DEPTH:
        raise UsageError(f"the object is nested deeper than {_MAX_DEPTH} levels, or contains itself")
    packer = _PACKERS.get(type(obj))
    if packer is not None:
        return packer(obj, depth + 1)
    if isinstance(obj, np.ndarray):
        return _pack_array(obj, _ARRAY)
    if isinstance(obj, np.generic):
        return _pack_array(np.asarray(obj), _SCALAR)
    raise UsageError(
        f"a {type(obj).__module__}.{type(obj).__qualname__} cannot be encoded safely; send plain data "
        "(numbers, text, "
        "bytes, containers, NumPy arrays), or use codec='pickle' on both sides if you trust every rank"
    )


def _pack_int(obj: int, _depth: int) -> Any:
    if -(2**63) <= obj < 2**64:
        return obj
    return msgspec.msgpack.Ext(_BIG_INT, obj.to_bytes(obj.bit_length() // 8 + 1, "little", signed=True))


def _pack_items(obj: Any, depth: int) -> list[Any]:
    return [_pack(item, depth) for item in obj]


def _pack_dict(obj: dict[Any, Any], depth: int) -> Any:
    if all(type(key) is str for key in obj):
        return {key: _pack(value, depth) for key, value in obj.items()}
    return _ext(_MAP, [[_pack(key, depth), _pack(value, depth)] for key, value in obj.items()])


_PACKERS: Final[dict[type, Callable[[Any, int], Any]]] = {
    type(None): lambda _obj, _depth: None,
    int: _pack_int,
    list: _pack_items,
    dict: _pack_dict,
    tuple: lambda obj, depth: _ext(_TUPLE, _pack_items(obj, depth)),
    set: lambda obj, depth: _ext(_SET, _pack_items(obj, depth)),
    frozenset: lambda obj, depth: _ext(_FROZENSET, _pack_items(obj, depth)),
    complex: lambda obj, _depth: _ext(_COMPLEX, [obj.real, obj.imag]),
    bytearray: lambda obj, _depth: msgspec.msgpack.Ext(_BYTEARRAY, bytes(obj)),
}


def _unpack_array(data: memoryview) -> np.ndarray[Any, Any]:
    length = int.from_bytes(data[:4], "little")
    name, shape = msgspec.msgpack.decode(data[4 : 4 + length], type=tuple[str, list[int]])
    dtype = _dtype(name)
    content = data[4 + length :]
    expected = dtype.itemsize
    for extent in shape:
        if extent < 0:
            raise ValueError("an array has a negative extent")
        expected *= extent
    if expected != content.nbytes:
        raise ValueError(f"an array of {name} {shape} has {content.nbytes} bytes instead of {expected}")
    array = np.empty(shape, dtype)
    if content.nbytes:
        array.reshape(-1).view(np.uint8)[...] = np.frombuffer(content, np.uint8)
    return array


def _dtype(name: str) -> np.dtype[Any]:
    try:
        dtype = np.dtype(name)
    except TypeError:
        import ml_dtypes  # optional: only needed when a peer sends one of its types

        dtype = np.dtype(getattr(ml_dtypes, name))
    if dtype.hasobject or dtype.names is not None:
        raise ValueError(f"arrays of {name} are not accepted")
    return dtype


_MAKERS: Final[dict[int, Callable[[Any], Any]]] = {
    _TUPLE: tuple,
    _SET: set,
    _FROZENSET: frozenset,
    _COMPLEX: lambda items: complex(*items),
    _MAP: dict,
}


def _unpack(code: int, data: memoryview) -> Any:
    if code == _BYTEARRAY:
        return bytearray(data)
    if code == _BIG_INT:
        return int.from_bytes(data, "little", signed=True)
    if code in (_ARRAY, _SCALAR):
        array = _unpack_array(data)
        return array if code == _ARRAY else array[()]
    make = _MAKERS.get(code)
    if make is None:
        raise ValueError(f"unknown extension type {code}")
    return make(_decoder.decode(data))


_decoder = msgspec.msgpack.Decoder(ext_hook=_unpack)


def encode(obj: Any, codec: Codec = "safe") -> bytes:
    """Turn an object into bytes.

    Raises
    ------
    UsageError
        The codec cannot keep the object, or it is larger than ``MAX_NBYTES``.
    """
    if codec == "pickle":
        data = pickle.dumps(obj, protocol=5)
    elif codec == "safe":
        data = _encoder.encode(_pack(obj))
    else:
        raise UsageError(f"codec={codec!r} is unknown; use 'safe' or 'pickle'")
    if len(data) > MAX_NBYTES:
        raise UsageError(
            f"the object has {len(data)} bytes encoded, more than {MAX_NBYTES}; send it as arrays"
        )
    return data


def decode(data: bytes | bytearray | memoryview, codec: Codec = "safe") -> Any:
    """Turn bytes back into the object.

    Raises
    ------
    ProtocolError
        The bytes are not what :func:`encode` makes with this codec.
    """
    if codec == "pickle":
        return pickle.loads(data)
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, ValueError, TypeError, AttributeError, ImportError, RecursionError) as error:
        raise ProtocolError(
            f"{len(data)} bytes received as an object cannot be decoded: {error}; every rank must use the "
            "same codec"
        ) from error
