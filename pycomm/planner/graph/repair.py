"""A new plan after a fault, by local repair: trees that do not use what broke stay as they are.

1. What the fault took away is looked up in the forests: the edges that crossed it, of which trees.
2. Each piece of a tree that was cut off is joined again over the links with most room
   (:mod:`pycomm.planner.graph.reattach`). Where few trees are concerned, each first becomes several of less
   weight, which can go different ways.
3. Links that are now the busiest are relieved by moving one tree at a time, as long as that helps.

What comes out is a plan like any other: its rate is exact, and it states a bound with the cut that proves it.
The bound that is known at once is the best of a few cuts: the old one with the new capacities, single ranks,
and what the full links close off. The greatest of all takes a maximum flow; :func:`replan` computes it, and
plans anew where the repaired plan is more than 1% below, in the background where that is wanted.

A rank that is gone takes its own trees with it where they carried only its data (allgather, reduce_scatter).
In an allreduce the others share what it had summed up, or one of them takes its trees over.

No figure here depends on a clock: the work is limited by counts, and equal plans and faults give equal plans.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pycomm.errors import DeadlineExceeded, PlanningError
from pycomm.planner.graph.bounds import Bound, Cut, bound, describe_links
from pycomm.planner.graph.candidates import most_load
from pycomm.planner.graph.faults import Damage, Fault, undamaged
from pycomm.planner.graph.network import Network
from pycomm.planner.graph.one_way_plans import CLOSE
from pycomm.planner.graph.patched_forest import PatchedForest, patched
from pycomm.planner.graph.patches import Patch
from pycomm.planner.graph.reattach import Half, Work
from pycomm.planner.graph.reports import AnyBound
from pycomm.planner.graph.synthesis import Plan, plan_on
from pycomm.planner.graph.tree_index import TreeIndex
from pycomm.types import CollectiveKind

__all__ = ["PartsBound", "Replanning", "prepare", "repair", "replan", "replan_in_background"]

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

PIECES = 256
"""Pieces that are to be joined again, up to which trees are split."""
MOST_PARTS = 16
MOST_SCALE, MOST_WEIGHT = 64, 1 << 20
"""How much finer than those of the plan units of weight may get, and how many a forest may have."""
MOVES, REFUSALS = 64, 32
"""Trees that are moved to relieve the busiest links, and that may find no other way before one is left."""
MOST_MOVES, MOST_REFUSALS = 4096, 256
"""The same for a repair that may take seconds."""
FULL = 0.985
"""Part of the busiest link's time from which on a link counts as full."""
RAISE = 1.01
"""By how much the limit is raised where a slow link cannot be relieved."""
MOST_SHARE = 2
"""Share of an allreduce, in shares of one rank, up to which the trees of a root that is gone are dropped."""
MOST_RATES = 4
"""Rates that are tried to tell fast links from slow ones."""
MOST_PLACES = 8
"""Ranks around which cuts are looked for."""


