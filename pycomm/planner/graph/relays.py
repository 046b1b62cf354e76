"""Messages of an all-to-all over switches: straight, or over one relay in the unit of source or destination.

::

      unit A           unit B          inside first: s hands what is for d to the rank of A on d's rail
      s  r --- rail --- d                            s -> r inside A, then r -> d on the rail

      unit A           unit B          between first: s sends it to the rank of B on its own rail
      s --- rail --- r  d                            s -> r on the rail, then r -> d inside B

The rank of a unit that is on the rail of another rank is the one from which the fewest links lead there, over
switches; where several are as near, they take turns. That is right for rails, racks and pods, for units of
unequal size, and for hosts with fewer NICs than ranks. Messages are spread over those of the shortest ways
that are widest, and pass no rank: what a rank passes on is a message of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from pycomm.errors import TopologyError
from pycomm.planner.graph.concurrent import Ints, Pairs
from pycomm.planner.graph.flow_routes import Routes
from pycomm.planner.graph.network import Network
from pycomm.planner.graph.routing import Ways

__all__ = ["MAX_PRICED", "Relays", "relayed", "straight"]

MAX_PRICED = 1 << 20
"""Targets times arcs up to which ways are followed."""


class _Switched(Ways):
    """Of the shortest ways that pass no rank the widest: what stays in a host takes no NIC."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self._arriving = self.into[: network.nranks]
        self._leaving = self.out
        self.into[: network.nranks] = [[]] * network.nranks

    def distances(self, target: int, wanted: set[int]) -> dict[int, int]:
        """Links from vertices to ``target``, of all that are no farther than the farthest wanted one."""
        self.into[target] = self._arriving[target]
        try:
            distance = super().distances(target, wanted)
        finally:
            self.into[target] = []
        self.out = self._widest(target, distance)
        return distance

    def _widest(self, target: int, distance: dict[int, int]) -> list[list[tuple[int, int]]]:
        """Leave out arcs that begin no widest one of the shortest ways."""
        kept: list[list[tuple[int, int]]] = [[]] * len(self._leaving)
        width = {target: max(self.capacity)}
        for v, far in distance.items():  # nearest first
            if far:
                ahead = [
                    (min(self.capacity[arc], width[w]), w, arc)
                    for w, arc in self._leaving[v]
                    if distance.get(w, -1) == far - 1
                ]
                width[v] = max(ahead)[0]
                kept[v] = [(w, arc) for wide, w, arc in ahead if wide == width[v]]
        return kept


@dataclass(frozen=True, eq=False)
class Relays:
    """One relay, at most, for each pair.

    Parameters
    ----------
    network
        The network.
    via
        int64 array of shape ``(nranks, nranks)``: who passes on what a source has for a destination; the
        destination itself where nobody does.
    """

    network: Network
    via: Ints

    def worst(self, demands: Ints, pairs: Pairs | None = None) -> Fraction | None:
        """Find the greatest load over capacity, exact; ``None`` when some message must pass a rank.

        Parameters
        ----------
        demands
            Weights between ranks.
        pairs
            Renamings that leave the network as it is; those that leave the messages as they are save time.
        """
        n = self.network.nranks
        sent = np.zeros((n, n), np.int64)
        source, target = np.indices((n, n))
        np.add.at(sent, (source, self.via), demands)
        np.add.at(sent, (self.via, target), demands)
        np.fill_diagonal(sent, 0)
        # where nobody relays, the second of the two led from the target to itself
        classes = _classes_of(pairs, sent)
        targets = np.unique(classes[0], return_index=True)[1] if classes else np.arange(n)
        if len(targets) * len(self.network.src) > MAX_PRICED:
            return None
        weight = np.bincount(classes[0])[classes[0][targets]] if classes else np.ones(n, np.int64)
        ways = _Switched(self.network)
        loads = [Fraction(0)] * len(self.network.src)
        try:
            for t, times in zip(targets.tolist(), weight.tolist(), strict=True):
                column = {s: Fraction(int(w) * times) for s, w in enumerate(sent[:, t].tolist()) if w}
                if column:
                    ways.spread(t, column, loads)
        except TopologyError:
            return None
        if classes:
            total = [Fraction(0)] * (int(classes[1].max()) + 1)
            for label, load in zip(classes[1].tolist(), loads, strict=True):
                total[label] += load
            members = np.bincount(classes[1]).tolist()
            loads = [total[label] / members[label] for label in classes[1].tolist()]
        capacity: list[int] = self.network.capacity.tolist()
        return max(load / c for load, c in zip(loads, capacity, strict=True))

    def routes(self) -> Routes:
        """List the messages; the network chooses their ways."""
        n = self.network.nranks
        src, dst = (ends.reshape(-1) for ends in np.indices((n, n)))
        other = src != dst
        src, dst, via = src[other], dst[other], self.via.reshape(-1)[other]
        two = (via != dst) & (via != src)
        length = np.where(two, 3, 2)
        first = np.append(0, np.cumsum(length))
        path = np.empty(int(first[-1]), np.int64)
        path[first[:-1]] = src
        path[first[:-1][two] + 1] = via[two]
        path[first[1:] - 1] = dst
        return Routes(self.network, 1, src, dst, np.ones(src.size, np.int64), first, path)


