"""Recursive halving and doubling: halve what you answer for until one piece is left, then double back.

::

      8 chunks at rank 0 of 8
      halving    |a b c d e f g h|  sends efgh to 4, receives abcd from 4, adds
                 |a b c d|          sends cd to 2, receives ab, adds
                 |a b|              sends b to 1, receives a, adds: a is complete
      doubling   |a| -> 1, |a b| -> 2, |a b c d| -> 4, and the same back from them

The first half is a reduce_scatter, the second an allgather; both together are Rabenseifner's allreduce. With
m = 2^k the largest power of two not above n; f = 1 when n > m, else 0; g = 1 when n - m > m/2, else 0 (extra
ranks are folded in, see :mod:`pycomm.planner.folding`); an allreduce has m chunks:

==============  =======  =======================================  ==============================
collective      steps    chunks sent by the busiest rank          of the array
==============  =======  =======================================  ==============================
allreduce       2k + 2f  2(m-1) + fm                              2(m-1)/m + f
reduce_scatter  k + f+g  n-1; folded: n                           (n-1)/n; folded: 1
allgather       k + f+g  n-1; folded: n + the sizes of the first  (n-1)/n; folded: up to about 2
                         1, 2, 4 .. m/2 groups
==============  =======  =======================================  ==============================

Best for middle and large messages on a power of two: the least data that any algorithm can send, in few
steps. Folding costs up to one array more.

References
----------
R. Rabenseifner, "Optimization of collective reduction operations", Int. Conf. on Computational Science, 2004.
"""

from __future__ import annotations

import numpy as np

from pycomm.planner.algorithm import Algorithm, Form
from pycomm.planner.base import PlanCost, PlanRequest
from pycomm.planner.folding import Fold
from pycomm.planner.recursive_doubling import allgather, allgather_cost
from pycomm.schedule import Schedule, Space
from pycomm.schedule.builder import Place, ScheduleBuilder, inp, out
from pycomm.types import CollectiveKind

__all__ = ["PLANNER"]

NAME = "halving_doubling"


def _allreduce(request: PlanRequest) -> Schedule:
    fold = Fold(request.nranks)
    m, ranks = fold.size, fold.cores
    builder = ScheduleBuilder(request, NAME, pieces=m)
    extra, core = fold.pairs
    builder.send(extra, core, inp(0, m))
    builder.recv_reduce(core, extra, inp(0, m), out(0, m))
    space = np.full(m, Space.INPUT, np.int64)
    space[: fold.extras] = Space.OUTPUT
    for bit in reversed(range(fold.bits)):
        half = 1 << bit
        keep = fold.number >> bit << bit
        builder.send(ranks, fold.partner(bit), Place(space, keep ^ half, half))
        builder.recv_reduce(ranks, fold.partner(bit), Place(space, keep, half), out(keep, half))
        space = np.full(m, Space.OUTPUT, np.int64)
    for bit in range(fold.bits):
        half = 1 << bit
        mine = fold.number >> bit << bit
        builder.send(ranks, fold.partner(bit), out(mine, half))
        builder.recv(ranks, fold.partner(bit), out(mine ^ half, half))
    builder.send(core, extra, out(0, m))
    builder.recv(extra, core, out(0, m))
    return builder.finish()


def _reduce_scatter(request: PlanRequest) -> Schedule:
    n, fold = request.nranks, Fold(request.nranks)
    ranks = fold.cores
    builder = ScheduleBuilder(request, NAME)
    extra, core = fold.pairs
    # Partial sums of block b lie at index b + shift: in INPUT itself when in place, else in scratch, which
    # cores with an extra need for all blocks and the others for the half that they keep.
    partial_space, shift = Space.INPUT, np.zeros(fold.size, np.int64)
    if not request.in_place:
        partial_space = Space.SCRATCH
        half = fold.size >> 1
        for j, rank in enumerate(ranks.tolist()):
            low, high = fold.start(np.array([j & half, (j & half) + half])).tolist()
            if j < fold.extras:
                low, high = 0, n
            if high - low > 1:
                shift[j] = builder.scratch(rank, np.arange(low, high)) - low
    builder.send(extra, core, inp(0, n))
    builder.recv_reduce(core, extra, inp(0, n), Place(partial_space, shift[: fold.extras], n))
    space, moved = np.full(fold.size, Space.INPUT, np.int64), np.zeros(fold.size, np.int64)
    space[: fold.extras], moved[: fold.extras] = partial_space, shift[: fold.extras]
    for bit in reversed(range(fold.bits)):
        half = 1 << bit
        keep = fold.number >> bit << bit
        give = keep ^ half
        start, given = fold.start(keep), fold.start(give)
        count = fold.start(keep + half) - start
        amount = fold.start(give + half) - given
        builder.send(ranks, fold.partner(bit), Place(space, given + moved, amount))
        target_space, target = np.full(fold.size, partial_space, np.int64), start + shift
        if bit == 0:  # a core without extra is done
            target_space[fold.extras :], target[fold.extras :] = Space.OUTPUT, 0
        builder.recv_reduce(
            ranks, fold.partner(bit), Place(space, start + moved, count), Place(target_space, target, count)
        )
        space, moved = np.full(fold.size, partial_space, np.int64), shift
    builder.send(core, extra, Place(partial_space, extra + shift[: fold.extras]))
    builder.copy(core, Place(partial_space, core + shift[: fold.extras]), out(0))
    builder.recv(extra, core, out(0))
    return builder.finish()


def _allreduce_cost(request: PlanRequest) -> PlanCost:
    fold = Fold(request.nranks)
    m, folded = fold.size, fold.extras > 0
    sent = 2 * (m - 1) + folded * m
    total = 2 * m * (m - 1) + 2 * m * fold.extras
    steps, messages = 2 * (fold.bits + folded), 2 * fold.bits + folded
    return PlanCost(steps, sent, sent, total, m - 1 + folded * m, messages, pieces=m)


def _reduce_scatter_cost(request: PlanRequest) -> PlanCost:
    back = allgather_cost(request)  # the same messages in the opposite direction and order
    return PlanCost(back.steps, back.received, back.sent, back.total, back.sent, back.messages)


def _allgather(request: PlanRequest) -> Schedule:
    return allgather(request, NAME)


PLANNER = Algorithm(
    NAME,
    {
        CollectiveKind.ALLREDUCE: Form(_allreduce, _allreduce_cost),
        CollectiveKind.REDUCE_SCATTER: Form(_reduce_scatter, _reduce_scatter_cost),
        CollectiveKind.ALLGATHER: Form(_allgather, allgather_cost),
    },
)
