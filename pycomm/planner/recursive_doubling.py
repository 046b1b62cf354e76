"""Recursive doubling: ranks whose numbers differ in one bit exchange all they have; it doubles each round.

::

      round 0     0 <-> 1    2 <-> 3    4 <-> 5    6 <-> 7
      round 1     0 <-------> 2    1 <-------> 3    4 <-------> 6    5 <-------> 7
      round 2     0 <-----------------> 4    1 <-----------------> 5    ...

With m = 2^k the largest power of two not above n; f = 1 when n > m, else 0; g = 1 when n - m > m/2, else 0
(the extra ranks are folded in, see :mod:`pycomm.planner.folding`):

==================  =======  =======================================  ====================================
collective          steps    chunks sent by the busiest rank          of the array
==================  =======  =======================================  ====================================
allreduce, barrier  k + f+g  k + f                                    k + f: the whole array in each round
allgather           k + f+g  n-1; folded: n + the sizes of the first  (n-1)/n; folded: up to about 2
                             1, 2, 4 .. m/2 groups
==================  =======  =======================================  ====================================

Best for small messages: no algorithm has fewer rounds on a power of two. A partner may still be reading what
a rank sent when the next result arrives, and nothing would tell; so each round of an allreduce writes memory
of its own.

References
----------
R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication
operations in MPICH", Int. J. High Performance Computing Applications 19(1), 2005.
"""

from __future__ import annotations

import numpy as np

from pycomm.planner.algorithm import Algorithm, Form
from pycomm.planner.base import PlanCost, PlanRequest
from pycomm.planner.folding import Fold
from pycomm.schedule import Schedule, Space
from pycomm.schedule.builder import Place, ScheduleBuilder, inp, out, scr
from pycomm.types import CollectiveKind

__all__ = ["PLANNER", "allgather", "allgather_cost"]


def _allreduce(request: PlanRequest) -> Schedule:
    fold = Fold(request.nranks)
    builder = ScheduleBuilder(request, "recursive_doubling")
    extra, core = fold.pairs
    builder.send(extra, core, inp(0))
    builder.recv_reduce(core, extra, inp(0), scr(builder.scratch(core, np.zeros_like(core))))
    space = np.full(fold.size, Space.INPUT, np.int64)
    space[: fold.extras] = Space.SCRATCH
    if request.in_place:  # the last round writes OUTPUT: by then its old content may still be lent
        others = fold.cores[fold.extras :]
        builder.copy(others, inp(0), scr(builder.scratch(others, np.zeros_like(others))))
        space[:] = Space.SCRATCH
    held = Place(space, 0)
    for bit in range(fold.bits):
        partner = fold.partner(bit)
        builder.send(fold.cores, partner, held)
        last = bit == fold.bits - 1
        result = out(0) if last else scr(builder.scratch(fold.cores, np.zeros_like(partner)))
        builder.recv_reduce(fold.cores, partner, held, result)
        held = result
    builder.send(core, extra, out(0))
    builder.recv(extra, core, out(0))
    return builder.finish()


def allgather(request: PlanRequest, name: str = "recursive_doubling") -> Schedule:
    """Plan an allgather."""
    fold = Fold(request.nranks)
    builder = ScheduleBuilder(request, name)
    extra, core = fold.pairs
    builder.send(extra, core, inp(0))
    builder.copy(fold.cores, inp(0), out(fold.cores))
    builder.recv(core, extra, out(extra))
    for bit in range(fold.bits):
        mine = fold.number >> bit << bit
        theirs = mine ^ (1 << bit)
        for verb, first in ((builder.send, mine), (builder.recv, theirs)):
            start = fold.start(first)
            verb(fold.cores, fold.partner(bit), out(start, fold.start(first + (1 << bit)) - start))
    builder.send(core, extra, out(0, request.nranks))
    builder.recv(extra, core, out(0, request.nranks))
    return builder.finish()


def _allreduce_cost(request: PlanRequest) -> PlanCost:
    fold = Fold(request.nranks)
    folded = fold.extras > 0
    each = fold.bits + folded
    return PlanCost(fold.steps(), each, each, fold.size * fold.bits + 2 * fold.extras, each, each)


def allgather_cost(request: PlanRequest) -> PlanCost:
    """Evaluate the formulas of :func:`allgather`; backwards, they are those of a halving reduce_scatter."""
    n, fold = request.nranks, Fold(request.nranks)
    folded = fold.extras > 0
    sent = sum(fold.largest(bit) for bit in range(fold.bits)) + folded * n
    total = n * (fold.size - 1) + fold.extras * (n + 1)
    return PlanCost(fold.steps(), sent, n - 1 + folded, total, 0, fold.bits + folded)


PLANNER = Algorithm(
    "recursive_doubling",
    {
        CollectiveKind.ALLREDUCE: Form(_allreduce, _allreduce_cost),
        CollectiveKind.ALLGATHER: Form(allgather, allgather_cost),
        CollectiveKind.BARRIER: Form(_allreduce, _allreduce_cost),
    },
)
