"""Trees over units within units: pods, then hosts, then the ranks of a host; each unit is entered once.

    root ---------------> first host of each other pod           rail by rail, over the spines
      |                        |
      +--> other hosts of      +--> other hosts of that pod      on the rail's own switch
           its pod
    and each rank that its host heard through tells the others of its host

A unit of m of the N ranks must hear N - m shares, and here it hears each once; so the links into it carry the
least they can, and when they are the narrowest, no tree does better (the closed form is (N-m)/(links *
rate)). The loads are even because the trees of all ranks are images of one tree. Parallel switches (*twins*)
take turns: from tree to tree by shifts that move the twins on, and from edge to edge within a tree.

Where the links inside a unit are the narrow ones, the opposite order, inside first and then across by all
ranks at once, relieves them; a mixture of orders meets bounds between.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from pycomm.planner.graph.network import Network
from pycomm.planner.graph.structure import Structure
from pycomm.planner.graph.symmetric import BaseTree, Ints, Shift, Symmetry, arc_numbers

__all__ = ["Shape", "Turns", "UnitTrees", "binomial", "both_ways", "chain", "direct"]

Shape = Ints
"""Parent of each place 0 .. n-1 of a unit's row; place 0 is where the unit is entered and has parent -1."""


def direct(count: int) -> Shape:
    """Let the first tell all others: height 1."""
    return np.concatenate(([-1], np.zeros(count - 1, np.int64)))


def chain(count: int) -> Shape:
    """Let each tell the next: height ``count - 1``."""
    return np.arange(-1, count - 1)


