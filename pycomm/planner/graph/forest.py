"""Weighted spanning trees on a network: what the packing makes, and all that others know of it.

A *tree* spans the ranks: it tells of each rank but the root from which rank it hears, and along which path of
the network. Its *weight* is the share of the data that it carries. A *forest* is the trees of all roots. The
load of an arc is the weight of all paths that cross it; the time of the forest is the largest load over
capacity, and no other property of it matters to throughput.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pycomm.planner.graph.network import Network

__all__ = ["Edge", "Forest", "Tree"]


class Edge(NamedTuple):
    """A hop of a tree between two ranks; ``path`` is its vertices from ``src`` to ``dst``, both included."""

    src: int
    dst: int
    path: tuple[int, ...]


class Tree(NamedTuple):
    """A spanning out-tree.

    Parameters
    ----------
    root
        Rank that the data starts from.
    weight
        Units of data that it carries, at least 1.
    edges
        ``nranks - 1`` edges, each leading from a rank that is the root or was reached by an edge before it.
    """

    root: int
    weight: int
    edges: tuple[Edge, ...]

    def depths(self) -> dict[int, int]:
        """How many edges lead from the root to each rank."""
        depth = {self.root: 0}
        for edge in self.edges:
            depth[edge.dst] = depth[edge.src] + 1
        return depth

    def height(self) -> int:
        """Edges on the longest way from the root."""
        return max(self.depths().values())


@dataclass(frozen=True)
class Forest:
    """Trees that together move the data of one half of a collective.

    Parameters
    ----------
    network
        What the paths run on. For a forest that reduces, it is the network reversed: data then flow against
        the edges, from the leaves to the roots.
    trees
        The trees, in a fixed order: equal requests give equal forests. A tuple, or a sequence that makes each
        tree when it is asked for.
    """

    network: Network
    trees: Sequence[Tree]

    def weight(self) -> int:
        """Units of data of all trees together."""
        return sum(tree.weight for tree in self.trees)

    def roots(self) -> npt.NDArray[np.int64]:
        """Units of data that start at each rank, shape ``(nranks,)``."""
        weights = np.zeros(self.network.nranks, np.int64)
        for tree in self.trees:
            weights[tree.root] += tree.weight
        return weights

    def height(self) -> int:
        """Height of the highest tree."""
        return max((tree.height() for tree in self.trees), default=0)

    def loads(self) -> npt.NDArray[np.int64]:
        """Units of data on each arc, shape ``(narcs,)``; a switch that replicates hears a tree once."""
        loads = np.zeros(len(self.network.capacity), np.int64)
        for tree in self.trees:
            for arc in self._arcs(tree):
                loads[arc] += tree.weight
        return loads

    def _arcs(self, tree: Tree) -> Iterator[int]:
        """Arcs that a tree crosses, each as often as its data do; once up to a switch that replicates."""
        network, told = self.network, set()
        for edge in tree.edges:
            copied = max((i for i, v in enumerate(edge.path) if v in network.multicast), default=0)
            for place, pair in enumerate(zip(edge.path, edge.path[1:], strict=False)):
                arc = network.arc[pair]
                if place < copied:
                    if arc in told:  # the switch has this tree's data already
                        continue
                    told.add(arc)
                yield arc

    def seconds_per_unit(self) -> Fraction:
        """Least time in which one unit of data per weight can pass, in seconds per byte of the unit.

        The busiest arc's load over its bandwidth. A forest of total weight W moves M bytes in
        ``M / W * seconds_per_unit()`` seconds at best.
        """
        loads = self.loads()
        if not len(loads):
            return Fraction(0)
        worst = max(
            (
                Fraction(int(load), int(capacity))
                for load, capacity in zip(loads, self.network.capacity, strict=True)
            ),
            default=Fraction(0),
        )
        return worst / self.network.unit

    def algbw(self) -> Fraction:
        """Bytes per second at which the whole data of all roots pass: total weight over time."""
        return self.weight() / self.seconds_per_unit()

    def problems(self) -> Iterator[str]:
        """Say what is wrong: trees that do not span, edges out of order, paths that leave the network."""
        network = self.network
        for number, tree in enumerate(self.trees):
            reached = {tree.root}
            if tree.weight < 1:
                yield f"tree {number} has weight {tree.weight}"
            for edge in tree.edges:
                if edge.src not in reached or edge.dst in reached:
                    yield f"tree {number}: the edge {edge.src} -> {edge.dst} does not grow it"
                reached.add(edge.dst)
                if (edge.path[0], edge.path[-1]) != (edge.src, edge.dst):
                    yield f"tree {number}: the path of {edge.src} -> {edge.dst} has other ends"
                for pair in zip(edge.path, edge.path[1:], strict=False):
                    if pair not in network.arc:
                        yield f"tree {number}: there is no arc {pair[0]} -> {pair[1]}"
            if reached != set(range(network.nranks)):
                yield f"tree {number} reaches {len(reached)} of {network.nranks} ranks"
