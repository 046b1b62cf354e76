"""The enumerations that every layer shares; their numbers are part of the wire format, as in the C++ core."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

__all__ = ["CollectiveKind", "DType", "Rank", "ReduceOp"]

Rank = int


class CollectiveKind(IntEnum):
    """What is asked of a group. The names are the field's; ``v`` marks the ragged forms."""

    ALLREDUCE = 0
    ALLGATHER = 1
    REDUCE_SCATTER = 2
    ALLTOALL = 3
    BROADCAST = 4
    REDUCE = 5
    GATHER = 6
    SCATTER = 7
    BARRIER = 8
    ALLGATHERV = 9
    REDUCE_SCATTERV = 10
    ALLTOALLV = 11
    GATHERV = 12
    SCATTERV = 13
    SEND = 14
    RECV = 15

    @property
    def label(self) -> str:
        """Lower-case name, as the public API spells it."""
        return self.name.lower()

    @property
    def is_rooted(self) -> bool:
        """Whether one rank is special."""
        return self.name in {"BROADCAST", "REDUCE", "GATHER", "SCATTER", "GATHERV", "SCATTERV"}

    @property
    def reduces(self) -> bool:
        """Whether contributions are combined by a reduce op."""
        return self.name in {"ALLREDUCE", "REDUCE_SCATTER", "REDUCE", "REDUCE_SCATTERV"}

    @property
    def is_ragged(self) -> bool:
        """Whether ranks may hold different counts."""
        return self.name in {"ALLGATHERV", "REDUCE_SCATTERV", "ALLTOALLV", "GATHERV", "SCATTERV"}


class ReduceOp(IntEnum):
    """How contributions combine.

    ``AVG`` divides the sum by the group's size; ``PREMUL_SUM`` scales each input first.
    """

    SUM = 0
    PROD = 1
    MIN = 2
    MAX = 3
    AVG = 4
    PREMUL_SUM = 5
    BAND = 6
    BOR = 7
    BXOR = 8
    LAND = 9
    LOR = 10

    @property
    def label(self) -> str:
        """Lower-case name, as the public API spells it."""
        return self.name.lower()


class DType(IntEnum):
    """Element types; those that NumPy lacks (``BFLOAT16``, float8) travel as ml_dtypes or raw bits."""

    FLOAT64 = 0
    FLOAT32 = 1
    FLOAT16 = 2
    BFLOAT16 = 3
    FLOAT8_E4M3FN = 4
    FLOAT8_E5M2 = 5
    INT8 = 6
    INT16 = 7
    INT32 = 8
    INT64 = 9
    UINT8 = 10
    UINT16 = 11
    UINT32 = 12
    UINT64 = 13
    BOOL = 14

    @property
    def label(self) -> str:
        """Lower-case name, as NumPy and ml_dtypes spell it."""
        return self.name.lower()

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return _ITEMSIZE[self]

    @property
    def is_float(self) -> bool:
        """Whether this is a floating-point type."""
        return self <= DType.FLOAT8_E5M2

    @property
    def is_signed_int(self) -> bool:
        """Whether this is a signed integer type."""
        return DType.INT8 <= self <= DType.INT64

    @property
    def storage(self) -> np.dtype[np.generic]:
        """NumPy dtype that holds the bits: its own where NumPy has one, else an unsigned integer."""
        return _STORAGE[self]

    def supports(self, op: ReduceOp) -> bool:
        """Whether ``op`` makes sense on this type.

        Bitwise ops need integers or bool; ``AVG`` and ``PREMUL_SUM`` need numbers; all else is defined
        everywhere. Averages of integers divide the exact sum with truncation toward zero.
        """
        if op in _BITWISE:
            return not self.is_float
        if op in (ReduceOp.AVG, ReduceOp.PREMUL_SUM):
            return self is not DType.BOOL
        return True


_BITWISE = frozenset({ReduceOp.BAND, ReduceOp.BOR, ReduceOp.BXOR})
_ITEMSIZE = {d: n for d, n in zip(DType, (8, 4, 2, 2, 1, 1, 1, 2, 4, 8, 1, 2, 4, 8, 1), strict=True)}
_RAW = {DType.BFLOAT16: "uint16", DType.FLOAT8_E4M3FN: "uint8", DType.FLOAT8_E5M2: "uint8"}
_STORAGE: dict[DType, np.dtype[np.generic]] = {d: np.dtype(_RAW.get(d, d.name.lower())) for d in DType}
