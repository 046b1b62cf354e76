"""A new plan after a fault, by local repair: trees that do not use what broke stay as they are.

1. What the fault took away is looked up in the forests: the edges that crossed it, of which trees.
2. Each piece of a tree that was cut off is joined again over the links with most room
   (:mod:`pycomm.planner.graph.reattach`). Where few trees are concerned, each first becomes several of less
   weight, which can go different ways.
3. Links that are now the busiest are relieved by moving one tree at a time, as long as that helps.

What comes out is a plan like any other: its rate is exact, and it states a bound with the cut that proves it.
The bound that is known at once is the best of a few cuts: the old one with the new capacities, single ranks,
and what the full links close off. The greatest of all takes a maximum flow. It is computed by
:mod:`~pycomm.planner.graph.replanning`, which plans anew where the repaired plan is more than 1% below.

A rank that is gone takes its own trees with it where they carried only its data (allgather, reduce_scatter).
In an allreduce the others share what it had summed up, or one of them takes its trees over.

No figure here depends on a clock: the work is limited by counts, and equal plans and faults give equal plans.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pycomm.errors import PlanningError
from pycomm.planner.graph.bounds import Bound, Cut
from pycomm.planner.graph.candidates import most_load
from pycomm.planner.graph.faults import Damage, Fault, undamaged
from pycomm.planner.graph.parts_bound import parts_bounds
from pycomm.planner.graph.patched_forest import PatchedForest, patched
from pycomm.planner.graph.patches import Patch
from pycomm.planner.graph.reattach import Half, Work
from pycomm.planner.graph.reports import AnyBound
from pycomm.planner.graph.synthesis import Plan
from pycomm.planner.graph.tree_index import TreeIndex
from pycomm.types import CollectiveKind

__all__ = ["prepare", "repair"]

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

PIECES = 256
"""Pieces that are to be joined again, up to which trees are split."""
MOST_PARTS = 16
MOST_SCALE, MOST_WEIGHT = 64, 1 << 20
"""How much finer than those of the plan units of weight may get, and how many a forest may have."""
MOVES, REFUSALS = 64, 32
"""Trees that are moved to relieve the busiest links, and that may find no other way before one is left."""
FULL = 0.985
"""Part of the busiest link's time from which on a link counts as full."""
RAISE = 1.01
"""By how much the limit is raised where a slow link cannot be relieved."""
MOST_SHARE = 2
"""Share of an allreduce, in shares of one rank, up to which the trees of a root that is gone are dropped."""
MOST_PLACES = 8
"""Ranks around which cuts are looked for."""


# ----------------------------------------------------------------------------------------------------- repair


def prepare(plan: Plan) -> Plan:
    """Index a plan's trees by the links that they cross, so that the first repair need not.

    Returns
    -------
    Plan
        The same plan.
    """
    if all(isinstance(forest, PatchedForest) for forest in plan.forests):
        return plan
    damage = undamaged(plan.network)
    forests = []
    for forest, against in zip(plan.forests, _directions(plan), strict=True):
        index = TreeIndex(forest, plan.network, against=against)
        forests.append(patched(index, damage, {}, 1, forest.loads()[index.own]))
    return replace(plan, forests=tuple(forests))


def _directions(plan: Plan) -> tuple[bool, ...]:
    """Whether the data of each forest flow against its edges."""
    if plan.kind is CollectiveKind.ALLREDUCE:
        return True, False
    return (plan.kind.reduces,)


