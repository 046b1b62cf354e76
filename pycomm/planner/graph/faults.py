"""What breaks in a network, as data, and the network that is left.

Links slow down or go; vertices go with all their links. A device that goes leaves the group, and the ranks
after it move down by one, as they do when the topology is planned anew without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pycomm.errors import TopologyError, UsageError
from pycomm.planner.graph.network import Network
from pycomm.topology.model import Topology
from pycomm.units import format_rate

__all__ = ["Damage", "Fault", "LinkRate", "host_fault", "link_fault", "node_fault", "undamaged"]

Ints = npt.NDArray[np.int64]


class LinkRate(NamedTuple):
    """What is left of all links from one vertex to another: bytes per second, 0 for nothing."""

    src: str
    dst: str
    bytes_per_s: int


@dataclass(frozen=True)
class Fault:
    """What broke at one time.

    Parameters
    ----------
    links
        Links that slowed down or went.
    nodes
        Names of vertices that went: switches, NICs, devices.
    """

    links: tuple[LinkRate, ...] = ()
    nodes: tuple[str, ...] = ()

    def text(self) -> str:
        """One line, such as ``"leaf0 -> spine1 is down; gpu3 is gone"``."""
        said = [
            f"{src} -> {dst} " + (f"has {format_rate(rate)} left" if rate else "is down")
            for src, dst, rate in self.links
        ]
        said += [f"{name} is gone" for name in self.nodes]
        return "; ".join(said[:4]) + (f" and {len(said) - 4} more" if len(said) > 4 else "")


def link_fault(src: str, dst: str, bytes_per_s: int = 0, *, both_ways: bool = False) -> Fault:
    """Describe links that went or slowed down: all from one vertex to another, and back if ``both_ways``."""
    links = [LinkRate(src, dst, bytes_per_s)]
    if both_ways:
        links.append(LinkRate(dst, src, bytes_per_s))
    return Fault(tuple(links))


def node_fault(*names: str) -> Fault:
    """Describe vertices that went."""
    return Fault(nodes=names)


def host_fault(topology: Topology, host: str) -> Fault:
    """Describe a host that went, with all its devices, NICs and switches.

    Raises
    ------
    TopologyError
        No vertex belongs to such a host.
    """
    nodes = tuple(node.name for node in topology.nodes if node.host == host)
    if not nodes:
        raise TopologyError(f"{topology.name}: no vertex belongs to a host named {host!r}")
    return Fault(nodes=nodes)


@dataclass(frozen=True, eq=False)
class Damage:
    """What is left of a network.

    Parameters
    ----------
    origin
        The network when it was planned for.
    rate
        int64, bytes per second of each of its arcs now; 0 where there is none.
    alive
        bool, which of its vertices are left.
    """

    origin: Network
    rate: Ints
    alive: npt.NDArray[np.bool_]

    @cached_property
    def vertex(self) -> Ints:
        """Number of each vertex of the origin in what is left; -1 for those that are gone."""
        return np.where(self.alive, np.cumsum(self.alive) - 1, -1)

    @cached_property
    def kept(self) -> Ints:
        """Arcs of the origin that are left; they keep their order."""
        return np.flatnonzero(self.rate)

    @property
    def nranks(self) -> int:
        """How many ranks are left."""
        return int(self.alive[: self.origin.nranks].sum())

    @cached_property
    def network(self) -> Network:
        """What is left, as it would be made from the topology that is left."""
        origin, vertex, kept = self.origin, self.vertex, self.kept
        rate = self.rate[kept]
        unit = math.gcd(*np.unique(rate).tolist()) or 1
        return Network(
            self.nranks,
            tuple(name for name, alive in zip(origin.names, self.alive.tolist(), strict=True) if alive),
            vertex[origin.src[kept]].astype(np.int32),
            vertex[origin.dst[kept]].astype(np.int32),
            rate // unit,
            unit,
            origin.latency_s[kept],
            self._left(origin.multicast),
            self._left(origin.reduction),
        )

    def _left(self, vertices: Iterable[int]) -> frozenset[int]:
        return frozenset(int(self.vertex[v]) for v in vertices if self.alive[v])

    def after(self, fault: Fault) -> Damage:
        """Break more.

        Raises
        ------
        TopologyError
            There is no such vertex or link, or not any more.
        UsageError
            A link would be faster than it is, or less than nothing is left of it; fewer than two ranks are
            left.
        """
        origin = self.origin
        number = {name: v for v, name in enumerate(origin.names) if self.alive[v]}
        for name in (*fault.nodes, *(end for link in fault.links for end in link[:2])):
            if name not in number:
                raise TopologyError(f"no vertex of the plan's network is named {name!r}; see its names")
        alive, rate = self.alive.copy(), self.rate.copy()
        alive[[number[name] for name in fault.nodes]] = False
        for src, dst, left in fault.links:
            arc = origin.arc.get((number[src], number[dst]), -1)
            if arc < 0 or not rate[arc]:
                raise TopologyError(f"no link of the plan's network leads from {src!r} to {dst!r}")
            if not 0 <= left <= rate[arc]:
                raise UsageError(
                    f"{src} -> {dst} has {format_rate(int(rate[arc]))}; what is left of it must be from 0 "
                    f"to that, not {left} B/s: for a link that came back, plan anew"
                )
            rate[arc] = left
        rate[~alive[origin.src] | ~alive[origin.dst]] = 0
        damage = Damage(origin, rate, alive)
        if damage.nranks < 2:
            raise UsageError(
                f"after the fault ({fault.text()}) {damage.nranks} of the ranks are left, not two"
            )
        return damage


def undamaged(network: Network) -> Damage:
    """Take a network as it is."""
    rate = network.capacity * network.unit
    return Damage(network, rate, np.ones(network.nvertices, np.bool_))
