"""Pairwise exchange: in step t everybody sends to the rank t after it and receives from the rank t before it.

::

      step 1     0 -> 1 -> 2 -> 3 -> 0           every step is a permutation: nobody receives from two at once
      step 2     0 -> 2 -> 0,  1 -> 3 -> 1       and every block goes straight to where it belongs
      step 3     0 -> 3 -> 2 -> 1 -> 0

==============  =====  ====================  ==============================
collective      steps  chunks sent per rank  remark
==============  =====  ====================  ==============================
alltoall        n-1    n-1                   no scratch, the least possible
allgather       n-1    n-1                   the least possible
reduce_scatter  n-1    n-1                   no scratch, the least possible
==============  =====  ====================  ==============================

Best for large messages on networks that every pair can cross at full speed: no block is sent twice, and no
receiver is flooded as with :mod:`pycomm.planner.direct`.

References
----------
R. Thakur, A. Choudhary, "All-to-all communication on meshes with wormhole routing",
Int. Parallel Processing Symposium, 1994.
"""

from __future__ import annotations

from pycomm.planner.algorithm import Algorithm, Form, ranks_of
from pycomm.planner.base import PlanCost, PlanRequest
from pycomm.planner.exchange import stage_alltoall
from pycomm.schedule import Schedule
from pycomm.schedule.builder import ScheduleBuilder, inp, out
from pycomm.types import CollectiveKind

__all__ = ["PLANNER"]

NAME = "pairwise"


def _alltoall(request: PlanRequest) -> Schedule:
    n, rank = request.nranks, ranks_of(request)
    builder = ScheduleBuilder(request, NAME)
    source = stage_alltoall(builder)
    for t in range(1, n):
        builder.send(rank, (rank + t) % n, source((rank + t) % n))
        builder.recv(rank, (rank - t) % n, out((rank - t) % n))
    return builder.finish()


def _allgather(request: PlanRequest) -> Schedule:
    n, rank = request.nranks, ranks_of(request)
    builder = ScheduleBuilder(request, NAME)
    builder.copy(rank, inp(0), out(rank))
    for t in range(1, n):
        builder.send(rank, (rank + t) % n, inp(0))
        builder.recv(rank, (rank - t) % n, out((rank - t) % n))
    return builder.finish()


def _reduce_scatter(request: PlanRequest) -> Schedule:
    n, rank = request.nranks, ranks_of(request)
    builder = ScheduleBuilder(request, NAME)
    for t in range(1, n):
        builder.send(rank, (rank + t) % n, inp((rank + t) % n))
        builder.recv_reduce(rank, (rank - t) % n, inp(rank) if t == 1 else out(0), out(0))
    return builder.finish()


def _cost(request: PlanRequest) -> PlanCost:
    n = request.nranks
    reduced = n - 1 if request.kind.reduces else 0
    return PlanCost(n - 1, n - 1, n - 1, n * (n - 1), reduced, n - 1)


PLANNER = Algorithm(
    NAME,
    {
        CollectiveKind.ALLTOALL: Form(_alltoall, _cost),
        CollectiveKind.ALLGATHER: Form(_allgather, _cost),
        CollectiveKind.REDUCE_SCATTER: Form(_reduce_scatter, _cost),
    },
)
