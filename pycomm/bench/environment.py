"""Where and with what something was measured."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from pycomm.config import SETTINGS

__all__ = ["environment"]

_PACKAGES = ("pycomm-collectives", "numpy", "torch", "mpi4py")


def environment() -> dict[str, Any]:
    """CPU, kernel, versions, commit, settings and load, as plain data."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "mpi": _mpi(),
        "commit": _commit(),
        "settings": {
            row.variable: os.environ[row.variable]
            for row in SETTINGS.values()
            if row.variable in os.environ and not row.is_secret
        },
        "load": list(os.getloadavg()),
    }


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")),
        platform.processor(),
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _mpi() -> str:
    """Name of the MPI library, if this process has one loaded."""
    module = sys.modules.get("mpi4py.MPI")
    if module is None:
        return ""
    text: str = module.Get_library_version()
    return " ".join(text.split())[:100]


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
