"""The collectives of blocks of different sizes, as a communicator offers them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pycomm.backends.base import Work
from pycomm.calls import ragged_counts
from pycomm.collective_calls import CollectiveCalls, Elements
from pycomm.errors import Mismatch
from pycomm.types import CollectiveKind, ReduceOp

__all__ = ["RaggedCalls"]

_Kind = CollectiveKind


class RaggedCalls(CollectiveCalls):
    """Mixed into the communicator, whose description says what holds for all of them."""

    name: str

    @abstractmethod
    def _refuse_batch(self, what: str) -> None:
        """Refuse what must exchange something before it can go on."""

    @abstractmethod
    def _defer(self, first: Work, then: Callable[[], Work]) -> Work:
        """Start an operation when another has ended, and before the next collective of this communicator."""

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
        return self._defer(exchange, lambda: perform(self._sent_counts(table)))

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
