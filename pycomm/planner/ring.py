"""Ring: everybody sends to the next rank and receives from the one before, until all chunks went round.

::

      rank      0        1        2        3          allreduce of 4 chunks a b c d, first half
      step 0    a -----> b -----> c -----> d ----->   rank i sends chunk i; the next one adds its own and
      step 1    d -----> a -----> b -----> c ----->   passes the sum on
      step 2    c -----> d -----> a -----> b ----->   now chunk i+1 is complete at rank i; the second half
                                                      passes the complete chunks on in the same way

A *lane* is a ring over its own part of the data, on its own channel: ``channels`` lanes in one direction
(``ring``), or as many in each direction (``bidirectional_ring``), which fills links that work both ways at
once. With L lanes a block is cut into L chunks (allreduce: the array into n*L).

=================  ======  =======================  =================================
collective         steps   chunks sent per rank     of the array
=================  ======  =======================  =================================
allreduce          2(n-1)  2(n-1)L                  2(n-1)/n, the least possible
allgather          n-1     (n-1)L                   (n-1)/n, the least possible
reduce_scatter     n-1     (n-1)L                   (n-1)/n, the least possible
broadcast, reduce  n-1     L*P (P pieces per lane)  1, plus (n-2)/P to fill the chain
=================  ======  =======================  =================================

Best for large messages, above all when neighbours in ``order`` are near each other: each link carries the
least that any algorithm can send. Poor for small ones: the steps grow with n.

Broadcast and reduce are chains: the ring is cut behind the root. Lanes of both directions then reach a rank
at different times; its program serves the lane that reaches it first to the end, which keeps the chain of
messages at n-1, and asks a channel to hold one lane's pieces.

References
----------
P. Patarasuk, X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", J. Parallel and
Distributed Computing 69(2), 2009.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from pycomm.planner.algorithm import Algorithm, Form, ranks_of
from pycomm.planner.base import PlanCost, PlanRequest
from pycomm.schedule import Schedule
from pycomm.schedule.builder import Ints, ScheduleBuilder, inp, out, scr
from pycomm.types import CollectiveKind

__all__ = ["BIDIRECTIONAL", "PLANNER"]

Array = npt.NDArray[np.int64]
DEFAULT_PIECES = 8
"""Pieces per lane of a chain when the request leaves the choice to the planner."""


class _Lanes:
    """The rings of a request: one order per direction, ``lanes`` lanes in all."""

    def __init__(self, request: PlanRequest, directions: int) -> None:
        self.order = np.array(request.order, np.int64) if request.order else ranks_of(request)
        self.position = np.empty_like(self.order)
        self.position[self.order] = ranks_of(request)
        self.n = request.nranks
        self.lanes = request.channels * directions
        self.directions = directions

    def step(self, lane: int) -> int:
        """+1 for lanes along the order, -1 for lanes against it."""
        return -1 if self.directions == 2 and lane % 2 else 1

    def at(self, position: Ints) -> Array:
        """Ranks at ring positions, counted modulo n."""
        ranks: Array = self.order[np.asarray(position) % self.n]
        return ranks


def _allreduce(request: PlanRequest, name: str, directions: int) -> Schedule:
    ring = _Lanes(request, directions)
    n, lanes = ring.n, ring.lanes
    builder = ScheduleBuilder(request, name, pieces=n * lanes, channels=lanes)
    i, rank = np.arange(n), ring.order
    peers = [(ring.at(i + ring.step(lane)), ring.at(i - ring.step(lane))) for lane in range(lanes)]
    for t in range(2 * (n - 1)):
        for lane, (after, _) in enumerate(peers):
            chunk = lane * n + (i - ring.step(lane) * t) % n
            builder.send(rank, after, (inp if t == 0 else out)(chunk), channel=lane)
        for lane, (_, before) in enumerate(peers):
            chunk = lane * n + (i - ring.step(lane) * (t + 1)) % n
            if t < n - 1:
                builder.recv_reduce(rank, before, inp(chunk), out(chunk), channel=lane)
            else:
                builder.recv(rank, before, out(chunk), channel=lane)
    return builder.finish()


def _allgather(request: PlanRequest, name: str, directions: int) -> Schedule:
    ring = _Lanes(request, directions)
    n, lanes = ring.n, ring.lanes
    builder = ScheduleBuilder(request, name, pieces=lanes, channels=lanes)
    i, rank = np.arange(n), ring.order
    builder.copy(rank, inp(0, lanes), out(rank * lanes, lanes))
    for t in range(n - 1):
        for lane in range(lanes):
            step = ring.step(lane)
            block = ring.at(i - step * t)
            src = inp(lane) if t == 0 else out(block * lanes + lane)
            builder.send(rank, ring.at(i + step), src, channel=lane)
        for lane in range(lanes):
            step = ring.step(lane)
            block = ring.at(i - step * (t + 1))
            builder.recv(rank, ring.at(i - step), out(block * lanes + lane), channel=lane)
    return builder.finish()


def _reduce_scatter(request: PlanRequest, name: str, directions: int) -> Schedule:
    ring = _Lanes(request, directions)
    n, lanes = ring.n, ring.lanes
    builder = ScheduleBuilder(request, name, pieces=lanes, channels=lanes)
    i, rank = np.arange(n), ring.order
    held: list[Ints] = [0] * lanes  # scratch slot of the partial sum that each rank sends next
    for t in range(n - 1):
        for lane in range(lanes):
            step = ring.step(lane)
            chunk = ring.at(i - step * (t + 1)) * lanes + lane
            src = inp(chunk) if t == 0 or request.in_place else scr(held[lane])
            builder.send(rank, ring.at(i + step), src, channel=lane)
        for lane in range(lanes):
            step = ring.step(lane)
            chunk = ring.at(i - step * (t + 2)) * lanes + lane
            if t == n - 2:
                dst = out(lane)
            elif request.in_place:
                dst = inp(chunk)
            else:  # a slot of its own for each: nothing tells when memory lent to the next rank has been read
                held[lane] = builder.scratch(rank, chunk)
                dst = scr(held[lane])
            builder.recv_reduce(rank, ring.at(i - step), inp(chunk), dst, channel=lane)
    return builder.finish()


def _pieces(request: PlanRequest) -> int:
    return request.pieces or DEFAULT_PIECES


def _chain_capacity(ring: _Lanes, pieces: int) -> int:
    return pieces if ring.directions == 2 and ring.n > 2 else 1


def _broadcast(request: PlanRequest, name: str, directions: int) -> Schedule:
    ring = _Lanes(request, directions)
    n, lanes, pieces = ring.n, ring.lanes, _pieces(request)
    whole = lanes * pieces
    builder = ScheduleBuilder(request, name, pieces=whole, channels=lanes)
    builder.copy(request.root, inp(0, whole), out(0, whole))
    distance = np.arange(n)
    start = ring.position[request.root]
    for piece in range(pieces):
        for lane in range(lanes):
            step, chunk = ring.step(lane), lane * pieces + piece
            rank = ring.at(start + step * distance)
            builder.recv(rank[1:], rank[:-1], out(chunk), channel=lane, when=distance[1:])
            builder.send(rank[0], rank[1], inp(chunk), channel=lane)
            builder.send(rank[1:-1], rank[2:], out(chunk), channel=lane, when=distance[1:-1])
    return builder.finish(_chain_capacity(ring, pieces))


def _reduce(request: PlanRequest, name: str, directions: int) -> Schedule:
    ring = _Lanes(request, directions)
    n, lanes, pieces = ring.n, ring.lanes, _pieces(request)
    whole = lanes * pieces
    builder = ScheduleBuilder(request, name, pieces=whole, channels=lanes)
    start = ring.position[request.root]
    for lane in range(lanes):
        # rank[j] has heard from j ranks when its turn comes; the last one is the root
        rank = ring.at(start - ring.step(lane) * np.arange(n - 1, -1, -1))
        turn = np.arange(n)
        inner = rank[1:-1]
        for piece in range(pieces):
            chunk = lane * pieces + piece
            builder.send(rank[0], rank[1], inp(chunk), channel=lane)
            if inner.size:
                partial_sum = scr(builder.scratch(inner, np.full(inner.size, chunk)))
                builder.recv_reduce(inner, rank[:-2], inp(chunk), partial_sum, channel=lane, when=turn[1:-1])
                builder.send(inner, rank[2:], partial_sum, channel=lane, when=turn[1:-1])
            builder.recv_reduce(rank[-1], rank[-2], inp(chunk), out(chunk), channel=lane, when=n - 1)
    return builder.finish(_chain_capacity(ring, pieces))


def _crossings(request: PlanRequest, directions: int) -> int:
    """Count the ways out of a host, of the host that has most of them, over all directions."""
    order = request.order or range(request.nranks)
    around = [request.hosts[rank] for rank in order] if request.hosts else []
    leaving = [a for a, b in zip(around, around[1:] + around[:1], strict=True) if a != b]
    return directions * max(map(leaving.count, set(leaving)), default=0)


def _ring_cost(request: PlanRequest, directions: int, rounds: int, reduced: int) -> PlanCost:
    """Price ``rounds`` times round the ring, of which ``reduced`` combine what they receive."""
    n, lanes = request.nranks, request.channels * directions
    sent = rounds * (n - 1) * lanes
    pieces = n * lanes if request.kind is CollectiveKind.ALLREDUCE else lanes
    reduced *= (n - 1) * lanes
    far = _crossings(request, directions) * (sent // directions)
    return PlanCost(rounds * (n - 1), sent, sent, n * sent, reduced, sent, pieces=pieces, far=far)


def _chain_cost(request: PlanRequest, directions: int, reduced: int) -> PlanCost:
    n, lanes, pieces = request.nranks, request.channels * directions, _pieces(request)
    whole = lanes * pieces
    total, fill = (n - 1) * whole, (n - 2) * lanes
    far = _crossings(request, directions) * (whole // directions)
    return PlanCost(n - 1, whole, whole, total, reduced * whole, whole, fill, pieces=whole, far=far)


def _planner(name: str, directions: int) -> Algorithm:
    def form(plan: Callable[..., Schedule], cost: Callable[..., PlanCost], **terms: int) -> Form:
        return Form(
            partial(plan, name=name, directions=directions), partial(cost, directions=directions, **terms)
        )

    return Algorithm(
        name,
        {
            CollectiveKind.ALLREDUCE: form(_allreduce, _ring_cost, rounds=2, reduced=1),
            CollectiveKind.ALLGATHER: form(_allgather, _ring_cost, rounds=1, reduced=0),
            CollectiveKind.REDUCE_SCATTER: form(_reduce_scatter, _ring_cost, rounds=1, reduced=1),
            CollectiveKind.BROADCAST: form(_broadcast, _chain_cost, reduced=0),
            CollectiveKind.REDUCE: form(_reduce, _chain_cost, reduced=1),
        },
    )


PLANNER = _planner("ring", 1)
BIDIRECTIONAL = _planner("bidirectional_ring", 2)
