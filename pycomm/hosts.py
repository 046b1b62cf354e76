"""Which host this process runs on, and which of its interfaces there are."""

from __future__ import annotations

import contextlib
import socket
from functools import cache
from pathlib import Path

from pycomm.errors import UsageError

__all__ = ["check_interface", "host_identity", "own_addresses"]


@cache
def host_identity() -> bytes:
    """Name the running system: equal for two processes exactly when they share a kernel and a host name.

    Containers of one machine share the kernel; their host names tell them apart.
    """
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{boot.read_text().strip() if boot.exists() else ''} {socket.gethostname()}".encode()


def own_addresses(interface: str = "", family: int = 0) -> list[str]:
    """Addresses by which other hosts may reach this one: of one interface, or of all but the loopback.

    Parameters
    ----------
    interface
        Name or address of an interface; ``""`` for all.
    family
        4 or 6; 0 for both.
    """
    from pycomm.core import native  # deferred: a job on one host never asks

    names = [interface] if interface else [name for _, name in socket.if_nameindex() if name != "lo"]
    found: list[str] = []
    for name in names:
        for version in (family,) if family else (4, 6):
            with contextlib.suppress(UsageError):  # no address of this version
                found.append(native.interface_host(name, version))
    return [address for address in dict.fromkeys(found) if not address.startswith("fe80:")]


def check_interface(name: str) -> None:
    """Refuse an interface that this host does not have, before anybody waits for anybody.

    Parameters
    ----------
    name
        Name or address of an interface; ``""`` for none in particular.

    Raises
    ------
    UsageError
        There is none of this name; the message lists those that there are.
    """
    known = [known for _, known in socket.if_nameindex()]
    if not name or name in known:
        return
    import ipaddress  # deferred: rarely needed

    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        raise UsageError(
            f"PYCOMM_INTERFACE: {name!r} is neither an address nor an interface of this machine; choose one "
            f"of {', '.join(known)}"
        ) from None
