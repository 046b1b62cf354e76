"""How the ranks of a torch job find each other: addresses and the job's secret travel through torch's store.

What that secret is worth: it keeps out whoever can reach our ports but not the store, e.g. a port scanner or
another job. It does not keep out whoever can read the store, because torch's store knows no passwords. Where
that matters, set ``PYCOMM_SECRET`` on every rank: then the store carries no secret of ours.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Sequence
from typing import Any, Final

from pycomm.config import setting
from pycomm.errors import AuthError, DeadlineExceeded, PeerLost, ProtocolError, PycommError, ResourceError
from pycomm.hosts import host_identity, own_addresses
from pycomm.store import TcpStore

__all__ = ["TorchStore", "meet"]

_LOOPBACK: Final = "127.0.0.1"


class TorchStore:
    """A store of torch as pycomm's store (:class:`pycomm.store.Store`). As thread-safe as torch's.

    Parameters
    ----------
    store
        A ``torch.distributed.Store``; its keys are below this group's prefix.
    """

    def __init__(self, store: Any) -> None:
        self._store = store

    def set(self, key: str, value: bytes) -> None:
        """Write a value."""
        self._store.set(f"pycomm/{key}", value)

    def get(self, key: str, *, timeout_s: float) -> bytes:
        """Return the value, asking for it again and again: torch's own wait would not hear of Ctrl-C."""
        name = f"pycomm/{key}"
        deadline = time.monotonic() + timeout_s
        pause_s = 0.0005
        while not self._store.check([name]):
            if time.monotonic() >= deadline:
                raise DeadlineExceeded(
                    f"waited {timeout_s:g} s for {key!r} in torch's store: the rank that writes it did not "
                    "come; check that every rank was started and calls init_process_group or new_group",
                    operation="rendezvous",
                )
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.02)
        return bytes(self._store.get(name))

    def forget_after(self, readers: int, keys: Sequence[str], counter: str) -> None:
        """Delete keys once all have read them: ``readers`` ranks call this, and the last one deletes."""
        if self._store.add(f"pycomm/{counter}", 1) == readers:
            for key in (*keys, counter):
                self._store.delete_key(f"pycomm/{key}")

    def close(self) -> None:
        """Do nothing: the store is torch's."""


def meet(store: TorchStore, rank: int, size: int, timeout_s: float) -> tuple[TcpStore, str]:
    """Bring the ranks of a job together at a store of pycomm's own, which rank 0 serves.

    Parameters
    ----------
    store
        Torch's.
    rank, size
        This process in the job.
    timeout_s
        How long to wait for the others.

    Returns
    -------
    store, secret
        The store, and what the ranks of the job know one another by.

    Raises
    ------
    DeadlineExceeded
        A rank did not come, or rank 0 cannot be reached.
    """
    here = host_identity()
    if rank == 0:
        hosts = [store.get(f"host/{other}", timeout_s=timeout_s) for other in range(1, size)]
        is_local = all(host == here for host in hosts)
        common = str(setting("secret"))
        secret = common or os.urandom(32).hex()
        addresses = [_LOOPBACK] if is_local else _own_addresses()
        if not addresses:
            raise ResourceError(
                "the ranks are on several hosts, and that of rank 0 has only the loopback; connect it, or "
                "check PYCOMM_INTERFACE and PYCOMM_FAMILY"
            )
        # Whoever does not know the secret gets nowhere, on whichever interface it comes.
        everywhere = "::" if ":" in addresses[0] else "0.0.0.0"
        served = TcpStore.serve(_LOOPBACK if is_local else everywhere, (0,), secret, timeout_s=timeout_s)
        # From where a rank reaches the store follows which of its own addresses it gives to the others.
        served.host = addresses[0]
        told = [b"" if common else secret.encode(), str(served.port).encode()]
        store.set("meet", b"\n".join([*told, *(address.encode() for address in addresses)]))
        return served, secret
    store.set(f"host/{rank}", here)
    told_secret, port, *candidates = store.get("meet", timeout_s=timeout_s).split(b"\n")
    secret = told_secret.decode() or str(setting("secret"))
    if not secret:
        raise AuthError(
            "PYCOMM_SECRET is set on rank 0 but not on this rank; set it to the same text on every rank"
        )
    return _join([address.decode() for address in candidates], int(port), secret, timeout_s), secret


def _own_addresses() -> list[str]:
    """Addresses by which other hosts may reach this one, the likeliest first."""
    interface, family = str(setting("interface")), int(setting("family"))
    found = own_addresses(interface, family)
    master = os.environ.get("MASTER_ADDR", "")
    if interface or not master:
        return found
    # The route to where torch's store runs shows which of our addresses the job's hosts see.
    seen = []
    for kind, socket_type, protocol, _, address in _resolve(master):
        with contextlib.suppress(OSError), socket.socket(kind, socket_type, protocol) as probe:
            probe.connect(address)  # a datagram socket: nothing is sent
            seen.append(str(probe.getsockname()[0]))
    return list(dict.fromkeys([*(address for address in seen if address in found), *found]))


def _resolve(host: str) -> list[Any]:
    try:
        return socket.getaddrinfo(host, 1, type=socket.SOCK_DGRAM)
    except OSError:
        return []


def _join(addresses: list[str], port: int, secret: str, timeout_s: float) -> TcpStore:
    """Reach rank 0 by whichever of its addresses works."""
    deadline = time.monotonic() + timeout_s
    last: PycommError = DeadlineExceeded("it told no address")
    while True:
        for address in addresses:
            left = deadline - time.monotonic()
            try:
                return TcpStore.join(address, (port,), secret, timeout_s=max(0.05, min(2.0, left)))
            except (AuthError, DeadlineExceeded, PeerLost, ProtocolError, ResourceError) as error:
                last = error
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(
                f"rank 0 cannot be reached at {', '.join(addresses) or 'any address'}, port {port}, in "
                f"{timeout_s:g} s (last: {last}); set MASTER_ADDR to an address of rank 0's host that every "
                "host reaches, and open its ports between the hosts",
                operation="rendezvous",
                ranks=(0,),
            ) from last
        time.sleep(0.05)
