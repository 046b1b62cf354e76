"""Which host this process runs on."""

from __future__ import annotations

import socket
from functools import cache
from pathlib import Path

__all__ = ["host_identity"]


@cache
def host_identity() -> bytes:
    """Name the running system: equal for two processes exactly when they share a kernel and a host name.

    Containers of one machine share the kernel; their host names tell them apart.
    """
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{boot.read_text().strip() if boot.exists() else ''} {socket.gethostname()}".encode()
