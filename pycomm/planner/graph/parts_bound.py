"""Bounds on an allreduce that are known at once: by its narrowest rank, and by parts that slow links join.

Other than :mod:`~pycomm.planner.graph.partition_bound`, which divides a network by its structure, this looks
at rates only; after a fault a single slow link may be all that there is to see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from pycomm.planner.graph.bounds import Cut, describe_links
from pycomm.planner.graph.network import Network

__all__ = ["PartsBound", "parts_bounds"]

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MOST_RATES = 4
"""Rates that are tried to tell fast links from slow ones."""


@dataclass(frozen=True)
class PartsBound:
    """A least time of an allreduce, proved by parts of the network that have no vertex in common.

    Whatever is rooted outside a part has to leave it to be summed up; whatever is summed up outside has to
    enter it. With x_i of all M bytes rooted in part i of p, that is the sum of M - x_i both ways, at least
    2(p-1) M over the links that enter a part, for what leaves one part enters another: what lies between
    them passes on what it receives. (The same count proves that spanning trees cannot be packed more
    densely: W. T. Tutte and C. St. J. A. Nash-Williams, 1961.) A single part must hear all M, and tell as
    much.

    Parameters
    ----------
    network
        What it is the bound of.
    parts
        Vertices of each part, at least one rank in each; two or more parts with all ranks in them, or one.
    capacity
        Of all links into the parts, or out of them, whichever is less.
    """

    network: Network
    parts: tuple[tuple[int, ...], ...]
    capacity: int

    @property
    def seconds_per_byte(self) -> Fraction:
        """Least time over the bytes of the result."""
        return Fraction(max(2 * len(self.parts) - 2, 1), self.capacity * self.network.unit)

    @property
    def algbw(self) -> Fraction:
        """Greatest rate, bytes of the result per second."""
        return 1 / self.seconds_per_byte

    @property
    def cut(self) -> Cut:
        """The first part."""
        part = self.parts[0]
        inside = np.zeros(self.network.nvertices, np.bool_)
        inside[list(part)] = True
        leaving = inside[self.network.src] & ~inside[self.network.dst]
        ranks = sum(v < self.network.nranks for v in part)
        return Cut(part, ranks, int(self.network.capacity[leaving].sum()))

    def limited_by(self) -> str:
        """Name the links into the parts."""
        label = np.full(self.network.nvertices, -1, np.int64)
        for number, part in enumerate(self.parts):
            label[list(part)] = number
        ends = label[self.network.src], label[self.network.dst]
        entering = np.flatnonzero((ends[0] != ends[1]) & (ends[1] >= 0))
        names = self.network.names
        return describe_links((names[self.network.src[a]], names[self.network.dst[a]]) for a in entering)


def parts_bounds(network: Network) -> Iterator[PartsBound]:
    """Prove least times of an allreduce: by its narrowest rank, and by parts that slow links join.

    Parameters
    ----------
    network
        Of at least two ranks.

    Yields
    ------
    PartsBound
        Each holds by itself; the greatest time is the best bound.
    """
    n = network.nranks
    ends = [np.bincount(end, network.capacity, network.nvertices)[:n] for end in (network.dst, network.src)]
    least = np.minimum(*ends)
    rank = int(np.argmin(least))
    yield PartsBound(network, ((rank,),), int(least[rank]))
    for rate in [*np.unique(network.capacity)[::-1][:MOST_RATES].tolist()]:
        label = _joined(network, network.capacity > rate)
        names, sizes = np.unique(label[:n], return_counts=True)
        if len(names) < 2 or (len(sizes) == 0):
            continue
        part = np.where(np.isin(label, names), label, -1)
        if any(part[v] < 0 for v in (*network.multicast, *network.reduction)):
            continue
        src, dst = part[network.src], part[network.dst]
        across = src != dst
        capacity = min(int(network.capacity[across & (end >= 0)].sum()) for end in (src, dst))
        parts = tuple(tuple(np.flatnonzero(part == name).tolist()) for name in names.tolist())
        if capacity:
            yield PartsBound(network, parts, capacity)


def _joined(network: Network, which: Mask) -> Ints:
    """Label vertices that some arcs join, in either direction, by the least of them."""
    label = np.arange(network.nvertices)
    src, dst = network.src[which], network.dst[which]
    while True:
        least = np.minimum(label[src], label[dst])
        new = label.copy()
        np.minimum.at(new, src, least)
        np.minimum.at(new, dst, least)
        new = new[new]
        if np.array_equal(new, label):
            return label
        label = new
