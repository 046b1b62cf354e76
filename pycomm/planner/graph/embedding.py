"""The known algorithms on a network: rings placed well, every planner priced, to stand beside the optimum.

::

      two rails a, b and hosts 0..3             ring 0   0a 0b  1b 1a  2a 2b  3b 3a  and back to 0a
                                                ring 1   0b 0a  1a 1b  2b 2a  3a 3b  and back to 0b
      0a 0b   1a 1b   2a 2b   3a 3b             from host to host a ring stays on a rail; the other ring
                                                has taken the other rail

Rings are found in three ways. *Direct* rings use the arcs between ranks, each arc for as many rings as its
capacity allows: a way grows to the neighbour with the fewest ways on, parts of it are turned round where it
ends too early, and where that fails it is searched depth first within a budget. *Rail* rings are built from
the order of hosts, as in the picture, as many as a host has ranks. *One ring* goes to the nearest rank next,
host by host, and is improved by turning parts of it round. All may run both ways at once.

A ring moves (n-1)/n of the data over each of its hops for allgather and reduce_scatter, twice that for
allreduce, and all of it for broadcast and reduce. Ranks send to each other on shortest ways, see
:mod:`pycomm.planner.graph.routing`.

References
----------
P. Patarasuk, X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", J. Parallel and
Distributed Computing 69(2), 2009, for what a ring moves. H. C. von Warnsdorff, "Des Rösselsprunges
einfachste und allgemeinste Lösung", 1823, for the neighbour with the fewest ways on. L. Pósa, "Hamiltonian
circuits in random graphs", Discrete Mathematics 14(4), 1976, for turning parts of a way round.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from pycomm.collectives.spec import equal_form
from pycomm.planner.base import PlanRequest
from pycomm.planner.graph.forest import Edge, Forest, Tree
from pycomm.planner.graph.network import Network
from pycomm.planner.graph.routing import Ways, algbw, message_loads, schedule_algbw, schedule_loads
from pycomm.types import CollectiveKind

__all__ = [
    "Candidate",
    "Rings",
    "known",
    "ring_forests",
    "ring_order",
    "rings",
    "schedule_algbw",
    "schedule_loads",
]

SEARCH_STEPS = 20_000
"""Steps of one depth-first search for a ring."""
TURNS = 40
"""Steps, for each rank, of one search that turns parts of a way round."""
SEARCHES = 2000
"""How often, for each rank the less, disjoint rings are searched for, with other choices among equals."""
TURNED_RANKS = 64
"""Rings of at most this many ranks are improved by turning parts of them round."""
PRICED_RANKS = 128
"""Planners other than rings are priced on at most this many ranks: their tables grow with the square."""
FINEST = 64
"""An arc carries at most this many direct rings."""


class Rings(NamedTuple):
    """Cycles through all ranks that share the data equally."""

    name: str
    orders: tuple[tuple[int, ...], ...]


class Candidate(NamedTuple):
    """A known algorithm on a network.

    Parameters
    ----------
    name
        ``"ring"``, ``"3 rail rings"``, or the planner's name.
    algbw
        Bytes per second, exact: the data over the time that the busiest arc needs.
    steps
        Messages on the longest chain of messages that wait for one another; of rings, without pieces.
    request
        What the planner is to be asked (``"ring"`` for one ring); ``None`` where ``rings`` says it.
    rings
        Several rings, for :func:`ring_forests`; ``None`` where a planner does.
    """

    name: str
    algbw: Fraction
    steps: int
    request: PlanRequest | None = None
    rings: Rings | None = None


def known(
    network: Network, kind: CollectiveKind, hosts: Sequence[int] = (), root: int = -1
) -> list[Candidate]:
    """Price the known algorithms on a network, the best first.

    Parameters
    ----------
    network
        The network.
    kind
        The collective.
    hosts
        Host number of each rank; empty means one host.
    root
        Of a rooted collective.

    Returns
    -------
    list of Candidate
        By falling bandwidth, then by steps, then by name. Empty for one rank.

    Raises
    ------
    TopologyError
        There is no way from some rank to another.
    """
    n = network.nranks
    if n == 1:
        return []
    ways = Ways(network)
    found = [
        _priced_rings(network, kind, set_, tuple(hosts), root, ways)
        for set_ in _both_ways(network, hosts, ways, kind)
    ]
    found += _priced_planners(network, PlanRequest(kind, n, root, hosts=tuple(hosts)), ways)
    return sorted(found, key=lambda c: (-c.algbw, c.steps, c.name))


def _both_ways(network: Network, hosts: Sequence[int], ways: Ways, kind: CollectiveKind) -> Iterator[Rings]:
    if equal_form(kind) not in _RING_KINDS:
        return
    for one_way in rings(network, hosts, ways):
        yield one_way
        turned = tuple((order[0], *order[:0:-1]) for order in one_way.orders)
        if network.nranks > 2 and set(turned) != set(one_way.orders):
            yield Rings(f"{one_way.name} both ways", one_way.orders + turned)


_RING_KINDS = {
    CollectiveKind.ALLREDUCE: 2,
    CollectiveKind.ALLGATHER: 1,
    CollectiveKind.REDUCE_SCATTER: 1,
    CollectiveKind.BROADCAST: 0,
    CollectiveKind.REDUCE: 0,
}
"""How often the data go round; chains do not."""


def _priced_rings(
    network: Network, kind: CollectiveKind, found: Rings, hosts: tuple[int, ...], root: int, ways: Ways
) -> Candidate:
    n, rounds = network.nranks, _RING_KINDS[equal_form(kind)]
    share = Fraction(rounds * (n - 1), n) if rounds else Fraction(1)
    demands: dict[tuple[int, int], Fraction] = {}
    for order in found.orders:
        for hop in pairwise((*order, order[0])):
            if rounds or hop[0 if kind is CollectiveKind.REDUCE else 1] != root:
                demands[hop] = demands.get(hop, Fraction(0)) + share / len(found.orders)
    figure = algbw(network, message_loads(network, demands, ways))
    steps = max(rounds, 1) * (n - 1)
    if len(found.orders) == 1:
        return Candidate(
            found.name, figure, steps, PlanRequest(kind, n, root, hosts=hosts, order=found.orders[0])
        )
    return Candidate(found.name, figure, steps, rings=found)


def _priced_planners(network: Network, request: PlanRequest, ways: Ways) -> Iterator[Candidate]:
    from pycomm.planner.registry import planners  # which knows the planners of this package

    if request.nranks > PRICED_RANKS:
        return
    for name, planner in planners().items():
        if name in ("ring", "bidirectional_ring") or planner.rejects(request) is not None:
            continue
        figure = schedule_algbw(planner.plan(request), network, ways)
        yield Candidate(name, figure, planner.cost(request).steps, request)


def rings(network: Network, hosts: Sequence[int] = (), ways: Ways | None = None) -> list[Rings]:
    """Find rings through all ranks: one ring, rail rings, direct rings, as far as there are any.

    Deterministic. Each ring of a set begins at the same rank as the others, rank 0.
    """
    n = network.nranks
    if n == 1:
        return []
    ways = ways or Ways(network)
    groups = list(hosts) or [0] * n
    order = _one_ring(ways, groups)
    found = [Rings("ring", (order,))]
    rails = _rail_rings(ways, groups, order)
    direct = _direct_rings(ways)
    if len(rails) > 1:
        found.append(Rings(f"{len(rails)} rail rings", rails))
    if len(direct) > 1 or (direct and direct[0] != order):
        found.append(Rings(f"{len(direct)} direct rings", direct))
    return found


def ring_order(network: Network, hosts: Sequence[int] = (), ways: Ways | None = None) -> tuple[int, ...]:
    """Place one ring through all ranks: the first of :func:`rings`, without a search for others."""
    return _one_ring(ways or Ways(network), list(hosts) or [0] * network.nranks)


def ring_forests(network: Network, kind: CollectiveKind, found: Rings, root: int = -1) -> tuple[Forest, ...]:
    """Make the forests of rings, for :func:`pycomm.planner.graph.lowering.lower`.

    A ring is one chain for each root. The paths of its hops are single shortest ways, while the figures of
    :func:`known` spread over all of them.
    """
    ways, n = Ways(network), network.nranks
    hop = {
        pair: ways.path(*pair)
        for pair in sorted({p for order in found.orders for p in pairwise((*order, order[0]))})
    }
    reduces, form = kind.reduces, equal_form(kind)
    roots = [root] if kind.is_rooted else list(range(n))

    def trees(step: int) -> tuple[Tree, ...]:
        made = []
        for start in roots:
            for order in found.orders:
                at = order.index(start)
                ranks = [order[(at + step * i) % n] for i in range(n)]
                edges = tuple(
                    Edge(a, b, hop[a, b] if step > 0 else hop[b, a][::-1]) for a, b in pairwise(ranks)
                )
                made.append(Tree(start, 1, edges))
        return tuple(made)

    up = (Forest(network.reversed(), trees(-1)),) if reduces else ()
    down = (Forest(network, trees(1)),) if not reduces or form is CollectiveKind.ALLREDUCE else ()
    return up + down


def _from_zero(order: Sequence[int]) -> tuple[int, ...]:
    at = order.index(0)
    return (*order[at:], *order[:at])


def _one_ring(ways: Ways, groups: list[int]) -> tuple[int, ...]:
    """Go to the nearest rank that was not visited, inside the host as long as there is one."""
    n = ways.network.nranks
    left = set(range(1, n))
    inside: dict[int, set[int]] = {}
    for rank in range(1, n):
        inside.setdefault(groups[rank], set()).add(rank)
    order = [0]
    while left:
        here = order[-1]
        chosen = _nearest(ways, here, inside.get(groups[here]) or left)
        order.append(chosen)
        left.discard(chosen)
        inside[groups[chosen]].discard(chosen)
    return _turned(ways, groups, order) if 3 < n <= TURNED_RANKS else tuple(order)


def _nearest(ways: Ways, here: int, wanted: set[int]) -> int:
    """Of the wanted ranks with the fewest links to go: the widest way, then the lowest number."""
    width, seen = {here: math.inf}, {here}
    while width:
        ahead: dict[int, float] = {}
        for vertex, w in width.items():
            for v, arc in ways.out[vertex]:
                if v not in seen:
                    ahead[v] = max(ahead.get(v, 0), min(w, ways.capacity[arc]))
        reached = [(-w, v) for v, w in ahead.items() if v in wanted]
        if reached:
            return min(reached)[1]
        seen.update(ahead)
        width = ahead
    return min(wanted)  # there is no way; who prices the ring will say so


def _turned(ways: Ways, groups: list[int], order: list[int]) -> tuple[int, ...]:
    """Turn parts of a ring round as long as that makes it shorter; long hops count by their square."""
    n = len(order)
    everyone = set(range(n))
    to = [ways.distances(target, everyone) for target in range(n)]

    def length(ring: list[int]) -> int:
        return sum(to[b][a] ** 2 + (groups[a] != groups[b]) * n for a, b in pairwise((*ring, ring[0])))

    best, better = length(order), True
    while better:
        better = False
        for i in range(1, n - 1):
            for j in range(i + 2, n + 1):
                turned = order[:i] + order[i:j][::-1] + order[j:]
                now = length(turned)
                if now < best:
                    order, best, better = turned, now, True
    return tuple(order)


def _rail_rings(ways: Ways, groups: list[int], order: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Build a ring per rank of a host: it leaves each host on the rail on which it enters the next."""
    members: dict[int, list[int]] = {}
    for rank, host in enumerate(groups):
        members.setdefault(host, []).append(rank)
    around = list(dict.fromkeys(groups[rank] for rank in order))
    count = min(map(len, members.values()))
    if len(around) < 2 or count < 2:
        return ()
    rails = [i % 2 for i in range(len(around))]
    if len(around) % 2:
        rails[-1] = 2  # else the last host were entered and left on the same rail
    inside = _Room(ways)
    made = []
    for k in range(count):
        ring: list[int] = []
        for i, host in enumerate(around):
            ranks = members[host]
            enter = ranks[(k + rails[i]) % len(ranks)]
            leave = ranks[(k + rails[(i + 1) % len(rails)]) % len(ranks)]
            if leave == enter:
                leave = ranks[(ranks.index(enter) - 1) % len(ranks)]
            ring += inside.path(ranks, enter, leave, random.Random(k))
        made.append(_from_zero(ring))
    return tuple(made)


