r"""Direct: everybody sends to everybody, or to and from the root, at once.

::

      alltoall, allgather,          broadcast, scatter         gather, reduce
      reduce_scatter, barrier
          0 <-----> 1                    root                   1   2   3
          ^ \     / ^                   /  |  \                  \  |  /
          |   \ /   |                  1   2   3                  root
          |   / \   |
          v /     \ v               allreduce: every rank combines one n-th of the array,
          2 <-----> 3               sent to it by all, and sends the result to all

==========================  =====  ====================  =========================================
collective                  steps  chunks sent per rank  remark
==========================  =====  ====================  =========================================
allreduce (n chunks)        2      2(n-1)                2(n-1)/n of the array, the least possible
allgather, reduce_scatter,  1      n-1                   n-1 messages each
alltoall, barrier
broadcast, scatter          1      n-1 by the root
gather, reduce              1      1                     the root receives n-1
==========================  =====  ====================  =========================================

Best on few ranks, and wherever messages cost little beyond their bytes, as inside a host: nothing has fewer
steps. On many ranks the n-1 messages of one rank, and the receivers that all others write to at once, weigh
more.

References
----------
R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication
operations in MPICH", Int. J. High Performance Computing Applications 19(1), 2005 (as the algorithms for short
and for long messages that use no relay).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pycomm.collectives.spec import equal_form
from pycomm.planner.algorithm import Algorithm, Form, ranks_of
from pycomm.planner.base import PlanCost, PlanRequest
from pycomm.planner.exchange import stage_alltoall
from pycomm.schedule import Schedule
from pycomm.schedule.builder import ScheduleBuilder, inp, out, scr
from pycomm.types import CollectiveKind

__all__ = ["PLANNER"]

NAME = "direct"


def _allreduce(request: PlanRequest) -> Schedule:
    n, rank = request.nranks, ranks_of(request)
    builder = ScheduleBuilder(request, NAME, pieces=n)
    for t in range(1, n):
        builder.send(rank, (rank + t) % n, inp((rank + t) % n))
    for t in range(1, n):
        builder.recv_reduce(rank, (rank - t) % n, inp(rank) if t == 1 else out(rank), out(rank))
    for t in range(1, n):
        builder.send(rank, (rank + t) % n, out(rank))
    for t in range(1, n):
        builder.recv(rank, (rank - t) % n, out((rank - t) % n))
    return builder.finish()


def _alltoall(request: PlanRequest) -> Schedule:
    n, rank = request.nranks, ranks_of(request)
    builder = ScheduleBuilder(request, NAME)
    source = stage_alltoall(builder)
    for t in range(1, n):
        builder.send(rank, (rank + t) % n, source((rank + t) % n))
    for t in range(1, n):
        builder.recv(rank, (rank - t) % n, out((rank - t) % n))
    return builder.finish()


def _allgather(request: PlanRequest) -> Schedule:
    n, rank = request.nranks, ranks_of(request)
    builder = ScheduleBuilder(request, NAME)
    for t in range(1, n):
        builder.send(rank, (rank + t) % n, inp(0))
    builder.copy(rank, inp(0), out(rank))
    for t in range(1, n):
        builder.recv(rank, (rank - t) % n, out((rank - t) % n))
    return builder.finish()


def _reduce_scatter(request: PlanRequest) -> Schedule:
    n, rank = request.nranks, ranks_of(request)
    builder = ScheduleBuilder(request, NAME)
    for t in range(1, n):
        builder.send(rank, (rank + t) % n, inp((rank + t) % n))
    for t in range(1, n):
        builder.recv_reduce(rank, (rank - t) % n, inp(rank) if t == 1 else out(0), out(0))
    return builder.finish()


def _barrier(request: PlanRequest) -> Schedule:
    n, rank = request.nranks, ranks_of(request)
    builder = ScheduleBuilder(request, NAME)
    own = inp(0)
    if request.in_place:  # the buffer is written while it may still be lent
        own = scr(builder.scratch(rank, np.zeros_like(rank)))
        builder.copy(rank, inp(0), own)
    for t in range(1, n):
        builder.send(rank, (rank + t) % n, own)
    for t in range(1, n):
        builder.recv_reduce(rank, (rank - t) % n, inp(0) if t == 1 else out(0), out(0))
    return builder.finish()


def _others(request: PlanRequest) -> npt.NDArray[np.int64]:
    """All but the root, from the one after it."""
    return (request.root + np.arange(1, request.nranks)) % request.nranks


def _broadcast(request: PlanRequest) -> Schedule:
    builder = ScheduleBuilder(request, NAME)
    builder.send(request.root, _others(request), inp(0))
    builder.copy(request.root, inp(0), out(0))
    builder.recv(_others(request), request.root, out(0))
    return builder.finish()


def _scatter(request: PlanRequest) -> Schedule:
    builder = ScheduleBuilder(request, NAME)
    builder.send(request.root, _others(request), inp(_others(request)))
    builder.copy(request.root, inp(request.root), out(0))
    builder.recv(_others(request), request.root, out(0))
    return builder.finish()


def _gather(request: PlanRequest) -> Schedule:
    builder = ScheduleBuilder(request, NAME)
    builder.send(_others(request), request.root, inp(0))
    builder.copy(request.root, inp(0), out(request.root))
    builder.recv(request.root, _others(request), out(_others(request)))
    return builder.finish()


def _reduce(request: PlanRequest) -> Schedule:
    builder = ScheduleBuilder(request, NAME)
    others = _others(request)
    builder.send(others, request.root, inp(0))
    builder.recv_reduce(request.root, others[:1], inp(0), out(0))
    builder.recv_reduce(request.root, others[1:], out(0), out(0))
    return builder.finish()


def _symmetric_cost(request: PlanRequest) -> PlanCost:
    """Price the collectives in which all ranks do the same."""
    n, kind = request.nranks, equal_form(request.kind)
    rounds = 2 if kind is CollectiveKind.ALLREDUCE else 1
    reduced = n - 1 if kind.reduces or kind is CollectiveKind.BARRIER else 0
    sent = rounds * (n - 1)
    pieces = n if kind is CollectiveKind.ALLREDUCE else 1
    return PlanCost(rounds, sent, sent, n * sent, reduced, sent, pieces=pieces)


def _outward_cost(request: PlanRequest) -> PlanCost:
    n = request.nranks
    return PlanCost(1, n - 1, 1, n - 1, 0, n - 1)


def _inward_cost(request: PlanRequest) -> PlanCost:
    n = request.nranks
    return PlanCost(1, 1, n - 1, n - 1, n - 1 if request.kind.reduces else 0, n - 1)


PLANNER = Algorithm(
    NAME,
    {
        CollectiveKind.ALLREDUCE: Form(_allreduce, _symmetric_cost),
        CollectiveKind.ALLGATHER: Form(_allgather, _symmetric_cost),
        CollectiveKind.REDUCE_SCATTER: Form(_reduce_scatter, _symmetric_cost),
        CollectiveKind.ALLTOALL: Form(_alltoall, _symmetric_cost),
        CollectiveKind.BROADCAST: Form(_broadcast, _outward_cost),
        CollectiveKind.REDUCE: Form(_reduce, _inward_cost),
        CollectiveKind.GATHER: Form(_gather, _inward_cost),
        CollectiveKind.SCATTER: Form(_scatter, _outward_cost),
        CollectiveKind.BARRIER: Form(_barrier, _symmetric_cost),
    },
)
