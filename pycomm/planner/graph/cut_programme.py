"""What is asked of the linear programme of shared links, what is answered, and the proof of the answer.

A programme has one or two *halves* (a broadcast along the arcs, a reduction against them) that share the arcs
of a network, and classes of alike ranks and arcs, which share one unknown each. A proof is checked by itself,
whatever :mod:`~pycomm.planner.graph.cut_lp` did to find it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pycomm.planner.graph.network import Network
from pycomm.planner.graph.symmetry import Orbits

__all__ = ["Certificate", "Half", "Programme", "Solution", "WeightedCut", "both_halves"]

_Ints = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Half:
    """One direction in which data spread from the roots.

    Parameters
    ----------
    network
        Turned so that data run from the roots along the arcs.
    base
        int64: which arc of the programme's own network each arc is.
    """

    network: Network
    base: _Ints


def both_halves(network: Network) -> tuple[Half, Half]:
    """Broadcast along the arcs, and reduction against them."""
    straight = Half(network, np.arange(len(network.src)))
    return straight, Half(network.reversed(), np.lexsort((network.src, network.dst)))


class WeightedCut(NamedTuple):
    """Vertices of one side of a cut, and how much it counts in a proof.

    Parameters
    ----------
    half
        Index of the half whose arcs it counts.
    vertices
        Boolean array: the side that the data leave.
    weight
        At least 0.
    """

    half: int
    vertices: _Mask
    weight: Fraction


@dataclass(frozen=True, eq=False)
class Programme:
    """What is asked.

    Parameters
    ----------
    network
        Its capacities are what the halves share.
    halves
        One or two.
    columns
        int64 array of shape ``(k, nranks)``: root weights that may be mixed freely. All unit vectors: free
        roots.
    orbits
        Parts that are alike, under renamings that keep the space of the columns.
    unbalanced
        For each half, vertices that may let out more than they take in: switches that replicate. The value is
        then a bound that trees need not reach.
    """

    network: Network
    halves: tuple[Half, ...]
    columns: _Ints
    orbits: Orbits
    unbalanced: tuple[frozenset[int], ...] = ()

    def merged_columns(self) -> _Ints:
        """Add up the columns that alike ranks share: any mix of the sums treats alike ranks alike."""
        table = np.zeros_like(self.columns)
        count = self.orbits.nvertex
        label = self.orbits.vertex[: self.network.nranks]
        groups: dict[bytes, int] = {}
        for column in self.columns:
            sums = np.bincount(label, column, count).astype(np.int64)
            support = bytes(sums > 0)
            row = groups.setdefault(support, len(groups))
            table[row] += column
        return table[: len(groups)]

    def class_capacity(self) -> _Ints:
        """Add up the capacities of each class of arcs."""
        capacity = np.zeros(self.orbits.narc, np.int64)
        capacity[self.orbits.arc] = self.network.capacity
        return capacity

    def leaving(self, half: int, vertices: _Mask) -> Iterator[tuple[int, int]]:
        """Yield how many arcs of each class leave a set."""
        side = self.halves[half]
        out = vertices[side.network.src] & ~vertices[side.network.dst]
        classes, counts = np.unique(self.orbits.arc[side.base[out]], return_counts=True)
        yield from zip(classes.tolist(), counts.tolist(), strict=True)

    def balance(self, half: int) -> list[tuple[int, int, int]]:
        """List (class of switches, class of arcs, arcs that arrive minus arcs that leave)."""
        side, orbits = self.halves[half], self.orbits
        table: dict[tuple[int, int], int] = {}
        balanced = np.arange(self.network.nvertices) >= self.network.nranks
        if self.unbalanced:
            balanced[sorted(self.unbalanced[half])] = False
        for ends, sign in ((side.network.dst, 1), (side.network.src, -1)):
            passing = balanced[ends]
            keys = orbits.vertex[ends[passing]] * max(orbits.narc, 1) + orbits.arc[side.base[passing]]
            for key, count in zip(*(u.tolist() for u in np.unique(keys, return_counts=True)), strict=True):
                pair = divmod(key, max(orbits.narc, 1))
                table[pair] = table.get(pair, 0) + sign * count
        return [(k, a, times) for (k, a), times in sorted(table.items()) if times]


@dataclass(frozen=True, eq=False)
class Certificate:
    """Why no more is possible: cuts, each with a weight, and a potential for each class of switches.

    Take any feasible solution. Each cut lets out at least what its ranks hold; the weights cover the data of
    every root at least once, so the weighted capacity of all cuts is at least all the data. An arc counts in
    one half as often as it leaves cuts, plus the difference of the potentials of its ends, whose total is
    nothing because switches are balanced; of the two halves the dearer counts, since they share the arc. Cuts
    stand for the average of all their images under the renamings in ``programme.orbits``.
    """

    programme: Programme
    cuts: tuple[WeightedCut, ...]
    potentials: tuple[tuple[Fraction, ...], ...]

    def prices(self) -> list[Fraction]:
        """Compute how much each class of arcs counts: for the whole class, the dearer half, 0 or more."""
        programme = self.programme
        price = [[Fraction(0)] * programme.orbits.narc for _ in programme.halves]
        for h, potential in enumerate(self.potentials):
            for k, a, times in programme.balance(h):
                price[h][a] -= potential[k] * times
        for cut in self.cuts:
            for a, times in programme.leaving(cut.half, cut.vertices):
                price[cut.half][a] += cut.weight * times
        return [max(Fraction(0), *each) for each in zip(*price, strict=True)]

    def covered(self) -> Fraction:
        """Compute how often the cuts count data at least, from whichever root."""
        columns = self.programme.merged_columns()
        cover = [Fraction(0)] * len(columns)
        nranks = self.programme.network.nranks
        for cut in self.cuts:
            if cut.weight < 0 or cut.vertices[:nranks].all():
                return Fraction(0)  # not a proof
            for j, weight in enumerate((columns @ cut.vertices[:nranks]).tolist()):
                cover[j] += cut.weight * weight
        return min(c / int(column.sum()) for c, column in zip(cover, columns, strict=True))

    def value(self) -> Fraction | None:
        """Compute the bound from the weights alone; ``None`` when they prove nothing."""
        covered = self.covered()
        if covered <= 0:
            return None
        capacity = self.programme.class_capacity().tolist()
        total = sum((p * c for p, c in zip(self.prices(), capacity, strict=True) if p), Fraction(0))
        return total / covered

    def limiting(self) -> _Ints:
        """List the arcs that the proof counts."""
        counts = np.array([price > 0 for price in self.prices()], np.bool_)
        return np.flatnonzero(counts[self.programme.orbits.arc])


@dataclass(frozen=True, eq=False)
class Solution:
    """Shares of the arcs and weights of the roots, with what is proved of them.

    Parameters
    ----------
    shares
        For each half, the share of each arc of the programme's own network, in units of capacity.
    roots
        Data that start at each rank, in units of capacity; their sum is ``lower``.
    lower, upper
        Proved: the solution attains ``lower``, and nothing attains more than ``upper``. Equal unless the
        programme was numerically too hard.
    certificate
        Proof of ``upper``.
    rounds
        How often cuts were added.
    """

    shares: tuple[tuple[Fraction, ...], ...]
    roots: tuple[Fraction, ...]
    lower: Fraction
    upper: Fraction
    certificate: Certificate
    rounds: int
