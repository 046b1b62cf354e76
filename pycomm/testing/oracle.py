"""Data whose right answer is known exactly, and how results are judged.

Every element depends on rank *and* position, so that a block in the wrong place or of the wrong rank shows.
Elements are small integers whose sums and products are exact in every element type, so results must be equal
bit by bit, whatever the order in which they were combined. Only an average of floats may round, once: it may
differ by one step of its type.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pycomm.collectives.numbers import Array, epsilon, narrow, widen
from pycomm.collectives.reference import evaluate
from pycomm.collectives.spec import equal_form
from pycomm.types import CollectiveKind, DType, ReduceOp

__all__ = ["compare", "contribution", "expected", "factor_of", "input_size", "inputs", "plain"]

_EXACT = {
    DType.FLOAT8_E5M2: 8,
    DType.FLOAT8_E4M3FN: 16,
    DType.BOOL: 1,
}  # integers up to here are exact; others: 100


def _store(dtype: DType, values: npt.NDArray[np.int64]) -> Array:
    if dtype.is_float:
        return narrow(dtype, values.astype(np.float64 if dtype is DType.FLOAT64 else np.float32))
    if dtype is DType.BOOL:
        return np.asarray(values % 2 == 1)
    return values.astype(dtype.storage)


def factor_of(rank: int) -> float:
    """Return what rank ``rank`` scales its contribution with in ``premul_sum``."""
    return float(1 + rank % 2)


def plain(dtype: DType, rank: int, count: int) -> Array:
    """Elements for collectives that only move data."""
    position = np.arange(count, dtype=np.int64)
    return _store(dtype, (position * 13 + rank * 29 + 1) % 97)


def contribution(dtype: DType, op: ReduceOp, rank: int, count: int, nranks: int) -> Array:
    """Elements of rank ``rank`` for a reducing collective."""
    position = np.arange(count, dtype=np.int64)
    signed = dtype.is_float or dtype.is_signed_int
    if dtype is DType.BOOL:
        return (position * 5 + rank * 3) % 4 < 2
    if op in (ReduceOp.BAND, ReduceOp.BOR, ReduceOp.BXOR):
        words = (
            (position.astype(np.uint64) + np.uint64(1))
            * np.uint64(0x9E3779B97F4A7C15)
            * np.uint64(2 * rank + 1)
        )
        return (words >> np.uint64(3)).astype(dtype.storage)
    if op in (ReduceOp.LAND, ReduceOp.LOR):
        # One contribution alone is not combined, so it must be 0 or 1 already.
        return _store(dtype, (position + rank) % 3 if nranks > 1 else (position + rank) % 2)
    if op is ReduceOp.PROD:
        two = (position - rank) % nranks < 2  # at most two factors of two at any position
        sign = np.where((position + rank) % 3 == 0, -1 if signed else 1, 1)
        return _store(dtype, np.where(two, 2, 1) * sign)
    limit = _EXACT.get(dtype, 100) // (2 if op is ReduceOp.PREMUL_SUM else 1)
    top = max(1, limit // nranks)
    values = (
        (position * 7 + rank * 5) % (2 * top + 1) - top if signed else (position * 7 + rank * 5) % (top + 1)
    )
    return _store(dtype, values if rank < limit else np.zeros_like(values))


def input_size(
    kind: CollectiveKind, nranks: int, rank: int, root: int, count: int, counts: npt.NDArray[np.int64] | None
) -> int:
    """Elements of rank ``rank``'s INPUT; -1 where it has none."""
    kind = equal_form(kind)
    if kind is CollectiveKind.BARRIER:
        return -1
    if kind in (CollectiveKind.BROADCAST, CollectiveKind.SCATTER) and rank != root:
        return -1
    if kind is CollectiveKind.ALLTOALL:
        return nranks * count if counts is None else int(counts.reshape(nranks, nranks)[rank].sum())
    if kind in (CollectiveKind.ALLGATHER, CollectiveKind.GATHER):
        return count if counts is None else int(counts[rank])
    if kind in (CollectiveKind.SCATTER, CollectiveKind.REDUCE_SCATTER):
        return nranks * count if counts is None else int(counts.sum())
    return count


def inputs(
    kind: CollectiveKind,
    dtype: DType,
    op: ReduceOp,
    nranks: int,
    root: int,
    count: int,
    counts: npt.NDArray[np.int64] | None = None,
) -> list[Array | None]:
    """Every rank's INPUT."""
    sizes = [input_size(kind, nranks, r, root, count, counts) for r in range(nranks)]
    return [
        None
        if size < 0
        else contribution(dtype, op, r, size, nranks)
        if kind.reduces
        else plain(dtype, r, size)
        for r, size in enumerate(sizes)
    ]


def expected(
    kind: CollectiveKind,
    dtype: DType,
    op: ReduceOp,
    given: Sequence[Array | None],
    root: int,
    counts: npt.NDArray[np.int64] | None = None,
) -> list[Array | None]:
    """Every rank's OUTPUT."""
    factors = [factor_of(r) for r in range(len(given))]
    return evaluate(kind, dtype, op, given, root=root, counts=counts, factors=factors)


def compare(dtype: DType, got: Array, want: Array, tolerance: float = 0.0) -> str | None:
    """Say how a result is wrong: first wrong index, wanted, got, how many; ``None`` when it is right.

    Parameters
    ----------
    got, want
        Storage arrays.
    tolerance
        Allowed difference relative to the wanted value, in steps of the type (multiples of its epsilon).
    """
    if got.shape != want.shape:
        return f"has shape {got.shape} instead of {want.shape}"
    shape = (want.size, dtype.itemsize)
    bad = (got.view(np.uint8).reshape(shape) != want.view(np.uint8).reshape(shape)).any(axis=1)
    if tolerance and bad.any():
        a, b = widen(dtype, got).astype(np.float64), widen(dtype, want).astype(np.float64)
        bad &= ~(np.abs(a - b) <= tolerance * epsilon(dtype) * np.abs(b))
    if not bad.any():
        return None
    first = int(np.argmax(bad))
    return (
        f"{int(bad.sum())} of {got.size} elements are wrong; the first is [{first}]: wanted "
        f"{widen(dtype, want)[first]}, got {widen(dtype, got)[first]}"
    )
