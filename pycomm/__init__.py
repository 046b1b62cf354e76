"""Hardware-agnostic collective communication."""

from pycomm.buffers import IN_PLACE
from pycomm.communicator import ANY, Communicator
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
from pycomm.job import init
from pycomm.types import CollectiveKind, DType, ReduceOp

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
