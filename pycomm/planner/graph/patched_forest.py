"""Forests of which a few trees have changed: the others stay as they are, and are not even made.

Everything is in the names of the network that the forest was first planned for, through any number of faults;
only what others see of it is renumbered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import overload

import numpy as np
import numpy.typing as npt

from pycomm.planner.graph.columns import Columns, columns_of
from pycomm.planner.graph.faults import Damage
from pycomm.planner.graph.forest import Edge, Forest, Tree
from pycomm.planner.graph.patches import Patch
from pycomm.planner.graph.tree_index import TreeIndex

__all__ = ["PatchedForest", "patched"]

Ints = npt.NDArray[np.int64]

MOST_AT_ONCE = 1 << 23
"""Cells of a table of changed trees and their ranks that are looked at at once."""


@dataclass(frozen=True, eq=False)
class _Trees(Sequence[Tree]):
    """Trees in their old order, those of one old tree side by side; each is made when it is asked for."""

    old: TreeIndex
    vertex: list[int]
    patches: dict[int, tuple[Patch, ...]]
    scale: int

    @cached_property
    def places(self) -> Ints:
        """Old tree of each tree."""
        counts = np.ones(len(self.old), np.int64)
        for tree, patches in self.patches.items():
            counts[tree] = len(patches)
        return np.repeat(np.arange(len(counts)), counts)

    def __len__(self) -> int:
        return len(self.places)

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
        number = int(self.places[index])
        if number in self.patches:
            first = int(np.searchsorted(self.places, number))
            return self.patches[number][index - first].as_tree(self.vertex)
        tree, vertex = self.old.forest.trees[number], self.vertex
        edges = tuple(
            Edge(vertex[e.src], vertex[e.dst], tuple(vertex[v] for v in e.path)) for e in tree.edges
        )
        return Tree(vertex[tree.root], tree.weight * self.scale, edges)

    def __iter__(self) -> Iterator[Tree]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True, eq=False)
class PatchedForest(Forest):
    """A forest of which a few trees have changed; see :func:`patched`.

    Parameters
    ----------
    index
        The forest as it was, and which of its trees cross an arc.
    damage
        What is left of its network, in the direction of the links.
    patches
        Trees that have changed, by the number of the old tree; no patch: it was dropped.
    scale
        By how much the weights of all trees that have not changed are multiplied.
    load
        int64, units on each arc of ``damage.origin``.
    """

    index: TreeIndex
    damage: Damage
    patches: dict[int, tuple[Patch, ...]]
    scale: int
    load: Ints

    def weight(self) -> int:
        """Units of data of all trees together."""
        return int(self.roots().sum())

    def roots(self) -> Ints:
        """Units of data that start at each rank, shape ``(nranks,)``."""
        return self._roots

    @cached_property
    def _roots(self) -> Ints:
        weights = self.index.forest.roots() * self.scale
        for tree, patches in self.patches.items():
            base = self.index.base[tree % len(self.index.base)]
            weights[self.index.roots[tree]] -= base.weight * self.scale
            for patch in patches:
                weights[patch.fore[patch.root]] += patch.weight
        return weights[self.damage.alive[: len(weights)]]

    def height(self) -> int:
        """Height of the highest tree."""
        return self._height

    @cached_property
    def _height(self) -> int:
        count = len(self.index.base)
        changed = np.bincount([tree % count for tree in self.patches], minlength=count)
        whole = (self.index.shape(b).height for b in range(count) if changed[b] < self.index.order)
        return max((*whole, *(p.height() for group in self.patches.values() for p in group)), default=0)

    def loads(self) -> Ints:
        """Units of data that cross each arc, shape ``(narcs,)``; what replicates hears a tree once."""
        left, load = self.damage.network, self.load[self.damage.kept]
        return load[np.lexsort((left.src, left.dst))] if self.index.against else load

    def changed(self) -> Iterator[Tree]:
        """Make the trees that are not as they were."""
        vertex = self.damage.vertex.tolist()
        for tree in sorted(self.patches):
            for patch in self.patches[tree]:
                yield patch.as_tree(vertex)

    def problems_of_changes(self) -> Iterator[str]:
        """Say what is wrong with trees that have changed, and which should have and did not.

        :meth:`problems` says the same of all trees, one by one. This looks at all trees that have changed at
        once, and trusts that the forest was right before.
        """
        index, damage, n = self.index, self.damage, self.index.origin.nranks
        patches = [patch for group in self.patches.values() for patch in group]
        for number, patch in enumerate(patches):
            if patch.weight < 1 or not damage.alive[patch.fore[patch.root]]:
                yield f"changed tree {number} of weight {patch.weight} starts at {patch.fore[patch.root]}"
            for rank, held in patch.held.items():
                ends = int(patch.fore[held.parent]), int(patch.fore[rank])
                links = [index.link.get(pair, -1) for pair in pairwise(held.path)]
                if (held.path[0], held.path[-1]) != ends or rank not in patch.cut | {patch.root: None}:
                    yield f"changed tree {number}: the path of {ends[0]} -> {ends[1]} has other ends"
                if min(links, default=-1) < 0 or not damage.rate[links].all():
                    yield f"changed tree {number}: a link of {ends[0]} -> {ends[1]} is not there"
        for begin in range(0, len(patches), max(1, MOST_AT_ONCE // n)):
            yield from _unheard(patches[begin : begin + max(1, MOST_AT_ONCE // n)], damage.alive[:n])
        _, trees, rows = index.edges_on(np.flatnonzero(damage.rate == 0))
        for tree, row in zip(trees.tolist(), rows.tolist(), strict=True):
            rank = index.shape(tree).dst[row]
            group = self.patches.get(tree)
            if group is None or any(rank not in patch.cut for patch in group):
                yield f"tree {tree} crosses a link that is not there any more"

    def columns(self) -> Columns:
        """Flatten it; trees that are as they were are not made one by one."""
        assert isinstance(self.trees, _Trees)  # noqa: S101 (patched() makes them)
        places = self.trees.places
        is_changed = np.zeros(len(self.index), np.bool_)
        is_changed[list(self.patches)] = True
        from_patch = is_changed[places]
        if from_patch.all():
            return columns_of(Forest(self.network, tuple(self.changed())))
        old = columns_of(self.index.forest)
        parts = [old._replace(weight=old.weight * self.scale)]
        number = places.copy()
        if from_patch.any():
            parts.append(columns_of(Forest(self.network, tuple(self.changed()))))
            number[from_patch] = len(self.index) + np.arange(from_patch.sum())
        return _chosen(parts, number, self.network.nranks - 1)


def _unheard(patches: list[Patch], alive: npt.NDArray[np.bool_]) -> Iterator[str]:
    """Say which trees leave out a rank: each rank looks up who tells those who tell it, and so on."""
    n = len(alive)
    teller = np.full((len(patches), n + 1), n)
    heard = np.ones((len(patches), n), np.bool_)
    for row, patch in zip(teller, patches, strict=True):
        row[:n] = patch.shape.tellers
        row[list(patch.cut)] = n
        row[list(patch.held)] = [held.parent for held in patch.held.values()]
        row[patch.root] = patch.root
    for _ in range(n.bit_length()):
        teller = np.take_along_axis(teller, teller, axis=1)
    for number, patch in enumerate(patches):
        heard[number, patch.back[:n]] = ~alive  # those who are gone need not hear
        heard[number] |= teller[number, :n] == patch.root
    for number in np.flatnonzero(~heard.all(axis=1)).tolist():
        yield f"changed tree {number} leaves out {int((~heard[number]).sum())} ranks"


def _chosen(parts: list[Columns], number: Ints, edges: int) -> Columns:
    """Choose trees by their number in all parts, one after the other; each tree has so many edges."""

    def rows(columns: Iterator[npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
        return np.concatenate([column.reshape(-1, edges) for column in columns])[number].reshape(-1)

    def heads(columns: Iterator[Ints]) -> Ints:
        return np.concatenate(list(columns))[number]

    first = np.arange(len(number) + 1) * edges
    before = (np.where(p.above < 0, -1, p.above - np.repeat(p.first[:-1], edges)) for p in parts)
    above = np.asarray(rows(before), np.int64)
    return Columns(
        heads(p.root for p in parts),
        heads(p.weight for p in parts),
        heads(p.height for p in parts),
        first,
        np.asarray(rows(p.parent for p in parts), np.int64),
        np.asarray(rows(p.child for p in parts), np.int64),
        np.asarray(rows(p.depth for p in parts), np.int64),
        np.where(above < 0, -1, above + np.repeat(first[:-1], edges)),
        np.asarray(rows(p.inner for p in parts), np.bool_),
        np.asarray(rows(p.eldest for p in parts), np.bool_),
    )


def patched(
    index: TreeIndex, damage: Damage, patches: dict[int, tuple[Patch, ...]], scale: int, load: Ints
) -> PatchedForest:
    """Make a forest of which a few trees have changed; parameters as of :class:`PatchedForest`."""
    network = damage.network.reversed() if index.against else damage.network
    trees = _Trees(index, damage.vertex.tolist(), patches, scale)
    return PatchedForest(network, trees, index, damage, patches, scale, load)
