"""Forests as flat arrays: a thousand trees of a thousand ranks are a million edges, and no record each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

from pycomm.planner.graph.forest import Edge, Forest, Tree
from pycomm.planner.graph.network import Network
from pycomm.planner.graph.symmetric import arc_numbers

__all__ = ["FlatForest", "FlatTrees", "flat_forest"]

Ints = npt.NDArray[np.int64]


class FlatTrees(NamedTuple):
    """The trees as the native core hands them over.

    Parameters
    ----------
    root, weight
        Of each tree, shape ``(ntrees,)``.
    first_edge
        Edges of tree t are ``first_edge[t] .. first_edge[t + 1]``, each from a rank reached before; shape
        ``(ntrees + 1,)``.
    first_vertex, path
        The path of edge e is ``path[first_vertex[e] : first_vertex[e + 1]]``, from its parent to its child.
    """

    root: npt.NDArray[np.int32]
    weight: Ints
    first_edge: Ints
    first_vertex: Ints
    path: npt.NDArray[np.int32]


class _Made(Sequence[Tree]):
    """The trees, each made when it is asked for."""

    def __init__(self, trees: FlatTrees) -> None:
        self._trees = trees

    def __len__(self) -> int:
        return len(self._trees.root)

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
        trees = self._trees
        start, stop = trees.first_edge[index : index + 2].tolist()
        bounds = trees.first_vertex[start : stop + 1].tolist()
        path = trees.path[bounds[0] : bounds[-1]].tolist()
        edges = []
        for a, b in itertools.pairwise(bounds):
            way = tuple(path[a - bounds[0] : b - bounds[0]])
            edges.append(Edge(way[0], way[-1], way))
        return Tree(int(trees.root[index]), int(trees.weight[index]), tuple(edges))

    def __iter__(self) -> Iterator[Tree]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True, eq=False)
class FlatForest(Forest):
    """A forest of flat arrays; every tree has an edge to each rank but its root. See :func:`flat_forest`."""

    flat: FlatTrees

    @cached_property
    def parents(self) -> Ints:
        """Rank that each edge leads from."""
        return self.flat.path[self.flat.first_vertex[:-1]].astype(np.int64)

    @cached_property
    def children(self) -> Ints:
        """Rank that each edge leads to."""
        return self.flat.path[self.flat.first_vertex[1:] - 1].astype(np.int64)

    @cached_property
    def above(self) -> Ints:
        """Edge that reaches the parent of each edge, -1 where that is the root."""
        n, count = self.network.nranks, len(self.flat.root)
        tree = np.repeat(np.arange(count), np.diff(self.flat.first_edge))
        by = np.full(count * n, -1, np.int64)
        by[tree * n + self.children] = np.arange(len(tree))
        above: Ints = by[tree * n + self.parents]
        return above

    @cached_property
    def depths(self) -> Ints:
        """How many edges lead from the root to the child of each edge."""
        depth = np.where(self.above < 0, 1, 0)
        level = 1
        while not depth.all():
            level += 1
            waiting = np.flatnonzero(depth == 0)
            found = waiting[depth[self.above[waiting]] == level - 1]
            if not len(found):
                break  # a circle; problems() names it
            depth[found] = level
        return depth

    def weight(self) -> int:
        """Units of data of all trees together."""
        return int(self.flat.weight.sum())

    def roots(self) -> Ints:
        """Units of data that start at each rank, shape ``(nranks,)``."""
        weights = np.zeros(self.network.nranks, np.int64)
        np.add.at(weights, self.flat.root, self.flat.weight)
        return weights

    def height(self) -> int:
        """Height of the highest tree."""
        return int(self.depths.max(initial=0))

    def loads(self) -> Ints:
        """Units of data on each arc, shape ``(narcs,)``; a switch that replicates hears a tree once."""
        return self._loads

    @cached_property
    def _loads(self) -> Ints:
        network, flat = self.network, self.flat
        edge = np.repeat(np.arange(len(flat.first_vertex) - 1), np.diff(flat.first_vertex))
        tree = np.repeat(np.arange(len(flat.root)), np.diff(flat.first_edge))
        steps = np.flatnonzero(edge[1:] == edge[:-1])
        path = flat.path.astype(np.int64)
        arc = arc_numbers(network, path[steps], path[steps + 1])
        owner = tree[edge[steps]]
        if network.multicast:
            copies = np.isin(path, sorted(network.multicast))
            last = np.zeros(len(flat.first_vertex) - 1, np.int64)
            np.maximum.at(last, edge[copies], np.flatnonzero(copies))
            before = steps < last[edge[steps]]
            once = np.unique(np.stack([owner[before], arc[before]]), axis=1)
            owner, arc = (
                np.concatenate([a, b]) for a, b in zip(once, (owner[~before], arc[~before]), strict=True)
            )
        loads = np.zeros(len(network.capacity), np.int64)
        np.add.at(loads, arc, flat.weight[owner])
        return loads


def flat_forest(network: Network, trees: FlatTrees) -> FlatForest:
    """Make a forest of flat arrays, which are not copied and must not change."""
    for array in trees:
        array.setflags(write=False)
    return FlatForest(network, _Made(trees), trees)
