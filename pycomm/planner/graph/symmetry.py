"""Which parts of a network are alike: automorphisms, and the orbits of vertices and arcs under them.

Two ranks are alike when some renaming of the vertices carries the one into the other and leaves the network
as it is. A linear programme over such a network has an optimal solution that treats alike parts alike (take
any optimum and average its images), so that one unknown for each orbit is enough. That holds for every
*group* of automorphisms; it does not hold for the classes of colour refinement, which may put together what
no automorphism does: in a regular graph with a bridge all vertices have one colour, and yet the ends of the
bridge are special. Colour refinement therefore only proposes here. Each renaming is checked arc by arc before
it is used; missing one costs time, never exactness.

References
----------
* B. D. McKay, A. Piperno: Practical graph isomorphism, II. Journal of Symbolic Computation 60, 2014
  (individualisation and refinement).
* M. Grohe, K. Kersting, M. Mladenov, E. Selman: Dimension reduction via colour refinement. ESA 2014 (when the
  classes of refinement are enough: they must be equitable on the programme's matrix, not on the network).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pycomm.planner.graph.network import Network

__all__ = ["Orbits", "is_automorphism", "orbits_of"]

_MAX_FAILURES = 6
"""Renamings sought in vain for one colour before the rest of it is left as it is."""
_MAX_CHOICES = 24
"""Vertices picked one by one in search of one renaming."""

_Ints = npt.NDArray[np.int64]
_Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Orbits:
    """Classes of alike vertices and arcs, with the renamings that prove them.

    Parameters
    ----------
    vertex, arc
        int64 arrays: the class of each vertex and of each arc, numbered by first member.
    generators
        Renamings as pairs of equally long arrays: these vertices go to those, all others stay.
    """

    vertex: _Ints
    arc: _Ints
    generators: tuple[tuple[_Ints, _Ints], ...]

    @property
    def nvertex(self) -> int:
        """How many classes of vertices there are."""
        return int(self.vertex.max(initial=-1)) + 1

    @property
    def narc(self) -> int:
        """How many classes of arcs there are."""
        return int(self.arc.max(initial=-1)) + 1

    def representatives(self, count: int) -> _Ints:
        """List the first member of each class of the vertices below ``count``."""
        return np.sort(np.unique(self.vertex[:count], return_index=True)[1])


def is_automorphism(network: Network, image: _Ints, label: _Ints | None = None) -> bool:
    """Whether a renaming of the vertices keeps ranks, labels and capacities."""
    count = network.nvertices
    if label is not None and not np.array_equal(label[image], label):
        return False
    if not np.array_equal(np.sort(image), np.arange(count)):
        return False
    if not np.array_equal(image < network.nranks, np.arange(count) < network.nranks):
        return False
    where = _images_of_arcs(network, image)
    return where is not None and bool(np.array_equal(network.capacity[where], network.capacity))


def _images_of_arcs(network: Network, image: _Ints) -> _Ints | None:
    """Find the arc that each arc goes to; ``None`` when one of them does not exist."""
    count = network.nvertices
    key = network.src.astype(np.int64) * count + network.dst  # sorted: arcs are
    wanted = image[network.src] * count + image[network.dst]
    where = np.searchsorted(key, wanted)
    where[where == len(key)] = 0
    return where if np.array_equal(key[where], wanted) else None


def orbits_of(network: Network, label: _Ints | None = None) -> Orbits:
    """Find automorphisms, and the classes of what they make alike.

    Parameters
    ----------
    network
        The network.
    label
        One number for each vertex, which automorphisms have to keep: a root has another than the rest.
    """
    finder = _Finder(network, np.zeros(network.nvertices, np.int64) if label is None else label)
    found = list(finder.generators())
    vertex = _components(network.nvertices, found)
    arc_maps = []
    everyone = np.arange(network.nvertices)
    for old, new in found:
        image = everyone.copy()
        image[old] = new
        where = _images_of_arcs(network, image)
        moved = np.flatnonzero(where != np.arange(len(where))) if where is not None else everyone[:0]
        if where is not None:
            arc_maps.append((moved, where[moved]))
    return Orbits(vertex, _components(len(network.src), arc_maps), tuple(found))


def _components(count: int, maps: list[tuple[_Ints, _Ints]]) -> _Ints:
    """Join what the maps carry into one another; classes are numbered by their first members."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not count:
        return np.zeros(0, np.int64)
    old = np.concatenate([m[0] for m in maps] or [np.zeros(0, np.int64)])
    new = np.concatenate([m[1] for m in maps] or [np.zeros(0, np.int64)])
    joined = coo_array((np.ones(len(old), np.int8), (old, new)), shape=(count, count))
    label = connected_components(joined, directed=False)[1]
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return rank[inverse]


