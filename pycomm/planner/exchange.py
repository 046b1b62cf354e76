"""What the exchange algorithms share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pycomm.schedule.builder import Ints, Place, ScheduleBuilder, inp, out, scr

__all__ = ["stage_alltoall"]


def stage_alltoall(builder: ScheduleBuilder) -> Callable[[Ints], Place]:
    """Put everybody's own block in its place and tell where block d of the input can be read from now on.

    In place, results land on blocks that are still to be sent, and whether those have been read is unknown:
    so the whole input moves to scratch first.
    """
    n = builder.request.nranks
    rank = np.arange(n, dtype=np.int64)
    if not builder.request.in_place:
        builder.copy(rank, inp(rank), out(rank))
        return inp
    builder.scratch(rank, rank[:, None] * n + np.arange(n))
    builder.copy(rank, inp(0, n), scr(0, n))
    return scr
