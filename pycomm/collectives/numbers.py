"""What the reduce ops mean on each element type, in plain NumPy: independent of the compiled core.

Arrays here hold the *storage* of a type (see :attr:`pycomm.types.DType.storage`): ``uint16`` for bfloat16,
``uint8`` for the float8 types. Half and float8 types are computed in float32 and rounded to nearest, ties to
even.

Rules that a reader might ask for: integers wrap around; ``min`` and ``max`` propagate NaN; ``land`` and
``lor`` give 0 or 1 and take NaN for true; on bool, sum and max are "or", prod and min are "and"; an integer
average divides with truncation toward zero; a scaled integer is truncated toward zero and saturated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pycomm.types import DType, ReduceOp

__all__ = ["Array", "combine", "divide", "epsilon", "fold", "narrow", "scale", "widen"]

Array = npt.NDArray[Any]
_FLOAT8 = {
    DType.FLOAT8_E4M3FN: (4, 3, 7),
    DType.FLOAT8_E5M2: (5, 2, 15),
}  # exponent bits, mantissa bits, bias
_NARROW = frozenset({DType.FLOAT16, DType.BFLOAT16, DType.FLOAT8_E4M3FN, DType.FLOAT8_E5M2})
_EPSILON = {
    DType.FLOAT64: 2.0**-52,
    DType.FLOAT32: 2.0**-23,
    DType.FLOAT16: 2.0**-10,
    DType.BFLOAT16: 2.0**-7,
    DType.FLOAT8_E4M3FN: 2.0**-3,
    DType.FLOAT8_E5M2: 2.0**-2,
}


def epsilon(dtype: DType) -> float:
    """Distance from 1.0 to the next value of a floating-point type; 0 for the others."""
    return _EPSILON.get(dtype, 0.0)


@cache
def _float8_table(dtype: DType) -> npt.NDArray[np.float32]:
    """Value of each of the 256 codes."""
    ebits, mbits, bias = _FLOAT8[dtype]
    codes = np.arange(256)
    exponent = (codes >> mbits) & ((1 << ebits) - 1)
    mantissa = codes & ((1 << mbits) - 1)
    normal = (1 + mantissa / (1 << mbits)) * 2.0 ** (exponent - bias)
    values = np.where(exponent == 0, mantissa / (1 << mbits) * 2.0 ** (1 - bias), normal)
    if dtype is DType.FLOAT8_E4M3FN:  # no infinities: only the last code of each sign is special
        values[(codes & 0x7F) == 0x7F] = np.nan
    else:
        values[(exponent == 31) & (mantissa == 0)] = np.inf
        values[(exponent == 31) & (mantissa != 0)] = np.nan
    return np.where(codes >= 128, -values, values).astype(np.float32)


def _to_float8(dtype: DType, values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Round to the nearest code, ties to even; beyond the largest lies infinity (e5m2) or NaN (e4m3fn)."""
    ebits, mbits, bias = _FLOAT8[dtype]
    first_special = 0x7F if dtype is DType.FLOAT8_E4M3FN else 0x7C
    grid = _float8_table(dtype)[:first_special].astype(np.float64)
    # What the first special code would be worth if the format went on: the bound for rounding up to it.
    exponent, mantissa = first_special >> mbits, first_special & ((1 << mbits) - 1)
    grid = np.append(grid, (1 + mantissa / (1 << mbits)) * 2.0 ** (exponent - bias))
    size = np.abs(values).astype(np.float64)
    above = np.clip(np.searchsorted(grid, size), 1, first_special)
    below = above - 1
    up, down = grid[above] - size, size - grid[below]
    code = np.where(up < down, above, np.where(up > down, below, np.where(above % 2 == 0, above, below)))
    code = np.where(np.isnan(values), 0x7F if ebits == 4 else 0x7E, code)
    return np.asarray(code | np.where(np.signbit(values), 0x80, 0), np.uint8)


def widen(dtype: DType, bits: Array) -> Array:
    """Values of the stored elements: float32 for half and float8 types, the array itself for all others."""
    if dtype is DType.FLOAT16:
        return bits.astype(np.float32)
    if dtype is DType.BFLOAT16:
        return (bits.astype(np.uint32) << 16).view(np.float32)
    if dtype in _FLOAT8:
        return _float8_table(dtype)[bits]
    return bits


