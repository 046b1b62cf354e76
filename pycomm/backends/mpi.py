"""MPI through mpi4py: the library's own collectives, its point-to-point calls, and any schedule over them.

Everything is started non-blocking and waited for by polling with a deadline, since a blocking MPI call can
only be left by ending the job. A failed group is abandoned, never torn down with ``MPI_Abort``: memory that
MPI might still write is kept for the rest of the process, and ``MPI_Finalize``, which would wait for lost
peers, is left out unless every process of the job gets that far.

What MPI does not define is not listed, and so is composed by schedules: arithmetic on float16, bfloat16 and
the float8 types, averages, pre-multiplied sums, logical operations on floats. ``min`` and ``max`` of floats
are listed although MPI leaves NaN undefined: with NaN among the inputs the library decides, and different
ranks may even see different results.

MPI knows neither deadlines nor who is missing, and most launchers end the whole job when a process dies;
where the library reports a dead process (ULFM) it becomes ``PeerLost``. Ranks that disagree on a call are
noticed only when the library complains.

Threads: initialised with ``MPI_THREAD_MULTIPLE``, or what ``MPI4PY_RC_THREAD_LEVEL`` asks for; where the
library grants less, one lock guards every MPI call (each of them short, because none blocks).
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import importlib.util
import os
import threading
import time
import weakref
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from pycomm.backends.base import Bytes, Call, Capabilities, GroupConfig, Work
from pycomm.backends.common import Lane, describe, pack_failure, unpack_failure
from pycomm.backends.mpi_calls import INT_MAX, Steps, Types, given
from pycomm.errors import (
    Aborted,
    BackendUnavailable,
    CommError,
    DeadlineExceeded,
    Mismatch,
    PeerLost,
    ProtocolError,
    Unsupported,
    UsageError,
)
from pycomm.types import CollectiveKind, DType, ReduceOp

__all__ = ["BACKEND", "MpiBackend", "MpiComm"]

_NOTICE_NBYTES = 1024
_LOST = ("ERR_PROC_FAILED", "ERR_PROC_FAILED_PENDING", "ERR_REVOKED")
_LEAVE_S = 2.0
_SPINS = 200
_YIELDS = 2000

_INTEGERS = frozenset(d for d in DType if DType.INT8 <= d <= DType.UINT64)
_ARITHMETIC = frozenset({ReduceOp.SUM, ReduceOp.PROD, ReduceOp.MIN, ReduceOp.MAX})
_BITWISE = frozenset({ReduceOp.BAND, ReduceOp.BOR, ReduceOp.BXOR})
_LOGICAL = frozenset({ReduceOp.LAND, ReduceOp.LOR})
_REDUCTIONS: dict[DType, frozenset[ReduceOp]] = {
    DType.FLOAT64: _ARITHMETIC,
    DType.FLOAT32: _ARITHMETIC,
    **dict.fromkeys(sorted(_INTEGERS), _ARITHMETIC | _BITWISE | _LOGICAL),
    DType.BOOL: _LOGICAL,
}
_REDUCING = frozenset(k for k in CollectiveKind if k.reduces)
_COLLECTIVES = frozenset(CollectiveKind) - {CollectiveKind.SEND, CollectiveKind.RECV}

_CAPABILITIES = Capabilities(
    own={k: frozenset(_REDUCTIONS) if k in _REDUCING else frozenset(DType) for k in sorted(_COLLECTIVES)},
    reductions=_REDUCTIONS,
    runs_schedules=True,
    schedule_reductions={d: frozenset(o for o in ReduceOp if d.supports(o)) for d in DType},
)

# Requests, memory and communicators of failed groups: MPI may touch them until the process ends.
_abandoned: list[object] = []
_LOCK = threading.RLock()
_open: weakref.WeakSet[MpiComm] = weakref.WeakSet()


def _load() -> Any:
    """Import ``mpi4py.MPI`` without letting it initialise or finalise MPI by itself."""
    import mpi4py

    mpi4py.rc.initialize = False
    mpi4py.rc.finalize = False
    from mpi4py import MPI

    return MPI


def _initialised() -> Any:
    """Load MPI, ready to use; finalised by us at exit only if started by us and no group failed."""
    try:
        mpi = _load()
    except (ImportError, RuntimeError) as error:
        raise BackendUnavailable(f"mpi4py found no usable MPI library: {error}") from error
    if not mpi.Is_initialized():
        mpi.Init_thread(getattr(mpi, f"THREAD_{_thread_level().upper()}", mpi.THREAD_MULTIPLE))
        atexit.register(_finalize, mpi)
    return mpi


def _thread_level() -> str:
    """Return the level that mpi4py's own setting asks for (MPI4PY_RC_THREAD_LEVEL), by default "multiple"."""
    import mpi4py

    return str(mpi4py.rc.thread_level)


