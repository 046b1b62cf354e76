"""Where everything lies and what must lie there: all ranks' memory as one run of chunk-sized *places*."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pycomm.collectives.spec import block_count, buffer_chunks, equal_form, input_chunks, output_chunks
from pycomm.schedule import Schedule, Space
from pycomm.types import CollectiveKind

__all__ = ["Layout", "buffer_space", "chunk_count", "layout"]

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

EVERY_RANK = -1
NOTHING = -1


@dataclass(frozen=True, slots=True)
class Layout:
    """All places of a schedule.

    Parameters
    ----------
    bases
        Place ``bases[3 * r + s]`` is index 0 of rank r's space s; one more entry ends the last.
    names
        Global chunk that each place stands for.
    initial
        Global chunk that lies there at the start, -1 for nothing.
    wanted
        Global chunk that must lie there at the end, -1 for anything.
    source
        Rank that must have contributed it, -1 for all of them together.
    shape
        Places with equal shape hold chunks of equal size, whatever the counts.
    kept
        Per rank: whether it has no result and must find its buffer as it was.
    """

    bases: Int64s
    names: Int32s
    initial: Int32s
    wanted: Int32s
    source: Int32s
    shape: Int32s
    kept: npt.NDArray[np.bool_]

    def size(self, rank: int, space: int) -> int:
        """Chunks of a rank's space."""
        return int(self.bases[3 * rank + space + 1] - self.bases[3 * rank + space])

    def locate(self, place: int) -> tuple[int, Space, int]:
        """Rank, space and index of a place."""
        where = int(np.searchsorted(self.bases, place, side="right")) - 1
        return where // 3, Space(where % 3), place - int(self.bases[where])


def buffer_space(kind: CollectiveKind) -> Space:
    """Find the name of the one buffer of an in-place schedule."""
    if equal_form(kind) in (CollectiveKind.REDUCE_SCATTER, CollectiveKind.SCATTER):
        return Space.INPUT
    return Space.OUTPUT


def _sources(schedule: Schedule, chunks: Int64s) -> Int64s:
    """Rank whose contribution each result chunk is, -1 for everybody's."""
    form = equal_form(schedule.kind)
    if form.reduces or form is CollectiveKind.BARRIER:
        return np.full(chunks.shape, EVERY_RANK, np.int64)
    if form in (CollectiveKind.BROADCAST, CollectiveKind.SCATTER):
        return np.full(chunks.shape, schedule.root, np.int64)
    block = chunks // schedule.pieces
    return block // schedule.nranks if form is CollectiveKind.ALLTOALL else block


def _natural(schedule: Schedule, rank: int, every: CollectiveKind, rooted: CollectiveKind) -> int:
    """Index of the rank's own block in the buffer of an in-place schedule."""
    form = equal_form(schedule.kind)
    return rank * schedule.pieces if form is every or (form is rooted and rank == schedule.root) else 0


def _shapes(schedule: Schedule, names: Int32s) -> Int32s:
    if not schedule.kind.is_ragged:
        return names % schedule.pieces
    if schedule.kind is CollectiveKind.ALLTOALLV and schedule.in_place:
        # The block that arrives takes the place of the one that leaves: counts are symmetric.
        n, (block, piece) = schedule.nranks, np.divmod(names, schedule.pieces)
        src, dst = np.divmod(block, n)
        shapes: Int32s = (np.minimum(src, dst) * n + np.maximum(src, dst)) * schedule.pieces + piece
        return shapes
    return names


def layout(schedule: Schedule) -> Layout:
    """Lay out the memory of all ranks; the schedule's header must be sound."""
    n = schedule.nranks
    sizes = np.zeros(3 * n + 1, np.int64)
    names: list[npt.NDArray[np.integer]] = []
    given: list[tuple[int, Int64s]] = []
    results: list[tuple[int, Int64s, Int64s]] = []
    kept = np.zeros(n, np.bool_)
    at = 0
    for rank in range(n):
        where = (schedule.kind, n, schedule.root, schedule.pieces, rank)
        inputs, outputs = input_chunks(*where), output_chunks(*where)
        slots = schedule.scratch_slots(rank)
        if schedule.in_place:
            buffer = buffer_chunks(*where)
            sizes[3 * rank + 1 + buffer_space(schedule.kind)] = buffer.size
            start = at + _natural(schedule, rank, CollectiveKind.ALLGATHER, CollectiveKind.GATHER)
            end = at + _natural(schedule, rank, CollectiveKind.REDUCE_SCATTER, CollectiveKind.SCATTER)
            names.extend((buffer, slots))
            if not outputs.size:
                kept[rank] = True
                results.append((at, inputs, np.full(inputs.shape, rank, np.int64)))
        else:
            sizes[3 * rank + 1], sizes[3 * rank + 2] = inputs.size, outputs.size
            start, end = at, at + inputs.size
            names.extend((inputs, outputs, slots))
        sizes[3 * rank + 3] = slots.size
        given.append((start, inputs))
        results.append((end, outputs, _sources(schedule, outputs)))
        at = int(sizes[3 * rank + 1 : 3 * rank + 4].sum()) + at
    named = np.concatenate(names).astype(np.int32) if names else np.empty(0, np.int32)
    initial, wanted, source = (np.full(at, NOTHING, np.int32) for _ in range(3))
    for start, chunks in given:
        initial[start : start + chunks.size] = chunks
    for start, chunks, sources in results:
        wanted[start : start + chunks.size] = chunks
        source[start : start + chunks.size] = sources
    return Layout(np.cumsum(sizes), named, initial, wanted, source, _shapes(schedule, named), kept)


def chunk_count(schedule: Schedule) -> int:
    """Count the global chunks of the schedule's collective."""
    return block_count(schedule.kind, schedule.nranks) * schedule.pieces
