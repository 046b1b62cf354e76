"""Messages of a rank to itself, for libraries that have no such thing."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque

import numpy as np

from pycomm.backends.base import Bytes
from pycomm.errors import CommError, DeadlineExceeded, Mismatch, PycommError

__all__ = ["Loopback", "LoopbackWork"]


class LoopbackWork:
    """A send or receive; see :class:`pycomm.backends.base.Work`."""

    def __init__(self, what: str, source: int, target: Bytes | None, deadline: float) -> None:
        self._what, self._source, self._target, self._deadline = what, source, target, deadline
        self._ended = threading.Event()
        self._failure: PycommError | None = None

    def done(self) -> bool:
        """Whether it has ended, well or badly."""
        return self._ended.is_set()

    def wait(self, timeout_s: float | None = None) -> int:
        """Block until it has ended."""
        left = max(0.0, self._deadline - time.monotonic())
        if not self._ended.wait(left if timeout_s is None else min(left, timeout_s)):
            raise DeadlineExceeded(f"{self._what}: this rank has not sent it to itself", operation=self._what)
        if self._failure is not None:
            raise self._failure
        return self._source

    def deliver(self, message: Bytes | None) -> None:
        """End well, with the message of a receive."""
        if message is not None and self._target is not None:
            if message.nbytes == self._target.nbytes:
                np.copyto(self._target, message)
            else:
                self._failure = Mismatch(
                    f"{self._what}: {self._target.nbytes} bytes are expected, this rank sent itself "
                    f"{message.nbytes}; give both sides the same count and dtype"
                )
        self._ended.set()

    def fail(self, failure: CommError) -> None:
        """End badly, unless it has ended already."""
        if not self._ended.is_set():
            self._failure = failure
            self._ended.set()


class Loopback:
    """Pairs a rank's sends and receives to itself: by tag, in order. Sends are buffered. Thread-safe."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._guard = threading.Lock()
        self._messages: defaultdict[int, deque[Bytes]] = defaultdict(deque)
        self._waiting: defaultdict[int, deque[LoopbackWork]] = defaultdict(deque)

    def send(self, view: Bytes, tag: int, what: str, deadline: float) -> LoopbackWork:
        """Take a copy of the message; ends at once."""
        work = LoopbackWork(what, -1, None, deadline)
        with self._guard:
            if self._waiting[tag]:
                self._waiting[tag].popleft().deliver(view)
            else:
                self._messages[tag].append(view.copy())
        work.deliver(None)
        return work

    def recv(self, view: Bytes, tag: int, what: str, deadline: float) -> LoopbackWork:
        """Wait for the next message with this tag."""
        work = LoopbackWork(what, self._rank, view, deadline)
        with self._guard:
            if self._messages[tag]:
                work.deliver(self._messages[tag].popleft())
            else:
                self._waiting[tag].append(work)
        return work

    def fail(self, failure: CommError) -> None:
        """End all waiting receives."""
        with self._guard:
            for works in self._waiting.values():
                for work in works:
                    work.fail(failure)
            self._waiting.clear()
