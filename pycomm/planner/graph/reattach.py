r"""Joining again what a fault has cut off a tree, over the links with most room.

A rank that lost its way in is searched for backwards, over links that stay below a limit, fewest links first,
until a rank that still hears the root is met. Other ranks that lost theirs may lie on the way: they are
passed on through, and hear as well.

::

        root ... x ---> nic7 --/--> gpu7          the cable of nic7 is out: gpu7, and gpu6, which it told,
                  \                  |  \          hear nothing. Backwards from gpu7 there is only gpu6,
                   +--> nic6 ---> gpu6  ...       and from there nic6: x tells gpu6, and gpu6 tells gpu7

When nothing is found below the limit, the limit becomes what the best way takes (a shortest-path search for
the least bottleneck), a little more so that the next trees find room as well.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pycomm.errors import TopologyError
from pycomm.planner.graph.faults import Damage
from pycomm.planner.graph.patched_forest import PatchedForest
from pycomm.planner.graph.patches import Held, Patch

__all__ = ["Half", "Work"]

Ints = npt.NDArray[np.int64]

MARGIN = 1.004
"""By how much more than the next tree needs the limit is raised."""
BREADTH = 24
"""Vertices of each distance that a search looks at first; where that finds nothing it looks at all."""
CHOICES = 8
"""Ranks among which the one of least depth is chosen."""
STEPS = (0.02, 0.001)
"""Part of the busiest links' load that is to be moved away: at first, and at least."""


