"""Reads DLPack capsules, so that tensors of any framework can be used without importing it.

NumPy's own reader knows no bfloat16 and no float8; this one hands out the storage (``uint16``, ``uint8``) and
says what the elements are. Both forms of capsule are read: the old one, and the versioned one that knows
read-only memory.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pycomm.errors import UsageError
from pycomm.types import DType

__all__ = ["as_array"]

_CPU: Final = (1, 3, 11, 13)  # plain memory; pinned by CUDA, by ROCm; managed by CUDA
_READ_ONLY: Final = 1
_DTYPES: Final = {
    (0, 8): DType.INT8,
    (0, 16): DType.INT16,
    (0, 32): DType.INT32,
    (0, 64): DType.INT64,
    (1, 8): DType.UINT8,
    (1, 16): DType.UINT16,
    (1, 32): DType.UINT32,
    (1, 64): DType.UINT64,
    (2, 16): DType.FLOAT16,
    (2, 32): DType.FLOAT32,
    (2, 64): DType.FLOAT64,
    (4, 16): DType.BFLOAT16,
    (6, 8): DType.BOOL,
    (10, 8): DType.FLOAT8_E4M3FN,
    (12, 8): DType.FLOAT8_E5M2,
}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype = ctypes.c_int
_is_valid.argtypes = (ctypes.py_object, ctypes.c_char_p)


def _capsule(obj: Any, role: str) -> Any:
    try:
        try:
            return obj.__dlpack__(max_version=(1, 0))
        except TypeError:  # a producer from before versions
            return obj.__dlpack__()
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(
            f"{role} ({type(obj).__module__}.{type(obj).__name__}) does not give its memory away: {error}; "
            "pass a "
            "detached, dense tensor on the CPU"
        ) from error


def as_array(obj: Any, role: str) -> tuple[npt.NDArray[Any], DType, object]:
    """View a DLPack tensor as a NumPy array of storage elements, without a copy.

    Parameters
    ----------
    obj
        Anything with ``__dlpack__``, in memory that the CPU reaches.
    role
        What to call it in messages.

    Returns
    -------
    array, dtype, owner
        The view, the type of its elements, and an object that must live as long as the view is used.

    Raises
    ------
    UsageError
        The tensor lies on a device, or has elements that pycomm does not know.
    """
    if hasattr(obj, "__dlpack_device__") and int(obj.__dlpack_device__()[0]) not in _CPU:
        device = tuple(int(part) for part in obj.__dlpack_device__())
        raise UsageError(f"{role} lies on device {device}, not in CPU memory; copy it to the CPU first")
    capsule = _capsule(obj, role)
    is_read_only = False
    if _is_valid(capsule, b"dltensor_versioned"):
        head = _Versioned.from_address(_pointer(capsule, b"dltensor_versioned"))
        if head.major != 1:
            raise UsageError(f"{role} speaks DLPack {head.major}.{head.minor}; version 1 is known")
        tensor, is_read_only = head.tensor, bool(head.flags & _READ_ONLY)
    else:
        tensor = _Tensor.from_address(_pointer(capsule, b"dltensor"))
    dtype = _DTYPES.get((tensor.code, tensor.bits)) if tensor.lanes == 1 else None
    if dtype is None:
        raise UsageError(
            f"{role} has elements of DLPack type code {tensor.code} with {tensor.bits} bits x "
            f"{tensor.lanes}, which "
            "pycomm does not know"
        )
    return _view(tensor, dtype, is_read_only), dtype, capsule


def _view(tensor: _Tensor, dtype: DType, is_read_only: bool) -> npt.NDArray[Any]:
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    storage = dtype.storage
    if 0 in shape or not tensor.data:
        return np.empty(shape, storage)
    strides = None
    low, extent = 0, int(np.prod(shape, dtype=np.int64))
    if tensor.strides:
        steps = [tensor.strides[i] for i in range(tensor.ndim)]
        low = sum(step * (n - 1) for step, n in zip(steps, shape, strict=True) if step < 0)
        high = sum(step * (n - 1) for step, n in zip(steps, shape, strict=True) if step > 0)
        extent = high - low + 1
        strides = tuple(step * storage.itemsize for step in steps)
    first = int(tensor.data) + int(tensor.byte_offset)
    memory = (ctypes.c_uint8 * (extent * storage.itemsize)).from_address(first + low * storage.itemsize)
    base = np.frombuffer(memoryview(memory), np.uint8)
    array: npt.NDArray[Any] = np.ndarray(shape, storage, base, -low * storage.itemsize, strides)
    if is_read_only:
        array.flags.writeable = False
    return array