def both_ways(count: int) -> Shape:
    """Tell a ring in both directions: height ``count // 2``."""
    place = np.arange(count)
    return np.where(place == 0, -1, np.where(place <= count // 2, place - 1, (place + 1) % count))


def binomial(count: int) -> Shape:
    """Let each tell those at distances that are powers of two: height ``log2(count)``."""
    place = np.arange(count)
    return np.where(place == 0, -1, place & (place - 1))


def growth_order(shape: Shape) -> Ints:
    """Places other than 0, each after its parent."""
    ancestor, depth = shape.copy(), (shape >= 0).astype(np.int64)
    while (ancestor >= 0).any():  # depth counts the steps to the ancestor
        depth = np.where(ancestor >= 0, depth + depth[ancestor], depth)
        ancestor = np.where(ancestor >= 0, ancestor[ancestor], -1)
    return np.argsort(depth, kind="stable")[1:]


class Turns(NamedTuple):
    """How twins take turns.

    Parameters
    ----------
    from_edge_to_edge
        For each kind of twins, by how many the paths move on from one edge of a tree to the next.
    along
        For each kind of twins, by how many the paths move on along each coordinate.
    """

    from_edge_to_edge: tuple[int, ...]
    along: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class UnitTrees:
    """Makes base trees and the symmetry that completes them.

    Parameters
    ----------
    structure
        Of a network with units.
    together
        Whether a root tells all hosts itself, rather than one of each pod; for switches that replicate.
    """

    structure: Structure
    together: bool = False

    @cached_property
    def axes(self) -> tuple[int, ...]:
        """Coordinates that have a shift, last one first: the order of digits of an image's number."""
        return tuple(
            a for a in reversed(range(len(self.structure.shifts))) if self.structure.shifts[a] is not None
        )

    @cached_property
    def unlike(self) -> tuple[int, ...]:
        """Coordinates without a shift."""
        return tuple(a for a, shift in enumerate(self.structure.shifts) if shift is None)

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """Levels of units, largest first."""
        return tuple(sorted(set(self.unit), reverse=True))

    @cached_property
    def unit(self) -> tuple[int, ...]:
        """For each coordinate, which level of units it counts."""
        units = self.structure.coordinates.unit
        return tuple(min(level, 1) for level in units) if self.together else units

    def row(self, level: int) -> int:
        """How many units of a level are in the next larger one."""
        coordinates = self.structure.coordinates
        return int(np.prod([n for n, u in zip(coordinates.sizes, self.unit, strict=True) if u == level]))

    def symmetry(self, turns: Turns, whole: Sequence[int] = ()) -> Symmetry:
        """Compose the shifts with the turns of the twins; all trees repeat on the kinds in ``whole``."""
        twins = self.structure.twins
        shifts = [twins[kind] for kind in whole]
        shifts += [self._turning(axis, tuple(steps[axis] for steps in turns.along)) for axis in self.axes]
        return Symmetry(self.structure.network, tuple(shifts))

    @cached_property
    def _turned(self) -> dict[tuple[int, tuple[int, ...]], Shift]:
        return {}

    def _turning(self, axis: int, steps: tuple[int, ...]) -> Shift:
        """Compose the shift along a coordinate with so many steps of each kind of twins."""
        shift = self.structure.shifts[axis]
        assert shift is not None  # noqa: S101 (axes are those with one)
        if not any(steps):
            return shift
        if (axis, steps) not in self._turned:
            image = shift.image
            for twin, step in zip(self.structure.twins, steps, strict=True):
                image = twin.power(np.array(step), image)
            self._turned[axis, steps] = Shift(image, shift.count)
        return self._turned[axis, steps]

    def usual_turns(self) -> Turns:
        """Let the smallest units spread over the lowest twins, the next larger ones over the next ones."""
        coordinates = self.structure.coordinates
        along = [[0] * len(coordinates.sizes) for _ in self.structure.twins]
        axes = list(self.axes)
        for kind, twin in enumerate(self.structure.twins):
            done = 1
            while axes and done < twin.count:
                axis = axes.pop(0)
                along[kind][axis] = done
                done *= coordinates.sizes[axis]
        return Turns((1,) * len(along), tuple(tuple(steps) for steps in along))

    def kinds_to_repeat(self, most: int) -> list[tuple[int, ...]]:
        """Choices of kinds of twins that all trees may be repeated on, fewest repetitions first."""
        twins = self.structure.twins
        kinds = range(len(twins))
        choices = [c for size in range(1, len(kinds) + 1) for c in itertools.combinations(kinds, size)]
        counted = [(math.prod(twins[kind].count for kind in choice), choice) for choice in choices]
        return [choice for repeats, choice in sorted(counted) if 1 < repeats <= most]

    # ------------------------------------------------------------------------------------------ trees

    def roots(self) -> Ints:
        """One rank of each class: those whose coordinates with a shift are all 0."""
        place = self.structure.coordinates.place
        return np.flatnonzero((place[:, list(self.axes)] == 0).all(axis=1))

    def edges(self, root: int, order: Sequence[int], shapes: dict[int, Shape]) -> tuple[Ints, Ints, Ints]:
        """Make the edges of one tree: level by level in some order, everyone reached tells its row.

        Returns
        -------
        tuple
            Who tells, who hears, and the place in its row of who hears.
        """
        coordinates = self.structure.coordinates
        reached = coordinates.place[[root]]
        src, dst, turn = [], [], []
        for level in order:
            axes = [a for a, unit in enumerate(self.unit) if unit == level]
            sizes = [coordinates.sizes[a] for a in axes]
            shape = shapes[level]
            rows = np.repeat(
                reached[None], len(shape), axis=0
            )  # (place in the row, who was reached, coordinate)
            offsets = np.stack(np.unravel_index(np.arange(len(shape)), sizes), axis=1)
            rows[:, :, axes] = (rows[:, :, axes] + offsets[:, None, :]) % np.array(sizes)
            ranks = coordinates.rank[tuple(np.moveaxis(rows, 2, 0))]
            grow = growth_order(shape)
            src.append(ranks[shape[grow]].ravel())
            dst.append(ranks[grow].ravel())
            turn.append(np.repeat(grow, ranks.shape[1]))
            reached = rows.reshape(-1, rows.shape[2])
        return np.concatenate(src), np.concatenate(dst), np.concatenate(turn)

    def relative(self, src: Ints, dst: Ints) -> tuple[Ints, Ints, Ints]:
        """Move pairs of ranks back until the first is a root: the image's number, that root, the other."""
        coordinates = self.structure.coordinates
        number = np.zeros(len(src), np.int64)
        radix = 1
        here, there = coordinates.place[src].copy(), coordinates.place[dst].copy()
        for axis in self.axes:
            size = coordinates.sizes[axis]
            number += here[:, axis] * radix
            radix *= size
            there[:, axis] = (there[:, axis] - here[:, axis]) % size
            here[:, axis] = 0
        return number, coordinates.rank[tuple(here.T)], coordinates.rank[tuple(there.T)]

    def paths(self, symmetry: Symmetry, turns: Turns, src: Ints, dst: Ints, turn: Ints) -> Ints | None:
        """Find a path for each pair of ranks; ``None`` when one cannot reach the other but through ranks."""
        number, first, last = self.relative(src, dst)
        key = first * self.structure.network.nranks + last
        pairs, where = np.unique(key, return_inverse=True)
        n = self.structure.network.nranks
        known = self.routes.between(pairs // n, pairs % n)
        if known is None:
            return None
        path = known[where]
        for twin, step in zip(self.structure.twins, turns.from_edge_to_edge, strict=True):
            if step:
                path = twin.power((turn * step)[:, None], path)
        for shift in symmetry.shifts[len(symmetry.shifts) - len(self.axes) :]:
            path = shift.power((number % shift.count)[:, None], path)
            number = number // shift.count
        return path

    @cached_property
    def routes(self) -> Routes:
        """Routes from the roots."""
        return Routes(self.structure.network, self.roots())

    def base(
        self, symmetry: Symmetry, turns: Turns, shapes: dict[int, Shape], extra: int = 0
    ) -> list[BaseTree] | None:
        """Make one tree for each root; ``None`` when some edge has no path.

        Parameters
        ----------
        symmetry, turns
            As made by this object.
        shapes
            For each level of units, how a row is told.
        extra
            In how many places of other hosts, other than where the host is entered, a share arrives from
            outside too: it comes from the same place in the root's host. Relieves the links inside hosts.
        """
        trees = []
        for root in self.roots().tolist():
            src, dst, turn = self.edges(root, self.levels, shapes)
            if extra:
                src, dst, turn = self._enter_more(root, src, dst, turn, extra)
            path = self.paths(symmetry, turns, src, dst, turn)
            if path is None:
                return None
            trees.append(BaseTree(root, 1, src, dst, path))
        return trees

    @property
    def most_extra(self) -> int:
        """How many places there are outside the root's host where no host is entered."""
        inside = self.row(0)
        return (self.structure.network.nranks // inside - 1) * (inside - 1)

    def _enter_more(self, root: int, src: Ints, dst: Ints, turn: Ints, extra: int) -> tuple[Ints, Ints, Ints]:
        """Let some ranks of other hosts hear from their likes in the root's host."""
        place, rank = self.structure.coordinates.place, self.structure.coordinates.rank
        outer = [a for a, unit in enumerate(self.structure.coordinates.unit) if unit > 0]
        like = place[dst].copy()
        like[:, outer] = place[root, outer]
        own = rank[tuple(like.T)]  # of each who hears, the rank of the root's host in the same place
        abroad = np.flatnonzero((own != dst) & (own != root))
        if extra < len(abroad):
            hosts = np.argsort(np.argsort(dst[abroad], kind="stable"))  # spread over hosts and places alike
            stride = len(abroad) // extra
            abroad = abroad[np.sort(np.argsort(hosts % stride * len(abroad) + hosts, kind="stable")[:extra])]
        src = src.copy()
        src[abroad] = own[abroad]
        at_home = own == dst
        order = np.concatenate((np.flatnonzero(at_home), np.flatnonzero(~at_home)))
        return src[order], dst[order], turn[order]

    def base_with_inner(
        self, symmetry: Symmetry, turns: Turns, shapes: dict[int, Shape], inner: Sequence[BaseTree]
    ) -> list[BaseTree] | None:
        """Make base trees that spread inside hosts as given trees do.

        Parameters
        ----------
        symmetry, turns, shapes
            As for :meth:`base`; the shape of level 0 does not matter.
        inner
            Trees of the host of rank 0's likes, on this network's vertices, of all roots of that host.
        """
        roots = set(self.roots().tolist())
        trees = []
        for tree in inner:
            if tree.root not in roots:
                continue
            src, dst, turn = self.edges(tree.root, [u for u in self.levels if u > 0], shapes)
            path = self.paths(symmetry, turns, src, dst, turn)
            if path is None:
                return None
            entered = np.concatenate(([tree.root], dst))
            number = self.relative(entered, entered)[0]
            columns = [self._moved(number, vertices) for vertices in (tree.src, tree.dst, tree.path)]
            width = max(path.shape[1], tree.path.shape[1])
            inside = columns[2].reshape(-1, tree.path.shape[1])
            trees.append(
                BaseTree(
                    tree.root,
                    tree.weight,
                    np.concatenate((src, columns[0].ravel())),
                    np.concatenate((dst, columns[1].ravel())),
                    np.concatenate((_widened(path, width), _widened(inside, width))),
                )
            )
        return trees

    def _moved(self, number: Ints, vertices: Ints) -> Ints:
        """Images of vertices under the plain shifts, one row for each number."""
        numbers = number.reshape(-1, *[1] * vertices.ndim)
        moved = np.broadcast_to(vertices, (len(number), *vertices.shape))
        for axis in self.axes:
            shift = self.structure.shifts[axis]
            assert shift is not None  # noqa: S101 (axes are those with one)
            moved = shift.power(numbers % shift.count, moved)
            numbers = numbers // shift.count
        return moved

    def host_of_roots(self) -> Ints:
        """Vertices of the smallest unit with all roots in it, ranks first; empty when they are in several."""
        chain = self.structure.chain
        if not chain:
            return np.arange(self.structure.network.nvertices)
        label = chain[0]
        own = np.unique(label[self.roots()])
        return np.flatnonzero(label == own[0]) if len(own) == 1 else np.zeros(0, np.int64)


def _widened(path: Ints, width: int) -> Ints:
    """Add columns of -1."""
    return np.pad(path, ((0, 0), (0, width - path.shape[1])), constant_values=-1)


class Routes:
    """Cheapest paths from some ranks, through no other rank: the least sum of 1/capacity and of links.

    Parameters
    ----------
    network
        The network.
    sources
        Ranks, sorted.
    """

    def __init__(self, network: Network, sources: Ints) -> None:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import dijkstra

        self.network, self.sources = network, sources
        n, count = network.nranks, network.nvertices
        price = float(network.capacity.max()) / network.capacity + 1e-3
        copy = np.full(count, -1, np.int64)
        copy[sources] = count + np.arange(len(sources))
        passing, leaving = network.src >= n, copy[network.src] >= 0
        src = np.concatenate((network.src[passing], copy[network.src[leaving]]))
        dst = np.concatenate((network.dst[passing], network.dst[leaving]))
        graph = coo_array(
            (np.concatenate((price[passing], price[leaving])), (src, dst)),
            (count + len(sources), count + len(sources)),
        ).tocsr()
        _, self._before = dijkstra(graph, indices=copy[sources], return_predecessors=True)

    def between(self, src: Ints, dst: Ints) -> Ints | None:
        """Paths from sources to ranks, one in each row, then -1; ``None`` when some pair has none."""
        row = np.searchsorted(self.sources, src)
        backwards = [dst]
        at = dst.copy()
        while True:
            at = np.where(at >= 0, self._before[row, np.maximum(at, 0)], -1)
            if not (at >= 0).any():
                break
            backwards.append(np.where(at >= self.network.nvertices, src, at))
            at = np.where(at >= self.network.nvertices, -1, at)
        columns = np.stack(backwards, axis=1)
        length = (columns >= 0).sum(axis=1)
        if (length < 2).any():
            return None
        place = length[:, None] - 1 - np.arange(columns.shape[1])
        paths = np.where(place >= 0, np.take_along_axis(columns, np.maximum(place, 0), axis=1), -1)
        begins_right = paths[:, 0] == src
        joined = arc_numbers(self.network, paths[:, :-1], paths[:, 1:]) >= 0
        return paths if begins_right.all() and (joined | (paths[:, 1:] < 0)).all() else None
