"""Forests made of a few trees and their images: 10,240 ranks have 10^8 tree edges, and none is stored.

A *shift* is a renaming of the vertices that leads every arc to an arc; it is used 0, 1, ..., ``count - 1``
times. Shifts together are a *symmetry*: its images are numbered in mixed radix, the first shift fastest, and
image a of a vertex is what the shifts make of it, each as often as its digit of a says. A forest has all
images of its base trees.

The load of an arc is a sum over all images. It is found by doubling: the sum over the first 2m uses of a
shift is the sum over the first m uses plus that sum moved on by m uses. That takes ``log2(count)`` passes
over the arcs for each shift, is exact, and holds for any renaming, whether or not the shifts commute or close
to a group.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

from pycomm.planner.graph.forest import Edge, Forest, Tree
from pycomm.planner.graph.network import Network

__all__ = ["BaseTree", "Shift", "SymmetricForest", "Symmetry", "arc_numbers", "symmetric_forest"]

Ints = npt.NDArray[np.int64]


def arc_numbers(network: Network, src: Ints, dst: Ints) -> Ints:
    """Numbers of the arcs from ``src`` to ``dst``, elementwise; -1 where there is none."""
    key = network.src.astype(np.int64) * network.nvertices + network.dst
    wanted = src * network.nvertices + dst
    if not len(key):
        return np.full(wanted.shape, -1, np.int64)
    place = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
    return np.where((key[place] == wanted) & (src >= 0) & (dst >= 0), place, -1)


@dataclass(frozen=True, eq=False)
class Shift:
    """A renaming of vertices, to be used up to ``count - 1`` times in a row.

    Parameters
    ----------
    image
        int64 array: the new name of each vertex; a permutation that leads ranks to ranks and arcs to arcs.
    count
        How many images it makes of each thing, the thing itself included.
    """

    image: Ints
    count: int

    @cached_property
    def _doubled(self) -> list[Ints]:
        """The renaming used 1, 2, 4, 8, ... times, as far as needed; the last entry keeps -1 at -1."""
        return [np.append(self.image, -1)]

    def power(self, times: Ints, vertices: Ints) -> Ints:
        """Vertices after so many uses, elementwise; negative vertices stand for nothing and stay."""
        times, vertices = np.broadcast_arrays(times, vertices)
        tables = self._doubled
        for bit in range(int(times.max(initial=0)).bit_length()):
            if bit == len(tables):
                tables.append(tables[-1][tables[-1]])
            vertices = np.where(times >> bit & 1, tables[bit][vertices], vertices)
        return vertices


@dataclass(frozen=True, eq=False)
class Symmetry:
    """Shifts of a network, the first used first."""

    network: Network
    shifts: tuple[Shift, ...]

    @property
    def order(self) -> int:
        """How many images each thing has."""
        return math.prod(shift.count for shift in self.shifts)

    def image(self, numbers: Ints, vertices: Ints) -> Ints:
        """Images of vertices under the members of these numbers; the two arrays are broadcast together."""
        numbers, vertices = np.broadcast_arrays(numbers, vertices)
        for shift in self.shifts:
            vertices = shift.power(numbers % shift.count, vertices)
            numbers = numbers // shift.count
        return vertices

    @cached_property
    def _arc_images(self) -> tuple[Ints, ...]:
        network = self.network
        return tuple(arc_numbers(network, s.image[network.src], s.image[network.dst]) for s in self.shifts)

    def total(self, loads: Ints) -> Ints:
        """Sum of a load of the arcs and of all its images."""
        for shift, image in zip(self.shifts, self._arc_images, strict=True):
            loads = _sum_of_powers(loads, image, shift.count)
        return loads

    def problems(self) -> Iterator[str]:
        """Say which shift is no permutation of the ranks and of the other vertices, or loses an arc."""
        network = self.network
        for number, (shift, arcs) in enumerate(zip(self.shifts, self._arc_images, strict=True)):
            if not np.array_equal(np.sort(shift.image), np.arange(network.nvertices)):
                yield f"shift {number} is not a permutation"
            elif shift.image[: network.nranks].max(initial=-1) >= network.nranks:
                yield f"shift {number} leads a rank to a vertex that is none"
            elif arcs.min(initial=0) < 0:
                yield f"shift {number} leads an arc to where there is none"


def _sum_of_powers(loads: Ints, image: Ints, count: int) -> Ints:
    """Add up loads moved on 0, 1, ..., ``count - 1`` times, by doubling from the leading bit of count."""
    done, total, step = 1, loads, image
    for bit in bin(count)[3:]:
        moved = np.empty_like(total)
        moved[step] = total
        total, step, done = total + moved, step[step], 2 * done
        if bit == "1":
            moved = np.empty_like(total)
            moved[image] = total
            total, step, done = loads + moved, image[step], done + 1
    return total


class BaseTree(NamedTuple):
    """A tree whose images are in the forest, as columns.

    Parameters
    ----------
    root, weight
        As of a :class:`~pycomm.planner.graph.forest.Tree`.
    src, dst
        int64 arrays of shape ``(nranks - 1,)``: the edges, in an order in which the tree grows.
    path
        int64 array of shape ``(nranks - 1, longest)``: the vertices of each edge's path, then -1.
    """

    root: int
    weight: int
    src: Ints
    dst: Ints
    path: Ints

    def height(self) -> int:
        """Edges on the longest way from the root."""
        depth = np.zeros(len(self.src) + 1, np.int64).tolist()
        for src, dst in zip(self.src.tolist(), self.dst.tolist(), strict=True):
            depth[dst] = depth[src] + 1
        return int(max(depth))

    def as_tree(self, root: int | None = None, path: Ints | None = None) -> Tree:
        """Make a record for each edge; ``root`` and ``path`` are those of an image."""
        rows = (self.path if path is None else path).tolist()
        lengths = (self.path >= 0).sum(axis=1).tolist()
        return Tree(
            self.root if root is None else root,
            self.weight,
            tuple(
                Edge(row[0], row[length - 1], tuple(row[:length]))
                for row, length in zip(rows, lengths, strict=True)
            ),
        )

    def loads(self, network: Network) -> Ints:
        """Units of data that cross each arc."""
        if network.multicast:
            return Forest(network, (self.as_tree(),)).loads()
        arcs = arc_numbers(network, self.path[:, :-1], self.path[:, 1:])
        inside = (self.path[:, :-1] >= 0) & (self.path[:, 1:] >= 0)
        return np.bincount(arcs[inside], minlength=len(network.capacity)) * self.weight


@dataclass(frozen=True)
class _Images(Sequence[Tree]):
    """The trees of a forest, each made when it is asked for: images of all base trees, number by number."""

    symmetry: Symmetry
    base: tuple[BaseTree, ...]

    def __len__(self) -> int:
        return self.symmetry.order * len(self.base)

    @overload
    def __getitem__(self, index: int) -> Tree: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Tree, ...]: ...
    def __getitem__(self, index: int | slice) -> Tree | tuple[Tree, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"the forest has {len(self)} trees; there is no tree {index}")
        number, which = divmod(index, len(self.base))
        tree, at = self.base[which], np.array(number)
        root = int(self.symmetry.image(at, np.array(tree.root)))
        return tree.as_tree(root, self.symmetry.image(at, tree.path))

    def __iter__(self) -> Iterator[Tree]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True)
class SymmetricForest(Forest):
    """A forest whose trees are made on demand; see :func:`symmetric_forest`.

    Parameters
    ----------
    symmetry, base
        What the trees are made of: tree ``number * len(base) + i`` is image ``number`` of base tree i.
    """

    symmetry: Symmetry
    base: tuple[BaseTree, ...]

    def weight(self) -> int:
        """Units of data of all trees together."""
        return sum(tree.weight for tree in self.base) * self.symmetry.order

    def roots(self) -> Ints:
        """Units of data that start at each rank, shape ``(nranks,)``."""
        numbers = np.arange(self.symmetry.order)
        weights = np.zeros(self.network.nranks, np.int64)
        for tree in self.base:
            images = self.symmetry.image(numbers, np.array(tree.root))
            weights += np.bincount(images, minlength=self.network.nranks) * tree.weight
        return weights

    def height(self) -> int:
        """Height of the highest tree."""
        return max((tree.height() for tree in self.base), default=0)

    def loads(self) -> Ints:
        """Units of data that cross each arc, shape ``(narcs,)``; what replicates hears a tree once."""
        return self._loads

    @cached_property
    def _loads(self) -> Ints:
        loads = np.zeros(len(self.network.capacity), np.int64)
        for tree in self.base:
            loads += tree.loads(self.network)
        return self.symmetry.total(loads)

    def problems(self) -> Iterator[str]:
        """Say what is wrong with the base trees and with the symmetry; then the images are right as well."""
        yield from Forest(self.network, tuple(tree.as_tree() for tree in self.base)).problems()
        yield from self.symmetry.problems()


def symmetric_forest(symmetry: Symmetry, base: Sequence[BaseTree]) -> SymmetricForest:
    """Make the forest of all images of some trees.

    Parameters
    ----------
    symmetry
        What makes the images.
    base
        The trees.
    """
    trees = tuple(base)
    return SymmetricForest(symmetry.network, _Images(symmetry, trees), symmetry, trees)
