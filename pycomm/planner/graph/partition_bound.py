"""A bound on allreduce that needs no linear programme: what all parts of a network have to hear together.

Divide the ranks into B parts: single ranks, or hosts. Whatever the roots are, each unit of data is broadcast
along a tree that enters every part but one, and before that reduced along a tree that leaves every part but
one. What lies between the parts passes on as much as it receives; so reductions enter parts as often as they
leave them, and the links into all parts together carry ``2 (B - 1)`` times the data:

    algbw <= capacity into all parts / (2 (B - 1))

Slow links count only by what they lack of the sum, as it should be where roots are free: the bound is often
equal to the optimum, and always near it where hosts are alike but for some faults.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pycomm.planner.graph.bounds import Cut, describe_links
from pycomm.planner.graph.network import Network
from pycomm.planner.graph.structure import levels, units
from pycomm.planner.graph.symmetric import Ints

__all__ = ["PartitionBound", "partition_bound"]


@dataclass(frozen=True, eq=False)
class PartitionBound:
    """What nothing can beat; the optimum may be less.

    Parameters
    ----------
    network
        What it is the bound of.
    part
        int64 array: the part of each vertex, -1 for what lies between.
    """

    network: Network
    part: Ints

    def _entering(self, part: Ints) -> Ints:
        ahead, behind = part[self.network.dst], part[self.network.src]
        return np.flatnonzero((ahead >= 0) & (ahead != behind))

    @property
    def algbw(self) -> Fraction:
        """Greatest rate, bytes of the result per second."""
        parts = len(np.unique(self.part[: self.network.nranks]))
        into = int(self.network.capacity[self._entering(self.part)].sum())
        return Fraction(into * self.network.unit, 2 * (parts - 1))

    @property
    def seconds_per_byte(self) -> Fraction:
        """Least time over the bytes of the result."""
        return 1 / self.algbw

    @property
    def cut(self) -> Cut:
        """All but the part with the least capacity into it."""
        arcs = self._entering(self.part)
        labels, where = np.unique(self.part[self.network.dst[arcs]], return_inverse=True)
        into = np.bincount(where, self.network.capacity[arcs])
        outside = self.part != labels[into.argmin()]
        ranks = int(outside[: self.network.nranks].sum())
        return Cut(tuple(np.flatnonzero(outside).tolist()), ranks, int(into.min()))

    def limited_by(self) -> str:
        """Name the links into all parts."""
        names, arcs = self.network.names, self._entering(self.part)
        ends = zip(self.network.src[arcs].tolist(), self.network.dst[arcs].tolist(), strict=True)
        return describe_links((names[a], names[b]) for a, b in ends)


def partition_bound(network: Network) -> PartitionBound | None:
    """Choose the division into single ranks or units that bounds an allreduce best.

    Parameters
    ----------
    network
        Of at least two ranks.

    Returns
    -------
    PartitionBound or None
        ``None`` when every division leaves a switch that replicates or combines between its parts.
    """
    special = sorted(network.multicast | network.reduction)
    bounds = [PartitionBound(network, part) for part in _divisions(network) if (part[special] >= 0).all()]
    return min(bounds, key=lambda bound: bound.algbw, default=None)


def _divisions(network: Network) -> Iterator[Ints]:
    vertices = np.arange(network.nvertices)
    yield np.where(vertices < network.nranks, vertices, -1)
    for chain in units(network, levels(network)):
        for label in chain:
            used = np.zeros(network.nvertices + 1, bool)
            used[label[: network.nranks]] = True
            yield np.where(used[label], label, -1)
