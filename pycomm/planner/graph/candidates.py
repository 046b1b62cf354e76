"""Candidates that the structure of a network suggests for an allgather, with exact loads.

The least load that any plan can have is known from the exact bound, so that a search ends as soon as it is
met.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from pycomm.planner.graph.forest import Forest
from pycomm.planner.graph.network import Network
from pycomm.planner.graph.structure import Structure, structures
from pycomm.planner.graph.symmetric import BaseTree, Ints, SymmetricForest, symmetric_forest
from pycomm.planner.graph.translated_trees import translated_trees
from pycomm.planner.graph.unit_trees import Turns, UnitTrees, direct

__all__ = ["Candidate", "allgather_candidates", "most_load", "replicated_forests", "reversed_structure"]

MAX_EVALUATIONS = 24
"""Ways of taking turns that are tried for one structure."""
MAX_TREES = 16
"""Trees for each root, by default."""
MAX_REPEATS = 64
"""Trees for each root that even use of parallel switches may take."""


@dataclass(frozen=True)
class Candidate:
    """A forest, and why it was made.

    Parameters
    ----------
    forest
        Trees of equal weight at every rank.
    how
        For people, such as ``"2 translated shortest-path trees at each rank of a 8 x 8 x 16 torus"``.
    k
        Trees at each rank.
    load
        The greatest load over capacity, for each unit of share.
    """

    forest: Forest
    how: str
    k: int
    load: Fraction


def most_load(network: Network, loads: Ints) -> Fraction:
    """Greatest load over capacity, exactly."""
    if not len(loads):
        return Fraction(0)
    ratio = loads / network.capacity
    close = np.flatnonzero(ratio >= ratio.max() * (1 - 1e-12))
    pairs = np.unique(np.stack((loads[close], network.capacity[close]), axis=1), axis=0)
    return max(Fraction(load, capacity) for load, capacity in pairs.tolist())


def reversed_structure(structure: Structure) -> Structure:
    """Look at the network with all arcs turned round in the same way."""
    return replace(structure, network=structure.network.reversed())


Pack = Callable[[Network], Forest]
"""Makes an optimal forest for a small network, with equal weights of the roots."""


def allgather_candidates(
    network: Network, least: Fraction, pack: Pack | None = None, trees: int = MAX_TREES
) -> Iterator[Candidate]:
    """Make candidates, structure by structure, each better than those of its structure before it.

    Parameters
    ----------
    network
        The network.
    least
        The load that no plan can be below, for each unit of share: a structure that meets it is left.
    pack
        For the inside of hosts that have no structure; without it they yield no candidate.
    trees
        How many trees there may be at each rank.
    """
    for structure in structures(network):
        if structure.direct:
            for forest in translated_trees(structure, trees):
                k = len(forest.base)
                yield _candidate(forest, k, f"translated shortest-path trees on {structure.describe()}")
        else:
            yield from _unit_candidates(UnitTrees(structure), least, pack, trees)


def replicated_forests(structure: Structure) -> Iterator[SymmetricForest]:
    """Make forests whose edges from one rank share their way to the switches that replicate."""
    for together in (False, True):
        unit = UnitTrees(structure, together)
        usual = unit.usual_turns()
        turns = usual._replace(from_edge_to_edge=(0,) * len(usual.from_edge_to_edge))
        forest = _Maker(unit, None).make(turns)
        if forest is not None:
            yield forest


def _candidate(forest: SymmetricForest, k: int, how: str) -> Candidate:
    load = most_load(forest.network, forest.loads())
    share = Fraction(forest.weight(), forest.network.nranks)
    return Candidate(forest, how, k, load / share)


@dataclass(frozen=True)
class _Maker:
    """Makes forests that enter each unit once, spreading inside hosts directly or along given trees."""

    unit: UnitTrees
    inner: list[BaseTree] | None

    def make(
        self, turns: Turns, whole: tuple[int, ...] = (), extra: tuple[int, ...] = (0,)
    ) -> SymmetricForest | None:
        """Make a forest; ``extra`` has, for each tree of a root, how many more places are entered."""
        unit, symmetry = self.unit, self.unit.symmetry(turns, whole)
        shapes = {level: direct(unit.row(level)) for level in unit.levels}
        base: list[BaseTree] = []
        for number in extra:
            more = (
                unit.base(symmetry, turns, shapes, number)
                if self.inner is None
                else unit.base_with_inner(symmetry, turns, shapes, self.inner)
            )
            if more is None:
                return None
            base += more
        return symmetric_forest(symmetry, base)


def _maker(unit: UnitTrees, pack: Pack | None) -> _Maker | None:
    """Choose how shares spread inside hosts; ``None`` when there is no way."""
    maker = _Maker(unit, None)
    if maker.make(unit.usual_turns()) is not None:
        return maker
    inner = _inner_trees(unit, pack)
    return None if inner is None else _Maker(unit, inner)


def _unit_candidates(unit: UnitTrees, least: Fraction, pack: Pack | None, trees: int) -> Iterator[Candidate]:
    """Enter each unit once; if that is not enough, in more places, or over all twins evenly."""
    structure = unit.structure
    maker = _maker(unit, pack)
    if maker is None:
        return
    inside = "" if maker.inner is None else ", packed inside hosts"
    what = f"trees at each rank of {structure.describe()}{inside}, each unit entered once"
    turns, forest = _best_turns(unit, maker.make, least)
    if forest is None:
        return
    best = _candidate(forest, len(forest.base) // len(unit.roots()), what)
    yield best
    k = best.k
    if best.load > least and maker.inner is None and unit.row(0) > 1 and unit.most_extra:
        for candidate in _with_extras(unit, maker.make, turns, trees, best, least):
            best = candidate
            yield best
    for kinds in unit.kinds_to_repeat(MAX_REPEATS // k):
        if best.load <= least:
            return
        repeated = maker.make(turns, kinds)
        repeats = math.prod(structure.twins[kind].count for kind in kinds)
        if repeated is not None:
            even = _candidate(repeated, repeats * k, f"{what}, all parallel switches used evenly")
            if even.load < best.load:
                best = even
                yield best


def _best_turns(
    unit: UnitTrees, make: Callable[[Turns], SymmetricForest | None], least: Fraction
) -> tuple[Turns, SymmetricForest | None]:
    """Try ways of taking turns, changing one thing at a time while it helps."""
    turns = unit.usual_turns()
    best = make(turns)
    if best is None or not turns.from_edge_to_edge:
        return turns, best
    load = _candidate(best, 1, "").load
    evaluations = 0
    improved = True
    while improved and load > least and evaluations < MAX_EVALUATIONS:
        improved = False
        for other in _neighbours(turns, unit):
            forest = make(other)
            evaluations += 1
            other_load = load if forest is None else _candidate(forest, 1, "").load
            if other_load < load:
                turns, best, load, improved = other, forest, other_load, True
            if load <= least or evaluations >= MAX_EVALUATIONS:
                break
    return turns, best


def _neighbours(turns: Turns, unit: UnitTrees) -> Iterator[Turns]:
    """Ways that differ in one thing."""
    for kind, twin in enumerate(unit.structure.twins):
        for axis in unit.axes:
            now = turns.along[kind][axis]
            for step in (0, 1):
                if step != now and (step or twin.count > 1):
                    along = [list(row) for row in turns.along]
                    along[kind][axis] = step
                    yield turns._replace(along=tuple(map(tuple, along)))
        edge = list(turns.from_edge_to_edge)
        edge[kind] = 1 - edge[kind]
        yield turns._replace(from_edge_to_edge=tuple(edge))


def _with_extras(
    unit: UnitTrees,
    make: Callable[..., SymmetricForest | None],
    turns: Turns,
    trees: int,
    best: Candidate,
    least: Fraction,
) -> Iterator[Candidate]:
    """Let some shares enter hosts in more places than one, until links inside and outside are even."""
    one = make(turns, (), (1,))
    if one is None or not isinstance(best.forest, SymmetricForest):
        return
    network = unit.structure.network
    plain = best.forest.loads()
    change = one.loads() - plain
    rows = np.unique(np.stack((network.capacity, plain, change), axis=1), axis=0)
    most = unit.most_extra
    for k in range(1, trees + 1):
        extra = np.arange(k * most + 1)
        loads = ((rows[:, 1] * k + rows[:, 2] * extra[:, None]) / rows[:, 0]).max(axis=1)
        number = int(loads.argmin())
        if not number or loads[number] / k >= float(best.load) * (1 - 1e-9):
            continue
        shares = tuple(number // k + (i < number % k) for i in range(k))
        forest = make(turns, (), shares)
        if forest is None:
            return
        better = _candidate(forest, k, f"{best.how}, and in {number} more places")
        if better.load < best.load:
            best = replace(better, how=best.how)
            yield better
            if loads[number] / k <= float(least) * (1 + 1e-9):
                return


def _inner_trees(unit: UnitTrees, pack: Pack | None) -> list[BaseTree] | None:
    """Pack trees inside the host of the roots; on the whole network's vertices."""
    vertices = unit.host_of_roots()
    network = unit.structure.network
    if pack is None or not len(vertices) or len(vertices) == network.nvertices:
        return None
    inside = np.zeros(network.nvertices, bool)
    inside[vertices] = True
    small = subnetwork(network, vertices)
    if small.nranks < 2:
        return None
    forest = pack(small)
    trees = []
    for tree in forest.trees:
        width = max(len(edge.path) for edge in tree.edges)
        path = np.full((len(tree.edges), width), -1, np.int64)
        for row, edge in enumerate(tree.edges):
            path[row, : len(edge.path)] = vertices[list(edge.path)]
        src = vertices[[edge.src for edge in tree.edges]]
        dst = vertices[[edge.dst for edge in tree.edges]]
        trees.append(BaseTree(int(vertices[tree.root]), tree.weight, src, dst, path))
    return trees


def subnetwork(network: Network, vertices: Ints) -> Network:
    """Take the network of some vertices, sorted; capacities keep their unit."""
    number = np.full(network.nvertices, -1, np.int64)
    number[vertices] = np.arange(len(vertices))
    live = (number[network.src] >= 0) & (number[network.dst] >= 0)
    return Network(
        int((vertices < network.nranks).sum()),
        tuple(network.names[v] for v in vertices),
        number[network.src[live]].astype(np.int32),
        number[network.dst[live]].astype(np.int32),
        network.capacity[live],
        network.unit,
        network.latency_s[live],
        frozenset(int(number[v]) for v in network.multicast if number[v] >= 0),
        frozenset(int(number[v]) for v in network.reduction if number[v] >= 0),
    )
