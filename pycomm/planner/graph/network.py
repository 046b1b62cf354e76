"""A topology as the graph planners see it: ranks, vertices that only pass on, and arcs of whole capacities.

Vertices ``0 .. nranks-1`` are the ranks; the others are everything that passes on what it receives: switches,
NICs, hosts, and devices outside the group that may relay. Parallel links are one arc. Capacities are whole
multiples of ``unit`` bytes per second, as small as possible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pycomm.errors import TopologyError, UsageError
from pycomm.topology.model import NodeKind, Topology

__all__ = ["Network", "network_of"]


@dataclass(frozen=True, eq=False)
class Network:
    """Capacitated digraph of a group of ranks.

    Parameters
    ----------
    nranks
        How many of the vertices are ranks; they come first.
    names
        Name of each vertex.
    src, dst
        int32 arrays of shape ``(narcs,)``: the arcs, sorted by ``(src, dst)``, each pair once. Read-only.
    capacity
        int64 array of shape ``(narcs,)``, in multiples of ``unit``, each at least 1. Read-only.
    unit
        Bytes per second of one unit of capacity; an integer, the greatest that divides all bandwidths.
    latency_s
        float64 array of shape ``(narcs,)``: the least latency of the links of each arc. Read-only.
    multicast, reduction
        Vertices (not ranks) that can replicate, and combine.
    """

    nranks: int
    names: tuple[str, ...]
    src: npt.NDArray[np.int32]
    dst: npt.NDArray[np.int32]
    capacity: npt.NDArray[np.int64]
    unit: int
    latency_s: npt.NDArray[np.float64]
    multicast: frozenset[int] = frozenset()
    reduction: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for array in (self.src, self.dst, self.capacity, self.latency_s):
            array.setflags(write=False)

    @property
    def nvertices(self) -> int:
        """How many vertices there are."""
        return len(self.names)

    @cached_property
    def arc(self) -> dict[tuple[int, int], int]:
        """Number of the arc of each joined pair of vertices."""
        return {pair: i for i, pair in enumerate(zip(self.src.tolist(), self.dst.tolist(), strict=True))}

    def reversed(self) -> Network:
        """Turn every arc round; switches that combine now replicate."""
        order = np.lexsort((self.src, self.dst))
        return Network(
            self.nranks,
            self.names,
            self.dst[order],
            self.src[order],
            self.capacity[order],
            self.unit,
            self.latency_s[order],
            self.reduction,
            self.multicast,
        )


def network_of(topology: Topology, ranks: Sequence[int] | None = None, *, relays: bool = True) -> Network:
    """Take the view of a group.

    Parameters
    ----------
    topology
        The whole network.
    ranks
        Vertex index of each rank's device; ``None`` means all devices in order.
    relays
        Whether devices outside the group may pass on what is not theirs.

    Raises
    ------
    UsageError
        A rank is not a device, or two ranks are the same one.
    TopologyError
        There is no device.
    """
    chosen = list(topology.devices if ranks is None else ranks)
    if not chosen:
        raise TopologyError(f"{topology.name}: there is no device, and so nothing to plan for")
    if len(set(chosen)) != len(chosen):
        raise UsageError("two ranks are on the same device; each rank needs a device of its own")
    for vertex in chosen:
        if not 0 <= vertex < len(topology.nodes) or topology.nodes[vertex].kind is not NodeKind.DEVICE:
            raise UsageError(f"{topology.name}: vertex {vertex} is not a device and cannot be a rank")
    member = set(chosen)
    others = [
        i
        for i, node in enumerate(topology.nodes)
        if i not in member and (relays or node.kind is not NodeKind.DEVICE)
    ]
    vertices = chosen + others
    number = np.full(len(topology.nodes), -1, np.int64)
    number[vertices] = np.arange(len(vertices))
    table = topology.table
    src, dst = number[table.src], number[table.dst]
    live = (src >= 0) & (dst >= 0)
    key = src[live] * len(vertices) + dst[live]
    pairs, where = np.unique(key, return_inverse=True)
    rate = np.zeros(len(pairs), np.int64)
    np.add.at(rate, where, table.bytes_per_s[live])
    latency = np.full(len(pairs), np.inf)
    np.minimum.at(latency, where, table.latency_s[live])
    unit = math.gcd(*rate.tolist()) or 1
    return Network(
        len(chosen),
        tuple(topology.nodes[i].name for i in vertices),
        (pairs // len(vertices)).astype(np.int32),
        (pairs % len(vertices)).astype(np.int32),
        rate // unit,
        unit,
        latency,
        frozenset(i for i, v in enumerate(vertices) if i >= len(chosen) and topology.nodes[v].multicast),
        frozenset(i for i, v in enumerate(vertices) if i >= len(chosen) and topology.nodes[v].reduction),
    )
