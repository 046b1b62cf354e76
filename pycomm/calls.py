"""From what the user passes to a :class:`~pycomm.backends.base.Call`: every check of arguments is here.

The sizes that a collective needs on each rank:

===================  ===============  ===============  ==========================
kind                 send             recv             in place
===================  ===============  ===============  ==========================
allreduce            c                c                recv is send
reduce               c                c at the root    at the root, recv is send
broadcast            c (one buffer)                    always
allgather, gather    c                n*c (root)       send is block rank of recv
reduce_scatter       n*c              c                recv is block rank of send
scatter              n*c at the root  c                recv is block rank of send
alltoall             n*c              n*c              recv is send
===================  ===============  ===============  ==========================

The ragged forms have ``counts[rank]`` in the place of c, and the sum of the counts in the place of n*c.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pycomm.backends.base import Call
from pycomm.buffers import IN_PLACE, Buffer, as_buffer, as_dtype, overlap
from pycomm.collectives.spec import equal_form
from pycomm.errors import UsageError
from pycomm.types import CollectiveKind, DType, ReduceOp

__all__ = ["Prepared", "as_op", "check_rank", "check_timeout", "out_of_place", "prepare", "ragged_counts"]

_OPS = {op.label: op for op in ReduceOp}
_WHOLE_IN_RECV = (CollectiveKind.ALLGATHER, CollectiveKind.GATHER)
_WHOLE_IN_SEND = (CollectiveKind.REDUCE_SCATTER, CollectiveKind.SCATTER)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call that can be launched, and the buffers to copy home when it has ended."""

    call: Call
    staged: tuple[Buffer, ...] = ()

    def finish(self) -> None:
        """Copy staged results to the caller's memory."""
        for buffer in self.staged:
            buffer.copy_home()


def as_op(op: ReduceOp | str) -> ReduceOp:
    """Turn a ``ReduceOp`` or its name into a ``ReduceOp``."""
    if isinstance(op, ReduceOp):
        return op
    found = _OPS.get(op) if isinstance(op, str) else None
    if found is None:
        raise UsageError(f"{op!r} is not a reduce op; choose one of {', '.join(_OPS)}")
    return found


def check_rank(value: int, size: int, what: str) -> int:
    """Check that ``value`` is a rank of a group of ``size``."""
    if not isinstance(value, (int, np.integer)) or not 0 <= value < size:
        raise UsageError(f"{what}={value!r} is not a rank of this group; ranks are 0 to {size - 1}")
    return int(value)


def check_timeout(timeout_s: float | None) -> float | None:
    """Check that a deadline is a number of seconds."""
    if timeout_s is not None and not (isinstance(timeout_s, (int, float)) and timeout_s >= 0):
        raise UsageError(f"timeout_s={timeout_s!r} is not a number of seconds, 0 or more")
    return timeout_s


def ragged_counts(counts: Sequence[int] | npt.ArrayLike, length: int, what: str) -> npt.NDArray[np.int64]:
    """Check a table of counts and flatten it."""
    table = np.asarray(counts)
    if table.dtype.kind not in "iu" and table.size:
        raise UsageError(f"{what} must be whole numbers, not {table.dtype.name}")
    if table.size != length:
        raise UsageError(f"{what} has {table.size} entries; this group needs {length}")
    flat = table.astype(np.int64).reshape(-1)
    if flat.size and int(flat.min()) < 0:
        raise UsageError(f"{what} has a negative entry: {flat.tolist()}")
    return flat


@dataclass(frozen=True, slots=True)
class _Shape:
    """What one rank's buffers must hold."""

    kind: CollectiveKind
    nranks: int
    rank: int
    root: int
    counts: npt.NDArray[np.int64] | None

    @property
    def sends(self) -> bool:
        return self.kind is not CollectiveKind.SCATTER or self.rank == self.root

    @property
    def receives(self) -> bool:
        return self.kind not in (CollectiveKind.REDUCE, CollectiveKind.GATHER) or self.rank == self.root

    @property
    def row(self) -> tuple[int, int]:
        """Elements that a ragged call needs in send and in recv."""
        counts = self.counts
        if counts is None:
            return -1, -1
        if self.kind is CollectiveKind.ALLTOALL:
            table = counts.reshape(self.nranks, self.nranks)
            return int(table[self.rank].sum()), int(table[:, self.rank].sum())
        whole, own = int(counts.sum()), int(counts[self.rank])
        return (own, whole) if self.kind in _WHOLE_IN_RECV else (whole, own)

    def own_begin(self, count: int) -> int:
        """Element of the whole array at which this rank's block begins."""
        return self.rank * count if self.counts is None else int(self.counts[: self.rank].sum())


