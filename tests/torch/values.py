"""What ranks contribute, and what must come out: the torch oracle of these tests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.distributed as dist
from torch import Tensor

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
FLOATS8 = (torch.float8_e4m3fn, torch.float8_e5m2)
INTEGERS = (
    torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
)  # fmt: skip
COMPLEX = (torch.complex64, torch.complex128)
ALL = (*FLOATS, *FLOATS8, *INTEGERS, *COMPLEX, torch.bool)
COUNTS = (0, 1, 7, 1000)

_Op = dist.ReduceOp


def mine(
    rank: int, shape: int | Sequence[int], dtype: torch.dtype = torch.float32, *, salt: int = 0
) -> Tensor:
    """Values that depend on rank and position, so small that four of them combine exactly in all types."""
    count = torch.Size([shape] if isinstance(shape, int) else shape).numel()
    at = torch.arange(count)
    low, high = (0, 2) if dtype in FLOATS8 or not dtype.is_signed else (-2, 3)
    values = (at * (2 * rank + 3) + at // 5 + rank + salt) % (high - low + 1) + low
    if dtype.is_complex:
        values = torch.complex(values.double(), (values.flip(0) + rank).double())
    return values.to(dtype).reshape(shape)


def combined(inputs: Sequence[Tensor], op: dist.ReduceOp.RedOpType) -> Tensor:
    """Combine the ranks' tensors."""
    dtype = inputs[0].dtype
    if dtype is torch.bool:
        meaning = {_Op.SUM: torch.any, _Op.MAX: torch.any, _Op.BOR: torch.any}
        return meaning.get(op, torch.all)(torch.stack(list(inputs)), dim=0)
    wide = torch.complex128 if dtype.is_complex else torch.float64 if dtype.is_floating_point else torch.int64
    stack = torch.stack([tensor.to(wide) for tensor in inputs])
    bitwise = {_Op.BAND: torch.bitwise_and, _Op.BOR: torch.bitwise_or, _Op.BXOR: torch.bitwise_xor}
    if op in bitwise:
        result = reduce(bitwise[op], stack)
    elif op == _Op.SUM:
        result = stack.sum(0)
    elif op == _Op.AVG:
        total = stack.sum(0)
        result = total / len(inputs) if wide != torch.int64 else total.div(len(inputs), rounding_mode="trunc")
    elif op == _Op.PRODUCT:
        result = stack.prod(0)
    else:
        result = stack.amin(0) if op == _Op.MIN else stack.amax(0)
    return result.to(dtype)


def same(got: Tensor, want: Tensor, what: str) -> None:
    """Check shape, type and every element, NaN being equal to NaN."""
    assert got.shape == want.shape, f"{what}: wanted shape {tuple(want.shape)}, got {tuple(got.shape)}"
    assert got.dtype == want.dtype, f"{what}: wanted {want.dtype}, got {got.dtype}"
    if got.dtype in (*FLOATS8, torch.uint16, torch.uint32, torch.uint64):
        got, want = (t.to(torch.float32 if t.dtype in FLOATS8 else torch.int64) for t in (got, want))
    differ = ~(got.eq(want) | (got.ne(got) & want.ne(want))).reshape(-1)
    if differ.any():
        first = int(differ.nonzero()[0])
        raise AssertionError(
            f"{what}: {int(differ.sum())} of {differ.numel()} elements differ, the first at {first}: "
            f"wanted {want.reshape(-1)[first]}, got {got.reshape(-1)[first]}"
        )


def close(got: Tensor, want: Tensor, what: str, *, roundings: int) -> None:
    """Check elements within that many roundings of the largest one."""
    bound = roundings * torch.finfo(want.dtype).eps * float(want.abs().max().clamp(min=1))
    worst = float((got - want).abs().max()) if got.numel() else 0.0
    assert worst <= bound, f"{what}: off by {worst:g}, allowed {bound:g}"
