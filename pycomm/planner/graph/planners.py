"""The planners that look at the network: packed trees, and allreduce with free roots.

They serve requests that carry a topology. What they plan is made by :mod:`pycomm.planner.graph.synthesis` and
becomes a schedule by :mod:`pycomm.planner.graph.lowering`. The forests that were asked for last are kept:
with other pieces, channels or in_place they are another schedule of the same forests.
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
    from pycomm.planner.graph.synthesis import Plan

__all__ = ["FREE_ROOT", "TREE_PACKING", "forests_of", "plan_of"]

KEPT = 32
"""Forests that are kept."""


def plan_of(request: PlanRequest) -> Plan:
    """Make the forests of a request that has a topology, and say how good they are."""
    assert request.topology is not None  # noqa: S101 (the planners reject such requests)
    return _synthesized(request.topology, request.devices, equal_form(request.kind), request.root)


def forests_of(request: PlanRequest) -> tuple[Forest, ...]:
    """Make the forests of a request that has a topology, in the order in which lowering takes them."""
    return plan_of(request).forests


@lru_cache(maxsize=KEPT)
def _synthesized(topology: Topology, devices: tuple[int, ...], kind: CollectiveKind, root: int) -> Plan:
    from pycomm.planner.graph.synthesis import synthesize

    return synthesize(topology, kind, root, ranks=devices or None)


def _plan(request: PlanRequest, name: str) -> Schedule:
    from pycomm.planner.graph.lowering import lower

    return lower(
        request, *forests_of(request), name=name, channels=request.channels if request.channels > 1 else 0
    )


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
