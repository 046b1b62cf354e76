"""The cells of the conformance suite: one call each, made on every rank and judged by the oracle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from pycomm.buffers import IN_PLACE
from pycomm.collectives.numbers import Array
from pycomm.collectives.spec import equal_form
from pycomm.communicator import Communicator
from pycomm.errors import PlanningError, Unsupported
from pycomm.testing.oracle import compare, expected, factor_of, inputs
from pycomm.types import CollectiveKind, DType, ReduceOp

__all__ = ["COLLECTIVES", "Cell", "cells", "ragged_table", "run_cell", "schedule_cells"]

_Kind = CollectiveKind
COLLECTIVES = tuple(k for k in _Kind if k not in (_Kind.SEND, _Kind.RECV))
LARGE = 20_011
_PRIME = 31
_GUARD = 8  # elements before and after each result that no call may touch
_GUARD_BYTE = 0xA5


@dataclass(frozen=True, slots=True)
class Cell:
    """One call.

    Attributes
    ----------
    kind, dtype, op, count, root
        The collective; ``count`` is the base of the table of counts for the ragged forms.
    in_place, blocking
        How it is called.
    algorithm
        The schedule to force; ``None`` for what the communicator chooses.
    """

    kind: CollectiveKind
    dtype: DType
    op: ReduceOp
    count: int
    root: int
    in_place: bool = False
    blocking: bool = True
    algorithm: str | None = None

    def __str__(self) -> str:
        words = [self.kind.label, self.dtype.label]
        if self.kind.reduces:
            words.append(self.op.label)
        words.append(f"count={self.count}")
        if self.kind.is_rooted:
            words.append(f"root={self.root}")
        words.append("in place" if self.in_place else "out of place")
        words.append("blocking" if self.blocking else "asynchronous")
        if self.algorithm is not None:
            words.append(f"algorithm={self.algorithm}")
        return " ".join(words)


def has_in_place(kind: CollectiveKind) -> bool:
    """Whether there are two ways to call it: a broadcast is always in place, a ragged alltoall never."""
    return kind not in (_Kind.BARRIER, _Kind.BROADCAST, _Kind.ALLTOALLV)


def counts_for(nranks: int) -> tuple[int, ...]:
    """Count classes: none, one, around the number of ranks, a prime, a large one."""
    return tuple(sorted({0, 1, nranks - 1, nranks, nranks + 1, _PRIME, LARGE}))


def _ops(kind: CollectiveKind, dtype: DType) -> tuple[ReduceOp, ...]:
    return tuple(op for op in ReduceOp if dtype.supports(op)) if kind.reduces else (ReduceOp.SUM,)


def cells(nranks: int, *, quick: bool = False) -> Iterator[Cell]:
    """All cells for a group of ``nranks``, in a fixed order; roots rotate.

    With ``quick`` every (collective, dtype, op) is called in one of its ways, in rotation, and float32 sums
    in all.
    """
    counts = counts_for(nranks)
    index = 0
    for kind in COLLECTIVES:
        dtypes = (DType.UINT8,) if kind is _Kind.BARRIER else tuple(DType)
        sizes = (0,) if kind is _Kind.BARRIER else counts
        places = (False, True) if has_in_place(kind) else (False,)
        ways = list(product(sizes, places, (True, False)))
        for dtype in dtypes:
            for op in _ops(kind, dtype):
                every = not quick or (dtype is DType.FLOAT32 and op is ReduceOp.SUM) or len(ways) == 2
                few = [way for way in ways if way[0] != LARGE]
                chosen = ways if every else [few[(5 * index) % len(few)]]
                index += 1
                for turn, (count, in_place, blocking) in enumerate(chosen):
                    root = (index + turn) % nranks if kind.is_rooted else -1
                    yield Cell(kind, dtype, op, count, root, in_place, blocking)


def schedule_cells(nranks: int, *, quick: bool = False) -> Iterator[Cell]:
    """Every planner's schedule for every collective that it serves."""
    from pycomm.planner import registry
    from pycomm.planner.base import PlanRequest

    sizes = (nranks + 1,) if quick else (0, 1, nranks + 1, 1009)
    for kind in COLLECTIVES:
        for root in (
            range(nranks) if kind.is_rooted and not quick else (nranks // 2 if kind.is_rooted else -1,)
        ):
            for candidate in registry.candidates(PlanRequest(kind, nranks, root)):
                places = (False, True) if has_in_place(kind) else (False,)
                for count, in_place in product((0,) if kind is _Kind.BARRIER else sizes, places):
                    for op in (ReduceOp.SUM, ReduceOp.AVG) if kind.reduces and not quick else (ReduceOp.SUM,):
                        yield Cell(kind, DType.INT32, op, count, root, in_place, True, candidate.name)


def ragged_table(kind: CollectiveKind, nranks: int, count: int) -> npt.NDArray[np.int64] | None:
    """Make the counts of a ragged call: different for each block, some of them zero."""
    if not kind.is_ragged:
        return None
    if kind is _Kind.ALLTOALLV:
        s, d = np.indices((nranks, nranks))
        return np.asarray((s * 3 + d * 5 + count) % (min(count, 2000) + 2), np.int64).reshape(-1)
    return np.asarray([(count * (1 + r % 3)) // 2 if r % 4 != 2 else 0 for r in range(nranks)], np.int64)


@lru_cache(maxsize=16)
def _truth(
    kind: CollectiveKind, dtype: DType, op: ReduceOp, nranks: int, root: int, count: int
) -> tuple[list[Array | None], list[Array | None]]:
    counts = ragged_table(kind, nranks, count)
    given = inputs(kind, dtype, op, nranks, root, count, counts)
    return given, expected(kind, dtype, op, given, root, counts)


def _guarded(size: int, dtype: DType) -> tuple[Array, Array]:
    """Allocate a result between guards; returns the whole and the result."""
    whole = np.full((size + 2 * _GUARD) * dtype.itemsize, _GUARD_BYTE, np.uint8)
    if dtype is DType.BOOL:
        whole[_GUARD : _GUARD + size] = 0
    return whole, whole[_GUARD * dtype.itemsize : (_GUARD + size) * dtype.itemsize].view(dtype.storage)


@dataclass(slots=True)
class _Bound:
    """A cell's buffers on one rank."""

    send: Any
    recv: Any
    result: Array | None  # where the result must be
    guard: Array | None


def _bind(cell: Cell, rank: int, given: Array | None, want: Array | None, counts: Any) -> _Bound:
    dtype, kind = cell.dtype, equal_form(cell.kind)
    if kind is _Kind.BROADCAST:
        size = cell.count
        whole, buf = _guarded(size, dtype)
        if given is not None:
            buf[...] = given
        return _Bound(buf, buf, buf, whole)
    if not cell.in_place or (given is None or want is None):
        whole, result = _guarded(0 if want is None else want.size, dtype)
        return _Bound(
            None if given is None else given.copy(),
            None if want is None else result,
            None if want is None else result,
            whole,
        )
    # In place: one buffer of the larger size, the smaller part at its natural place.
    size = max(given.size, want.size)
    whole, buf = _guarded(size, dtype)
    part = min(given.size, want.size)
    before = rank * part if counts is None else int(counts[:rank].sum())
    own = slice(before, before + part) if given.size != want.size or kind in _BLOCKED else slice(0, part)
    marked = rank % 2 == 0  # both ways to say it
    if kind in (_Kind.ALLGATHER, _Kind.GATHER):
        buf[own] = given
        return _Bound(IN_PLACE if marked or part == 0 else buf[own], buf, buf, whole)
    buf[: given.size] = given
    if kind in (_Kind.REDUCE_SCATTER, _Kind.SCATTER):
        return _Bound(buf, IN_PLACE if marked or part == 0 else buf[own], buf[own], whole)
    return _Bound(buf, IN_PLACE if marked or part == 0 else buf, buf, whole)


_BLOCKED = (_Kind.ALLGATHER, _Kind.GATHER, _Kind.REDUCE_SCATTER, _Kind.SCATTER)


def _call(comm: Communicator, cell: Cell, bound: _Bound, counts: Any) -> Any:
    """Make the call on the public interface."""
    kind = cell.kind
    options: dict[str, Any] = {"async_op": not cell.blocking, "algorithm": cell.algorithm}
    if kind is _Kind.BARRIER:
        return comm.barrier(**options)
    options["dtype"] = cell.dtype
    if kind.reduces:
        options["op"] = cell.op
        options["factor"] = factor_of(comm.rank) if cell.op is ReduceOp.PREMUL_SUM else None
    if kind.is_rooted:
        options["root"] = cell.root
    method = getattr(comm, kind.label)
    if kind is _Kind.BROADCAST:
        return method(bound.send, **options)
    if kind is _Kind.ALLTOALLV:
        table = counts.reshape(comm.size, comm.size)
        return method(bound.send, table[comm.rank], bound.recv, table[:, comm.rank], **options)
    if kind.is_ragged:
        return method(bound.send, bound.recv, counts, **options)
    return method(bound.send, bound.recv, **options)


def run_cell(comm: Communicator, cell: Cell) -> tuple[str, str]:
    """Make one call and judge it on this rank.

    Returns
    -------
    status, detail
        ``"pass"``; ``"unsupported"`` when it is declared so and raised ``Unsupported``; ``"fail"`` with what
        was wrong.

    Raises
    ------
    CommError
        The communicator is dead: no more cells can be run on it.
    """
    counts = ragged_table(cell.kind, comm.size, cell.count)
    offered = comm.supports(cell.kind, cell.dtype, cell.op)
    all_given, all_wanted = _truth(cell.kind, cell.dtype, cell.op, comm.size, cell.root, cell.count)
    given, want = all_given[comm.rank], all_wanted[comm.rank]
    bound = _bind(cell, comm.rank, given, want, counts)
    before = None if bound.send is None or bound.send is IN_PLACE else bound.send.copy()
    try:
        work = _call(comm, cell, bound, counts)
        work.wait()
    except Unsupported as error:
        return ("fail", f"is declared, but raised {error}") if offered else ("unsupported", str(error))
    except PlanningError as error:
        return "fail", str(error)
    if not offered:
        return "fail", "is declared unsupported, but did not raise"
    if not work.done():
        return "fail", "the work was waited for, but is not done"
    return _judge(cell, bound, want, before)


def _judge(cell: Cell, bound: _Bound, want: Array | None, before: Array | None) -> tuple[str, str]:
    if want is not None and bound.result is not None:
        rounds = cell.op is ReduceOp.AVG and cell.kind.reduces
        problem = compare(cell.dtype, bound.result, want, tolerance=1.0 if rounds else 0.0)
        if problem is not None:
            return "fail", problem
    if bound.guard is not None:
        edge = _GUARD * cell.dtype.itemsize
        if (bound.guard[:edge] != _GUARD_BYTE).any() or (bound.guard[-edge:] != _GUARD_BYTE).any():
            return "fail", "wrote outside the result"
    untouched = not cell.in_place and equal_form(cell.kind) is not _Kind.BROADCAST
    if untouched and before is not None and before.tobytes() != bound.send.tobytes():
        return "fail", "changed the input"
    return "pass", ""
