"""The communicator: what the user holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from pycomm.backends.base import Backend, BackendComm, Call, Capabilities, GroupConfig, Work
from pycomm.buffers import as_buffer, as_dtype
from pycomm.calls import Prepared, as_op, check_rank, check_timeout, prepare, ragged_counts
from pycomm.config import setting
from pycomm.errors import DeadlineExceeded, Mismatch, Unsupported, UsageError
from pycomm.events import Phase
from pycomm.hosts import host_identity
from pycomm.journal import Journal
from pycomm.object_calls import ObjectCalls
from pycomm.schedule import Schedule
from pycomm.selection import Selector, forced_algorithms
from pycomm.types import CollectiveKind, DType, ReduceOp
from pycomm.work import DONE, Batch, Deferred, Finished, Pending

__all__ = ["ANY", "Communicator"]

ANY: Final = -1
"""As the ``source`` of a receive: whoever sends first."""

_MAX_TAG: Final = 2**31 - 1
_Kind = CollectiveKind
Elements: TypeAlias = DType | str | npt.DTypeLike | None


class Communicator(ObjectCalls):
    """A group of ranks that talk to one another.

    Made by :func:`pycomm.init`, :meth:`split` and :meth:`duplicate`. Every rank of the group makes the same
    collective calls in the same order; calls from several threads of one rank are safe, and start in the
    order in which they are made.

    Buffers are NumPy arrays, objects with the buffer protocol, or DLPack tensors on the CPU, of any shape:
    elements count in C order. Non-contiguous buffers are copied. A buffer belongs to the call until the call
    has ended.

    All collectives take these keywords:

    async_op
        Return at once with a work; otherwise block, and return a work that has ended.
    timeout_s
        Deadline of the call in seconds; the communicator's own when ``None``.
    dtype
        Element type, when it is not what the buffer says, e.g. ``"bfloat16"`` for ``uint16`` memory.
    algorithm
        Name of the planner whose schedule is to run, or ``"own"`` for the backend's own collective.

    They raise ``UsageError`` for calls that can never work, ``Unsupported`` for what the backend does not
    offer, ``Mismatch`` when ranks made different calls (the communicator stays usable), and a ``CommError``
    when communication failed (the communicator is dead).

    Parameters
    ----------
    backend
        The backend that moves the bytes.
    config
        The group, agreed by all its ranks.
    on_close
        Called once, when the communicator has been closed.

    Attributes
    ----------
    rank, size : int
        This process in the group, and the number of its ranks.
    name : str
        Name of the group, unique in the job.
    backend : str
        Name of the backend.
    """

    def __init__(
        self, backend: Backend, config: GroupConfig, on_close: Callable[[], None] | None = None
    ) -> None:
        self.rank, self.size, self.name = config.rank, config.size, config.name
        self.backend = backend.name
        self._provider, self._config = backend, config
        self._comm: BackendComm = backend.open(config)
        self._on_close = on_close
        # A group may offer less than its backend at best, e.g. without shared memory.
        self._capabilities: Capabilities = getattr(self._comm, "capabilities", None) or backend.capabilities()
        self._lock = threading.RLock()
        self._object_locks = {}
        self._is_closed = False
        self._children = 0
        self._plans = 0
        self._in_flight: list[Work] = []
        self._deferred: Deferred | None = None
        self._sweep_at = 16
        self._batches: dict[int, Batch] = {}
        self._host_numbers: tuple[int, ...] | None = None
        self._round_once = bool(setting("round_once"))
        forced = forced_algorithms(str(setting("algo")))
        self._selector = Selector(
            self._capabilities, self.backend, self.size, self.rank, forced, self._hosts, self._agree
        )
        folder = str(setting("events"))
        self._journal = Journal(self.rank, self.name, folder)
        plain = not forced and not self._round_once and not folder
        self._shortcut = self._comm.direct if plain else None
        self._direct = self._shortcut

    def __repr__(self) -> str:
        state = " closed" if self._is_closed else ""
        return f"<Communicator {self.name!r} rank {self.rank} of {self.size} on {self.backend}{state}>"

    @property
    def timeout_s(self) -> float:
        """Default deadline of operations, in seconds."""
        return self._config.timeout_s

    @property
    def is_busy(self) -> bool:
        """Whether operations that were started with ``async_op`` are under way."""
        return self._deferred is not None or any(not work.done() for work in self._in_flight)

    @property
    def direct_at(self) -> Callable[..., bool] | None:
        """The backend's shortcut for blocking calls on plain memory; ``None`` while there is none.

        As in :class:`~pycomm.backends.base.BackendComm`.
        """
        return None if self._direct is None else self._comm.direct_at

    def launch_at(self, keep: object, *args: Any) -> Work | None:
        """Start a call on plain memory by the backend's shortcut; ``None`` when it is not that simple.

        Parameters
        ----------
        keep
            Owns the memory, and is kept until the call has ended.
        *args
            As in :class:`~pycomm.backends.base.BackendComm`.
        """
        launch = None if self._direct is None else self._comm.launch_at
        work = None if launch is None else launch(keep, *args)
        if work is not None:
            self._remember(work)
        return work

    # -------------------------------------------------------------------------------------------------
    # collectives

    def allreduce(
        self,
        send: Any,
        recv: Any = None,
        op: ReduceOp | str = "sum",
        *,
        async_op: bool = False,
        timeout_s: float | None = None,
        dtype: Elements = None,
        factor: float | None = None,
        round_once: bool = False,
        algorithm: str | None = None,
    ) -> Work:
        """Combine everybody's ``send``; everybody gets the result.

        Parameters
        ----------
        send
            This rank's contribution; also takes the result when ``recv`` is ``None``.
        recv
            Takes the result; as many elements as ``send``.
        op
            ``sum prod min max avg premul_sum band bor bxor land lor``.
        factor
            For ``premul_sum``: what this rank's contribution is multiplied with.
        round_once
            For half and float8 types: accumulate in float32 in rank order and round once, so that the result
            does not depend on the algorithm.
        """
        direct = self._direct
        if (
            direct is not None
            and not async_op
            and dtype is None
            and factor is None
            and not round_once
            and algorithm is None
            and direct(0, send, recv, op, -1, timeout_s)
        ):
            return DONE
        return self._collective(
            _Kind.ALLREDUCE, send, recv, async_op, algorithm,
            op=op, timeout_s=timeout_s, dtype=dtype, factor=factor, round_once=round_once,
        )  # fmt: skip

    def allgather(
        self,
        send: Any,
        recv: Any,
        *,
        async_op: bool = False,
        timeout_s: float | None = None,
        dtype: Elements = None,
        algorithm: str | None = None,
    ) -> Work:
        """Collect everybody's ``send``, in rank order, into everybody's ``recv``.

        Parameters
        ----------
        send
            This rank's block; in place: the block of ``recv`` that is this rank's, or ``IN_PLACE``.
        recv
            Takes ``size`` blocks.
        """
        direct = self._direct
        if (
            direct is not None
            and not async_op
            and dtype is None
            and algorithm is None
            and direct(1, send, recv, "sum", -1, timeout_s)
        ):
            return DONE
        return self._collective(
            _Kind.ALLGATHER, send, recv, async_op, algorithm, timeout_s=timeout_s, dtype=dtype
        )

    def reduce_scatter(
        self,
        send: Any,
        recv: Any,
        op: ReduceOp | str = "sum",
        *,
        async_op: bool = False,
        timeout_s: float | None = None,
        dtype: Elements = None,
        factor: float | None = None,
        round_once: bool = False,
        algorithm: str | None = None,
    ) -> Work:
        """Combine everybody's ``send``; rank r gets block r of the result.

        Parameters
        ----------
        send
            ``size`` blocks.
        recv
            Takes one block; in place: the block of ``send`` that is this rank's, or ``IN_PLACE``; then the
            other blocks of ``send`` hold nothing of use afterwards.
        op, factor, round_once
            As in :meth:`allreduce`.
        """
        direct = self._direct
        if (
            direct is not None
            and not async_op
            and dtype is None
            and factor is None
            and not round_once
            and algorithm is None
            and direct(2, send, recv, op, -1, timeout_s)
        ):
            return DONE
        return self._collective(
            _Kind.REDUCE_SCATTER, send, recv, async_op, algorithm,
            op=op, timeout_s=timeout_s, dtype=dtype, factor=factor, round_once=round_once,
        )  # fmt: skip

    def alltoall(
        self,
        send: Any,
        recv: Any,
        *,
        async_op: bool = False,
        timeout_s: float | None = None,
        dtype: Elements = None,
        algorithm: str | None = None,
    ) -> Work:
        """Send block r of ``send`` to rank r; block s of ``recv`` comes from rank s.

        Parameters
        ----------
        send, recv
            ``size`` blocks each; in place when they are one buffer, or one of them is ``IN_PLACE``.
        """
        direct = self._direct
        if (
            direct is not None
            and not async_op
            and dtype is None
            and algorithm is None
            and direct(3, send, recv, "sum", -1, timeout_s)
        ):
            return DONE
        return self._collective(
            _Kind.ALLTOALL, send, recv, async_op, algorithm, timeout_s=timeout_s, dtype=dtype
        )

    def broadcast(
        self,
        buf: Any,
        root: int = 0,
        *,
        async_op: bool = False,
        timeout_s: float | None = None,
        dtype: Elements = None,
        algorithm: str | None = None,
    ) -> Work:
        """Copy the root's ``buf`` into everybody's.

        Parameters
        ----------
        buf
            Read at the root, written on every other rank; the same number of elements everywhere.
        root
            Whose data.
        """
        direct = self._direct
        if (
            direct is not None
            and not async_op
            and dtype is None
            and algorithm is None
            and direct(4, buf, buf, "sum", root, timeout_s)
        ):
            return DONE
        return self._collective(
            _Kind.BROADCAST, buf, buf, async_op, algorithm, root=root, timeout_s=timeout_s, dtype=dtype
        )

    def reduce(
        self,
        send: Any,
        recv: Any = None,
        op: ReduceOp | str = "sum",
        root: int = 0,
        *,
        async_op: bool = False,
        timeout_s: float | None = None,
        dtype: Elements = None,
        factor: float | None = None,
        round_once: bool = False,
        algorithm: str | None = None,
    ) -> Work:
        """Combine everybody's ``send``; the root gets the result.

        Parameters
        ----------
        send
            This rank's contribution.
        recv
            Takes the result at the root; ``None`` or ``IN_PLACE`` there puts it into ``send``. Ignored
            elsewhere.
        op, factor, round_once
            As in :meth:`allreduce`.
        root
            Who gets the result.
        """
        direct = self._direct
        if (
            direct is not None
            and not async_op
            and dtype is None
            and factor is None
            and not round_once
            and algorithm is None
            and direct(5, send, recv, op, root, timeout_s)
        ):
            return DONE
        return self._collective(
            _Kind.REDUCE, send, recv, async_op, algorithm,
            op=op, root=root, timeout_s=timeout_s, dtype=dtype, factor=factor, round_once=round_once,
        )  # fmt: skip

    def gather(
        self,
        send: Any,
        recv: Any = None,
        root: int = 0,
        *,
        async_op: bool = False,
        timeout_s: float | None = None,
        dtype: Elements = None,
        algorithm: str | None = None,
    ) -> Work:
        """Collect everybody's ``send``, in rank order, into the root's ``recv``.

        Parameters
        ----------
        send
            This rank's block; in place at the root: its block of ``recv``, or ``IN_PLACE``.
        recv
            Takes ``size`` blocks at the root. Ignored elsewhere.
        root
            Who gets the blocks.
        """
        direct = self._direct
        if (
            direct is not None
            and not async_op
            and dtype is None
            and algorithm is None
            and direct(6, send, recv, "sum", root, timeout_s)
        ):
            return DONE
        return self._collective(
            _Kind.GATHER, send, recv, async_op, algorithm, root=root, timeout_s=timeout_s, dtype=dtype
        )

    def scatter(
        self,
        send: Any,
        recv: Any,
        root: int = 0,
        *,
        async_op: bool = False,
        timeout_s: float | None = None,
        dtype: Elements = None,
        algorithm: str | None = None,
    ) -> Work:
        """Hand block r of the root's ``send`` to rank r.

        Parameters
        ----------
        send
            ``size`` blocks at the root. Ignored elsewhere.
        recv
            Takes one block; in place at the root: its block of ``send``, or ``IN_PLACE``.
        root
            Whose blocks.
        """
        direct = self._direct
        if (
            direct is not None
            and not async_op
            and dtype is None
            and algorithm is None
            and direct(7, send, recv, "sum", root, timeout_s)
        ):
            return DONE
        return self._collective(
            _Kind.SCATTER, send, recv, async_op, algorithm, root=root, timeout_s=timeout_s, dtype=dtype
        )

    def barrier(
        self, *, async_op: bool = False, timeout_s: float | None = None, algorithm: str | None = None
    ) -> Work:
        """Wait until every rank has called it."""
        direct = self._direct
        if (
            direct is not None
            and not async_op
            and algorithm is None
            and direct(8, None, None, "sum", -1, timeout_s)
        ):
            return DONE
        call = Call(_Kind.BARRIER, DType.UINT8, timeout_s=check_timeout(timeout_s))
        return self._submit(Prepared(call), async_op, algorithm)

    # ------------------------------------------------------------------------------------------ ragged
    # collectives

    def allgatherv(
        self,
        send: Any,
        recv: Any,
        counts: Sequence[int] | npt.ArrayLike,
        *,
        async_op: bool = False,
        timeout_s: float | None = None,
        dtype: Elements = None,
        algorithm: str | None = None,
    ) -> Work:
        """Collect blocks of different sizes into everybody's ``recv``.

        Parameters
        ----------
        send
            This rank's block, of ``counts[rank]`` elements; in place as in :meth:`allgather`.
        recv
            Takes all blocks, one behind the other in rank order.
        counts
            Elements of each rank's block; the same on every rank.
        """
        return self._ragged(_Kind.ALLGATHERV, send, recv, counts, async_op, algorithm, -1, timeout_s, dtype)

    def reduce_scatterv(
        self,
        send: Any,
        recv: Any,
        counts: Sequence[int] | npt.ArrayLike,
        op: ReduceOp | str = "sum",
        *,
        async_op: bool = False,
        timeout_s: float | None = None,
        dtype: Elements = None,
        factor: float | None = None,
        round_once: bool = False,
        algorithm: str | None = None,
    ) -> Work:
        """Combine everybody's ``send``; rank r gets block r of the result, of ``counts[r]`` elements.

        Parameters
        ----------
        send
            All blocks, one behind the other.
        recv
            Takes ``counts[rank]`` elements; in place as in :meth:`reduce_scatter`.
        counts
            Elements of each rank's block; the same on every rank.
        op, factor, round_once
            As in :meth:`allreduce`.
        """
        table = ragged_counts(counts, self.size, "counts")
        return self._collective(
            _Kind.REDUCE_SCATTERV, send, recv, async_op, algorithm, counts=table,
            op=op, timeout_s=timeout_s, dtype=dtype, factor=factor, round_once=round_once,
        )  # fmt: skip

    def alltoallv(
        self,
        send: Any,
        send_counts: Sequence[int] | npt.ArrayLike,
        recv: Any,
        recv_counts: Sequence[int] | npt.ArrayLike | None = None,
        *,
        async_op: bool = False,
        timeout_s: float | None = None,
        dtype: Elements = None,
        algorithm: str | None = None,
    ) -> Work:
        """Send blocks of different sizes to everybody.

        Parameters
        ----------
        send, recv
            The blocks for (from) ranks 0, 1, ..., one behind the other.
        send_counts
            Elements for each rank; or the whole table, row s for what rank s sends, the same on every rank.
        recv_counts
            Elements from each rank; ``None`` when ``send_counts`` is the whole table.

        Raises
        ------
        Mismatch
            A rank expects another count than its peer sends.

        Notes
        -----
        Without the whole table the ranks first exchange their counts, by an allgather of ``2 * size``
        numbers; with it nothing is exchanged. An asynchronous call does not wait for that exchange, but the
        next collective of this communicator does, since it must come after.
        """

        def perform(table: npt.NDArray[np.int64]) -> Work:
            return self._collective(
                _Kind.ALLTOALLV,
                send,
                recv,
                async_op,
                algorithm,
                counts=table,
                timeout_s=timeout_s,
                dtype=dtype,
            )

        if recv_counts is None:
            return perform(ragged_counts(send_counts, self.size**2, "send_counts (recv_counts is None)"))
        self._refuse_batch("alltoallv without the whole table of counts")
        mine = np.stack(
            [
                ragged_counts(send_counts, self.size, "send_counts"),
                ragged_counts(recv_counts, self.size, "recv_counts"),
            ]
        )
        table = np.empty((self.size, 2, self.size), np.int64)
        exchange = self.allgather(mine, table, async_op=async_op, timeout_s=timeout_s)
        if not async_op:
            return perform(self._sent_counts(table))

        def begin() -> Work:
            with self._lock:
                self._deferred = None
                self._restore_shortcut()
            return perform(self._sent_counts(table))

        with self._lock:
            self._deferred, self._direct = Deferred(exchange, begin), None
            return self._deferred

    def gatherv(
        self,
        send: Any,
        recv: Any,
        counts: Sequence[int] | npt.ArrayLike,
        root: int = 0,
        *,
        async_op: bool = False,
        timeout_s: float | None = None,
        dtype: Elements = None,
        algorithm: str | None = None,
    ) -> Work:
        """Collect blocks of different sizes into the root's ``recv``.

        Parameters
        ----------
        send, recv, root
            As in :meth:`gather`.
        counts
            Elements of each rank's block; the same on every rank.
        """
        return self._ragged(_Kind.GATHERV, send, recv, counts, async_op, algorithm, root, timeout_s, dtype)

    def scatterv(
        self,
        send: Any,
        recv: Any,
        counts: Sequence[int] | npt.ArrayLike,
        root: int = 0,
        *,
        async_op: bool = False,
        timeout_s: float | None = None,
        dtype: Elements = None,
        algorithm: str | None = None,
    ) -> Work:
        """Hand blocks of different sizes from the root to everybody.

        Parameters
        ----------
        send, recv, root
            As in :meth:`scatter`.
        counts
            Elements of each rank's block; the same on every rank.
        """
        return self._ragged(_Kind.SCATTERV, send, recv, counts, async_op, algorithm, root, timeout_s, dtype)

    # ---------------------------------------------------------------------------------------------- point to
    # point

    def send(
        self,
        buf: Any,
        dest: int,
        tag: int = 0,
        *,
        async_op: bool = False,
        timeout_s: float | None = None,
        dtype: Elements = None,
    ) -> Work:
        """Send ``buf`` to one rank.

        Parameters
        ----------
        buf
            What to send.
        dest
            To whom.
        tag
            0 or more; the receive must name the same. Messages of one sender and tag arrive in order.
        """
        buffer = as_buffer(buf, "buf", dtype=None if dtype is None else as_dtype(dtype))
        call = Call(
            _Kind.SEND,
            buffer.dtype,
            count=buffer.count,
            send=buffer.flat,
            peer=check_rank(dest, self.size, "dest"),
            tag=_check_tag(tag),
            timeout_s=check_timeout(timeout_s),
            keep=buffer.keep,
        )
        return self._submit(Prepared(call), async_op, None)

    @overload
    def recv(
        self,
        buf: Any,
        source: int = ANY,
        tag: int = 0,
        *,
        async_op: Literal[False] = False,
        timeout_s: float | None = None,
        dtype: Elements = None,
    ) -> int: ...
    @overload
    def recv(
        self,
        buf: Any,
        source: int = ANY,
        tag: int = 0,
        *,
        async_op: Literal[True],
        timeout_s: float | None = None,
        dtype: Elements = None,
    ) -> Work: ...
    def recv(
        self,
        buf: Any,
        source: int = ANY,
        tag: int = 0,
        *,
        async_op: bool = False,
        timeout_s: float | None = None,
        dtype: Elements = None,
    ) -> int | Work:
        """Receive a message into ``buf``; returns the rank that sent it.

        Parameters
        ----------
        buf
            Takes the message: as many elements, of the same type, as were sent.
        source
            From whom; ``ANY`` for whoever sends first.
        tag
            Only messages sent with this tag match.

        Returns
        -------
        int or Work
            The source; with ``async_op`` a work whose ``wait`` returns it.
        """
        buffer = as_buffer(
            buf, "buf", writes=True, reads=False, dtype=None if dtype is None else as_dtype(dtype)
        )
        if source == ANY and not self._capabilities.any_source:
            raise Unsupported(f"backend {self.backend!r} cannot receive from any source; name the source")
        call = Call(
            _Kind.RECV,
            buffer.dtype,
            count=buffer.count,
            recv=buffer.flat,
            peer=ANY if source == ANY else check_rank(source, self.size, "source"),
            tag=_check_tag(tag),
            timeout_s=check_timeout(timeout_s),
            keep=buffer.keep,
        )
        work = self._submit(Prepared(call, (buffer,)), async_op, None)
        return work if async_op or not work.done() else work.wait()

    def batch(self) -> Batch:
        """Return a context in which this thread's calls are collected, to be started together at its end.

        Examples
        --------
        >>> with comm.batch() as batch:  # doctest: +SKIP
        ...     comm.send(right_edge, right)
        ...     comm.recv(left_halo, left)
        >>> batch.wait()  # doctest: +SKIP
        """
        return Batch(self._begin_batch, self._end_batch)

    # ------------------------------------------------------------------------------------------------------
    # groups

    def split(
        self, color: int | None, key: int = 0, *, timeout_s: float | None = None
    ) -> Communicator | None:
        """Divide the group: ranks of one color form a new one, ordered by key, then by rank. Collective.

        Parameters
        ----------
        color
            0 or more; ``None`` to belong to no new group.
        key
            Order within the new group.
        timeout_s
            Deadline for the new group to stand, and its default deadline; this communicator's when ``None``.

        Returns
        -------
        Communicator or None
            The group of this rank's color; ``None`` where ``color`` is ``None``.
        """
        if color is not None and color < 0:
            raise UsageError(f"color={color} is negative; use None to belong to no new group")
        self._refuse_batch("split")
        mine = np.array([-1 if color is None else color, key], np.int64)
        table = np.empty((self.size, 2), np.int64)
        self.allgather(mine, table, timeout_s=check_timeout(timeout_s))
        with self._lock:
            index, self._children = self._children, self._children + 1
        if color is None:
            return None
        ranks = [r for r in range(self.size) if int(table[r, 0]) == color]
        ranks.sort(key=lambda r: int(table[r, 1]))
        return self.subgroup(ranks, f"{self.name}.{index}.{color}", timeout_s=timeout_s)

    def subgroup(self, ranks: Sequence[int], name: str, *, timeout_s: float | None = None) -> Communicator:
        """Make a communicator of some of the ranks. Collective over those only.

        Works also when this communicator has failed or was closed, as long as the ranks named are alive.

        Parameters
        ----------
        ranks
            Ranks of this group, in the order of their new numbers; this one among them. The same on all of
            them.
        name
            Name of the new group, unique in the job.
        timeout_s
            As in :meth:`split`.

        Raises
        ------
        UsageError
            A number is no rank of this group, or there twice, or this rank is not among them.
        """
        members = [check_rank(rank, self.size, "ranks") for rank in ranks]
        if len(set(members)) != len(members) or self.rank not in members:
            raise UsageError(
                f"ranks={list(ranks)} must name each member once, rank {self.rank} (this one) among them"
            )
        config = GroupConfig(
            name=name,
            rank=members.index(self.rank),
            size=len(members),
            members=tuple(self._config.members[rank] for rank in members),
            timeout_s=self._config.timeout_s if timeout_s is None else timeout_s,
            store=self._config.store,
            parent=self._comm,
            options=self._config.options,
        )
        return Communicator(self._provider, config)

    def duplicate(self, *, timeout_s: float | None = None) -> Communicator:
        """Make another communicator of the same ranks; operations of the two do not mix. Collective."""
        twin = self.split(0, self.rank, timeout_s=timeout_s)
        if twin is None:
            raise UsageError("split gave no group")  # pragma: no cover (a color was given)
        return twin

    def supports(
        self, kind: CollectiveKind | str, dtype: Any = "float32", op: ReduceOp | str = "sum"
    ) -> bool:
        """Whether a collective is offered for this element type and reduce op.

        Parameters
        ----------
        kind
            The collective or its name.
        dtype, op
            Element type and, where the collective reduces, the op.
        """
        wanted = CollectiveKind[kind.upper()] if isinstance(kind, str) else kind
        element, reduce_op = as_dtype(dtype), as_op(op)
        if wanted.reduces and not element.supports(reduce_op):
            return False
        if wanted in (_Kind.SEND, _Kind.RECV):
            return self._capabilities.point_to_point
        return self._selector.why_not(Call(wanted, element, reduce_op), None) is None

    def abort(self, reason: str) -> None:
        """End every operation of the group on all ranks with ``Aborted``. From any thread; twice is fine."""
        self._comm.abort(reason)
        self._journal.aborted(reason)

    def close(self) -> None:
        """Release everything. Twice is fine. Groups split from this one stay usable."""
        if not self._is_closed:
            self._start_deferred()
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._direct = self._shortcut = None
        try:
            self._comm.close()
        finally:
            if self._on_close is not None:
                self._on_close()

    def __enter__(self) -> Communicator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.size > 1:
            # The others may wait for operations that this rank will never make.
            self.abort(f"rank {self.rank} left by {type(error).__name__}: {error}")
        self.close()

    # -----------------------------------------------------------------------------------------------------
    # internals

    def _collective(
        self,
        kind: CollectiveKind,
        send: Any,
        recv: Any,
        async_op: bool,
        algorithm: str | None,
        *,
        round_once: bool = False,
        **options: Any,
    ) -> Work:
        """Go the long way: check, choose, launch."""
        prepared = prepare(
            kind, self.size, self.rank, send, recv, round_once=round_once or self._round_once, **options
        )
        return self._submit(prepared, async_op, algorithm)

    def _ragged(
        self,
        kind: CollectiveKind,
        send: Any,
        recv: Any,
        counts: Any,
        async_op: bool,
        algorithm: str | None,
        root: int,
        timeout_s: float | None,
        dtype: Any,
    ) -> Work:
        table = ragged_counts(counts, self.size, "counts")
        return self._collective(
            kind, send, recv, async_op, algorithm, root=root, counts=table, timeout_s=timeout_s, dtype=dtype
        )

    def _submit(self, prepared: Prepared, async_op: bool, algorithm: str | None) -> Work:
        call = prepared.call
        if self._is_closed:
            raise UsageError(f"communicator {self.name!r} is closed; make a new one")
        if call.kind not in (_Kind.SEND, _Kind.RECV):
            self._start_deferred()
            call = self._selector.choose(call, algorithm)
        elif not self._capabilities.point_to_point:
            raise Unsupported(f"backend {self.backend!r} has no send and recv")
        finish = prepared.finish if prepared.staged else None
        # The call itself is kept: its views own staged and scaled memory.
        batch = self._open_batch()
        blocking = batch is None and not async_op
        note = self._journal.open(call)
        work = Pending(partial(self._comm.launch, call, blocking=blocking), finish, (call, prepared), note)
        if batch is not None:
            note(Phase.QUEUED, None)
            batch.add(work)
            return work
        work.start()
        if blocking:
            source = work.wait()
            return DONE if source < 0 else Finished(source)
        self._remember(work)
        return work

    def _remember(self, work: Work) -> None:
        """Keep an operation's memory alive until it has ended, even if the user drops the work."""
        with self._lock:
            if len(self._in_flight) >= self._sweep_at:
                self._in_flight = [w for w in self._in_flight if not w.done()]
                self._sweep_at = 2 * len(self._in_flight) + 16
            self._in_flight.append(work)

    def _refuse_batch(self, what: str) -> None:
        """Refuse what must exchange something before it can go on."""
        if self._open_batch() is not None:
            raise UsageError(f"{what} cannot be part of a batch, since it blocks; call it outside the batch")

    def _open_batch(self) -> Batch | None:
        return self._batches.get(threading.get_ident()) if self._batches else None

    def _begin_batch(self, batch: Batch) -> None:
        with self._lock:
            thread = threading.get_ident()
            if thread in self._batches:
                raise UsageError("a batch of this communicator is already open in this thread; use that one")
            self._batches[thread] = batch
            self._direct = None

    def _end_batch(self, batch: Batch) -> None:
        with self._lock:
            self._batches = {thread: other for thread, other in self._batches.items() if other is not batch}
            self._restore_shortcut()
        for work in batch.works:
            self._remember(work)

    def _restore_shortcut(self) -> None:
        """Allow the shortcut again unless something has to come first. The lock is held."""
        if not self._batches and self._deferred is None:
            self._direct = self._shortcut

    def _start_deferred(self) -> None:
        """Start the operation that waits for another, so that what comes next comes after it."""
        deferred = self._deferred
        if deferred is not None:
            deferred.start()
            with self._lock:  # it may have failed to start
                if self._deferred is deferred:
                    self._deferred = None
                    self._restore_shortcut()

    def _sent_counts(self, table: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Check the table of an alltoallv; every rank sees the same one, so all raise or none does."""
        sent, expected = table[:, 0, :], table[:, 1, :].T
        wrong = np.argwhere(sent != expected)
        if len(wrong):
            src, dst = (int(i) for i in wrong[0])
            raise Mismatch(
                f"alltoallv in group {self.name!r}: rank {src} sends {int(sent[src, dst])} elements to rank "
                f"{dst}, "
                f"which expects {int(expected[src, dst])}"
            )
        return np.ascontiguousarray(sent).reshape(-1)

    def _hosts(self, timeout_s: float | None = None) -> tuple[int, ...]:
        """Host number of each rank, in order of first appearance; ``()`` when all share one."""
        if self._host_numbers is None:
            names = self._exchange("host", host_identity(), timeout_s)
            numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
            self._host_numbers = tuple(numbers[name] for name in names) if len(numbers) > 1 else ()
        return self._host_numbers

    def _agree(self, schedule: Schedule, timeout_s: float | None) -> None:
        """Compare a schedule's digest with the other ranks' before it first runs."""
        with self._lock:
            index, self._plans = self._plans, self._plans + 1
        mine = f"{schedule.name} for {schedule.kind.label}, digest {schedule.digest().hex()}".encode()
        for rank, other in enumerate(self._exchange(f"plan/{index}", mine, timeout_s)):
            if other != mine:
                raise Mismatch(
                    f"group {self.name!r}: rank {self.rank} is about to run {mine.decode()}, rank {rank} "
                    f"{other.decode()}; ranks must make the same calls with the same settings"
                )

    def _exchange(self, topic: str, value: bytes, timeout_s: float | None = None) -> list[bytes]:
        """Collect a value of every rank through the store; a rank that does not come is the group's end."""
        if self.size == 1:
            return [value]
        store = self._config.store
        store.set(f"{self.name}/{topic}/{self.rank}", value)
        limit_s = self._config.timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + limit_s
        values: list[bytes] = []
        for rank in range(self.size):
            left = max(0.0, deadline - time.monotonic())
            try:
                values.append(store.get(f"{self.name}/{topic}/{rank}", timeout_s=left))
            except DeadlineExceeded as error:
                failure = DeadlineExceeded(
                    f"group {self.name!r}: rank {rank} has not come within {limit_s:g} s to the call that "
                    f"rank {self.rank} makes (and waits to compare {topic})",
                    group=self.name,
                    ranks=(rank,),
                )
                self.abort(str(failure))
                raise failure from error
        return values


def _check_tag(tag: int) -> int:
    if not isinstance(tag, (int, np.integer)) or not 0 <= tag <= _MAX_TAG:
        raise UsageError(f"tag={tag!r} is not a tag; tags are 0 to {_MAX_TAG}")
    return int(tag)
