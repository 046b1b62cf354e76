"""Operations under way as torch sees them: works, their futures, and the threads that complete futures."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor

from pycomm.backends.base import Work
from pycomm.torch.options import seconds

__all__ = ["DONE", "Completer", "PycommWork", "complete_alone"]

# C++ that gets a work forgets its Python half, and waits for the other half for ever: torch 2.6 wherever it
# calls a Python process group, every torch where a program hands a work on, as DDP's join does with that of
# one number ("who is still there"). So such works live on here: a number's until many more have come,
# since C++ asks them for their future after it has waited, the others until somebody has waited for them.
_ARE_LOST: Final = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13)
_ONE_NUMBER: Final = 16  # bytes
_MAX_KEPT: Final = 1024
_kept: Final[OrderedDict[int, PycommWork]] = OrderedDict()


def _is_number(outputs: list[Tensor]) -> bool:
    """Whether that is one number and nothing that hangs on it: no larger memory, no graph of autograd."""
    if len(outputs) != 1 or outputs[0].nbytes > _ONE_NUMBER or outputs[0].requires_grad:
        return False
    return bool(outputs[0].untyped_storage().nbytes() <= _ONE_NUMBER)


class PycommWork(dist.Work):  # type: ignore[misc] # torch has no types for it
    """Operations of a group that torch sees as one. Thread-safe; keeps the tensors alive until it has ended.

    Parameters
    ----------
    parts
        What the communicator returned.
    outputs
        The tensors that the operation writes: the value of the future.
    finish
        To be called once, when all parts have ended well: copies results to where the caller wants them.
    keep
        Whatever must live as long.
    watch
        Whom to ask to complete this work's future when it has ended.
    """

    def __init__(
        self,
        parts: Sequence[Work],
        outputs: list[Tensor],
        finish: Sequence[Callable[[], object]] = (),
        keep: Any = None,
        watch: Callable[[PycommWork], None] | None = None,
    ) -> None:
        super().__init__()
        self._parts, self._outputs, self._finish, self._keep = parts, outputs, finish, keep
        self._watch = watch
        self._lock = threading.Lock()
        self._end: torch.futures.Future[None] | None = None
        self._future: torch.futures.Future[list[Tensor]] | None = None
        self._seen: torch.futures.Future[None] | None = None
        self._error: Exception | None = None
        self._source = -1
        self._ended = False
        self._is_number = _is_number(outputs)
        if _ARE_LOST or self._is_number:
            _kept[id(self)] = self
            if len(_kept) > _MAX_KEPT:
                _kept.popitem(last=False)

    @classmethod
    def of(cls, works: Sequence[PycommWork], watch: Callable[[PycommWork], None]) -> PycommWork:
        """Make one work of several."""
        outputs = [tensor for work in works for tensor in work._outputs]
        return cls([_Part(work) for work in works], outputs, watch=watch)

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Block until it has ended; raises what ended it, or ``DeadlineExceeded`` after ``timeout``."""
        if not self._ended:
            self._settle(seconds(timeout))
        if self._seen is not None:
            self._seen.wait()
        self._let_go()
        if self._error is not None:
            raise self._error
        return True

    def _let_go(self) -> None:
        if not self._is_number:
            _kept.pop(id(self), None)

    def show(self, span: Any) -> None:
        """Let torch's profiler see the operation until it ends; called before anybody else has the work.

        Its event ends on the thread that completes the future: that is how the profiler tells operations that
        go on beside the program from the program's own; so do those of torch's backends.

        Parameters
        ----------
        span
            The event, begun.
        """
        end: torch.futures.Future[None] = torch.futures.Future()
        # First, so that whoever is called back may wait.
        self._seen = torch.ops.profiler._call_end_callbacks_on_jit_fut._RecordFunction(span, end)
        self._promise(end)
        if self._watch is not None:
            self._watch(self)

    def synchronize(self) -> None:
        """Wait, as for a device's stream."""
        self.wait()

    def _settle(self, timeout_s: float | None = None) -> None:
        """Wait for the parts and put the results in their places; the failure is kept, not raised.

        Raises
        ------
        DeadlineExceeded
            ``timeout_s`` passed first; the operation goes on.
        """
        error: Exception | None = None
        source = -1
        for part in self._parts:
            try:
                source = max(source, part.wait(timeout_s))
            except Exception as failure:
                if timeout_s is not None and not part.done():
                    raise  # only the caller's patience has ended
                error = error or failure
        with self._lock:
            if self._ended:
                return
            if error is None:
                try:
                    for finish in self._finish:
                        finish()
                except Exception as failure:
                    error = failure
            self._error, self._source, self._ended = error, source, True
            self._parts, self._finish, self._keep = (), (), None

    def is_completed(self) -> bool:
        """Whether it has ended, well or badly; the results are then in place. Never blocks on other ranks."""
        if not self._ended:
            if not all(part.done() for part in self._parts):
                return False
            self._settle()
        return True

    def is_success(self) -> bool:
        """Whether it has ended well."""
        return self.is_completed() and self._error is None

    def exception(self) -> Exception | None:
        """Return what ended it, or ``None``."""
        return self._error if self.is_completed() else None

    def source_rank(self) -> int:
        """Return the rank that a receive's message came from, as the group numbers it."""
        self.wait()
        return self._source

    _source_rank = source_rank

    def result(self) -> list[Tensor]:
        """Return the tensors that it wrote; waits for them."""
        self.wait()
        return self._outputs

    def get_future(self) -> torch.futures.Future[list[Tensor]]:
        """Return the future of the output tensors. It completes without anybody waiting for this work.

        It knows no devices: what it completes with has reached its device already.
        """
        has_ended = self.is_completed()
        with self._lock:
            if self._future is not None:
                return self._future
            if has_ended and self._error is None:
                self._future = torch.futures.Future()
                self._future.set_result(self._outputs)
                return self._future
            future = self._promise(torch.futures.Future())
        if has_ended or self._watch is None:
            self.complete()
        else:
            self._watch(self)
        return future

    def _promise(self, end: torch.futures.Future[None]) -> torch.futures.Future[list[Tensor]]:
        """Make the future of the outputs, to be completed by way of ``end``."""
        # C++ hears of a failure only from a callback that raises: DDP's reducer crashes on what
        # Future.set_exception leaves.
        self._end = end
        self._future = end.then(self._outcome)
        return self._future

    def complete(self) -> None:
        """Wait for the end and complete the future; its callbacks run on this thread."""
        self._settle()
        if self._end is not None:
            self._end.set_result(None)
            self._let_go()

    def _outcome(self, _: torch.futures.Future[None]) -> list[Tensor]:
        if self._error is not None:
            raise self._error
        return self._outputs


