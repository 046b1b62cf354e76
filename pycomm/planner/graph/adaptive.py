"""Ways for networks too large for a linear programme: each source sends along a tree that avoids busy links.

Every source has, for each piece of its blocks, a tree of shortest ways to all others, in lengths that grow
exponentially with how busy the arcs are. In turn each tree is taken away and grown anew with the lengths of
the moment; a few sweeps make the busiest arc about as idle as it can be. Trees of different pieces differ, so
that a block is spread. The same lengths, made whole numbers, bound what any plan can do
(:func:`~pycomm.planner.graph.concurrent.rate_by_lengths`): the price of not knowing the optimum is known.

References
----------
* N. Garg, J. Könemann: Faster and simpler algorithms for multicommodity flow and other fractional packing
  problems. SIAM Journal on Computing 37, 2007 (exponential lengths; ours are of the loads of all pieces, and
  trees are taken back).
* J. Aspnes, Y. Azar, A. Fiat, S. Plotkin, O. Waarts: On-line routing of virtual circuits with applications to
  load balancing and machine scheduling. Journal of the ACM 44, 1997.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pycomm.planner.graph.concurrent import Floats, Ints
from pycomm.planner.graph.network import Network

__all__ = ["Trees", "grown", "lengths_by_load"]

SWEEPS = 4
STEEP = 12.0
"""The busiest arc is e to this times as long as an idle one of its capacity."""
GRID = 1 << 20
"""Lengths are whole numbers up to this."""


class Trees(NamedTuple):
    """Ways from every rank to every other.

    Parameters
    ----------
    parent
        int32 array of shape ``(pieces, nranks, nvertices)``: the vertex before each one on the way from the
        source; negative where there is none.
    load
        int64 array: demands times pieces on each arc.
    """

    parent: npt.NDArray[np.int32]
    load: Ints

    def worst(self, network: Network) -> Fraction:
        """Greatest load over capacity, for demands served once."""
        loads = zip(self.load.tolist(), network.capacity.tolist(), strict=True)
        return max(Fraction(load, c * len(self.parent)) for load, c in loads)

    def paths(self) -> tuple[Ints, Ints, Ints, Ints]:
        """List source, destination, first place and vertices of the ways of all pairs, piece after piece."""
        pieces, n, _ = self.parent.shape
        piece, src, dst = (index.reshape(-1) for index in np.indices((pieces, n, n)))
        other = src != dst
        piece, src, dst = piece[other], src[other], dst[other]
        steps, at = [dst], dst
        while (at != src).any():
            at = np.where(at == src, src, self.parent[piece, src, at])
            steps.append(at)
        table = np.stack(steps[::-1], axis=1)  # the source comes several times on short ways
        kept = np.append(table[:, 1:] != table[:, :-1], np.ones((len(table), 1), bool), axis=1)
        first = np.append(0, np.cumsum(kept.sum(axis=1)))
        return src, dst, first, table[kept]


def grown(network: Network, demands: Ints, pieces: int) -> Trees:
    """Grow trees for all sources.

    Parameters
    ----------
    network, demands
        All ranks can reach all others.
    pieces
        Trees of each source.
    """
    n = network.nranks
    capacity = network.capacity.astype(np.float64)
    load = np.zeros(len(network.src), np.int64)
    parent = np.full((pieces, n, network.nvertices), -1, np.int32)
    uses: dict[tuple[int, int], tuple[Ints, Ints]] = {}
    best = Trees(parent.copy(), load)
    least = np.inf
    for _ in range(SWEEPS):
        for piece in range(pieces):
            for source in range(n):
                if (piece, source) in uses:
                    arcs, amounts = uses[piece, source]
                    load[arcs] -= amounts
                before, order = _tree(network, _costs(load / capacity, capacity), source)
                arcs, amounts = _used(network, before, order, demands[source])
                load[arcs] += amounts
                uses[piece, source] = arcs, amounts
                parent[piece, source] = before
        worst = float((load / capacity).max())
        if worst < least:
            least, best = worst, Trees(parent.copy(), load.copy())
    return best


def _costs(busy: Floats, capacity: Floats) -> Floats:
    most = float(busy.max()) or 1.0
    costs: Floats = np.exp(STEEP * (busy / most - 1)) / capacity
    return costs


def lengths_by_load(network: Network, load: Ints) -> list[int]:
    """Make whole lengths of loads."""
    capacity = network.capacity.astype(np.float64)
    costs = _costs(load / capacity, capacity)
    whole: list[int] = np.rint(costs / costs.max() * GRID).astype(np.int64).tolist()
    return whole


def _tree(network: Network, costs: Floats, source: int) -> tuple[npt.NDArray[np.int32], Ints]:
    """Find shortest ways: the vertex before each, and all vertices reached, the farthest first."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    count = network.nvertices
    starts = np.searchsorted(network.src, np.arange(count + 1))
    graph: Any = csr_array((costs, network.dst, starts), shape=(count, count))
    far, before = dijkstra(graph, indices=source, return_predecessors=True)
    order = np.argsort(-far, kind="stable")
    return before, order[np.isfinite(far[order])]


def _used(network: Network, before: npt.NDArray[np.int32], order: Ints, demands: Ints) -> tuple[Ints, Ints]:
    """Add up what a tree carries on each of its arcs."""
    carried = [0] * network.nvertices
    carried[: network.nranks] = demands.tolist()
    parents = before.tolist()
    arcs, amounts = [], []
    for v in order.tolist():
        p = parents[v]
        if p >= 0 and carried[v]:
            carried[p] += carried[v]
            arcs.append(network.arc[p, v])
            amounts.append(carried[v])
    return np.array(arcs, np.int64), np.array(amounts, np.int64)
