"""Ways to schedules of an all-to-all: relays keep what is not theirs in scratch, waves keep links busy.

::

      wave 1   s --> relay --> d            step   1        2        3
      wave 2   s' -> relay' -> d'           wave 1 hop 1    hop 2
                                            wave 2          hop 1    hop 2

The blocks are sorted into *waves*: by how many units (hosts) the destination is after the source, or, where
there are few units or none, by how many ranks. A wave starts one step after the one before, and goes one hop
further in each step, so that the links of early hops and those of late ones are busy at the same time. Within
a step each rank first sends and then receives what was sent to it in this step; so the programs end if a lane
holds the messages of one step, which is the capacity that the schedule declares.

Pieces that lie together at both ends of a hop are one message. Slots of a relay are in the order of
destination and source: what a host sends to one rank over one relay arrives as one message.

Chunks have identities, and so a schedule for equal blocks serves blocks of any sizes (alltoallv). It is only
best for the sizes that it was made for: see ``demands`` of :func:`pycomm.planner.graph.alltoall_plans.plan`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pycomm.cost import PlanCost
from pycomm.errors import PlanningError
from pycomm.planner.base import PlanRequest
from pycomm.planner.graph.concurrent import Ints
from pycomm.planner.graph.flow_routes import Routes
from pycomm.planner.graph.lowering import MOST_CELLS, busiest_of_steps, longest_chain
from pycomm.schedule import Schedule
from pycomm.schedule.builder import Place, ScheduleBuilder, inp, out
from pycomm.schedule.ir import Space

__all__ = ["cost", "lower"]

FEW_UNITS = 8
"""With fewer units, waves are also told apart by the places of the ranks in their units."""


class _Messages(NamedTuple):
    """One row per message, in the order in which both ends perform those of a step."""

    step: Ints
    src: Ints
    dst: Ints
    number: Ints
    src_space: Ints
    src_start: Ints
    dst_space: Ints
    dst_start: Ints


def _waves(routes: Routes, unit: Ints) -> Ints:
    """Sort the ways into waves, numbered from 0."""
    n = routes.network.nranks
    _, number, size = np.unique(unit, return_inverse=True, return_counts=True)
    if len(size) == 1 or len(size) == n:
        shift: Ints = (routes.dst - routes.src) % n - 1
        return shift
    order = np.argsort(number, kind="stable")
    place = np.empty(n, np.int64)
    place[order] = np.arange(n) - np.repeat(np.cumsum(size) - size, size)
    places = int(size.max()) if len(size) < FEW_UNITS else 1
    within = (place[routes.dst] - place[routes.src]) % size.max()
    across = (number[routes.dst] - number[routes.src]) % len(size)
    far = (across - 1) * places + within % places
    inside = within * ((len(size) - 1) * places) // int(size.max())
    waves: Ints = np.where(across > 0, far, inside)
    return waves


def _messages(request: PlanRequest, routes: Routes, unit: Ints, builder: ScheduleBuilder | None) -> _Messages:
    """Lay out all hops; slots of relays are reserved in the builder, when there is one."""
    n, pieces = routes.network.nranks, routes.pieces
    if n * n * pieces > MOST_CELLS:
        raise PlanningError(
            f"cannot plan {request.kind.label}: {pieces} pieces of {n} x {n} blocks are more than "
            f"{MOST_CELLS} chunks; use a hierarchical algorithm"
        )
    stops, first = routes.stops
    hops = np.diff(first) - 1
    way = np.repeat(np.arange(hops.size), hops)
    hop = np.arange(way.size) - np.repeat(np.cumsum(hops) - hops, hops)
    at = first[way] + hop
    pair_first = np.flatnonzero(np.diff(routes.src * n + routes.dst, prepend=-1))
    before = np.cumsum(routes.units) - routes.units
    offset = before - np.repeat(before[pair_first], np.diff(np.append(pair_first, hops.size)))
    relayed = hop > 0  # the hop starts from a slot
    slot = np.zeros(way.size, np.int64)
    held = np.flatnonzero(relayed)
    w = way[held]
    order = held[np.lexsort((offset[w], routes.src[w], routes.dst[w], stops[at[held] + 1], stops[at[held]]))]
    chunk = (routes.src * n + routes.dst) * pieces + offset
    slot[order] = _slots(builder, stops[at[order]], chunk[way[order]], routes.units[way[order]])
    if builder is None and request.in_place:
        slot += n * pieces  # behind the copy of the input
    own = Space.SCRATCH if request.in_place else Space.INPUT
    src_space = np.where(relayed, int(Space.SCRATCH), int(own))
    src_start = np.where(relayed, slot, routes.dst[way] * pieces + offset[way])
    last = hop == hops[way] - 1
    dst_space = np.where(last, int(Space.OUTPUT), int(Space.SCRATCH))
    dst_start = np.where(last, routes.src[way] * pieces + offset[way], np.append(slot[1:], 0))
    step = _waves(routes, unit)[way] + hop
    rows = _Messages(
        step, stops[at], stops[at + 1], routes.units[way], src_space, src_start, dst_space, dst_start
    )
    return _merged(rows)


def _slots(builder: ScheduleBuilder | None, rank: Ints, chunk: Ints, count: Ints) -> Ints:
    if builder is not None:
        return builder.scratch_spans(rank, chunk, count)
    before = np.cumsum(count) - count
    begins = np.diff(rank, prepend=-1) != 0
    return before - np.maximum.accumulate(np.where(begins, before, 0))


def _merged(rows: _Messages) -> _Messages:
    """Sort by step and ends, and join what lies together at both ends."""
    order = np.lexsort(
        (rows.dst_start, rows.src_start, rows.dst_space, rows.src_space, rows.dst, rows.src, rows.step)
    )
    rows = _Messages(*(column[order] for column in rows))
    joined = np.ones(rows.step.size, bool)
    joined[:1] = False
    for column in (rows.step, rows.src, rows.dst, rows.src_space, rows.dst_space):
        joined[1:] &= column[1:] == column[:-1]
    for start in (rows.src_start, rows.dst_start):
        joined[1:] &= start[1:] == start[:-1] + rows.number[:-1]
    head = np.flatnonzero(~joined)
    count = np.add.reduceat(rows.number, head)
    return _Messages(*(column[head] for column in rows))._replace(number=count)


def lower(request: PlanRequest, routes: Routes, unit: Ints, name: str = "flow_alltoall") -> Schedule:
    """Make the schedule of an alltoall that follows ways.

    Parameters
    ----------
    request
        alltoall or alltoallv.
    routes
        Of as many ranks.
    unit
        A label for each rank; ranks of one host have the same.
    name
        Name of the schedule.

    Raises
    ------
    PlanningError
        There are too many chunks.
    """
    n, pieces = request.nranks, routes.pieces
    builder = ScheduleBuilder(request, name, pieces=pieces)
    rank = np.arange(n)
    if request.in_place:  # results land on what is still to be sent
        builder.scratch(rank, rank[:, None] * (n * pieces) + np.arange(n * pieces))
        builder.copy(rank, inp(0, n * pieces), Place(Space.SCRATCH, 0, n * pieces), when=-1)
    else:
        builder.copy(rank, inp(rank * pieces, pieces), out(rank * pieces, pieces), when=-1)
    rows = _messages(request, routes, unit, builder)
    builder.send(rows.src, rows.dst, Place(rows.src_space, rows.src_start, rows.number), when=2 * rows.step)
    builder.recv(
        rows.dst, rows.src, Place(rows.dst_space, rows.dst_start, rows.number), when=2 * rows.step + 1
    )
    lane = (rows.step * n + rows.src) * n + rows.dst
    return builder.finish(int(np.unique(lane, return_counts=True)[1].max()))


def cost(request: PlanRequest, routes: Routes, unit: Ints) -> PlanCost:
    """Count what :func:`lower` would make, without making it; parameters and errors are the same."""
    n = request.nranks
    rows = _messages(request, routes, unit, None)
    sent, received = (np.bincount(ends, rows.number, n).astype(np.int64) for ends in (rows.src, rows.dst))
    busiest = int(max(sent.max(), received.max()))
    far = -1
    if request.hosts:
        host = np.unique(np.array(request.hosts), return_inverse=True)[1]
        leaving = host[rows.src] != host[rows.dst]
        far = int(np.bincount(host[rows.src[leaving]], rows.number[leaving], 1).max())
    return PlanCost(
        steps=longest_chain(rows.step, rows.src, rows.dst, n),
        sent=int(sent.max()),
        received=int(received.max()),
        total=int(rows.number.sum()),
        reduced=0,
        messages=int(max(np.bincount(rows.src, minlength=n).max(), np.bincount(rows.dst, minlength=n).max())),
        fill=busiest_of_steps(rows.step, rows.src, rows.dst, rows.number, n) - busiest,
        pieces=routes.pieces,
        far=far,
    )
