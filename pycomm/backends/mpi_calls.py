"""Calls in MPI's words: datatypes, reduce ops, and the methods of mpi4py that carry a call out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pycomm.backends.base import Bytes, Call
from pycomm.backends.common import Operands, describe, displacements, matrix, operands
from pycomm.errors import Unsupported
from pycomm.types import CollectiveKind, DType, ReduceOp

__all__ = ["INT_MAX", "Step", "Steps", "Types", "given"]

INT_MAX = 2**31 - 1


class Types:
    """MPI's names for our types, and messages of any length."""

    def __init__(self, mpi: Any) -> None:
        self._mpi = mpi
        self.large_counts = mpi.Get_version() >= (4, 0)
        self.of: Mapping[DType, Any] = {
            DType.FLOAT64: mpi.DOUBLE,
            DType.FLOAT32: mpi.FLOAT,
            DType.INT8: mpi.INT8_T,
            DType.INT16: mpi.INT16_T,
            DType.INT32: mpi.INT32_T,
            DType.INT64: mpi.INT64_T,
            DType.UINT8: mpi.UINT8_T,
            DType.UINT16: mpi.UINT16_T,
            DType.UINT32: mpi.UINT32_T,
            DType.UINT64: mpi.UINT64_T,
            DType.BOOL: mpi.C_BOOL,
        }
        self.bits = {1: mpi.BYTE, 2: mpi.UINT16_T, 4: mpi.UINT32_T, 8: mpi.UINT64_T}
        self.ops = {
            ReduceOp.SUM: mpi.SUM,
            ReduceOp.PROD: mpi.PROD,
            ReduceOp.MIN: mpi.MIN,
            ReduceOp.MAX: mpi.MAX,
            ReduceOp.BAND: mpi.BAND,
            ReduceOp.BOR: mpi.BOR,
            ReduceOp.BXOR: mpi.BXOR,
            ReduceOp.LAND: mpi.LAND,
            ReduceOp.LOR: mpi.LOR,
        }
        self._made: dict[tuple[int, int], Any] = {}

    def block(self, count: int, itemsize: int) -> tuple[int, Any]:
        """Count and datatype for ``count`` elements; one element of a made type beyond 32-bit counts."""
        base = self.bits[itemsize]
        if count <= INT_MAX or self.large_counts:
            return count, base
        key = (count, itemsize)
        if key not in self._made:
            half = 1 << 30
            whole, rest = divmod(count, half)
            unit = base.Create_contiguous(half)
            parts = [(whole, 0, unit), (rest, whole * half * itemsize, base)]
            self._made[key] = self._mpi.Datatype.Create_struct(*map(list, zip(*parts, strict=True))).Commit()
        return 1, self._made[key]

    def message(self, view: Bytes, itemsize: int = 1) -> list[Any]:
        """All of ``view`` as a message."""
        count, datatype = self.block(view.nbytes // itemsize, itemsize)
        return [view, count, datatype]


Step = tuple[str, tuple[Any, ...]]


class Steps:
    """Turns calls into steps: names and arguments of mpi4py methods, in the order every rank uses."""

    def __init__(self, types: Types, rank: int, size: int, in_place: object) -> None:
        self._types = types
        self._rank, self._size = rank, size
        self._in_place = in_place

    def steps(self, call: Call) -> tuple[list[Step], Callable[[], None] | None]:
        """Return the steps of ``call`` and what is left to do when they have ended."""
        if call.kind is CollectiveKind.BARRIER:
            return [("Barrier", ())], None
        if call.kind is CollectiveKind.SEND:
            return [("Send", (self._types.message(given(call.send)), call.peer, call.tag))], None
        mine = operands(call, self._rank, self._size)
        if call.kind.reduces:
            return self._reduction(call, mine)
        if call.counts is not None:
            return [self._ragged(call, mine)], None
        return [self._move(call, mine)], _copy_at_root(call, mine, self._rank)

    def _reduction(self, call: Call, mine: Operands) -> tuple[list[Step], Callable[[], None] | None]:
        datatype, op = self._types.of[call.dtype], self._types.ops[call.op]
        scatter = call.kind in (CollectiveKind.REDUCE_SCATTER, CollectiveKind.REDUCE_SCATTERV)
        if scatter:
            # MPI's in-place form leaves the result at the buffer's start, ours at the block's own place.
            result = np.empty_like(mine.recv) if mine.in_place else mine.recv
            steps = self._reduce_scatter(call, mine.send, result, datatype, op)
            return steps, (lambda: np.copyto(mine.recv, result)) if mine.in_place else None
        width = call.dtype.itemsize
        piece = call.count if self._types.large_counts or call.count <= INT_MAX else 1 << 30
        pieces: list[Step] = []
        for start in range(0, call.count, piece) if call.count else (0,):
            stop = min(call.count, start + piece)
            send, recv = (v[start * width : stop * width] for v in (mine.send, mine.recv))
            here = mine.in_place and recv.nbytes == send.nbytes
            source: Any = self._in_place if here else [send, stop - start, datatype]
            target: Any = [recv, stop - start, datatype]
            if call.kind is CollectiveKind.REDUCE:
                at_root = self._rank == call.root
                pieces.append(("Reduce", (source, target if at_root else None, op, call.root)))
            else:
                pieces.append(("Allreduce", (source, target, op)))
        return pieces, None

    def _reduce_scatter(self, call: Call, send: Bytes, result: Bytes, datatype: Any, op: Any) -> list[Step]:
        counts = np.full(self._size, call.count, np.int64) if call.counts is None else call.counts
        total = int(counts.sum())
        if total > INT_MAX and not self._types.large_counts:
            return self._reduce_each(call, send, result, counts.tolist())
        if call.counts is None:  # mpi4py wants the count of one block on both sides
            source, target = [send, call.count, datatype], [result, call.count, datatype]
            return [("Reduce_scatter_block", (source, target, op))]
        source = [send, total, datatype]
        target = [result, int(counts[self._rank]), datatype]
        return [("Reduce_scatter", (source, target, counts.tolist(), op))]

    def _reduce_each(self, call: Call, send: Bytes, result: Bytes, counts: list[int]) -> list[Step]:
        """Compose a reduce-scatter beyond 32-bit counts: one reduce to each rank."""
        steps: list[Step] = []
        begin = 0
        for root, count in enumerate(counts):
            part = send[begin * call.dtype.itemsize : (begin + count) * call.dtype.itemsize]
            target = result if root == self._rank else None
            one = dataclasses.replace(
                call, kind=CollectiveKind.REDUCE, root=root, count=count, counts=None, send=part, recv=target
            )
            steps += self.steps(one)[0]
            begin += count
        return steps

    def _move(self, call: Call, mine: Operands) -> Step:
        count, datatype = self._types.block(call.count, call.dtype.itemsize)
        send: Any = [mine.send, count, datatype]
        recv: Any = [mine.recv, count, datatype]
        here = self._rank == call.root
        if call.kind is CollectiveKind.BROADCAST:
            return "Bcast", (send if here else recv, call.root)
        if call.kind is CollectiveKind.ALLGATHER:
            return "Allgather", (self._in_place if mine.in_place else send, recv)
        if call.kind is CollectiveKind.ALLTOALL:
            return "Alltoall", (self._in_place if mine.in_place else send, recv)
        if call.kind is CollectiveKind.GATHER:
            source = self._in_place if here and mine.in_place else send
            return "Gather", (source, recv if here else None, call.root)
        if call.kind is CollectiveKind.SCATTER:
            target = self._in_place if here and mine.in_place else recv
            return "Scatter", (send if here else None, target, call.root)
        raise Unsupported(f"the mpi backend has no {call.kind.label}")

    def _ragged(self, call: Call, mine: Operands) -> Step:
        width, rank = call.dtype.itemsize, self._rank
        datatype = self._types.bits[width]
        if call.kind is CollectiveKind.ALLTOALLV:
            table = matrix(call, self._size)
            self._refuse_large(call, int(max(table.sum(axis=0).max(), table.sum(axis=1).max())))
            send: Any = self._vector(mine.send, table[rank], datatype)
            source = self._in_place if mine.in_place else send
            return "Alltoallv", (source, self._vector(mine.recv, table[:, rank], datatype))
        counts = np.asarray(call.counts, np.int64)
        self._refuse_large(call, int(counts.sum()))
        own = int(counts[rank])
        here = rank == call.root
        if call.kind is CollectiveKind.SCATTERV:
            source = self._vector(mine.send, counts, datatype) if here else None
            target = self._in_place if here and mine.in_place else [mine.recv, own, datatype]
            return "Scatterv", (source, target, call.root)
        send = [mine.send, own, datatype]
        recv = self._vector(mine.recv, counts, datatype)
        if call.kind is CollectiveKind.GATHERV:
            source = self._in_place if here and mine.in_place else send
            return "Gatherv", (source, recv if here else None, call.root)
        return "Allgatherv", (self._in_place if mine.in_place else send, recv)

    def _vector(self, view: Bytes, counts: Any, datatype: Any) -> list[Any]:
        return [view, (counts.tolist(), displacements(counts).tolist()), datatype]

    def _refuse_large(self, call: Call, elements: int) -> None:
        if elements > INT_MAX and not self._types.large_counts:
            raise Unsupported(
                f"{describe(call)}: this MPI counts in 32 bits, too few for {elements} elements of a ragged "
                "call; name an algorithm (a schedule has no such limit), or use an MPI of version 4"
            )


def given(view: Bytes | None) -> Bytes:
    """Return the memory of an optional view."""
    return np.empty(0, np.uint8) if view is None else view


def _copy_at_root(call: Call, mine: Operands, rank: int) -> Callable[[], None] | None:
    """Broadcast to another buffer than the root's own: MPI has one buffer, the root copies."""
    separate = call.kind is CollectiveKind.BROADCAST and rank == call.root and not mine.in_place
    if not (separate and call.recv is not None and call.recv is not mine.send):
        return None
    return lambda: np.copyto(mine.recv, mine.send)
