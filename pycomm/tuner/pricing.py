"""How long a schedule takes on a network, for any number of bytes.

Messages go through *servers*: the links of their way, and ranks that combine (:mod:`pycomm.tuner.queues`). A
server handles one message after the other, of several senders by turns, each at the server's full rate; a
message is through when its slowest server is done with it.

The engine hands on long messages in segments. What waits for a message therefore starts when its first
segment is there, and cannot end before the last one has come and gone through:

::

    a -> b   |==1==|==2==|==3==|                  1, 2, 3: segments of a message
    b -> c         |==1==|==2==|==3==|            n hops cost n - 1 segments more, not n - 1 messages

Events of a schedule are found once (:mod:`pycomm.tuner.dataflow`); a time is computed at powers of two of
the size and interpolated between them, which exceeds it by little, as it is nearly convex. Schedules of too
many messages are priced by what the busiest link carries and the latencies of the longest chain.

References
----------
R. W. Hockney, "The communication challenge for MPP", Parallel Computing 20(3), 1994, for latency and rate.
A. Demers, S. Keshav, S. Shenker, "Analysis and simulation of a fair queueing algorithm", SIGCOMM 1989.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property, lru_cache

import numpy as np

from pycomm.cost import ACCELERATORS, Links, PlanCost, chunk_nbytes
from pycomm.errors import TopologyError
from pycomm.planner import registry
from pycomm.planner.base import PlanRequest
from pycomm.planner.graph.network import Network, network_of
from pycomm.planner.graph.routing import Ways, schedule_demands
from pycomm.schedule import Schedule
from pycomm.topology.model import Topology
from pycomm.tuner.dataflow import Dataflow, dataflow
from pycomm.tuner.queues import Way, finished_s
from pycomm.types import CollectiveKind

__all__ = ["MAX_EVENTS", "Machine", "Priced", "links_of", "machine_of", "priced"]

MAX_EVENTS = 20_000
"""Schedules of more messages and combinations are priced by their sums."""
PROCESSOR = "cpu"
"""Vendor of devices that are processes on a processor: these combine at the rate of memory."""


class Machine:
    """A network with what a message costs besides the links.

    Parameters
    ----------
    topology, devices
        The network, and the vertex of each rank; ``()`` means its devices in order.
    hosts
        Host number of each rank; ``()`` means what the topology says.
    links
        Latency and overhead of messages inside a host and between hosts, to which a way's own latency is
        added; the rate at which processors combine, and that of their memory.
    """

    def __init__(
        self, topology: Topology, devices: tuple[int, ...], hosts: tuple[int, ...], links: Links
    ) -> None:
        chosen = devices or topology.devices
        self.network: Network = network_of(topology, chosen)
        names = [topology.nodes[v].host or topology.nodes[v].name for v in chosen]
        self.hosts = hosts or tuple(names.index(name) for name in names)
        host_of = {node.name: node.host or node.name for node in topology.nodes}
        self._host_names = names
        self._vertex_hosts = [host_of[name] for name in self.network.names]
        self.links = links
        self.ways = Ways(self.network)
        self.capacity = [int(c) * self.network.unit for c in self.network.capacity]
        software = all(topology.nodes[v].vendor == PROCESSOR for v in chosen)
        self.reduce_s = 1 / links.reduce_bytes_per_s if software else 0.0
        self.memory_s = 1 / links.inside.bytes_per_s if software else 0.0
        self._distances: dict[int, dict[int, int]] = {}
        self._routes: dict[tuple[int, int], Way] = {}

    def narrowest(self) -> Links:
        """Rates of the closed form: what the slowest rank, and the slowest host, can send."""
        leaving = [0] * self.network.nvertices
        for arc, vertex in enumerate(self.network.src.tolist()):
            leaving[vertex] += self.capacity[arc]
        inside = min(leaving[: self.network.nranks])
        between = min(self._leaving_host(host) for host in set(self.hosts))
        return Links(
            replace(self.links.inside, bytes_per_s=float(inside)),
            replace(self.links.between, bytes_per_s=float(between or inside)),
            1 / self.reduce_s if self.reduce_s else math.inf,
        )

    def _leaving_host(self, host: int) -> int:
        names = {self._host_names[r] for r, number in enumerate(self.hosts) if number == host}
        inside = np.array([name in names for name in self._vertex_hosts], np.bool_)
        out = inside[self.network.src] & ~inside[self.network.dst]
        return sum(self.capacity[arc] for arc in np.flatnonzero(out).tolist())

    def route(self, src: int, dst: int) -> Way:
        """Servers of a message with the seconds that a byte keeps each busy; latency; overhead; header.

        Server numbers are those of the arcs, then one per rank that sends to its own host.
        """
        found = self._routes.get((src, dst))
        if found is None:
            found = self._routes[src, dst] = self._search(src, dst)
        return found

    def _search(self, src: int, dst: int) -> Way:
        ways = self.ways
        if dst not in self._distances:
            self._distances[dst] = ways.distances(dst, set(range(self.network.nranks)))
        distance = self._distances[dst]
        near = self.hosts[src] == self.hosts[dst]
        link = self.links.inside if near else self.links.between
        level, servers, latency = {src: 1.0}, list[tuple[int, float]](), 0.0
        for far in range(distance[src] - 1, -1, -1):
            ahead: dict[int, float] = {}
            for vertex, flow in sorted(level.items()):
                onward = [(v, arc) for v, arc in ways.out[vertex] if distance.get(v, -1) == far]
                total = sum(self.capacity[arc] for _, arc in onward)
                for v, arc in onward:
                    share = flow * self.capacity[arc] / total
                    servers.append((arc, share / self.capacity[arc] * link.stretch))
                    ahead[v] = ahead.get(v, 0.0) + share
                    latency += share * float(self.network.latency_s[arc])
            level = ahead
        if near and self.memory_s:
            servers.append((len(self.capacity) + src, self.memory_s))
        return Way(tuple(servers), link.latency_s + latency, link.overhead_s, link.header_nbytes)


class Priced:
    """A schedule on a machine.

    Parameters
    ----------
    schedule, cost
        What is priced, and the counts that its planner states.
    machine
        Where.

    Attributes
    ----------
    work_s : float
        Seconds for which a byte of the data keeps all links busy, added up.
    """

    def __init__(self, schedule: Schedule, cost: PlanCost, machine: Machine) -> None:
        self._kind, self._nranks, self._pieces = schedule.kind, schedule.nranks, schedule.pieces
        self._machine, self._cost = machine, cost
        messages = int((schedule.ops[:, 0] != 0).sum())
        self._flow: Dataflow | None = dataflow(schedule) if messages <= 2 * MAX_EVENTS else None
        loads = self._server_loads(schedule)
        self._loads, self.work_s = max(loads), sum(loads)
        self._known: dict[int, float] = {}

    @cached_property
    def _users(self) -> list[list[int]]:
        assert self._flow is not None  # noqa: S101 (only asked for where there is one)
        users: list[list[int]] = [[] for _ in self._flow.waits]
        for i, waits in enumerate(self._flow.waits):
            for before in waits:
                users[before].append(i)
        return users

    def _server_loads(self, schedule: Schedule) -> list[float]:
        """Seconds for which a byte of the data keeps each server busy."""
        loads = [0.0] * (len(self._machine.capacity) + self._nranks)
        for (src, dst), share in schedule_demands(schedule).items():
            for server, seconds in self._machine.route(src, dst).servers:
                loads[server] += float(share) * seconds
        return loads

    def least_s(self, nbytes: int) -> float:
        """Time without bytes, or that the busiest link needs for them: :meth:`seconds` is no less. Quick."""
        moving = 0.0 if self._kind is CollectiveKind.BARRIER else self._loads * nbytes
        return max(moving, self._at(0))

    def seconds(self, nbytes: int) -> float:
        """Predicted time for ``nbytes``, counted as in :func:`pycomm.cost.chunk_nbytes`."""
        if nbytes < 1:
            return self._at(0)
        low = 1 << (nbytes.bit_length() - 1)
        if low == nbytes:
            return self._at(low)
        return self._at(low) + (self._at(2 * low) - self._at(low)) * (nbytes - low) / low

    def _at(self, nbytes: int) -> float:
        found = self._known.get(nbytes)
        if found is None:
            chunk = chunk_nbytes(self._kind, self._nranks, self._pieces, nbytes)
            if self._flow is None:
                found = self._summed(nbytes, chunk)
            else:
                machine = self._machine
                servers = len(machine.capacity) + 2 * self._nranks
                found = finished_s(self._flow, self._users, machine.route, servers, chunk, machine.reduce_s)
            self._known[nbytes] = found
        return found

    def _summed(self, nbytes: int, chunk: float) -> float:
        links, cost = self._machine.links, self._cost
        link = links.between if len(set(self._machine.hosts)) > 1 else links.inside
        filling = cost.fill / max(1, cost.sent) * self._loads * nbytes
        return (
            cost.steps * link.latency_s
            + cost.messages * link.overhead_s
            + self._loads * nbytes
            + filling
            + cost.reduced * chunk * self._machine.reduce_s
        )


def links_of(request: PlanRequest) -> Links:
    """Say what messages cost besides the links of the topology: as processes send them, or accelerators."""
    topology = request.topology
    if topology is None:
        return Links()
    chosen = request.devices or topology.devices
    return Links() if any(topology.nodes[v].vendor == PROCESSOR for v in chosen) else ACCELERATORS


@lru_cache(maxsize=16)
def machine_of(topology: Topology, devices: tuple[int, ...], hosts: tuple[int, ...], links: Links) -> Machine:
    """Make the machine of a group; the last few are kept."""
    return Machine(topology, devices, hosts, links)


@lru_cache(maxsize=512)
def priced(name: str, request: PlanRequest, links: Links) -> Priced:
    """Plan, and price the plan on the request's topology; the last few hundred are kept."""
    if request.topology is None:
        raise TopologyError("a schedule is priced on a network; the request has none")
    machine = machine_of(request.topology, request.devices, request.hosts, links)
    planner = registry.planner(name)
    return Priced(registry.plan(name, request), planner.cost(request), machine)
