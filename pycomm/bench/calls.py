"""One call of a backend, ready to be repeated: memory, contents, the oracle's answer, and the callable."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pycomm.backends.base import Call
from pycomm.collectives.numbers import epsilon, widen
from pycomm.collectives.reference import evaluate
from pycomm.communicator import Communicator
from pycomm.types import CollectiveKind, DType, ReduceOp

__all__ = ["Point", "bind", "bind_barrier", "bind_copy", "contents", "count_wrong"]

Array = npt.NDArray[Any]
_INEXACT = frozenset({ReduceOp.AVG, ReduceOp.PREMUL_SUM, ReduceOp.PROD})


@dataclass(frozen=True, slots=True)
class Point:
    """What is called, by one rank, and the memory that it is called with.

    ``send`` and ``recv`` are arrays of ``dtype.storage``, ``None`` where this rank has none. In place, one of
    them is the other, or the natural part of it.
    """

    kind: CollectiveKind
    dtype: DType
    op: ReduceOp
    root: int
    count: int
    rank: int
    nranks: int
    in_place: bool
    send: Array | None
    recv: Array | None

    @staticmethod
    def make(
        kind: CollectiveKind,
        dtype: DType,
        op: ReduceOp,
        root: int,
        count: int,
        rank: int,
        nranks: int,
        in_place: bool,
    ) -> Point:
        """Allocate the memory of a point."""
        at_root = rank == root
        has_send = kind is not CollectiveKind.SCATTER or at_root
        has_recv = kind not in (CollectiveKind.REDUCE, CollectiveKind.GATHER) or at_root
        elements = sizes(kind, count, nranks)
        send = np.zeros(elements[0], dtype.storage) if has_send else None
        recv = np.zeros(elements[1], dtype.storage) if has_recv else None
        if in_place and send is not None and recv is not None:
            own = slice(rank * count, (rank + 1) * count)
            if elements[0] == elements[1]:
                recv = send
            elif elements[0] < elements[1]:
                send = recv[own]
            else:
                recv = send[own]
        if kind is CollectiveKind.BROADCAST:
            recv = send
        return Point(kind, dtype, op, root, count, rank, nranks, in_place, send, recv)

    def fill(self) -> None:
        """Write this rank's input, and rubbish where the result goes."""
        if self.recv is not None:
            self.recv.view(np.uint8)[...] = 0xA5
        if self.send is not None and not (self.kind is CollectiveKind.BROADCAST and self.rank != self.root):
            self.send[...] = contents(self.dtype, self.rank, self.send.size)


def sizes(kind: CollectiveKind, count: int, nranks: int) -> tuple[int, int]:
    """Elements of a rank's input and of its output, where it has them."""
    if kind is CollectiveKind.BARRIER:
        return 0, 0
    if kind in (CollectiveKind.ALLGATHER, CollectiveKind.GATHER):
        return count, count * nranks
    if kind in (CollectiveKind.REDUCE_SCATTER, CollectiveKind.SCATTER):
        return count * nranks, count
    if kind is CollectiveKind.ALLTOALL:
        return count * nranks, count * nranks
    return count, count