def repair(plan: Plan, fault: Fault, *, moves: int = MOVES, refusals: int = REFUSALS) -> Plan:
    """Make a plan for what is left after a fault, changing only trees that used what broke.

    Parameters
    ----------
    plan
        Of :func:`pycomm.planner.graph.synthesis.synthesize`, or repaired before.
    fault
        What broke, by names of the plan's network.
    moves
        How many trees may be moved away from the links that are the busiest in the end.
    refusals
        How many trees may find no other way before such a link is left as it is.

    Returns
    -------
    Plan
        Its network is that of the topology without what broke; ranks after one that is gone move down.

    Raises
    ------
    TopologyError
        There is no such vertex or link, or some rank cannot be reached any more.
    UsageError
        Fewer than two ranks are left.
    PlanningError
        The root of a broadcast or reduce is gone.
    """
    started = time.perf_counter()
    old = prepare(plan)
    forests = [forest for forest in old.forests if isinstance(forest, PatchedForest)]
    before = forests[0].damage
    damage = before.after(fault)
    dead = np.flatnonzero((before.rate > 0) & (damage.rate == 0))
    slow = np.flatnonzero((before.rate > damage.rate) & (damage.rate > 0))
    gone = np.flatnonzero(before.alive & ~damage.alive)
    gone = gone[gone < damage.origin.nranks]
    if old.kind.is_rooted and np.flatnonzero(before.alive)[old.root] in gone:
        raise PlanningError(
            f"rank {old.root}, the root of the {old.kind.label}, is gone, and its data with it: "
            "choose another root and plan anew"
        )
    halves = [Half(forest) for forest in forests]
    heirs = _lose_roots(old.kind, halves, damage, gone.tolist())
    broken = _refined(halves, dead, slow)
    work = Work(damage, halves)
    root = int(damage.vertex[np.flatnonzero(before.alive)[old.root]]) if old.kind.is_rooted else -1
    task = _Task(old.kind, root, damage)
    parts = task.parts(old, before, work, _some(halves, broken))
    pieces = _cut_off(work, broken, heirs)
    least = max((float(task.need(part)) for part in parts), default=0.0)
    steady = np.array(work.busy)
    steady[slow] = 0
    work.limit = max(float(steady.max(initial=0.0)), least) * (1 + 1e-9)
    _join_again(work, pieces)
    for link in slow.tolist():
        _shed(work, link)
    work.relieve(moves, refusals, least * (1 + 1e-7))
    return task.plan(old, fault, work, parts, started, gone=bool(len(gone)))


_Broken = list[tuple[int, Patch | None, int]]
_Piece = tuple[Half, Patch, int, tuple[int, ...]]


