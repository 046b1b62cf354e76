"""Plans of an all-to-all: the first way to send that comes within 1% of the bound.

1. Every block goes straight to its rank, over switches.
2. In two stages over relays in units (:mod:`~pycomm.planner.graph.relays`): first inside, each rank hands
   what is for a rank elsewhere to the rank of its own unit that is nearest to it (on its rail); then between.
   Or first between, then inside. What is relayed is counted on the links inside.
3. The concurrent flow that attains the bound, taken apart into ways over ranks, in as few pieces as do
   (:mod:`~pycomm.planner.graph.flow_routes`).
4. In networks too large for that, trees around busy links (:mod:`~pycomm.planner.graph.adaptive`).

Uneven demands, such as those of experts, are a matrix of weights; the bound, the ways and their pieces are
made for them. A schedule serves blocks of any sizes, but is best for those.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pycomm.errors import InternalError
from pycomm.planner.base import PlanCost, PlanRequest
from pycomm.planner.graph.adaptive import Trees
from pycomm.planner.graph.alltoall import CLOSE, MAX_WAYS, AlltoallBound, Demands, bound_of, unit_labels
from pycomm.planner.graph.concurrent import ConcurrentFlow, Ints
from pycomm.planner.graph.flow_routes import Choice, Routes, Way, rounded, taken_apart
from pycomm.planner.graph.network import Network
from pycomm.planner.graph.relays import relayed, straight
from pycomm.planner.graph.reports import facts_of, text_of
from pycomm.types import CollectiveKind

if TYPE_CHECKING:
    from pycomm.schedule import Schedule

__all__ = ["FlowPlan", "plan"]

PIECES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Pieces of a block that are tried, in this order."""


@dataclass(frozen=True)
class FlowPlan:
    """Messages of an all-to-all, and how good they are.

    Parameters
    ----------
    network
        What it was made for.
    bound
        What nothing can beat.
    routes
        The messages.
    unit
        A label for each rank: its host, as far as the network shows any.
    algbw
        Bytes of a rank's send buffer per second that the busiest link allows.
    how
        What was done, for people.
    seconds
        Time taken to plan; no part of the plan otherwise.
    """

    network: Network
    bound: AlltoallBound
    routes: Routes
    unit: Ints
    algbw: Fraction
    how: str
    seconds: float
    kind: CollectiveKind = CollectiveKind.ALLTOALL
    root: int = -1

    @property
    def ratio(self) -> Fraction:
        """Part of the bound that is reached; 1 is proved to be the best."""
        return self.algbw / self.bound.algbw

    @property
    def height(self) -> int:
        """Messages one after another on the longest way."""
        return self.routes.hops

    @property
    def k(self) -> int:
        """Pieces of each block."""
        return self.routes.pieces

    def text(self) -> str:
        """One line, such as ``46.2 GB/s of 47.0 possible (98.3%), limited by leaf3 -> spine*``."""
        return text_of(self)

    def facts(self) -> dict[str, Any]:
        """All figures, for programs; fractions as text."""
        return {**facts_of(self), "routes": int(self.routes.src.size), "pieces": self.routes.pieces}

    def schedule(self, *, pieces: int = 0, channels: int = 0) -> Schedule:
        """Lower to a schedule; ``pieces`` and ``channels`` are those of trees, and do not matter here."""
        from pycomm.planner.graph.alltoall_lowering import lower

        del pieces, channels
        return lower(PlanRequest(self.kind, self.network.nranks), self.routes, self.unit)

    def cost(self, request: PlanRequest) -> PlanCost:
        """Count what the schedule has."""
        from pycomm.planner.graph.alltoall_lowering import cost

        return cost(request, self.routes, self.unit)


def plan(
    network: Network,
    demands: npt.ArrayLike | None = None,
    *,
    most_pieces: int | None = None,
    exact: bool = False,
) -> FlowPlan:
    """Plan an all-to-all; errors as of :func:`alltoall_bound`.

    Parameters
    ----------
    network, demands
        As there. The schedule is for all sizes of blocks, and best where they are as the demands.
    most_pieces
        Pieces that a block may be cut into; when not given, the fewest that come within 1% of the bound.
    exact
        Look for messages that meet the bound exactly, rather than within 1%.
    """
    started = time.perf_counter()
    asked = Demands(network, demands)
    bound = bound_of(network, asked)
    labels = unit_labels(network)
    unit = labels[0][: network.nranks] if labels else np.zeros(network.nranks, np.int64)
    goal = bound.algbw * (1 if exact else CLOSE)
    best: tuple[Fraction, Routes, str] | None = None
    for found in _candidates(network, asked, bound, labels, goal, most_pieces or PIECES[-1]):
        if best is None or found[0] > best[0]:
            best = found
            if best[0] >= goal:
                break
    if best is None:  # a demand of 0 everywhere is refused before
        raise InternalError(
            f"no way to send an alltoall of {network.nranks} ranks was found; please report it"
        )
    return FlowPlan(network, bound, best[1], unit, best[0], best[2], time.perf_counter() - started)


