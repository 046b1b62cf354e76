"""Binding a schedule to counts: how many elements each chunk has, and where each chunk of a space begins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pycomm.collectives.reference import block_counts
from pycomm.collectives.spec import buffer_chunks, input_chunks, output_chunks
from pycomm.schedule.ir import Schedule

__all__ = ["Layout", "bind"]

Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the chunks of one rank's spaces lie, in elements.

    Chunk i of a space covers elements ``offsets[i] .. offsets[i + 1]``; each array has one entry more than
    the space has chunks, and its last entry is the size of the space. Of an in-place schedule, INPUT and
    OUTPUT are the same.
    """

    input: Offsets
    output: Offsets
    scratch: Offsets


def _running(sizes: Offsets) -> Offsets:
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def bind(schedule: Schedule, rank: int, count: int, counts: Offsets | None = None) -> Layout:
    """Compute rank ``rank``'s layout.

    Parameters
    ----------
    schedule
        The schedule.
    rank
        Whose program.
    count
        Elements of the whole array (allreduce, broadcast, reduce) or of one rank's block.
    counts
        The count of every block of a ragged call, else ``None``.
    """
    kind, n, root, pieces = schedule.kind, schedule.nranks, schedule.root, schedule.pieces
    blocks = block_counts(kind, n, count, counts)
    edges = blocks[:, None] * np.arange(pieces + 1, dtype=np.int64) // pieces
    sizes = np.diff(edges, axis=1).reshape(-1)
    scratch = _running(sizes[schedule.scratch_slots(rank)])
    if schedule.in_place:
        whole = _running(sizes[buffer_chunks(kind, n, root, pieces, rank)])
        return Layout(whole, whole, scratch)
    return Layout(
        _running(sizes[input_chunks(kind, n, root, pieces, rank)]),
        _running(sizes[output_chunks(kind, n, root, pieces, rank)]),
        scratch,
    )
