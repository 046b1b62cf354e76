"""Bruck: in round k everybody talks to the rank 2^k away; after ceil(log2 n) rounds all has arrived.

::

      allgather at rank r: its list grows from the front          alltoall: a block that has to go d ranks far
      round 0    [r]                 <- rank r+1                  goes 2^k far in round k for each bit k of d
      round 1    [r, r+1]            <- rank r+2
      round 2    [r .. r+3]          <- rank r+4                  d = 5 = 1 + 4:   s -> s+1 ---------> s+5
      at the end the list is turned into its place                        round    0          2

With K = ceil(log2 n) and bits(k) the numbers below n in which bit k is set:

==========  =====  ==================================  ============================================
collective  steps  chunks sent per rank                remark
==========  =====  ==================================  ============================================
allgather   K      n-1                                 lists travel through scratch: n blocks of it
alltoall    K      sum of bits(k), about (n/2) log2 n  blocks are packed, one message per round
barrier     K      K (of no bytes)                     known as dissemination
==========  =====  ==================================  ============================================

Best for small messages where the number of ranks is not a power of two; the alltoall also for many ranks and
very small blocks, whose bytes it sends log2(n)/2 times to save n - log2 n messages.

References
----------
J. Bruck, C.-T. Ho, S. Kipnis, E. Upfal, D. Weathersby, "Efficient algorithms for
all-to-all communications in multiport message-passing systems", IEEE Trans. Parallel and Distributed Systems
8(11), 1997. D. Hensgen, R. Finkel, U. Manber, "Two algorithms for barrier synchronization", Int. J. Parallel
Programming 17(1), 1988.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pycomm.planner.algorithm import Algorithm, Form, ranks_of
from pycomm.planner.base import PlanCost, PlanRequest
from pycomm.planner.exchange import stage_alltoall
from pycomm.schedule import Schedule
from pycomm.schedule.builder import Place, ScheduleBuilder, inp, out, scr
from pycomm.types import CollectiveKind

__all__ = ["PLANNER"]

NAME = "bruck"


def _rounds(n: int) -> int:
    return (n - 1).bit_length()


def _allgather(request: PlanRequest) -> Schedule:
    n, rank = request.nranks, ranks_of(request)
    builder = ScheduleBuilder(request, NAME)
    builder.scratch(rank, (rank[:, None] + np.arange(n)) % n)
    builder.copy(rank, inp(0), scr(0))
    for k in range(_rounds(n)):
        have = 1 << k
        count = min(have, n - have)
        builder.send(rank, (rank - have) % n, scr(0, count))
        builder.recv(rank, (rank + have) % n, scr(have, count))
    builder.copy(rank, scr(0, n - rank), out(rank, n - rank))
    turned = rank[1:]
    builder.copy(turned, scr(n - turned, turned), out(0, turned))
    return builder.finish()


def _alltoall(request: PlanRequest) -> Schedule:
    n, rank = request.nranks, ranks_of(request)
    builder = ScheduleBuilder(request, NAME)
    source = stage_alltoall(builder)

    def named(hops: npt.NDArray[np.int64], far: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Blocks that have come ``hops`` and go ``far`` in all, as each rank holds them."""
        start = rank[:, None] - hops
        start += n * (start < 0)
        end = start + far
        end -= n * (end >= n)
        blocks: npt.NDArray[np.int64] = start * n + end
        return blocks

    slot = np.full(n, -1, np.int64)  # where the block that goes d far lies, once it has left its source
    for k in range(_rounds(n)):
        far = np.flatnonzero(np.arange(n) >> k & 1)
        begun = far % (1 << k)  # how far it has come
        packed = builder.scratch(rank, named(begun, far))[0]
        for i in np.flatnonzero(begun == 0).tolist():
            builder.copy(rank, source((rank + far[i]) % n), scr(packed + i))
        under_way = np.flatnonzero(begun)
        if under_way.size:
            # A run here needs consecutive slots and consecutive places in the message.
            for i, first, count in _double_runs(slot[far[under_way]], under_way):
                builder.copy(rank, scr(first, count), scr(packed + under_way[i], count))
        landed = builder.scratch(rank, named(far % (2 << k), far))[0]
        builder.send(rank, (rank + (1 << k)) % n, scr(packed, far.size))
        builder.recv(rank, (rank - (1 << k)) % n, scr(landed, far.size))
        slot[far] = landed + np.arange(far.size)
        for d in far[far < 2 << k].tolist():
            builder.copy(rank, scr(slot[d]), out((rank - d) % n))
    return builder.finish()


def _double_runs(slots: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Cut into runs in which both slots and places are consecutive: index, first slot, length of each."""
    broken = np.flatnonzero((np.diff(slots) != 1) | (np.diff(places) != 1)) + 1
    bounds = [0, *broken.tolist(), slots.size]
    return [(a, int(slots[a]), b - a) for a, b in pairwise(bounds)]


def _barrier(request: PlanRequest) -> Schedule:
    n, rank = request.nranks, ranks_of(request)
    builder = ScheduleBuilder(request, NAME)
    held = inp(0)
    if request.in_place:  # the last round writes the buffer, which the first one has lent
        held = scr(builder.scratch(rank, np.zeros_like(rank)))
        builder.copy(rank, inp(0), held)
    for k in range(_rounds(n)):
        last = k == _rounds(n) - 1
        result: Place = out(0) if last else scr(builder.scratch(rank, np.zeros_like(rank)))
        builder.send(rank, (rank + (1 << k)) % n, held)
        builder.recv_reduce(rank, (rank - (1 << k)) % n, held, result)
        held = result
    return builder.finish()


def _allgather_cost(request: PlanRequest) -> PlanCost:
    n, steps = request.nranks, _rounds(request.nranks)
    return PlanCost(steps, n - 1, n - 1, n * (n - 1), 0, steps)


def _alltoall_cost(request: PlanRequest) -> PlanCost:
    n, steps = request.nranks, _rounds(request.nranks)
    sent = sum((n >> k + 1 << k) + max(n % (2 << k) - (1 << k), 0) for k in range(steps))
    return PlanCost(steps, sent, sent, n * sent, 0, steps)


def _barrier_cost(request: PlanRequest) -> PlanCost:
    steps = _rounds(request.nranks)
    return PlanCost(steps, steps, steps, request.nranks * steps, steps, steps)


PLANNER = Algorithm(
    NAME,
    {
        CollectiveKind.ALLGATHER: Form(_allgather, _allgather_cost),
        CollectiveKind.ALLTOALL: Form(_alltoall, _alltoall_cost),
        CollectiveKind.BARRIER: Form(_barrier, _barrier_cost),
    },
)
