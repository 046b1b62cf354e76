"""Forests for an allreduce, up and down: by its halves where all ranks are alike, otherwise with free roots.

Where renamings lead every rank to every other, some best plan is a reduce_scatter and an allgather, each the
best by itself, and what limits the one limits the other. Where ranks differ, which of them are roots of how
much, and which half uses how much of each link, is left to a linear programme
(:mod:`~pycomm.planner.graph.free_roots`). Very many unlike ranks are equal roots, and a quicker one only
shares the links (:mod:`~pycomm.planner.graph.shared_links`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pycomm.planner.graph.bounds import Bound, Cut, flow_network
from pycomm.planner.graph.bounds import bound as exact_bound
from pycomm.planner.graph.candidates import most_load, replicated_forests, reversed_structure
from pycomm.planner.graph.few_trees import free_forests
from pycomm.planner.graph.forest import Forest
from pycomm.planner.graph.network import Network
from pycomm.planner.graph.one_way_plans import CLOSE, Found, better, most_trees, spread
from pycomm.planner.graph.partition_bound import partition_bound
from pycomm.planner.graph.reports import AnyBound
from pycomm.planner.graph.structure import Structure, structures
from pycomm.planner.graph.symmetric import Ints, SymmetricForest, Symmetry, symmetric_forest
from pycomm.planner.graph.unit_trees import UnitTrees
from pycomm.types import CollectiveKind

__all__ = ["AlikeBound", "allreduce", "shared_seconds"]

FREE_ROOT_RANKS = 256
"""More ranks that are not alike are equal roots of an allreduce: choosing roots exactly takes too long."""
FALLS_SHORT = Fraction(9, 10)
"""An allreduce whose shared links reach less of its bound is planned by its halves as well."""


@dataclass(frozen=True)
class AlikeBound:
    """The least time of an allreduce whose ranks are all alike: a reduce_scatter, then an allgather.

    Take any plan, and average it over the renamings that lead every rank to every other: all roots get the
    same share. Let the parts T, images of the one that limits the allgather, hold m of the N ranks each. The
    data for the roots elsewhere leave T while they are reduced, (N-m)/N of all, and what was reduced
    elsewhere enters it again, as much. Ranks and switches pass on as much as they receive, on average over
    the images; so the first part weighs on the links into T as well, and they carry twice what they carry in
    an allgather.

    Parameters
    ----------
    halves
        Bounds of the reduce_scatter and of the allgather; equally large.
    """

    halves: tuple[Bound, Bound]

    @property
    def seconds_per_byte(self) -> Fraction:
        """Least time over the bytes of the result."""
        return self.halves[0].seconds_per_byte + self.halves[1].seconds_per_byte

    @property
    def algbw(self) -> Fraction:
        """Greatest rate, bytes of the result per second."""
        return 1 / self.seconds_per_byte

    @property
    def cut(self) -> Cut:
        """The set of vertices that limits the allgather."""
        return self.halves[1].cut

    def limited_by(self) -> str:
        """Name the links that limit both halves."""
        return self.halves[1].limited_by()


def allreduce(network: Network, k: int | None, exact: bool) -> Found:
    """Plan an allreduce: by its halves where all ranks are alike, otherwise with free roots.

    Parameters
    ----------
    network
        Of at least two ranks.
    k, exact
        As of :func:`pycomm.planner.graph.one_way_plans.spread`.
    """
    structure = next((s for s in structures(network) if _all_alike(s)), None)
    if structure is not None:
        found = _alike_allreduce(network, structure, k, exact)
        if found is not None:
            return found
    return _free_allreduce(network, exact)


def _all_alike(structure: Structure) -> bool:
    return all(shift is not None for shift in structure.shifts)


# ------------------------------------------------------------------------------------------------ alike ranks


def _alike_allreduce(network: Network, structure: Structure, k: int | None, exact: bool) -> Found | None:
    """Plan an allreduce of alike ranks; ``None`` when it is not known to be good enough."""
    down = spread(network, CollectiveKind.ALLGATHER, k, exact)
    up = _turned_round(network, down)
    if up is None:
        up = spread(network, CollectiveKind.REDUCE_SCATTER, k, exact)
    if not isinstance(up.bound, Bound) or not isinstance(down.bound, Bound):
        return None
    bound = _alike_bound(network, structure, up.bound, down.bound)
    if bound is None:
        return None
    if not structure.direct and not exact:
        few = _few(network, structure, bound.seconds_per_byte / CLOSE)
        if few is not None:
            most = int(few[0][1].roots().max())
            return Found(few[0], few[1], bound, most, few[2])
    forests = (up.forests[0], down.forests[0])
    seconds = shared_seconds(network, forests)
    if network.multicast:
        back = replicated_forests(reversed_structure(structure))
        for other in zip(back, replicated_forests(structure), strict=False):
            shared = shared_seconds(network, other)
            if shared < seconds:
                forests, seconds = other, shared
    if seconds * (1 if exact else CLOSE) > bound.seconds_per_byte and k is None and not network.multicast:
        return None
    return Found(forests, seconds, bound, down.k, f"up and down: {down.how}")


def _alike_bound(network: Network, structure: Structure, up: Bound, down: Bound) -> AlikeBound | Bound | None:
    """Bound an allreduce of alike ranks; ``None`` when its halves differ: nothing is known of both together.

    Where switches replicate or combine, all data must enter each rank, as in a broadcast; and the averages of
    :class:`AlikeBound` still hold for units that have all such switches inside, for what is outside passes on
    as much as it receives.
    """
    special = sorted(network.multicast | network.reduction)
    if not special:
        return AlikeBound((up, down)) if down.seconds_per_byte == up.seconds_per_byte else None
    best: AlikeBound | Bound = exact_bound(network, CollectiveKind.BROADCAST, 0)
    for label in structure.chain:
        if (label[special] >= 0).all():
            both = AlikeBound(
                (
                    _unit_bound(network, CollectiveKind.REDUCE_SCATTER, label),
                    _unit_bound(network, CollectiveKind.ALLGATHER, label),
                )
            )
            if both.seconds_per_byte > best.seconds_per_byte:
                best = both
    return best


def _unit_bound(network: Network, kind: CollectiveKind, label: Ints) -> Bound:
    """Bound a collective by what has to enter the unit of rank 0."""
    flows, inside = flow_network(network, kind), label == label[0]
    entering = ~inside[flows.src] & inside[flows.dst]
    missing = network.nranks - int(inside[: network.nranks].sum())
    cut = Cut(tuple(np.flatnonzero(~inside).tolist()), missing, int(flows.capacity[entering].sum()))
    seconds = Fraction(missing, cut.capacity * network.nranks * network.unit)
    return Bound(network, kind, -1, seconds, cut)


def _turned_round(network: Network, found: Found) -> Found | None:
    """Use an allgather's forest for the reduce_scatter where turning all arcs round changes nothing."""
    back = network.reversed()
    alike = np.array_equal(back.src, network.src) and np.array_equal(back.dst, network.dst)
    alike = alike and network.multicast == network.reduction
    if not alike or not np.array_equal(back.capacity, network.capacity) or not isinstance(found.bound, Bound):
        return None
    forest = found.forests[0]
    if isinstance(forest, SymmetricForest):
        turned: Forest = symmetric_forest(Symmetry(back, forest.symmetry.shifts), forest.base)
    else:
        turned = Forest(back, forest.trees)
    bound = Bound(network, CollectiveKind.REDUCE_SCATTER, -1, found.bound.seconds_per_byte, found.bound.cut)
    return Found((turned,), found.seconds_per_byte, bound, found.k, found.how)


