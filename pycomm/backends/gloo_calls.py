"""Calls in Gloo's words: tensors over the caller's memory, and how each collective begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from pycomm.backends.base import Bytes, Call
from pycomm.backends.common import Operands, matrix, operands
from pycomm.errors import Unsupported
from pycomm.types import CollectiveKind, DType, ReduceOp

__all__ = ["DTYPES", "Operation", "Operations"]

DTYPES: dict[DType, str] = {
    DType.FLOAT64: "float64",
    DType.FLOAT32: "float32",
    DType.FLOAT16: "float16",
    DType.BFLOAT16: "bfloat16",
    DType.INT8: "int8",
    DType.INT32: "int32",
    DType.INT64: "int64",
    DType.UINT8: "uint8",
}
_OPS = {
    ReduceOp.SUM: "SUM",
    ReduceOp.PROD: "PRODUCT",
    ReduceOp.MIN: "MIN",
    ReduceOp.MAX: "MAX",
    ReduceOp.BAND: "BAND",
    ReduceOp.BOR: "BOR",
    ReduceOp.BXOR: "BXOR",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """How to carry a call out.

    Parameters
    ----------
    begin
        Starts it with a timeout; returns torch's work.
    prepare
        What is copied beforehand, as Gloo reduces and broadcasts in place.
    finish
        What is copied afterwards.
    polls
        Whether torch's work knows by itself when it has ended; the others must be waited for.
    """

    begin: Callable[[timedelta], Any]
    prepare: Callable[[], None] | None = None
    finish: Callable[[], None] | None = None
    polls: bool = True


class _Writable:
    """The memory of a read-only array, shown as writable: torch has no read-only tensors."""

    def __init__(self, view: Bytes) -> None:
        self._owner = view
        self.__array_interface__ = {**view.__array_interface__, "data": (view.ctypes.data, False)}


def tensor(torch: Any, view: Bytes) -> Any:
    """View of the memory as a tensor of bytes, never a copy. Gloo only reads what a call sends."""
    if view.nbytes == 0:
        return torch.empty(0, dtype=torch.uint8)
    return torch.from_numpy(view if view.flags.writeable else np.asarray(_Writable(view)))


class Operations:
    """The collectives of one process group."""

    def __init__(self, torch: Any, group: Any, rank: int, size: int) -> None:
        self._torch, self._group, self._rank, self._size = torch, group, rank, size
        self._c10d = torch.distributed.distributed_c10d
        self._makers: dict[CollectiveKind, Callable[[Call, Operands], Operation]] = {
            CollectiveKind.ALLREDUCE: self._allreduce,
            CollectiveKind.REDUCE: self._reduce,
            CollectiveKind.BROADCAST: self._broadcast,
            CollectiveKind.ALLGATHER: self._allgather,
            CollectiveKind.REDUCE_SCATTER: self._reduce_scatter,
            CollectiveKind.ALLTOALL: self._alltoall,
            CollectiveKind.ALLTOALLV: self._alltoall,
            CollectiveKind.GATHER: self._gather,
            CollectiveKind.SCATTER: self._scatter,
            CollectiveKind.BARRIER: self._barrier,
        }

    def make(self, call: Call) -> Operation:
        """Bind ``call`` to its memory."""
        maker = self._makers.get(call.kind)
        if maker is None:
            raise Unsupported(f"Gloo has no {call.kind.label}; run a schedule, or use another backend")
        return maker(call, operands(call, self._rank, self._size))

    def _bytes(self, view: Bytes) -> Any:
        return tensor(self._torch, view)

    def _numbers(self, view: Bytes, dtype: DType) -> Any:
        return self._bytes(view).view(getattr(self._torch, DTYPES[dtype]))

    def _options(self, kind: str, timeout: timedelta, **fields: Any) -> Any:
        options = getattr(self._c10d, kind)()
        options.timeout = timeout
        for name, value in fields.items():
            setattr(options, name, value)
        return options

    def _op(self, call: Call) -> Any:
        return getattr(self._c10d.ReduceOp, _OPS[call.op])

    def _allreduce(self, call: Call, mine: Operands) -> Operation:
        target, op = self._numbers(mine.recv, call.dtype), self._op(call)
        return Operation(
            lambda timeout: self._group.allreduce(
                [target], self._options("AllreduceOptions", timeout, reduceOp=op)
            ),
            prepare=_copy_in(mine.recv, mine.send),
        )

    def _reduce(self, call: Call, mine: Operands) -> Operation:
        # Gloo uses the array as scratch on every rank; only the root may lose its input.
        memory = mine.recv if self._rank == call.root else np.empty_like(mine.send)
        target, op = self._numbers(memory, call.dtype), self._op(call)
        return Operation(
            lambda timeout: self._group.reduce(
                [target], self._options("ReduceOptions", timeout, reduceOp=op, rootRank=call.root)
            ),
            prepare=_copy_in(memory, mine.send),
        )

    def _broadcast(self, call: Call, mine: Operands) -> Operation:
        memory = mine.send if self._rank == call.root else mine.recv
        source = self._bytes(memory)
        apart = self._rank == call.root and call.recv is not None
        return Operation(
            lambda timeout: self._group.broadcast(
                [source], self._options("BroadcastOptions", timeout, rootRank=call.root, rootTensor=0)
            ),
            prepare=_copy_in(mine.recv, mine.send) if apart else None,
        )

    def _allgather(self, _call: Call, mine: Operands) -> Operation:
        whole, part = self._bytes(mine.recv), self._bytes(mine.send)
        return Operation(
            lambda timeout: self._group._allgather_base(
                whole, part, self._options("AllgatherOptions", timeout)
            )
        )

    def _reduce_scatter(self, call: Call, mine: Operands) -> Operation:
        result = np.empty_like(mine.recv) if mine.in_place else mine.recv
        whole, part = self._numbers(mine.send, call.dtype), self._numbers(result, call.dtype)
        op = self._op(call)
        return Operation(
            lambda timeout: self._group._reduce_scatter_base(
                part, whole, self._options("ReduceScatterOptions", timeout, reduceOp=op)
            ),
            finish=_copy_in(mine.recv, result),
            polls=False,
        )

    def _alltoall(self, call: Call, mine: Operands) -> Operation:
        send = mine.send.copy() if mine.in_place else mine.send
        source, target = self._bytes(send), self._bytes(mine.recv)
        incoming: list[int] = []
        outgoing: list[int] = []
        if call.counts is not None:
            table = matrix(call, self._size) * call.dtype.itemsize
            incoming, outgoing = table[:, self._rank].tolist(), table[self._rank].tolist()
        return Operation(
            lambda timeout: self._group.alltoall_base(
                target, source, incoming, outgoing, self._options("AllToAllOptions", timeout)
            ),
            prepare=_copy_in(send, mine.send),
        )

    def _gather(self, call: Call, mine: Operands) -> Operation:
        part = self._bytes(mine.send)
        blocks = [list(self._bytes(mine.recv).view(self._size, -1))] if self._rank == call.root else []
        return Operation(
            lambda timeout: self._group.gather(
                blocks, [part], self._options("GatherOptions", timeout, rootRank=call.root)
            )
        )

    def _scatter(self, call: Call, mine: Operands) -> Operation:
        part = self._bytes(mine.recv)
        blocks = [list(self._bytes(mine.send).view(self._size, -1))] if self._rank == call.root else []
        return Operation(
            lambda timeout: self._group.scatter(
                [part], blocks, self._options("ScatterOptions", timeout, rootRank=call.root)
            )
        )

    def _barrier(self, _call: Call, _mine: Operands) -> Operation:
        return Operation(lambda timeout: self._group.barrier(self._options("BarrierOptions", timeout)))


def _copy_in(target: Bytes, source: Bytes) -> Callable[[], None] | None:
    if target is source:
        return None
    return lambda: np.copyto(target, source)
