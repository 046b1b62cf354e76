"""From flows to messages: weighted ways from rank to rank, in few equal pieces.

::

      flow of source 0, rate 2         ways                 in 2 pieces
      0 --2--> 1 (keeps 2)             0 1        all       both
      0 --1--> 2 --1--> 3 (keeps 2)    0 2 3      half      one
      0 --1--> 4 --1--> 3              0 4 3      half      one

A flow is taken apart by shortest ways within it, which end when every rank has its share. A way over ranks is
a relay of messages: every rank on it receives, keeps and sends on. Shares are then rounded to pieces of a
block: each pair's largest parts are certain, and what is left goes where it weighs least; parts on the
busiest arc move away as long as that helps. The loads that result are exact.

References
----------
* L. R. Ford, D. R. Fulkerson: Flows in Networks, 1962 (a flow is a sum of at most as many ways and circles as
  there are arcs).
* P. Raghavan, C. D. Thompson: Randomized rounding. Combinatorica 7, 1987 (rounding the ways of a
  multicommodity flow; here it is greedy and not random).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pycomm.errors import InternalError
from pycomm.planner.graph.concurrent import Ints
from pycomm.planner.graph.network import Network

__all__ = ["Choice", "Routes", "Way", "rounded", "taken_apart"]

_SMALL = 1e-9
"""Part of a demand that is noise of the solver."""
_MOVES = 8
"""Attempts to relieve busiest arcs, for each arc."""


class Way(NamedTuple):
    """A way of some of a pair's data.

    Parameters
    ----------
    path
        Vertices from source to destination.
    share
        Of the pair's data.
    """

    path: tuple[int, ...]
    share: float


@dataclass(frozen=True, eq=False)
class Routes:
    """All messages of an all-to-all, as ways of whole numbers of pieces.

    Parameters
    ----------
    network
        The network.
    pieces
        Of each block.
    src, dst
        int64 arrays: ends of each way, sorted by ``(src, dst)``; every pair of different ranks has a way.
    units
        int64 array: pieces that take the way, at least 1; those of a pair are ``pieces`` together.
    first, path
        Way i passes the vertices ``path[first[i]:first[i + 1]]``; where the network chooses the way between
        two ranks (ECMP), the vertices between them are left out.
    """

    network: Network
    pieces: int
    src: Ints
    dst: Ints
    units: Ints
    first: Ints
    path: Ints

    @cached_property
    def stops(self) -> tuple[Ints, Ints]:
        """Ranks on the ways, all after one another, and where those of each way begin."""
        at_rank = self.path < self.network.nranks
        return self.path[at_rank], np.append(0, np.cumsum(at_rank))[self.first]

    @property
    def hops(self) -> int:
        """Messages one after another on the longest way."""
        return int(np.diff(self.stops[1]).max()) - 1


class Choice(NamedTuple):
    """A pair's ways: the arcs of each (or classes of arcs that share a load), and their shares."""

    demand: int
    arcs: list[list[int]]
    shares: list[float]


def taken_apart(
    network: Network, flow: npt.NDArray[np.float64], source: int, wanted: npt.NDArray[np.float64]
) -> list[list[Way]]:
    """Take the flow of one source apart.

    Parameters
    ----------
    network
        The network.
    flow
        On each arc; it may go in circles.
    source
        Where it comes from.
    wanted
        What stays at each rank.

    Returns
    -------
    list
        For each rank its ways, with shares that add up to 1; none for those that want nothing.
    """
    left = flow.astype(np.float64)
    wanted = wanted.astype(np.float64)
    least = _SMALL * float(wanted.max())
    remaining = wanted.copy()
    found: list[dict[tuple[int, ...], float]] = [{} for _ in range(network.nranks)]
    out = _leaving(network)
    noise = max(least, _SMALL * float(left.max()))
    while (remaining > least).any():
        parent = _shortest(network, out, left, source, noise)
        moved = False
        for target in np.flatnonzero(remaining > least).tolist():
            arcs, v = [], target
            while v != source and parent[v] >= 0:
                arcs.append(parent[v])
                v = int(network.src[parent[v]])
            amount = min(float(remaining[target]), float(left[arcs].min())) if v == source and arcs else 0.0
            if amount <= noise:
                continue
            moved = True
            left[arcs] -= amount
            remaining[target] -= amount
            path = (source, *network.dst[arcs[::-1]].tolist())
            found[target][path] = found[target].get(path, 0.0) + amount
        if not moved:
            break
    if (remaining > 1e-6 * wanted).any():
        raise InternalError("a flow does not bring every rank what it should; please report it")
    return [[Way(path, amount / sum(ways.values())) for path, amount in ways.items()] for ways in found]


