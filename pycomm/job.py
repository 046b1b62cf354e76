"""``pycomm.init``: from the environment to a communicator of all ranks of the job."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import hmac
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pycomm.backends.base import Backend, GroupConfig
from pycomm.backends.registry import get_backend
from pycomm.communicator import Communicator
from pycomm.config import SETTINGS, setting
from pycomm.errors import PycommError, UsageError
from pycomm.events import configure_logging
from pycomm.group_network import PROBE
from pycomm.hosts import check_interface
from pycomm.launch import Placement, detect, is_loopback
from pycomm.store import FileStore, MemoryStore, Store, TcpStore

__all__ = ["init", "open_world"]

_WORLDS: Final[weakref.WeakSet[Communicator]] = weakref.WeakSet()
_MEMORY: Final[dict[str, MemoryStore]] = {}
_LOCK: Final = threading.Lock()
_made = 0
PROBE_S: Final = 30.0
"""How long measuring the network may take, where PYCOMM_TOPOLOGY asks for it."""


def init(
    backend: str | None = None,
    *,
    rank: int | None = None,
    size: int | None = None,
    rendezvous: str | None = None,
    secret: str | None = None,
    timeout_s: float | None = None,
) -> Communicator:
    """Join the job; returns the communicator of all its ranks. Blocks until every rank has called it.

    Rank, size and meeting point come from the environment of torchrun, mpirun (Open MPI, MPICH, Intel MPI),
    srun or a Kubernetes training job, or from the arguments. A process that none of them started is a group
    of one.

    Parameters
    ----------
    backend
        Name of the backend; ``PYCOMM_BACKEND`` when ``None``.
    rank, size
        This process's number and how many there are; both or neither.
    rendezvous
        Where ranks meet: ``"host:port"`` at which rank 0 listens, or ``"file:DIRECTORY"`` on a file system
        that all ranks share; ``PYCOMM_STORE`` when ``None``. Not needed when the launcher says it, nor on one
        host under a launcher.
    secret
        What every rank of the job knows and nobody else; ``PYCOMM_SECRET`` when ``None``. Jobs on one host
        make their own; jobs on several hosts need one.
    timeout_s
        Deadline for the group to stand, and default deadline of its operations; ``PYCOMM_TIMEOUT_S`` when
        ``None``.

    Raises
    ------
    UsageError
        The environment or the arguments are contradictory or incomplete; the message says what to do.
    BackendUnavailable
        The backend does not work here.
    CommError
        The group did not come together in time.

    Examples
    --------
    >>> import numpy as np, pycomm
    >>> with pycomm.init("reference") as comm:
    ...     x = np.ones(3)
    ...     _ = comm.allreduce(x)
    ...     x.tolist()
    [1.0, 1.0, 1.0]
    """
    provider = get_backend(backend or str(setting("backend")))
    wait_s = float(setting("timeout_s")) if timeout_s is None else float(timeout_s)
    if not wait_s > 0:
        raise UsageError(f"timeout_s={wait_s:g} is not a positive number of seconds")
    with _LOCK:
        placement = detect(os.environ, rank=rank, size=size)
        if setting("log"):  # else logging is the application's, or what the application has set up stays
            configure_logging(setting("log"), placement.rank)
        check_interface(setting("interface"))
        meeting = _meet(
            placement, rendezvous or str(setting("store")), secret or str(setting("secret")), wait_s
        )
    return open_world(
        provider, placement.rank, placement.size, meeting.store, meeting.secret, wait_s, leave=meeting.leave
    )


def open_world(
    provider: Backend,
    rank: int,
    size: int,
    store: Store,
    secret: str,
    timeout_s: float,
    *,
    name: str = "world",
    leave: Callable[[], None],
) -> Communicator:
    """Make the communicator of the ranks of a job that have met; the end of the program closes it.

    Parameters
    ----------
    provider
        What moves the bytes.
    rank, size
        This process in the job.
    store, secret
        Where the ranks have met, and what they know one another by.
    timeout_s
        Deadline for the group to stand, and default deadline of its operations.
    name
        Name of the group.
    leave
        How to leave the store; called when the communicator is closed, or could not be made.
    """
    config = GroupConfig(
        name=name,
        rank=rank,
        size=size,
        members=tuple(range(size)),
        timeout_s=timeout_s,
        store=store,
        secret=secret,
        options={name: str(entry.value()) for name, entry in SETTINGS.items() if not entry.is_secret},
    )
    try:
        comm = Communicator(provider, config, on_close=leave)
    except BaseException:
        leave()
        raise
    _WORLDS.add(comm)
    if setting("topology") == PROBE and len({place.identity for place in comm.places()}) > 1:
        from pycomm.probe import measure_network  # deferred: only where it is asked for

        try:
            comm.adopt_network(measure_network(comm, PROBE_S))
        except BaseException:
            comm.close()
            raise
    return comm


@dataclass(frozen=True, slots=True)
class _Meeting:
    """Where the ranks exchange addresses, and how to leave that place."""

    store: Store
    secret: str
    leave: Callable[[], None]


def _meet(placement: Placement, rendezvous: str, secret: str, timeout_s: float) -> _Meeting:
    if rendezvous.startswith("memory:"):
        store = _MEMORY.setdefault(rendezvous, MemoryStore())
        return _Meeting(store, secret, store.close)
    if placement.size == 1:
        alone = MemoryStore()
        return _Meeting(alone, secret or os.urandom(32).hex(), alone.close)
    if rendezvous.startswith("file:"):
        return _meet_in_directory(placement, rendezvous.removeprefix("file:"), secret, timeout_s)
    host, ports = _address(placement, rendezvous)
    if placement.is_local and not rendezvous:
        return _meet_on_this_host(placement, placement.job, secret, timeout_s)
    if is_loopback(host):
        return _meet_on_this_host(placement, f"{host}:{ports[0]}", secret, timeout_s)
    return _meet_over_network(placement, host, ports, secret, timeout_s)


def _meet_in_directory(placement: Placement, directory: str, secret: str, timeout_s: float) -> _Meeting:
    """Meet in a directory made for this job. Whoever can read it can join: it carries the secret."""
    store = FileStore(directory)
    if placement.rank == 0:
        store.set("secret", (secret or os.urandom(32).hex()).encode())
    return _Meeting(store, store.get("secret", timeout_s=timeout_s).decode(), store.close)


def _meet_on_this_host(placement: Placement, job: str, secret: str, timeout_s: float) -> _Meeting:
    """Meet in this user's runtime directory; the n-th job of this process meets the n-th of the others.

    The directory only leads to a store on the loopback address. It is gone again once every rank has found
    that store, so that a job that is killed leaves no file.
    """
    from pycomm.local_job import LocalJob  # deferred: tempfile and shutil take their time to import

    global _made
    _made += 1
    local = LocalJob(f"{job}#{_made}", placement.rank, timeout_s)
    try:
        proof = secret or local.secret
        if placement.rank == 0:
            store = TcpStore.serve("127.0.0.1", (0,), proof, timeout_s=timeout_s)
            local.store.set("store", str(store.port).encode())
            for rank in range(1, placement.size):
                store.get(f"found/{rank}", timeout_s=timeout_s)
        else:
            port = int(local.store.get("store", timeout_s=timeout_s))
            store = TcpStore.join("127.0.0.1", (port,), proof, timeout_s=timeout_s)
            store.set(f"found/{placement.rank}", b"")
    finally:
        local.close()
    return _Meeting(store, proof, store.close)


def _meet_over_network(
    placement: Placement, host: str, ports: tuple[int, ...], secret: str, timeout_s: float
) -> _Meeting:
    if not secret:
        raise UsageError(
            f"the ranks of this job meet at {host} over the network, and have no secret to know one another "
            "by: set "
            "PYCOMM_SECRET to the same random text on every rank (e.g. from `openssl rand -hex 32`), or pass "
            "secret to "
            "init"
        )
    # Two jobs with one secret stay apart, also when the same processes make one after the other at one
    # address: what they prove is derived from the job's id and number.
    global _made
    _made += 1
    proof = hmac.new(secret.encode(), f"{placement.job}#{_made}".encode(), hashlib.sha256).hexdigest()
    if placement.rank == 0:
        store = TcpStore.serve(host, ports, proof, timeout_s=timeout_s)
    else:
        store = TcpStore.join(host, ports, proof, timeout_s=timeout_s, is_repeated=_made > 1)
    return _Meeting(store, proof, store.close)


def _address(placement: Placement, rendezvous: str) -> tuple[str, tuple[int, ...]]:
    """Where rank 0's store listens: what the caller says, else what the launcher says."""
    if rendezvous:
        host, colon, port = rendezvous.rpartition(":")
        if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise UsageError(f"rendezvous={rendezvous!r} is not of the form 'host:port' or 'file:DIRECTORY'")
        return host.removeprefix("[").removesuffix("]"), (int(port),)
    if placement.host or placement.is_local:
        return placement.host, placement.ports
    raise UsageError(
        f"the launcher ({placement.launcher}) does not say where rank 0 of {placement.size} can be reached: "
        "set "
        "PYCOMM_STORE=host:port on every rank, where host is rank 0's, or pass rendezvous to init"
    )


def _close_all() -> None:
    """Say goodbye at the end of the program, so that the others need not find out."""
    for comm in list(_WORLDS):
        with contextlib.suppress(PycommError):
            comm.close()


atexit.register(_close_all)
