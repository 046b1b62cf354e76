"""Where the ranks of a job exchange addresses before they can talk: small values under names, written once.

======================  =============================================================================================
:class:`MemoryStore`    ranks are threads of one process
:class:`FileStore`      ranks share a file system; used on one host, where it also carries the job's secret
======================  =============================================================================================
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from pycomm.errors import AuthError, DeadlineExceeded, UsageError

__all__ = ["FileStore", "MemoryStore", "Store"]


class Store(Protocol):
    """Small values under names. A name is written once; whoever asks early waits."""

    def set(self, key: str, value: bytes) -> None:
        """Write a value. The same value again is fine; another value for a known key is a ``UsageError``."""

    def get(self, key: str, *, timeout_s: float) -> bytes:
        """Return the value, waiting until somebody has written it; ``DeadlineExceeded`` when nobody does."""

    def close(self) -> None:
        """Let go. Twice is fine."""


def _late(key: str, timeout_s: float, where: str) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"waited {timeout_s:g} s for {key!r} in the {where}: the rank that writes it did not come; check that "
        "every rank was started and uses the same rendezvous",
        operation="rendezvous",
    )


def _rewritten(key: str, where: str) -> UsageError:
    return UsageError(
        f"{key!r} is already written in the {where} with another value: two jobs use one rendezvous, or a rank "
        "number is used twice"
    )


class MemoryStore:
    """A store inside one process. Thread-safe.

    Attributes
    ----------
    shared : dict
        Objects that the ranks share, for backends whose ranks are threads.
    """

    def __init__(self) -> None:
        self.shared: dict[str, Any] = {}
        self._values: dict[str, bytes] = {}
        self._changed = threading.Condition()

    def set(self, key: str, value: bytes) -> None:
        """Write a value once."""
        with self._changed:
            if self._values.setdefault(key, value) != value:
                raise _rewritten(key, "memory store")
            self._changed.notify_all()

    def get(self, key: str, *, timeout_s: float) -> bytes:
        """Return the value, waiting for it."""
        with self._changed:
            if not self._changed.wait_for(lambda: key in self._values, timeout_s):
                raise _late(key, timeout_s, "memory store")
            return self._values[key]

    def close(self) -> None:
        """Do nothing: the memory goes with the last reference."""


class FileStore:
    """A store in a directory, one file per key.

    Parameters
    ----------
    directory
        Made if missing, readable by this user only. A directory of somebody else is refused.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = self.directory.stat().st_uid
        if owner != os.getuid():
            raise AuthError(
                f"the rendezvous directory {self.directory} belongs to user {owner}, not to {os.getuid()}; "
                "choose another one"
            )

    def _path(self, key: str) -> Path:
        return self.directory / quote(key, safe="")

    def set(self, key: str, value: bytes) -> None:
        """Write a value once; it appears whole or not at all."""
        path = self._path(key)
        draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(value)
            try:
                os.link(draft, path)
            except FileExistsError:
                if path.read_bytes() != value:
                    raise _rewritten(key, f"directory {self.directory}") from None
        finally:
            draft.unlink(missing_ok=True)

    def get(self, key: str, *, timeout_s: float) -> bytes:
        """Return the value, looking for it again and again, at most every 20 ms."""
        path = self._path(key)
        deadline = time.monotonic() + timeout_s
        pause_s = 0.0005
        while True:
            try:
                return path.read_bytes()
            except FileNotFoundError:
                if time.monotonic() >= deadline:
                    raise _late(key, timeout_s, f"directory {self.directory}") from None
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.02)

    def close(self) -> None:
        """Do nothing: the directory belongs to whoever made it."""
