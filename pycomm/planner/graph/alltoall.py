"""The least time of an all-to-all on a network, by the greatest concurrent flow or by cuts, with its proof.

M is the whole send buffer of a rank, what it keeps included; the figure of an all-to-all is M over its time.

Where classes of alike ranks and arcs leave a programme that can be solved (about 64 ranks without any
symmetry, many hundreds with it), the bound is the greatest concurrent flow, and exact
(:mod:`~pycomm.planner.graph.concurrent`). In larger networks it is the best of natural cuts: of each rank,
of each unit (host, pod), out of it and into it, and of all arcs alike together. Messages over switches often
meet it, which proves both. Where they do not, trees around busy links give a plan, and lengths that may prove
a better bound (:mod:`~pycomm.planner.graph.adaptive`); the optimum is between the two.

References
----------
* F. Shahrokhi, D. W. Matula: The maximum concurrent flow problem. Journal of the ACM 37, 1990.
* X. Liu, B. Arzani et al.: Rethinking machine learning collective communication as a multi-commodity flow
  problem. SIGCOMM 2024 (TE-CCL: flows over time, for the same purpose).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pycomm.errors import PlanningError, TopologyError, UsageError
from pycomm.planner.graph.adaptive import Trees, grown, lengths_by_load
from pycomm.planner.graph.bounds import Cut, describe_links
from pycomm.planner.graph.concurrent import (
    ConcurrentFlow,
    Ints,
    Pairs,
    pairs_of,
    rate_by_lengths,
    solve_concurrent,
)
from pycomm.planner.graph.network import Network
from pycomm.planner.graph.relays import MAX_PRICED, Relays, relayed, straight
from pycomm.planner.graph.structure import levels, structures, units
from pycomm.planner.graph.symmetric import Symmetry, arc_numbers

if TYPE_CHECKING:
    pass

__all__ = ["CLOSE", "MAX_WAYS", "AlltoallBound", "Demands", "alltoall_bound", "bound_of", "unit_labels"]

MAX_UNKNOWNS = 20_000
"""Classes of (source, arc) up to which the programme is solved."""
MAX_CELLS = 1 << 21
"""Sources times arcs up to which alike ones are looked for."""
CLOSE = Fraction(99, 100)
"""Part of the bound that is enough."""
MOST_TREES = 8
"""Trees that each source grows in a large network: pieces of a block."""
MAX_WAYS = 1 << 20
"""Pairs times pieces of a plan."""
MAX_CLASSES = 16
"""Classes of arcs that are tried as what limits a large network."""
MAX_RANKS = 2048
"""Messages of each pair of ranks are listed up to so many."""


# ------------------------------------------------------------------------------------------------------ bound


@dataclass(frozen=True, eq=False)
class AlltoallBound:
    """The least time of an all-to-all, and why.

    A byte from one rank to another takes up at least the distance between them, in the lengths of the arcs;
    arcs offer no more than capacity times length.

    Parameters
    ----------
    network
        What it is the bound of.
    demands
        int64 array of shape ``(nranks, nranks)``: weights of the blocks.
    seconds_per_byte
        Least time over the mean bytes of a rank's send buffer.
    lengths
        Of each arc, 0 or more; those that are not 0 limit it.
    pairs
        What is alike in the network.
    flow
        A flow that attains it; ``None`` where none was computed.
    attained
        Greatest rate that is known to be possible, as ``algbw``.
    relays
        Messages over switches that attain that, and what they are; ``None`` where others are better.
    trees
        Ways along trees that attain that.
    """

    network: Network
    demands: Ints
    seconds_per_byte: Fraction
    lengths: tuple[int, ...]
    pairs: Pairs
    flow: ConcurrentFlow | None = None
    attained: Fraction = Fraction(0)
    relays: tuple[str, Relays] | None = None
    trees: Trees | None = None

    @property
    def algbw(self) -> Fraction:
        """Greatest rate, in bytes of a rank's send buffer per second."""
        return 1 / self.seconds_per_byte

    @property
    def exact(self) -> bool:
        """Whether a way to attain it is known; otherwise more time may be needed."""
        return self.attained == self.algbw

    def links(self) -> list[tuple[str, str]]:
        """Names of the two ends of every link that the proof counts."""
        names = self.network.names
        ends = zip(self.network.src.tolist(), self.network.dst.tolist(), self.lengths, strict=True)
        return [(names[a], names[b]) for a, b, length in ends if length]

    def limited_by(self) -> str:
        """Name the links that limit it, such as ``"nic* -> leaf*"``; links alike are one."""
        return describe_links(self.links())

    @property
    def cut(self) -> Cut:
        """A set that only links of the proof lead out of: the one that the most has to leave, for its links.

        Its weight is what its ranks have for others. Where lengths are not those of cuts, it does not prove
        the bound by itself.
        """
        best: tuple[Fraction, Cut] | None = None
        for vertices in _near(self.network, self.lengths):
            cut = _cut(self.network, self.demands, vertices)
            if cut.weight and cut.capacity:
                ratio = Fraction(cut.weight, cut.capacity)
                if best is None or ratio > best[0]:
                    best = ratio, cut
        return best[1] if best else Cut((), 0, 0)


