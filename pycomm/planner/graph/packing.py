"""Spanning trees that fill a network: as much data from each root as the bound allows, or within 1% of it.

Idea
----
Let rank r be the root of ``roots[r]`` units. Trees of that weight fit into capacities if and only if
whatever is rooted outside a set of vertices can enter it, for every set that holds a rank, provided that
every switch has as much capacity in as out (J. Edmonds, Edge-disjoint branchings, 1973; J. Bang-Jensen, A.
Frank and B. Jackson, Preserving and increasing local edge-connectivity in mixed graphs, SIAM Journal on
Discrete Mathematics 8, 1995). The native core grows trees broadly over what is left and asks a sweep of
flows whether every set still has what the others need; sets that do not are remembered and spared. How, and
what happens when that gets stuck, is told in ``native/src/network/pack.h`` and ``exact.h``.

Units
-----
With k units per rank and a bound of p/q seconds per unit of data and capacity, capacities are ``k * p / q``
times what they are. The least k for which all are whole meets the bound exactly, but may be large: data
would be cut into as many chunks. Fewer units mean capacities rounded down to whole ones. A switch that had
as much in as out may then have more, and units that nothing balances are taken away along with their way to
a rank, by a linear programme whose solutions are whole because it is a flow. ForestColl (Zhao et al., NSDI
2026, arXiv 2402.06787) rounds each link by itself.

Cost
----
One sweep of flows per tree, or per batch of trees; ``nranks * narcs`` steps of growth. 1,024 ranks take
seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from pycomm.core import native
from pycomm.errors import InternalError, PlanningError, UsageError
from pycomm.planner.graph.bounds import Bound, Cut, describe_links, native_arguments, separate, weights_of
from pycomm.planner.graph.flat_forest import FlatForest, FlatTrees, flat_forest
from pycomm.planner.graph.network import Network

__all__ = ["WITHIN", "exact_units", "forest", "pack", "unbalanced"]

WITHIN = Fraction(1, 100)
"""How far from the bound a forest may stay for the sake of few units."""
_MOST = 1 << 62
_MAX_UNITS = 1000
"""Units per rank up to which every number is tried."""
_TRIES = 8
"""Factors tried in search of one whose capacities can be balanced."""

Ints = npt.NDArray[np.int64]


def unbalanced(network: Network, capacity: Ints) -> Ints:
    """Vertices that are no ranks and do not have as much capacity in as out."""
    net = np.zeros(network.nvertices, np.int64)
    np.add.at(net, network.dst, capacity)
    np.subtract.at(net, network.src, capacity)
    net[: network.nranks] = 0
    return np.flatnonzero(net)


def pack(network: Network, capacity: Ints, roots: Ints) -> FlatForest:
    """Pack spanning trees into capacities.

    Parameters
    ----------
    network
        The arcs; data flow along them from roots to leaves.
    capacity
        int64 of shape ``(narcs,)``: units that may cross each arc. As much in as out at every vertex that is
        no rank, and sufficient.
    roots
        int64 of shape ``(nranks,)``: units of trees rooted at each rank.

    Returns
    -------
    FlatForest
        Trees of weight ``roots[r]`` at each rank r; no arc carries more than its capacity.

    Raises
    ------
    PlanningError
        A switch has not as much in as out, or some set of ranks cannot hear all.
    """
    uneven = unbalanced(network, capacity)
    if len(uneven):
        raise PlanningError(_uneven(network, capacity, uneven))
    for cut in separate(network, capacity, roots):
        raise PlanningError(_insufficient(network, cut))
    trees = native.network_pack(*native_arguments(network, capacity, roots))
    return flat_forest(network, FlatTrees(*trees[:5]))


def _uneven(network: Network, capacity: Ints, uneven: Ints) -> str:
    vertex = int(uneven[0])
    into = int(capacity[network.dst == vertex].sum()) * network.unit
    out = int(capacity[network.src == vertex].sum()) * network.unit
    others = f" (and {len(uneven) - 1} others)" if len(uneven) > 1 else ""
    return (
        f"{network.names[vertex]}{others} receives {into} B/s and sends {out} B/s: trees are packed only "
        "where a switch has as much in as out; balance the network first (pycomm.planner.graph.balance)"
    )


def _insufficient(network: Network, cut: Cut) -> str:
    arcs = cut.arcs(network)
    names = network.names
    links = describe_links(
        (names[a], names[b]) for a, b in zip(network.src[arcs], network.dst[arcs], strict=True)
    )
    return (
        f"the capacities are too small for these roots: {cut.weight} units have to cross "
        f"{links or 'where no link is'}, which has room for {cut.capacity}"
    )


def exact_units(network: Network, bound: Bound) -> int:
    """Fewest units per rank (for a root: of the root) with which every capacity at the bound is whole."""
    ratio = _ratio(network, bound)
    return ratio.denominator // math.gcd(ratio.denominator, *network.capacity.tolist())


def forest(network: Network, bound: Bound, k: int | None = None, *, within: Fraction = WITHIN) -> FlatForest:
    """Pack trees that carry out a collective at its bound, or close to it with few units.

    Parameters
    ----------
    network
        On which the data flow from roots to leaves: the network of the bound, reversed for a collective that
        reduces (:func:`~pycomm.planner.graph.bounds.flow_network`).
    bound
        Of the collective.
    k
        Units per rank, at least 1; of the root where there is one. ``None`` chooses the fewest that come
        within ``within`` of the bound.
    within
        What may be lost; 0 for exactly the bound.

    Raises
    ------
    PlanningError
        A switch has not as much in as out.
    UsageError
        k is less than 1.
    """
    uneven = unbalanced(network, network.capacity)
    if len(uneven):
        raise PlanningError(_uneven(network, network.capacity, uneven))
    if k is not None and k < 1:
        raise UsageError(f"k is {k}; a rank needs at least 1 unit of data")
    ratio = _ratio(network, bound)
    weights = weights_of(network, bound.kind, bound.root)
    exact = exact_units(network, bound)
    if k is not None:
        return pack(network, _least_capacity(network, ratio, weights, k), weights * k)
    counts = range(1, min(exact, _MAX_UNITS + 1)) if within > 0 else range(0)
    for few in counts:
        capacity = _capacity_within(network, ratio, weights, few, within)
        if capacity is not None:
            return pack(network, capacity, weights * few)
    return pack(network, _scaled(network.capacity, exact * ratio), weights * exact)


def _ratio(network: Network, bound: Bound) -> Fraction:
    """Time in which each rank's unit passes, in units of data over units of capacity."""
    weight = int(weights_of(network, bound.kind, bound.root).sum())
    return bound.seconds_per_byte * weight * network.unit


