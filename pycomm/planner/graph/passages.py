"""Switches between two neighbours, left out: what enters from one side leaves on the other.

A NIC between a device and a leaf switch is no choice for any tree: whatever uses one of its links uses the
other, since turning round in it leads nowhere. Joining the two links to one, as fast as the slower, changes
no rate and saves a vertex and two arcs, which in a cluster are half of all. What runs between the same ends
side by side stays as it is.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pycomm.planner.graph.flat_forest import FlatForest, FlatTrees, flat_forest
from pycomm.planner.graph.network import Network
from pycomm.planner.graph.symmetric import arc_numbers

__all__ = ["Joined", "joined"]

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Joined:
    """A network without its passages.

    Parameters
    ----------
    whole, network
        With all vertices, and without those that have been left out; the ranks are the same.
    kept
        int64: what each vertex of ``network`` is in ``whole``, in rising order.
    via
        int64: the vertex of ``whole`` that each arc of ``network`` leads over, -1 for none.
    """

    whole: Network
    network: Network
    kept: _Ints
    via: _Ints

    def expanded(self, forest: FlatForest, *, back: bool = False) -> FlatForest:
        """Put what was left out into the paths of a forest on ``network``, or on it reversed."""
        flat, network = forest.flat, self.network
        path = flat.path.astype(np.int64)
        edge = np.repeat(np.arange(len(flat.first_vertex) - 1), np.diff(flat.first_vertex))
        step = np.flatnonzero(edge[1:] == edge[:-1])
        src, dst = path[step], path[step + 1]
        via = self.via[arc_numbers(network, dst, src) if back else arc_numbers(network, src, dst)]
        longer = via >= 0
        more = np.bincount(edge[step[longer]], minlength=len(flat.first_vertex) - 1)
        first = flat.first_vertex + np.concatenate([[0], np.cumsum(more)])
        whole = np.insert(self.kept[path], step[longer] + 1, via[longer]).astype(np.int32)
        trees = FlatTrees(flat.root, flat.weight, flat.first_edge, first, whole)
        return flat_forest(self.whole.reversed() if back else self.whole, trees)


def joined(network: Network) -> Joined:
    """Leave out the vertices that are no ranks, cannot replicate or combine, and have two neighbours.

    Neighbours of what is left out stay, and so does what would lead where another arc does.
    """
    count = network.nvertices
    ends: list[set[int]] = [set() for _ in range(count)]
    for a, b in zip(network.src.tolist(), network.dst.tolist(), strict=True):
        ends[a].add(b)
        ends[b].add(a)
    arcs = network.arc
    capacity, latency = network.capacity.tolist(), network.latency_s.tolist()
    left: dict[int, None] = {}
    new: dict[tuple[int, int], tuple[int, float, int]] = {}
    special = network.multicast | network.reduction
    for v in range(network.nranks, count):
        sides = sorted(ends[v])
        if len(sides) != 2 or v in special or not left.keys().isdisjoint(sides) or sides[0] in ends[sides[1]]:
            continue
        left[v] = None
        for a, b in itertools.permutations(sides):
            into, out = arcs.get((a, v)), arcs.get((v, b))
            if into is not None and out is not None:
                slower = min(capacity[into], capacity[out])
                new[a, b] = slower, latency[into] + latency[out], v
        ends[sides[0]].add(sides[1])
        ends[sides[1]].add(sides[0])
    stays = np.ones(count, np.bool_)
    stays[list(left)] = False
    number = np.cumsum(stays) - 1
    for arc in np.flatnonzero(stays[network.src] & stays[network.dst]).tolist():
        new[int(network.src[arc]), int(network.dst[arc])] = capacity[arc], latency[arc], -1
    pairs = sorted(new)
    return Joined(
        network,
        Network(
            network.nranks,
            tuple(name for name, stay in zip(network.names, stays.tolist(), strict=True) if stay),
            number[[a for a, _ in pairs]].astype(np.int32),
            number[[b for _, b in pairs]].astype(np.int32),
            np.array([new[pair][0] for pair in pairs], np.int64),
            network.unit,
            np.array([new[pair][1] for pair in pairs]),
            frozenset(int(number[v]) for v in network.multicast),
            frozenset(int(number[v]) for v in network.reduction),
        ),
        np.flatnonzero(stays),
        np.array([new[pair][2] for pair in pairs], np.int64),
    )
