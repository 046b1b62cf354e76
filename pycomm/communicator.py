"""The communicator: what the user holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, overload

import numpy as np

from pycomm.agreement import Agreement
from pycomm.backends.base import Backend, BackendComm, Call, Capabilities, GroupConfig, Work
from pycomm.buffers import as_buffer, as_dtype
from pycomm.calls import Prepared, as_op, check_rank, check_timeout
from pycomm.collective_calls import Elements
from pycomm.config import setting
from pycomm.errors import Unsupported, UsageError
from pycomm.events import Phase
from pycomm.group_network import GroupNetwork
from pycomm.hosts import host_identity
from pycomm.journal import Journal
from pycomm.network_calls import NetworkCalls
from pycomm.object_calls import ObjectCalls
from pycomm.ragged_calls import RaggedCalls
from pycomm.selection import Selector, forced_algorithms
from pycomm.types import CollectiveKind, ReduceOp
from pycomm.work import DONE, Batch, Deferred, Finished, Pending

__all__ = ["ANY", "Communicator"]

ANY: Final = -1
"""As the ``source`` of a receive: whoever sends first."""

_MAX_TAG: Final = 2**31 - 1
_Kind = CollectiveKind


class Communicator(RaggedCalls, ObjectCalls, NetworkCalls):
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
    parent
        Network of the group that this one is part of, and the numbers there of its ranks.

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
        self,
        backend: Backend,
        config: GroupConfig,
        on_close: Callable[[], None] | None = None,
        parent: tuple[GroupNetwork, Sequence[int]] | None = None,
    ) -> None:
        self.rank, self.size, self.name = config.rank, config.size, config.name
        self.backend, self._provider, self._config = backend.name, backend, config
        self._comm: BackendComm = backend.open(config)
        self._on_close = on_close
        # A group may offer less than its backend at best, e.g. without shared memory.
        self._capabilities: Capabilities = getattr(self._comm, "capabilities", None) or backend.capabilities()
        self._lock = threading.RLock()
        self._object_locks, self._is_closed, self._children = {}, False, 0
        self._in_flight: list[Work] = []
        self._deferred: Deferred | None = None
        self._sweep_at = 16
        self._batches: dict[int, Batch] = {}
        self._round_once = bool(setting("round_once"))
        forced = forced_algorithms(str(setting("algo")))
        self._agreement = Agreement(config, self.abort)
        self._network = GroupNetwork(self.size, self.rank, self._agreement.values, host_identity(), parent)
        is_tuned = bool(setting("tuning"))
        self._selector = Selector(
            self._capabilities,
            self.backend,
            self.size,
            self.rank,
            forced,
            self._agreement.hosts,
            self._network.find,
            self._network.table if is_tuned else None,
            self._agreement.same_schedule,
        )
        folder = str(setting("events"))
        self._journal = Journal(self.rank, self.name, folder)
        plain = not forced and not self._round_once and not folder and not is_tuned
        self._direct = self._shortcut = self._comm.direct if plain else None

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

    # ----------------------------------------------------------------------------------------------------
    # messages

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
        return Communicator(self._provider, config, parent=(self._network, members))

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

    def _defer(self, first: Work, then: Callable[[], Work]) -> Work:
        def begin() -> Work:
            with self._lock:
                self._deferred = None
                self._restore_shortcut()
            return then()

        with self._lock:
            self._deferred, self._direct = Deferred(first, begin), None
            return self._deferred

    def _start_deferred(self) -> None:
        """Start the operation that waits for another, so that what comes next comes after it."""
        deferred = self._deferred
        if deferred is not None:
            deferred.start()
            with self._lock:  # it may have failed to start
                if self._deferred is deferred:
                    self._deferred = None
                    self._restore_shortcut()


def _check_tag(tag: int) -> int:
    if not isinstance(tag, (int, np.integer)) or not 0 <= tag <= _MAX_TAG:
        raise UsageError(f"tag={tag!r} is not a tag; tags are 0 to {_MAX_TAG}")
    return int(tag)
