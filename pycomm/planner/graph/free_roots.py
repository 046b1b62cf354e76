r"""Allreduce with free roots and shared links: the best that trees can do, exactly.

An allreduce reduces all data to some roots and broadcasts them from there. Which roots, and how much of each
link either half may use, is usually settled beforehand: every rank is the root of an equal share, and a
reduce_scatter has the network to itself before an allgather has. That is best when all ranks are alike. When
one of eight is slow, its way out limits the one half and its way in the other, and neither uses both:

    slow rank of 8       one after the other         at once
    out                  7/8 of the data, then 1/8   7/8 + 1/8
    in                   1/8, then 7/8               1/8 + 7/8
    time, in data        7/8 + 7/8                   1

So let rank r be root of as much data x[r] as is best, let the broadcast have a share b of each arc and the
reduction a share d of it, b + d <= capacity, and let a linear programme choose them all
(:mod:`~pycomm.planner.graph.cut_lp`). One rank at half speed of eight on a switch costs an eighth of the rate
instead of half. The value is exact, and its proof is a few cuts with weights. Among the optima, one whose
roots are as equal as can be is taken; on most networks all are equal, and sharing the links is what wins.

References
----------
* J. Edmonds: Edge-disjoint branchings. In: Combinatorial Algorithms, 1973.
* L. Zhao et al.: ForestColl: Throughput-optimal collective communications on heterogeneous network fabrics.
  arXiv 2402.06787, 2024 (the two halves one after the other, with equal shares).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pycomm.errors import PlanningError, TopologyError, UsageError
from pycomm.planner.graph.bounds import Bound, Cut, bound, describe_links
from pycomm.planner.graph.cut_lp import broken_cuts, solve
from pycomm.planner.graph.cut_programme import Certificate, Programme, Solution, both_halves
from pycomm.planner.graph.forest import Forest
from pycomm.planner.graph.network import Network
from pycomm.planner.graph.rounding import apportioned, whole_shares
from pycomm.planner.graph.symmetry import orbits_of
from pycomm.types import CollectiveKind
from pycomm.units import format_rate

__all__ = ["FreeRootBound", "allreduce_bound", "allreduce_forests"]

CLOSE = Fraction(99, 100)
"""Part of the optimum that forests have to reach, unless told otherwise."""
MAX_UNITS = 1 << 20
"""Units of data into which forests may divide it."""


@dataclass(frozen=True, eq=False)
class FreeRootBound:
    """The greatest rate of an allreduce by trees, and what attains it.

    Parameters
    ----------
    network
        What it is the bound of.
    solution
        Root weights, shares of the arcs, and the proof.
    """

    network: Network
    solution: Solution

    @property
    def algbw(self) -> Fraction:
        """Rate that nothing exceeds, in bytes of the array per second."""
        return self.solution.upper * self.network.unit

    @property
    def attained(self) -> Fraction:
        """Rate that these roots and shares attain; equal to :attr:`algbw` unless numbers were too hard."""
        return self.solution.lower * self.network.unit

    @property
    def seconds_per_byte(self) -> Fraction:
        """Least time over the bytes of the array."""
        return 1 / self.algbw

    @property
    def is_exact(self) -> bool:
        """Whether the proof meets the solution; otherwise the optimum is between them."""
        return self.solution.lower == self.solution.upper

    @property
    def certificate(self) -> Certificate:
        """Proof of :attr:`algbw`."""
        return self.solution.certificate

    @property
    def roots(self) -> tuple[Fraction, ...]:
        """Part of the data that starts at each rank; together 1."""
        total = self.solution.lower
        return tuple(root / total for root in self.solution.roots)

    @property
    def broadcast_shares(self) -> tuple[Fraction, ...]:
        """Share of each arc for the broadcast, in units of the network."""
        return self.solution.shares[0]

    @property
    def reduce_shares(self) -> tuple[Fraction, ...]:
        """Share of each arc for the reduction, in units of the network; data flow as the arc leads."""
        return self.solution.shares[1]

    @cached_property
    def equal_shares(self) -> tuple[Bound, Bound]:
        """Bounds of a reduce_scatter and of an allgather, with equal shares."""
        return bound(self.network, CollectiveKind.REDUCE_SCATTER), bound(
            self.network, CollectiveKind.ALLGATHER
        )

    @property
    def equal_shares_algbw(self) -> Fraction:
        """Rate of an optimal reduce_scatter followed by an optimal allgather, by their cuts."""
        return 1 / sum((half.seconds_per_byte for half in self.equal_shares), Fraction(0))

    @cached_property
    def cut(self) -> Cut:
        """The cut that counts most in the proof, on the network or on the network reversed."""
        halves = self.certificate.programme.halves

        def weighed(number: int) -> tuple[Fraction, int]:
            cut = self.certificate.cuts[number]
            side = halves[cut.half].network
            out = cut.vertices[side.src] & ~cut.vertices[side.dst]
            return cut.weight * int(side.capacity[out].sum()), -number

        first = self.certificate.cuts[max(range(len(self.certificate.cuts)), key=weighed)]
        side = halves[first.half].network
        out = first.vertices[side.src] & ~first.vertices[side.dst]
        return Cut(
            tuple(np.flatnonzero(first.vertices).tolist()),
            int(first.vertices[: self.network.nranks].sum()),
            int(side.capacity[out].sum()),
        )

    def links(self) -> list[tuple[str, str]]:
        """Names of the two ends of every link that the proof counts."""
        names, arcs = self.network.names, self.certificate.limiting()
        ends = zip(self.network.src[arcs].tolist(), self.network.dst[arcs].tolist(), strict=True)
        return [(names[a], names[b]) for a, b in ends]

    def limited_by(self) -> str:
        """Name the links that limit the allreduce, such as ``"leaf3 -> spine*"``; links alike are one."""
        return describe_links(self.links())

    def explain(self) -> str:
        """Say in one line what is possible, what limits it, and what equal shares would give."""
        equal = self.equal_shares_algbw
        gain = float(self.attained / equal - 1)
        most = format_rate(float(self.algbw))
        least = "" if self.is_exact else f"between {format_rate(float(self.attained))} and "
        text = f"{least}{most} possible, limited by {self.limited_by()}; "
        if self.attained == equal:
            return text + "reduce_scatter then allgather with equal shares reaches as much"
        rate = format_rate(float(equal))
        return f"{text}{gain:+.1%} over reduce_scatter then allgather with equal shares, {rate}"


def allreduce_bound(network: Network, *, replicating: bool = True) -> FreeRootBound:
    """Find the greatest rate of an allreduce, and the roots and shares that attain it.

    Parameters
    ----------
    network
        Of at least two ranks.
    replicating
        Whether switches that can replicate or combine may do so. Then the rate is a bound which trees need
        not reach, and the shares are not balanced at those switches.

    Raises
    ------
    UsageError
        A single rank.
    TopologyError
        Data cannot reach some rank.

    Notes
    -----
    The bound is one of trees: data are combined on their way to a root and copied on their way from it. Where
    all ranks are alike it equals the bound that holds for any allreduce.
    """
    if network.nranks < 2:
        raise UsageError("a single rank has nothing to exchange and no bound; give at least two")
    special = (network.multicast, network.reduction)
    label = np.zeros(network.nvertices, np.int64)
    for value, vertices in zip((1, 2), special, strict=True):
        label[sorted(vertices)] += value
    programme = Programme(
        network,
        both_halves(network),
        np.eye(network.nranks, dtype=np.int64),
        orbits_of(network, label),
        special if replicating and any(special) else (),
    )
    solution = solve(programme)
    if solution.upper <= 0:
        for kind in (CollectiveKind.ALLGATHER, CollectiveKind.REDUCE_SCATTER):
            bound(network, kind)  # says which ranks are apart
        raise TopologyError(
            "no rank can both hear all others and be heard by them without unbalanced switches"
        )
    return FreeRootBound(network, solution)


def allreduce_forests(
    network: Network, found: FreeRootBound | None = None, close: Fraction = CLOSE
) -> tuple[Forest, Forest]:
    """Pack the trees of an allreduce with free roots.

    Parameters
    ----------
    network
        Of at least two ranks.
    found
        Its bound, where it is known.
    close
        Part of the optimum to reach. The data are divided into as few units as that takes; 1 takes the exact
        optimum, in however many units.

    Returns
    -------
    tuple of Forest
        The trees of the reduction, on ``network.reversed()``, and those of the broadcast, on ``network``.
        Each rank is root of as many units in both.

    Raises
    ------
    UsageError, TopologyError
        As :func:`allreduce_bound`.
    PlanningError
        No division into at most ``MAX_UNITS`` units comes close enough.
    """
    from pycomm.planner.graph.packing import pack

    if found is None or found.certificate.programme.unbalanced:
        found = allreduce_bound(network, replicating=False)
    roots, shares = divided(found, close)
    turned = both_halves(network)[1]
    down = pack(network, shares[0], roots)
    up = pack(turned.network, shares[1][turned.base], roots)
    return up, down


_Ints = npt.NDArray[np.int64]


def divided(found: FreeRootBound, close: Fraction = CLOSE) -> tuple[_Ints, tuple[_Ints, _Ints]]:
    """Divide the data into whole units at the roots, and the arcs into whole shares that suffice for them.

    Returns
    -------
    roots, shares
        Units at each rank, and the share of each arc in the broadcast and in the reduction, balanced at every
        vertex that is no rank. Their time is at most ``1 / close`` of the least.
    """
    solution, network = found.solution, found.network
    if solution.lower < close * solution.upper:
        raise PlanningError(
            f"only {float(solution.lower / solution.upper):.4%} of the bound is known to be attained; "
            "ask for less, or round the bandwidths to fewer digits"
        )
    halves = both_halves(network)
    common = math.lcm(*{value.denominator for value in itertools.chain(solution.roots, *solution.shares)})
    counts = [[int(value * common) for value in half] for half in solution.shares]
    capacity = network.capacity.tolist()
    for units in _numbers_of_units(solution, common):
        if units > MAX_UNITS and close < 1:
            break
        roots = apportioned(solution.roots, units)
        scale = units / solution.lower / common  # whole units for one of `counts`
        most = units / (close * solution.upper)  # time that is short enough, in units for one of capacity
        for spare in (0, 1, 2, 4, 8) if scale.denominator > 1 else (0,):
            factor = scale * (1 + Fraction(spare, 8) * (1 / close - 1))
            shares = [
                whole_shares(network, [value * factor.numerator for value in half], factor.denominator)
                for half in counts
            ]
            used = (shares[0] + shares[1]).tolist()
            if any(u * most.denominator > c * most.numerator for u, c in zip(used, capacity, strict=True)):
                continue
            if not any(
                broken_cuts(half.network, share[half.base], roots)
                for half, share in zip(halves, shares, strict=True)
            ):
                return roots, (shares[0], shares[1])
    raise PlanningError(
        f"no division of the data into at most {MAX_UNITS} units comes within {float(1 - close):.2%} of the "
        "optimum; ask for less"
    )


def _numbers_of_units(solution: Solution, exactly: int) -> Iterator[int]:
    """Yield in rising order how many units to try: a few for each root, then more; and the exact number."""
    last = int(solution.lower * exactly)
    roots = sum(root > 0 for root in solution.roots)
    for step in itertools.count():
        units = roots * ((4 + step % 4) << (step // 4)) // 4
        if units >= last:
            yield last
            return
        yield units
