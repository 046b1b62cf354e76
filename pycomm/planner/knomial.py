r"""K-nomial tree: everybody who has the data tells k-1 others in every round (``binomial`` is k = 2).

::

      k = 2, ranks counted from the root          0
      round 0   0 -> 4                         /  |  \
      round 1   0 -> 2, 4 -> 6                4   2   1     the subtree of v is v and what follows it:
      round 2   0 -> 1, 2 -> 3, 4 -> 5, 6->7 / \  |         v .. v + k^i, i trailing zeros of v
                                            6  5  3         its parent: v with its last digit not 0 cleared
                                            |
                                            7

With D the digits of n-1 in base k, d the leading one, c = (D-1)(k-1) + d the children of the root, h the most
digits not 0 of any rank below n (D when n-1 >= 11..1 in base k, else D-1), P pieces (1 unless the request
says):

==================  =====  ==================================  =================================
collective          steps  chunks sent by the busiest rank     remark
==================  =====  ==================================  =================================
broadcast           h      cP                                  the root
reduce              h      P                                   the root receives and combines cP
allreduce, barrier  2h     cP                                  reduce, then broadcast
scatter             h      n-1                                 the root
gather              h      the largest subtree below the root  the root receives n-1
==================  =====  ==================================  =================================

Best for small messages: few steps on any number of ranks. Large k trades steps for messages of one rank, good
where sending is cheap and flying is long.

References
----------
R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication
operations in MPICH", Int. J. High Performance Computing Applications 19(1), 2005.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pycomm.planner import trees
from pycomm.planner.algorithm import Algorithm, Form
from pycomm.planner.base import PlanCost, PlanRequest
from pycomm.schedule import Schedule
from pycomm.schedule.builder import ScheduleBuilder, inp, out
from pycomm.types import CollectiveKind

__all__ = ["BINOMIAL", "FOUR_ARY", "children_of", "height_of", "knomial_tree"]


def children_of(v: int, n: int, k: int) -> list[int]:
    """Children of rank ``v`` (counted from the root) among ``n``, smallest subtree first."""
    found, weight = [], 1
    while weight < n and (v == 0 or v % (weight * k) == 0):
        found += [v + digit * weight for digit in range(1, k) if v + digit * weight < n]
        weight *= k
    return found


def knomial_tree(n: int, root: int, k: int) -> trees.Tree:
    """Make the k-nomial tree over ``n`` ranks with ``root`` at its top."""
    children: list[list[int]] = [[]] * n
    for v in range(n):
        children[(v + root) % n] = [(c + root) % n for c in children_of(v, n, k)]
    return trees.Tree(root, children)


def height_of(n: int, k: int) -> int:
    """Edges on the longest path: the most digits not 0 of any number below ``n``."""
    ones = height = 0
    while (ones := ones * k + 1) < n:
        height += 1
    return height


def _top(request: PlanRequest) -> int:
    return max(request.root, 0)


def _pieces(request: PlanRequest) -> int:
    return 1 if request.kind is CollectiveKind.BARRIER else request.pieces or 1


def _broadcast(request: PlanRequest, k: int, name: str) -> Schedule:
    pieces = _pieces(request)
    builder = ScheduleBuilder(request, name, pieces=pieces)
    builder.copy(request.root, inp(0, pieces), out(0, pieces))
    trees.broadcast(builder, knomial_tree(request.nranks, request.root, k), range(pieces))
    return builder.finish()


def _reduce(request: PlanRequest, k: int, name: str) -> Schedule:
    pieces = _pieces(request)
    builder = ScheduleBuilder(request, name, pieces=pieces)
    trees.reduce(builder, knomial_tree(request.nranks, request.root, k), range(pieces))
    return builder.finish()


def _allreduce(request: PlanRequest, k: int, name: str) -> Schedule:
    pieces = _pieces(request)
    builder = ScheduleBuilder(request, name, pieces=pieces)
    trees.allreduce(builder, knomial_tree(request.nranks, 0, k), range(pieces))
    return builder.finish(pieces)  # leaves send all pieces before they take any


def _gather(request: PlanRequest, k: int, name: str) -> Schedule:
    builder = ScheduleBuilder(request, name)
    trees.gather(builder, knomial_tree(request.nranks, request.root, k))
    return builder.finish()


def _scatter(request: PlanRequest, k: int, name: str) -> Schedule:
    builder = ScheduleBuilder(request, name)
    trees.scatter(builder, knomial_tree(request.nranks, request.root, k))
    return builder.finish()


def _flow_cost(request: PlanRequest, k: int) -> PlanCost:
    """Price broadcast, reduce, allreduce and barrier."""
    n, pieces, height = request.nranks, _pieces(request), height_of(request.nranks, k)
    most, every = len(children_of(0, n, k)) * pieces, (n - 1) * pieces
    if request.kind is CollectiveKind.BROADCAST:
        return PlanCost(height, most, pieces, every, 0, most, height - 1, pieces)
    if request.kind is CollectiveKind.REDUCE:
        return PlanCost(height, pieces, most, every, most, most, height - 1, pieces)
    return PlanCost(2 * height, most, most, 2 * every, most, most, 2 * height - 1, pieces)


def _blocks_cost(request: PlanRequest, k: int, *, up: bool) -> PlanCost:
    """Price gather and scatter."""
    n = request.nranks
    children = children_of(0, n, k)
    ends = [*children[1:], n]
    subtrees = [end - child for child, end in zip(children, ends, strict=True)]
    total, weight = 0, 1
    while weight < n:  # every block travels one edge per digit of its rank that is not 0
        total += n - n // (weight * k) * weight - min(n % (weight * k), weight)
        weight *= k
    first_wrapped = n - request.root  # the rank numbered 0, counted from the root
    split = any(child < first_wrapped < end for child, end in zip(children, ends, strict=True))
    sent, received = (max(subtrees), n - 1) if up else (n - 1, max(subtrees))
    return PlanCost(height_of(n, k), sent, received, total, 0, len(children) + split)


def _planner(name: str, k: int) -> Algorithm:
    def form(plan: Callable[..., Schedule], cost: Callable[..., PlanCost]) -> Form:
        return Form(partial(plan, k=k, name=name), partial(cost, k=k))

    return Algorithm(
        name,
        {
            CollectiveKind.ALLREDUCE: form(_allreduce, _flow_cost),
            CollectiveKind.BROADCAST: form(_broadcast, _flow_cost),
            CollectiveKind.REDUCE: form(_reduce, _flow_cost),
            CollectiveKind.GATHER: form(_gather, partial(_blocks_cost, up=True)),
            CollectiveKind.SCATTER: form(_scatter, partial(_blocks_cost, up=False)),
            CollectiveKind.BARRIER: form(_allreduce, _flow_cost),
        },
    )


BINOMIAL = _planner("binomial", 2)
FOUR_ARY = _planner("knomial4", 4)
