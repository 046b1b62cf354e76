"""Operations under way, as the user holds them: works, and batches of operations that start together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from pycomm.backends.base import Work
from pycomm.errors import UsageError
from pycomm.events import Phase
from pycomm.journal import Note

__all__ = ["DONE", "Batch", "Deferred", "Finished", "Pending"]


class Finished:
    """A work that has ended well."""

    __slots__ = ("_source",)

    def __init__(self, source: int = -1) -> None:
        self._source = source

    def done(self) -> bool:
        """Whether it has ended: yes."""
        return True

    def wait(self, timeout_s: float | None = None) -> int:  # noqa: ARG002 (part of the interface)
        """Return the source rank of a receive, else -1."""
        return self._source


DONE: Final = Finished()


class Pending:
    """An operation under way, with what it borrows and what is left to do when it has ended.

    Thread-safe. Dropping it without waiting is allowed: the operation goes on, its memory stays alive.
    """

    __slots__ = ("_finish", "_inner", "_keep", "_lock", "_note", "_start")

    def __init__(
        self,
        start: Callable[[], Work],
        finish: Callable[[], None] | None,
        keep: tuple[Any, ...],
        note: Note | None = None,
    ) -> None:
        self._start: Callable[[], Work] | None = start
        self._note = note  # forgotten once the end has been noted
        self._inner: Work | None = None
        self._finish = finish
        self._keep = keep
        self._lock = threading.Lock()

    def start(self) -> None:
        """Launch the operation; called once."""
        start, self._start = self._start, None
        if start is None:
            return
        if self._note is not None:
            self._note(Phase.STARTED, None)
        try:
            self._inner = start()
        except BaseException as failure:
            self._ended(failure)
            raise

    def _ended(self, failure: BaseException | None = None) -> None:
        note, self._note = self._note, None
        if note is not None:
            note(Phase.DONE if failure is None else Phase.FAILED, failure)

    def _launched(self) -> Work:
        if self._inner is None:
            raise UsageError(
                "the operation has not started: it belongs to a batch whose `with` block is still open"
            )
        return self._inner

    def done(self) -> bool:
        """Whether it has ended, well or badly. Never blocks. Results are in place only after :meth:`wait`."""
        return self._inner is not None and self._inner.done()

    def wait(self, timeout_s: float | None = None) -> int:
        """Block until it has ended; returns the source rank of a receive, else -1.

        Raises
        ------
        CommError, Mismatch
            What ended the operation, each time it is asked.
        DeadlineExceeded
            ``timeout_s`` passed first.
        """
        try:
            source = self._launched().wait(timeout_s)
        except BaseException as failure:
            if timeout_s is None or self.done():  # else only the caller's patience has ended
                self._ended(failure)
            raise
        if self._note is not None:
            self._ended()
        if self._finish is not None:
            with self._lock:
                finish, self._finish = self._finish, None
                if finish is not None:
                    finish()
        return source


class Deferred:
    """An operation that starts when another has ended, since it needs what that one brings. Thread-safe.

    Parameters
    ----------
    first
        The operation to wait for.
    then
        Starts the second one; called once, when the first has ended well.
    """

    __slots__ = ("_failure", "_first", "_lock", "_second", "_then")

    def __init__(self, first: Work, then: Callable[[], Work]) -> None:
        self._first, self._then = first, then
        self._second: Work | None = None
        self._failure: Exception | None = None
        self._lock = threading.Lock()

    def start(self, timeout_s: float | None = None) -> None:
        """Wait for the first operation and start the second; :meth:`wait` raises what keeps it from starting.

        Raises
        ------
        DeadlineExceeded
            ``timeout_s`` passed first.
        """
        if self._second is not None or self._failure is not None:
            return
        try:
            self._first.wait(timeout_s)
        except Exception as failure:
            if timeout_s is not None and not self._first.done():
                raise
            self._failure = failure
            return
        with self._lock:
            if self._second is None and self._failure is None:
                try:
                    self._second = self._then()
                except Exception as failure:
                    self._failure = failure

    def done(self) -> bool:
        """Whether it has ended, well or badly. Never blocks."""
        if self._second is None and self._failure is None:
            if not self._first.done():
                return False
            self.start()
        return self._second is None or self._second.done()

    def wait(self, timeout_s: float | None = None) -> int:
        """Block until it has ended; raises what ended it."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self.start(timeout_s)
        if self._failure is not None:
            raise self._failure
        if self._second is None:
            raise UsageError(
                "the operation has not started"
            )  # pragma: no cover (start() left one of the two)
        return self._second.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))


class Batch:
    """Operations of one thread that start together, when the ``with`` block of ``Communicator.batch`` ends.

    Inside the block the communicator's calls return works that have not started. When the block is left by an
    exception, none of them starts.

    Attributes
    ----------
    works : list of Pending
        The operations so far.
    """

    def __init__(self, opened: Callable[[Batch], None], closed: Callable[[Batch], None]) -> None:
        self._opened, self._closed = opened, closed
        self.works: list[Pending] = []

    def add(self, work: Pending) -> None:
        """Put an operation behind those already there."""
        self.works.append(work)

    def __enter__(self) -> Batch:
        self._opened(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed(self)
        if kind is None:
            for work in self.works:
                work.start()

    def done(self) -> bool:
        """Whether all operations have ended."""
        return all(work.done() for work in self.works)

    def wait(self, timeout_s: float | None = None) -> None:
        """Block until every operation has ended; raises the first failure, after all were waited for."""
        first: Exception | None = None
        for work in self.works:
            try:
                work.wait(timeout_s)
            except Exception as error:  # kept, and raised below
                first = first or error
        if first is not None:
            raise first