def _near(network: Network, lengths: Sequence[int]) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield what each rank reaches over arcs without length, each set once."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order

    free = np.array(lengths) == 0
    count = network.nvertices
    graph = coo_array(
        (np.ones(int(free.sum()), np.int8), (network.src[free], network.dst[free])), (count, count)
    ).tocsr()
    seen = set()
    for rank in range(network.nranks):
        if rank in seen:
            continue
        inside = np.zeros(count, np.bool_)
        inside[breadth_first_order(graph, rank, return_predecessors=False)] = True
        seen.update(np.flatnonzero(inside).tolist())
        yield inside
        yield ~inside


def _cut(network: Network, demands: Ints, inside: npt.NDArray[np.bool_]) -> Cut:
    ranks = inside[: network.nranks]
    leaving = inside[network.src] & ~inside[network.dst]
    return Cut(
        tuple(np.flatnonzero(inside).tolist()),
        int(demands[np.ix_(ranks, ~ranks)].sum()),
        int(network.capacity[leaving].sum()),
    )


def alltoall_bound(network: Network, demands: npt.ArrayLike | None = None) -> AlltoallBound:
    """Find the least time of an all-to-all.

    Parameters
    ----------
    network
        Of at least two ranks.
    demands
        Weights of the blocks, whole numbers of shape ``(nranks, nranks)``, row by source; all equal when left
        out.

    Raises
    ------
    UsageError
        A single rank, or weights of another shape, or negative ones, or nothing between different ranks.
    TopologyError
        Data cannot reach some rank.
    PlanningError
        There are too many ranks for weights.
    """
    return bound_of(network, Demands(network, demands))


class Demands:
    """Weights of the blocks, checked.

    Attributes
    ----------
    whole, between : array
        The weights, and those between different ranks alone.
    uniform : bool
        Whether none were given.
    """

    def __init__(self, network: Network, demands: npt.ArrayLike | None) -> None:
        n = network.nranks
        if n < 2:
            raise UsageError("a single rank has nothing to exchange and no bound; give at least two")
        if n > MAX_RANKS:
            raise PlanningError(
                f"alltoall of {n} ranks is planned pair by pair, which is done for at most {MAX_RANKS}; "
                "plan for a part of them"
            )
        given = np.ones((n, n), np.int64) if demands is None else np.asarray(demands)
        if given.shape != (n, n) or given.dtype.kind not in "iu":
            raise UsageError(
                f"demands are {n} x {n} whole numbers, a row for each source; "
                f"got {given.dtype} of {given.shape}"
            )
        self.whole = given.astype(np.int64)
        self.between = self.whole.copy()
        np.fill_diagonal(self.between, 0)
        if self.whole.min() < 0 or not self.between.any():
            raise UsageError("demands are 0 or more, and not all 0 between different ranks")
        self.uniform = demands is None

    def algbw(self, network: Network, rate: Fraction) -> Fraction:
        """Bytes of a rank's mean send buffer per second, when all demands are served ``rate`` times."""
        return rate * int(self.whole.sum()) * network.unit / network.nranks


_KEPT: dict[tuple[int, bytes], tuple[Network, AlltoallBound]] = {}
_MOST_KEPT = 8


def bound_of(network: Network, demands: Demands) -> AlltoallBound:
    """Find the least time; what was found last is kept."""
    key = id(network), demands.whole.tobytes()
    kept = _KEPT.get(key)
    if kept is not None:
        return kept[1]
    _check_ways(network)
    pairs = _translated(network, demands) or pairs_of(network, demands.between)
    found = _flow_bound(demands, pairs) or _met(demands, _cut_bound(demands, pairs))
    while len(_KEPT) >= _MOST_KEPT:
        del _KEPT[next(iter(_KEPT))]
    _KEPT[key] = network, found
    return found


