"""Allreduce of many unlike ranks: equal roots, and links shared by the two halves nearly as well as can be.

Idea
----
With a thousand ranks it hardly matters where the roots are: every rank has a thousandth of the data either
way. What matters is how the broadcast and the reduction *share* each link. All data enter a slow rank once
and leave it once, and next to nothing else need do so: its way in belongs to the broadcast, its way out to
the reduction, and what is combined on the way to roots is combined at fast ranks.

    slow rank, halves that share links evenly    in: half broadcast, half idle     half the rate
    slow rank, links shared as is best           in: broadcast    out: reduction   the whole rate

So the roots are fixed, each rank an Nth of the data, and the shares b and d of each arc in the broadcast and
in the reduction are the unknowns of a linear programme:

    maximise R   subject to   b into T >= R (N - |T|) / N     for every T with |T| < N ranks, at least one
                              d out of T >= R (N - |T|) / N   for the same
                              in == out of every switch, for b and for d;   b + d <= capacity

The sets T are added on demand: one sweep of max-flows finds a set for every rank that hears too little. It is
:mod:`~pycomm.planner.graph.cut_lp` without free roots and without exactness, which is what makes it fit for
thousands of ranks:

* Where cables are as fast both ways, turning all trees round turns a broadcast into a reduction. Then d is b
  turned round, at no loss (average any solution and its image), and half of the unknowns are left.
* The rate aimed at is a little below the best that is known to be possible, so that solutions have room, and
  the one is taken that shares arcs most evenly: it breaks few sets that are not yet known.
* Switches between two neighbours are left out (:mod:`~pycomm.planner.graph.passages`). What turns round in
  one counts for a set that holds it and leads nowhere, and each would have to be learnt.
* It ends when the shares found carry nearly the best rate known to be possible, whatever is broken by less.

The shares are then rounded to whole units, k for each rank, such that switches stay balanced, and trees are
packed into them as into any capacities: once, where the one half is the other turned round.

How good
--------
Where the bounds that need no programme are not met, the multipliers of the one with free roots are made
fractions and prove what no trees exceed. At least half of that is certain before rounding: both shares of
free roots together let R into every set, which is enough for either half with equal roots. In practice equal
roots lose a few tenths of a percent, and rounding the rest of 1%.

Cost
----
A linear programme of one unknown for each arc and a sweep of flows for each round, mostly a single one; then
the packing, which takes longest. 1,024 ranks, a tenth of all cables slow: 10 to 30 s.

References
----------
* J. Edmonds: Edge-disjoint branchings. In: Combinatorial Algorithms, 1973.
* W. T. Tutte: On the problem of decomposing a graph into n connected factors. Journal of the London
  Mathematical Society 36, 1961 (trees that go both ways, where there are no switches).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pycomm.planner.graph.bounds import bound
from pycomm.planner.graph.cut_lp import broken_cuts, trimmed
from pycomm.planner.graph.cut_programme import (
    Certificate,
    Half,
    Programme,
    Solution,
    WeightedCut,
    both_halves,
)
from pycomm.planner.graph.flat_forest import flat_forest
from pycomm.planner.graph.forest import Forest
from pycomm.planner.graph.free_roots import FreeRootBound
from pycomm.planner.graph.network import Network
from pycomm.planner.graph.packing import pack
from pycomm.planner.graph.partition_bound import partition_bound
from pycomm.planner.graph.passages import joined
from pycomm.planner.graph.rational import simplest
from pycomm.planner.graph.reports import AnyBound
from pycomm.planner.graph.rounding import whole_shares
from pycomm.planner.graph.structure import levels, units
from pycomm.planner.graph.symmetric import arc_numbers
from pycomm.planner.graph.symmetry import Orbits
from pycomm.types import CollectiveKind

__all__ = ["mirror", "shared_allreduce"]

AIM = 0.998
"""Part of the greatest rate known to be possible that is asked of the linear programme."""
ENOUGH = 0.995
"""Part of it that shares have to carry."""
CLOSE = Fraction(99, 100)
"""Part of it that whole shares should carry."""
MAX_ROUNDS = 40
MAX_UNITS = 1 << 13
"""Units of data into which forests may divide it."""
SPARES = (0.01, 0.008, 0.006, 0.004, 0.002, 0.0)
"""By how much shares may exceed those needed before they are rounded; more makes packing quicker. So do two
units for each rank, or more: with a single one rounding takes the room that packing needs."""
_GRID = 1 << 30
"""Whole units that the data of one rank are divided into, for max-flows."""

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]


def mirror(network: Network) -> _Ints | None:
    """Find the arc that leads the other way, for every arc; ``None`` unless all are as fast as theirs."""
    back = arc_numbers(network, network.dst.astype(np.int64), network.src.astype(np.int64))
    if (back < 0).any() or not np.array_equal(network.capacity[back], network.capacity):
        return None
    return back


class Shares(NamedTuple):
    """What each half may use of each arc.

    Parameters
    ----------
    arcs
        float64 of shape ``(2, narcs)``, in units of capacity: the broadcast's share of each arc and the
        reduction's, balanced at every vertex that is no rank.
    rate
        Data that they are known to carry, all roots together, in units of capacity.
    most
        Data that the linear programme allows, or what was known to be possible, if that is less. A rate with
        equal roots, in floating point: no proof.
    rounds
        How often sets were added.
    """

    arcs: _Floats
    rate: float
    most: float
    rounds: int


@dataclass(eq=False)
class _Master:
    """The programme with the sets known so far. The unknowns are shares, the greatest capacity being 1."""

    network: Network
    halves: tuple[Half, Half]
    unknown: tuple[_Ints, _Ints]
    sets: list[tuple[int, _Mask]] = field(default_factory=list)
    rows: list[tuple[_Ints, float]] = field(default_factory=list)
    seen: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        from scipy.sparse import coo_array

        network = self.network
        self.count = int(max(self.unknown[0].max(), self.unknown[1].max())) + 1
        self.scale = int(network.capacity.max())
        self.limit = np.zeros(self.count)
        for unknown in self.unknown:
            self.limit[unknown] = network.capacity / self.scale
        pairs = np.unique(np.sort(np.stack(self.unknown, axis=1), axis=1), axis=0)
        row = np.repeat(np.arange(len(pairs)), 2)
        self.shared = coo_array(
            (np.ones(2 * len(pairs)), (row, pairs.ravel())), shape=(len(pairs), self.count)
        ).tocsr()
        self.room = self.limit[pairs[:, 0]]
        own = [0] if self.unknown[0].max() == self.unknown[1].max() else [0, 1]
        self.own = own
        switches = network.nvertices - network.nranks
        data, rows, columns = [], [], []
        for place, h in enumerate(own):
            for ends, sign in ((network.dst, 1.0), (network.src, -1.0)):
                arcs = np.flatnonzero(ends >= network.nranks)
                rows.append(ends[arcs] - network.nranks + place * switches)
                columns.append(self.unknown[h][arcs])
                data.append(np.full(len(arcs), sign))
        self.balance = coo_array(
            (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns))),
            shape=(len(own) * switches, self.count),
        ).tocsr()
        for inside in _first_sets(network):
            for h in own:
                self.add(h, inside)

    def add(self, half: int, inside: _Mask) -> bool:
        """Take in a set that a half has to enter; false when it is known."""
        side = self.halves[half]
        entering = ~inside[side.network.src] & inside[side.network.dst]
        row = np.sort(self.unknown[half][side.base[entering]])
        key = row.tobytes()
        if key in self.seen:
            return False
        self.seen.add(key)
        n = self.network.nranks
        self.sets.append((half, inside))
        self.rows.append((row, (n - int(inside[:n].sum())) / n))
        return True

    def cuts(self) -> tuple[Any, _Floats]:
        """Give coefficients of the sets, and the part of all data that has to enter each."""
        from scipy.sparse import csr_array

        starts = np.cumsum([0, *(len(row) for row, _ in self.rows)])
        columns = np.concatenate([row for row, _ in self.rows])
        table = csr_array((np.ones(len(columns)), columns, starts), shape=(len(self.rows), self.count))
        return table, np.array([part for _, part in self.rows])

    def best(self) -> float:
        """Find the greatest rate that the known sets allow, in units of capacity; 0 if that is not told."""
        from scipy.sparse import csr_array, hstack

        table, part = self.cuts()
        zeros = csr_array((self.shared.shape[0], 1))
        above = [hstack([-table, csr_array(part[:, None])]), hstack([self.shared, zeros])]
        equal = hstack([self.balance, csr_array((self.balance.shape[0], 1))])
        cost = np.zeros(self.count + 1)
        cost[-1] = -1.0
        right = np.concatenate([np.zeros(len(part)), self.room])
        found = _highs(cost, above, right, equal, np.append(self.limit, np.inf))
        return 0.0 if found is None else float(found.x[-1]) * self.scale

    def even(self, rate: float) -> _Floats | None:
        """Find shares that carry a rate over the known sets, as even as can be; ``None`` if there are none.

        Every share is the sum of two parts, of which the first, up to half of the arc, is rewarded.
        """
        from scipy.sparse import hstack

        table, part = self.cuts()
        above = [hstack([-table, -table]), hstack([self.shared, self.shared])]
        right = np.concatenate([-part * (rate / self.scale), self.room])
        reward = self.limit.min() / self.limit
        most = np.concatenate([self.limit / 2, self.limit])
        cost = np.concatenate([-reward, np.zeros(self.count)])
        found = _highs(cost, above, right, hstack([self.balance, self.balance]), most)
        if found is None:
            return None
        values = np.maximum(found.x[: self.count] + found.x[self.count :], 0.0) * self.scale
        return np.stack([values[unknown] for unknown in self.unknown])

    def proof(self) -> Certificate | None:
        """Prove what the known sets allow, wherever the roots are; ``None`` if the solver gives up.

        Free roots enter as one more unknown for each rank, and all data as the last one.
        """
        from scipy.sparse import coo_array, hstack, vstack

        table, _ = self.cuts()
        n, count = self.network.nranks, len(self.rows)
        inside = np.array([mask[:n] for _, mask in self.sets])
        row, rank = np.nonzero(inside)
        held = coo_array((-np.ones(len(row)), (row, rank)), shape=(count, n))
        above = [
            hstack([-table, held, np.ones((count, 1))]),
            hstack([self.shared, coo_array((len(self.room), n + 1))]),
        ]
        equal = vstack(
            [
                hstack([self.balance, coo_array((self.balance.shape[0], n + 1))]),
                np.concatenate([np.zeros(self.count), np.ones(n), [-1.0]])[None, :],
            ]
        )
        cost = np.zeros(self.count + n + 1)
        cost[-1] = -1.0
        right = np.concatenate([np.zeros(count), self.room])
        found = _highs(cost, above, right, equal, np.concatenate([self.limit, np.full(n + 1, np.inf)]))
        if found is None:
            return None
        weights = [_fraction(max(0.0, -value)) for value in found.ineqlin.marginals[:count]]
        potentials = [_fraction(-value) for value in found.eqlin.marginals[:-1]]
        return self._certificate(weights, potentials)

    def _certificate(self, weights: list[Fraction], potentials: list[Fraction]) -> Certificate:
        """Put multipliers into the form of a proof; a half turned round counts as often as the other."""
        network = self.network
        kept = network.nvertices
        orbits = Orbits(np.arange(kept), np.arange(len(network.src)), ())
        columns = np.eye(network.nranks, dtype=np.int64)
        programme = Programme(network, self.halves, columns, orbits)
        switches = kept - network.nranks
        zeros = (Fraction(0),) * network.nranks
        table = [
            zeros + tuple(potentials[place * switches : (place + 1) * switches])
            for place in range(len(self.own))
        ]
        cuts = []
        for h in range(2):
            for (half, inside), weight in zip(self.sets, weights, strict=True):
                if weight and (half == h or len(self.own) == 1):
                    cuts.append(WeightedCut(h, ~inside, weight))
        return Certificate(programme, tuple(cuts), (table[0], table[-1]))


def _fraction(value: float) -> Fraction:
    """Make a multiplier a fraction, of a small denominator if one is near: any will do."""
    near = simplest(value, 1e-11)
    return Fraction(round(value * _GRID * 1024), _GRID * 1024) if near is None else near


def _first_sets(network: Network) -> Iterator[_Mask]:
    """Yield sets that limit most networks: single ranks, and what hangs together without some switches."""
    for rank in range(network.nranks):
        inside = np.zeros(network.nvertices, np.bool_)
        inside[rank] = True
        yield inside
    for chain in units(network, levels(network)):
        for label in chain:
            for unit in np.unique(label[: network.nranks]):
                inside = label == unit
                if unit >= 0 and not inside[: network.nranks].all():
                    yield inside


def _highs(cost: _Floats, above: list[Any], right: _Floats, equal: Any, most: _Floats) -> Any:
    """Minimise the cost within bounds, above and equal; ``None`` when nothing is feasible."""
    from scipy.optimize import linprog
    from scipy.sparse import vstack

    found = linprog(
        cost,
        A_ub=vstack(above, format="csr"),
        b_ub=right,
        A_eq=equal.tocsr() if equal.shape[0] else None,
        b_eq=np.zeros(equal.shape[0]) if equal.shape[0] else None,
        bounds=np.stack([np.zeros_like(most), most], axis=1),
        method="highs-ds",
    )
    return found if found.x is not None and found.status == 0 else None


def _master(network: Network) -> _Master:
    turned = mirror(network)
    arcs = np.arange(len(network.src))
    return _Master(network, both_halves(network), (arcs, arcs + len(arcs) if turned is None else turned))


def _best_shares(master: _Master, most: Fraction) -> Shares | None:
    """Find shares that carry nearly as much as possible; ``None`` when nothing can be carried."""
    limit = float(most)
    best: Shares | None = None
    for rounds in range(1, MAX_ROUNDS + 1):
        aim = limit * AIM
        found = master.even(aim)
        if found is None:
            limit = min(limit * (1 - 1e-6), master.best())
            if limit <= 0:
                return None
            continue
        carried, grown = _learn(master, found, aim)
        if carried > (0.0 if best is None else best.rate):
            best = Shares(found, carried, limit, rounds)
        if carried >= ENOUGH * limit or not grown:
            break
    return None if best is None else best._replace(most=limit)


def _learn(master: _Master, shares: _Floats, aim: float) -> tuple[float, bool]:
    """Add the sets that shares break at a rate; the rate that they do carry, and whether any set was new."""
    n = master.network.nranks
    grown = False
    carried = 1.0
    for h in master.own:
        side = master.halves[h]
        part = 1.0
        while True:
            whole = np.floor(shares[h][side.base] * (n * _GRID / (aim * part))).astype(np.int64)
            least = 1.0
            for outside in broken_cuts(side.network, whole, np.full(n, _GRID, np.int64)):
                out = outside[side.network.src] & ~outside[side.network.dst]
                least = min(least, int(whole[out].sum()) / (int(outside[:n].sum()) * _GRID))
                grown |= master.add(h, ~outside)
            part *= least
            if least > 1 - 1e-6 or part < ENOUGH:
                break
        carried = min(carried, part)
    return aim * carried, grown


def _whole(master: _Master, shares: Shares) -> tuple[int, _Ints, Fraction] | None:
    """Round shares to whole units: as few for each rank as carry enough, or else those that carry most.

    Returns
    -------
    k, shares, rate
        Units for each rank, what each half may use of each arc, and what that carries; or ``None``.
    """
    network, halves = master.network, [master.halves[h] for h in master.own]
    n = network.nranks
    fine = [
        trimmed(network, np.floor(shares.arcs[h] * (n * _GRID / shares.rate)).astype(np.int64)).tolist()
        for h in master.own
    ]
    best = None
    for k in range(2, max(2, MAX_UNITS // n) + 1):
        for spare in SPARES:
            unit = round(_GRID / (k * (1 + spare)))
            whole = [whole_shares(network, share, unit) for share in fine]
            both = np.stack([whole[0], whole[-1] if len(whole) == 2 else whole[0][master.unknown[1]]])
            rate = n * k / _time(network, both.sum(axis=0))
            if best is not None and rate <= best[2]:
                continue
            if any(
                broken_cuts(half.network, share[half.base], np.full(n, k, np.int64))
                for half, share in zip(halves, whole, strict=True)
            ):
                continue
            best = k, both, rate
            if rate >= CLOSE * Fraction(shares.most):
                return best
    return best


def _time(network: Network, loads: _Ints) -> Fraction:
    """Greatest load over capacity."""
    ratio = loads / network.capacity
    near = np.flatnonzero(ratio >= ratio.max() * (1 - 1e-9))
    return max(Fraction(int(loads[arc]), int(network.capacity[arc])) for arc in near.tolist())


def _bounds(network: Network) -> Iterator[AnyBound]:
    """Yield what is known at once to be impossible to exceed."""
    yield bound(network, CollectiveKind.BROADCAST, 0)
    yield bound(network, CollectiveKind.REDUCE, 0)
    whole = partition_bound(network)
    if whole is not None:
        yield whole


def shared_allreduce(network: Network) -> tuple[tuple[Forest, Forest], AnyBound] | None:
    """Plan an allreduce with equal roots and the best shares of the links.

    Parameters
    ----------
    network
        Of at least two ranks; the more, the less is lost by equal roots.

    Returns
    -------
    tuple or None
        The trees of the reduction, on ``network.reversed()``, and those of the broadcast, on ``network``; and
        a bound that no trees exceed, wherever their roots are. ``None`` when nothing can be carried by trees
        of few units.

    Raises
    ------
    TopologyError
        Data cannot reach some rank.
    """
    inner = joined(network)
    bounds = itertools.chain(_bounds(network), _bounds(inner.network))
    least: AnyBound = min(bounds, key=lambda one: one.algbw)
    most = least.algbw / network.unit
    master = _master(inner.network)
    shares = _best_shares(master, most)
    whole = None if shares is None else _whole(master, shares)
    if shares is None or whole is None:
        return None
    k, (broadcast, reduction), rate = whole
    roots = np.full(network.nranks, k, np.int64)
    back = master.halves[1]
    down = pack(inner.network, broadcast, roots)
    if len(master.own) == 1:
        up = flat_forest(back.network, down.flat)
    else:
        up = pack(back.network, reduction[back.base], roots)
    forests = inner.expanded(up, back=True), inner.expanded(down)
    if rate < CLOSE * most and not network.multicast and not network.reduction:
        certificate = master.proof()
        upper = None if certificate is None else certificate.value()
        if certificate is not None and upper is not None and upper < most:
            time = network.nranks * k / rate
            parts = tuple(tuple(value / time for value in half.tolist()) for half in (broadcast, reduction))
            starts = (k / time,) * network.nranks
            solution = Solution(parts, starts, rate, upper, certificate, shares.rounds)
            least = FreeRootBound(inner.network, solution)
    return forests, least