def _finalize(mpi: Any) -> None:
    for comm in tuple(_open):
        comm.release_notice()
    if not mpi.Is_finalized() and (not _abandoned or _all_leave(mpi)):
        mpi.Finalize()


def _all_leave(mpi: Any) -> bool:
    """Whether every process of the job is leaving too, so that finalising after a failure cannot hang."""
    leaving = mpi.COMM_WORLD.Ibarrier()
    deadline = time.monotonic() + _LEAVE_S
    pause = _Pause(mpi.COMM_WORLD.size)
    while not leaving.Test():
        if time.monotonic() > deadline:
            return False
        pause()
    return True


class MpiBackend:
    """See :class:`pycomm.backends.base.Backend`."""

    name = "mpi"

    def available(self) -> str | None:
        """Why MPI cannot be used here, or ``None``."""
        if importlib.util.find_spec("mpi4py") is None:
            return "mpi4py is not installed; pip install mpi4py"
        try:
            _load()
        except (ImportError, RuntimeError) as error:
            first = str(error).partition("\n")[0]
            return (
                f"mpi4py found no usable MPI library ({first}); install one or set MPI4PY_LIBMPI to its file"
            )
        return None

    def capabilities(self) -> Capabilities:
        """List what MPI defines; see the module's text."""
        return _CAPABILITIES

    def open(self, config: GroupConfig) -> MpiComm:
        """Join the group; its members are ranks of ``MPI_COMM_WORLD``, or this process alone."""
        if (reason := self.available()) is not None:
            raise BackendUnavailable(reason)
        mpi = _initialised()
        if config.size == 1:
            return MpiComm(mpi, mpi.COMM_SELF.Dup(), config)
        world = mpi.COMM_WORLD
        if world.size <= max(config.members) or world.rank != config.members[config.rank]:
            raise BackendUnavailable(
                f"group {config.name!r} has rank {config.rank} of {config.size} here, but this process is "
                f"rank {world.rank} of {world.size} in MPI; start the job with this MPI's mpiexec "
                f"({mpi.Get_library_version().splitlines()[0].strip()})"
            )
        _meet(mpi, config)
        group = world.Get_group().Incl(list(config.members))
        return MpiComm(mpi, world.Create_group(group, _tag_of(config)), config)


def _tag_of(config: GroupConfig) -> int:
    return 16384 + zlib.crc32(config.name.encode()) % 16000


def _meet(mpi: Any, config: GroupConfig) -> None:
    """Make sure that all members are here, so that the blocking calls which follow end at once.

    The first member hears from all others and then answers all of them.
    """
    world, tag, leader = mpi.COMM_WORLD, _tag_of(config), config.members[0]
    mine = np.frombuffer(hashlib.sha256(repr((config.name, config.members)).encode()).digest(), np.uint8)
    deadline = time.monotonic() + config.timeout_s
    others = config.members[1:] if config.rank == 0 else (leader,)
    heard = {peer: np.empty(32, np.uint8) for peer in others}
    incoming = {peer: world.Irecv([heard[peer], mpi.BYTE], peer, tag) for peer in others}
    sent = [] if config.rank == 0 else [world.Isend([mine, mpi.BYTE], leader, tag)]
    pause = _Pause(config.size)
    while incoming:
        incoming = {peer: request for peer, request in incoming.items() if not request.Test()}
        if incoming and time.monotonic() > deadline:
            for request in incoming.values():
                request.Cancel()
            missing = tuple(config.members.index(peer) for peer in incoming)
            _abandoned.append((sent, heard, mine))
            raise DeadlineExceeded(
                f"opening group {config.name!r}: no word from rank(s) {', '.join(map(str, missing))} within "
                f"{config.timeout_s:g} s",
                group=config.name,
                operation="open",
                ranks=missing,
            )
        pause()
    if config.rank == 0:
        sent = [world.Isend([mine, mpi.BYTE], peer, tag) for peer in others]
    mpi.Request.Waitall(sent)  # 32 bytes to a peer that waits for them
    for peer, found in heard.items():
        if not np.array_equal(found, mine):
            raise Mismatch(
                f"group {config.name!r}: rank {config.members.index(peer)} opened another group at the "
                f"same time; here its members are {config.members}"
            )


