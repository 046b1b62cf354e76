"""The backend's waist: capabilities as data, a call as a record, work as something to wait for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pycomm.schedule import Schedule
from pycomm.types import CollectiveKind, DType, ReduceOp

__all__ = ["Backend", "BackendComm", "Call", "Capabilities", "GroupConfig", "Work"]

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend offers, completely: what is not listed raises ``Unsupported``.

    Parameters
    ----------
    own
        Collectives that the backend performs itself: kind -> dtypes (all reduce ops in ``reductions``).
    reductions
        dtype -> reduce ops that the backend's own collectives offer.
    runs_schedules
        Whether it can send and receive, and so run any Schedule.
    schedule_reductions
        dtype -> reduce ops available while running schedules.
    point_to_point
        Whether it offers send and recv with tags.
    any_source
        Whether recv may name no source.
    devices
        Device kinds whose memory it takes, e.g. ``("cpu",)``.
    concurrent
        Whether several operations of one communicator may be in flight.
    compares_calls
        Whether every rank's call is compared with the others', the schedule's digest included; where not, the
        communicator compares digests through the store before a schedule first runs.
    """

    own: Mapping[CollectiveKind, frozenset[DType]]
    reductions: Mapping[DType, frozenset[ReduceOp]]
    runs_schedules: bool
    schedule_reductions: Mapping[DType, frozenset[ReduceOp]]
    point_to_point: bool = True
    any_source: bool = True
    devices: tuple[str, ...] = ("cpu",)
    concurrent: bool = True
    compares_calls: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """One operation, bound to memory.

    ``send`` and ``recv`` are flat contiguous uint8 views of the caller's buffers (``None`` where the rank has
    none; ``recv is send`` when in place); ``count`` is in elements of ``dtype``: of the whole array for
    allreduce, broadcast and reduce, of one rank's block for the others. ``counts`` holds the count of every
    block of a ragged call (n values, alltoallv: n*n, row s column d = what s sends to d; displacements are
    their running sums). ``peer`` and ``tag`` serve send and recv; ``peer=-1`` in recv means any source.
    ``schedule`` is the plan to run, or ``None`` for the backend's own collective.
    """

    kind: CollectiveKind
    dtype: DType
    op: ReduceOp = ReduceOp.SUM
    root: int = -1
    count: int = 0
    send: Bytes | None = None
    recv: Bytes | None = None
    counts: npt.NDArray[np.int64] | None = None
    factor: float = 1.0
    round_once: bool = False
    peer: int = -1
    tag: int = 0
    timeout_s: float | None = None
    schedule: Schedule | None = None
    keep: tuple[Any, ...] = ()


class Work(Protocol):
    """An operation under way."""

    def done(self) -> bool:
        """Whether it has ended, well or badly. Never blocks."""

    def wait(self, timeout_s: float | None = None) -> int:
        """Block until it has ended; returns the source rank of a recv, else -1.

        Raises the operation's failure each time it is asked, or ``DeadlineExceeded`` when ``timeout_s``
        passes first.
        """


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """What a backend needs to open a group: agreed by all its ranks.

    Parameters
    ----------
    name
        Unique name of the group in the job.
    rank, size
        This process in the group.
    members
        World rank of each rank of the group.
    timeout_s
        Default deadline of every wait.
    options
        Backend-specific settings (``PYCOMM_*``), as data.
    secret
        What every rank of the job knows and nobody else; empty when the backend needs none.
    store
        Where ranks exchange addresses; see :mod:`pycomm.store`.
    parent
        The communicator that this one was split from, or ``None``.
    """

    name: str
    rank: int
    size: int
    members: tuple[int, ...]
    timeout_s: float
    store: Any = None
    parent: Any = None
    options: Mapping[str, str] = field(default_factory=dict)
    secret: str = field(default="", repr=False)


class BackendComm(Protocol):
    """A backend's side of one communicator.

    ``direct`` is a shortcut for the most frequent case or ``None``: a callable ``(kind, send, recv, op, root,
    timeout_s)`` that performs a blocking call of the backend's own collectives on NumPy arrays and returns
    ``True``, or returns ``False`` without having done anything when the call is not that simple.
    ``direct_at`` is the same for memory that the caller vouches for: ``(kind, dtype, send, send_count, recv,
    recv_count, op, root, timeout_s)``, where ``send`` and ``recv`` are addresses and counts are in elements.
    ``launch_at`` takes the owner of the memory and then the same; it starts the call and returns its work, or
    ``None``.
    """

    direct: Callable[..., bool] | None
    direct_at: Callable[..., bool] | None
    launch_at: Callable[..., Work | None] | None

    def launch(self, call: Call, *, blocking: bool = False) -> Work:
        """Start an operation.

        Operations of one rank start in the order of launch; the caller keeps memory alive. With ``blocking``
        the caller will wait at once, so the operation may as well be performed before this returns.
        """

    def abort(self, reason: str) -> None:
        """End every wait of the group on every rank. Any thread, any number of times, never blocks."""

    def close(self) -> None:
        """Release everything; waits for work in flight, at most for the group's timeout. Twice is fine."""


class Backend(Protocol):
    """A way to move bytes."""

    @property
    def name(self) -> str:
        """Name of the backend, e.g. ``"native"``."""

    def available(self) -> str | None:
        """Why it cannot be used here, as one sentence; ``None`` when it can."""

    def capabilities(self) -> Capabilities:
        """Everything it offers."""

    def open(self, config: GroupConfig) -> BackendComm:
        """Join the group; every rank of it calls this. Raises a ``CommError`` within ``config.timeout_s``."""
