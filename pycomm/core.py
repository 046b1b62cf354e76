"""The door to the compiled core: the only module that imports ``pycomm._native``."""

from __future__ import annotations

from pycomm import _native as native  # noqa: TID251 (this is the door)
from pycomm.errors import BackendUnavailable

__all__ = ["CORE_VERSION", "native"]

CORE_VERSION = 3
"""Version of the interface between Python and C++: ``kCoreVersion`` of ``native/src/base/version.h``."""

if native.core_version != CORE_VERSION:
    raise BackendUnavailable(
        f"the compiled core is stale: it speaks interface version {native.core_version}, this pycomm needs "
        f"{CORE_VERSION}; reinstall with: pip install --no-build-isolation -e ."
    )
