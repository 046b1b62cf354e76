"""Give every rank another number: the same algorithm on other places of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pycomm.collectives.spec import block_count
from pycomm.errors import UsageError
from pycomm.schedule.ir import Schedule

__all__ = ["relabel"]


def relabel(schedule: Schedule, numbers: Sequence[int]) -> Schedule:
    """Let rank ``numbers[r]`` do what rank r did.

    Parameters
    ----------
    schedule
        Of a collective whose data does not depend on who has which number: allreduce, broadcast, reduce,
        barrier. The root moves along.
    numbers
        The new number of each rank, a permutation.

    Raises
    ------
    UsageError
        ``numbers`` is no permutation, or the collective has a block per rank, which would have to move as
        well.
    """
    n = schedule.nranks
    if sorted(numbers) != list(range(n)):
        raise UsageError(f"cannot relabel: need a permutation of 0..{n - 1}, got {tuple(numbers)}")
    if block_count(schedule.kind, 2) != 1:
        raise UsageError(
            f"cannot relabel {schedule.kind.label}: its blocks belong to ranks; "
            "plan it with another order instead"
        )
    new = np.array(numbers, np.int64)
    old = np.argsort(new)
    ops = np.concatenate([schedule.program(r) for r in old.tolist()])
    ops[:, 1] = np.where(ops[:, 1] < 0, -1, new[ops[:, 1]])
    return replace(
        schedule,
        root=int(new[schedule.root]) if schedule.root >= 0 else -1,
        ops=ops,
        offsets=np.concatenate([[0], np.cumsum(np.diff(schedule.offsets)[old])]),
        scratch=np.concatenate([schedule.scratch_slots(r) for r in old.tolist()]),
        scratch_offsets=np.concatenate([[0], np.cumsum(np.diff(schedule.scratch_offsets)[old])]),
        _digest=[],
    )
