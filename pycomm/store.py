"""Where the ranks of a job exchange addresses before they can talk: small values under names, written once.

======================  =================================================================================
:class:`MemoryStore`    ranks are threads of one process
:class:`FileStore`      ranks share a file system; on one host it also carries the job's secret
:class:`TcpStore`       ranks reach one host over the network; authenticated by the job's secret
======================  =================================================================================
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

from pycomm.errors import AuthError, DeadlineExceeded, PeerLost, ProtocolError, ResourceError, UsageError

__all__ = ["FileStore", "MemoryStore", "Store", "TcpStore", "tcp_endpoint"]


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
        f"waited {timeout_s:g} s for {key!r} in the {where}: the rank that writes it did not come; check "
        "that "
        "every rank was started and uses the same rendezvous",
        operation="rendezvous",
    )


def _rewritten(key: str, where: str) -> UsageError:
    return UsageError(
        f"{key!r} is already written in the {where} with another value: two jobs use one rendezvous, or a "
        "rank "
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


class TcpStore:
    """A store that rank 0 serves over TCP. Only who knows the secret gets in. Thread-safe.

    Made by :meth:`serve` and :meth:`join`.

    Attributes
    ----------
    host, port : str, int
        Where it listens.
    """

    def __init__(self, host: str, port: int, client: Any, server: Any = None) -> None:
        self.host, self.port = host, port
        self._client, self._server = client, server

    @classmethod
    def serve(
        cls, host: str, ports: Sequence[int], secret: str, *, timeout_s: float, family: int = 0
    ) -> TcpStore:
        """Listen on the first port of ``ports`` that is free (0: let the kernel choose).

        Raises
        ------
        ResourceError
            None is free.
        """
        from pycomm.core import native  # deferred: other stores work without the core

        for index, port in enumerate(ports):
            try:
                server = native.StoreServer(host, port, secret, family)
            except ResourceError:
                if index == len(ports) - 1:
                    raise
            else:
                client = native.StoreClient(host, server.port, secret, family, timeout_s)
                return cls(host, server.port, client, server)
        raise UsageError("no port was given to listen on")

    @classmethod
    def join(
        cls,
        host: str,
        ports: Sequence[int],
        secret: str,
        *,
        timeout_s: float,
        family: int = 0,
        is_repeated: bool = False,
    ) -> TcpStore:
        """Connect to the store of this job, which listens on one of ``ports``.

        With ``is_repeated``, a store with another secret may be that of the same processes' job before.

        Raises
        ------
        AuthError
            The only port is held by a store with another secret.
        DeadlineExceeded
            No store of this job answered in time.
        """
        from pycomm.core import native

        if len(ports) == 1 and not is_repeated:
            return cls(host, ports[0], native.StoreClient(host, ports[0], secret, family, timeout_s))
        deadline = time.monotonic() + timeout_s
        while True:
            for port in ports:
                left = deadline - time.monotonic()
                try:
                    # Somebody else may hold this port and say nothing: do not wait for it for long.
                    client = native.StoreClient(host, port, secret, family, max(0.05, min(2.0, left)))
                except (AuthError, ProtocolError, DeadlineExceeded, PeerLost):
                    continue
                return cls(host, port, client)
            if time.monotonic() >= deadline:
                raise DeadlineExceeded(
                    f"waited {timeout_s:g} s for this job's store at {host}, ports "
                    f"{', '.join(map(str, ports))}: "
                    "check that rank 0 runs there, that the ports are open between the hosts and that every "
                    "rank has "
                    "the same secret",
                    operation="rendezvous",
                    ranks=(0,),
                )
            time.sleep(0.05)

    def set(self, key: str, value: bytes) -> None:
        """Write a value once."""
        self._client.set(key, value, _SET_TIMEOUT_S)

    def get(self, key: str, *, timeout_s: float) -> bytes:
        """Return the value, waiting for it."""
        return bytes(self._client.get(key, timeout_s))

    def close(self) -> None:
        """Disconnect; at rank 0 also stop serving."""
        self._client.close()
        self._server = None


def tcp_endpoint(store: Store, rank: int, secret: str, *, timeout_s: float) -> tuple[str, int]:
    """Return host and port of a TCP store of the job; where there is none, rank 0 starts one on this host.

    Parameters
    ----------
    store
        Where the ranks meet. Unless it is a :class:`TcpStore`, all ranks are on this host.
    rank
        This process; every rank calls it.
    secret
        The job's.
    """
    if isinstance(store, TcpStore):
        return store.host, store.port
    if rank == 0:
        served = TcpStore.serve("127.0.0.1", (0,), secret, timeout_s=timeout_s)
        _SERVED[store] = served
        store.set("tcp", f"{served.host}:{served.port}".encode())
    host, _, port = store.get("tcp", timeout_s=timeout_s).decode().rpartition(":")
    return host, int(port)


_SET_TIMEOUT_S: Final = 60.0
_SERVED: Final[weakref.WeakKeyDictionary[Store, TcpStore]] = weakref.WeakKeyDictionary()
