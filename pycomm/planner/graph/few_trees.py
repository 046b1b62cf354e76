r"""Few trees for many ranks: two trees for each rail, each host inside one and at the edge of the other.

An allreduce may take its roots where it likes, and a broadcast has one; neither needs trees at every rank.

    rail j, 7 hosts        1 3 5 7 are leaves here        2 4 6 and 1 are leaves here
                                 4                               5
                               /   \                           /   \
                              2     6                         3     7
                             / \   / \                       / \   / \
                            1   3 5   7                     2   4 6   1

A host with two children in one tree has none in the other, so that half of the data, sent twice, is all that
it sends: a broadcast needs each link into and out of a host for M/g bytes on each of g rails, an allreduce
for 2M/g bytes, within a factor (N-1)/N, or B/(B-1) for B hosts, of the least. The height is log2 of the
hosts.

References
----------
P. Sanders, J. Speck, J. L. Träff: Two-tree algorithms for full bandwidth broadcast, reduction and scan.
Parallel Computing 35, 2009.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pycomm.planner.graph.structure import Structure
from pycomm.planner.graph.symmetric import BaseTree, Ints, SymmetricForest, Symmetry, symmetric_forest
from pycomm.planner.graph.unit_trees import UnitTrees, growth_order

__all__ = ["broadcast_forests", "free_forests", "two_trees"]


MOST_STARS = 15
"""A root's data are told on by every other rank where there are so few."""
MAX_TREES = 64
"""Trees that repeating all of them for an even use of parallel switches may make."""


def two_trees(count: int) -> tuple[Ints, Ints]:
    """Parents of places ``0 .. count-1`` in two binary trees; no place has children in both.

    Examples
    --------
    >>> [parents.tolist() for parents in two_trees(3)]
    [[1, -1, 1], [2, 2, -1]]
    """
    place = np.arange(1, count + 1)
    low = place & -place
    below = place ^ low
    parent = np.where((below | (low << 1)) > count, below, below | (low << 1))
    first = parent - 1
    if count % 2:
        following = (np.arange(count) + 1) % count
        second = np.full(count, -1, np.int64)
        second[following] = np.where(first >= 0, following[first], -1)
    else:
        mirrored = count - 1 - first[::-1]
        second = np.where(first[::-1] >= 0, mirrored, -1)
    return first, second


def _chain(count: int) -> Ints:
    return np.arange(-1, count - 1)


def _stars(count: int) -> list[Ints]:
    """Let each place in turn tell all others."""
    return [np.where(np.arange(count) == middle, -1, middle) for middle in range(count)]


class _Grid:
    """Ranks by host and place in it, hosts of one unit side by side; flat: every rank is a host."""

    def __init__(self, structure: Structure, first: int, *, flat: bool) -> None:
        coordinates = structure.coordinates
        place = coordinates.place
        outer = [a for a, unit in enumerate(coordinates.unit) if unit > 0 or flat]
        inner = [a for a, unit in enumerate(coordinates.unit) if unit == 0 and not flat]
        offset = (place - place[first]) % np.array(coordinates.sizes, np.int64)
        order = np.lexsort(tuple(offset[:, a] for a in reversed([*outer, *inner])))
        inside = int(np.prod([coordinates.sizes[a] for a in inner], dtype=np.int64))
        self.rank = order.reshape(-1, inside)

    def __str__(self) -> str:
        return (
            f"each of {self.inside} ranks of {self.hosts} hosts" if self.inside > 1 else "all ranks together"
        )

    @property
    def hosts(self) -> int:
        return len(self.rank)

    @property
    def inside(self) -> int:
        return self.rank.shape[1]


