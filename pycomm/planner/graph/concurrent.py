"""Greatest concurrent flow: every rank sends to every other at once, as fast as the links allow, exactly.

Data of rank s for rank d are a commodity; all commodities of one source are one flow that loses at each rank
what is for it. So there is an unknown for each source and arc:

    maximise rate   subject to   into_s(v) - out_s(v) == rate * demand[s, v]    for every s and every v != s
                                 sum of f_s(a) over s <= capacity(a)            for every arc a

Renamings that leave network and demands as they are share unknowns: one for each class of pairs (source,
arc). The solver works in floating point; what it finds is made exact and checked. The proof that no more is
possible is a *length* of each arc, 0 or more: a byte from s to d takes up at least the distance from s to d,
and the arcs offer no more than their capacities times their lengths. That holds for any lengths whatever,
and so :func:`rate_by_lengths` needs to trust nobody. The solver's multipliers are lengths that meet the flow.

References
----------
* F. Shahrokhi, D. W. Matula: The maximum concurrent flow problem. Journal of the ACM 37, 1990 (the duality of
  flows and lengths).
* T. Leighton, S. Rao: Multicommodity max-flow min-cut theorems and their use in designing approximation
  algorithms. Journal of the ACM 46, 1999 (cuts alone may be too optimistic, by a factor that grows with
  the logarithm of the ranks).
* Q. Huangfu, J. A. J. Hall: Parallelizing the dual revised simplex method. Mathematical Programming
  Computation 10, 2018 (HiGHS).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pycomm.errors import InternalError
from pycomm.planner.graph.network import Network
from pycomm.planner.graph.rational import simplest, solve_exactly
from pycomm.planner.graph.symmetric import arc_numbers
from pycomm.planner.graph.symmetry import orbits_of

__all__ = ["ConcurrentFlow", "Pairs", "pairs_of", "rate_by_lengths", "solve_concurrent"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MAX_STEPS = 1 << 27
"""Renamings times sources times arcs; beyond, fewer renamings are used."""
_TIGHT = (1e-9, 1e-7, 1e-11)


# ---------------------------------------------------------------------------------------------------- classes


@dataclass(frozen=True, eq=False)
class Pairs:
    """Classes of ranks, of arcs, and of pairs of a source with an arc or a vertex, under renamings.

    Parameters
    ----------
    network, demands
        What the renamings leave as it is.
    generators
        Each as the new name of every vertex, and of every arc.
    source
        int64 array: the class of each rank, numbered by first member.
    arc
        int64 array: the class of each arc.
    images
        Where the renamings move every rank to every other in one way: the new names of all vertices under
        each, shape ``(nranks, nvertices)``. Everything of one source then stands for all.
    """

    network: Network
    demands: Ints
    generators: tuple[tuple[Ints, Ints], ...]
    source: Ints
    arc: Ints
    images: Ints | None = None

    @property
    def representatives(self) -> Ints:
        """The first rank of each class."""
        return np.sort(np.unique(self.source, return_index=True)[1])

    @cached_property
    def flow(self) -> Ints:
        """Class of each pair of a source and an arc, shape ``(nranks, narcs)``."""
        n, narc = self.network.nranks, len(self.network.src)
        if self.images is not None:
            label = np.empty((n, narc), np.int64)
            for image in self.images:
                arcs = arc_numbers(self.network, image[self.network.src], image[self.network.dst])
                label[image[0], arcs] = np.arange(narc)
            return label
        some = self.generators[: max(1, MAX_STEPS // (n * narc))]
        return _classes(n * narc, [_product(image[:n], arcs) for image, arcs in some]).reshape(n, narc)

    @cached_property
    def vertex(self) -> Ints:
        """Class of each pair of a source and a vertex, shape ``(nranks, nvertices)``."""
        n, narc, count = self.network.nranks, len(self.network.src), self.network.nvertices
        if self.images is not None:
            label = np.empty((n, count), np.int64)
            for image in self.images:
                label[image[0], image] = np.arange(count)
            return label
        some = self.generators[: max(1, MAX_STEPS // (n * narc))]
        return _classes(n * count, [_product(image[:n], image) for image, _ in some]).reshape(n, count)


def pairs_of(network: Network, demands: Ints) -> Pairs:
    """Find renamings, and what they make alike; demands are of shape ``(nranks, nranks)``."""
    n, narc, nvertex = network.nranks, len(network.src), network.nvertices
    generators: list[tuple[Ints, Ints]] = []
    for old, new in orbits_of(network, _labels(network, demands)).generators:
        image = np.arange(nvertex)
        image[old] = new
        if np.array_equal(demands[np.ix_(image[:n], image[:n])], demands):
            generators.append((image, arc_numbers(network, image[network.src], image[network.dst])))
    return Pairs(
        network,
        demands,
        tuple(generators),
        _classes(n, [image[:n] for image, _ in generators]),
        _classes(narc, [arcs for _, arcs in generators]),
    )


def _labels(network: Network, demands: Ints) -> Ints:
    """Tell ranks apart that send or receive other amounts."""
    off = demands.copy()
    np.fill_diagonal(off, 0)
    rows = np.concatenate((np.sort(off, axis=1), np.sort(off.T, axis=1)), axis=1)
    label = np.zeros(network.nvertices, np.int64)
    label[: network.nranks] = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
    return label


def _product(image: Ints, other: Ints) -> Ints:
    return (image[:, None] * len(other) + other).reshape(-1)


def _classes(count: int, images: Sequence[Ints]) -> Ints:
    """Join what the images carry into one another; classes are numbered by first members."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    moved = [np.flatnonzero(image != np.arange(count)) for image in images]
    old = np.concatenate([np.zeros(0, np.int64), *moved])
    new = np.concatenate([np.zeros(0, np.int64), *(i[m] for i, m in zip(images, moved, strict=True))])
    joined = coo_array((np.ones(len(old), np.int8), (old, new)), shape=(count, count))
    label = connected_components(joined, directed=False)[1]
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return rank[inverse]


