"""The planners that look at the network: packed trees, allreduce with free roots, alltoall along flows.

They serve requests that carry a topology. What they plan is made by :mod:`pycomm.planner.graph.synthesis` and
becomes a schedule by :mod:`pycomm.planner.graph.lowering` or :mod:`pycomm.planner.graph.alltoall_lowering`.
What was asked for last is kept: with other pieces, channels or in_place it is another schedule of the same
forests or ways.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING

from pycomm.collectives.spec import equal_form
from pycomm.errors import TopologyError, UsageError
from pycomm.planner.algorithm import Algorithm, Form
from pycomm.planner.base import PlanCost, PlanRequest
from pycomm.planner.graph.forest import Forest
from pycomm.planner.graph.network import network_of
from pycomm.schedule import Schedule
from pycomm.topology.model import Topology
from pycomm.types import CollectiveKind

if TYPE_CHECKING:
    from pycomm.planner.graph.alltoall_plans import FlowPlan
    from pycomm.planner.graph.reports import AnyPlan
    from pycomm.planner.graph.synthesis import Plan

__all__ = ["FLOW_ALLTOALL", "FREE_ROOT", "TREE_PACKING", "flow_plan_of", "forests_of", "plan_of"]

KEPT = 32
"""Forests that are kept."""


def plan_of(request: PlanRequest) -> AnyPlan:
    """Make the forests or ways of a request that has a topology, and say how good they are."""
    if equal_form(request.kind) is CollectiveKind.ALLTOALL:
        return flow_plan_of(request)
    return _tree_plan_of(request)


def _tree_plan_of(request: PlanRequest) -> Plan:
    assert request.topology is not None  # noqa: S101 (the planners reject such requests)
    return _synthesized(request.topology, request.devices, equal_form(request.kind), request.root)


def flow_plan_of(request: PlanRequest) -> FlowPlan:
    """Make the ways of an alltoall that has a topology, and say how good they are."""
    assert request.topology is not None  # noqa: S101 (the planners reject such requests)
    return _flows(request.topology, request.devices)


def forests_of(request: PlanRequest) -> tuple[Forest, ...]:
    """Make the forests of a request that has a topology, in the order in which lowering takes them."""
    return _tree_plan_of(request).forests


@lru_cache(maxsize=KEPT)
def _flows(topology: Topology, devices: tuple[int, ...]) -> FlowPlan:
    from pycomm.planner.graph.synthesis import synthesize

    return synthesize(topology, CollectiveKind.ALLTOALL, ranks=devices or None)


@lru_cache(maxsize=KEPT)
def _synthesized(topology: Topology, devices: tuple[int, ...], kind: CollectiveKind, root: int) -> Plan:
    from pycomm.planner.graph.synthesis import synthesize

    return synthesize(topology, kind, root, ranks=devices or None)


def _plan(request: PlanRequest, name: str) -> Schedule:
    from pycomm.planner.graph.lowering import lower

    return lower(
        request, *forests_of(request), name=name, channels=request.channels if request.channels > 1 else 0
    )


def _plan_flow(request: PlanRequest) -> Schedule:
    from pycomm.planner.graph.alltoall_lowering import lower

    found = flow_plan_of(request)
    return lower(request, found.routes, found.unit, FLOW_ALLTOALL.name)


def _cost_of_flow(request: PlanRequest) -> PlanCost:
    return flow_plan_of(request).cost(request)


def _cost(request: PlanRequest) -> PlanCost:
    from pycomm.planner.graph.lowering import cost

    return cost(request, *forests_of(request))


@lru_cache(maxsize=KEPT)
def _problem(topology: Topology, devices: tuple[int, ...]) -> str | None:
    """Say why the devices are no group: no devices, or no way from one to another."""
    try:
        network = network_of(topology, devices or None)
    except (TopologyError, UsageError) as error:
        return str(error)
    for names, src, dst in (
        ("from {0} to {1}", network.src, network.dst),
        ("from {1} to {0}", network.dst, network.src),
    ):
        near: list[list[int]] = [[] for _ in network.names]
        for a, b in zip(src.tolist(), dst.tolist(), strict=True):
            near[a].append(b)
        seen, todo = {0}, [0]
        while todo:
            ahead = [vertex for vertex in near[todo.pop()] if vertex not in seen]
            seen.update(ahead)
            todo += ahead
        lost = [rank for rank in range(network.nranks) if rank not in seen]
        if lost:
            return "there is no way " + names.format(network.names[0], network.names[lost[0]])
    return None


def _refuses(request: PlanRequest) -> str | None:
    topology = request.topology
    if topology is None:
        return "it plans on the links of a network, and the request has no topology"
    if not request.devices and len(topology.devices) != request.nranks:
        return (
            f"the topology has {len(topology.devices)} devices for {request.nranks} ranks; "
            "name the devices of the ranks"
        )
    return _problem(topology, request.devices)


def _refuses_flow(request: PlanRequest) -> str | None:
    from pycomm.planner.graph.alltoall import MAX_RANKS

    if request.nranks > MAX_RANKS:
        return f"it lists the messages of each pair, for at most {MAX_RANKS} ranks"
    return _refuses(request)


def _planner(name: str, *kinds: CollectiveKind) -> Algorithm:
    return Algorithm(name, {kind: Form(partial(_plan, name=name), _cost) for kind in kinds}, _refuses)


TREE_PACKING = _planner(
    "tree_packing",
    CollectiveKind.ALLGATHER,
    CollectiveKind.REDUCE_SCATTER,
    CollectiveKind.BROADCAST,
    CollectiveKind.REDUCE,
)
"""Spanning trees that fill the links."""
FREE_ROOT = _planner("free_root", CollectiveKind.ALLREDUCE)
"""Trees up and trees down that share the links, with as much data at each root as serves all best."""
FLOW_ALLTOALL = Algorithm(
    "flow_alltoall", {CollectiveKind.ALLTOALL: Form(_plan_flow, _cost_of_flow)}, _refuses_flow
)
"""Ways that fill the links: straight, over relays on rails, or along a concurrent flow. A ragged alltoall has
the ways that are best for equal blocks."""
