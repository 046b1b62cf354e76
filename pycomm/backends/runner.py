"""Runs any schedule in Python over a backend's own sends and receives.

The runner follows one rank's program. A RECV is posted as soon as nothing earlier touches its memory, and
completed when a later op needs that memory or the program ends; so independent transfers overlap and the
meaning stays that of running one op after the other. Memory lent to a send is given back before it is written
again.

A backend supplies three functions and nothing else:

``isend(dst, channel, view) -> handle``
    Start sending ``view`` to rank ``dst``. The memory is lent until ``wait`` on the handle has returned.
``irecv(src, channel, view) -> handle``
    Start receiving into ``view``. The k-th receive from a rank on a channel gets the k-th message sent there.
``wait(handle, deadline)``
    Block until the transfer is complete; ``deadline`` is a value of :func:`time.monotonic` or ``None``.

Views are flat uint8 arrays. They may be empty, and an empty message must travel all the same: ranks wait for
it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pycomm.backends.base import Bytes, Call
from pycomm.collectives import numbers
from pycomm.collectives.spec import equal_form
from pycomm.errors import InternalError
from pycomm.schedule import OpKind, Schedule, Space
from pycomm.schedule.binding import Layout, bind
from pycomm.types import CollectiveKind, DType, ReduceOp

__all__ = ["Combine", "combine_native", "combine_numpy", "run_schedule"]

Handle = Any
Combine = Callable[[Bytes, Bytes, Bytes, DType, ReduceOp], None]


class _Memory(NamedTuple):
    """A run of bytes of one buffer."""

    buffer: int
    begin: int
    end: int

    def overlaps(self, other: _Memory) -> bool:
        return self.buffer == other.buffer and self.begin < other.end and other.begin < self.end


@dataclass(slots=True)
class _Incoming:
    """A receive under way: what it will write; for RECV_REDUCE also what it will read, and what arrives."""

    handle: Handle
    target: _Memory
    addend: _Memory | None = None
    staged: Bytes | None = None

    def touches(self, memory: _Memory, writes: bool) -> bool:
        return self.target.overlaps(memory) or (
            writes and self.addend is not None and self.addend.overlaps(memory)
        )


def combine_numpy(out: Bytes, a: Bytes, b: Bytes, dtype: DType, op: ReduceOp) -> None:
    """``out := a (op) b`` by the NumPy oracle: slow, and independent of the compiled core."""
    storage = dtype.storage
    out.view(storage)[...] = numbers.combine(dtype, op, a.view(storage), b.view(storage))


def combine_native(out: Bytes, a: Bytes, b: Bytes, dtype: DType, op: ReduceOp) -> None:
    """``out := a (op) b`` by the compiled core."""
    from pycomm import core  # deferred: the reference backend works without it

    core.native.reduce(out, a, b, int(dtype), int(op))


def run_schedule(
    call: Call,
    rank: int,
    isend: Callable[[int, int, Bytes], Handle],
    irecv: Callable[[int, int, Bytes], Handle],
    wait: Callable[[Handle, float | None], object],
    *,
    deadline: float | None = None,
    combine: Combine = combine_native,
) -> None:
    """Run rank ``rank``'s program of ``call.schedule`` to its end; blocks.

    Parameters
    ----------
    call
        The operation; ``call.schedule`` must be set and fit its collective.
    rank
        This process in the group.
    isend, irecv, wait
        The backend's transfers, see the module's text.
    deadline
        Passed to every ``wait``.
    combine
        Local arithmetic.

    Raises
    ------
    CommError
        Whatever ``wait`` raises. Transfers under way are then the backend's to end before memory is given
        back.
    """
    if call.schedule is None:
        raise InternalError("run_schedule was given a call without a schedule")
    _Runner(call, call.schedule, rank, isend, irecv, wait, deadline, combine).run()


class _Runner:
    """The state of one run."""

    def __init__(
        self,
        call: Call,
        schedule: Schedule,
        rank: int,
        isend: Callable[[int, int, Bytes], Handle],
        irecv: Callable[[int, int, Bytes], Handle],
        wait: Callable[[Handle, float | None], object],
        deadline: float | None,
        combine: Combine,
    ) -> None:
        self._call, self._schedule, self._rank = call, schedule, rank
        self._isend, self._irecv, self._wait = isend, irecv, wait
        self._deadline, self._combine = deadline, combine
        layout = bind(schedule, rank, call.count, call.counts)
        size = call.dtype.itemsize
        self._edges = [(edges * size).tolist() for edges in (layout.input, layout.output, layout.scratch)]
        self._buffers = self._bind_buffers(layout, size)
        # In place, INPUT and OUTPUT are one memory and must be known by one number.
        self._number = (1, 1, 2) if schedule.in_place else (0, 1, 2)
        self._incoming: list[_Incoming] = []
        self._lent: list[tuple[Handle, _Memory]] = []

    def _bind_buffers(self, layout: Layout, size: int) -> list[Bytes]:
        call = self._call
        empty: Bytes = np.empty(0, np.uint8)
        send = empty if call.send is None else call.send
        recv = empty if call.recv is None else call.recv
        if call.op is ReduceOp.PREMUL_SUM and call.kind.reduces:
            storage = call.dtype.storage
            scaled = numbers.scale(call.dtype, send.view(storage), call.factor)
            if self._schedule.in_place:
                send.view(storage)[...] = scaled
            else:
                send = scaled.view(np.uint8)
        return [send, recv, np.empty(int(layout.scratch[-1]) * size, np.uint8)]

    def run(self) -> None:
        for row in self._schedule.program(self._rank).tolist():
            self._step(*row)
        for incoming in self._incoming:
            self._complete(incoming)
        self._incoming.clear()
        for handle, _ in self._lent:
            self._wait(handle, self._deadline)
        self._lent.clear()
        if self._call.op is ReduceOp.AVG and self._call.kind.reduces:
            self._divide()

    def _span(self, space: int, start: int, count: int) -> _Memory:
        if space < 0:
            return _Memory(self._number[Space.SCRATCH], 0, 0)
        edges = self._edges[space]
        return _Memory(self._number[space], edges[start], edges[start + count])

    def _view(self, memory: _Memory) -> Bytes:
        return self._buffers[memory.buffer][memory.begin : memory.end]

    def _step(
        self,
        kind: int,
        peer: int,
        channel: int,
        src_space: int,
        src_start: int,
        dst_space: int,
        dst_start: int,
        count: int,
    ) -> None:
        src = self._span(src_space, src_start, count)
        dst = self._span(dst_space, dst_start, count)
        if kind == OpKind.SEND:
            if src.begin == src.end:  # a signal says how far this rank is: it leaves after earlier receives
                for incoming in self._incoming:
                    self._complete(incoming)
                self._incoming.clear()
            self._settle(src, writes=False)
            self._lent.append((self._isend(peer, channel, self._view(src)), src))
        elif kind == OpKind.RECV:
            self._settle(dst, writes=True)
            self._incoming.append(_Incoming(self._irecv(peer, channel, self._view(dst)), dst))
        elif kind == OpKind.RECV_REDUCE:
            self._settle(src, writes=False)
            self._settle(dst, writes=True)
            staged: Bytes = np.empty(dst.end - dst.begin, np.uint8)
            self._incoming.append(_Incoming(self._irecv(peer, channel, staged), dst, src, staged))
        else:
            self._settle(src, writes=False)
            self._settle(dst, writes=True)
            source, target = self._view(src), self._view(dst)
            if kind == OpKind.COPY:
                target[...] = source
            else:
                self._combine(target, target, source, self._call.dtype, self._call.op)

    def _settle(self, memory: _Memory, *, writes: bool) -> None:
        """Finish the transfers that stand in the way of reading or writing ``memory``."""
        blocking = [i for i in self._incoming if i.touches(memory, writes)]
        for incoming in blocking:
            self._complete(incoming)
            self._incoming.remove(incoming)
        if writes and self._lent:
            kept = []
            for handle, lent in self._lent:
                if lent.overlaps(memory):
                    self._wait(handle, self._deadline)
                else:
                    kept.append((handle, lent))
            self._lent = kept

    def _complete(self, incoming: _Incoming) -> None:
        self._wait(incoming.handle, self._deadline)
        if incoming.staged is not None and incoming.addend is not None:
            target, addend = self._view(incoming.target), self._view(incoming.addend)
            self._combine(target, addend, incoming.staged, self._call.dtype, self._call.op)

    def _divide(self) -> None:
        """Turn the sum in this rank's result into the average."""
        call, rank = self._call, self._rank
        if call.recv is None or (call.kind is CollectiveKind.REDUCE and rank != call.root):
            return
        result = call.recv.view(call.dtype.storage)
        if equal_form(call.kind) is CollectiveKind.REDUCE_SCATTER and self._schedule.in_place:
            sizes: npt.NDArray[np.int64] = (
                np.full(self._schedule.nranks, call.count) if call.counts is None else call.counts
            )
            begin = int(sizes[:rank].sum())
            result = result[begin : begin + int(sizes[rank])]
        result[...] = numbers.divide(call.dtype, result, self._schedule.nranks)
