"""From a topology to a plan that is proved to be the best, or says how far it is: structure first.

1. Compute the exact bound, and the cut that proves it.
2. Look for structure, build what it suggests, and add up the loads exactly: translated trees, units entered
   once, two trees on each rail. A candidate that meets the bound, or comes close enough, is the plan.
3. Only what is left goes to packing, or to the linear programme of free roots.

Unless told otherwise, "close enough" is 1%, and the plan has the fewest trees that come so close.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from pycomm.collectives.spec import equal_form
from pycomm.errors import UsageError
from pycomm.planner.base import PlanRequest
from pycomm.planner.graph.bounds import Bound, Cut, flow_network, weights_of
from pycomm.planner.graph.bounds import bound as exact_bound
from pycomm.planner.graph.candidates import (
    MAX_TREES,
    allgather_candidates,
    most_load,
    replicated_forests,
    reversed_structure,
)
from pycomm.planner.graph.few_trees import broadcast_forests, free_forests
from pycomm.planner.graph.forest import Forest
from pycomm.planner.graph.network import Network, network_of
from pycomm.planner.graph.partition_bound import partition_bound
from pycomm.planner.graph.reports import AnyBound, AnyPlan, facts_of, gigabytes, text_of
from pycomm.planner.graph.structure import Structure, structures
from pycomm.planner.graph.symmetric import Ints, SymmetricForest, Symmetry, symmetric_forest
from pycomm.planner.graph.unit_trees import UnitTrees
from pycomm.topology.model import Topology
from pycomm.types import CollectiveKind

if TYPE_CHECKING:
    from pycomm.planner.graph.alltoall_plans import FlowPlan
    from pycomm.planner.graph.balance import BalancedBound
    from pycomm.schedule import Schedule

__all__ = ["AlikeBound", "AnyBound", "Plan", "plan_on", "synthesize"]

CLOSE = Fraction(99, 100)
"""Part of the bound that is enough when no number of trees is asked for."""
FREE_ROOT_RANKS = 256
"""More ranks that are not alike are equal roots of an allreduce: choosing roots exactly takes too long."""
FALLS_SHORT = Fraction(9, 10)
"""An allreduce whose shared links reach less of its bound is planned by its halves as well."""
EXACT_TREES = 64
"""Trees at each rank that a structure may take to meet its bound exactly."""


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


@dataclass(frozen=True)
class Plan:
    """Forests for a collective, and how good they are.

    Parameters
    ----------
    kind, root
        The collective; the root is -1 where there is none.
    network
        What it was made for.
    bound
        What nothing can beat, and the cut that proves it.
    forests
        As :func:`pycomm.planner.graph.lowering.lower` takes them.
    algbw
        Bytes of the whole result per second that the busiest link allows.
    k
        The most trees at one rank, both halves counted alike.
    how
        What was done, for people.
    seconds
        Time taken to plan; no part of the plan otherwise.
    """

    kind: CollectiveKind
    root: int
    network: Network
    bound: AnyBound
    forests: tuple[Forest, ...]
    algbw: Fraction
    k: int
    how: str
    seconds: float

    @property
    def ratio(self) -> Fraction:
        """Part of the bound that is reached; 1 is proved to be the best."""
        return self.algbw / self.bound.algbw

    @property
    def height(self) -> int:
        """Height of the highest tree; of an allreduce, of those up and those down together."""
        return sum(forest.height() for forest in self.forests)

    @property
    def trees(self) -> int:
        """How many trees there are in the last half."""
        return len(self.forests[-1].trees)

    @property
    def cut_bound(self) -> Bound | None:
        """What cuts alone would allow, where switches with unequal in and out cannot pass that on."""
        from pycomm.planner.graph.balance import BalancedBound

        cuts = self.bound.cut_bound if isinstance(self.bound, BalancedBound) else None
        return cuts if cuts and cuts.algbw > self.bound.algbw else None

    def text(self) -> str:
        """One line, such as ``46.2 GB/s of 47.0 possible (98.3%), limited by leaf3 -> spine*``."""
        cuts = self.cut_bound
        if cuts is None:
            return text_of(self)
        more = f"cuts alone would allow {gigabytes(cuts.algbw)} GB/s, but switches cannot pass that on"
        return f"{text_of(self)}; {more}"

    def facts(self) -> dict[str, Any]:
        """All figures, for programs; fractions as text."""
        facts = {**facts_of(self), "trees": self.trees}
        if self.cut_bound is not None:
            facts["cut_bound_GBps"] = float(self.cut_bound.algbw / 10**9)
        return facts

    def schedule(self, *, pieces: int = 0, channels: int = 0) -> Schedule:
        """Lower the forests to a schedule; ``pieces`` and ``channels`` as of ``lower``."""
        from pycomm.planner.graph.lowering import lower

        request = PlanRequest(self.kind, self.network.nranks, self.root, pieces=pieces)
        return lower(request, *self.forests, channels=channels)


@dataclass(frozen=True)
class _Found:
    """A plan in the making."""

    forests: tuple[Forest, ...]
    seconds_per_byte: Fraction
    bound: AnyBound
    k: int
    how: str


@overload
def synthesize(  # type: ignore[overload-overlap]  # a kind that is not spelled out has trees
    topology: Topology,
    kind: Literal[CollectiveKind.ALLTOALL, CollectiveKind.ALLTOALLV],
    root: int = ...,
    k: int | None = ...,
    ranks: Sequence[int] | None = ...,
    *,
    exact: bool = ...,
) -> FlowPlan: ...
@overload
def synthesize(
    topology: Topology,
    kind: CollectiveKind,
    root: int = ...,
    k: int | None = ...,
    ranks: Sequence[int] | None = ...,
    *,
    exact: bool = ...,
) -> Plan: ...
def synthesize(
    topology: Topology,
    kind: CollectiveKind,
    root: int = -1,
    k: int | None = None,
    ranks: Sequence[int] | None = None,
    *,
    exact: bool = False,
) -> AnyPlan:
    """Plan a collective on a topology.

    Parameters
    ----------
    topology
        The whole network.
    kind, root
        The collective, and its root where it has one.
    k
        The most trees at each rank, or pieces of each block of an alltoall; when not given, the fewest that
        come within 1% of the bound.
    ranks
        Vertices of the ranks' devices; all devices when not given.
    exact
        Meet the bound exactly, with as many trees as that takes, rather than within 1%.

    Raises
    ------
    UsageError
        There is a single rank, or the collective cannot be carried by trees, or its root is not a rank.
    TopologyError
        Some rank cannot hear from another.
    PlanningError
        No plan can be made.
    """
    network = network_of(topology, ranks)
    if equal_form(kind) is CollectiveKind.ALLTOALL:
        from pycomm.planner.graph.alltoall_plans import plan as plan_flow

        return plan_flow(network, most_pieces=k, exact=exact)
    return plan_on(network, kind, root, k, exact=exact)


def plan_on(
    network: Network, kind: CollectiveKind, root: int = -1, k: int | None = None, *, exact: bool = False
) -> Plan:
    """Plan a collective on a network; parameters and errors as of :func:`synthesize`."""
    started = time.perf_counter()
    kind = equal_form(kind)
    if network.nranks < 2:
        raise UsageError("a single rank has nothing to exchange; give at least two")
    if k is not None and k < 1:
        raise UsageError(f"k is {k}; there must be at least one tree at each rank")
    if kind is CollectiveKind.ALLREDUCE:
        found = _allreduce(network, k, exact)
    else:
        weights_of(network, kind, root)  # refuses other collectives and roots that are none
        found = _rooted(network, kind, root, k, exact) if kind.is_rooted else _spread(network, kind, k, exact)
    return Plan(
        kind,
        root if kind.is_rooted else -1,
        network,
        found.bound,
        found.forests,
        1 / found.seconds_per_byte,
        found.k,
        found.how,
        time.perf_counter() - started,
    )


# ------------------------------------------------------------------------------- allgather and reduce_scatter


def _pack_exactly(network: Network) -> Forest:
    """Pack the inside of a host."""
    return _spread(network, CollectiveKind.ALLGATHER, None, exact=True).forests[0]


def _spread(network: Network, kind: CollectiveKind, k: int | None, exact: bool) -> _Found:
    """Plan an allgather, or a reduce_scatter as an allgather on the network reversed."""
    flows = flow_network(network, kind)
    bound = exact_bound(network, kind)
    per_byte = network.nranks * network.unit
    least = bound.seconds_per_byte * per_byte
    goal = least if exact or k is not None else least / CLOSE
    most = k or (EXACT_TREES if exact else MAX_TREES)
    best = None
    for candidate in allgather_candidates(flows, least, _pack_exactly, most):
        if k is None or candidate.k <= k:
            if best is None or candidate.load < best.load:
                best = candidate
            if best.load <= goal:
                break
    found = _Found((best.forest,), best.load / per_byte, bound, best.k, best.how) if best else None
    if found and found.seconds_per_byte * per_byte <= goal:
        return found
    return _better(found, _packed(flows, bound, k, exact))


def _packed(flows: Network, bound: Bound, k: int | None, exact: bool) -> _Found:
    """Pack trees; where some switch has not as much in as out, into the best balanced part of the network."""
    from pycomm.planner.graph.packing import forest as pack
    from pycomm.planner.graph.packing import unbalanced

    within = Fraction(0) if exact else 1 - CLOSE
    if not len(unbalanced(flows, flows.capacity)):
        forest, how = pack(flows, bound, k, within=within), "trees packed"
        proved: Bound | BalancedBound = bound
    else:
        from pycomm.planner.graph.balance import balanced_bound, balanced_forest

        balanced = balanced_bound(bound.network, bound.kind, bound.root)
        forest, how = balanced_forest(balanced, k, within=within), "switches balanced, trees packed"
        proved = bound if flows.multicast else balanced  # what replicates may let out more than it takes in
    return _Found((forest,), 1 / forest.algbw(), proved, _most_trees(forest), how)


def _better(found: _Found | None, packed: _Found) -> _Found:
    """Take what structure suggests, if that is as good; what packing learnt about the bound stays."""
    if found is None or packed.seconds_per_byte < found.seconds_per_byte:
        return packed
    return replace(found, bound=packed.bound)


def _most_trees(forest: Forest) -> int:
    """Count the trees of the rank that has most."""
    return int(np.bincount([tree.root for tree in forest.trees]).max())


# --------------------------------------------------------------------------------------- broadcast and reduce


def _rooted(network: Network, kind: CollectiveKind, root: int, k: int | None, exact: bool) -> _Found:
    """Plan a broadcast, or a reduce as a broadcast on the network reversed."""
    flows = flow_network(network, kind)
    bound = exact_bound(network, kind, root)
    goal = bound.seconds_per_byte / (1 if exact or k is not None else CLOSE)
    best: _Found | None = None
    indirect = (UnitTrees(s) for s in structures(flows) if s.complete or not s.direct)
    for what, forest in itertools.chain.from_iterable(broadcast_forests(unit, root) for unit in indirect):
        seconds = most_load(flows, forest.loads()) / (forest.weight() * network.unit)
        if (k is None or len(forest.trees) <= k) and (best is None or seconds < best.seconds_per_byte):
            best = _Found((forest,), seconds, bound, len(forest.trees), what)
            if seconds <= goal:
                return best
    return _better(best, _packed(flows, bound, k, exact))


# -------------------------------------------------------------------------------------------------- allreduce


def _all_alike(structure: Structure) -> bool:
    return all(shift is not None for shift in structure.shifts)


def _allreduce(network: Network, k: int | None, exact: bool) -> _Found:
    """Plan an allreduce: by its halves where all ranks are alike, otherwise with free roots."""
    structure = next((s for s in structures(network) if _all_alike(s)), None)
    if structure is not None:
        found = _alike_allreduce(network, structure, k, exact)
        if found is not None:
            return found
    return _free_allreduce(network, exact)


def _alike_allreduce(network: Network, structure: Structure, k: int | None, exact: bool) -> _Found | None:
    """Plan an allreduce of alike ranks; ``None`` when it is not known to be good enough."""
    down = _spread(network, CollectiveKind.ALLGATHER, k, exact)
    up = _turned_round(network, down)
    if up is None:
        up = _spread(network, CollectiveKind.REDUCE_SCATTER, k, exact)
    if not isinstance(up.bound, Bound) or not isinstance(down.bound, Bound):
        return None
    bound = _alike_bound(network, structure, up.bound, down.bound)
    if bound is None:
        return None
    if not structure.direct and not exact:
        few = _few(network, structure, bound.seconds_per_byte / CLOSE)
        if few is not None:
            most = int(few[0][1].roots().max())
            return _Found(few[0], few[1], bound, most, few[2])
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
    return _Found(forests, seconds, bound, down.k, f"up and down: {down.how}")


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


def _turned_round(network: Network, found: _Found) -> _Found | None:
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
    return _Found((turned,), found.seconds_per_byte, bound, found.k, found.how)


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


def _free_allreduce(network: Network, exact: bool) -> _Found:
    """Let a linear programme choose the roots and share the links, and pack both forests."""
    from pycomm.planner.graph.free_roots import allreduce_bound, allreduce_forests

    if network.nranks > FREE_ROOT_RANKS:
        return _shared_allreduce(network, exact)
    bound = allreduce_bound(network)
    up, down = allreduce_forests(network, bound, Fraction(1) if exact else CLOSE)
    seconds = shared_seconds(network, (up, down))
    return _Found((up, down), seconds, bound, _most_trees(down), "free roots, shared links")


def _shared_allreduce(network: Network, exact: bool) -> _Found:
    """Share the links by a quick linear programme, with equal roots; by halves where that falls short."""
    from pycomm.planner.graph.shared_links import shared_allreduce

    shared = shared_allreduce(network)
    if shared is None:
        return _equal_allreduce(network, exact)
    forests, bound = shared
    found = _Found(
        forests, shared_seconds(network, forests), bound, _most_trees(forests[1]), "equal roots, shared links"
    )
    if bound.seconds_per_byte >= FALLS_SHORT * found.seconds_per_byte:
        return found
    return _better(_equal_allreduce(network, exact), found)


def _equal_allreduce(network: Network, exact: bool) -> _Found:
    """Give all ranks equal shares, where the linear programme would take too long."""
    up = _spread(network, CollectiveKind.REDUCE_SCATTER, None, exact)
    down = _spread(network, CollectiveKind.ALLGATHER, None, exact)
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
    return _Found(forests, shared_seconds(network, forests), bound, down.k, how)


def _repeated(forest: Forest, weight: int) -> Forest:
    """Make the units of data smaller, so that every root has so many."""
    factor = weight // int(forest.roots().max())
    return Forest(forest.network, tuple(t._replace(weight=t.weight * factor) for t in forest.trees))
