"""Hardware-agnostic collective communication.

Whatever moves bytes is imported when it is first asked for: ``import pycomm`` costs little beyond NumPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pycomm.errors import (
    Aborted,
    AuthError,
    BackendUnavailable,
    CommError,
    DeadlineExceeded,
    InternalError,
    Mismatch,
    PeerLost,
    PlanningError,
    ProtocolError,
    PycommError,
    ResourceError,
    ScheduleError,
    TopologyError,
    Unsupported,
    UsageError,
)
from pycomm.types import CollectiveKind, DType, ReduceOp

if TYPE_CHECKING:
    from pycomm.buffers import IN_PLACE
    from pycomm.communicator import ANY, Communicator
    from pycomm.job import init

__all__ = [
    "ANY",
    "IN_PLACE",
    "Aborted",
    "AuthError",
    "BackendUnavailable",
    "CollectiveKind",
    "CommError",
    "Communicator",
    "DType",
    "DeadlineExceeded",
    "InternalError",
    "Mismatch",
    "PeerLost",
    "PlanningError",
    "ProtocolError",
    "PycommError",
    "ReduceOp",
    "ResourceError",
    "ScheduleError",
    "TopologyError",
    "Unsupported",
    "UsageError",
    "init",
]

_LATER = {
    "ANY": "pycomm.communicator",
    "Communicator": "pycomm.communicator",
    "IN_PLACE": "pycomm.buffers",
    "init": "pycomm.job",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for by name (PEP 562)."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LATER[name]), name)
    return value


def __dir__() -> list[str]:
    """Names, those not imported yet included."""
    return sorted({*globals(), *_LATER})
