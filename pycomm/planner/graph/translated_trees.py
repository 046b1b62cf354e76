"""Trees on Cayley graphs: a few trees at one rank, and their translations at all others.

On a torus, a hypercube, a circulant graph or a full mesh every link is the image of one of the links at rank
0; its *direction*. Translated to every root, a tree loads each link of a direction by the number of its own
edges of that direction. So the best load is had when the edges are spread over the directions in proportion
to their bandwidths, and that is a matter of counting: each vertex chooses by which of its links it hears.

Here each vertex hears from a vertex that is one step nearer the root, so that the trees are as shallow as can
be: their height is the diameter. Vertices with the same choice of directions are counted together, and a
small flow hands out the directions:

    kinds of vertices ---> directions          4 x 4 torus, k = 4 trees, 15 vertices
    east or north: 1 x 4        15 per direction, 15 in all
    east only: 1 x 4 ...        load 15/4 per link: the bound

Optimal when the flow saturates every direction; then all but one rank are the cut that proves it. With k
trees for each root the counts need only be even over all k together.

References
----------
* L. Zhao et al.: Efficient Direct-Connect Topologies for Collective Communications. NSDI 2025 (breadth-first
  broadcast, balanced by linear programmes).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from pycomm.planner.graph.structure import Structure
from pycomm.planner.graph.symmetric import (
    BaseTree,
    Ints,
    SymmetricForest,
    Symmetry,
    arc_numbers,
    symmetric_forest,
)

__all__ = ["translated_trees"]


def translated_trees(structure: Structure, trees: int) -> Iterator[SymmetricForest]:
    """Make forests of shortest-path trees for 1, 2, ... trees at each root, each better than those before.

    Parameters
    ----------
    structure
        Of a network of direct links.
    trees
        How many trees there may be at each root.

    Yields
    ------
    SymmetricForest
        Less load for the same data than all before; the last one cannot be improved by more trees if it loads
        all directions evenly.
    """
    network = structure.network
    symmetry = Symmetry(network, tuple(s for s in reversed(structure.shifts) if s is not None))
    direction = _directions(symmetry)
    if direction is None:
        return
    first = np.flatnonzero(network.src == 0)
    capacity = network.capacity[first].tolist()
    depth = _depths(network.nranks, network.src, network.dst)
    if depth is None:
        return
    heard = depth[network.src] + 1 == depth[network.dst]
    teller = np.full((network.nranks, len(capacity)), -1, np.int64)
    teller[network.dst[heard], direction[heard]] = network.src[heard]
    options, kind, members = np.unique(teller[1:] >= 0, axis=0, return_inverse=True, return_counts=True)
    best: Fraction | None = None
    even = Fraction(network.nranks - 1, sum(capacity))
    for k in range(1, trees + 1):
        shares, load = _share_out(options, (members * k).tolist(), capacity)
        if best is None or load / k < best:
            best = load / k
            yield symmetric_forest(symmetry, _build(teller, depth, kind.reshape(-1), shares, k))
        if best == even:
            return


def _directions(symmetry: Symmetry) -> Ints | None:
    """For each arc, which arc out of rank 0 it is an image of; ``None`` unless it is just one."""
    network = symmetry.network
    numbers = np.arange(symmetry.order)
    roots = symmetry.image(numbers, np.array(0))
    direction = np.full(len(network.src), -1, np.int64)
    for i, head in enumerate(network.dst[network.src == 0].astype(np.int64)):
        direction[arc_numbers(network, roots, symmetry.image(numbers, head))] = i
    counts = np.bincount(direction + 1, minlength=1)
    return direction if counts[0] == 0 and (counts[1:] == network.nranks).all() else None


def _depths(count: int, src: npt.NDArray[np.int32], dst: npt.NDArray[np.int32]) -> Ints | None:
    """Count the steps from rank 0 to each rank; ``None`` when some cannot be reached."""
    depth = np.full(count, -1, np.int64)
    depth[0] = 0
    for step in range(1, count):
        new = dst[(depth[src] == step - 1) & (depth[dst] < 0)]
        if not len(new):
            break
        depth[new] = step
    return None if (depth < 0).any() else depth


def _share_out(
    options: npt.NDArray[np.bool_], supply: list[int], capacity: list[int]
) -> tuple[list[dict[int, int]], Fraction]:
    """Hand out directions to kinds of vertices so that the greatest use over capacity is least.

    Returns
    -------
    tuple
        For each kind how many take each direction; and the greatest use over capacity.
    """
    wanted = [np.flatnonzero(row).tolist() for row in options]
    load = Fraction(sum(supply), sum(capacity))
    while True:
        quota = [load.numerator * c // load.denominator for c in capacity]
        shares, tight = _flow(wanted, supply, quota)
        if not tight:
            return shares, load
        kinds = [i for i, directions in enumerate(wanted) if tight.issuperset(directions)]
        least = Fraction(sum(supply[i] for i in kinds), sum(capacity[d] for d in tight))
        following = min(Fraction(quota[d] + 1, capacity[d]) for d in tight)
        load = max(least, load) if least > load else following


def _flow(
    wanted: list[list[int]], supply: list[int], quota: list[int]
) -> tuple[list[dict[int, int]], set[int]]:
    """Assign kinds to directions within quotas; the directions that are too few, empty when all fit."""
    shares: list[dict[int, int]] = [{} for _ in wanted]
    spare = list(quota)
    holders: list[set[int]] = [set() for _ in quota]
    for kind in sorted(range(len(wanted)), key=lambda i: len(wanted[i])):
        left = supply[kind]
        while left:
            way = _augment(kind, wanted, spare, holders)
            if isinstance(way, set):
                return shares, way
            left -= _push(way, left, shares, spare, holders)
    return shares, set()


def _augment(
    kind: int,
    wanted: list[list[int]],
    spare: list[int],
    holders: list[set[int]],
) -> list[int] | set[int]:
    """Find a way kind, direction, kind, ..., direction that ends where there is room; else what was seen."""
    before: dict[
        int, tuple[int, int]
    ] = {}  # direction: the kind that wants it, and the direction it would give up
    queue = deque([(kind, -1)])
    seen_kinds = {kind}
    while queue:
        at, given_up = queue.popleft()
        for direction in sorted(wanted[at], key=lambda d: -spare[d]):
            if direction in before:
                continue
            before[direction] = (at, given_up)
            if spare[direction] > 0:
                way = [direction]
                while True:
                    taker, given_up = before[way[-1]]
                    way.append(taker)
                    if given_up < 0:
                        return way[::-1]
                    way.append(given_up)
            for other in sorted(holders[direction]):
                if other not in seen_kinds:
                    seen_kinds.add(other)
                    queue.append((other, direction))
    return set(before)


def _push(
    way: list[int], left: int, shares: list[dict[int, int]], spare: list[int], holders: list[set[int]]
) -> int:
    """Move as much as fits along a way; return how much."""
    kinds, directions = way[0::2], way[1::2]
    gives = list(zip(kinds[1:], directions[:-1], strict=True))
    amount = min([left, spare[directions[-1]], *(shares[k][d] for k, d in gives)])
    for k, d in gives:
        shares[k][d] -= amount
        if not shares[k][d]:
            del shares[k][d]
            holders[d].discard(k)
    for k, d in zip(kinds, directions, strict=True):
        shares[k][d] = shares[k].get(d, 0) + amount
        holders[d].add(k)
    spare[directions[-1]] -= amount
    return amount


def _build(teller: Ints, depth: Ints, kind: Ints, shares: list[dict[int, int]], k: int) -> list[BaseTree]:
    """Give each vertex, in each of the k trees, a direction of its kind's share."""
    n = len(depth)
    chosen = np.zeros((k, n), np.int64)
    for number, share in enumerate(shares):
        vertices = np.flatnonzero(kind == number) + 1
        directions = np.repeat(np.array(sorted(share), np.int64), [share[d] for d in sorted(share)])
        chosen[:, vertices] = directions.reshape(k, len(vertices))
    order = np.argsort(depth, kind="stable")[1:]
    trees = []
    for row in chosen:
        src = teller[order, row[order]]
        trees.append(BaseTree(0, 1, src, order, np.stack((src, order), axis=1)))
    return trees
