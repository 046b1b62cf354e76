"""Hardware-agnostic collective communication.

Whatever moves bytes is imported when it is first asked for: ``import pycomm`` costs little beyond NumPy.
"""

from typing import TYPE_CHECKING

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
from pycomm.lazy import later
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

__getattr__, __dir__ = later(
    __name__,
    {
        "ANY": "pycomm.communicator",
        "Communicator": "pycomm.communicator",
        "IN_PLACE": "pycomm.buffers",
        "init": "pycomm.job",
    },
)
