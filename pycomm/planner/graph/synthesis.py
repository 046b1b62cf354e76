"""From a topology to a plan that is proved to be the best, or says how far it is: structure first.

1. Compute the exact bound, and the cut that proves it.
2. Look for structure, build what it suggests, and add up the loads exactly: translated trees, units entered
   once, two trees on each rail. A candidate that meets the bound, or comes close enough, is the plan.
3. Only what is left goes to packing, or to the linear programme of free roots.

Unless told otherwise, "close enough" is 1%, and the plan has the fewest trees that come so close.

:mod:`~pycomm.planner.graph.one_way_plans` does it for data that flow one way, an allreduce is planned by
:mod:`~pycomm.planner.graph.allreduce_plans`, and what has no trees by
:mod:`~pycomm.planner.graph.alltoall_plans`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, overload

from pycomm.collectives.spec import equal_form
from pycomm.errors import UsageError
from pycomm.planner.base import PlanRequest
from pycomm.planner.graph.allreduce_plans import allreduce
from pycomm.planner.graph.bounds import Bound, weights_of
from pycomm.planner.graph.forest import Forest
from pycomm.planner.graph.network import Network, network_of
from pycomm.planner.graph.one_way_plans import rooted, spread
from pycomm.planner.graph.reports import AnyBound, AnyPlan, facts_of, gigabytes, text_of
from pycomm.topology.model import Topology
from pycomm.types import CollectiveKind

if TYPE_CHECKING:
    from pycomm.planner.graph.alltoall_plans import FlowPlan
    from pycomm.schedule import Schedule

__all__ = ["Plan", "plan_on", "synthesize"]


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
        found = allreduce(network, k, exact)
    else:
        weights_of(network, kind, root)  # refuses other collectives and roots that are none
        found = rooted(network, kind, root, k, exact) if kind.is_rooted else spread(network, kind, k, exact)
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
