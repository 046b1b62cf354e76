"""The linear programme of shared links: how much data, from which roots, over which share of each arc.

Data of weight ``x[r]`` start at each rank ``r`` and every rank has to get all of them, over a share ``f`` of
each arc's capacity. Trees that do it exist if and only if each set of vertices that lacks a rank lets out
what its own ranks hold (Edmonds), and no switch takes in more of ``f`` than it lets out or less. So, for one
or two such *halves* (a broadcast along the arcs, a reduction against them) that share the arcs:

    maximise sum(x)   subject to   out_f(S) >= x(S)         for every half and every S that lacks a rank
                                   in_f(w) == out_f(w)      for every half and every vertex w that is no rank
                                   sum of f over halves <= capacity

There are too many sets to write down, so they are added on demand: max-flows find those that the present
solution breaks. Alike ranks and arcs share one unknown (:mod:`~pycomm.planner.graph.symmetry`).

HiGHS solves it in floating point. The vertex that it finds is then solved exactly, and so is its dual:
weights on cuts that cover each rank at least once, whose total capacity bounds every solution. Both are
checked in whole numbers, whatever the solver said; when they meet, the value is exact. When they do not (a
numerically hard programme), the two are a proved interval.

References
----------
* J. Edmonds: Edge-disjoint branchings. In: Combinatorial Algorithms, 1973.
* J. Bang-Jensen, A. Frank, B. Jackson: Preserving and increasing local edge-connectivity in mixed graphs.
  SIAM Journal on Discrete Mathematics 8, 1995 (switches whose in and out agree can be split off).
* W. Cook, T. Koch, D. E. Steffy, K. Wolter: A hybrid branch-and-bound approach for exact rational
  mixed-integer programming. Mathematical Programming Computation 5, 2013 (exact values from a floating-point
  basis).
* Q. Huangfu, J. A. J. Hall: Parallelizing the dual revised simplex method. Mathematical Programming
  Computation 10, 2018 (HiGHS).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pycomm.errors import InternalError
from pycomm.planner.graph.network import Network
from pycomm.planner.graph.rational import simplest, solve_exactly
from pycomm.planner.graph.symmetry import Orbits

__all__ = ["Certificate", "Half", "Programme", "Solution", "WeightedCut", "both_halves", "solve"]

_MAX_ROUNDS = 400
_TIGHT = (1e-9, 1e-7, 1e-11)
"""Slack, relative to the greatest capacity, below which a constraint counts as tight; tried in turn."""
_GRID = 1 << 40
"""Whole units that a floating-point solution is rounded to, for max-flows."""

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]
_Row = dict[int, int]


@dataclass(frozen=True, eq=False)
class Half:
    """One direction in which data spread from the roots.

    Parameters
    ----------
    network
        Turned so that data run from the roots along the arcs.
    base
        int64: which arc of the programme's own network each arc is.
    """

    network: Network
    base: _Ints


def both_halves(network: Network) -> tuple[Half, Half]:
    """Broadcast along the arcs, and reduction against them."""
    straight = Half(network, np.arange(len(network.src)))
    return straight, Half(network.reversed(), np.lexsort((network.src, network.dst)))


class WeightedCut(NamedTuple):
    """Vertices of one side of a cut, and how much it counts in a proof.

    Parameters
    ----------
    half
        Index of the half whose arcs it counts.
    vertices
        Boolean array: the side that the data leave.
    weight
        At least 0.
    """

    half: int
    vertices: _Mask
    weight: Fraction


@dataclass(frozen=True, eq=False)
class Programme:
    """What is asked.

    Parameters
    ----------
    network
        Its capacities are what the halves share.
    halves
        One or two.
    columns
        int64 array of shape ``(k, nranks)``: root weights that may be mixed freely. All unit vectors: free
        roots.
    orbits
        Parts that are alike, under renamings that keep the space of the columns.
    unbalanced
        For each half, vertices that may let out more than they take in: switches that replicate. The value is
        then a bound that trees need not reach.
    """

    network: Network
    halves: tuple[Half, ...]
    columns: _Ints
    orbits: Orbits
    unbalanced: tuple[frozenset[int], ...] = ()

    def merged_columns(self) -> _Ints:
        """Add up the columns that alike ranks share: any mix of the sums treats alike ranks alike."""
        table = np.zeros_like(self.columns)
        count = self.orbits.nvertex
        label = self.orbits.vertex[: self.network.nranks]
        groups: dict[bytes, int] = {}
        for column in self.columns:
            sums = np.bincount(label, column, count).astype(np.int64)
            support = bytes(sums > 0)
            row = groups.setdefault(support, len(groups))
            table[row] += column
        return table[: len(groups)]


@dataclass(frozen=True, eq=False)
class Certificate:
    """Why no more is possible: cuts, each with a weight, and a potential for each class of switches.

    Take any feasible solution. Each cut lets out at least what its ranks hold; the weights cover the data of
    every root at least once, so the weighted capacity of all cuts is at least all the data. An arc counts in
    one half as often as it leaves cuts, plus the difference of the potentials of its ends, whose total is
    nothing because switches are balanced; of the two halves the dearer counts, since they share the arc. Cuts
    stand for the average of all their images under the renamings in ``programme.orbits``.
    """

    programme: Programme
    cuts: tuple[WeightedCut, ...]
    potentials: tuple[tuple[Fraction, ...], ...]

    def prices(self) -> list[Fraction]:
        """Compute how much each class of arcs counts: for the whole class, the dearer half, 0 or more."""
        programme = self.programme
        price = [[Fraction(0)] * programme.orbits.narc for _ in programme.halves]
        for h, potential in enumerate(self.potentials):
            for k, a, times in _balance(programme, h):
                price[h][a] -= potential[k] * times
        for cut in self.cuts:
            for a, times in _leaving(programme, cut.half, cut.vertices):
                price[cut.half][a] += cut.weight * times
        return [max(Fraction(0), *each) for each in zip(*price, strict=True)]

    def covered(self) -> Fraction:
        """Compute how often the cuts count data at least, from whichever root."""
        columns = self.programme.merged_columns()
        cover = [Fraction(0)] * len(columns)
        nranks = self.programme.network.nranks
        for cut in self.cuts:
            if cut.weight < 0 or cut.vertices[:nranks].all():
                return Fraction(0)  # not a proof
            for j, weight in enumerate((columns @ cut.vertices[:nranks]).tolist()):
                cover[j] += cut.weight * weight
        return min(c / int(column.sum()) for c, column in zip(cover, columns, strict=True))

    def value(self) -> Fraction | None:
        """Compute the bound from the weights alone; ``None`` when they prove nothing."""
        covered = self.covered()
        if covered <= 0:
            return None
        capacity = _orbit_capacity(self.programme).tolist()
        total = sum((p * c for p, c in zip(self.prices(), capacity, strict=True) if p), Fraction(0))
        return total / covered

    def limiting(self) -> _Ints:
        """List the arcs that the proof counts."""
        counts = np.array([price > 0 for price in self.prices()], np.bool_)
        return np.flatnonzero(counts[self.programme.orbits.arc])


@dataclass(frozen=True, eq=False)
class Solution:
    """Shares of the arcs and weights of the roots, with what is proved of them.

    Parameters
    ----------
    shares
        For each half, the share of each arc of the programme's own network, in units of capacity.
    roots
        Data that start at each rank, in units of capacity; their sum is ``lower``.
    lower, upper
        Proved: the solution attains ``lower``, and nothing attains more than ``upper``. Equal unless the
        programme was numerically too hard.
    certificate
        Proof of ``upper``.
    rounds
        How often cuts were added.
    """

    shares: tuple[tuple[Fraction, ...], ...]
    roots: tuple[Fraction, ...]
    lower: Fraction
    upper: Fraction
    certificate: Certificate
    rounds: int


def _orbit_capacity(programme: Programme) -> _Ints:
    capacity = np.zeros(programme.orbits.narc, np.int64)
    capacity[programme.orbits.arc] = programme.network.capacity
    return capacity


def _leaving(programme: Programme, half: int, vertices: _Mask) -> Iterator[tuple[int, int]]:
    """Yield how many arcs of each class leave a set."""
    side = programme.halves[half]
    out = vertices[side.network.src] & ~vertices[side.network.dst]
    classes, counts = np.unique(programme.orbits.arc[side.base[out]], return_counts=True)
    yield from zip(classes.tolist(), counts.tolist(), strict=True)


def _balance(programme: Programme, half: int) -> list[tuple[int, int, int]]:
    """List (class of switches, class of arcs, arcs that arrive minus arcs that leave)."""
    side, orbits = programme.halves[half], programme.orbits
    table: dict[tuple[int, int], int] = {}
    balanced = np.arange(programme.network.nvertices) >= programme.network.nranks
    if programme.unbalanced:
        balanced[sorted(programme.unbalanced[half])] = False
    for ends, sign in ((side.network.dst, 1), (side.network.src, -1)):
        passing = balanced[ends]
        keys = orbits.vertex[ends[passing]] * max(orbits.narc, 1) + orbits.arc[side.base[passing]]
        for key, count in zip(*(u.tolist() for u in np.unique(keys, return_counts=True)), strict=True):
            pair = divmod(key, max(orbits.narc, 1))
            table[pair] = table.get(pair, 0) + sign * count
    return [(k, a, times) for (k, a), times in sorted(table.items()) if times]


class _Vertex(NamedTuple):
    """Optimal multipliers as the solver says them; ``value`` is in units of capacity."""

    value: float
    multipliers: _Floats
    potentials: _Floats
    reduced_costs: _Floats


class _Point(NamedTuple):
    """A vertex in which unknowns are sums of two parts, the first at most ``most``; in units of ``scale``."""

    parts: _Floats
    slack: _Floats
    most: list[Fraction]
    total: Fraction
    scale: int

    def values(self, count: int) -> _Floats:
        """Add the parts of the unknowns, in units of capacity."""
        values: _Floats = np.maximum(self.parts[:count] + self.parts[count:], 0.0) * self.scale
        return values


@dataclass(eq=False)
class _Master:
    """The programme with the cuts known so far. Unknowns: columns first, then the arcs of each half."""

    programme: Programme
    columns: _Ints
    cuts: list[tuple[int, _Mask]] = field(default_factory=list)
    rows: list[_Row] = field(default_factory=list)
    seen: set[tuple[tuple[int, int], ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        programme = self.programme
        self.capacity = _orbit_capacity(programme)
        self.scale = int(self.capacity.max(initial=1))
        self.narc, self.nhalf = programme.orbits.narc, len(programme.halves)
        self.ncolumn = len(self.columns)
        self.nunknown = self.ncolumn + self.nhalf * self.narc
        self.gain = self.columns.sum(axis=1)
        self.shared = [{self.unknown(h, a): 1 for h in range(self.nhalf)} for a in range(self.narc)]
        self.balance: dict[tuple[int, int], _Row] = {}
        for h in range(self.nhalf):
            for k, a, times in _balance(programme, h):
                self.balance.setdefault((h, k), {})[self.unknown(h, a)] = times
        everything = np.ones(programme.network.nvertices, np.bool_)
        for v in programme.orbits.representatives(programme.network.nranks).tolist():
            for h in range(self.nhalf):
                cut = everything.copy()
                cut[v] = False
                self.add(h, cut)

    def unknown(self, half: int, arc: int) -> int:
        """Tell the number of the unknown of a class of arcs."""
        return self.ncolumn + half * self.narc + arc

    def add(self, half: int, vertices: _Mask) -> bool:
        """Take in a cut; false when it is known."""
        row = {self.unknown(half, a): -times for a, times in _leaving(self.programme, half, vertices)}
        held = self.columns @ vertices[: self.programme.network.nranks]
        row.update({j: weight for j, weight in enumerate(held.tolist()) if weight})
        key = tuple(sorted(row.items()))
        if key in self.seen:
            return False
        self.seen.add(key)
        self.cuts.append((half, vertices.copy()))
        self.rows.append(row)
        return True

    def matrix(self, rows: Sequence[_Row]) -> Any:
        """Lay rows out for the solver."""
        from scipy.sparse import csr_array

        starts = np.cumsum([0, *(len(row) for row in rows)])
        columns = np.array([j for row in rows for j in row], np.int64)
        data = np.array([a for row in rows for a in row.values()], np.float64)
        return csr_array((data, columns, starts), shape=(len(rows), self.nunknown))

    def right(self) -> _Floats:
        """Right sides of cuts and shared capacities, the greatest capacity being 1."""
        return np.concatenate([np.zeros(len(self.rows)), self.capacity / self.scale])

    def best(self) -> _Vertex:
        """Find how much data there can be, and the multipliers that say why."""
        cost = np.zeros(self.nunknown)
        cost[: self.ncolumn] = -self.gain / self.gain.max()
        balance = list(self.balance.values())
        found = _highs(cost, self.matrix([*self.rows, *self.shared]), self.right(), self.matrix(balance))
        if found is None:
            raise InternalError("HiGHS did not solve the linear programme of shared links; please report it")
        value = float(found.x[: self.ncolumn] @ self.gain) * self.scale
        return _Vertex(value, -found.ineqlin.marginals, -found.eqlin.marginals, found.lower.marginals)

    def even(self, value: float, total: Fraction) -> _Point | None:
        """Find a vertex with this much data that uses all arcs and both halves as evenly as it can.

        A vertex that is merely optimal leaves most arcs unused, and breaks hundreds of cuts more. Here every
        unknown is the sum of two parts; the first, up to an even share, is rewarded. Even is, of an arc, the
        same share for each half; of the roots, as much at each, which comes first.
        """
        most = [total / int(self.gain.sum())] * self.ncolumn
        most += [Fraction(int(c), self.nhalf) for _ in range(self.nhalf) for c in self.capacity]
        limit = np.array([float(m) for m in most]) / self.scale
        smallest = float(limit[self.ncolumn :].min(initial=1.0))
        reward = smallest / np.maximum(limit, smallest)
        reward[: self.ncolumn] = 10.0 * self.gain
        above, equal = (
            self.matrix([*self.rows, *self.shared]),
            self.matrix([*self.balance.values(), self.all()]),
        )
        goal = np.zeros(len(self.balance) + 1)
        goal[-1] = value / self.scale
        from scipy.sparse import hstack

        found = _highs(
            np.concatenate([-reward, np.zeros(self.nunknown)]),
            hstack([above, above], format="csr"),
            self.right(),
            hstack([equal, equal], format="csr"),
            goal,
            np.concatenate([limit, np.full(self.nunknown, np.inf)]),
        )
        if found is None:
            return None
        return _Point(found.x, found.slack, most, total, self.scale)

    def all(self) -> _Row:
        """Coefficients of the data of all roots."""
        return {j: weight for j, weight in enumerate(self.gain.tolist()) if weight}

    def primal(self, point: _Point, tight: float) -> list[Fraction] | None:
        """Solve what is tight at a vertex exactly; ``None`` when that is no feasible solution."""
        n = self.nunknown
        values = [Fraction(0)] * n
        number: dict[int, list[int]] = {}
        live = 0
        for part, value in enumerate(point.parts.tolist()):
            j = part % n
            if part < n and value >= float(point.most[j]) / point.scale - tight:
                values[j] += point.most[j]
            elif value > tight:
                number.setdefault(j, []).append(live)
                live += 1
        limits = [*(Fraction(0) for _ in self.rows), *(Fraction(int(c)) for c in self.capacity)]
        held = [(row, limit) for row, limit in zip([*self.rows, *self.shared], limits, strict=True)]
        held = [held[i] for i in np.flatnonzero(point.slack <= tight).tolist()]
        held += [(row, Fraction(0)) for row in self.balance.values()] + [(self.all(), point.total)]
        rows = [{k: a for j, a in row.items() for k in number.get(j, ())} for row, _ in held]
        right = [limit - sum((a * values[j] for j, a in row.items()), Fraction(0)) for row, limit in held]
        solved = solve_exactly(rows, right, live)
        if solved is None:
            return None
        for j, parts in number.items():
            values[j] += sum((solved[k] for k in parts), Fraction(0))
        return values if self.keeps(values) else None

    def simple_primal(self, point: _Point) -> list[Fraction] | None:
        """Round a vertex to fractions of small denominators; ``None`` when that is no feasible solution."""
        scaled = (point.parts * point.scale).tolist()
        rounded = [simplest(value, 1e-12 * point.scale) for value in scaled]
        whole = [value for value in rounded if value is not None]
        if len(whole) < len(rounded):
            return None
        values = [a + b for a, b in zip(whole[: self.nunknown], whole[self.nunknown :], strict=True)]
        total = sum((values[j] * weight for j, weight in self.all().items()), Fraction(0))
        return values if total == point.total and self.keeps(values) else None

    def keeps(self, values: list[Fraction]) -> bool:
        """Whether a solution keeps all that is known, exactly: capacities, balances and the cuts so far."""

        def total(row: _Row) -> Fraction:
            return sum((values[j] * a for j, a in row.items()), Fraction(0))

        return (
            min(values) >= 0
            and all(total(row) <= c for row, c in zip(self.shared, self.capacity.tolist(), strict=True))
            and all(total(row) == 0 for row in self.balance.values())
            and all(total(row) <= 0 for row in self.rows)
        )

    def dual(self, vertex: _Vertex, tight: float) -> Certificate | None:
        """Solve the multipliers exactly: of cuts, of capacities, and of switches."""
        number = {int(i): k for k, i in enumerate(np.flatnonzero(vertex.multipliers > tight))}
        equations: dict[int, _Row] = {
            int(j): {} for j in np.flatnonzero(np.abs(vertex.reduced_costs) <= tight)
        }
        ncut = len(vertex.multipliers) - len(self.shared)  # there may be newer ones
        held = [self.rows[i] if i < ncut else self.shared[i - ncut] for i in number]
        for k, row in enumerate([*held, *self.balance.values()]):
            for j, a in row.items():
                if j in equations:
                    equations[j][k] = a
        top = int(self.gain.max())
        right = [Fraction(int(self.gain[j]), top) if j < self.ncolumn else Fraction(0) for j in equations]
        solved = solve_exactly(list(equations.values()), right, len(held) + len(self.balance))
        if solved is None:
            return None
        return self.certificate({i: solved[k] for i, k in number.items() if i < ncut}, solved[len(held) :])

    def rounded_dual(self, vertex: _Vertex, *, simple: bool) -> Certificate | None:
        """Round the multipliers, to small denominators (``None`` when that is far off) or as they are."""
        ncut = len(vertex.multipliers) - len(self.shared)
        numbers = [*np.maximum(vertex.multipliers[:ncut], 0.0).tolist(), *vertex.potentials.tolist()]
        if simple:
            rounded = [simplest(number, 1e-11) for number in numbers]
        else:
            rounded = [Fraction(round(number * _GRID), _GRID) for number in numbers]
        values = [value for value in rounded if value is not None]
        if len(values) < len(rounded):
            return None
        return self.certificate(dict(enumerate(values[:ncut])), values[ncut:])

    def certificate(self, weights: dict[int, Fraction], potentials: Sequence[Fraction]) -> Certificate:
        """Put multipliers into the form of a proof."""
        table = [[Fraction(0)] * self.programme.orbits.nvertex for _ in self.programme.halves]
        for (h, k), value in zip(self.balance, potentials, strict=True):
            table[h][k] = value
        cuts = tuple(WeightedCut(*self.cuts[i], weight) for i, weight in weights.items() if weight)
        return Certificate(self.programme, cuts, tuple(tuple(row) for row in table))


def _highs(
    cost: _Floats,
    above: Any,
    right: _Floats,
    equal: Any,
    goal: _Floats | None = None,
    most: _Floats | None = None,
) -> Any:
    """Minimise the cost with ``above @ z <= right``, ``equal @ z == goal``, ``0 <= z <= most``.

    The simplex method: its answer is a vertex. ``None`` when nothing is feasible.
    """
    from scipy.optimize import linprog

    found = linprog(
        cost,
        A_ub=above,
        b_ub=right,
        A_eq=equal,
        b_eq=np.zeros(equal.shape[0]) if goal is None else goal,
        bounds=(0, None) if most is None else np.stack([np.zeros_like(most), most], axis=1),
        method="highs-ds",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    return found if found.x is not None and found.status == 0 else None


def solve(programme: Programme) -> Solution:
    """Solve a programme, adding cuts until none is broken; then prove the value.

    Raises
    ------
    InternalError
        HiGHS gives up, or rounds do not end.
    """
    master = _Master(programme, programme.merged_columns())
    vertex: _Vertex | None = None
    simple = True
    for rounds in range(1, _MAX_ROUNDS + 1):
        if vertex is None:
            vertex = master.best()
            if vertex.value <= 0:
                return _nothing(master, vertex, rounds)
            certificate, upper = _proof(master, vertex, simple=simple)
        point = master.even(vertex.value, upper)
        if point is None:  # the cuts since then forbid this much data
            vertex = None
            continue
        values = point.values(master.nunknown)
        grid = _GRID / float(values[: master.ncolumn] @ master.gain)
        if _add_broken(master, [round(v) for v in (values * grid).tolist()], 1e-9):
            continue
        exact = _exact_point(master, point)
        if exact is None and simple:  # rounding may have missed the optimum by a hair: solve for it
            simple, vertex = False, None
            continue
        unit = math.lcm(*(value.denominator for value in exact or ()))
        whole = [int(value * unit) for value in exact or ()]
        if exact is None or not _fits(master, whole):
            shares, roots = _interval(master, values)
        elif _add_broken(master, whole, 0.0):
            continue
        else:
            shares, roots = _spread(programme, master.columns, exact)
        return Solution(shares, roots, sum(roots, Fraction(0)), upper, certificate, rounds)
    raise InternalError(f"the linear programme of shared links did not settle in {_MAX_ROUNDS} rounds")


def _nothing(master: _Master, vertex: _Vertex, rounds: int) -> Solution:
    """Tell that no data can reach all ranks."""
    certificate, upper = _proof(master, vertex, simple=True)
    shares, roots = _spread(master.programme, master.columns, [Fraction(0)] * master.nunknown)
    return Solution(shares, roots, Fraction(0), upper, certificate, rounds)


def _exact_point(master: _Master, point: _Point) -> list[Fraction] | None:
    """Make a vertex exact: by rounding where that is enough, or by solving what is tight there."""
    exact = master.simple_primal(point)
    for tight in _TIGHT:
        exact = master.primal(point, tight) if exact is None else exact
    return exact


def _proof(master: _Master, vertex: _Vertex, *, simple: bool) -> tuple[Certificate, Fraction]:
    """Make multipliers exact: by rounding if that may do, by solving what is tight, or else nearly."""
    best: tuple[Certificate, Fraction] | None = None
    tries: list[Callable[[], Certificate | None]] = [
        *([partial(master.rounded_dual, vertex, simple=True)] if simple else []),
        *(partial(master.dual, vertex, tight) for tight in _TIGHT),
        partial(master.rounded_dual, vertex, simple=False),
    ]
    for attempt in tries:
        certificate = attempt()
        upper = None if certificate is None else certificate.value()
        if certificate is None or upper is None:
            continue
        if best is None or upper < best[1]:
            best = certificate, upper
        if abs(float(upper) - vertex.value) <= 1e-11 * vertex.value:
            break
    if best is None:
        raise InternalError("the multipliers of the linear programme of shared links prove nothing")
    return best


def _interval(
    master: _Master, values: _Floats
) -> tuple[tuple[tuple[Fraction, ...], ...], tuple[Fraction, ...]]:
    """Make whole shares of a solution that is right but for rounding, and as many data as surely fit them."""
    programme = master.programme
    network = programme.network
    unit = _GRID // master.scale + 1
    safe = values * (1 - 1e-9) * unit
    roots = (np.floor(safe[: master.ncolumn]).astype(np.int64) @ master.columns).astype(np.int64)
    shares = []
    for h in range(master.nhalf):
        first = master.unknown(h, 0)
        share = np.floor(np.maximum(safe[first : first + master.narc], 0)).astype(np.int64)[
            programme.orbits.arc
        ]
        shares.append(trimmed(network, share))
    while True:
        ratios = [Fraction(1)]
        for half, share in zip(programme.halves, shares, strict=True):
            capacity = share[half.base]
            for vertices in broken_cuts(half.network, capacity, roots):
                out = vertices[half.network.src] & ~vertices[half.network.dst]
                held = int(roots[vertices[: network.nranks]].sum())
                ratios.append(Fraction(int(capacity[out].sum()), held))
        least = min(ratios)
        if least == 1:
            break
        roots = np.array([int(root * least) for root in roots.tolist()], np.int64)
    return (
        tuple(tuple(Fraction(value, unit) for value in share.tolist()) for share in shares),
        tuple(Fraction(value, unit) for value in roots.tolist()),
    )


def trimmed(network: Network, share: _Ints) -> _Ints:
    """Take off shares until every vertex that is no rank lets out what it takes in."""
    share = share.copy()
    arriving: dict[int, list[int]] = {}
    leaving: dict[int, list[int]] = {}
    for arc, (a, b) in enumerate(zip(network.src.tolist(), network.dst.tolist(), strict=True)):
        leaving.setdefault(a, []).append(arc)
        arriving.setdefault(b, []).append(arc)
    todo = list(range(network.nranks, network.nvertices))
    while todo:
        v = todo.pop()
        surplus = int(share[arriving.get(v, [])].sum() - share[leaving.get(v, [])].sum())
        for arc in (arriving if surplus > 0 else leaving).get(v, []):
            taken = min(abs(surplus), int(share[arc]))
            if taken:
                share[arc] -= taken
                other = int(network.src[arc] if surplus > 0 else network.dst[arc])
                surplus += -taken if surplus > 0 else taken
                if other >= network.nranks:
                    todo.append(other)
    return share


def _add_broken(master: _Master, values: list[int], tolerance: float) -> bool:
    """Take in the cuts that a solution in whole numbers breaks by more than a share of all data."""
    programme = master.programme
    weights = np.array(values[: master.ncolumn], object) @ master.columns.astype(object)
    grown = False
    for h, half in enumerate(programme.halves):
        arcs = np.array(values[master.unknown(h, 0) : master.unknown(h, 0) + master.narc], object)
        capacity = arcs[programme.orbits.arc[half.base]]
        for vertices in broken_cuts(half.network, capacity, weights):
            out = vertices[half.network.src] & ~vertices[half.network.dst]
            missing = weights[vertices[: half.network.nranks]].sum() - capacity[out].sum()
            if missing > tolerance * int(weights.sum()):
                grown |= master.add(h, vertices)
    return grown


def broken_cuts(network: Network, capacity: npt.NDArray[Any], weights: npt.NDArray[Any]) -> list[_Mask]:
    """List sets that lack a rank and let out less than their ranks hold."""
    from pycomm.planner.graph.bounds import separate

    enough = np.minimum(capacity, weights.sum())  # more is never needed, and might not fit 64 bits
    masks = []
    for cut in separate(network, enough.astype(np.int64), weights.astype(np.int64)):
        mask = np.zeros(network.nvertices, np.bool_)
        mask[list(cut.vertices)] = True
        masks.append(mask)
    return masks


def _fits(master: _Master, values: list[int]) -> bool:
    """Whether max-flows on a solution in whole numbers stay within 64 bits."""
    total = sum(value * int(gain) for value, gain in zip(values, master.gain, strict=False))
    return total * (len(master.programme.network.src) + 1) < 1 << 62


def _spread(
    programme: Programme, columns: _Ints, values: list[Fraction]
) -> tuple[tuple[tuple[Fraction, ...], ...], tuple[Fraction, ...]]:
    """Give every arc and rank the value of its class."""
    ncolumn, narc = len(columns), programme.orbits.narc
    label = programme.orbits.arc.tolist()
    shares = tuple(tuple(values[ncolumn + h * narc + a] for a in label) for h in range(len(programme.halves)))
    roots = tuple(
        sum((values[j] * weight for j, weight in enumerate(column) if weight), Fraction(0))
        for column in columns.T.tolist()
    )
    return shares, roots