def _check_ways(network: Network) -> None:
    """Raise where a rank cannot reach another."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order

    count, ones = network.nvertices, np.ones(len(network.src), np.int8)
    for back, ends in enumerate(((network.src, network.dst), (network.dst, network.src))):
        graph = coo_array((ones, ends), (count, count)).tocsr()
        reached = np.zeros(count, np.bool_)
        reached[breadth_first_order(graph, 0, return_predecessors=False)] = True
        lost = np.flatnonzero(~reached[: network.nranks])
        if len(lost):
            pair = network.names[0], network.names[int(lost[0])]
            a, b = pair[::-1] if back else pair
            raise TopologyError(f"there is no way from {a} to {b}: join them, or leave one out of the group")


def _flow_bound(demands: Demands, pairs: Pairs) -> AlltoallBound | None:
    """Solve the programme, if it is small enough."""
    network = pairs.network
    cells = network.nranks * len(network.src)
    if cells > (MAX_CELLS if pairs.images is None else 8 * MAX_CELLS):
        return None
    if int(pairs.flow.max()) >= MAX_UNKNOWNS:
        return None
    flow = solve_concurrent(pairs)
    seconds = 1 / demands.algbw(network, flow.upper)
    attained = demands.algbw(network, flow.rate)
    return AlltoallBound(network, demands.whole, seconds, flow.lengths, pairs, flow, attained)


def _translated(network: Network, demands: Demands) -> Pairs | None:
    """Find the translations of a network of direct links: one source stands for all."""
    n, narc = network.nranks, len(network.src)
    if not demands.uniform or n != network.nvertices:
        return None
    structure = next(iter(structures(network)), None)
    if structure is None or not structure.direct:
        return None
    symmetry = Symmetry(network, tuple(shift for shift in structure.shifts if shift is not None))
    if symmetry.order != n:
        return None
    images = symmetry.image(np.arange(n)[:, None], np.arange(n)[None, :])
    arc = np.full(narc, narc, np.int64)
    for image in images:
        np.minimum(arc, arc_numbers(network, image[network.src], image[network.dst]), out=arc)
    if not np.array_equal(np.sort(images[:, 0]), np.arange(n)) or not np.array_equal(arc[arc], arc):
        return None  # no group that moves any rank to any other in one way
    arc = np.unique(arc, return_inverse=True)[1]
    return Pairs(network, demands.between, (), np.zeros(n, np.int64), arc, images)


def _cut_bound(demands: Demands, pairs: Pairs) -> AlltoallBound:
    """Take the best of natural cuts, and of alike arcs together."""
    network = pairs.network
    best: tuple[Fraction, npt.NDArray[np.bool_]] | None = None
    singles = ((np.arange(network.nvertices) == rank) for rank in pairs.representatives.tolist())
    for inside in (*singles, *_unit_sets(network)):
        for side in (inside, ~inside):
            cut = _cut(network, demands.between, side)
            if cut.weight:
                rate = Fraction(cut.capacity, cut.weight)
                if best is None or rate < best[0]:
                    best = rate, side[network.src] & ~side[network.dst]
    assert best is not None  # noqa: S101 (some demand is not 0)
    rate, counted = best
    if len(pairs.representatives) * len(network.src) <= MAX_CELLS:
        every = np.ones(len(network.src), np.bool_)
        alike = [pairs.arc == label for label in range(int(pairs.arc.max()) + 1)]
        for chosen in (every, *alike[:MAX_CLASSES]):
            whole = rate_by_lengths(network, demands.between, chosen.astype(int).tolist(), pairs.source)
            if whole is not None and whole < rate:
                rate, counted = whole, chosen
    lengths = tuple(counted.astype(int).tolist())
    return AlltoallBound(network, demands.whole, 1 / demands.algbw(network, rate), lengths, pairs)


def _met(demands: Demands, bound: AlltoallBound) -> AlltoallBound:
    """Look for messages that attain a bound by cuts; else grow trees, whose lengths may prove a better."""
    network = bound.network
    alike = len(bound.pairs.representatives) * len(network.src) <= MAX_PRICED
    for how, found in (straight(network), *relayed(network, unit_labels(network))) if alike else ():
        worst = found.worst(demands.between, bound.pairs)
        rate = demands.algbw(network, 1 / worst) if worst else Fraction(0)
        if rate > bound.attained:
            bound = replace(bound, attained=rate, relays=(how, found))
        if rate >= bound.algbw * CLOSE:
            return bound
    n = network.nranks
    trees = grown(network, demands.between, max(1, min(MOST_TREES, MAX_WAYS // (n * n))))
    rate = demands.algbw(network, 1 / trees.worst(network))
    if rate > bound.attained:
        bound = replace(bound, attained=rate, relays=None, trees=trees)
    lengths = lengths_by_load(network, trees.load)
    upper = rate_by_lengths(network, demands.between, lengths)
    if upper is not None and demands.algbw(network, upper) < bound.algbw:
        bound = replace(bound, seconds_per_byte=1 / demands.algbw(network, upper), lengths=tuple(lengths))
    return bound


def _unit_sets(network: Network) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield hosts, racks and pods, as sets of vertices."""
    for label in unit_labels(network):
        for unit in np.unique(label[: network.nranks]).tolist():
            yield label == unit


def unit_labels(network: Network) -> list[Ints]:
    """Label the units of each vertex (-1: none), small ones first; views tried later come last."""
    level = levels(network)
    if (level < 0).any():
        return []
    found: list[Ints] = []
    for chain in units(network, level):
        for label in chain:
            if not any(np.array_equal(label, known) for known in found):
                found.append(label)
    return found
