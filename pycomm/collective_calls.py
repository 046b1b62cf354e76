"""The collectives of equal blocks, as a communicator offers them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy.typing as npt

from pycomm.backends.base import Call, Work
from pycomm.calls import Prepared, check_timeout, prepare
from pycomm.types import CollectiveKind, DType, ReduceOp
from pycomm.work import DONE

__all__ = ["CollectiveCalls", "Elements"]

Elements: TypeAlias = DType | str | npt.DTypeLike | None
_Kind = CollectiveKind


class CollectiveCalls(ABC):
    """Mixed into the communicator, whose description says what holds for all of them.

    A plain blocking call takes the backend's shortcut while there is one; any other is checked and submitted.
    """

    rank: int
    size: int
    _direct: Callable[..., bool] | None
    _round_once: bool

    @abstractmethod
    def _submit(self, prepared: Prepared, async_op: bool, algorithm: str | None) -> Work:
        """Start a call that has been checked; unless ``async_op``, or in a batch, wait for its end."""

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