def _direct_rings(ways: Ways) -> tuple[tuple[int, ...], ...]:
    """Find rings on the arcs between ranks, as many as their capacities allow, in several tries."""
    n = ways.network.nranks
    best: list[tuple[int, ...]] = []
    for attempt in range(1, 2 + SEARCHES // n):
        room, rng = _Room(ways), random.Random(attempt)
        made: list[tuple[int, ...]] = []
        most = room.most()
        while len(made) < most:
            ring = (room.turn(rng) if attempt % 4 else None) or room.walk(set(range(n)), 0, 0, rng)
            if ring is None:
                break
            both = tuple(ring), (ring[0], *ring[:0:-1])
            made += [order for order in both if room.take((*order, order[0]))]
        if len(made) > len(best):
            best = made
        if len(best) == most:
            break
    return tuple(best)


class _Room:
    """How many more rings each arc between two ranks has room for."""

    def __init__(self, ways: Ways) -> None:
        n = ways.network.nranks
        arcs = [{v: ways.capacity[arc] for v, arc in ways.out[rank] if v < n} for rank in range(n)]
        every = [capacity for leaving in arcs for capacity in leaving.values()]
        unit = math.gcd(*every) if every else 1
        if every and max(every) > FINEST * unit:
            unit = min(every)
        self.left = [{v: capacity // unit for v, capacity in leaving.items()} for leaving in arcs]

    def most(self) -> int:
        """No more rings than this have room: what leaves or enters the rank with the least."""
        entering = [0] * len(self.left)
        for leaving in self.left:
            for v, number in leaving.items():
                entering[v] += number
        return min(*entering, *(sum(leaving.values()) for leaving in self.left))

    def take(self, order: Sequence[int]) -> bool:
        """Take room for a way, if there is room for all of it."""
        hops = list(pairwise(order))
        if any(self.left[a].get(b, 0) < hops.count((a, b)) for a, b in hops):
            return False
        for a, b in hops:
            self.left[a][b] -= 1
        return True

    def path(self, ranks: list[int], enter: int, leave: int, rng: random.Random) -> list[int]:
        """Go through all ranks of a host, on arcs between them where there is such a way."""
        if len(ranks) == 1:
            return [enter]
        found = self.walk(set(ranks), enter, leave, rng)
        if found is not None:
            self.take(found)
            return found
        at = ranks.index(enter)
        return [enter, *(r for r in ranks[at:] + ranks[:at] if r not in (enter, leave)), leave]

    def turn(self, rng: random.Random) -> list[int] | None:
        """Search for a ring whose hops have room both ways: where the way ends, turn a part of it round."""
        near = [
            [v for v, room in leaving.items() if room and self.left[v].get(a)]
            for a, leaving in enumerate(self.left)
        ]
        if not all(near):
            return None
        path, seen = [0], {0}
        for _ in range(TURNS * len(near)):
            ahead = [v for v in near[path[-1]] if v not in seen]
            if ahead:
                room = self.left[path[-1]]
                ways = [(sum(w not in seen for w in near[v]), -room[v], rng.random(), v) for v in ahead]
                path.append(min(ways)[-1])
                seen.add(path[-1])
                continue
            if len(path) == len(near) > 2 and 0 in near[path[-1]]:
                return path
            at = path.index(rng.choice(near[path[-1]])) + 1
            path[at:] = path[: at - 1 : -1]
        return None

    def walk(self, members: set[int], start: int, goal: int, rng: random.Random) -> list[int] | None:
        """Search for a way through all members that ends at ``goal``, or before it if that is the start."""
        left, path, seen = self.left, [start], {start}
        if goal != start:
            seen.add(goal)
        total = len(members) - (goal != start)

        def onward(rank: int) -> list[int]:
            return [v for v, room in left[rank].items() if room and v in members and v not in seen]

        def choices(rank: int) -> list[int]:
            # the best last, where pop() takes it
            ahead = [(-len(onward(v)), left[rank][v], rng.random(), v) for v in onward(rank)]
            return [v for *_, v in sorted(ahead)]

        stack = [choices(start)]
        for _ in range(SEARCH_STEPS):
            if len(path) == total and left[path[-1]].get(goal, 0):
                return path if goal == start else [*path, goal]
            if not stack[-1]:
                stack.pop()
                seen.discard(path.pop())
                if not path:
                    return None
                continue
            rank = stack[-1].pop()
            path.append(rank)
            seen.add(rank)
            stack.append(choices(rank))
        return None
