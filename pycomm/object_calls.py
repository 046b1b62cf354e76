"""The ``*_object`` forms of collectives: any Python data instead of buffers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from pycomm.errors import ProtocolError, UsageError

if TYPE_CHECKING:
    from pycomm.communicator import Communicator
    from pycomm.objects import Codec

__all__ = ["ObjectCalls"]

Bytes = npt.NDArray[np.uint8]


class ObjectCalls:
    """Mixed into the communicator. Every method blocks; :mod:`pycomm.objects` says what codecs keep."""

    rank: int
    size: int
    _object_locks: dict[int, threading.Lock]

    def _outside_batch(self) -> Communicator:
        comm = cast("Communicator", self)
        comm._refuse_batch("a call with objects")
        return comm

    def send_object(
        self, obj: Any, dest: int, tag: int = 0, *, timeout_s: float | None = None, codec: Codec = "safe"
    ) -> None:
        """Send an object to one rank.

        Parameters
        ----------
        obj
            What to send.
        dest, tag
            As in ``send``. An object is two messages: do not receive it with ``recv``.
        codec
            How to encode; the receiver must use the same.
        """
        comm, data = self._outside_batch(), _encoded(obj, codec)
        with _lock_of(self, ~tag), comm.batch() as batch:
            comm.send(np.array([data.size], np.int64), dest, tag, timeout_s=timeout_s)
            comm.send(data, dest, tag, timeout_s=timeout_s)
        batch.wait()

    def recv_object(
        self, source: int = -1, tag: int = 0, *, timeout_s: float | None = None, codec: Codec = "safe"
    ) -> Any:
        """Receive an object.

        Parameters
        ----------
        source, tag
            As in ``recv``.
        codec
            How it was encoded.
        """
        comm = self._outside_batch()
        length = np.empty(1, np.int64)
        with _lock_of(self, tag):  # or two threads could take each other's second message
            sender = comm.recv(length, source, tag, timeout_s=timeout_s)
            data = _space(int(length[0]))
            comm.recv(data, sender, tag, timeout_s=timeout_s)
        return _decoded(data, codec)

    def broadcast_object(
        self, obj: Any = None, root: int = 0, *, timeout_s: float | None = None, codec: Codec = "safe"
    ) -> Any:
        """Return the root's object on every rank.

        Parameters
        ----------
        obj
            The object at the root; ignored elsewhere.
        root
            Whose object.
        """
        comm = self._outside_batch()
        data = _encoded(obj, codec) if self.rank == root else _space(0)
        length = np.array([data.size], np.int64)
        comm.broadcast(length, root, timeout_s=timeout_s)
        if self.rank != root:
            data = _space(int(length[0]))
        comm.broadcast(data, root, timeout_s=timeout_s)
        return obj if self.rank == root else _decoded(data, codec)

    def allgather_object(
        self, obj: Any, *, timeout_s: float | None = None, codec: Codec = "safe"
    ) -> list[Any]:
        """Return everybody's object, in rank order, on every rank."""
        comm, data = self._outside_batch(), _encoded(obj, codec)
        counts = np.empty(self.size, np.int64)
        comm.allgather(np.array([data.size], np.int64), counts, timeout_s=timeout_s)
        whole = _space(int(counts.sum()))
        comm.allgatherv(data, whole, counts, timeout_s=timeout_s)
        return _decoded_parts(whole, counts, codec)

    def gather_object(
        self, obj: Any, root: int = 0, *, timeout_s: float | None = None, codec: Codec = "safe"
    ) -> list[Any] | None:
        """Return everybody's object, in rank order, at the root; ``None`` elsewhere."""
        comm, data = self._outside_batch(), _encoded(obj, codec)
        counts = np.empty(self.size, np.int64)
        comm.allgather(np.array([data.size], np.int64), counts, timeout_s=timeout_s)
        whole = _space(int(counts.sum())) if self.rank == root else None
        comm.gatherv(data, whole, counts, root, timeout_s=timeout_s)
        return None if whole is None else _decoded_parts(whole, counts, codec)

    def scatter_object(
        self,
        objs: Sequence[Any] | None = None,
        root: int = 0,
        *,
        timeout_s: float | None = None,
        codec: Codec = "safe",
    ) -> Any:
        """Return ``objs[rank]`` of the root's sequence.

        Parameters
        ----------
        objs
            One object per rank at the root; ignored elsewhere.
        root
            Whose objects.
        """
        comm = self._outside_batch()
        counts = np.zeros(self.size, np.int64)
        whole: Bytes | None = None
        if self.rank == root:
            if objs is None or len(objs) != self.size:
                had = "None" if objs is None else f"{len(objs)} objects"
                raise UsageError(f"scatter_object: the root passed {had}; this group needs {self.size}")
            parts = [_encoded(obj, codec) for obj in objs]
            counts[:] = [part.size for part in parts]
            whole = np.concatenate(parts)
        comm.broadcast(counts, root, timeout_s=timeout_s)
        mine = _space(int(counts[self.rank]))
        comm.scatterv(whole, mine, counts, root, timeout_s=timeout_s)
        return _decoded(mine, codec)


def _lock_of(calls: ObjectCalls, key: int) -> threading.Lock:
    """Return the lock of one tag's receives (``tag``) or sends (``~tag``)."""
    return calls._object_locks.setdefault(key, threading.Lock())


def _space(nbytes: int) -> Bytes:
    from pycomm.objects import MAX_NBYTES  # deferred: msgspec is not needed for buffers

    if not 0 <= nbytes <= MAX_NBYTES * 64:
        raise ProtocolError(
            f"a peer announced an object of {nbytes} bytes; every rank must make the same *_object call"
        )
    return np.empty(nbytes, np.uint8)


def _encoded(obj: Any, codec: Codec) -> Bytes:
    from pycomm.objects import encode

    return np.frombuffer(encode(obj, codec), np.uint8)


def _decoded(data: Bytes, codec: Codec) -> Any:
    from pycomm.objects import decode

    return decode(data.data, codec)


def _decoded_parts(whole: Bytes, counts: npt.NDArray[np.int64], codec: Codec) -> list[Any]:
    return [_decoded(part, codec) for part in np.split(whole, np.cumsum(counts)[:-1])]