class Half:
    """A forest on its way to another one.

    Parameters
    ----------
    forest
        As it is.
    """

    def __init__(self, forest: PatchedForest) -> None:
        self.index, self.scale, self.total = forest.index, forest.scale, forest.weight()
        self.patches = {tree: [patch.copy() for patch in group] for tree, group in forest.patches.items()}
        self.load: list[int] = forest.load.tolist()
        self.known: dict[int, list[int]] = {}
        """Way that the last tree that passed a vertex took to it, from a rank that heard."""
        self.parts = 1
        """How many trees a tree becomes that has to change."""

    def weight(self, tree: int) -> int:
        """Weight of an old tree now."""
        return self.index.base[tree % len(self.index.base)].weight * self.scale

    def of(self, tree: int) -> list[Patch]:
        """Patches of a tree, to be changed."""
        if tree not in self.patches:
            weight, parts = self.weight(tree), min(self.parts, self.weight(tree))
            whole = Patch(self.index, tree, weight)
            self.patches[tree] = [
                whole.copy(weight * (i + 1) // parts - weight * i // parts) for i in range(parts)
            ]
        return self.patches[tree]

    def divisor(self) -> int:
        """Greatest number by which all weights can be divided."""
        return math.gcd(self.scale, *(patch.weight for group in self.patches.values() for patch in group))

    def divide(self, factor: int) -> None:
        """Count in units that are so many times as large."""
        if factor > 1:
            for group in self.patches.values():
                for patch in group:
                    patch.weight //= factor
            self.scale //= factor
            self.load = [load // factor for load in self.load]
            self.total //= factor

    def take_off(self, patch: Patch) -> None:
        """Take a whole tree off the links, for good."""
        told: set[int] = set()
        for rank in range(len(patch.shape.row)):
            path = patch.path_of(rank) or ()
            copied = self.index.copied(path)
            for place, pair in enumerate(pairwise(path)):
                link = self.index.link[pair]
                if place >= copied or link not in told:
                    self.load[link] -= patch.weight
                if place < copied:
                    told.add(link)
        self.total -= patch.weight

    def split(self) -> None:
        """Split the trees that have changed before into parts as well."""
        for tree, group in self.patches.items():
            count = max(1, self.parts // max(len(group), 1))
            self.patches[tree] = [
                patch.copy(patch.weight * (i + 1) // parts - patch.weight * i // parts)
                for patch in group
                for parts in [min(count, patch.weight)]
                for i in range(parts)
            ]

    def merge(self) -> None:
        """Make one tree of those that have come out the same; forget those that have not changed."""
        for tree, group in list(self.patches.items()):
            if not group:
                continue
            alike: dict[tuple[object, ...], Patch] = {}
            for patch in group:
                found = alike.setdefault(patch.key(), patch)
                if found is not patch:
                    found.weight += patch.weight
            self.patches[tree] = list(alike.values())
            one = self.patches[tree][0]
            if len(alike) == 1 and not one.cut and one.root == one.shape.tree.root:
                del self.patches[tree]

    def multiply(self, factor: int) -> None:
        """Count in finer units."""
        if factor > 1:
            self.patches = {t: [p.copy(p.weight * factor) for p in ps] for t, ps in self.patches.items()}
            self.scale *= factor
            self.load = [load * factor for load in self.load]
            self.total *= factor

    def crossing(self, links: Ints) -> Iterator[tuple[int, Patch | None, int]]:
        """Find the trees that cross links, and the ranks (named as in the base) that hear over them.

        Yields
        ------
        tuple
            The number of the tree, its patch, or ``None`` where it has not changed, and the rank.
        """
        if not len(links):
            return
        _, trees, rows = self.index.edges_on(links)
        nranks, changed = self.index.origin.nranks, list(self.patches.items())
        for key in np.unique(trees * nranks + rows).tolist():
            tree, row = divmod(key, nranks)
            rank = self.index.shape(tree).dst[row]
            if tree not in self.patches:
                yield tree, None, rank
            for patch in self.patches.get(tree, ()):
                if rank not in patch.cut:
                    yield tree, patch, rank
        wanted = set(links.tolist())
        for tree, group in changed:
            for patch in group:
                for rank, held in list(patch.held.items()):
                    if any(self.index.link[pair] in wanted for pair in pairwise(held.path)):
                        yield tree, patch, rank


def _back(after: dict[int, int], vertex: int) -> list[int]:
    """Way that a search has found."""
    way = [vertex]
    while after[vertex] >= 0:
        vertex = after[vertex]
        way.append(vertex)
    return way


class Work:
    """A repair in progress: how busy each link is, in seconds per byte of the whole result.

    Parameters
    ----------
    damage
        What is left of the network.
    halves
        The forests that share it.
    """

    def __init__(self, damage: Damage, halves: Sequence[Half]) -> None:
        self.damage, self.halves = damage, halves
        self.nranks = damage.origin.nranks
        live = damage.rate > 0
        pace = np.divide(1.0, damage.rate, out=np.full(len(live), np.inf), where=live)
        self.pace: list[float] = pace.tolist()
        """Seconds per byte of each link; infinite where it is gone."""
        busy = np.zeros(len(live))
        for half in halves:
            busy += np.array(half.load, np.float64) / half.total
        self.busy: list[float] = np.where(live, busy * np.where(live, pace, 0), 0).tolist()
        self.limit = 0.0

    # -------------------------------------------------------------------------------------------- loads

    def charge(self, half: Half, patch: Patch, path: Sequence[int], sign: int) -> None:
        """Put a tree on the links of a path, or take it off."""
        units = sign * patch.weight
        seconds = units / half.total
        link_of, copied = half.index.link, half.index.copied(path)
        for place, pair in enumerate(pairwise(path)):
            link = link_of[pair]
            if place < copied:
                uses = patch.uses.get(link)
                if uses is None:
                    uses = half.index.uses(patch.tree, patch.back, link)
                patch.uses[link] = uses + sign
                if uses != (sign < 0):  # others of its edges cross it as well
                    continue
            half.load[link] += units
            pace = self.pace[link]
            if pace < math.inf:
                self.busy[link] += seconds * pace

    def sever(self, half: Half, patch: Patch, rank: int) -> None:
        """Cut a rank off whoever tells it."""
        path = patch.path_of(rank)
        if path is not None:
            self.charge(half, patch, path, -1)
        patch.sever(rank)

    # ------------------------------------------------------------------------------------------- search

    def detour(self, half: Half, patch: Patch, rank: int, path: Sequence[int]) -> bool:
        """Lead an edge of a tree round what is gone of its path, over two or three other links.

        Parameters
        ----------
        half, patch
            The tree.
        rank
            Who heard along the path, in names of the base, and was cut off.
        path
            The path as it was.
        """
        link_of, pace = half.index.link, self.pace
        gone = [i for i, pair in enumerate(pairwise(path)) if pace[link_of[pair]] == math.inf]
        first, last = gone[0], gone[-1] + 1
        share = patch.weight / half.total
        # Over one vertex: round what is gone, or round that and a link beside it: over another spine, say.
        for start, end in ((first, last), (first, last + 1), (first - 1, last)):
            if start < 0 or end == len(path):
                continue
            heads = self._steps(half.index.ahead[path[start]], path, share)
            tails = self._steps(half.index.near[path[end]], path, share) if heads else {}
            ways: list[tuple[float, tuple[int, ...]]] = [
                (max(heads[v], tails[v]), (v,)) for v in heads if v in tails
            ]
            if ways:
                break
        else:
            start, end = first, last
            ways = self._over_two(half, path, start, end, share)
            if not ways:
                return False
        whole = (*path[: start + 1], *min(ways)[1], *path[end:])
        patch.held[rank] = Held(int(patch.back[whole[0]]), whole)
        self.charge(half, patch, whole, +1)
        return True

    def _over_two(
        self, half: Half, path: Sequence[int], start: int, end: int, share: float
    ) -> list[tuple[float, tuple[int, ...]]]:
        """Ways over two vertices between two places of a path, each with how busy it gets."""
        heads = self._steps(half.index.ahead[path[start]], path, share)
        tails = self._steps(half.index.near[path[end]], path, share) if heads else {}
        if len(heads) <= len(tails):
            return [
                (max(reached, busy, tails[other]), (v, other))
                for v, reached in heads.items()
                for other, busy in self._steps(half.index.ahead[v], path, share).items()
                if other in tails
            ]
        return [
            (max(reached, busy, heads[other]), (other, v))
            for v, reached in tails.items()
            for other, busy in self._steps(half.index.near[v], path, share).items()
            if other in heads
        ]

    def _steps(
        self, neighbours: Sequence[tuple[int, int]], path: Sequence[int], share: float
    ) -> dict[int, float]:
        """Neighbours that are no ranks, not on the path, and on links below the limit; how busy these get."""
        found = {}
        for other, link in neighbours:
            busy = self.busy[link] + share * self.pace[link]
            if other >= self.nranks and busy <= self.limit and other not in path:
                found[other] = busy
        return found

    def join(self, half: Half, patch: Patch, top: int, *, strict: bool = False) -> bool:
        """Make a rank that hears nothing hear the root again; ``strict``: not beyond the limit.

        Raises
        ------
        TopologyError
            No link leads to it any more.
        """
        share = patch.weight / half.total
        way = self._search(half, patch, top, share, BREADTH)
        way = way or self._search(half, patch, top, share, self.damage.origin.nvertices)
        if way is None:
            if strict:
                return False
            way = self._widest(half, patch, top, share)
        for at in range(1, len(way) - 1):
            if way[at] >= self.nranks:
                half.known[way[at]] = way[: at + 1]
        start = 0
        for at in range(1, len(way)):
            if way[at] < self.nranks:
                rank, path = int(patch.back[way[at]]), tuple(way[start : at + 1])
                self.sever(half, patch, rank)
                patch.held[rank] = Held(int(patch.back[way[start]]), path)
                self.charge(half, patch, path, +1)
                start = at
        return True

    def _known(
        self, half: Half, patch: Patch, vertex: int, after: dict[int, int], share: float, depth: int
    ) -> list[int] | None:
        """Way that another tree took to a vertex, from the last rank on it that hears in this tree.

        It has to have room, and to start no deeper than ``depth``.
        """
        way = half.known[vertex]
        for start in range(len(way) - 2, -1, -1):
            other, following = way[start], way[start + 1]
            link = half.index.link[other, following]
            if other in after or self.busy[link] + share * self.pace[link] > self.limit:
                return None
            if other < self.nranks:
                rank = int(patch.back[other])
                above = patch.above(patch.piece(rank))
                if above is not None:
                    return way[start:-1] if patch.shape.depth[rank] + above <= depth else None
        return None

    def _search(self, half: Half, patch: Patch, top: int, share: float, breadth: int) -> list[int] | None:
        """Way from a rank that hears to the topmost rank of a piece: few links, then little depth.

        Of each distance so many vertices are looked at.
        """
        near, busy, pace, limit = half.index.near, self.busy, self.pace, self.limit
        nranks, back, depth = self.nranks, patch.back, patch.shape.depth
        goal = int(patch.fore[top])
        deepest = patch.shape.height
        after = {goal: -1}
        level: list[int] = [goal]
        hits: list[tuple[int, int, int]] = []
        above: dict[int, int | None] = {}
        while level and not hits:
            following = []
            for vertex in level:
                for other, link in near[vertex]:
                    if other in after or busy[link] + share * pace[link] > limit:
                        continue
                    after[other] = vertex
                    if other >= nranks:
                        if other in half.known:
                            known = self._known(half, patch, other, after, share, deepest)
                            if known is not None:
                                return known + _back(after, other)
                    else:
                        rank = int(back[other])
                        piece = patch.piece(rank)
                        if piece not in above:
                            above[piece] = patch.above(piece)
                        offset = above[piece]
                        if offset is not None:
                            hits.append((depth[rank] + offset, len(hits), other))
                            continue
                    following.append(other)
                if len(hits) >= CHOICES or len(following) >= breadth:
                    break
            level = following
        if not hits:
            return None
        return _back(after, min(hits)[2])

    def _widest(self, half: Half, patch: Patch, top: int, share: float) -> list[int]:
        """Way whose busiest link is least busy; raises the limit to that."""
        near, busy, pace = half.index.near, self.busy, self.pace
        nranks, back = self.nranks, patch.back
        goal = int(patch.fore[top])
        after: dict[int, int] = {}
        heap = [(0.0, 0, goal, -1)]
        while heap:
            most, hops, vertex, origin = heapq.heappop(heap)
            if vertex in after:
                continue
            after[vertex] = origin
            if vertex < nranks and vertex != goal and patch.holds(int(back[vertex])):
                self.limit = max(self.limit, most * MARGIN)
                return _back(after, vertex)
            for other, link in near[vertex]:
                if other not in after and pace[link] < math.inf:
                    key = max(most, busy[link] + share * pace[link])
                    heapq.heappush(heap, (key, hops + 1, other, vertex))
        names = self.damage.origin.names
        root = int(patch.fore[patch.root])
        ends = (goal, root) if half.index.against else (root, goal)
        raise TopologyError(
            f"after the fault nothing leads from {names[ends[0]]} to {names[ends[1]]}: "
            "leave one of them out of the group"
        )

    # --------------------------------------------------------------------------------------------- moves

    def move(self, half: Half, patch: Patch, rank: int) -> bool:
        """Let a rank hear over links that stay below the limit; nothing changes where there are none."""
        path, held, was_cut = patch.path_of(rank), patch.held.get(rank), rank in patch.cut
        if path is None:
            return False
        self.sever(half, patch, rank)
        if self.join(half, patch, rank, strict=True):
            return True
        self.charge(half, patch, path, +1)
        patch.undo(rank, held, was_cut=was_cut)
        return False

    def shed(self, link: int, moves: int, refusals: int) -> int:
        """Lead trees away from a link until it is below the limit; returns how many were moved.

        Parameters
        ----------
        link
            Which.
        moves, refusals
            How many trees may be moved, and how many may find no other way.
        """
        moved = refused = 0
        for half in self.halves:
            for tree, one, rank in list(half.crossing(np.array([link]))):
                for patch in half.of(tree) if one is None else [one]:
                    if self.busy[link] <= self.limit or refused >= refusals or moved >= moves:
                        return moved
                    if not self._may_move(half, patch, rank, link):
                        continue
                    if self.move(half, patch, rank):
                        moved += 1
                    else:
                        refused += 1
        return moved

    def _may_move(self, half: Half, patch: Patch, rank: int, link: int) -> bool:
        """Whether a rank still hears over a link, and has another open link to hear by.

        Trees may have changed since they were found to cross the link.
        """
        own = [half.index.link[pair] for pair in pairwise(patch.path_of(rank) or ())]
        if link not in own:
            return False
        share = patch.weight / half.total
        return any(
            self.busy[other] + (0.0 if other in own else share * self.pace[other]) <= self.limit
            for _, other in half.index.near[int(patch.fore[rank])]
        )

    def relieve(self, moves: int, refusals: int, least: float) -> None:
        """Lower the busiest links, one tree at a time, as far as single moves and their number allow.

        Parameters
        ----------
        moves
            How many trees may be moved.
        refusals
            How many trees may find no other way before a link is left as it is.
        least
            Seconds per byte below which there is nothing to gain.
        """
        step = STEPS[0]
        while moves > 0:
            most = max(self.busy)
            if most <= least:
                return
            self.limit = max(least, most * (1 - step))
            busy = np.array(self.busy)
            over = np.flatnonzero(busy > self.limit)
            helped = len(over) <= moves
            for link in over[np.argsort(-busy[over], kind="stable")].tolist() if helped else ():
                if self.busy[link] > self.limit:
                    moves -= self.shed(link, moves, refusals)
                    if self.busy[link] >= most * (1 - STEPS[1] / 2):  # the others will not help
                        helped = False
                        break
            if not helped:
                if step <= STEPS[1]:
                    return
                step = max(step / 2, STEPS[1])