def _scaled(capacity: Ints, factor: Fraction) -> Ints:
    """Capacities times a factor, rounded down."""
    over, under = factor.numerator, factor.denominator
    if int(capacity.max(initial=0)) * over <= _MOST:
        return capacity * over // under
    exact = [value * over // under for value in capacity.tolist()]
    if sum(exact) > _MOST:
        raise PlanningError("the bandwidths have too many digits for whole capacities; round them, or give k")
    return np.array(exact, np.int64)


def _capacity_within(
    network: Network, ratio: Fraction, weights: Ints, k: int, within: Fraction
) -> Ints | None:
    """Least sufficient whole capacities that lose no more than allowed; ``None`` when there are none."""
    most = k * ratio / (1 - within)
    if separate(network, _scaled(network.capacity, most), weights * k):
        return None
    for factor in _sufficient_factors(network, weights * k, k * ratio, most):
        capacity = _balanced(network, _scaled(network.capacity, factor), k * ratio)
        if not separate(network, capacity, weights * k):
            return capacity
    return None


def _least_capacity(network: Network, ratio: Fraction, weights: Ints, k: int) -> Ints:
    """Least sufficient whole capacities for k units."""
    # Adding 1 to every capacity makes up for rounding down, and 2 for balancing.
    most = k * ratio + Fraction(2, int(network.capacity.min()))
    for factor in _sufficient_factors(network, weights * k, k * ratio, most):
        capacity = _balanced(network, _scaled(network.capacity, factor), k * ratio)
        if not separate(network, capacity, weights * k):
            return capacity
    raise PlanningError(
        f"no whole capacities for {k} units per rank keep every switch balanced; try another k"
    )


def _sufficient_factors(network: Network, roots: Ints, low: Fraction, high: Fraction) -> Iterator[Fraction]:
    """Least factor whose rounded capacities are sufficient, then a few greater ones, up to ``high``.

    Only factors at which some capacity becomes greater by one matter.
    """
    rates = [int(rate) for rate in np.unique(network.capacity)]
    most = high
    if not separate(network, _scaled(network.capacity, low), roots):
        high = low
    else:
        bottom = low
        high = _snapped(rates, high)
        while (step := _next_step(rates, bottom)) < high:
            middle = max(_snapped(rates, (bottom + high) / 2), step)
            if separate(network, _scaled(network.capacity, middle), roots):
                bottom = middle
            else:
                high = middle
    for part in range(_TRIES):
        yield high + (most - high) * part / _TRIES


def _snapped(rates: list[int], factor: Fraction) -> Fraction:
    """Least factor that gives the same whole capacities."""
    return max(Fraction(math.floor(factor * rate), rate) for rate in rates)


def _next_step(rates: list[int], factor: Fraction) -> Fraction:
    """Next greater factor that gives other whole capacities."""
    return min(Fraction(math.floor(factor * rate) + 1, rate) for rate in rates)


def _balanced(network: Network, capacity: Ints, factor: Fraction) -> Ints:
    """Take away as little as possible so that every switch has as much in as out again.

    Rather from what exceeds ``factor`` times the network's own capacities, and rather from fast links than
    from slow ones. The programme is a circulation, whose vertices are whole.
    """
    if not len(unbalanced(network, capacity)):
        return capacity
    from scipy.optimize import linprog
    from scipy.sparse import coo_matrix, hstack

    needed = np.minimum(_scaled(network.capacity, factor), capacity)
    gain = 1.0 / network.capacity.astype(np.float64)
    gain /= gain.max()
    arcs = np.arange(len(capacity))
    into, out = network.dst >= network.nranks, network.src >= network.nranks
    rows = np.concatenate([network.dst[into], network.src[out]]) - network.nranks
    signs = np.concatenate([np.ones(into.sum()), -np.ones(out.sum())])
    shape = (network.nvertices - network.nranks, len(capacity))
    balance = coo_matrix((signs, (rows, np.concatenate([arcs[into], arcs[out]]))), shape=shape).tocsc()
    found = linprog(
        np.concatenate([-1000.0 * gain, -gain]),
        A_eq=hstack([balance, balance]).tocsc(),
        b_eq=np.zeros(shape[0]),
        bounds=np.stack([np.zeros(2 * len(arcs)), np.concatenate([needed, capacity - needed])], axis=1),
        method="highs-ds",
    )
    if not found.success:
        raise InternalError(f"taking away what is not balanced failed: {found.message}; please report this")
    kept: Ints = np.rint(found.x[: len(arcs)] + found.x[len(arcs) :]).astype(np.int64)
    if len(unbalanced(network, kept)) or (kept > capacity).any():
        raise InternalError("capacities that should be balanced are not; please report this")
    return kept