def _some(halves: Sequence[Half], broken: list[tuple[_Broken, _Broken]]) -> list[int]:
    """Take a few, evenly, of the ranks that hear over what broke, as vertices of the origin."""
    return [
        int(half.index.names(tree)[0][rank])
        for half, (cut, slowed) in zip(halves, broken, strict=True)
        for both in [[*cut, *slowed]]
        for tree, _, rank in both[:: -(-len(both) // MOST_PLACES) or 1]
    ]


def _refined(halves: Sequence[Half], dead: Ints, slow: Ints) -> list[tuple[_Broken, _Broken]]:
    """Find the trees that cross broken links; where these are few, split them into several of less weight.

    All forests go on counting in the same units.
    """
    found = [(list(half.crossing(dead)), list(half.crossing(slow))) for half in halves]
    everything = [
        (half, *one) for half, both in zip(halves, found, strict=True) for part in both for one in part
    ]
    parts = min(PIECES // max(len(everything), 1), MOST_PARTS)
    if not everything or parts < 2:
        return found
    lightest = min(half.weight(t) if p is None else p.weight for half, t, p, _ in everything)
    room = min(MOST_WEIGHT // half.total for half in halves)
    factor = max(1, min(-(-parts // lightest), MOST_SCALE // halves[0].scale, room))
    for half in halves:
        half.parts = parts
        half.multiply(factor)
        half.split()
    return [(list(half.crossing(dead)), list(half.crossing(slow))) for half in halves]


def _lose_roots(kind: CollectiveKind, halves: list[Half], damage: Damage, gone: list[int]) -> dict[int, int]:
    """Drop trees whose roots are gone; name the rank that takes them over where they carry too much for that.

    Returns
    -------
    dict
        The new root of each such root.
    """
    heirs: dict[int, int] = {}
    if not gone:
        return heirs
    for rank in gone:
        share = sum(p.weight for _, p in _trees_at(halves[-1], rank)) / halves[-1].total
        if kind is CollectiveKind.ALLREDUCE and share * damage.origin.nranks > MOST_SHARE:
            heirs[rank] = _heir(halves[-1], damage, rank)
            continue
        for half in halves:
            for tree, patch in list(_trees_at(half, rank)):
                half.patches[tree] = []
                half.take_off(patch)
    return heirs


def _trees_at(half: Half, rank: int) -> Iterator[tuple[int, Patch]]:
    """Trees rooted at a rank."""
    for tree in np.flatnonzero(half.index.roots == rank).tolist():
        if tree not in half.patches:
            yield tree, Patch(half.index, tree, half.weight(tree))
    for tree, group in list(half.patches.items()):
        for patch in group:
            if patch.fore[patch.root] == rank:
                yield tree, patch


def _heir(half: Half, damage: Damage, rank: int) -> int:
    """Choose who takes over the trees of a root: the rank that it told first, or the first that is left."""
    alive = damage.alive
    for _, patch in _trees_at(half, rank):
        for other in patch.told(patch.root):
            if alive[patch.fore[other]]:
                return int(patch.fore[other])
    return int(np.flatnonzero(alive)[0])


def _cut_off(work: Work, broken: list[tuple[_Broken, _Broken]], heirs: dict[int, int]) -> list[_Piece]:
    """Cut all edges over dead links, and say which ranks are to be joined again."""
    pieces: list[_Piece] = []
    alive = work.damage.alive
    for half, (dead, _) in zip(work.halves, broken, strict=True):
        for old, new in heirs.items():
            for tree, found in list(_trees_at(half, old)):
                for patch in half.of(tree) if tree not in half.patches else [found]:
                    rank = int(patch.back[new])
                    work.sever(half, patch, rank)
                    patch.root = rank
        for tree, one, rank in dead:
            for patch in half.of(tree) if one is None else [one]:
                path = patch.path_of(rank)
                if path is None:
                    continue
                work.sever(half, patch, rank)
                if alive[patch.fore[rank]]:
                    pieces.append((half, patch, rank, path))
    return pieces


def _join_again(work: Work, pieces: list[_Piece]) -> None:
    """Join pieces again: round what is gone of their paths, else from wherever there is most room."""
    left = [(h, p, rank) for h, p, rank, path in pieces if not work.detour(h, p, rank, path)]
    for half, patch, rank in left:
        if not patch.holds(rank):
            work.join(half, patch, rank)


def _shed(work: Work, link: int) -> None:
    """Lead trees away from a link that slowed down; where nothing else has room, everything is fuller."""
    while work.busy[link] > work.limit:
        if not work.shed(link, PIECES, REFUSALS) and work.busy[link] > work.limit:
            work.limit = min(work.limit * RAISE, work.busy[link])


# --------------------------------------------------------------------------------------------- bound and plan


class _Task(NamedTuple):
    """A collective on what is left of a network."""

    kind: CollectiveKind
    root: int
    damage: Damage

    @property
    def against(self) -> bool:
        """Whether data flow against the links, where all flow one way."""
        return self.kind is not CollectiveKind.ALLREDUCE and self.kind.reduces

    @property
    def shared(self) -> bool:
        """Whether two forests share the links."""
        return self.kind is CollectiveKind.ALLREDUCE

    def parts(self, old: Plan, before: Damage, work: Work, ranks: Sequence[int]) -> list[Mask]:
        """Parts of the network that may limit the collective now, as vertices of the origin."""
        damage = self.damage
        if self.shared:
            return []
        found = []
        if isinstance(old.bound, Bound):
            inside = np.ones(damage.origin.nvertices, np.bool_)
            inside[np.flatnonzero(before.alive)[list(old.bound.cut.vertices)]] = False
            found.append(inside)
        unique = sorted({rank for rank in ranks if damage.alive[rank]})[:MOST_PLACES]
        most = max(work.busy) * FULL
        found += [_reach(rank, work, most) for rank in unique]
        found.append(self._narrowest_rank())
        return [part for part in found if self.need(part)]

    def _narrowest_rank(self) -> Mask:
        """Rank with the least capacity to hear by."""
        origin, n = self.damage.origin, self.damage.origin.nranks
        ends = origin.src if self.against else origin.dst
        capacity = np.bincount(ends, self.damage.rate, origin.nvertices)[:n]
        capacity[~self.damage.alive[:n]] = np.inf
        if self.root >= 0:
            capacity[np.flatnonzero(self.damage.vertex == self.root)] = np.inf
        inside = np.zeros(origin.nvertices, np.bool_)
        inside[int(np.argmin(capacity))] = True
        return inside

    def need(self, inside: Mask) -> Fraction:
        """Seconds per byte that a part proves to be needed; 0 where it proves nothing."""
        missing, rate = self._missing(inside)
        if not rate or not missing or not (inside & self.damage.alive)[: self.damage.origin.nranks].any():
            return Fraction(0)
        total = 1 if self.root >= 0 else self.damage.nranks
        return Fraction(missing, rate * total)

    def _missing(self, inside: Mask) -> tuple[int, int]:
        """Units that the ranks outside hold, and bytes per second into the part."""
        damage, n = self.damage, self.damage.origin.nranks
        outside = ~inside[:n] & damage.alive[:n]
        missing = int(outside.sum()) if self.root < 0 else int(outside[damage.vertex[:n] == self.root].any())
        src, dst = damage.origin.src, damage.origin.dst
        entering = inside[src] & ~inside[dst] if self.against else ~inside[src] & inside[dst]
        return missing, int(damage.rate[entering].sum())

    def bound(self, old: Plan, parts: list[Mask], *, gone: bool) -> AnyBound:
        """Choose the best of the bounds that are known."""
        damage, network = self.damage, self.damage.network
        if self.shared:
            known: list[AnyBound] = [] if gone else [old.bound]
            known += parts_bounds(network)
            return min(known, key=lambda bound: bound.algbw)
        best = max(parts, key=self.need)
        missing, rate = self._missing(best)
        outside = np.flatnonzero(~best[damage.alive])
        cut = Cut(tuple(outside.tolist()), missing, rate // network.unit)
        return Bound(network, self.kind, self.root, self.need(best), cut)

    def plan(
        self, old: Plan, fault: Fault, work: Work, parts: list[Mask], started: float, *, gone: bool
    ) -> Plan:
        """Make the plan."""
        forests = []
        for half in work.halves:
            half.merge()
        common = math.gcd(*(half.divisor() for half in work.halves))
        for half in work.halves:
            half.divide(common)
            patches = {tree: tuple(group) for tree, group in half.patches.items()}
            forests.append(
                patched(half.index, self.damage, patches, half.scale, np.array(half.load, np.int64))
            )
        if not self.shared:
            parts = [*parts, *self._full_parts(work)]
        changed = sum(len(half.patches) for half in work.halves)
        trees = sum(len(half.index) for half in work.halves)
        largest = max(int(np.bincount(_roots_of(f)).max()) for f in forests) if len(forests) == 1 else old.k
        return Plan(
            self.kind,
            self.root,
            self.damage.network,
            self.bound(old, parts, gone=gone),
            tuple(forests),
            1 / self._seconds(forests),
            largest,
            ", ".join(filter(None, ("repaired", fault.text()))) + f": {changed} of {trees} trees changed",
            time.perf_counter() - started,
        )

    def _full_parts(self, work: Work) -> list[Mask]:
        """Parts that the links that are full in the end close off."""
        most = max(work.busy) * FULL
        origin = self.damage.origin
        fullest = int(np.argmax(work.busy))
        start = int((origin.src if self.against else origin.dst)[fullest])
        part = _reach(start, work, most)
        return [part] if self.need(part) else []

    def _seconds(self, forests: Sequence[PatchedForest]) -> Fraction:
        """Seconds per byte of the whole result."""
        total = math.lcm(*(forest.weight() for forest in forests))
        kept, network = self.damage.kept, self.damage.network
        loads = [(forest.load[kept], total // forest.weight()) for forest in forests]
        if sum(int(load.max()) * factor for load, factor in loads) < 2**62:
            load = sum((load * factor for load, factor in loads), np.zeros(len(kept), np.int64))
            most = most_load(network, load)
        else:
            exact = sum((load.astype(object) * factor for load, factor in loads), np.zeros(len(kept), object))
            most = max(Fraction(a, b) for a, b in zip(exact, network.capacity.tolist(), strict=True))
        return most / (total * network.unit)


def _roots_of(forest: PatchedForest) -> list[int]:
    """Root of each tree, in numbers of the origin."""
    roots = forest.index.roots
    changed = np.zeros(len(roots), np.bool_)
    changed[list(forest.patches)] = True
    found: list[int] = roots[~changed].tolist()
    found += [int(p.fore[p.root]) for group in forest.patches.values() for p in group]
    return found


def _reach(start: int, work: Work, most: float) -> Mask:
    """Vertices from which a vertex can hear over links that are not full."""
    near, busy, pace = work.halves[0].index.near, work.busy, work.pace
    todo, seen = [start], {start}
    while todo:
        for other, link in near[todo.pop()]:
            if busy[link] < most and pace[link] < math.inf and other not in seen:
                seen.add(other)
                todo.append(other)
    inside = np.zeros(work.damage.origin.nvertices, np.bool_)
    inside[list(seen)] = True
    return inside