@dataclass(frozen=True)
class PartsBound:
    """A least time of an allreduce, proved by parts of the network that have no vertex in common.

    Whatever is rooted outside a part has to leave it to be summed up; whatever is summed up outside has to
    enter it. With x_i of all M bytes rooted in part i of p, that is the sum of M - x_i both ways, at least
    2(p-1) M over the links that enter a part, for what leaves one part enters another: what lies between
    them passes on what it receives. (The same count proves that spanning trees cannot be packed more
    densely: W. T. Tutte and C. St. J. A. Nash-Williams, 1961.) A single part must hear all M, and tell as
    much.

    Parameters
    ----------
    network
        What it is the bound of.
    parts
        Vertices of each part, at least one rank in each; two or more parts with all ranks in them, or one.
    capacity
        Of all links into the parts, or out of them, whichever is less.
    """

    network: Network
    parts: tuple[tuple[int, ...], ...]
    capacity: int

    @property
    def seconds_per_byte(self) -> Fraction:
        """Least time over the bytes of the result."""
        return Fraction(max(2 * len(self.parts) - 2, 1), self.capacity * self.network.unit)

    @property
    def algbw(self) -> Fraction:
        """Greatest rate, bytes of the result per second."""
        return 1 / self.seconds_per_byte

    @property
    def cut(self) -> Cut:
        """The first part."""
        part = self.parts[0]
        inside = np.zeros(self.network.nvertices, np.bool_)
        inside[list(part)] = True
        leaving = inside[self.network.src] & ~inside[self.network.dst]
        ranks = sum(v < self.network.nranks for v in part)
        return Cut(part, ranks, int(self.network.capacity[leaving].sum()))

    def limited_by(self) -> str:
        """Name the links into the parts."""
        label = np.full(self.network.nvertices, -1, np.int64)
        for number, part in enumerate(self.parts):
            label[list(part)] = number
        ends = label[self.network.src], label[self.network.dst]
        entering = np.flatnonzero((ends[0] != ends[1]) & (ends[1] >= 0))
        names = self.network.names
        return describe_links((names[self.network.src[a]], names[self.network.dst[a]]) for a in entering)


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


