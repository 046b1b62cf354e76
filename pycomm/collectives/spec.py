"""What each collective means, in chunks: which one each index of INPUT and OUTPUT is, and what must be in it.

A collective's data is cut into *blocks*, a block into ``pieces`` chunks; chunk j of a block of c elements
covers elements ``j*c//pieces .. (j+1)*c//pieces``, so every run of chunks of a space is one contiguous run of
memory.

=============================  =============  =====================  ===============================
kind (and its ragged form)     global chunks  INPUT of rank r        OUTPUT of rank r
=============================  =============  =====================  ===============================
allreduce, barrier             p              0 .. p                 0 .. p, every contribution
broadcast                      p              0 .. p at the root     0 .. p, the root's
reduce                         p              0 .. p                 0 .. p at the root, every one
allgather                      n*p            block r                all blocks, block s from s
gather                         n*p            block r                at the root as allgather
scatter                        n*p            all blocks at root     block r, the root's
reduce_scatter                 n*p            all blocks             block r, every contribution
alltoall                       n*n*p          blocks r*n .. r*n+n    blocks s*n+r for s < n
=============================  =============  =====================  ===============================

A barrier is an allreduce of zero bytes for which a contribution may count more than once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pycomm.types import CollectiveKind

__all__ = ["block_count", "buffer_chunks", "equal_form", "input_chunks", "output_chunks"]

_EQUAL = {
    CollectiveKind.ALLGATHERV: CollectiveKind.ALLGATHER,
    CollectiveKind.REDUCE_SCATTERV: CollectiveKind.REDUCE_SCATTER,
    CollectiveKind.ALLTOALLV: CollectiveKind.ALLTOALL,
    CollectiveKind.GATHERV: CollectiveKind.GATHER,
    CollectiveKind.SCATTERV: CollectiveKind.SCATTER,
}
_NONE: npt.NDArray[np.int64] = np.empty(0, np.int64)


def equal_form(kind: CollectiveKind) -> CollectiveKind:
    """Drop the ``v``: a ragged collective moves the same chunks as its equal form, of other sizes."""
    return _EQUAL.get(kind, kind)


def block_count(kind: CollectiveKind, nranks: int) -> int:
    """Count the blocks of the collective; each has ``pieces`` chunks."""
    kind = equal_form(kind)
    if kind is CollectiveKind.ALLTOALL:
        return nranks * nranks
    if kind in (
        CollectiveKind.ALLGATHER,
        CollectiveKind.GATHER,
        CollectiveKind.SCATTER,
        CollectiveKind.REDUCE_SCATTER,
    ):
        return nranks
    return 1


def _chunks(blocks: npt.NDArray[np.int64], pieces: int) -> npt.NDArray[np.int64]:
    return (blocks[:, None] * pieces + np.arange(pieces)).reshape(-1)


def input_chunks(
    kind: CollectiveKind, nranks: int, root: int, pieces: int, rank: int
) -> npt.NDArray[np.int64]:
    """Global chunk of each index of rank ``rank``'s INPUT; empty where the rank has no input."""
    kind = equal_form(kind)
    if kind in (CollectiveKind.BROADCAST, CollectiveKind.SCATTER) and rank != root:
        return _NONE
    if kind in (CollectiveKind.ALLGATHER, CollectiveKind.GATHER):
        return _chunks(np.array([rank]), pieces)
    if kind is CollectiveKind.ALLTOALL:
        return _chunks(np.arange(rank * nranks, (rank + 1) * nranks), pieces)
    return _chunks(np.arange(block_count(kind, nranks)), pieces)


def output_chunks(
    kind: CollectiveKind, nranks: int, root: int, pieces: int, rank: int
) -> npt.NDArray[np.int64]:
    """Global chunk of each index of rank ``rank``'s OUTPUT; empty where the rank has no output."""
    kind = equal_form(kind)
    if kind in (CollectiveKind.REDUCE, CollectiveKind.GATHER) and rank != root:
        return _NONE
    if kind in (CollectiveKind.SCATTER, CollectiveKind.REDUCE_SCATTER):
        return _chunks(np.array([rank]), pieces)
    if kind is CollectiveKind.ALLTOALL:
        return _chunks(np.arange(nranks) * nranks + rank, pieces)
    return _chunks(np.arange(block_count(kind, nranks)), pieces)


def buffer_chunks(
    kind: CollectiveKind, nranks: int, root: int, pieces: int, rank: int
) -> npt.NDArray[np.int64]:
    """Global chunk of each index of the one buffer of an in-place schedule.

    It is the OUTPUT (``reduce_scatter``, ``scatter``: the INPUT) or, where the rank has none, the other of
    the two: a rank that is not the root of ``gather`` or ``scatter`` holds its one block from index 0. The
    buffer of ``alltoall`` is named by its final content; index d of it starts as the block for rank d.
    """
    first, second = output_chunks, input_chunks
    if equal_form(kind) in (CollectiveKind.REDUCE_SCATTER, CollectiveKind.SCATTER):
        first, second = second, first
    chunks = first(kind, nranks, root, pieces, rank)
    return chunks if chunks.size else second(kind, nranks, root, pieces, rank)