def _candidates(
    network: Network,
    demands: Demands,
    bound: AlltoallBound,
    labels: Sequence[Ints],
    goal: Fraction,
    most: int,
) -> Iterator[tuple[Fraction, Routes, str]]:
    if bound.flow is not None:
        for how, found in (straight(network), *relayed(network, labels)):
            worst = found.worst(demands.between, bound.pairs)
            if worst is not None:
                yield demands.algbw(network, 1 / worst), found.routes(), how
        yield from _from_flow(network, demands, bound.flow, goal, most)
    elif bound.relays is not None:
        yield bound.attained, bound.relays[1].routes(), bound.relays[0]
    elif bound.trees is not None:
        yield bound.attained, _from_trees(network, bound.trees), "trees around busy links"


def _from_trees(network: Network, trees: Trees) -> Routes:
    """List the ways; those of a pair that are the same are one."""
    src, dst, first, path = trees.paths()
    n, pieces = network.nranks, len(trees.parent)
    length = np.diff(first)
    table = np.full((len(src), int(length.max())), -1, np.int64)
    row = np.repeat(np.arange(len(src)), length)
    table[row, np.arange(len(path)) - first[row]] = path
    order = np.lexsort((*table.T[::-1], src * n + dst))
    table, src, dst, length = table[order], src[order], dst[order], length[order]
    head = np.flatnonzero(np.append(True, (table[1:] != table[:-1]).any(axis=1)))
    units = np.diff(np.append(head, len(src)))
    kept = table[head]
    return Routes(
        network, pieces, src[head], dst[head], units, np.append(0, np.cumsum(length[head])), kept[kept >= 0]
    )


def _from_flow(
    network: Network, demands: Demands, flow: ConcurrentFlow, goal: Fraction, most: int
) -> Iterator[tuple[Fraction, Routes, str]]:
    """Take the flow apart, with more and more pieces."""
    n, pairs = network.nranks, flow.pairs
    images = pairs.images
    sources = [0] if images is not None else list(range(n))
    label = pairs.arc if images is not None else np.arange(len(network.src))
    capacity = np.zeros(int(label.max()) + 1, np.int64)
    capacity[label] = network.capacity
    fallback = _Fallback(network)
    ways: list[tuple[int, int, list[Way]]] = []
    for source in sources:
        on_arcs = np.array([float(x) for x in flow.of(source)])
        wanted = demands.between[source] * float(flow.rate)
        for target, found in enumerate(taken_apart(network, on_arcs, source, wanted)):
            if target != source:
                ways.append((source, target, found or [fallback.way(source, target)]))
    choices = [
        Choice(
            int(demands.between[source, target]),
            [_labels_of(network, label, way.path) for way in found],
            [w.share for w in found],
        )
        for source, target, found in ways
    ]
    last = Fraction(0)
    for pieces in PIECES:
        if pieces > most or (pieces > 1 and n * n * pieces > MAX_WAYS):
            return
        units, worst = rounded(choices, capacity.tolist(), pieces)
        reached = demands.algbw(network, 1 / worst)
        if reached <= last:
            continue
        last = reached
        kept = [
            (source, target, way.path, number)
            for (source, target, found), numbers in zip(ways, units, strict=True)
            for way, number in zip(found, numbers, strict=True)
            if number
        ]
        text = f"concurrent flow in {pieces} piece{'s' * (pieces > 1)}"
        yield reached, _table(network, pieces, kept, images), text
        if reached >= goal:
            return


def _labels_of(network: Network, label: Ints, path: Sequence[int]) -> list[int]:
    return [int(label[network.arc[pair]]) for pair in itertools.pairwise(path)]


class _Fallback:
    """Shortest ways of pairs that no demand asks for."""

    def __init__(self, network: Network) -> None:
        from pycomm.planner.graph.routing import Ways

        self.ways = Ways(network)

    def way(self, source: int, target: int) -> Way:
        """Any shortest way."""
        return Way(self.ways.path(source, target), 1.0)


def _table(
    network: Network, pieces: int, kept: Sequence[tuple[int, int, tuple[int, ...], int]], images: Ints | None
) -> Routes:
    """List the ways of all pairs, those of other sources as images of those of the first."""
    src = np.array([k[0] for k in kept], np.int64)
    dst = np.array([k[1] for k in kept], np.int64)
    units_of = np.array([k[3] for k in kept], np.int64)
    length = np.array([len(k[2]) for k in kept], np.int64)
    path = np.array([v for k in kept for v in k[2]], np.int64)
    if images is not None:
        src, dst, path = images[:, src].reshape(-1), images[:, dst].reshape(-1), images[:, path].reshape(-1)
        units_of, length = np.tile(units_of, len(images)), np.tile(length, len(images))
    order = np.lexsort((dst, src))
    begin = np.cumsum(length) - length
    first = np.append(0, np.cumsum(length[order]))
    where = np.repeat(begin[order] - first[:-1], length[order]) + np.arange(int(first[-1]))
    return Routes(network, pieces, src[order], dst[order], units_of[order], first, path[where])
