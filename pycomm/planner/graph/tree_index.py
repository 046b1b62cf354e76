"""Which trees of a forest cross a link, where most trees are images of a few and are not made.

A forest of images has a million edges on 1,024 ranks. Which of them cross a link is found backwards: an image
of an edge crosses it if the edge crosses what leads to it, and so the link is taken back by every image, and
looked up among the edges of the few base trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pycomm.planner.graph.forest import Forest, Tree
from pycomm.planner.graph.network import Network
from pycomm.planner.graph.symmetric import BaseTree, Shift, SymmetricForest, arc_numbers

__all__ = ["Shape", "TreeIndex"]

Ints = npt.NDArray[np.int64]

MOST_IN_TABLE = 1 << 23
"""Cells that a table of all powers of a shift may have."""


class _Powers:
    """All uses of a shift, and their inverses, as tables where these are not too large."""

    def __init__(self, shift: Shift) -> None:
        size, count = len(shift.image), shift.count
        inverse = np.empty(size, np.int64)
        inverse[shift.image] = np.arange(size)
        self.count = count
        self._shifts = shift, Shift(inverse, count)
        self._tables: tuple[Ints, Ints] | None = None
        if size * count <= MOST_IN_TABLE:
            tables = np.empty((2, count, size), np.int64)
            tables[:, 0] = np.arange(size)
            for power in range(1, count):
                tables[0, power] = shift.image[tables[0, power - 1]]
                tables[1, power] = inverse[tables[1, power - 1]]
            self._tables = tables[0], tables[1]

    def use(self, times: Ints | int, vertices: Ints, *, back: bool = False) -> Ints:
        """Vertices after so many uses, or before them; the two are broadcast together."""
        if self._tables is not None:
            found: Ints = self._tables[back][times, vertices]
            return found
        return self._shifts[back].power(np.asarray(times), vertices)


class Shape:
    """A base tree: who is below whom, in its own names; row e is edge e, -1 stands for nothing."""

    def __init__(self, tree: BaseTree, nranks: int) -> None:
        n = nranks
        self.tree = tree
        src, dst = tree.src.tolist(), tree.dst.tolist()
        self.src, self.dst = src, dst
        self.row = [-1] * n
        size, depth = [1] * n, [0] * n
        for e, rank in enumerate(dst):
            self.row[rank] = e
            depth[rank] = depth[src[e]] + 1
        for e in range(len(dst) - 1, -1, -1):
            size[src[e]] += size[dst[e]]
        first, free = [0] * n, [0] * n
        free[tree.root] = 1
        for e, rank in enumerate(dst):
            place = free[src[e]]
            first[rank] = place
            free[src[e]] = place + size[rank]
            free[rank] = place + 1
        self.depth = depth
        self.first = first
        """Place of each rank in an order in which what is below a rank follows it."""
        self.last = [a + s for a, s in zip(first, size, strict=True)]
        self.height = max(depth)

    @cached_property
    def tellers(self) -> Ints:
        """Who tells each rank; the root itself for the root."""
        tellers = np.full(len(self.row), self.tree.root)
        tellers[self.tree.dst] = self.tree.src
        return tellers

    @cached_property
    def children(self) -> dict[int, list[int]]:
        """Ranks that each rank tells."""
        found: dict[int, list[int]] = {}
        for a, b in zip(self.src, self.dst, strict=True):
            found.setdefault(a, []).append(b)
        return found


class TreeIndex:
    """Which trees of a forest cross an arc.

    Parameters
    ----------
    forest
        Images of a few trees, or any trees. Tree ``t`` is image ``t // len(base)`` of base tree
        ``t % len(base)``; trees that are not images are image 0 of themselves.
    origin
        The network whose links are named; the forest's own, or that network with all arcs turned round.
    against
        Whether the data flow against the edges of the trees, and the forest's own network is reversed.
    """

    def __init__(self, forest: Forest, origin: Network, *, against: bool) -> None:
        self.forest, self.origin, self.against = forest, origin, against
        network = forest.network
        ends = (origin.dst, origin.src) if against else (origin.src, origin.dst)
        self.own = arc_numbers(network, *(e.astype(np.int64) for e in ends))
        """Arc of the forest's own network for each link."""
        self.links = np.empty_like(self.own)
        """Link for each arc of the forest's own network."""
        self.links[self.own] = np.arange(len(self.own))
        self.multicast = network.multicast
        if isinstance(forest, SymmetricForest):
            self.base: Sequence[BaseTree] = forest.base
            self.powers = [_Powers(shift) for shift in forest.symmetry.shifts]
        else:
            self.base = [_as_base(tree) for tree in forest.trees]
            self.powers = []
        self.order = int(np.prod([p.count for p in self.powers], dtype=np.int64))
        self._shapes: dict[int, Shape] = {}
        self._start, self._owner = self._by_arc(copied=False)
        self._copied = self._by_arc(copied=True) if self.multicast else None

    def _by_arc(self, *, copied: bool) -> tuple[Ints, Ints]:
        """Rows of all base trees by the arcs that they cross, or by those before a switch that replicates.

        Returns
        -------
        tuple
            Where the rows of each arc begin, and the rows: the row's number times the number of base trees,
            plus that of its tree.
        """
        network, count = self.forest.network, len(self.base)
        arcs, owners = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        replicates = np.zeros(network.nvertices + 1, np.bool_)
        replicates[list(network.multicast)] = True  # the last stands for -1
        for b, tree in enumerate(self.base):
            inside = tree.path[:, 1:] >= 0
            if copied:
                ahead = replicates[tree.path[:, :0:-1]]
                inside &= np.logical_or.accumulate(ahead, axis=1)[:, ::-1]
            arcs.append(arc_numbers(network, tree.path[:, :-1][inside], tree.path[:, 1:][inside]))
            owners.append(np.repeat(np.arange(len(tree.src)) * count + b, inside.sum(axis=1)))
        found = np.concatenate(arcs)
        order = np.argsort(found, kind="stable")
        return np.searchsorted(found[order], np.arange(len(network.src) + 1)), np.concatenate(owners)[order]

    def __len__(self) -> int:
        return self.order * len(self.base)

    @cached_property
    def near(self) -> list[list[tuple[int, int]]]:
        """For each vertex, from which it can hear and over which link."""
        network = self.forest.network
        near: list[list[tuple[int, int]]] = [[] for _ in range(network.nvertices)]
        ends = zip(network.src.tolist(), network.dst.tolist(), self.links.tolist(), strict=True)
        for src, dst, link in ends:
            near[dst].append((src, link))
        return near

    @cached_property
    def ahead(self) -> list[list[tuple[int, int]]]:
        """For each vertex, which can hear from it and over which link."""
        ahead: list[list[tuple[int, int]]] = [[] for _ in self.near]
        for dst, sources in enumerate(self.near):
            for src, link in sources:
                ahead[src].append((dst, link))
        return ahead

    @cached_property
    def link(self) -> dict[tuple[int, int], int]:
        """Link of each pair of neighbours on a path."""
        network = self.forest.network
        ends = zip(network.src.tolist(), network.dst.tolist(), strict=True)
        return dict(zip(ends, self.links.tolist(), strict=True))

    @cached_property
    def roots(self) -> Ints:
        """Root of each tree."""
        roots = np.array([tree.root for tree in self.base], np.int64)
        if not self.powers:
            return roots
        numbers = np.arange(self.order)[:, None]
        for power, digit in zip(self.powers, self._digits(numbers), strict=True):
            roots = power.use(digit, roots)
        return roots.reshape(-1)

    def shape(self, tree: int) -> Shape:
        """Shape of the base of a tree."""
        b = tree % len(self.base)
        if b not in self._shapes:
            self._shapes[b] = Shape(self.base[b], self.forest.network.nranks)
        return self._shapes[b]

    def _digits(self, numbers: Ints | int) -> list[Ints | int]:
        digits: list[Ints | int] = []
        for power in self.powers:
            digits.append(numbers % power.count)
            numbers = numbers // power.count
        return digits

    def names(self, tree: int) -> tuple[Ints, Ints]:
        """Vertex of the network for each vertex of a tree's base, and the other way round."""
        fore = np.arange(self.forest.network.nvertices)
        for power, digit in zip(self.powers, self._digits(tree // len(self.base)), strict=True):
            fore = power.use(digit, fore)
        back = np.empty_like(fore)
        back[fore] = np.arange(len(fore))
        return fore, back

    def edges_on(self, links: Ints) -> tuple[Ints, Ints, Ints]:
        """Find all edges that cross some links.

        Returns
        -------
        tuple
            Link, tree and row of each; a row crosses a link once at most.
        """
        network, arcs = self.forest.network, self.own[links]
        if not self.powers:
            before = arcs[:, None]
            numbers = np.zeros(1, np.int64)
        else:
            numbers = np.arange(self.order)
            src, dst = (ends[arcs].astype(np.int64)[:, None] for ends in (network.src, network.dst))
            for power, digit in zip(self.powers[::-1], self._digits(numbers)[::-1], strict=True):
                src, dst = (power.use(digit, ends, back=True) for ends in (src, dst))
            before = arc_numbers(network, src, dst)
        begin, count = self._start[before], self._start[before + 1] - self._start[before]
        flat = count.reshape(-1)
        which = np.repeat(np.arange(flat.size), flat)
        entry = np.repeat(begin.reshape(-1) - (np.cumsum(flat) - flat), flat) + np.arange(which.size)
        owner = self._owner[entry]
        number = numbers[which % len(numbers)]
        tree = number * len(self.base) + owner % len(self.base)
        return links[which // len(numbers)], tree, owner // len(self.base)

    def copied(self, path: Sequence[int]) -> int:
        """How many links of a path lead up to the last switch on it that replicates."""
        if not self.multicast:
            return 0
        return max((i for i, vertex in enumerate(path) if vertex in self.multicast), default=0)

    def uses(self, tree: int, back: Ints, link: int) -> int:
        """How many edges of a tree cross a link to a switch that replicates.

        Parameters
        ----------
        tree, back
            Its number, and the vertices of its base for those of the network, as of :meth:`names`.
        link
            Which.
        """
        if self._copied is None:
            return 0
        network, arc = self.forest.network, int(self.own[link])
        before = self.own[self.link[int(back[network.src[arc]]), int(back[network.dst[arc]])]]
        start, owner = self._copied
        if len(self.base) == 1:
            return int(start[before + 1] - start[before])
        rows = owner[start[before] : start[before + 1]]
        return int((rows % len(self.base) == tree % len(self.base)).sum())


def _as_base(tree: Tree) -> BaseTree:
    longest = max((len(edge.path) for edge in tree.edges), default=1)
    path = np.full((len(tree.edges), longest), -1, np.int64)
    for row, edge in enumerate(tree.edges):
        path[row, : len(edge.path)] = edge.path
    src = np.array([edge.src for edge in tree.edges], np.int64)
    dst = np.array([edge.dst for edge in tree.edges], np.int64)
    return BaseTree(tree.root, tree.weight, src, dst, path)
