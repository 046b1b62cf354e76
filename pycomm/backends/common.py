"""What backends over foreign libraries share: a call's memory, failures that travel, work on a thread."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pycomm import errors
from pycomm.backends.base import Bytes, Call
from pycomm.collectives.spec import equal_form
from pycomm.errors import CommError, DeadlineExceeded, InternalError, PycommError, UsageError
from pycomm.types import CollectiveKind

__all__ = [
    "Lane",
    "Operands",
    "ThreadWork",
    "describe",
    "displacements",
    "matrix",
    "operands",
    "pack_failure",
    "remaining",
    "unpack_failure",
]

_EMPTY: Bytes = np.empty(0, np.uint8)
_GATHERS = frozenset({CollectiveKind.ALLGATHER, CollectiveKind.GATHER})


@dataclass(frozen=True, slots=True)
class Operands:
    """The memory that one rank's side of a collective reads and writes.

    ``send`` is what the rank contributes and ``recv`` where its result goes, both already cut down to the
    rank's part (see the table in :mod:`pycomm.collectives.spec`); either is empty where the rank has none.
    They are the same memory when the call is in place, and then ``in_place`` is set.
    """

    send: Bytes
    recv: Bytes
    in_place: bool


def displacements(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Start of each block when blocks lie one after the other."""
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)[:-1]))


def matrix(call: Call, size: int) -> npt.NDArray[np.int64]:
    """Shape an alltoallv's counts as a matrix: row s, column d is what s sends to d."""
    if call.counts is None:
        raise InternalError(f"{call.kind.label} without counts")
    return np.asarray(call.counts, np.int64).reshape(size, size)


def _own_part(call: Call, whole: Bytes, rank: int, size: int) -> Bytes:
    counts = np.full(size, call.count, np.int64) if call.counts is None else call.counts
    start = int(displacements(counts)[rank]) * call.dtype.itemsize
    return whole[start : start + int(counts[rank]) * call.dtype.itemsize]


def operands(call: Call, rank: int, size: int) -> Operands:
    """Find a collective's memory: natural places of in-place calls, sides that a rooted call does not use."""
    kind = equal_form(call.kind)
    in_place = call.send is not None and call.recv is call.send
    send = _EMPTY if call.send is None else call.send
    recv = _EMPTY if call.recv is None else call.recv
    at_root = rank == call.root
    if kind is CollectiveKind.BROADCAST:
        if at_root:
            return Operands(send if call.send is not None else recv, recv, in_place or call.send is None)
        return Operands(_EMPTY, recv if call.recv is not None else send, in_place)
    if kind in _GATHERS and in_place:
        has_all = kind is CollectiveKind.ALLGATHER or at_root
        has_room = has_all or send.nbytes > _block_nbytes(call, rank)
        part = _own_part(call, send, rank, size) if has_room else send
        return Operands(part, recv if has_all else _EMPTY, in_place)
    if kind is CollectiveKind.REDUCE_SCATTER and in_place:
        return Operands(send, _own_part(call, recv, rank, size), in_place)
    if kind is CollectiveKind.SCATTER and at_root and in_place:
        return Operands(send, _own_part(call, recv, rank, size), in_place)
    if kind is CollectiveKind.SCATTER and not at_root:
        return Operands(_EMPTY, recv, in_place)
    if kind in (CollectiveKind.REDUCE, CollectiveKind.GATHER) and not at_root:
        return Operands(send, _EMPTY, in_place)
    return Operands(send, recv, in_place)


def _block_nbytes(call: Call, rank: int) -> int:
    return (call.count if call.counts is None else int(call.counts[rank])) * call.dtype.itemsize


def describe(call: Call) -> str:
    """Say which operation this is, as messages name it."""
    if call.kind is CollectiveKind.BARRIER:
        return "barrier"
    count = call.count if call.counts is None else int(np.sum(call.counts))
    reduction = f" {call.op.label}" if call.kind.reduces else ""
    between_two = call.kind in (CollectiveKind.SEND, CollectiveKind.RECV)
    other = f" peer={call.peer} tag={call.tag}" if between_two else ""
    root = f" root={call.root}" if call.kind.is_rooted else ""
    return f"{call.kind.label}{reduction} of {count} {call.dtype.label}{root}{other}"


def pack_failure(failure: CommError, limit: int) -> bytes:
    """Encode a failure so that peers raise the same one; at most ``limit`` bytes."""
    message = str(failure)
    while True:
        fact = [type(failure).__name__, message, failure.operation, failure.seq, list(failure.ranks[:16])]
        text = json.dumps(fact).encode()
        if len(text) <= limit or not message:
            return text
        message = message[: max(0, len(message) - (len(text) - limit) - 8)]


def unpack_failure(text: bytes, group: str) -> CommError:
    """Decode what :func:`pack_failure` made."""
    name, message, operation, seq, ranks = json.loads(text)
    kind = getattr(errors, name, CommError)
    if not (isinstance(kind, type) and issubclass(kind, CommError)):
        kind = CommError
    return kind(message, group=group, operation=operation, seq=seq, ranks=ranks)


class ThreadWork:
    """Work that a thread carries out; see :class:`pycomm.backends.base.Work`."""

    def __init__(self, what: str, run: Callable[[], int]) -> None:
        self._what = what
        self._run = run
        self._ended = threading.Event()
        self._source = -1
        self._failure: BaseException | None = None

    def perform(self) -> None:
        """Run it, on the thread that calls this; keeps the outcome for whoever waits."""
        try:
            self._source = self._run()
        except PycommError as failure:
            self._failure = failure
        except BaseException as failure:
            self._failure = InternalError(f"{self._what}: {failure!r}")
            self._failure.__cause__ = failure
        finally:
            self._ended.set()

    def done(self) -> bool:
        """Whether it has ended, well or badly."""
        return self._ended.is_set()

    def wait(self, timeout_s: float | None = None) -> int:
        """Block until it has ended."""
        if not self._ended.wait(timeout_s):
            raise DeadlineExceeded(f"{self._what} has not ended within {timeout_s:g} s", operation=self._what)
        if self._failure is not None:
            raise self._failure
        return self._source


class Lane:
    """A thread that carries out work in order; it starts when first needed and ends with ``close``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.SimpleQueue[ThreadWork | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()
        self._closed = False

    def submit(self, what: str, run: Callable[[], int]) -> ThreadWork:
        """Queue ``run``; its result is the work's."""
        work = ThreadWork(what, run)
        with self._guard:
            if self._closed:
                raise UsageError(f"{what}: the communicator is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
                self._thread.start()
            self._queue.put(work)
        return work

    def close(self, timeout_s: float) -> bool:
        """End the thread after what is queued; whether it ended in time."""
        with self._guard:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
            thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(max(0.0, timeout_s))
        return not thread.is_alive()

    def _loop(self) -> None:
        while (work := self._queue.get()) is not None:
            work.perform()


def remaining(deadline: float) -> float:
    """Seconds left until ``deadline`` of the monotonic clock, never negative."""
    return max(0.0, deadline - time.monotonic())
