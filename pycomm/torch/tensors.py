"""Tensors as the memory that a communicator moves: NumPy arrays over the same bytes, and their types.

A tensor on the CPU is used where it lies. One on another device is *staged*: copied into host memory before
the call and back after it. Complex elements travel as pairs of reals, which is right for everything that adds
or moves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pycomm.errors import Unsupported, UsageError
from pycomm.types import DType, ReduceOp

__all__ = [
    "DTYPES",
    "Memory",
    "Packed",
    "copied_to",
    "in_rows",
    "is_plain",
    "memory_of",
    "packed",
    "sorted_by_size",
]

DTYPES: Final[dict[torch.dtype, DType]] = {
    torch.float64: DType.FLOAT64,
    torch.float32: DType.FLOAT32,
    torch.float16: DType.FLOAT16,
    torch.bfloat16: DType.BFLOAT16,
    torch.float8_e4m3fn: DType.FLOAT8_E4M3FN,
    torch.float8_e5m2: DType.FLOAT8_E5M2,
    torch.int8: DType.INT8,
    torch.int16: DType.INT16,
    torch.int32: DType.INT32,
    torch.int64: DType.INT64,
    torch.uint8: DType.UINT8,
    torch.uint16: DType.UINT16,
    torch.uint32: DType.UINT32,
    torch.uint64: DType.UINT64,
    torch.bool: DType.BOOL,
}
# What NumPy has no name for is looked at as bits of the same size.
_BITS: Final = {
    torch.bfloat16: torch.int16,
    torch.float8_e4m3fn: torch.uint8,
    torch.float8_e5m2: torch.uint8,
}
# Reductions of complex numbers that treat real and imaginary part alike.
_BY_PAIRS: Final = (None, ReduceOp.SUM, ReduceOp.AVG, ReduceOp.PREMUL_SUM)


@dataclass(frozen=True, slots=True)
class Memory:
    """One tensor's elements, as a communicator takes them.

    Attributes
    ----------
    array
        The elements, in the tensor's shape; a view of its memory unless it was staged.
    dtype
        What the elements are.
    finish
        To be called when the operation has ended and wrote here; ``None`` when there is nothing to do.
    """

    array: npt.NDArray[Any]
    dtype: DType
    finish: Callable[[], object] | None = None


def is_plain(tensor: Tensor) -> bool:
    """Whether the tensor is nothing but contiguous memory of the host."""
    return tensor.is_cpu and tensor.layout is torch.strided and tensor.is_contiguous() and not tensor.is_neg()


def memory_of(
    tensor: Tensor, op: ReduceOp | None = None, *, writes: bool = False, reads: bool = True
) -> Memory:
    """View a tensor's memory.

    Parameters
    ----------
    tensor
        Dense, any shape and strides, any device.
    op
        How elements are combined; ``None`` when they are only moved.
    writes, reads
        What the operation does with it.

    Raises
    ------
    Unsupported
        Sparse, quantized and meta tensors, and elements that cannot be combined like this.
    """
    if tensor.layout is not torch.strided:
        raise Unsupported(
            f"pycomm moves dense tensors, and this one has layout {tensor.layout}; pass tensor.to_dense(), "
            "or its indices and values one by one (DDP: build the embedding with sparse=False)"
        )
    if tensor.is_meta:
        raise Unsupported(
            "a tensor on the meta device has no elements to move; make it on a device that has them"
        )
    tensor = tensor.detach()
    if not tensor.is_cpu:
        return _staged(tensor, op, writes=writes, reads=reads)
    if tensor.is_conj() or tensor.is_neg():
        if writes:
            raise UsageError(
                "the result cannot be written to a lazily conjugated or negated view; pass a plain tensor"
            )
        tensor = tensor.resolve_conj().resolve_neg()
    if tensor.is_complex():
        if op not in _BY_PAIRS:
            raise Unsupported(f"complex numbers have no {op.label if op else ''}; use SUM or AVG")
        tensor = torch.view_as_real(tensor)
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None:
        if op is not None or tensor.is_quantized:
            raise Unsupported(f"pycomm cannot reduce elements of {tensor.dtype}; convert the tensor first")
        return Memory(_bytes_of(tensor), DType.UINT8)
    bits = _BITS.get(tensor.dtype)
    return Memory((tensor if bits is None else tensor.view(bits)).numpy(), dtype)


def _bytes_of(tensor: Tensor) -> npt.NDArray[Any]:
    """View elements of a type that is only ever moved as bytes."""
    if not tensor.is_contiguous():
        raise Unsupported(
            f"tensors of {tensor.dtype} must be contiguous to be moved; pass tensor.contiguous()"
        )
    array: npt.NDArray[Any] = tensor.view(torch.uint8).numpy()
    return array


def _staged(tensor: Tensor, op: ReduceOp | None, *, writes: bool, reads: bool) -> Memory:
    """Copy to host memory now, and back when the operation has ended.

    Both copies block until the device has made them, so the first sees what the caller's stream has written,
    and whoever learns that the operation has ended may read the result from any stream.
    """
    host = tensor.to("cpu") if reads else torch.empty(tensor.shape, dtype=tensor.dtype)
    memory = memory_of(host, op, writes=writes, reads=reads)
    return Memory(memory.array, memory.dtype, partial(tensor.copy_, host) if writes else None)


def copied_to(target: Memory, source: Any) -> Memory:
    """Memory that is filled from elsewhere when the operation has ended."""

    def finish() -> None:
        target.array[...] = source.reshape(target.array.shape)
        if target.finish is not None:
            target.finish()

    return Memory(target.array, target.dtype, finish)


@dataclass(frozen=True, slots=True)
class Packed:
    """Several tensors of one type as one flat array, in their order.

    Attributes
    ----------
    array, dtype
        As in :class:`Memory`, one-dimensional.
    counts
        Elements of each tensor, as the array counts them.
    finish
        Copies the array back to the tensors, when it is not their memory itself; ``None`` otherwise.
    """

    array: npt.NDArray[Any]
    dtype: DType
    counts: list[int]
    finish: Callable[[], object] | None = None


def packed(
    tensors: Sequence[Tensor], op: ReduceOp | None = None, *, writes: bool = False, reads: bool = True
) -> Packed:
    """View tensors as one array, without a copy when they lie one behind the other (chunks of a tensor).

    Raises
    ------
    UsageError
        The tensors are of different types.
    """
    if len({tensor.dtype for tensor in tensors}) > 1:
        kinds = ", ".join(sorted({str(tensor.dtype) for tensor in tensors}))
        raise UsageError(f"the tensors of one operation must be of one type, not of {kinds}")
    whole = _joined(tensors)
    if whole is not None:
        memory = memory_of(whole, op, writes=writes, reads=reads)
        parts = memory.array.size // max(1, whole.numel())  # a complex element is two
        return Packed(memory.array, memory.dtype, [t.numel() * parts for t in tensors], memory.finish)
    memories = [memory_of(tensor, op, writes=writes, reads=reads) for tensor in tensors]
    arrays = [memory.array for memory in memories]
    counts = [array.size for array in arrays]
    flat = np.empty(sum(counts), arrays[0].dtype)
    parts_of_flat = np.split(flat, np.cumsum(counts)[:-1])
    if reads:
        for array, part in zip(arrays, parts_of_flat, strict=True):
            part[...] = array.reshape(-1)

    def unpack() -> None:
        for memory, part in zip(memories, parts_of_flat, strict=True):
            memory.array[...] = part.reshape(memory.array.shape)
            if memory.finish is not None:
                memory.finish()

    return Packed(flat, memories[0].dtype, counts, unpack if writes else None)


def in_rows(memory: Memory, tensor: Tensor, splits: Sequence[int], size: int, role: str) -> Packed:
    """Cut a tensor's memory into blocks of whole rows."""
    rows = tensor.size(0) if tensor.dim() else 1
    sizes = [int(split) for split in splits] or [rows // size] * size
    if len(sizes) != size or sum(sizes) != rows or min(sizes) < 0:
        raise UsageError(
            f"all_to_all_single: {role} has {rows} rows, and its split sizes are {sizes}; they must be one "
            f"for each of the {size} ranks and add up to the rows"
        )
    row = memory.array.size // max(1, rows)
    return Packed(memory.array, memory.dtype, [rows * row for rows in sizes], memory.finish)


def sorted_by_size(tensors: Sequence[Tensor], fuse_below: int) -> tuple[list[list[int]], list[int]]:
    """Return indices of the tensors to fuse, those of a type together, and of those that go alone."""
    small: dict[torch.dtype, list[int]] = {}
    large = []
    for i, tensor in enumerate(tensors):
        if tensor.nbytes < fuse_below:
            small.setdefault(tensor.dtype, []).append(i)
        else:
            large.append(i)
    return list(small.values()), large


def _joined(tensors: Sequence[Tensor]) -> Tensor | None:
    """One flat tensor over all of them, if they lie one behind the other in one storage."""
    filled = [tensor for tensor in tensors if tensor.numel()]
    if not filled or any(t.layout is not torch.strided or not t.is_contiguous() for t in filled):
        return None
    first = filled[0]
    storage, address = first.untyped_storage().data_ptr(), first.data_ptr()
    for tensor in filled:
        if tensor.data_ptr() != address or tensor.untyped_storage().data_ptr() != storage:
            return None
        if tensor.is_conj() or tensor.is_neg():
            return None
        address += tensor.numel() * tensor.element_size()
    return first.detach().as_strided((sum(t.numel() for t in filled),), (1,))
