"""What every collective delivers, computed from all ranks' inputs: the oracle of backends and tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pycomm.collectives.numbers import Array, fold
from pycomm.collectives.spec import equal_form
from pycomm.types import CollectiveKind, DType, ReduceOp

__all__ = ["block_counts", "evaluate"]


def block_counts(
    kind: CollectiveKind, nranks: int, count: int, counts: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.int64]:
    """Elements of every block of a collective (see :mod:`pycomm.collectives.spec`).

    Parameters
    ----------
    kind, nranks
        The collective and the size of its group.
    count
        Elements of the whole array (allreduce, broadcast, reduce) or of one rank's block.
    counts
        The count of every block of a ragged call, else ``None``.
    """
    if counts is not None:
        return np.asarray(counts, np.int64).reshape(-1)
    kind = equal_form(kind)
    if kind is CollectiveKind.ALLTOALL:
        return np.full(nranks * nranks, count, np.int64)
    blocked = kind in (
        CollectiveKind.ALLGATHER,
        CollectiveKind.GATHER,
        CollectiveKind.SCATTER,
        CollectiveKind.REDUCE_SCATTER,
    )
    return np.full(nranks if blocked else 1, count, np.int64)


def _split(array: Array, counts: npt.NDArray[np.int64]) -> list[Array]:
    return np.split(array, np.cumsum(counts)[:-1])


def evaluate(
    kind: CollectiveKind,
    dtype: DType,
    op: ReduceOp,
    inputs: Sequence[Array | None],
    *,
    root: int = -1,
    counts: npt.NDArray[np.int64] | None = None,
    factors: Sequence[float] | None = None,
) -> list[Array | None]:
    """Compute what each rank's OUTPUT must hold.

    Parameters
    ----------
    kind, dtype, op, root
        The collective.
    inputs
        Each rank's INPUT as a flat storage array; ``None`` where the rank has none.
    counts
        The count of every block of a ragged collective.
    factors
        Each rank's factor for ``premul_sum``.

    Returns
    -------
    list of numpy.ndarray or None
        One fresh storage array per rank; ``None`` where the rank has no output.
    """
    n = len(inputs)
    kind = equal_form(kind)
    if kind is CollectiveKind.BARRIER:
        return [None] * n
    if kind in (CollectiveKind.BROADCAST, CollectiveKind.SCATTER):
        return _from_root(kind, n, inputs[root], counts)
    given = [i for i in inputs if i is not None]
    if kind is CollectiveKind.ALLTOALL:
        table = np.full((n, n), given[0].size // n) if counts is None else counts.reshape(n, n)
        rows = [_split(given[s], table[s]) for s in range(n)]
        return [np.concatenate([rows[s][r] for s in range(n)]) for r in range(n)]
    if kind in (CollectiveKind.ALLGATHER, CollectiveKind.GATHER):
        whole = np.concatenate(given)
    else:
        whole = fold(dtype, op, given, factors)
    if kind is CollectiveKind.REDUCE_SCATTER:
        parts = _split(whole, np.full(n, whole.size // n) if counts is None else counts)
        return [p.copy() for p in parts]
    everywhere = kind in (CollectiveKind.ALLREDUCE, CollectiveKind.ALLGATHER)
    return [whole.copy() if everywhere or r == root else None for r in range(n)]


def _from_root(
    kind: CollectiveKind, n: int, whole: Array | None, counts: npt.NDArray[np.int64] | None
) -> list[Array | None]:
    if whole is None:
        raise ValueError("the root has no input")
    if kind is CollectiveKind.BROADCAST:
        return [whole.copy() for _ in range(n)]
    parts = _split(whole, np.full(n, whole.size // n) if counts is None else counts)
    return [p.copy() for p in parts]
