"""What torch passes along with a call, in pycomm's words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from torch.distributed.distributed_c10d import ReduceOp as TorchOp

from pycomm.errors import UsageError
from pycomm.types import ReduceOp

__all__ = ["Options", "read_op", "seconds"]

_ZERO: Final = timedelta(0)
_OPS: Final = {
    TorchOp.RedOpType.SUM: ReduceOp.SUM,
    TorchOp.RedOpType.AVG: ReduceOp.AVG,
    TorchOp.RedOpType.PRODUCT: ReduceOp.PROD,
    TorchOp.RedOpType.MIN: ReduceOp.MIN,
    TorchOp.RedOpType.MAX: ReduceOp.MAX,
    TorchOp.RedOpType.BAND: ReduceOp.BAND,
    TorchOp.RedOpType.BOR: ReduceOp.BOR,
    TorchOp.RedOpType.BXOR: ReduceOp.BXOR,
    TorchOp.RedOpType.PREMUL_SUM: ReduceOp.PREMUL_SUM,
}


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of one process group: ``init_process_group("pycomm", pg_options=Options(...))``.

    Parameters
    ----------
    engine
        The backend of pycomm that moves the bytes: ``"native"``, ``"mpi"``; ``PYCOMM_BACKEND`` when ``None``.
    fuse_below
        Coalesced tensors of fewer bytes than this travel together, in one operation.
    """

    engine: str | None = None
    fuse_below: int = 256 * 1024


def read_op(op: Any) -> tuple[ReduceOp, Any]:
    """Turn torch's reduce op into ours and its factor (``None`` but for PREMUL_SUM)."""
    kind = op if isinstance(op, TorchOp.RedOpType) else op.op
    found = _OPS.get(kind)
    if found is None:
        raise UsageError(f"{op} is not a reduce op of torch.distributed that pycomm knows")
    return found, op.__getstate__()[1] if found is ReduceOp.PREMUL_SUM else None


def seconds(timeout: timedelta | None) -> float | None:
    """Turn a timeout into seconds; ``None`` for the group's own, for which torch writes -1 ms, 0 or nothing."""
    return timeout.total_seconds() if timeout is not None and timeout > _ZERO else None
