"""Joining again what a fault has cut off a tree, over the links with most room.

A rank that lost its way in is searched for backwards, over links that stay below a limit, fewest links first,
until a rank that still hears the root is met. Other ranks that lost theirs may lie on the way: they are
passed on through, and hear as well.

::

        root ... x ---> nic7 --/--> gpu7          the cable of nic7 is out: gpu7, and gpu6, which it told,
                  \\                  |  \\          hear nothing. Backwards from gpu7 there is only gpu6,
                   +--> nic6 ---> gpu6  ...       and from there nic6: x tells gpu6, and gpu6 tells gpu7

When nothing is found below the limit, the limit becomes what the best way takes (a shortest-path search for
the least bottleneck), a little more so that the next trees find room as well.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pycomm.errors import TopologyError
from pycomm.planner.graph.faults import Damage
from pycomm.planner.graph.patches import Held, Patch, TreeIndex
from pycomm.planner.graph.symmetric import arc_numbers

__all__ = ["Half", "Work"]

Ints = npt.NDArray[np.int64]

MARGIN = 1.004
"""By how much more than the next tree needs the limit is raised."""
REFUSALS = 12
"""Trees that find no other way before a link is left as full as it is."""


class Half:
    """A forest on its way to another one.

    Parameters
    ----------
    index, damage, against
        The forest as it was, what is left of the network, and whether the data flow against the links.
    patches, scale
        What has changed before.
    load
        Units on each arc of the network as it was planned for.
    """

    def __init__(
        self,
        index: TreeIndex,
        damage: Damage,
        patches: dict[int, tuple[Patch, ...]],
        scale: int,
        load: Ints,
        *,
        against: bool,
    ) -> None:
        own, origin = index.forest.network, damage.origin
        self.index, self.against, self.scale = index, against, scale
        self.patches = {tree: [patch.copy() for patch in group] for tree, group in patches.items()}
        self.load = load.copy()
        ends = (origin.dst, origin.src) if against else (origin.src, origin.dst)
        self.own = arc_numbers(own, *(e.astype(np.int64) for e in ends))
        """Arc of the forest's own network for each arc of the network."""
        self.links = np.empty_like(self.own)
        self.links[self.own] = np.arange(len(self.own))
        sharing = own.multicast
        self.shared = {
            arc
            for arc in range(len(own.src))
            if sharing and (own.src[arc] in sharing or own.dst[arc] in sharing)
        }
        self.shared = {int(self.links[arc]) for arc in self.shared}
        """Links over which a tree's data go once, however many of its edges cross them."""
        self.total = 1
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

    def take_off(self, patch: Patch) -> None:
        """Take a whole tree off the links, for good."""
        arc = self.index.forest.network.arc
        told: set[int] = set()
        for rank in range(len(patch.shape.row)):
            path = patch.path_of(rank) or ()
            for pair in zip(path, path[1:], strict=False):
                link = int(self.links[arc[pair]])
                if link not in told:
                    self.load[link] -= patch.weight
                if link in self.shared:
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
            self.load *= factor
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
        _, trees, rows = self.index.edges_on(self.own[links])
        own = set(self.own[links].tolist())
        arcs = self.index.forest.network.arc
        changed = list(self.patches.items())
        for key in np.unique(trees * self.index.forest.network.nranks + rows).tolist():
            tree, row = divmod(key, self.index.forest.network.nranks)
            rank = self.index.shape(tree).dst[row]
            if tree not in self.patches:
                yield tree, None, rank
            for patch in self.patches.get(tree, ()):
                if rank not in patch.cut:
                    yield tree, patch, rank
        for tree, group in changed:
            for patch in group:
                for rank, held in list(patch.held.items()):
                    if any(arcs[pair] in own for pair in zip(held.path, held.path[1:], strict=False)):
                        yield tree, patch, rank


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
        origin = damage.origin
        self.nranks = origin.nranks
        self.rate = damage.rate.tolist()
        self.arc = origin.arc
        live = damage.rate > 0
        pace = np.divide(1.0, damage.rate, out=np.full(len(live), np.inf), where=live)
        self.pace: list[float] = pace.tolist()
        busy = np.zeros(len(live))
        for half in halves:
            busy += half.load / half.total
        busy[live] *= pace[live]
        busy[~live] = 0
        self.busy: list[float] = busy.tolist()
        self.into: list[list[tuple[int, int]]] = [[] for _ in range(origin.nvertices)]
        self.out_of: list[list[tuple[int, int]]] = [[] for _ in range(origin.nvertices)]
        for arc in damage.kept.tolist():
            a, b = int(origin.src[arc]), int(origin.dst[arc])
            self.into[b].append((a, arc))
            self.out_of[a].append((b, arc))
        self.limit = 0.0
        self.touched: list[int] = []

    # -------------------------------------------------------------------------------------------- loads

    def charge(self, half: Half, patch: Patch, path: Sequence[int], sign: int) -> None:
        """Put a tree on the links of a path, or take it off."""
        units = sign * patch.weight
        seconds = units / half.total
        back, against, shared = patch.back, half.against, half.shared
        for a, b in zip(path, path[1:], strict=False):
            arc = self.arc[(b, a) if against else (a, b)]
            if arc in shared:
                uses = patch.uses.get(arc)
                if uses is None:
                    old = half.index.forest.network.arc[int(back[a]), int(back[b])]
                    uses = len(half.index.base_rows_on(patch.tree, old))
                patch.uses[arc] = uses + sign
                if uses != (sign < 0):  # others of its edges cross it as well
                    continue
            half.load[arc] += units
            if self.rate[arc]:
                self.busy[arc] += seconds * self.pace[arc]

    def sever(self, half: Half, patch: Patch, rank: int) -> None:
        """Cut a rank off whoever tells it."""
        path = patch.path_of(rank)
        if path is not None:
            self.charge(half, patch, path, -1)
        patch.sever(rank)

    # ------------------------------------------------------------------------------------------- search

    def join(self, half: Half, patch: Patch, top: int, *, strict: bool = False) -> bool:
        """Make a rank that hears nothing hear the root again; ``strict``: not beyond the limit.

        Raises
        ------
        TopologyError
            No link leads to it any more.
        """
        share = patch.weight / half.total
        way = self._search(half, patch, top, share)
        if way is None:
            if strict:
                return False
            way = self._widest(half, patch, top, share)
        start = 0
        for at in range(1, len(way)):
            if way[at] < self.nranks:
                rank, path = int(patch.back[way[at]]), tuple(way[start : at + 1])
                self.sever(half, patch, rank)
                patch.held[rank] = Held(int(patch.back[way[start]]), path)
                self.charge(half, patch, path, +1)
                start = at
        return True

    def _search(self, half: Half, patch: Patch, top: int, share: float) -> list[int] | None:
        """Way from a rank that hears to the topmost rank of a piece: fewest links, then least depth."""
        near = self.out_of if half.against else self.into
        busy, pace, limit, nranks, back = self.busy, self.pace, self.limit, self.nranks, patch.back
        goal = int(patch.fore[top])
        after = {goal: -1}
        level, hits = [goal], []
        hears: dict[int, bool] = {}
        while level and not hits:
            following = []
            for vertex in level:
                for other, arc in near[vertex]:
                    if other in after or busy[arc] + share * pace[arc] > limit:
                        continue
                    after[other] = vertex
                    if other < nranks:
                        rank = int(back[other])
                        piece = patch.piece(rank)
                        if piece not in hears:
                            hears[piece] = patch.holds(piece)
                        if hears[piece]:
                            hits.append((patch.depth(rank), len(hits), other))
                            continue
                    following.append(other)
            level = following
        if not hits:
            return None
        vertex = min(hits)[2]
        way = [vertex]
        while after[vertex] >= 0:
            vertex = after[vertex]
            way.append(vertex)
        return way

    def _widest(self, half: Half, patch: Patch, top: int, share: float) -> list[int]:
        """Way whose busiest link is least busy; raises the limit to that."""
        near = self.out_of if half.against else self.into
        busy, pace, nranks, back = self.busy, self.pace, self.nranks, patch.back
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
                way = [vertex]
                while after[vertex] >= 0:
                    vertex = after[vertex]
                    way.append(vertex)
                return way
            for other, arc in near[vertex]:
                if other not in after:
                    heapq.heappush(heap, (max(most, busy[arc] + share * pace[arc]), hops + 1, other, vertex))
        names = self.damage.origin.names
        root = int(patch.fore[patch.root])
        ends = (goal, root) if half.against else (root, goal)
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
        if held is not None:
            patch.held[rank] = held
        if not was_cut:
            del patch.cut[rank]
        return False

    def shed(self, link: int, moves: int) -> int:
        """Lead trees away from a link until it is below the limit; returns how many were moved."""
        moved = refused = 0
        for half in self.halves:
            for tree, one, rank in list(half.crossing(np.array([link]))):
                for patch in half.of(tree) if one is None else [one]:
                    if self.busy[link] <= self.limit or refused >= REFUSALS or moved >= moves:
                        return moved
                    if not self._crosses(half, patch, rank, link):
                        continue
                    if self.move(half, patch, rank):
                        moved += 1
                    else:
                        refused += 1
        return moved

    def _crosses(self, half: Half, patch: Patch, rank: int, link: int) -> bool:
        """Whether a rank still hears over a link; trees may have changed since they were found."""
        path = patch.path_of(rank) or ()
        pairs = zip(path[1:], path, strict=False) if half.against else zip(path, path[1:], strict=False)
        return any(self.arc[pair] == link for pair in pairs)

    def relieve(self, moves: int, least: float) -> None:
        """Lower the busiest links, one tree at a time, as far as single moves and their number allow.

        Parameters
        ----------
        moves
            How many trees may be moved.
        least
            Below this there is nothing to gain.
        """
        while moves > 0:
            most = max(self.busy)
            if most <= least:
                return
            fullest = [arc for arc, busy in enumerate(self.busy) if busy >= most * (1 - 1e-9)]
            if len(fullest) > moves:
                return
            self.limit = most * (1 - 1e-7)
            for link in fullest:
                if self.busy[link] > self.limit:
                    done = self.shed(link, moves)
                    moves -= done
                    if self.busy[link] > self.limit:
                        return
