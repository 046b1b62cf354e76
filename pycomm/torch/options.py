"""What torch passes along with a call, in pycomm's words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from torch import Tensor
from torch.distributed.distributed_c10d import ReduceOp as TorchOp

from pycomm.errors import UsageError
from pycomm.types import ReduceOp

__all__ = ["Options", "is_async", "listed", "only", "op_of", "root_of", "seconds"]

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


def _read_op(op: Any) -> tuple[ReduceOp, Any]:
    """Turn torch's reduce op into ours and its factor (``None`` but for PREMUL_SUM)."""
    kind = op if isinstance(op, TorchOp.RedOpType) else op.op
    found = _OPS.get(kind)
    if found is None:
        raise UsageError(f"{op} is not a reduce op of torch.distributed that pycomm knows")
    return found, op.__getstate__()[1] if found is ReduceOp.PREMUL_SUM else None


def seconds(timeout: timedelta | None) -> float | None:
    """Turn a timeout into seconds; ``None`` for the group's own: torch writes -1 ms, 0 or nothing for it."""
    return timeout.total_seconds() if timeout is not None and timeout > _ZERO else None


def op_of(opts: Any) -> tuple[ReduceOp, Any]:
    """Return reduce op and factor of options, of a bare op, or of nothing (SUM)."""
    if opts is None:
        return ReduceOp.SUM, None
    return _read_op(getattr(opts, "reduceOp", opts))


def root_of(opts: Any) -> int:
    """Return the root of options, or a bare root."""
    return int(getattr(opts, "rootRank", opts))


def only(tensors: Any) -> Tensor:
    """Return the one tensor of an operation, which callers pass bare or in a list."""
    if isinstance(tensors, Tensor):
        return tensors
    if len(tensors) != 1 or not isinstance(tensors[0], Tensor):
        raise UsageError(f"one tensor is expected here, not {len(tensors)}; every rank has one of its own")
    return tensors[0]


def listed(tensors: Any) -> list[Tensor]:
    """Return the tensors of one rank, which callers pass as a list, or as a list of one list."""
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        return list(tensors[0])
    return list(tensors)


def is_async(options: Any) -> bool:
    """Whether the caller waits later. Versions of torch that do not say always wait themselves."""
    return bool(getattr(options, "asyncOp", True))