class _Part:
    """A work of torch as a part of another."""

    def __init__(self, work: PycommWork) -> None:
        self._work = work

    def done(self) -> bool:
        return self._work.is_completed()

    def wait(self, timeout_s: float | None = None) -> int:
        self._work._settle(timeout_s)
        if self._work._error is not None:
            raise self._work._error
        return self._work._source


class _Done(PycommWork):
    """A blocking call that has ended well: one object serves all."""

    def __init__(self) -> None:
        super().__init__((), [])
        self._ended = True

    def wait(self, timeout: timedelta | None = None) -> bool:
        del timeout
        return True

    def get_future(self) -> torch.futures.Future[list[Tensor]]:
        future: torch.futures.Future[list[Tensor]] = torch.futures.Future()
        future.set_result([])
        return future


DONE: Final = _Done()


_LAST_WORDS_S: Final = 1.0
_THREADS: Final[weakref.WeakSet[threading.Thread]] = weakref.WeakSet()
_COMPLETERS: Final[weakref.WeakSet[Completer]] = weakref.WeakSet()
_recording: Final = threading.Lock()


def _start(name: str, run: Callable[[], None]) -> threading.Thread:
    """Start a thread for which the end of the program waits a moment.

    One that comes back from torch's C++ when Python has begun to end would abort the process.
    """
    thread = threading.Thread(target=run, name=name, daemon=True)
    with _recording:
        _THREADS.add(thread)
    thread.start()
    return thread


def _join(threads: Iterable[threading.Thread]) -> None:
    """Wait a moment, the same for all, until the threads have ended."""
    deadline = time.monotonic() + _LAST_WORDS_S
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))


@atexit.register
def _join_all() -> None:
    for completer in list(_COMPLETERS):
        completer.dismiss()
    with _recording:
        threads = list(_THREADS)
    _join(threads)


class Completer:
    """Completes the futures of works that end in the order in which they were made.

    One thread at a time, the *leader*, waits for the oldest work. A callback of a future may itself wait for
    a later work of the same group (PowerSGD's does), so whoever runs callbacks has handed the lead to another
    thread before. Threads start when needed and end when there has been nothing to do for a while.

    Parameters
    ----------
    name
        What the threads are called.
    """

    _IDLE_S: Final = 5.0

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: deque[PycommWork] = deque()
        self._changed = threading.Condition()
        self._has_leader = False
        self._is_closed = False
        self._idle = 0
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        _COMPLETERS.add(self)

    def close(self) -> None:
        """Complete what is still watched and wait a moment for the threads to end."""
        self.dismiss()
        with self._changed:
            threads = list(self._threads)
        _join(threads)

    def dismiss(self) -> None:
        """Let the threads end when they have nothing to do."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def watch(self, work: PycommWork) -> None:
        """Complete a work's future when it has ended."""
        with self._changed:
            self._queue.append(work)
            self._call_leader()

    def _call_leader(self) -> None:
        """See to it that somebody leads while there is work. The lock is held."""
        if not self._queue or self._has_leader:
            return
        if self._idle:
            self._changed.notify()
        else:
            self._threads.add(_start(f"{self._name}-futures", self._serve))

    def _has_call(self) -> bool:
        return self._is_closed or bool(self._queue and not self._has_leader)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(self._has_call, self._IDLE_S)
                self._idle -= 1
                if not self._queue or self._has_leader:
                    return
                self._has_leader = True
                work = self._queue.popleft()
            work._settle()
            with self._changed:
                self._has_leader = False
                self._call_leader()
            work.complete()


def complete_alone(work: PycommWork) -> None:
    """Complete the future of a work that may end in any order (a message), on a thread of its own."""
    _start("pycomm-message-future", work.complete)
