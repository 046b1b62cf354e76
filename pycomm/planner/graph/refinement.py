"""Colour refinement on a network, and the automorphisms that it finds.

Every vertex has a colour, a hash of 64 bits. In each round it takes in those of its neighbours, and the rates
and directions of the links to them; alike vertices keep alike colours. Two colourings refined side by side
say which vertices an automorphism may lead where. Each renaming is checked arc by arc before it is handed
out.

References
----------
* B. D. McKay, A. Piperno: Practical graph isomorphism, II. Journal of Symbolic Computation 60, 2014
  (individualisation and refinement).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pycomm.planner.graph.network import Network
from pycomm.planner.graph.symmetric import Ints, Shift, arc_numbers

__all__ = ["Refiner", "extend", "is_automorphism", "mix", "twin_shifts"]

Hashes = npt.NDArray[np.uint64]

MAX_TIES = 64
"""Ties broken one by one in search of one renaming."""


def mix(x: Hashes) -> Hashes:
    """Scatter the bits of each number, one to one (the finaliser of SplitMix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Refiner:
    """Colour refinement on one network: equal hashes stay equal wherever they are computed."""

    def __init__(self, network: Network) -> None:
        self.network = network
        rate = mix(network.capacity.astype(np.uint64))
        self._out, self._in = mix(rate + np.uint64(1)), mix(rate + np.uint64(2))
        start = np.zeros(network.nvertices, np.uint64)
        start[: network.nranks] = 1
        for bit, chosen in ((2, network.multicast), (4, network.reduction)):
            start[sorted(chosen)] += np.uint64(bit)
        self.plain = mix(start + np.uint64(7))

    def step(self, colours: Hashes) -> Hashes:
        """One round: each vertex's colour takes in its neighbours' colours, rates and directions."""
        network = self.network
        heard = colours * np.uint64(0x9E3779B97F4A7C15)
        np.add.at(heard, network.src, mix(colours[network.dst] ^ self._out))
        np.add.at(heard, network.dst, mix(colours[network.src] ^ self._in))
        return mix(heard)

    def stable(self, *colourings: Hashes) -> tuple[Hashes, ...]:
        """Refine several colourings, equally often, until the first one's classes are as fine as they get."""
        classes = len(np.unique(colourings[0]))
        while True:
            colourings = tuple(self.step(colours) for colours in colourings)
            finer = len(np.unique(colourings[0]))
            if finer == classes:
                return colourings
            classes = finer


def _ties(colours: Hashes) -> tuple[Ints, Ints]:
    """Order vertices by colour and number; the sizes of the runs of one colour, at each place."""
    order = np.argsort(colours, kind="stable")
    sorted_colours = colours[order]
    _, where, counts = np.unique(sorted_colours, return_inverse=True, return_counts=True)
    return order, counts[where]


def is_automorphism(network: Network, image: Ints) -> bool:
    """Whether a renaming of the vertices leads every arc to an arc of the same capacity."""
    arcs = arc_numbers(network, image[network.src], image[network.dst])
    return bool((arcs >= 0).all()) and np.array_equal(network.capacity[arcs], network.capacity)


def _match(refiner: Refiner, ours: Hashes, theirs: Hashes) -> Ints | None:
    """Find the automorphism that leads vertices to those of the same colour; ties are broken by number."""
    network = refiner.network
    for tie in range(MAX_TIES):
        ours, theirs = refiner.stable(ours, theirs)
        order, counts = _ties(ours)
        other = np.argsort(theirs, kind="stable")
        if not np.array_equal(ours[order], theirs[other]):
            return None
        image = np.empty(network.nvertices, np.int64)
        image[order] = other
        if is_automorphism(network, image):
            return image
        tied = np.flatnonzero(counts > 1)
        if not len(tied):
            return None
        first = tied[np.argmin(order[tied])]  # the pair of least number goes together
        ours, theirs = ours.copy(), theirs.copy()
        ours[order[first]] = theirs[other[first]] = mix(np.array([tie + 1], np.uint64))[0]
    return None


def extend(refiner: Refiner, ranks: Ints) -> Ints | None:
    """Find the automorphism that leads the ranks to these ranks; ``None`` when there is none.

    Parameters
    ----------
    refiner
        Of the network.
    ranks
        The new name of each rank: a permutation.
    """
    network = refiner.network
    number = mix(np.arange(network.nranks, dtype=np.uint64) + np.uint64(11))
    ours, theirs = refiner.plain.copy(), refiner.plain.copy()
    ours[: network.nranks] += number
    theirs[ranks] += number
    return _match(refiner, ours, theirs)


# ------------------------------------------------------------------------------------------------------ twins


def twin_shifts(refiner: Refiner, level: Ints) -> list[Shift]:
    """Find shifts of switches that leave every rank where it is: parallel spines, the planes of a fabric.

    Parameters
    ----------
    refiner
        Of the network.
    level
        Distance of each vertex from the nearest rank; there is at most one shift for each.

    Returns
    -------
    list
        By level, lowest first. Each moves its twins on by one; ``count`` is the length of its longest cycle.
    """
    network = refiner.network
    colours = refiner.plain.copy()
    colours[: network.nranks] += mix(np.arange(network.nranks, dtype=np.uint64) + np.uint64(11))
    found = []
    for height in range(1, int(level.max(initial=0)) + 1):
        (colours,) = refiner.stable(colours)
        here = level == height
        image = _rotate_twins(refiner, colours, here)
        if image is not None:
            found.append(Shift(image, _longest_cycle(image, np.flatnonzero(here))))
        own = np.arange(network.nvertices, dtype=np.uint64) + np.uint64(13)
        colours = np.where(here, mix(colours + mix(own)), colours)
    return found


def _longest_cycle(image: Ints, vertices: Ints) -> int:
    """How many uses of a renaming it takes until the last of some vertices has come back."""
    at, uses = image[vertices], 1
    away = at != vertices
    while away.any():
        at, vertices = image[at[away]], vertices[away]
        uses += 1
        away = at != vertices
    return uses


def _rotate_twins(refiner: Refiner, colours: Hashes, here: npt.NDArray[np.bool_]) -> Ints | None:
    """Move vertices of some level that share a colour on by one, all cells at once or one after another."""
    order, counts = _ties(colours)
    tied = order[(counts > 1) & here[order]]
    if not len(tied):
        return None
    at_once = _rotation(colours, tied)
    image = _match(refiner, *at_once)
    if image is not None:
        return image
    first_cell = tied[colours[tied] == colours[tied.min()]]
    return _match(refiner, *_rotation(colours, first_cell))


def _rotation(colours: Hashes, tied: Ints) -> tuple[Hashes, Hashes]:
    """Two colourings that lead each of the tied vertices to the next one of its colour."""
    order = tied[np.lexsort((tied, colours[tied]))]
    cell = colours[order]
    begins = np.flatnonzero(np.concatenate(([True], cell[1:] != cell[:-1])))
    lengths = np.diff(np.append(begins, len(order)))
    begin, length = np.repeat(begins, lengths), np.repeat(lengths, lengths)
    place = np.arange(len(order)) - begin
    following = order[begin + (place + 1) % length]
    ours, theirs = colours.copy(), colours.copy()
    label = mix(cell + mix(place.astype(np.uint64) + np.uint64(17)))
    ours[order], theirs[following] = label, label
    return ours, theirs