def _leaving(network: Network) -> list[list[int]]:
    out: list[list[int]] = [[] for _ in range(network.nvertices)]
    for arc, v in enumerate(network.src.tolist()):
        out[v].append(arc)
    return out


def _shortest(
    network: Network, out: list[list[int]], left: npt.NDArray[np.float64], source: int, noise: float
) -> list[int]:
    """Find the arc by which each vertex is reached first over arcs that have flow left; -1 for none."""
    parent = [-1] * network.nvertices
    heads = network.dst
    level, seen = [source], {source}
    while level:
        ahead = []
        for v in level:
            for arc in sorted(out[v], key=lambda a: -left[a]):
                w = int(heads[arc])
                if left[arc] > noise and w not in seen:
                    seen.add(w)
                    parent[w] = arc
                    ahead.append(w)
        level = ahead
    return parent


class _Rounding:
    """Pieces on ways, and what they put on the arcs."""

    def __init__(self, choices: Sequence[Choice], capacity: Sequence[int], pieces: int) -> None:
        self.choices, self.pieces = choices, pieces
        self.rate = [1.0 / (c * pieces) for c in capacity]
        self.load = [0.0] * len(capacity)
        self.units = [[0] * len(choice.arcs) for choice in choices]
        spare = []
        for pair, choice in enumerate(choices):
            parts = [share * pieces for share in choice.shares]
            for way, part in enumerate(parts):
                self.put(pair, way, int(part + 1e-6))
            spare.append([part - int(part + 1e-6) for part in parts])
        for pair, parts in enumerate(spare):
            for _ in range(pieces - sum(self.units[pair])):
                ways = range(len(parts))
                way = min(ways, key=lambda w: (self.peak(pair, w), -parts[w], w))
                parts[way] -= 1
                self.put(pair, way, 1)

    def put(self, pair: int, way: int, units: int) -> None:
        """Put pieces on a way, or take them off."""
        if units:
            self.units[pair][way] += units
            amount = units * self.choices[pair].demand
            for arc in self.choices[pair].arcs[way]:
                self.load[arc] += amount * self.rate[arc]

    def peak(self, pair: int, way: int) -> float:
        """Tell how busy the busiest arc of a way would be with one piece more."""
        demand = self.choices[pair].demand
        load, rate = self.load, self.rate
        peak = 0.0
        added: dict[int, int] = {}
        for arc in self.choices[pair].arcs[way]:
            added[arc] = added.get(arc, 0) + demand
            peak = max(peak, load[arc] + added[arc] * rate[arc])
        return peak

    def improve(self) -> None:
        """Move pieces off the busiest arc while it gets less busy, and no arc as busy."""
        using: dict[int, list[tuple[int, int]]] = {}
        for pair, choice in enumerate(self.choices):
            if len(choice.arcs) > 1 and choice.demand:
                for way, arcs in enumerate(choice.arcs):
                    for arc in arcs:
                        using.setdefault(arc, []).append((pair, way))
        for _ in range(_MOVES * len(self.load)):
            busiest = max(range(len(self.load)), key=self.load.__getitem__)
            if not self._relieve(busiest, using.get(busiest, [])):
                return

    def _relieve(self, busiest: int, users: Sequence[tuple[int, int]]) -> bool:
        worst = self.load[busiest] * (1 - 1e-12)
        for pair, way in users:
            if not self.units[pair][way]:
                continue
            self.put(pair, way, -1)
            best = min((self.peak(pair, w), w) for w in range(len(self.units[pair])) if w != way)
            if best[0] < worst:
                self.put(pair, best[1], 1)
                return True
            self.put(pair, way, 1)
        return False


def rounded(
    choices: Sequence[Choice], capacity: Sequence[int], pieces: int
) -> tuple[list[list[int]], Fraction]:
    """Round shares to pieces.

    Parameters
    ----------
    choices
        The ways of all pairs; shares of each add up to 1.
    capacity
        Of each arc, or class of arcs.
    pieces
        Of each pair.

    Returns
    -------
    list, Fraction
        Pieces on each way of each pair; and the greatest load over capacity, exact.
    """
    rounding = _Rounding(choices, capacity, pieces)
    rounding.improve()
    load = [0] * len(capacity)
    for choice, units in zip(choices, rounding.units, strict=True):
        for arcs, number in zip(choice.arcs, units, strict=True):
            for arc in arcs if number else ():
                load[arc] += number * choice.demand
    worst = max(Fraction(total, c * pieces) for total, c in zip(load, capacity, strict=True))
    return rounding.units, worst
