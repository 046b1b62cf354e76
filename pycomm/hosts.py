"""Which host this process runs on, and which of its interfaces there are."""

from __future__ import annotations

import socket
from functools import cache
from pathlib import Path

from pycomm.errors import UsageError

__all__ = ["check_interface", "host_identity"]


@cache
def host_identity() -> bytes:
    """Name the running system: equal for two processes exactly when they share a kernel and a host name.

    Containers of one machine share the kernel; their host names tell them apart.
    """
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{boot.read_text().strip() if boot.exists() else ''} {socket.gethostname()}".encode()


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