def _few(
    network: Network, structure: Structure, enough: Fraction
) -> tuple[tuple[Forest, Forest], Fraction, str] | None:
    """Two trees on each rail, up and down, if both together take few enough seconds per byte."""
    down = free_forests(UnitTrees(structure))
    up = free_forests(UnitTrees(reversed_structure(structure)))
    for (what, below), (_, above) in zip(down, up, strict=False):
        forests: tuple[Forest, Forest] = (above, below)
        seconds = shared_seconds(network, forests)
        if seconds <= enough:
            return forests, seconds, what
    return None


def shared_seconds(network: Network, forests: tuple[Forest, Forest]) -> Fraction:
    """Seconds per byte when trees up (on the network reversed) and trees down share the links."""
    up, down = forests
    back = network.reversed()
    order = np.lexsort((network.src, network.dst))  # arc i of the reversed network is arc order[i]
    assert np.array_equal(back.dst, network.src[order])  # noqa: S101
    loads = down.loads() * up.weight()
    loads[order] += up.loads() * down.weight()
    return most_load(network, loads) / (up.weight() * down.weight() * network.unit)


# ----------------------------------------------------------------------------------------------- unlike ranks


def _free_allreduce(network: Network, exact: bool) -> Found:
    """Let a linear programme choose the roots and share the links, and pack both forests."""
    from pycomm.planner.graph.free_roots import allreduce_bound, allreduce_forests

    if network.nranks > FREE_ROOT_RANKS:
        return _shared_allreduce(network, exact)
    bound = allreduce_bound(network)
    up, down = allreduce_forests(network, bound, Fraction(1) if exact else CLOSE)
    seconds = shared_seconds(network, (up, down))
    return Found((up, down), seconds, bound, most_trees(down), "free roots, shared links")


def _shared_allreduce(network: Network, exact: bool) -> Found:
    """Share the links by a quick linear programme, with equal roots; by halves where that falls short."""
    from pycomm.planner.graph.shared_links import shared_allreduce

    shared = shared_allreduce(network)
    if shared is None:
        return _equal_allreduce(network, exact)
    forests, bound = shared
    found = Found(
        forests, shared_seconds(network, forests), bound, most_trees(forests[1]), "equal roots, shared links"
    )
    if bound.seconds_per_byte >= FALLS_SHORT * found.seconds_per_byte:
        return found
    return better(_equal_allreduce(network, exact), found)


def _equal_allreduce(network: Network, exact: bool) -> Found:
    """Give all ranks equal shares, where the linear programme would take too long."""
    up = spread(network, CollectiveKind.REDUCE_SCATTER, None, exact)
    down = spread(network, CollectiveKind.ALLGATHER, None, exact)
    forests = (up.forests[0], down.forests[0])
    roots = [forest.roots() for forest in forests]
    if not np.array_equal(roots[0], roots[1]):  # equal at all ranks, but in other units
        both = int(np.lcm(roots[0].max(), roots[1].max()))
        forests = (_repeated(forests[0], both), _repeated(forests[1], both))
    bounds: list[AnyBound] = [exact_bound(network, CollectiveKind.BROADCAST, 0)]
    whole = partition_bound(network)
    if whole is not None:
        bounds.append(whole)
    bound = min(bounds, key=lambda one: one.algbw)
    how = f"equal shares up and down: more than {FREE_ROOT_RANKS} unlike ranks; down: {down.how}"
    return Found(forests, shared_seconds(network, forests), bound, down.k, how)


def _repeated(forest: Forest, weight: int) -> Forest:
    """Make the units of data smaller, so that every root has so many."""
    factor = weight // int(forest.roots().max())
    return Forest(forest.network, tuple(t._replace(weight=t.weight * factor) for t in forest.trees))