def _forests(unit: UnitTrees, trees: list[tuple[int, Ints, Ints, Ints]]) -> Iterator[SymmetricForest]:
    """Find paths for trees given as root, who tells, who hears, and turns; then over all twins evenly."""
    turns = unit.usual_turns()
    symmetry = unit.symmetry(turns)
    base = []
    for root, src, dst, turn in trees:
        path = unit.paths(symmetry, turns, src, dst, turn)
        if path is None:
            return
        base.append(BaseTree(root, 1, src, dst, path))
    yield symmetric_forest(Symmetry(unit.structure.network, ()), base)
    for kinds in unit.kinds_to_repeat(MAX_TREES // len(base)):
        twins = tuple(unit.structure.twins[kind] for kind in kinds)
        yield symmetric_forest(Symmetry(unit.structure.network, twins), base)


def _fan(grid: _Grid, place: int, hosts: slice) -> tuple[Ints, Ints]:
    """Edges from one place of each host to all others of it."""
    rows = grid.rank[hosts]
    others = np.delete(rows, place, axis=1)
    return np.repeat(rows[:, place], others.shape[1]), others.ravel()


def _grids(structure: Structure, first: int) -> Iterator[_Grid]:
    """View the ranks by hosts, and flat."""
    if structure.chain:
        yield _Grid(structure, first, flat=False)
    yield _Grid(structure, first, flat=True)


def free_forests(unit: UnitTrees) -> Iterator[tuple[str, SymmetricForest]]:
    """Make forests for an allreduce with roots where they are best.

    Yields
    ------
    tuple
        What it is, and the forest.
    """
    for grid in _grids(unit.structure, 0):
        if grid.hosts < 3:
            continue
        trees = []
        for place in range(grid.inside):
            for number, parent in enumerate(two_trees(grid.hosts)):
                grow = growth_order(parent)
                fan_src, fan_dst = _fan(grid, place, slice(None))
                src = np.concatenate((grid.rank[parent[grow], place], fan_src))
                dst = np.concatenate((grid.rank[grow, place], fan_dst))
                turn = np.concatenate((grow + number, np.tile(np.arange(grid.inside - 1), grid.hosts)))
                trees.append((int(grid.rank[np.flatnonzero(parent < 0)[0], place]), src, dst, turn))
        for forest in _forests(unit, trees):
            yield f"two trees for {grid}", forest


def broadcast_forests(unit: UnitTrees, root: int) -> Iterator[tuple[str, SymmetricForest]]:
    """Make forests for a broadcast: from the root to each place of its host, and from there rail by rail.

    Yields
    ------
    tuple
        What it is, and the forest; high trees come last.
    """
    for grid in _grids(unit.structure, root):
        rest = grid.hosts - 1
        if rest < 1:
            continue
        shapes_of: list[tuple[str, Sequence[Ints]]] = [
            ("two trees", two_trees(rest)),
            ("a chain", (_chain(rest),)),
        ]
        if rest <= MOST_STARS and grid.inside == 1:
            shapes_of.insert(0, ("a tree through each other rank", _stars(rest)))
        for what, shapes in shapes_of:
            trees = [
                _broadcast_tree(grid, root, place, number, parent)
                for place in range(grid.inside)
                for number, parent in enumerate(shapes)
            ]
            for forest in _forests(unit, trees):
                yield f"{what} for {grid}", forest


def _broadcast_tree(
    grid: _Grid, root: int, place: int, number: int, parent: Ints
) -> tuple[int, Ints, Ints, Ints]:
    """Make the tree of one place and one shape."""
    home_src, home_dst = _at_home(grid, place)
    fan_src, fan_dst = _fan(grid, place, slice(1, None))
    grow = np.concatenate((np.flatnonzero(parent < 0)[:1], growth_order(parent)))
    teller = np.where(parent[grow] < 0, 0, parent[grow] + 1)
    src = np.concatenate((home_src, grid.rank[teller, place], fan_src))
    dst = np.concatenate((home_dst, grid.rank[grow + 1, place], fan_dst))
    inside = np.tile(np.arange(grid.inside - 1), grid.hosts - 1)
    return root, src, dst, np.concatenate((np.arange(len(home_src)), grow + number, inside))


def _at_home(grid: _Grid, place: int) -> tuple[Ints, Ints]:
    """Edges in the root's host: to the place of the rail, and from there to all others.

    On the root's own rail a chain: the root has enough to do with the other rails.
    """
    home = grid.rank[0]
    if len(home) == 1:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if place == 0:
        return home[:-1], home[1:]
    others = np.delete(home, [0, place])
    return np.concatenate((home[:1], np.repeat(home[place], len(others)))), np.concatenate(
        (home[[place]], others)
    )