def contents(dtype: DType, rank: int, count: int) -> Array:
    """Return a rank's input: numbers from 1 to 4 (bool: both values) that depend on rank and position."""
    period = 1021  # a prime, so that no block boundary repeats it
    index = np.arange(period)
    base = (index * 7 + index // 5 + rank * 3) % 4 + 1
    if dtype is DType.BOOL:
        pattern = (base % 2).astype(np.bool_)
    elif dtype.is_float:
        pattern = _float_bits(dtype, base)
    else:
        pattern = base.astype(dtype.storage)
    return np.resize(pattern, count)


def _float_bits(dtype: DType, values: Array) -> Array:
    from pycomm.collectives.numbers import narrow

    return narrow(dtype, values.astype(np.float64 if dtype is DType.FLOAT64 else np.float32))


def expected(point: Point) -> Array | None:
    """Return what this rank's result must be, by the oracle."""
    inputs: list[Array | None] = []
    elements = sizes(point.kind, point.count, point.nranks)[0]
    for rank in range(point.nranks):
        gives = point.kind not in (CollectiveKind.BROADCAST, CollectiveKind.SCATTER) or rank == point.root
        inputs.append(contents(point.dtype, rank, elements) if gives else None)
    return evaluate(point.kind, point.dtype, point.op, inputs, root=point.root)[point.rank]


def count_wrong(point: Point, wanted: Array | None) -> int:
    """Count elements of this rank's result that differ from the oracle's.

    Moved values and sums of small integers are exact. Averages and products of floats may differ by one
    rounding per contribution: by nranks times the type's epsilon.
    """
    if wanted is None or point.recv is None:
        return 0
    got = point.recv
    if point.dtype.is_float and point.kind.reduces and point.op in _INEXACT:
        tolerance = point.nranks * epsilon(point.dtype)
        a = widen(point.dtype, got).astype(np.float64)
        b = widen(point.dtype, wanted).astype(np.float64)
        return int(np.count_nonzero(~(np.abs(a - b) <= tolerance * np.abs(b))))
    return int(np.count_nonzero(got != wanted))


def bind(comm: Communicator, point: Point, timeout_s: float) -> Callable[[], object]:
    """Make the callable that performs the call once, blocking, with as little around it as can be.

    A peer library is called directly, the way a program written for it would; pycomm's own engine through its
    communicator. Raises ``Unsupported`` when the backend has no such collective of its own and runs no
    schedules.
    """
    direct = getattr(comm._comm, "bind", None)
    if direct is not None and comm.supports(point.kind, point.dtype, point.op):
        call = _call(point, timeout_s)
        own = comm._capabilities.own.get(point.kind, frozenset())
        reductions = comm._capabilities.reductions.get(point.dtype, frozenset())
        if point.dtype in own and (not point.kind.reduces or point.op in reductions):
            bound: Callable[[], object] = direct(call)
            return bound
    return _through_communicator(comm, point)


def bind_barrier(comm: Communicator, timeout_s: float) -> Callable[[], object]:
    """Make the callable that waits for all ranks, by the backend's own means."""
    direct = getattr(comm._comm, "bind", None)
    if direct is None:
        return comm.barrier
    bound: Callable[[], object] = direct(Call(CollectiveKind.BARRIER, DType.UINT8, timeout_s=timeout_s))
    return bound


def bind_copy(point: Point) -> Callable[[], object]:
    """Make the callable that copies as many bytes as the call brings to this rank: a host's floor."""
    sends_only = point.kind is CollectiveKind.BROADCAST and point.rank == point.root
    source = np.zeros(0 if point.recv is None or sends_only else point.recv.nbytes, np.uint8)
    source[...] = 1  # pages of its own
    return functools.partial(np.copyto, np.ones_like(source), source)


def _call(point: Point, timeout_s: float) -> Call:
    send = None if point.send is None else point.send.view(np.uint8)
    recv = None if point.recv is None else point.recv.view(np.uint8)
    if point.in_place and send is not None and recv is not None:
        # One buffer in place is one object; it is the larger of the two.
        send = recv = send if send.nbytes >= recv.nbytes else recv
    if point.kind is CollectiveKind.BROADCAST:
        recv = send
    return Call(
        point.kind,
        point.dtype,
        point.op,
        root=point.root if point.kind.is_rooted else -1,
        count=point.count,
        send=send,
        recv=recv,
        timeout_s=timeout_s,
    )


def _through_communicator(comm: Communicator, point: Point) -> Callable[[], object]:
    send, recv = (None if a is None else _typed(a, point.dtype) for a in (point.send, point.recv))
    method = getattr(comm, point.kind.label)
    whole = point.in_place and point.send is point.recv
    if point.kind is CollectiveKind.BARRIER:
        return functools.partial(method)
    if point.kind is CollectiveKind.BROADCAST:
        return functools.partial(method, send, point.root)
    given: list[Any] = [send, None if whole and point.kind.reduces else recv]
    if point.kind.reduces:
        given.append(sys.intern(point.op.label))  # the short cut knows interned names only
    if point.kind.is_rooted:
        given.append(point.root)
    return functools.partial(method, *given)


def _typed(array: Array, dtype: DType) -> Array:
    """View raw bits as what ml_dtypes calls them, where NumPy itself has no such type."""
    if array.dtype == np.dtype(dtype.storage) and dtype.label == dtype.storage.name:
        return array
    if importlib.util.find_spec("ml_dtypes") is None:
        return array
    import ml_dtypes

    return array.view(np.dtype(getattr(ml_dtypes, dtype.label)))
