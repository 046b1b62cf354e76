"""Our own engine: shared memory inside a host, TCP between hosts, schedules over both."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pycomm.backends.base import Backend, Bytes, Call, Capabilities, GroupConfig, Work
from pycomm.backends.common import operands
from pycomm.config import setting
from pycomm.core import native
from pycomm.schedule import Schedule
from pycomm.schedule.binding import bind
from pycomm.store import tcp_endpoint
from pycomm.types import CollectiveKind, DType, ReduceOp

__all__ = ["BACKEND", "NativeBackend", "NativeComm"]

_COLLECTIVES = frozenset(CollectiveKind) - {CollectiveKind.SEND, CollectiveKind.RECV}
_DTYPES = frozenset(DType)
_REDUCTIONS = {dtype: frozenset(op for op in ReduceOp if dtype.supports(op)) for dtype in DType}
_MAX_PLANS = 256


def _capabilities(*, own: bool) -> Capabilities:
    return Capabilities(
        own=dict.fromkeys(_COLLECTIVES, _DTYPES) if own else {},
        reductions=_REDUCTIONS,
        runs_schedules=True,
        schedule_reductions=_REDUCTIONS,
        compares_calls=True,
    )


class _Finished:
    """Work that ended before it was asked about."""

    def done(self) -> bool:
        return True

    def wait(self, timeout_s: float | None = None) -> int:
        del timeout_s
        return -1


_FINISHED = _Finished()


class _Pending:
    """Work of the core; lives as long as the memory that the core may still write to."""

    def __init__(self, work: native.Work, timeout_s: float) -> None:
        self._work = work
        self._timeout_s = timeout_s

    def done(self) -> bool:
        """Whether it has ended."""
        return self._work.done()

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the end; the operation's own deadline bounds a wait that names none."""
        return self._work.wait(self._timeout_s + 1 if timeout_s is None else timeout_s)


@dataclass(frozen=True, slots=True)
class _PlanKey:
    digest: bytes
    itemsize: int
    count: int
    counts: bytes


class NativeComm:
    """One communicator of the native engine. Thread-safe.

    Parameters
    ----------
    config
        The group, as in :class:`~pycomm.backends.base.GroupConfig`.
    context
        This process's side of the job: connections to every rank of the world.
    """

    def __init__(self, config: GroupConfig, context: native.Context) -> None:
        self.config = config
        self.context = context
        self._group = native.Group(
            context,
            _group_id(config.name),
            config.name,
            list(config.members),
            config.rank,
            config.timeout_s,
            setting("flat"),
            setting("cma"),
        )
        flat = self._group.flat_ready
        self.capabilities = _capabilities(own=flat)
        self.direct: Callable[..., bool] | None = self._group.direct() if flat else None
        self.direct_at: Callable[..., bool] | None = self._group.direct(by_address=True) if flat else None
        self.launch_at: Callable[..., Work | None] | None = self._launch_at if flat else None
        self._plans: dict[_PlanKey, native.Plan] = {}
        self._lock = threading.Lock()

    @property
    def transports(self) -> list[str]:
        """How this rank reaches each rank of the group: ``shm``, ``tcp`` or ``self``."""
        return self._group.transports

    def launch(self, call: Call, *, blocking: bool = False) -> Work:
        """Start an operation; with ``blocking``, perform it on this thread."""
        timeout_s = self.config.timeout_s if call.timeout_s is None else call.timeout_s
        if call.kind in (CollectiveKind.SEND, CollectiveKind.RECV):
            is_send = call.kind is CollectiveKind.SEND
            buffer = call.send if is_send else call.recv
            message = self._group.message(
                is_send, call.peer, call.tag, buffer, int(call.dtype), timeout_s, courier=not blocking
            )
            return _Pending(message, timeout_s)
        if call.schedule is None:
            sides = operands(call, self.config.rank, self.config.size)
            send: Bytes | None = sides.send
            recv: Bytes | None = sides.recv
            plan = None
        else:
            send, recv, plan = call.send, call.recv, self._plan(call, call.schedule)
        work = self._group.collective(
            int(call.kind),
            int(call.dtype),
            int(call.op),
            call.root,
            call.count,
            send,
            recv,
            call.counts,
            call.factor,
            call.round_once,
            plan,
            timeout_s,
            blocking,
        )
        return _FINISHED if work is None else _Pending(work, timeout_s)

    def _launch_at(self, keep: object, *args: Any) -> Work | None:
        work = self._group.launch_at(keep, *args)
        timeout_s = args[-1]
        return (
            None
            if work is None
            else _Pending(work, self.config.timeout_s if timeout_s is None else timeout_s)
        )

    def _plan(self, call: Call, schedule: Schedule) -> native.Plan:
        counts = b"" if call.counts is None else call.counts.tobytes()
        key = _PlanKey(schedule.digest(), call.dtype.itemsize, call.count, counts)
        with self._lock:
            plan = self._plans.get(key)
        if plan is None:
            plan = _bind(call, schedule, self.config.rank)
            with self._lock:
                if len(self._plans) >= _MAX_PLANS:
                    self._plans.pop(next(iter(self._plans)))
                self._plans[key] = plan
        return plan

    def abort(self, reason: str) -> None:
        """End every wait of the group on every rank."""
        self._group.abort(reason)

    def close(self) -> None:
        """Wait for work in flight, say goodbye, release everything."""
        self.direct = self.direct_at = self.launch_at = None
        self._group.close()


class NativeBackend:
    """The default backend: needs nothing but pycomm itself."""

    name = "native"

    def available(self) -> str | None:
        """Why it cannot be used here: always ``None``, the core is part of pycomm."""
        return None

    def capabilities(self) -> Capabilities:
        """List what a group offers whose ranks share memory; on others, schedules replace own collectives."""
        return _capabilities(own=True)

    def open(self, config: GroupConfig) -> NativeComm:
        """Join the job (the world's group) or use the parent's side of it (groups split from another)."""
        if config.parent is not None:
            return NativeComm(config, config.parent.context)
        host, port = tcp_endpoint(config.store, config.rank, config.secret, timeout_s=config.timeout_s)
        context = native.Context(
            rank=config.rank,
            size=config.size,
            store_host=host,
            store_port=port,
            secret=config.secret,
            interface=str(setting("interface")),
            family=int(setting("family")),
            timeout_s=config.timeout_s,
            allow_shared_memory=bool(setting("shm")),
            tcp_connections=int(setting("tcp_connections")),
        )
        return NativeComm(config, context)


BACKEND: Backend = NativeBackend()


def _group_id(name: str) -> int:
    """Derive the number that frames of the group carry; equal on every rank, since names are."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def _bind(call: Call, schedule: Schedule, rank: int) -> native.Plan:
    """Bind a schedule's chunks to the elements of a call."""
    layout = bind(schedule, rank, call.count, call.counts)
    return native.bind_plan(
        int(schedule.kind),
        rank,
        schedule.nranks,
        schedule.root,
        schedule.pieces,
        schedule.in_place,
        call.dtype.itemsize,
        np.ascontiguousarray(schedule.program(rank)).reshape(-1),
        layout.input,
        layout.output,
        layout.scratch,
        int.from_bytes(schedule.digest()[:8], "little"),
    )
