"""The planners that look at the network: packed trees, and allreduce with free roots.

They serve requests that carry a topology. What they plan is made by :mod:`pycomm.planner.graph.synthesis` and
becomes a schedule by :mod:`pycomm.planner.graph.lowering`. The forests that were asked for last are kept:
with other pieces, channels or in_place they are another schedule of the same forests.
"""

from __future__ import annotations

from functools import lru_cache, partial

from pycomm.collectives.spec import equal_form
from pycomm.planner.algorithm import Algorithm, Form
from pycomm.planner.base import PlanCost, PlanRequest
from pycomm.planner.graph.forest import Forest
from pycomm.schedule import Schedule
from pycomm.topology.model import NodeKind, Topology
from pycomm.types import CollectiveKind

__all__ = ["FREE_ROOT", "TREE_PACKING", "forests_of", "group_topology"]

KEPT = 32
"""Forests that are kept."""


def group_topology(topology: Topology, devices: tuple[int, ...]) -> Topology:
    """Let the named devices be all devices, in this order; the other ones only pass on what they receive.

    Parameters
    ----------
    topology
        The whole network.
    devices
        Vertices that are devices, each once; ``()`` means all in their order, and the topology as it is.
    """
    if not devices or devices == topology.devices:
        return topology
    member = set(devices)
    order = [*devices, *(i for i in range(len(topology.nodes)) if i not in member)]
    number = {old: new for new, old in enumerate(order)}
    nodes = [topology.nodes[i] for i in order]
    for i in range(len(devices), len(nodes)):
        if nodes[i].kind is NodeKind.DEVICE:
            nodes[i] = nodes[i]._replace(kind=NodeKind.SWITCH)
    links = (link._replace(src=number[link.src], dst=number[link.dst]) for link in topology.links)
    return Topology(topology.name, tuple(nodes), tuple(links), topology.notes)


def forests_of(request: PlanRequest) -> tuple[Forest, ...]:
    """Make the forests of a request that has a topology, in the order in which lowering takes them."""
    assert request.topology is not None  # noqa: S101 (the planners reject such requests)
    return _forests(request.topology, request.devices, equal_form(request.kind), request.root)


@lru_cache(maxsize=KEPT)
def _forests(
    topology: Topology, devices: tuple[int, ...], kind: CollectiveKind, root: int
) -> tuple[Forest, ...]:
    from pycomm.planner.graph.synthesis import synthesize

    return tuple(synthesize(group_topology(topology, devices), kind, root).forests)


def _plan(request: PlanRequest, name: str) -> Schedule:
    from pycomm.planner.graph.lowering import lower

    return lower(
        request, *forests_of(request), name=name, channels=request.channels if request.channels > 1 else 0
    )


def _cost(request: PlanRequest) -> PlanCost:
    from pycomm.planner.graph.lowering import cost

    return cost(request, *forests_of(request))


@lru_cache(maxsize=KEPT)
def _cut_off(topology: Topology, devices: tuple[int, ...]) -> str | None:
    """Name a rank that cannot hear from rank 0, or that rank 0 cannot hear from."""
    group = group_topology(topology, devices)
    ahead: list[list[int]] = [[] for _ in group.nodes]
    behind: list[list[int]] = [[] for _ in group.nodes]
    for link in group.links:
        ahead[link.src].append(link.dst)
        behind[link.dst].append(link.src)
    first = group.devices[0]
    for near, says in ((ahead, "from {} to {}"), (behind, "from {1} to {0}")):
        seen, todo = {first}, [first]
        while todo:
            for vertex in near[todo.pop()]:
                if vertex not in seen:
                    seen.add(vertex)
                    todo.append(vertex)
        lost = [device for device in group.devices if device not in seen]
        if lost:
            return "there is no way " + says.format(group.nodes[first].name, group.nodes[lost[0]].name)
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
    bad = [v for v in request.devices if not 0 <= v < len(topology.nodes)]
    bad = bad or [v for v in request.devices if topology.nodes[v].kind is not NodeKind.DEVICE]
    if bad:
        return f"vertex {bad[0]} of the topology is not a device"
    if len(set(request.devices)) != len(request.devices):
        return "two ranks are on the same device"
    return _cut_off(topology, request.devices)


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