def _classes_of(pairs: Pairs | None, sent: Ints) -> tuple[Ints, Ints] | None:
    """Classes of ranks and arcs, if all renamings leave the messages as they are."""
    if pairs is None or not pairs.generators:
        return None
    n = len(sent)
    if all(np.array_equal(sent[np.ix_(g[:n], g[:n])], sent) for g, _ in pairs.generators):
        return pairs.source, pairs.arc
    return None


def straight(network: Network) -> tuple[str, Relays]:
    """Send every block straight to its rank."""
    n = network.nranks
    return "straight to each rank", Relays(network, np.tile(np.arange(n), (n, 1)))


def relayed(network: Network, labels: Sequence[Ints]) -> Iterator[tuple[str, Relays]]:
    """Yield exchanges in two stages, for each way to see units.

    Parameters
    ----------
    network
        The network.
    labels
        Of each vertex, its unit; one array for each way to see units.
    """
    n = network.nranks
    if not labels:
        return
    there, back = _links(network), _links(network.reversed())
    rank = np.arange(n)
    for label in labels:
        unit = np.unique(label[:n], return_inverse=True)[1]
        far = unit[:, None] != unit[None, :]
        into, out = _nearest(unit, there), _nearest(unit, back)  # [unit, rank]: on its rail
        yield "exchanged inside by rail, then between", Relays(network, np.where(far, into[unit], rank))
        yield "exchanged between on rails, then inside", Relays(network, np.where(far, out[unit].T, rank))


def _links(network: Network) -> npt.NDArray[np.float64]:
    """Count the links from each rank to each other over switches; infinite where there is no such way."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import shortest_path

    n, count = network.nranks, network.nvertices
    leave = np.where(
        network.src < n, network.src + count, network.src
    )  # ranks start from vertices of their own
    size = count + n
    graph = coo_array((np.ones(len(leave), np.int8), (leave, network.dst)), (size, size)).tocsr()
    links: npt.NDArray[np.float64] = shortest_path(graph, unweighted=True, indices=np.arange(count, size))
    return links[:, :n]


def _nearest(unit: Ints, links: npt.NDArray[np.float64]) -> Ints:
    """Of each unit, the rank nearest to each rank; several as near take turns among the ranks of a unit."""
    found = np.empty((int(unit.max()) + 1, len(unit)), np.int64)
    for u in range(len(found)):
        members = np.flatnonzero(unit == u)
        near = links[members] == links[members].min(axis=0)
        sides = np.packbits(near, axis=0)
        turns: dict[tuple[int, bytes], int] = {}
        for rank, home in enumerate(unit.tolist()):
            key = home, sides[:, rank].tobytes()
            turn = turns.get(key, 0)
            turns[key] = turn + 1
            choice = members[near[:, rank]]
            found[u, rank] = choice[turn % len(choice)]
    return found
