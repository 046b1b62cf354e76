"""Messages from rank to rank on a network: their ways, and what they put on each arc.

Messages take shortest ways, counted in arcs. Where several lead on, they are used in proportion to their
capacities: what a perfect spreading over equal links (ECMP) does, and more than one over unequal links can
do, so that no algorithm is priced too low. Loads are exact fractions; an algorithm's figure is the data over
the time that the busiest arc needs. It is the bandwidth term alone, without latency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cached_property

import numpy as np

from pycomm.collectives.spec import block_count, equal_form
from pycomm.errors import TopologyError
from pycomm.planner.graph.network import Network
from pycomm.schedule import OpKind, Schedule
from pycomm.types import CollectiveKind

__all__ = ["Ways", "algbw", "message_loads", "schedule_algbw", "schedule_demands", "schedule_loads"]


class Ways:
    """Neighbours of each vertex, and shortest ways to one vertex at a time.

    Attributes
    ----------
    out, into : list
        Of each vertex: ``(neighbour, arc)`` of the arcs that leave it; the vertices that arcs reach it from.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.out: list[list[tuple[int, int]]] = [[] for _ in range(network.nvertices)]
        self.into: list[list[int]] = [[] for _ in range(network.nvertices)]
        for arc, (a, b) in enumerate(zip(network.src.tolist(), network.dst.tolist(), strict=True)):
            self.out[a].append((b, arc))
            self.into[b].append(a)

    @cached_property
    def capacity(self) -> list[int]:
        """Capacity of each arc."""
        return [int(c) for c in self.network.capacity]

    def distances(self, target: int, wanted: set[int]) -> dict[int, int]:
        """Links from vertices to ``target``, of all that are no farther than the farthest wanted one."""
        distance = {target: 0}
        missing, level = wanted - {target}, [target]
        while missing:
            ahead = []
            for vertex in level:
                far = distance[vertex] + 1
                for before in self.into[vertex]:
                    if before not in distance:
                        distance[before] = far
                        ahead.append(before)
            if not ahead:
                names = self.network.names
                raise TopologyError(f"there is no way from {names[min(missing)]!r} to {names[target]!r}")
            missing.difference_update(ahead)
            level = ahead
        return distance

    def path(self, a: int, b: int) -> tuple[int, ...]:
        """Take one shortest way, over the arc of the greatest capacity at each fork."""
        distance = self.distances(b, {a})
        path = [a]
        while path[-1] != b:
            ahead = distance[path[-1]] - 1
            _, way = max(
                (self.capacity[arc], -v) for v, arc in self.out[path[-1]] if distance.get(v, -1) == ahead
            )
            path.append(-way)
        return tuple(path)

    def spread(self, target: int, demands: Mapping[int, Fraction], loads: list[Fraction]) -> None:
        """Add to ``loads`` what the demands of all sources put on the arcs of shortest ways to ``target``."""
        distance = self.distances(target, set(demands))
        farthest = max(distance[source] for source in demands)
        levels: list[dict[int, Fraction]] = [{} for _ in range(farthest + 1)]
        for source, demand in demands.items():
            levels[distance[source]][source] = demand
        for far in range(farthest, 0, -1):
            for vertex, flow in levels[far].items():
                ways = [(v, arc) for v, arc in self.out[vertex] if distance.get(v, -1) == far - 1]
                total = sum(self.capacity[arc] for _, arc in ways)
                for v, arc in ways:
                    share = flow * self.capacity[arc] / total if len(ways) > 1 else flow
                    loads[arc] += share
                    levels[far - 1][v] = levels[far - 1].get(v, Fraction(0)) + share


def message_loads(
    network: Network, demands: Mapping[tuple[int, int], Fraction], ways: Ways | None = None
) -> list[Fraction]:
    """Route messages from rank to rank on shortest ways, and add up what they put on each arc.

    Parameters
    ----------
    network
        The network.
    demands
        Data by source and destination, in any unit.
    ways
        The network's ways, when the caller has them.

    Raises
    ------
    TopologyError
        There is no way from a source to its destination.
    """
    ways = ways or Ways(network)
    by_target: dict[int, dict[int, Fraction]] = {}
    for (src, dst), demand in demands.items():
        if demand and src != dst:
            by_target.setdefault(dst, {})[src] = Fraction(demand)
    loads = [Fraction(0)] * len(network.capacity)
    for target in sorted(by_target):
        ways.spread(target, by_target[target], loads)
    return loads


def algbw(network: Network, loads: Sequence[Fraction]) -> Fraction:
    """Bytes per second of data that load the arcs with ``loads`` times themselves; 0 where nothing moves."""
    worst = max(
        (load / int(c) for load, c in zip(loads, network.capacity, strict=True) if load), default=Fraction(0)
    )
    return network.unit / worst if worst else Fraction(0)


def schedule_demands(schedule: Schedule) -> dict[tuple[int, int], Fraction]:
    """Add up what each rank sends to each other one, in units of the whole data."""
    ops = schedule.ops
    rank = np.repeat(np.arange(schedule.nranks), np.diff(schedule.offsets))
    sends = (ops[:, 0] == OpKind.SEND) & (ops[:, 7] > 0)
    key = rank[sends] * schedule.nranks + ops[sends, 1]
    pairs, where = np.unique(key, return_inverse=True)
    chunks = np.bincount(where, ops[sends, 7], pairs.size).astype(np.int64)
    blocks = block_count(schedule.kind, schedule.nranks)
    if equal_form(schedule.kind) is CollectiveKind.ALLTOALL:
        blocks = schedule.nranks
    whole = schedule.pieces * blocks
    return {
        divmod(pair, schedule.nranks): Fraction(count, whole)
        for pair, count in zip(pairs.tolist(), chunks.tolist(), strict=True)
    }


def schedule_loads(schedule: Schedule, network: Network, ways: Ways | None = None) -> list[Fraction]:
    """Route every message of a schedule; bytes on each arc for each byte of the whole data.

    The whole data are all blocks of all ranks; of an alltoall, the blocks of one rank.

    Raises
    ------
    TopologyError
        The network has fewer or more ranks than the schedule, or no way from a sender to its receiver.
    """
    if schedule.nranks != network.nranks:
        raise TopologyError(
            f"a schedule of {schedule.nranks} ranks cannot be routed on a network of {network.nranks}"
        )
    return message_loads(network, schedule_demands(schedule), ways)


def schedule_algbw(schedule: Schedule, network: Network, ways: Ways | None = None) -> Fraction:
    """Bytes per second that a schedule's messages can carry on a network; 0 where nothing moves."""
    return algbw(network, schedule_loads(schedule, network, ways))