def prepare(
    kind: CollectiveKind,
    nranks: int,
    rank: int,
    send: Any,
    recv: Any,
    *,
    op: ReduceOp | str = ReduceOp.SUM,
    root: int = -1,
    counts: npt.NDArray[np.int64] | None = None,
    dtype: DType | str | npt.DTypeLike | None = None,
    factor: float | None = None,
    round_once: bool = False,
    timeout_s: float | None = None,
) -> Prepared:
    """Check the arguments of a collective and bind its buffers.

    Parameters
    ----------
    kind, nranks, rank
        The collective, and this process in its group.
    send, recv
        What the user passed; ``None`` or ``IN_PLACE`` for one of them where that makes sense.
    op, root, counts, factor, round_once, timeout_s
        As in the ``Communicator`` methods; ``counts`` already checked by :func:`ragged_counts`.
    dtype
        Element type, when it is not what the buffers say.

    Raises
    ------
    UsageError
        The call can never work; the message says what to do.
    """
    if kind.is_rooted:
        root = check_rank(root, nranks, "root")
    reduce_op = as_op(op) if kind.reduces else ReduceOp.SUM
    element = None if dtype is None else as_dtype(dtype)
    shape = _Shape(equal_form(kind), nranks, rank, root, counts)
    sent, received, in_place = _bind(shape, kind.label, send, recv, element)
    some = sent if sent is not None else received
    if some is None:
        raise UsageError(f"{kind.label}: rank {rank} passed no buffer")
    if kind.reduces and not some.dtype.supports(reduce_op):
        raise UsageError(f"{kind.label}: op {reduce_op.label!r} makes no sense on {some.dtype.label}")
    call = Call(
        kind=kind,
        dtype=some.dtype,
        op=reduce_op,
        root=root,
        count=_count(shape, kind.label, sent, received, in_place),
        send=None if sent is None else sent.flat,
        recv=None if received is None else received.flat,
        counts=counts,
        factor=_factor(reduce_op, factor),
        round_once=round_once,
        timeout_s=check_timeout(timeout_s),
        keep=(*(sent.keep if sent else ()), *(received.keep if received else ())),
    )
    staged = (received,) if received is not None and received.home is not None else ()
    return Prepared(call, staged)


def _factor(op: ReduceOp, factor: float | None) -> float:
    if op is not ReduceOp.PREMUL_SUM:
        if factor is not None:
            raise UsageError(f"factor is for op='premul_sum', not for {op.label!r}")
        return 1.0
    value = 1.0 if factor is None else float(factor)
    if not math.isfinite(value):
        raise UsageError(f"factor={value} is not a finite number")
    return value


def _bind(
    shape: _Shape, label: str, send: Any, recv: Any, dtype: DType | None
) -> tuple[Buffer | None, Buffer | None, bool]:
    """Resolve both arguments, and whether the call is in place: then both are the whole buffer."""
    kind = shape.kind
    if kind is CollectiveKind.BROADCAST:
        both = as_buffer(send, "buf", writes=shape.rank != shape.root, dtype=dtype)
        if (
            not both.flat.flags.writeable
        ):  # backends may ask for memory that can be written, though they do not
            both = replace(both, flat=both.flat.copy())
        return both, both, True
    if not shape.sends:
        return (
            None,
            as_buffer(_present(recv, "recv", label), "recv", writes=True, reads=False, dtype=dtype),
            False,
        )
    if not shape.receives:
        return as_buffer(_present(send, "send", label), "send", dtype=dtype), None, False
    send_missing = send is None or send is IN_PLACE
    if send_missing or recv is None or recv is IN_PLACE:
        whole = _marked_in_place(kind, label, send, recv)
        both = as_buffer(whole, "recv" if send_missing else "send", writes=True, dtype=dtype)
        return both, both, True
    sent = as_buffer(send, "send", dtype=dtype)
    received = as_buffer(recv, "recv", writes=True, reads=False, dtype=dtype)
    if sent.dtype is not received.dtype:
        raise UsageError(
            f"{label}: send holds {sent.dtype.label} and recv holds {received.dtype.label}; both must be of "
            "one type"
        )
    if sent.is_staged or received.is_staged or not overlap(sent, received):
        return sent, received, False
    return _natural_place(shape, label, sent, received)


def _present(obj: Any, role: str, label: str) -> Any:
    if obj is None or obj is IN_PLACE:
        raise UsageError(f"{label}: {role} is missing on this rank; pass a buffer")
    return obj


