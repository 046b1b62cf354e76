"""PAT, parallel aggregated trees: a binomial tree from every rank at once, far hops first.

::

      n = 8, blocks at rank r after each round, by the distance that they have come
      start      0
      round 4    0 | 4                      from rank r-4: 1 block
      round 2    0   4 | 2   6              from rank r-2: 2 blocks
      round 1    0   4   2   6 | 1 5 3 7    from rank r-1: 4 blocks

Like Bruck's allgather in the opposite order of distances: most bytes travel between neighbours, which matters
where far ranks share slow links. What a rank holds lies in scratch in the order of its coming, so that a
round sends a prefix; if n is not a power of two, the block that has come farthest may have to be left out,
which can split the prefix in two. The reduce_scatter is the same picture backwards, adding.

With K = ceil(log2 n):

==============  =====  ====================  =============================================================
collective      steps  chunks sent per rank  remark
==============  =====  ====================  =============================================================
allgather       K      n-1                   (n-1)/n of the array, the least possible; n blocks of scratch
reduce_scatter  K      n-1                   the same
==============  =====  ====================  =============================================================

Best for small and middle messages on many ranks and any n, above all for reduce_scatter, where Bruck has no
equal.

References
----------
S. Jeaugey, "PAT: a new algorithm for all-gather and reduce-scatter operations at
scale", arXiv:2506.20252, 2025.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pycomm.planner.algorithm import Algorithm, Form, ranks_of
from pycomm.planner.base import PlanCost, PlanRequest
from pycomm.planner.trees import runs
from pycomm.schedule import Schedule
from pycomm.schedule.builder import ScheduleBuilder, inp, out, scr
from pycomm.types import CollectiveKind

__all__ = ["PLANNER"]

NAME = "pat"


class _Message(NamedTuple):
    """``count`` slots from ``first`` go ``hop`` ranks far and land from ``landing``."""

    hop: int
    first: int
    landing: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here


def _messages(n: int) -> tuple[list[_Message], list[int]]:
    """All messages of one rank, in order, and the distance that the block of each slot has come."""
    held, messages = [0], []
    for bit in reversed(range((n - 1).bit_length())):
        hop = 1 << bit
        fit = [i for i, far in enumerate(held) if far + hop < n]
        for _, first, count in runs(np.array(fit, np.int64)):
            messages.append(_Message(hop, first, len(held), count))
            held += [held[i] + hop for i in range(first, first + count)]
    return messages, held


def _capacity(messages: list[_Message]) -> int:
    """Two messages follow one another on a channel where a round is split."""
    hops = [message.hop for message in messages]
    return max(hops.count(hop) for hop in hops)


def _allgather(request: PlanRequest) -> Schedule:
    n, rank = request.nranks, ranks_of(request)
    builder = ScheduleBuilder(request, NAME)
    messages, come = _messages(n)
    builder.scratch(rank, (rank[:, None] - np.array(come)) % n)
    builder.copy(rank, inp(0), scr(0))
    for hop in dict.fromkeys(message.hop for message in messages):
        together = [message for message in messages if message.hop == hop]
        for _, first, _, count in together:
            builder.send(rank, (rank + hop) % n, scr(first, count))
        for _, _, landing, count in together:
            builder.recv(rank, (rank - hop) % n, scr(landing, count))
    for slot, far in enumerate(come):
        builder.copy(rank, scr(slot), out((rank - far) % n))
    return builder.finish(_capacity(messages))


def _reduce_scatter(request: PlanRequest) -> Schedule:
    n, rank = request.nranks, ranks_of(request)
    builder = ScheduleBuilder(request, NAME)
    messages, come = _messages(n)
    builder.scratch(rank, (rank[:, None] - np.array(come)) % n)
    for slot, far in enumerate(come):
        builder.copy(rank, inp((rank - far) % n), scr(slot))
    for hop in dict.fromkeys(message.hop for message in reversed(messages)):
        together = [message for message in messages if message.hop == hop]
        for _, _, landing, count in together:
            builder.send(rank, (rank - hop) % n, scr(landing, count))
        last = together[0] is messages[0]
        for _, first, _, count in together:
            result = out(0) if last else scr(first, count)
            builder.recv_reduce(rank, (rank + hop) % n, scr(first, count), result)
    return builder.finish(_capacity(messages))


def _allgather_cost(request: PlanRequest) -> PlanCost:
    n = request.nranks
    return PlanCost((n - 1).bit_length(), n - 1, n - 1, n * (n - 1), 0, len(_messages(n)[0]))


def _reduce_scatter_cost(request: PlanRequest) -> PlanCost:
    n = request.nranks
    return PlanCost((n - 1).bit_length(), n - 1, n - 1, n * (n - 1), n - 1, len(_messages(n)[0]))


PLANNER = Algorithm(
    NAME,
    {
        CollectiveKind.ALLGATHER: Form(_allgather, _allgather_cost),
        CollectiveKind.REDUCE_SCATTER: Form(_reduce_scatter, _reduce_scatter_cost),
    },
)
