"""The caller's memory, seen as flat bytes: NumPy arrays, the buffer protocol, DLPack on CPU.

What is contiguous is used where it lies. What is not is *staged*: copied into contiguous memory before the
call, and copied back after it where the call wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pycomm import dlpack
from pycomm.backends.base import Bytes
from pycomm.errors import UsageError
from pycomm.types import DType

__all__ = ["IN_PLACE", "Buffer", "as_buffer", "as_dtype", "overlap"]


class _InPlace:
    """Type of the marker."""

    def __repr__(self) -> str:
        return "pycomm.IN_PLACE"


IN_PLACE = _InPlace()
"""Stands for the input (or output) that is the other argument's memory, at its natural place."""

_BY_LABEL = {d.label: d for d in DType}
_BY_NUMPY = {d.storage: d for d in DType if d.storage.name == d.label}


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory of one call.

    Attributes
    ----------
    flat
        All bytes, one-dimensional and contiguous.
    dtype, count
        Element type and number of elements.
    keep
        The objects that own the memory.
    home
        Where ``flat`` is to be copied after the call; ``None`` when it is the caller's memory itself.
    """

    flat: Bytes
    dtype: DType
    count: int
    keep: tuple[Any, ...]
    home: npt.NDArray[Any] | None = None
    is_staged: bool = False

    @property
    def address(self) -> int:
        """Where ``flat`` begins."""
        return int(self.flat.__array_interface__["data"][0])

    def copy_home(self) -> None:
        """Copy the staged result to the caller's memory."""
        if self.home is not None:
            self.home[...] = self.flat.view(self.home.dtype).reshape(self.home.shape)


def as_dtype(name: DType | str | npt.DTypeLike) -> DType:
    """Turn a ``DType``, its name, or a NumPy or ml_dtypes dtype into a ``DType``.

    Raises
    ------
    UsageError
        pycomm has no such element type.
    """
    if isinstance(name, DType):
        return name
    if isinstance(name, str) and name in _BY_LABEL:
        return _BY_LABEL[name]
    try:
        numpy_dtype = np.dtype(name)
    except TypeError:
        raise UsageError(f"{name!r} is not an element type; choose one of {', '.join(_BY_LABEL)}") from None
    found = _BY_NUMPY.get(numpy_dtype) or _BY_LABEL.get(numpy_dtype.name if numpy_dtype.isnative else "")
    if found is None:
        hint = ""
        if numpy_dtype.kind == "c":
            hint = "; for sums, pass the real view: array.view(array.real.dtype)"
        elif not numpy_dtype.isnative:
            hint = "; convert it to native byte order: array.astype(array.dtype.newbyteorder('='))"
        raise UsageError(
            f"element type {numpy_dtype.str!r} ({numpy_dtype.name}) is not supported; choose one of "
            f"{', '.join(_BY_LABEL)}{hint}"
        )
    return found


def _array_of(obj: Any, role: str) -> tuple[npt.NDArray[Any], DType, tuple[Any, ...]]:
    """View any supported object as an array of storage elements."""
    if isinstance(obj, np.ndarray):
        if isinstance(obj, np.ma.MaskedArray):
            raise UsageError(f"{role} is a masked array; pass its .data, or fill the masked elements first")
        return obj, as_dtype(obj.dtype), (obj,)
    if hasattr(obj, "__dlpack__") and not isinstance(obj, np.generic):
        array, dtype, owner = dlpack.as_array(obj, role)
        return array, dtype, (obj, owner)
    try:
        view = memoryview(obj)
        array = np.asarray(view)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{role} is a {type(obj).__name__}, which is neither a NumPy array, nor an object with the "
            "buffer "
            f"protocol, nor a DLPack tensor on the CPU ({error}); wrap it in a NumPy array, or use the "
            "*_object "
            "form of this call"
        ) from None
    if isinstance(obj, np.generic):
        raise UsageError(
            f"{role} is a NumPy scalar, which cannot be written; pass a 0-dimensional array instead"
        )
    return array, as_dtype(array.dtype), (obj, view)


def as_buffer(
    obj: Any, role: str, *, writes: bool = False, reads: bool = True, dtype: DType | None = None
) -> Buffer:
    """View the caller's object as flat bytes.

    Parameters
    ----------
    obj
        A NumPy array, an object with the buffer protocol, or a DLPack tensor on the CPU. Any shape;
        0-dimensional and empty arrays too. Non-contiguous memory is staged.
    role
        What to call it in messages, e.g. ``"recv"``.
    writes, reads
        What the call does with it.
    dtype
        What the elements are, when that is not what the object says: ``uint16`` memory that holds bfloat16.

    Raises
    ------
    UsageError
        The object cannot be used; the message says what to do.
    """
    array, found, keep = _array_of(obj, role)
    if dtype is not None and dtype is not found:
        if dtype.itemsize != found.itemsize:
            raise UsageError(
                f"dtype={dtype.label} has {dtype.itemsize} bytes per element, but {role} has {found.label} "
                "with "
                f"{found.itemsize}; pass memory viewed as elements of {dtype.itemsize} bytes"
            )
        found = dtype
    if writes and not array.flags.writeable:
        raise UsageError(f"{role} is read-only, but the call writes to it; pass a writable array or a copy")
    if array.flags.c_contiguous:
        return Buffer(array.reshape(-1).view(np.uint8), found, array.size, keep)
    staged = np.ascontiguousarray(array) if reads else np.empty(array.shape, array.dtype)
    return Buffer(staged.reshape(-1).view(np.uint8), found, array.size, keep, array if writes else None, True)


def overlap(a: Buffer, b: Buffer) -> bool:
    """Whether two buffers share memory."""
    first, second = a.address, b.address
    return first < second + b.flat.nbytes and second < first + a.flat.nbytes and a.count > 0 and b.count > 0