class _Pause:
    """What a wait does between two looks: spin, then yield, then sleep ever longer (at most 1 ms)."""

    def __init__(self, size: int) -> None:
        self._looks = _SPINS if size > (os.cpu_count() or 1) else 0

    def __call__(self) -> None:
        self._looks += 1
        if self._looks <= _SPINS:
            return
        if self._looks <= _SPINS + _YIELDS:
            os.sched_yield()
        else:
            time.sleep(min(1e-3, 2e-5 * (1 + (self._looks - _SPINS - _YIELDS) // 16)))


class _Transfer:
    """Requests under way; see :class:`pycomm.backends.base.Work`."""

    def __init__(
        self,
        comm: MpiComm,
        what: str,
        requests: list[Any],
        deadline: float,
        finish: Callable[[], None] | None = None,
        keep: tuple[object, ...] = (),
        expected: int = -1,
    ) -> None:
        self._comm, self._what, self._requests = comm, what, requests
        self._deadline, self._finish, self._keep, self._expected = deadline, finish, keep, expected
        self._source = -1
        self._ended = False
        self._failure: BaseException | None = None
        self._guard = threading.Lock()

    def done(self) -> bool:
        """Whether it has ended, well or badly."""
        if not self._ended:
            with self._guard:
                if not self._ended:
                    self._look()
        return self._ended

    def wait(self, timeout_s: float | None = None) -> int:
        """Block until it has ended."""
        limit = self._deadline if timeout_s is None else min(self._deadline, time.monotonic() + timeout_s)
        pause = _Pause(self._comm.size)
        while not self.done():
            now = time.monotonic()
            if now >= self._deadline:
                self._comm.expire(self._what)
            elif now >= limit:
                raise DeadlineExceeded(
                    f"{self._what} in group {self._comm.name!r} has not ended in {timeout_s:g} s; it goes on",
                    group=self._comm.name,
                    operation=self._what,
                )
            else:
                pause()
        if self._failure is not None:
            raise self._failure
        return self._source

    def _look(self) -> None:
        statuses = [self._comm.mpi.Status() for _ in self._requests]
        try:
            with self._comm.gate:
                complete = self._comm.mpi.Request.Testall(self._requests, statuses)
            if complete:
                self._complete(statuses)
        except self._comm.mpi.Exception as error:
            self._end(self._comm.translate(error, self._what))
        except BaseException as error:
            self._end(error)
        if not self._ended and (failure := self._comm.failure()) is not None:
            self._end(failure)

    def _complete(self, statuses: list[Any]) -> None:
        if self._expected >= 0:
            self._source = statuses[0].Get_source()
            found = statuses[0].Get_count(self._comm.mpi.BYTE)
            if self._comm.types.large_counts or self._expected <= INT_MAX:
                _check_length(self._comm, self._what, self._source, self._expected, found)
        if self._finish is not None:
            self._finish()
        self._end(None)

    def _end(self, failure: BaseException | None) -> None:
        if isinstance(failure, CommError):
            self._comm.fail(failure)
            _abandoned.append((self._requests, self._keep))
        self._failure = failure
        self._requests, self._keep, self._finish = [], (), None
        self._ended = True
        self._comm.forget(self)


def _check_length(comm: MpiComm, what: str, source: int, expected: int, found: int) -> None:
    if found != expected:
        raise Mismatch(
            f"{what} in group {comm.name!r}: rank {comm.rank} expects {expected} bytes, rank {source} sent "
            f"{found}; give both sides the same count and dtype"
        )


class MpiComm:
    """One group; see :class:`pycomm.backends.base.BackendComm`.

    Three MPI communicators: one for what the caller asks, one for the messages of schedules, one over which a
    rank that fails or aborts tells the others why.
    """

    direct: Callable[..., bool] | None = None
    direct_at: Callable[..., bool] | None = None
    launch_at: Callable[..., Work | None] | None = None

    def __init__(self, mpi: Any, comm: Any, config: GroupConfig) -> None:
        self.mpi, self.name, self.rank, self.size = mpi, config.name, config.rank, config.size
        self._timeout_s = config.timeout_s
        self.gate: contextlib.AbstractContextManager[Any] = (
            contextlib.nullcontext() if mpi.Query_thread() >= mpi.THREAD_MULTIPLE else _LOCK
        )
        self._data, self._plan, self._control = comm, comm.Dup(), comm.Dup()
        for one in (self._data, self._plan, self._control):
            one.Set_errhandler(mpi.ERRORS_RETURN)
        self.types = Types(mpi)
        self._planner = Steps(self.types, self.rank, self.size, mpi.IN_PLACE)
        self._tag_limit = int(self._data.Get_attr(mpi.TAG_UB) or 32767)
        self._lane = Lane(f"pycomm-mpi-{config.name}")
        self._guard = threading.Lock()
        self._flying: set[Any] = set()
        self._failure: CommError | None = None
        self._closed = False
        self._looks = 0
        self._notice_text: Bytes = np.zeros(_NOTICE_NBYTES, np.uint8)
        self._notice: Any = None
        if self.size > 1:
            self._notice = self._control.Irecv([self._notice_text, mpi.BYTE], mpi.ANY_SOURCE, 0)
        _open.add(self)

    def launch(self, call: Call, *, blocking: bool = False) -> Work:
        """Start an operation; never blocks."""
        del blocking  # its transfers progress on the lane either way
        what = describe(call)
        if self._closed:
            raise UsageError(f"{what}: group {self.name!r} is closed")
        if (failure := self.failure(at_once=True)) is not None:
            raise failure
        deadline = time.monotonic() + (self._timeout_s if call.timeout_s is None else call.timeout_s)
        if call.schedule is not None:
            work = self._lane.submit(what, lambda: self._run(call, what, deadline))
            self._watch(work)
            return work
        if call.kind is CollectiveKind.RECV:
            return self._receive(call, what, deadline)
        if call.kind is CollectiveKind.SEND:
            self._check_tag(call.tag)
        elif not _owns(call):
            raise Unsupported(
                f"MPI has no {call.op.label} on {call.dtype.label}; run a schedule, or use another backend"
            )
        steps, finish = self._planner.steps(call)
        try:
            with self.gate:
                requests = [getattr(self._data, f"I{name.lower()}")(*given) for name, given in steps]
        except self.mpi.Exception as error:
            raise self.translate(error, what) from error
        return self._fly(_Transfer(self, what, requests, deadline, finish, (call, steps)))

    def bind(self, call: Call) -> Callable[[], None]:
        """Bind ``call`` to MPI's own blocking call, without deadline: what a program for MPI would run.

        For measurements; nothing but the library's time and mpi4py's is in it.
        """
        steps, finish = self._planner.steps(call)
        if len(steps) != 1 or finish is not None:
            blocking = [(getattr(self._data, name), given) for name, given in steps]

            def several() -> None:
                for method, given in blocking:
                    method(*given)
                if finish is not None:
                    finish()

            return several
        name, given = steps[0]
        return functools.partial(getattr(self._data, name), *given)

    def abort(self, reason: str) -> None:
        """End every wait of the group on every rank."""
        text = f"group {self.name!r} was aborted by rank {self.rank}: {reason}"
        self.fail(Aborted(text, group=self.name, ranks=(self.rank,)))

    def close(self) -> None:
        """Release everything; waits for work in flight, at most for the group's timeout."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
        if self.mpi.Is_finalized():
            return
        deadline = time.monotonic() + self._timeout_s
        pause = _Pause(self.size)
        while self._failure is None and any(not work.done() for work in tuple(self._flying)):
            if time.monotonic() > deadline:
                self.expire("close")
                break
            pause()
        self._lane.close(deadline - time.monotonic())
        self.release_notice()
        if self._failure is None:
            with self.gate:
                for one in (self._data, self._plan, self._control):
                    one.Free()
        _open.discard(self)

    def release_notice(self) -> None:
        """Stop listening for peers' failures."""
        notice, self._notice = self._notice, None
        if notice is not None:
            with self.gate:
                notice.Cancel()
                notice.Wait()

    def failure(self, at_once: bool = False) -> CommError | None:
        """Return why the group has failed, here or at a peer; looks at the network only now and then."""
        if self._failure is not None or self._notice is None:
            return self._failure
        self._looks += 1
        if not at_once and self._looks % 64:
            return None
        with self._guard, self.gate:
            notice = self._notice
            if notice is not None and self._failure is None and notice.Test():
                self._notice = None
                self._failure = unpack_failure(self._notice_text.tobytes().rstrip(b"\0"), self.name)
                _abandoned.append(self)
        return self._failure

    def fail(self, failure: CommError) -> None:
        """Set the group's failure, if it has none yet, and tell the peers."""
        with self._guard:
            if self._failure is not None:
                return
            self._failure = failure
            _abandoned.append(self)
        text = np.zeros(_NOTICE_NBYTES, np.uint8)
        packed = np.frombuffer(pack_failure(failure, _NOTICE_NBYTES), np.uint8)
        text[: packed.size] = packed
        with self.gate:
            peers = [peer for peer in range(self.size) if peer != self.rank]
            sent = [self._control.Isend([text, self.mpi.BYTE], peer, 0) for peer in peers]
        _abandoned.append((text, sent))

    def expire(self, what: str) -> None:
        """Fail the group because ``what`` reached its deadline."""
        self.fail(
            DeadlineExceeded(
                f"{what} in group {self.name!r} reached its deadline on rank {self.rank}; MPI cannot "
                "tell which ranks did not come: look for one that is stopped, slow, or made another call",
                group=self.name,
                operation=what,
            )
        )

    def translate(self, error: Any, what: str) -> Exception:
        """Turn an exception of mpi4py into ours."""
        code = error.Get_error_class()
        text = f"{what} in group {self.name!r} failed on rank {self.rank}: {error.Get_error_string()}"
        if code == self.mpi.ERR_TRUNCATE:
            return Mismatch(f"{text}; a peer sent more than this rank expects: agree on count and dtype")
        lost = {getattr(self.mpi, name, None) for name in _LOST}
        kind = PeerLost if code in lost else ProtocolError
        return kind(text, group=self.name, operation=what)

    def forget(self, work: Any) -> None:
        """Note that ``work`` is no longer in flight."""
        with self._guard:
            self._flying.discard(work)

    def _watch(self, work: Any) -> None:
        with self._guard:
            self._flying = {w for w in self._flying if isinstance(w, _Transfer) or not w.done()}
            self._flying.add(work)

    def _fly(self, work: _Transfer) -> _Transfer:
        with self._guard:
            self._flying.add(work)
        return work

    def _check_tag(self, tag: int) -> None:
        if not 0 <= tag <= self._tag_limit:
            raise UsageError(f"tag {tag} is out of range: this MPI takes 0 to {self._tag_limit}")

    def _receive(self, call: Call, what: str, deadline: float) -> _Transfer:
        self._check_tag(call.tag)
        view = given(call.recv)
        source = self.mpi.ANY_SOURCE if call.peer < 0 else call.peer
        with self.gate:
            request = self._data.Irecv(self.types.message(view), source, call.tag)
        return self._fly(_Transfer(self, what, [request], deadline, None, (call,), view.nbytes))

    def _run(self, call: Call, what: str, deadline: float) -> int:
        """Run a schedule, on the lane's thread."""
        from pycomm.backends.runner import run_schedule  # needs the compiled core, which MPI alone does not

        def isend(dst: int, channel: int, view: Bytes) -> _Transfer:
            with self.gate:
                request = self._plan.Isend(self.types.message(view), dst, channel)
            return self._fly(_Transfer(self, what, [request], deadline, None, (view,)))

        def irecv(src: int, channel: int, view: Bytes) -> _Transfer:
            with self.gate:
                request = self._plan.Irecv(self.types.message(view), src, channel)
            return self._fly(_Transfer(self, what, [request], deadline, None, (view,), view.nbytes))

        def wait(handle: _Transfer, _deadline: float | None) -> int:
            return handle.wait()

        try:
            run_schedule(call, self.rank, isend, irecv, wait, deadline=deadline)
        except BaseException:
            _abandoned.append(call)
            raise
        return -1


def _owns(call: Call) -> bool:
    if call.dtype not in _CAPABILITIES.own.get(call.kind, ()):
        return False
    return not call.kind.reduces or call.op in _REDUCTIONS[call.dtype]


BACKEND = MpiBackend()