def narrow(dtype: DType, values: Array) -> Array:
    """Store float32 values in a half or float8 type, rounded once; other types are cast to their storage."""
    with np.errstate(all="ignore"):
        if dtype is DType.BFLOAT16:
            word = np.ascontiguousarray(values, np.float32).view(np.uint32)
            rounded = (word + 0x7FFF + ((word >> 16) & 1)) >> 16
            return np.where(np.isnan(values), (word >> 16) | 0x40, rounded).astype(np.uint16)
        if dtype in _FLOAT8:
            return _to_float8(dtype, np.asarray(values, np.float32))
        return np.asarray(values).astype(dtype.storage, copy=False)


_PLAIN: dict[ReduceOp, Callable[[Array, Array], Array]] = {
    ReduceOp.SUM: np.add,
    ReduceOp.AVG: np.add,
    ReduceOp.PREMUL_SUM: np.add,
    ReduceOp.PROD: np.multiply,
    ReduceOp.MIN: np.minimum,
    ReduceOp.MAX: np.maximum,
    ReduceOp.BAND: np.bitwise_and,
    ReduceOp.BOR: np.bitwise_or,
    ReduceOp.BXOR: np.bitwise_xor,
    ReduceOp.LAND: np.logical_and,
    ReduceOp.LOR: np.logical_or,
}


def _apply(dtype: DType, op: ReduceOp, a: Array, b: Array) -> Array:
    """One op on widened values, not rounded back."""
    if dtype is DType.BOOL and op in (ReduceOp.SUM, ReduceOp.PROD):
        op = ReduceOp.LOR if op is ReduceOp.SUM else ReduceOp.LAND
    with np.errstate(all="ignore"):
        return np.asarray(_PLAIN[op](a, b)).astype(a.dtype, copy=False)


def combine(dtype: DType, op: ReduceOp, a: Array, b: Array) -> Array:
    """Compute ``a (op) b`` in storage form, rounded; ``avg`` and ``premul_sum`` combine as sum."""
    return narrow(dtype, _apply(dtype, op, widen(dtype, a), widen(dtype, b)))


def scale(dtype: DType, values: Array, factor: float) -> Array:
    """Compute ``values * factor`` in storage form: the first step of ``premul_sum``."""
    with np.errstate(all="ignore"):
        if dtype.is_float:
            wide = widen(dtype, values)
            return narrow(dtype, wide * wide.dtype.type(factor))
        info = np.iinfo(dtype.storage.str)
        product = np.trunc(values.astype(np.float64) * factor)
        fits = (product > float(info.min)) & (product < float(info.max))
        inside = np.where(fits, product, 0.0).astype(dtype.storage)
        return np.where(fits, inside, np.where(product > 0, info.max, info.min)).astype(dtype.storage)


def divide(dtype: DType, values: Array, divisor: int) -> Array:
    """Compute ``values / divisor`` in storage form, integers truncating toward zero: the end of ``avg``."""
    return narrow(dtype, _divide_wide(dtype, widen(dtype, values), divisor))


def _divide_wide(dtype: DType, wide: Array, divisor: int) -> Array:
    if dtype.is_float:
        return np.asarray(wide / wide.dtype.type(divisor))
    quotient = wide // wide.dtype.type(divisor) if divisor <= np.iinfo(wide.dtype).max else wide * 0
    short = (quotient < 0) & (quotient * wide.dtype.type(divisor) != wide)
    return np.asarray(quotient + short.astype(wide.dtype))


def fold(
    dtype: DType, op: ReduceOp, contributions: Sequence[Array], factors: Sequence[float] | None = None
) -> Array:
    """Combine all contributions in rank order and round once: what every reducing collective delivers.

    Parameters
    ----------
    dtype, op
        Element type and reduce op.
    contributions
        One storage array per rank, all of one length.
    factors
        The scale of each rank's contribution for ``premul_sum``; all ones when ``None``.

    Returns
    -------
    numpy.ndarray
        The result in storage form. One contribution alone comes back as it is (scaled, for ``premul_sum``).
    """
    n = len(contributions)
    if op is ReduceOp.PREMUL_SUM and factors is not None:
        contributions = [scale(dtype, c, f) for c, f in zip(contributions, factors, strict=True)]
    # The exact sum of small integers needs more room than they have before it is divided.
    roomy = np.int64 if dtype.is_signed_int else np.uint64
    exact = op is ReduceOp.AVG and not dtype.is_float
    wide = [c.astype(roomy) if exact else widen(dtype, c) for c in contributions]
    total = wide[0].copy()
    for other in wide[1:]:
        total = _apply(dtype, op, total, other)
    if op is ReduceOp.AVG:
        total = _divide_wide(dtype, total, n)
    return np.array(narrow(dtype, total), copy=True) if dtype in _NARROW else total.astype(dtype.storage)