def repair(plan: Plan, fault: Fault, *, moves: int = MOVES) -> Plan:
    """Make a plan for what is left after a fault, changing only trees that used what broke.

    Parameters
    ----------
    plan
        Of :func:`pycomm.planner.graph.synthesis.synthesize`, or repaired before.
    fault
        What broke, by names of the plan's network.
    moves
        How many trees may be moved away from the links that are the busiest in the end.

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
    return _mended(plan, fault, moves, REFUSALS)


def _mended(plan: Plan, fault: Fault, moves: int, refusals: int) -> Plan:
    """Repair a plan, with so much effort to relieve the busiest links."""
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
    around = [
        int(half.index.names(tree)[0][rank])
        for half, (cut, slowed) in zip(halves, broken, strict=True)
        for tree, _, rank in _some([*cut, *slowed])
    ]
    parts = task.parts(old, before, work, around)
    pieces = _cut_off(work, broken, heirs)
    least = max((float(task.need(part)) for part in parts), default=0.0)
    steady = np.array(work.busy)
    steady[slow] = 0
    work.limit = max(float(steady.max(initial=0.0)), least) * (1 + 1e-9)
    left = [(h, p, rank) for h, p, rank, path in pieces if not work.detour(h, p, rank, path)]
    for half, patch, rank in left:
        if not patch.holds(rank):
            work.join(half, patch, rank)
    for link in slow.tolist():
        _shed(work, link)
    work.relieve(moves, refusals, least * (1 + 1e-7))
    return task.plan(old, fault, work, parts, started, gone=bool(len(gone)))


_Broken = list[tuple[int, Patch | None, int]]
_Piece = tuple[Half, Patch, int, tuple[int, ...]]


def _some(broken: _Broken) -> _Broken:
    """Take a few of many, evenly."""
    return broken[:: -(-len(broken) // MOST_PLACES) or 1]


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


def _shed(work: Work, link: int) -> None:
    """Lead trees away from a link that slowed down; where nothing else has room, everything is fuller."""
    while work.busy[link] > work.limit:
        if not work.shed(link, PIECES, REFUSALS) and work.busy[link] > work.limit:
            work.limit = min(work.limit * RAISE, work.busy[link])


# ------------------------------------------------------------------------------------------------------ bound


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
            known += _parts_bounds(network)
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


def _parts_bounds(network: Network) -> Iterator[PartsBound]:
    """Prove least times of an allreduce: by its narrowest rank, and by parts that slow links join."""
    n = network.nranks
    ends = [np.bincount(end, network.capacity, network.nvertices)[:n] for end in (network.dst, network.src)]
    least = np.minimum(*ends)
    rank = int(np.argmin(least))
    yield PartsBound(network, ((rank,),), int(least[rank]))
    for rate in [*np.unique(network.capacity)[::-1][:MOST_RATES].tolist()]:
        label = _joined(network, network.capacity > rate)
        names, sizes = np.unique(label[:n], return_counts=True)
        if len(names) < 2 or (len(sizes) == 0):
            continue
        part = np.where(np.isin(label, names), label, -1)
        if any(part[v] < 0 for v in (*network.multicast, *network.reduction)):
            continue
        src, dst = part[network.src], part[network.dst]
        across = src != dst
        capacity = min(int(network.capacity[across & (end >= 0)].sum()) for end in (src, dst))
        parts = tuple(tuple(np.flatnonzero(part == name).tolist()) for name in names.tolist())
        if capacity:
            yield PartsBound(network, parts, capacity)


def _joined(network: Network, which: Mask) -> Ints:
    """Label vertices that some arcs join, in either direction, by the least of them."""
    label = np.arange(network.nvertices)
    src, dst = network.src[which], network.dst[which]
    while True:
        least = np.minimum(label[src], label[dst])
        new = label.copy()
        np.minimum.at(new, src, least)
        np.minimum.at(new, dst, least)
        new = new[new]
        if np.array_equal(new, label):
            return label
        label = new


# ------------------------------------------------------------------------------------------------- background


def replan(plan: Plan) -> Plan:
    """Give a repaired plan its exact bound, or plan anew where it is more than 1% below; the better of both.

    Parameters
    ----------
    plan
        Repaired, or any other.

    Notes
    -----
    First the exact bound; then many more moves of single trees; then, if the plan is still more than 1% below
    the bound, one that is made from nothing.
    """
    started = time.perf_counter()
    plan = replace(plan, bound=_exact_bound(plan))
    if plan.ratio < CLOSE:
        moved = replace(_mended(plan, Fault(), MOST_MOVES, MOST_REFUSALS), bound=plan.bound)
        plan = moved if moved.algbw > plan.algbw else plan
    if plan.ratio < CLOSE:
        try:
            anew = plan_on(plan.network, plan.kind, plan.root)
        except PlanningError:  # such as weights too fine; the plan that there is stays good
            return replace(plan, seconds=time.perf_counter() - started)
        plan = anew if anew.algbw > plan.algbw else plan
    return replace(plan, seconds=time.perf_counter() - started)


def _exact_bound(plan: Plan) -> AnyBound:
    if plan.kind is CollectiveKind.ALLREDUCE:
        from pycomm.planner.graph.free_roots import allreduce_bound

        return allreduce_bound(plan.network)
    return bound(plan.network, plan.kind, plan.root)


class Replanning:
    """A search for a better plan that goes on beside other work; see :func:`replan_in_background`."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._found: Plan | None = None
        self._error: BaseException | None = None
        self._cancelled = False
        self._thread = threading.Thread(target=self._run, name="pycomm-replan", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = replan(self._plan)
        except BaseException as error:  # result() raises it where somebody hears
            self._error = error

    def done(self) -> bool:
        """Whether the search has ended; does not block."""
        return self._cancelled or not self._thread.is_alive()

    def cancel(self) -> None:
        """Give up: the result is the plan that there was. What is being computed ends by itself, unheard."""
        self._cancelled = True

    def result(self, timeout_s: float | None = None) -> Plan:
        """Wait for the better plan, or the one that there was when the search was cancelled.

        Raises
        ------
        DeadlineExceeded
            The search goes on; ask again.
        PycommError
            Planning failed; the plan that there was stays valid.
        """
        if not self._cancelled:
            self._thread.join(timeout_s)
        if self._cancelled:
            return self._plan
        if self._thread.is_alive():
            raise DeadlineExceeded(f"replanning has not ended after {timeout_s} s; ask again, or cancel it")
        if self._error is not None:
            raise self._error
        assert self._found is not None  # noqa: S101 (it ended without an error)
        return self._found


def replan_in_background(plan: Plan) -> Replanning:
    """Look for a plan within 1% of the optimum in a thread; the interpreter is free for most of the time.

    Parameters
    ----------
    plan
        Repaired; it stays valid and can be used meanwhile.
    """
    return Replanning(plan)
