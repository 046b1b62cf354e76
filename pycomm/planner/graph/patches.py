r"""Forests of which a few trees have changed: the others stay as they are, and are not even made.

A forest of images has a million edges on 1,024 ranks. Which of them cross a link is found backwards: an image
of an edge crosses it if the edge crosses what leads to it, and so the link is taken back by every image, and
looked up among the edges of the few base trees.

A *patch* is a tree that has changed, in the names of its base tree: edges that were cut, and for each piece
that was cut off the new edge that holds it. A piece is named by its topmost rank.

::

    base tree       cut 0 -> 1, and 1 -> 3         hold 3 by 2, and 1 by 3

         0                 0                               0
        / \                 \                               \
       1   2           1     2                               2
      / \                                                  /
     3   4              \                                 3      pieces: 0 with 2, 1 with 4, 3
                    3    4                               /
                                                        1
                                                         \
                                                          4

Everything is in the names of the network that the forest was first planned for, through any number of faults;
only what others see of it is renumbered.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

from pycomm.planner.graph.columns import Columns, columns_of
from pycomm.planner.graph.faults import Damage
from pycomm.planner.graph.forest import Edge, Forest, Tree
from pycomm.planner.graph.network import Network
from pycomm.planner.graph.symmetric import BaseTree, Shift, SymmetricForest, arc_numbers

__all__ = ["Held", "Patch", "PatchedForest", "TreeIndex", "patched"]

Ints = npt.NDArray[np.int64]

MOST_IN_TABLE = 1 << 23
"""Cells that a table of all powers of a shift may have."""


class Held(NamedTuple):
    """The new edge of a piece: the rank that tells its topmost rank, in names of the base, and the path."""

    parent: int
    path: tuple[int, ...]


# ------------------------------------------------------------------------------------------------------ index


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


class _Shape:
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
        self._shapes: dict[int, _Shape] = {}
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

    def shape(self, tree: int) -> _Shape:
        """Shape of the base of a tree."""
        b = tree % len(self.base)
        if b not in self._shapes:
            self._shapes[b] = _Shape(self.base[b], self.forest.network.nranks)
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

    def uses(self, patch: Patch, link: int) -> int:
        """How many edges of a tree crossed a link to a switch that replicates before the tree changed."""
        if self._copied is None:
            return 0
        network, arc = self.forest.network, int(self.own[link])
        before = self.own[self.link[int(patch.back[network.src[arc]]), int(patch.back[network.dst[arc]])]]
        start, owner = self._copied
        if len(self.base) == 1:
            return int(start[before + 1] - start[before])
        rows = owner[start[before] : start[before + 1]]
        return int((rows % len(self.base) == patch.tree % len(self.base)).sum())


def _as_base(tree: Tree) -> BaseTree:
    longest = max((len(edge.path) for edge in tree.edges), default=1)
    path = np.full((len(tree.edges), longest), -1, np.int64)
    for row, edge in enumerate(tree.edges):
        path[row, : len(edge.path)] = edge.path
    src = np.array([edge.src for edge in tree.edges], np.int64)
    dst = np.array([edge.dst for edge in tree.edges], np.int64)
    return BaseTree(tree.root, tree.weight, src, dst, path)


# ---------------------------------------------------------------------------------------------------- patches


class Patch:
    """A tree that has changed.

    Parameters
    ----------
    index, tree, weight
        Which tree of which forest it was, and how much it carries now.
    """

    __slots__ = (
        "_owners",
        "_starts",
        "back",
        "cut",
        "fore",
        "held",
        "root",
        "shape",
        "tree",
        "uses",
        "weight",
    )

    def __init__(self, index: TreeIndex, tree: int, weight: int) -> None:
        self.tree, self.weight = tree, weight
        self.shape = index.shape(tree)
        self.fore, self.back = index.names(tree)
        self.root = self.shape.tree.root
        self.cut: dict[int, tuple[int, int]] = {}
        """Topmost rank of each piece that was cut off; its places in the base."""
        self.held: dict[int, Held] = {}
        self._starts: list[int] = []
        self._owners: list[int] = []
        self.uses: dict[int, int] = {}
        """How many edges cross a link up to a switch that replicates, for links where that has changed."""

    def copy(self, weight: int | None = None) -> Patch:
        """Make one that can change by itself."""
        twin = object.__new__(Patch)
        twin.tree, twin.shape, twin.fore, twin.back = self.tree, self.shape, self.fore, self.back
        twin.weight = self.weight if weight is None else weight
        twin.root, twin.cut, twin.held = self.root, dict(self.cut), dict(self.held)
        twin.uses = dict(self.uses)
        twin._starts, twin._owners = self._starts, self._owners
        return twin

    def piece(self, rank: int) -> int:
        """Topmost rank of the piece that a rank is in."""
        if not self._starts:
            self._find_pieces()
        return self._owners[bisect_right(self._starts, self.shape.first[rank]) - 1]

    def _find_pieces(self) -> None:
        """Say from which place on, in the order of the base, which piece it is."""
        starts, owners = [0], [self.shape.tree.root]
        inside = [(len(self.shape.row), self.shape.tree.root)]
        for first, last, top in sorted((first, last, top) for top, (first, last) in self.cut.items()):
            while inside[-1][0] <= first:
                end, _ = inside.pop()
                starts.append(end)
                owners.append(inside[-1][1])
            starts.append(first)
            owners.append(top)
            inside.append((last, top))
        while len(inside) > 1:
            starts.append(inside.pop()[0])
            owners.append(inside[-1][1])
        self._starts, self._owners = starts, owners

    def holds(self, rank: int) -> bool:
        """Whether a rank hears the root."""
        return self.above(self.piece(rank)) is not None

    def above(self, top: int) -> int | None:
        """Depth of the topmost rank of a piece less its depth in the base; ``None`` when it hears nothing."""
        depth, held, shape = 0, self.held, self.shape
        piece = top
        while piece != self.root:
            if piece not in held:
                return None
            rank = held[piece].parent
            piece = self.piece(rank)
            depth += shape.depth[rank] - shape.depth[piece] + 1
        return depth - shape.depth[top]

    def sever(self, rank: int) -> None:
        """Cut a rank off from whoever tells it."""
        shape = self.shape
        if rank != shape.tree.root and rank not in self.cut:
            self.cut[rank] = shape.first[rank], shape.last[rank]
            self._starts = []
        self.held.pop(rank, None)

    def undo(self, rank: int, held: Held | None, *, was_cut: bool) -> None:
        """Make a rank hear again as it did before it was cut off."""
        if held is not None:
            self.held[rank] = held
        if not was_cut:
            del self.cut[rank]
            self._starts = []

    def path_of(self, rank: int) -> tuple[int, ...] | None:
        """Path by which a rank hears, in names of the network; ``None`` where nobody tells it."""
        if rank in self.held:
            return self.held[rank].path
        row = self.shape.row[rank]
        if row < 0 or rank in self.cut:
            return None
        path = self.shape.tree.path[row]
        return tuple(self.fore[path[path >= 0]].tolist())

    def told_by(self, rank: int) -> int:
        """Who tells a rank; -1 where nobody does."""
        if rank in self.held:
            return self.held[rank].parent
        row = self.shape.row[rank]
        return -1 if row < 0 or rank in self.cut else self.shape.src[row]

    def told(self, rank: int) -> list[int]:
        """Ranks that a rank tells."""
        kept = [r for r in self.shape.children.get(rank, ()) if r not in self.cut]
        return kept + [top for top, held in self.held.items() if held.parent == rank]

    def key(self) -> tuple[object, ...]:
        """Give what two patches of one tree have in common when they are the same tree."""
        return self.tree, self.root, tuple(sorted(self.cut)), tuple(sorted(self.held.items()))

    def as_tree(self, vertex: list[int]) -> Tree:
        """Make the tree; ``vertex`` renumbers the network, and is -1 for vertices that are gone."""
        telling: dict[int, list[int]] = {}
        for rank in range(len(self.shape.row)):
            if rank != self.root and vertex[self.fore[rank]] >= 0:
                telling.setdefault(self.told_by(rank), []).append(rank)
        edges, reached = [], [self.root]
        for rank in reached:
            for other in telling.get(rank, ()):
                path = tuple(vertex[v] for v in self.path_of(other) or ())
                edges.append(Edge(path[0], path[-1], path))
                reached.append(other)
        return Tree(vertex[self.fore[self.root]], self.weight, tuple(edges))

    def height(self) -> int:
        """Edges on the longest way from the root."""
        deepest, level = 0, [self.root]
        while level:
            level = [other for rank in level for other in self.told(rank)]
            deepest += bool(level)
        return deepest


# ----------------------------------------------------------------------------------------------------- forest


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
        for begin in range(0, len(patches), max(1, MOST_IN_TABLE // n)):
            yield from _unheard(patches[begin : begin + max(1, MOST_IN_TABLE // n)], damage.alive[:n])
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