# ------------------------------------------------------------------------------------------------------ proof


def distances(network: Network, lengths: Sequence[int], source: int) -> list[int]:
    """Least sums of lengths from a vertex to all others, exact; -1 where there is no way."""
    ways: list[list[tuple[int, int]]] = [[] for _ in range(network.nvertices)]
    for a, b, length in zip(network.src.tolist(), network.dst.tolist(), lengths, strict=True):
        ways[a].append((b, length))
    found = [-1] * network.nvertices
    todo = [(0, source)]
    while todo:
        far, v = heapq.heappop(todo)
        if found[v] < 0:
            found[v] = far
            for w, length in ways[v]:
                if found[w] < 0:
                    heapq.heappush(todo, (far + length, w))
    return found


def _all_distances(network: Network, lengths: Sequence[int], sources: Ints) -> Iterator[list[int]]:
    """Distances from several vertices; in floating point where that is exact."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    count = network.nvertices
    if (max(lengths) * count + 1) * count >= 1 << 53:
        yield from (distances(network, lengths, source) for source in sources.tolist())
        return
    # No length may be 0 there: an arc counts 1 more, and no way has as many arcs as make one of a length.
    longer = np.array(lengths, np.float64) * count + 1
    starts = np.searchsorted(network.src, np.arange(count + 1))
    graph = csr_array((longer, network.dst, starts), shape=(count, count))
    for source in sources.tolist():
        far = dijkstra(graph, indices=source)
        yield np.where(np.isfinite(far), far // count, -1).astype(np.int64).tolist()


def rate_by_lengths(
    network: Network, demands: Ints, lengths: Sequence[int], source: Ints | None = None
) -> Fraction | None:
    """Bound the rate of a concurrent flow by lengths of the arcs.

    Parameters
    ----------
    network, demands
        What is asked.
    lengths
        Whole numbers, 0 or more, one for each arc.
    source
        Class of each rank, when all of a class are known to have equal distances to all, weighted by demand.

    Returns
    -------
    Fraction or None
        Capacity times length over demand times distance; ``None`` when nothing has any length.
    """
    n = network.nranks
    labels = np.arange(n) if source is None else source
    _, first, count = np.unique(labels, return_index=True, return_counts=True)
    used = 0
    for rank, times, far in zip(
        first.tolist(), count.tolist(), _all_distances(network, lengths, first), strict=True
    ):
        used += times * sum(w * d for w, d in zip(demands[rank].tolist(), far, strict=False) if w)
    if used <= 0:
        return None
    offered = sum(c * x for c, x in zip(network.capacity.tolist(), lengths, strict=True))
    return Fraction(offered, used)


# -------------------------------------------------------------------------------------------------- programme


@dataclass(frozen=True, eq=False)
class ConcurrentFlow:
    """A concurrent flow, and how much better one could be.

    Parameters
    ----------
    pairs
        The programme's classes.
    flow
        Of each class of (source, arc), in units of capacity.
    rate
        Demands served per unit of time, proved by the flow when ``exact``.
    upper
        What nothing exceeds, proved by ``lengths``.
    lengths
        Of each arc.
    exact
        Whether the flow is exact and meets ``upper``.
    """

    pairs: Pairs
    flow: tuple[Fraction, ...]
    rate: Fraction
    upper: Fraction
    lengths: tuple[int, ...]
    exact: bool

    def of(self, source: int) -> list[Fraction]:
        """Flow of a source on each arc."""
        return [self.flow[label] for label in self.pairs.flow[source].tolist()]


class _Programme:
    """The linear programme over classes. The last unknown is the rate."""

    def __init__(self, pairs: Pairs) -> None:
        network, demands = pairs.network, pairs.demands
        self.pairs = pairs
        n = network.nranks
        kinds, where = np.unique(pairs.flow, return_index=True)
        source, arc = np.divmod(where, len(network.src))
        self.useful = network.dst[arc] != source  # nothing comes back
        self.column = np.full(len(kinds), -1, np.int64)
        self.column[self.useful] = np.arange(int(self.useful.sum()))
        self.rate = int(self.useful.sum())
        self.demand_scale = int(demands.max())
        self.capacity_scale = int(network.capacity.max())
        self.arcs = np.sort(np.unique(pairs.arc, return_index=True)[1])
        kinds, where = np.unique(pairs.vertex, return_index=True)
        source, vertex = np.divmod(where, network.nvertices)
        live = vertex != source
        self.balance_at = list(zip(source[live].tolist(), vertex[live].tolist(), strict=True))
        into: list[list[int]] = [[] for _ in range(network.nvertices)]
        out: list[list[int]] = [[] for _ in range(network.nvertices)]
        for a, (u, v) in enumerate(zip(network.src.tolist(), network.dst.tolist(), strict=True)):
            out[u].append(a)
            into[v].append(a)
        self.balance = []
        for s, v in self.balance_at:
            row = self._sum(pairs.flow[s, into[v]], 1)
            for j, times in self._sum(pairs.flow[s, out[v]], -1).items():
                row[j] = row.get(j, 0) + times
            if v < n and demands[s, v]:
                row[self.rate] = -int(demands[s, v])
            self.balance.append({j: times for j, times in row.items() if times})
        self.shared = [self._sum(pairs.flow[:, a], 1) for a in self.arcs.tolist()]
        self.capacity = network.capacity[self.arcs].tolist()

    def _sum(self, labels: Ints, sign: int) -> dict[int, int]:
        columns, counts = np.unique(self.column[labels], return_counts=True)
        return {j: sign * c for j, c in zip(columns.tolist(), counts.tolist(), strict=True) if j >= 0}

    def matrix(self, rows: Sequence[dict[int, int]]) -> Any:
        """Lay rows out for the solver; the rate counts in units of the greatest demand."""
        from scipy.sparse import csr_array

        starts = np.cumsum([0, *(len(row) for row in rows)])
        columns = np.array([j for row in rows for j in row], np.int64)
        data = np.array([a for row in rows for a in row.values()], np.float64)
        data[columns == self.rate] /= self.demand_scale
        return csr_array((data, columns, starts), shape=(len(rows), self.rate + 1))

    def solve(self) -> Any:
        """Solve in floating point: the simplex method, whose answer is a vertex."""
        from scipy.optimize import linprog

        cost = np.zeros(self.rate + 1)
        cost[self.rate] = -1
        found = linprog(
            cost,
            A_ub=self.matrix(self.shared),
            b_ub=np.array(self.capacity) / self.capacity_scale,
            A_eq=self.matrix(self.balance),
            b_eq=np.zeros(len(self.balance)),
            bounds=(0, None),
            method="highs-ds",
            options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
        )
        if found.x is None or found.status != 0:
            raise InternalError("HiGHS did not solve the linear programme of flows; please report it")
        return found

    # ------------------------------------------------------------------------------------------------ exactly

    def lengths(self, found: Any) -> Iterator[list[int]]:
        """Make lengths of the multipliers: by rounding, by solving what is tight, or else nearly."""
        prices = np.maximum(-found.ineqlin.marginals, 0.0)
        top = float(prices.max(initial=0)) or 1.0
        yield self._whole([simplest(p / top, 1e-9, 10_000) or Fraction(0) for p in prices.tolist()])
        for tight in _TIGHT:
            solved = self._tight_lengths(found, tight)
            if solved is not None:
                yield self._whole(solved)
        yield self._whole([Fraction(round(p / top * (1 << 40))) for p in prices.tolist()])

    def _whole(self, prices: Sequence[Fraction]) -> list[int]:
        """Give each arc the price of its class for each of its members, in whole numbers."""
        common = math.lcm(*(p.denominator for p in prices))
        members = np.bincount(self.pairs.arc)
        # The row of a class stands for all of its arcs: each has an equal part of the multiplier.
        scale = math.lcm(*members.tolist())
        whole = [int(p * common) * (scale // m) for p, m in zip(prices, members.tolist(), strict=True)]
        divisor = math.gcd(*whole) or 1
        return [whole[label] // divisor for label in self.pairs.arc.tolist()]

    def _tight_lengths(self, found: Any, tight: float) -> list[Fraction] | None:
        """Solve the equations of multipliers: each unknown that may be positive costs what it earns."""
        prices, reduced = -found.ineqlin.marginals, found.lower.marginals
        number = {int(i): k for k, i in enumerate(np.flatnonzero(prices > tight))}
        equations: dict[int, dict[int, int]] = {int(j): {} for j in np.flatnonzero(np.abs(reduced) <= tight)}
        for k, row in enumerate([*(self.shared[i] for i in number), *self.balance]):
            for j, a in row.items():
                if j in equations:
                    equations[j][k] = a
        right = [Fraction(-1 if j == self.rate else 0) for j in equations]
        solved = solve_exactly(list(equations.values()), right, len(number) + len(self.balance))
        if solved is None:
            return None
        result = [Fraction(0)] * len(self.shared)
        for i, k in number.items():
            result[i] = abs(solved[k])
        return result

    def flow(self, found: Any) -> Iterator[list[Fraction]]:
        """Make the vertex exact: by rounding, or by solving what is tight."""
        value = found.x * self.capacity_scale
        value[self.rate] /= self.demand_scale
        rounded = [simplest(x, 1e-10 * self.capacity_scale) for x in value.tolist()]
        if all(x is not None for x in rounded):
            yield [x for x in rounded if x is not None]
        for tight in _TIGHT:
            live = np.flatnonzero(found.x > tight).tolist()
            number = {j: k for k, j in enumerate(live)}
            held = np.flatnonzero(found.slack <= tight).tolist()
            rows = [*self.balance, *(self.shared[i] for i in held)]
            right = [0] * len(self.balance) + [self.capacity[i] for i in held]
            cut = [{number[j]: a for j, a in row.items() if j in number} for row in rows]
            solved = solve_exactly(cut, right, len(live))
            if solved is not None:
                exact = [Fraction(0)] * (self.rate + 1)
                for j, x in zip(live, solved, strict=True):
                    exact[j] = x
                yield exact

    def keeps(self, value: Sequence[Fraction]) -> bool:
        """Whether a solution keeps every constraint, exactly."""

        def total(row: dict[int, int]) -> Fraction:
            return sum((value[j] * a for j, a in row.items()), Fraction(0))

        return (
            min(value) >= 0
            and all(total(row) == 0 for row in self.balance)
            and all(total(row) <= c for row, c in zip(self.shared, self.capacity, strict=True))
        )


def solve_concurrent(pairs: Pairs) -> ConcurrentFlow:
    """Find the greatest concurrent flow.

    Parameters
    ----------
    pairs
        Network, demands (not all 0, each with a way), and their classes.

    Raises
    ------
    InternalError
        The solver gives up.
    """
    programme = _Programme(pairs)
    found = programme.solve()
    guess = float(found.x[programme.rate]) * programme.capacity_scale / programme.demand_scale
    upper, lengths = _proof(programme, found, guess)
    near: list[Fraction] = []
    for value in programme.flow(found):
        if value[programme.rate] == upper and programme.keeps(value):
            return ConcurrentFlow(pairs, _spread(programme, value), upper, upper, tuple(lengths), exact=True)
    near = [Fraction(max(x, 0.0)) * programme.capacity_scale for x in found.x.tolist()]
    rate = near[programme.rate] / programme.demand_scale
    return ConcurrentFlow(pairs, _spread(programme, near), rate, upper, tuple(lengths), exact=False)


def _spread(programme: _Programme, value: Sequence[Fraction]) -> tuple[Fraction, ...]:
    return tuple(value[j] if j >= 0 else Fraction(0) for j in programme.column.tolist())


def _proof(programme: _Programme, found: Any, guess: float) -> tuple[Fraction, list[int]]:
    """Take the best lengths; the first that meet the flow, as far as floating point can tell."""
    pairs = programme.pairs
    best: tuple[Fraction, list[int]] | None = None
    for lengths in programme.lengths(found):
        upper = rate_by_lengths(pairs.network, pairs.demands, lengths, pairs.source)
        if upper is not None and (best is None or upper < best[0]):
            best = upper, lengths
            if float(upper) <= guess * (1 + 1e-11):
                break
    if best is None:
        raise InternalError(
            "the multipliers of the linear programme of flows prove nothing; please report it"
        )
    return best
