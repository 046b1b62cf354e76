"""Shortest routes through a topology, with all that are equally short.

A route that relays through fewer devices is shorter: networks forward, accelerators only when told to. Among
those the fewest links count, then the least latency. Where several remain they form the *ECMP set* of a pair,
as switches with equal-cost multipath would use them; a flow that is divided evenly at each vertex puts a
*share* on each link.

Routes are found for one destination at a time, when asked for: 10,000 devices have 100 million pairs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import numpy as np
import numpy.typing as npt

from pycomm.errors import TopologyError, UsageError
from pycomm.topology.model import NodeKind, Topology

__all__ = ["Route", "Routes", "RoutesTo"]

_RELAY = 2**24
"""Weight of a device that relays, in links: more than any route has."""

_KEPT = 256
"""Destinations that are remembered."""


@dataclass(frozen=True)
class Route:
    """A way through the network.

    Parameters
    ----------
    vertices
        From source to destination, both included.
    links
        Numbers of the links between them.
    latency_s
        Sum of theirs.
    bytes_per_s
        Least of theirs.
    """

    vertices: tuple[int, ...]
    links: tuple[int, ...]
    latency_s: float
    bytes_per_s: int


@dataclass(frozen=True)
class RoutesTo:
    """Shortest routes from everywhere to one destination.

    Parameters
    ----------
    dst
        The destination.
    hops
        int64 array of shape ``(nvertices,)``: links on the shortest route from each vertex, -1 where none
        leads to the destination.
    relays
        int64 array: devices between the ends of those routes.
    latency_s
        float64 array: least latency of those routes, infinite where there is none.
    onward
        For each vertex, the numbers of the links that a shortest route may leave it by.
    """

    dst: int
    hops: npt.NDArray[np.int64]
    relays: npt.NDArray[np.int64]
    latency_s: npt.NDArray[np.float64]
    onward: tuple[tuple[int, ...], ...]


class Routes:
    """The routes of a topology.

    Parameters
    ----------
    topology
        Any; vertices are given by index.

    Examples
    --------
    >>> from pycomm.topology.generators import leaf_spine
    >>> t = leaf_spine(2, 2, hosts_per_leaf=1, rate="25 GB/s")
    >>> routes = Routes(t)
    >>> routes.count(0, 1)
    2
    >>> [t.nodes[v].name for v in routes.between(0, 1).vertices]
    ['device0', 'leaf0', 'spine0', 'leaf1', 'device1']
    """

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self._kept: OrderedDict[int, RoutesTo] = OrderedDict()
        table = topology.table
        pairs = table.dst.astype(np.int64) * len(topology.nodes) + table.src
        self._first = np.unique(pairs, return_index=True)[1]  # one link of each joined pair, for the search
        self._device = np.array([node.kind is NodeKind.DEVICE for node in topology.nodes], np.bool_)
        # whole femtoseconds: sums of equal latencies are equal in any order
        self._femtoseconds = np.rint(table.latency_s * 1e15).astype(np.int64)

    def to(self, dst: int) -> RoutesTo:
        """Find the shortest routes from everywhere to a destination.

        Raises
        ------
        UsageError
            There is no vertex of that index.
        """
        if not 0 <= dst < len(self.topology.nodes):
            raise UsageError(f"{self.topology.name}: there is no vertex {dst}")
        if dst in self._kept:
            self._kept.move_to_end(dst)
        else:
            self._kept[dst] = self._search(dst)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return self._kept[dst]

    def _search(self, dst: int) -> RoutesTo:
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import dijkstra

        table, count = self.topology.table, len(self.topology.nodes)
        # The search starts at the destination, against the links: a device that it goes on from relays.
        tails, heads = table.dst[self._first], table.src[self._first]
        weight = 1.0 + np.where(self._device[tails] & (tails != dst), float(_RELAY), 0.0)
        graph = csr_array((weight, (tails, heads)), shape=(count, count))
        distance = dijkstra(graph, indices=dst)
        near = np.isfinite(distance)
        steps = np.where(near, distance, -1.0).astype(np.int64)
        cost = 1 + np.where(self._device[table.dst] & (table.dst != dst), _RELAY, 0)
        tight = near[table.src] & near[table.dst] & (steps[table.src] == steps[table.dst] + cost)
        latency, onward = self._by_latency(np.flatnonzero(tight), steps)
        return RoutesTo(
            dst,
            np.where(near, steps % _RELAY, -1),
            np.where(near, steps // _RELAY, -1),
            np.where(near, latency / 1e15, np.inf),
            onward,
        )

    def _by_latency(
        self, tight: npt.NDArray[np.int64], steps: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], tuple[tuple[int, ...], ...]]:
        """Keep of the links on shortest routes those of least latency; nearest vertices come first."""
        table, count = self.topology.table, len(self.topology.nodes)
        order = tight[np.lexsort((tight, table.src[tight], steps[table.src[tight]]))]
        latency = [0] * count
        onward: list[tuple[int, ...]] = [()] * count
        vertex, best, chosen = -1, 0, list[int]()
        rows = zip(
            order.tolist(),
            table.src[order].tolist(),
            table.dst[order].tolist(),
            self._femtoseconds[order].tolist(),
            strict=True,
        )
        for link, src, head, own in rows:
            if src != vertex:
                if vertex >= 0:
                    latency[vertex], onward[vertex] = best, tuple(chosen)
                vertex, best, chosen = src, own + latency[head], [link]
                continue
            time = own + latency[head]
            if time < best:
                best, chosen = time, [link]
            elif time == best:
                chosen.append(link)
        if vertex >= 0:
            latency[vertex], onward[vertex] = best, tuple(chosen)
        return np.array(latency, np.int64), tuple(onward)

    def _towards(self, src: int, dst: int) -> RoutesTo:
        routes = self.to(dst)
        if not 0 <= src < len(self.topology.nodes):
            raise UsageError(f"{self.topology.name}: there is no vertex {src}")
        if routes.hops[src] < 0:
            nodes = self.topology.nodes
            raise TopologyError(
                f"{self.topology.name}: no route leads from {nodes[src].name!r} to {nodes[dst].name!r}; "
                "add the links that are missing"
            )
        return routes

    def _route(self, src: int, links: tuple[int, ...]) -> Route:
        taken = [self.topology.links[link] for link in links]
        return Route(
            (src, *(link.dst for link in taken)),
            links,
            sum(link.latency_s for link in taken),
            min((link.bytes_per_s for link in taken), default=0),
        )

    def between(self, src: int, dst: int) -> Route:
        """Take the first of the shortest routes: at each vertex, the link of the lowest number.

        Raises
        ------
        TopologyError
            No route leads there.
        """
        return next(self._each(src, dst))

    def all_between(self, src: int, dst: int, limit: int = 1024) -> list[Route]:
        """List the ECMP set of a pair, in the order of the numbers of links; at most ``limit`` of it.

        Raises
        ------
        TopologyError
            No route leads there.
        """
        return list(islice(self._each(src, dst), limit))

    def _each(self, src: int, dst: int) -> Iterator[Route]:
        onward = self._towards(src, dst).onward
        stack: list[tuple[int, tuple[int, ...]]] = [(src, ())]
        while stack:
            vertex, links = stack.pop()
            if vertex == dst:
                yield self._route(src, links)
                continue
            stack.extend((self.topology.links[link].dst, (*links, link)) for link in reversed(onward[vertex]))

    def count(self, src: int, dst: int) -> int:
        """Count the ECMP set of a pair without listing it; 0 when no route leads there."""
        routes = self.to(dst)
        if routes.hops[src] < 0:
            return 0
        ways = {dst: 1}
        for vertex in reversed(self._downhill(src, routes)):
            if vertex != dst:
                ways[vertex] = sum(ways[self.topology.links[link].dst] for link in routes.onward[vertex])
        return ways[src]

    def shares(self, src: int, dst: int) -> dict[int, Fraction]:
        """Part of a flow that each link carries when every vertex divides it evenly; by link number, sorted.

        Raises
        ------
        TopologyError
            No route leads there.
        """
        routes = self._towards(src, dst)
        arriving = {src: Fraction(1)}
        shares: dict[int, Fraction] = {}
        for vertex in self._downhill(src, routes):
            links = routes.onward[vertex]
            for link in links:
                shares[link] = arriving[vertex] / len(links)
                head = self.topology.links[link].dst
                arriving[head] = arriving.get(head, Fraction(0)) + shares[link]
        return dict(sorted(shares.items()))

    def _downhill(self, src: int, routes: RoutesTo) -> list[int]:
        """Vertices on shortest routes from a source, each before all that come after it."""
        seen = {src}
        stack = [src]
        while stack:
            for link in routes.onward[stack.pop()]:
                head = self.topology.links[link].dst
                if head not in seen:
                    seen.add(head)
                    stack.append(head)
        return sorted(seen, key=lambda v: (-int(routes.hops[v]), v))