def _mix(x: _Hashes) -> _Hashes:
    """Scramble 64 bits (splitmix64's finisher: Steele, Lea, Flood, OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class _Finder:
    """Search for automorphisms of one network."""

    def __init__(self, network: Network, label: _Ints) -> None:
        self.network, self.label = network, label
        self.src, self.dst = network.src.astype(np.int64), network.dst.astype(np.int64)
        self.weight = _mix(network.capacity.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15))
        count = network.nvertices
        by_dst = np.argsort(self.dst, kind="stable")
        # Each arc tells either end of the other: (who hears, of whom, at which weight), grouped by who hears.
        ear = np.concatenate([self.dst[by_dst], self.src])
        order = np.argsort(ear, kind="stable")
        self.mouth = np.concatenate([self.src[by_dst], self.dst])[order]
        self.told = np.concatenate([self.weight[by_dst], self.weight * np.uint64(0xD1342543DE82EF95)])[order]
        self.hears, self.starts = np.unique(ear[order], return_index=True)
        kind = np.where(np.arange(count) < network.nranks, 1, 2).astype(np.uint64)
        self.base = self.refine(_mix(kind + np.uint64(7) * _mix(label.astype(np.uint64) + np.uint64(11))))

    def step(self, colour: _Hashes) -> _Hashes:
        """Colour each vertex anew by its own colour and those of its neighbours."""
        heard = np.zeros_like(colour)
        if len(self.mouth):
            heard[self.hears] = np.add.reduceat(_mix(colour[self.mouth] + self.told), self.starts)
        return _mix(_mix(colour) * np.uint64(3) + heard)

    def refine(self, *colours: _Hashes) -> _Hashes:
        """Refine colourings side by side, as rows, until no row tells more vertices apart."""
        table = np.stack(colours)
        known = [len(np.unique(row)) for row in table]
        while True:
            table = np.stack([self.step(row) for row in table])
            now = [len(np.unique(row)) for row in table]
            if now == known:
                return table if len(table) > 1 else table[0]
            known = now

    def generators(self) -> Iterator[tuple[_Ints, _Ints]]:
        """Yield renamings, as what moves and where to, until each colour is one orbit or has cost enough."""
        leader = np.arange(self.network.nvertices)

        def find(v: int) -> int:
            while leader[v] != v:
                leader[v] = leader[leader[v]]
                v = int(leader[v])
            return v

        order = np.lexsort((np.arange(len(self.base)), self.base))
        cells = np.split(order, np.flatnonzero(np.diff(self.base[order])) + 1)
        for cell in sorted(cells, key=lambda c: int(c[0])):
            heads: list[int] = []
            failures = 0
            for v in cell.tolist():
                if find(v) in {find(head) for head in heads}:
                    continue
                image = None
                for head in heads:
                    image = self.search(head, v) if failures < _MAX_FAILURES else None
                    if image is not None:
                        break
                    failures += 1
                if image is None:
                    heads.append(v)
                    continue
                moved = np.flatnonzero(image != np.arange(len(image)))
                for a in moved.tolist():
                    leader[find(a)] = find(int(image[a]))
                yield moved, image[moved]

    def search(self, u: int, v: int) -> _Ints | None:
        """Look for an automorphism that carries ``u`` to ``v`` and leaves as much as possible where it is."""
        left, right = self.base.copy(), self.base.copy()
        left[u] += np.uint64(1)
        right[v] += np.uint64(1)
        left, right = self.refine(left, right)
        if not np.array_equal(np.sort(left), np.sort(right)):
            return None
        stay = np.flatnonzero(left == right)
        marks = _mix(stay.astype(np.uint64) + np.uint64(0xA5A5A5A5))
        stayed = left.copy(), right.copy()
        for colours in stayed:
            colours[stay] += marks
        image = self.complete(*self.refine(*stayed))
        return image if image is not None else self.complete(left, right)

    def complete(self, left: _Hashes, right: _Hashes) -> _Ints | None:
        """Pair the vertices of each colour by number; where that fails, pick one pair and refine."""
        for _ in range(_MAX_CHOICES):
            by_left, by_right = np.argsort(left, kind="stable"), np.argsort(right, kind="stable")
            if not np.array_equal(left[by_left], right[by_right]):
                return None
            image = np.empty(len(left), np.int64)
            image[by_left] = by_right
            if is_automorphism(self.network, image, self.label):
                return image
            values, counts = np.unique(left, return_counts=True)
            open_cells = counts[np.searchsorted(values, left)] > 1
            if not open_cells.any():
                return None
            x = int(np.argmax(open_cells))
            y = x if left[x] == right[x] else int(np.argmax(right == left[x]))
            left, right = left.copy(), right.copy()
            left[x] += np.uint64(1)
            right[y] += np.uint64(1)
            left, right = self.refine(left, right)
        return None