def _marked_in_place(kind: CollectiveKind, label: str, send: Any, recv: Any) -> Any:
    """Find the one buffer of a call whose other argument is ``None`` or the marker."""
    send_missing = send is None or send is IN_PLACE
    whole = recv if send_missing else send
    if whole is None or whole is IN_PLACE:
        raise UsageError(f"{label}: both buffers are missing; pass the buffer that is to be used in place")
    if send_missing and kind in _WHOLE_IN_SEND:
        raise UsageError(
            f"{label}: in place, the buffer is `send`, which holds all blocks; pass recv=IN_PLACE"
        )
    if not send_missing and kind in _WHOLE_IN_RECV:
        raise UsageError(
            f"{label}: in place, the buffer is `recv`, which takes all blocks; pass send=IN_PLACE"
        )
    if not send_missing and kind not in (CollectiveKind.ALLREDUCE, CollectiveKind.REDUCE) and recv is None:
        raise UsageError(
            f"{label}: recv is missing; pass a buffer, or pycomm.IN_PLACE to use send for the result too"
        )
    if send is None:
        raise UsageError(
            f"{label}: send is missing; pass a buffer, or pycomm.IN_PLACE to use recv for the input too"
        )
    return whole


def _natural_place(
    shape: _Shape, label: str, sent: Buffer, received: Buffer
) -> tuple[Buffer | None, Buffer | None, bool]:
    """Accept overlapping buffers that overlap exactly as an in-place call does; refuse all others."""
    size = sent.dtype.itemsize
    if shape.kind in _WHOLE_IN_RECV:
        begin = shape.own_begin(sent.count)
        if sent.address == received.address + begin * size:
            return received, received, True
    elif shape.kind in _WHOLE_IN_SEND:
        begin = shape.own_begin(received.count)
        if received.address == sent.address + begin * size:
            return sent, sent, True
    elif sent.address == received.address and sent.count == received.count:
        return received, received, True
    place = (
        "at this rank's block of the whole buffer"
        if shape.kind in (*_WHOLE_IN_RECV, *_WHOLE_IN_SEND)
        else "with the same first element and size"
    )
    raise UsageError(
        f"{label}: send and recv overlap without being in place; in place they must lie {place}; copy one of "
        "them, "
        "or pass pycomm.IN_PLACE"
    )


def _count(shape: _Shape, label: str, sent: Buffer | None, received: Buffer | None, in_place: bool) -> int:
    """Check the buffers' sizes against one another; returns the count of the call."""
    if shape.counts is not None:
        _check_ragged(shape, label, sent, received, in_place)
        return 0
    n, kind = shape.nranks, shape.kind
    parts_sent = n if kind in (*_WHOLE_IN_SEND, CollectiveKind.ALLTOALL) else 1
    parts_received = n if kind in (*_WHOLE_IN_RECV, CollectiveKind.ALLTOALL) else 1
    if in_place:
        whole = (sent if sent is not None else received, "the buffer", max(parts_sent, parts_received))
        return _per_block(label, whole)
    found = {
        _per_block(label, (buffer, role, parts))
        for buffer, role, parts in ((sent, "send", parts_sent), (received, "recv", parts_received))
        if buffer is not None
    }
    if len(found) != 1:
        have_sent, have_received = (0 if b is None else b.count for b in (sent, received))
        wants = have_sent * parts_received // parts_sent
        raise UsageError(
            f"{label}: send has {have_sent} elements and recv has {have_received}; in a group of {n} recv "
            "must have "
            f"{wants}"
        )
    return found.pop()


def _per_block(label: str, whole: tuple[Buffer | None, str, int]) -> int:
    buffer, role, parts = whole
    count = 0 if buffer is None else buffer.count
    if count % parts:
        raise UsageError(
            f"{label}: {role} has {count} elements, which {parts} ranks cannot share equally; pad it, or use "
            f"{label}v"
        )
    return count // parts


def _check_ragged(
    shape: _Shape, label: str, sent: Buffer | None, received: Buffer | None, in_place: bool
) -> None:
    wants = shape.row
    pairs = [(sent, "send", wants[0]), (received, "recv", wants[1])]
    if in_place and shape.kind in _WHOLE_IN_RECV:
        pairs = pairs[1:]
    elif in_place and shape.kind in _WHOLE_IN_SEND:
        pairs = pairs[:1]
    for buffer, role, want in pairs:
        if buffer is not None and buffer.count != want:
            raise UsageError(
                f"{label}: {role} has {buffer.count} elements; the counts ask for {want} on this rank"
            )


def out_of_place(call: Call, nranks: int, rank: int) -> Call:
    """Turn a call that is in place into one that is not, by copying this rank's input.

    The result still lands at its natural place of the same buffer.
    """
    whole = call.send
    if whole is None or call.recv is not whole:
        return call
    kind = equal_form(call.kind)
    if kind in (*_WHOLE_IN_RECV, *_WHOLE_IN_SEND):
        shape = _Shape(kind, nranks, rank, call.root, call.counts)
        begin = shape.own_begin(call.count) * call.dtype.itemsize
        count = call.count if call.counts is None else int(call.counts[rank])
        block = whole[begin : begin + count * call.dtype.itemsize]
        if kind in _WHOLE_IN_RECV:
            return replace(call, send=block.copy())
        return replace(call, send=whole.copy(), recv=block)
    return replace(call, send=whole.copy())
