"""Backends by name, found through the entry points ``pycomm.backends``."""

from __future__ import annotations

import importlib
from functools import cache
from typing import cast

from pycomm.backends.base import Backend
from pycomm.errors import BackendUnavailable, UsageError

__all__ = ["backend_names", "get_backend"]

_GROUP = "pycomm.backends"
_BUILT_IN = {name: f"pycomm.backends.{name}:BACKEND" for name in ("native", "reference", "mpi", "gloo")}


@cache
def _targets() -> dict[str, str]:
    """``module:object`` by name. Ours come first: an outside package cannot replace a name of ours."""
    from importlib.metadata import entry_points  # deferred: it takes as long to import as all of pycomm

    found = {point.name: point.value for point in entry_points(group=_GROUP)}
    return {**found, **_BUILT_IN}


def backend_names() -> tuple[str, ...]:
    """Names of all backends that are installed, usable here or not, in alphabetical order."""
    return tuple(sorted(_targets()))


def get_backend(name: str, *, usable: bool = True) -> Backend:
    """Load a backend.

    Parameters
    ----------
    name
        One of :func:`backend_names`.
    usable
        Whether to refuse a backend that cannot work on this machine.

    Raises
    ------
    UsageError
        No backend has this name.
    BackendUnavailable
        It cannot be imported, or does not work here.
    """
    target = _targets().get(name)
    if target is None:
        raise UsageError(f"there is no backend {name!r}; choose one of {', '.join(backend_names())}")
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise BackendUnavailable(f"backend {name!r} cannot be imported: {error}") from error
    backend = cast("Backend", getattr(module, attribute))
    reason = backend.available() if usable else None
    if reason is not None:
        raise BackendUnavailable(f"backend {name!r} cannot be used here: {reason}")
    return backend
