"""What a network looks like: hosts, racks, pods, rails, and the shifts that leave it as it is.

Nothing here knows a name. Four questions are asked of the bare graph:

* How far is each vertex from the nearest rank? Take away all vertices from some distance on, and what still
  hangs together are *units*: without the leaf switches the hosts, without the spines the pods. Where switches
  are missing, fast links that hang together are units too.
* Which switches outside its unit does a rank meet first? Ranks of one unit that meet different ones are on
  different *rails*. Unit after unit, rail after rail, each rank gets coordinates.
* Is moving all ranks on by one in one coordinate an automorphism? Colour refinement with every rank coloured
  by its number carries the answer to all other vertices (:mod:`~pycomm.planner.graph.refinement`).
* In a network of direct links: are there translations, renamings under which every rank goes to a neighbour?
  Tori, hypercubes, circulant graphs and full meshes are recognised by them.

References
----------
* G. Sabidussi: On a class of fixed-point-free graphs. Proceedings of the AMS 9, 1958 (a graph is a Cayley
  graph when some group of its automorphisms moves any vertex to any other in exactly one way).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from pycomm.planner.graph.network import Network
from pycomm.planner.graph.refinement import Refiner, extend, is_automorphism, mix, twin_shifts
from pycomm.planner.graph.symmetric import Ints, Shift
from pycomm.planner.graph.translations import translations

__all__ = ["Coordinates", "Structure", "levels", "structures", "units"]

MAX_RATES = 12
"""Rates of links tried as the least rate inside a unit."""


# ------------------------------------------------------------------------------------------------------ units


def levels(network: Network) -> Ints:
    """Links from each vertex to the nearest rank, whichever way they lead; -1 where there is no way."""
    level = np.full(network.nvertices, -1, np.int64)
    level[: network.nranks] = 0
    src, dst = network.src.astype(np.int64), network.dst.astype(np.int64)
    for distance in range(1, network.nvertices):
        new = np.concatenate(
            (dst[(level[src] >= 0) & (level[dst] < 0)], src[(level[dst] >= 0) & (level[src] < 0)])
        )
        if not len(new):
            break
        level[new] = distance
    return level


def _components(network: Network, vertices: npt.NDArray[np.bool_], arcs: npt.NDArray[np.bool_]) -> Ints:
    """Label the connected parts of a subgraph by their least vertex; -1 outside it."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    live = arcs & vertices[network.src] & vertices[network.dst]
    count = network.nvertices
    graph = coo_array(
        (np.ones(int(live.sum()), np.int8), (network.src[live], network.dst[live])), (count, count)
    )
    _, label = connected_components(graph, directed=False)
    _, first, where = np.unique(label, return_index=True, return_inverse=True)
    return np.where(vertices, first[where], -1)


def _alike_units(network: Network, label: Ints) -> bool:
    """Whether there are several units, each of the same number of ranks, at least two."""
    _, counts = np.unique(label[: network.nranks], return_counts=True)
    return len(counts) > 1 and counts[0] > 1 and bool((counts == counts[0]).all())


def units(network: Network, level: Ints) -> list[list[Ints]]:
    """Find units within units.

    Returns
    -------
    list
        Chains to try, best first. A chain has, smallest units first, a label for each vertex: the least
        vertex of its unit, or -1 when it is in none.
    """
    every_arc, every_vertex = np.ones(len(network.src), bool), np.ones(network.nvertices, bool)
    below = [_components(network, level < top, every_arc) for top in range(int(level.max(initial=0)), 0, -1)]
    rates = np.unique(network.capacity)[::-1]
    if len(rates) > MAX_RATES:
        rates = rates[:MAX_RATES]
    fast = [_components(network, every_vertex, network.capacity >= rate) for rate in rates[:-1]]
    together = _same_neighbours(network)
    chains = [_chain(network, below + fast), _chain(network, below), _chain(network, [*fast, together]), []]
    kept: list[list[Ints]] = []
    for chain in chains:
        if not any(len(chain) == len(k) and all(map(np.array_equal, chain, k)) for k in kept):
            kept.append(chain)
    return kept


def _same_neighbours(network: Network) -> Ints:
    """Put ranks together that are joined with the same vertices; all others are in no unit."""
    n = network.nranks
    hashed = np.zeros(n, np.uint64)
    name = mix(np.arange(network.nvertices, dtype=np.uint64) + np.uint64(23))
    leaving = network.src < n
    np.add.at(hashed, network.src[leaving], name[network.dst[leaving]])
    _, first, where = np.unique(hashed, return_index=True, return_inverse=True)
    return np.concatenate((first[where], np.full(network.nvertices - n, -1, np.int64)))


def _chain(network: Network, labels: Sequence[Ints]) -> list[Ints]:
    """Choose partitions into alike units of which each is finer than the next; earlier ones come first."""
    n = network.nranks
    chosen: list[Ints] = []
    for label in labels:
        if _alike_units(network, label) and all(_nested(label[:n], other[:n]) for other in chosen):
            chosen.append(label)
    return sorted(chosen, key=lambda label: len(np.unique(label[:n])), reverse=True)


def _nested(a: Ints, b: Ints) -> bool:
    """Whether two partitions differ and one is finer than the other."""
    parts, of_a, of_b = len(np.unique(a * (b.max() + 1) + b)), len(np.unique(a)), len(np.unique(b))
    return of_a != of_b and parts == max(of_a, of_b)


# ------------------------------------------------------------------------------------------------ coordinates


@dataclass(frozen=True, eq=False)
class Coordinates:
    """A place for each rank on a grid: coordinate 0 counts the largest units, the last one is inside a host.

    Parameters
    ----------
    sizes
        How many values each coordinate has; their product is the number of ranks.
    place
        int64 array of shape ``(nranks, len(sizes))``.
    unit
        For each coordinate, which level of units it counts: 0 within the smallest unit, 1 the smallest units
        within the second smallest, and so on.
    """

    sizes: tuple[int, ...]
    place: Ints
    unit: tuple[int, ...]

    @cached_property
    def rank(self) -> Ints:
        """Rank at each place, an array of shape ``sizes``."""
        grid = np.full(self.sizes, -1, np.int64)
        grid[tuple(self.place.T)] = np.arange(len(self.place))
        return grid

    def rolled(self, axis: int) -> Ints:
        """Rename the ranks by moving all on by one in one coordinate, the last to the first place."""
        place = self.place.copy()
        place[:, axis] = (place[:, axis] + 1) % self.sizes[axis]
        renamed: Ints = self.rank[tuple(place.T)]
        return renamed


@dataclass(frozen=True, eq=False)
class Structure:
    """Coordinates, and the shifts that leave the network as it is.

    Parameters
    ----------
    network
        What was looked at.
    coordinates
        Where each rank is.
    shifts
        For each coordinate the shift along it, or ``None`` where moving along it changes the network.
    twins
        Shifts of switches that move no rank, lowest level first.
    direct
        Whether the shifts are translations of a network of direct links.
    chain
        The units, smallest first, as of :func:`units`.
    """

    network: Network
    coordinates: Coordinates
    shifts: tuple[Shift | None, ...]
    twins: tuple[Shift, ...]
    direct: bool
    chain: tuple[Ints, ...]

    @property
    def complete(self) -> bool:
        """Whether every rank is joined with every other one directly."""
        n = self.network.nranks
        among = (self.network.src < n) & (self.network.dst < n)
        return int(among.sum()) == n * (n - 1)

    def describe(self) -> str:
        """Say the sizes, largest units first, such as ``"4 x 16 x 8"``."""
        marks = (
            f"{n}" if shift else f"{n} unlike"
            for n, shift in zip(self.coordinates.sizes, self.shifts, strict=True)
        )
        return " x ".join(marks)


def _nearest_outside(network: Network, inside: Ints) -> tuple[Ints, Ints]:
    """Hash the vertices outside its unit that each rank meets first, over no other rank; and name one."""
    from scipy.sparse import csr_array

    n, count = network.nranks, network.nvertices
    forward = csr_array((np.ones(len(network.src), np.int64), (network.src, network.dst)), (count, count))
    relay = np.ones(count, np.int64)
    relay[:n] = 0
    unit_of_rank = inside[:n]
    signature, met = np.zeros(n, np.uint64), np.full(n, count, np.int64)
    name = mix(np.arange(count, dtype=np.uint64) + np.uint64(19))
    ahead = forward[:n]
    for _ in range(4):
        ahead = ahead.tocoo()
        rank, vertex = ahead.row.astype(np.int64), ahead.col.astype(np.int64)
        passing = vertex >= n
        rank, vertex = rank[passing], vertex[passing]
        outside = (inside[vertex] != unit_of_rank[rank]) & (signature[rank] == 0)
        np.add.at(signature, rank[outside], name[vertex[outside]])
        np.minimum.at(met, rank[outside], vertex[outside])
        going = (signature[rank] == 0) & (inside[vertex] == unit_of_rank[rank])
        if not going.any():
            break
        ahead = (
            csr_array((np.ones(int(going.sum()), np.int64), (rank[going], vertex[going])), (n, count))
            @ forward
        )
        ahead.data[:] = 1
    return signature.view(np.int64), met


def _planes(network: Network, inside: Ints) -> Ints:
    """Label the parts that are left without the units, one plane each; and one more label at the end."""
    fabric = _components(network, inside < 0, np.ones(len(network.src), bool))
    return np.append(fabric, -1)


def _index_within(group: Ints, key: Ints) -> Ints:
    """Place of each item among the items of its group, ordered by key."""
    order = np.lexsort((key, group))
    begins = np.concatenate(([True], group[order][1:] != group[order][:-1]))
    starts = np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - starts
    return place


def _renumber(values: Ints) -> Ints:
    """Classes of equal values, numbered by first member."""
    _, first, where = np.unique(values, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[where]


def coordinates_of(network: Network, chain: Sequence[Ints]) -> Coordinates | None:
    """Give each rank coordinates: units from the largest down, then rail, then place on the rail.

    Parameters
    ----------
    network
        The network.
    chain
        Units, smallest first.
    """
    n = network.nranks
    ranks = np.arange(n)
    columns: list[Ints] = []
    unit: list[int] = []
    parent = np.zeros(n, np.int64)
    for height in range(len(chain), 0, -1):
        label = chain[height - 1][:n]
        first = np.unique(label, return_index=True)[1]
        index = np.zeros(n, np.int64)
        place = _index_within(parent[first], ranks[first])
        index[:] = place[np.searchsorted(label[first], label)]
        columns.append(index)
        unit.append(height)
        parent = label
    host = parent
    signature = np.zeros(n, np.int64)
    if chain:
        hashes, met = _nearest_outside(network, chain[0])
        classes = _renumber(hashes)
        plane = _planes(network, chain[0])[met]
        _, signature = np.unique(np.stack((plane, classes), axis=1), axis=0, return_inverse=True)
    rail, on_rail = _rails(host, signature)
    for column in (on_rail, rail):
        if column.max(initial=0) > 0:
            columns.append(column)
            unit.append(0)
    sizes = tuple(int(column.max()) + 1 for column in columns)
    place = np.stack(columns, axis=1) if columns else np.zeros((n, 0), np.int64)
    if int(np.prod(sizes, dtype=np.int64)) != n or len(np.unique(place, axis=0)) != n:
        return None
    return Coordinates(sizes, place, tuple(unit))


def _rails(host: Ints, signature: Ints) -> tuple[Ints, Ints]:
    """Place on the rail, and rail within the host, of each rank; one rail where hosts have unlike rails."""
    n = len(host)
    key = host * n + signature
    pairs, first, counts = np.unique(key, return_index=True, return_counts=True)
    hosts = host[first]
    rails_of_host = np.unique(hosts, return_counts=True)[1]
    if (counts != counts[0]).any() or (rails_of_host != rails_of_host[0]).any():
        return _index_within(host, np.arange(n)), np.zeros(n, np.int64)
    rail_of_pair = _index_within(hosts, signature[first])
    where = np.searchsorted(pairs, key)
    return _index_within(key, np.arange(n)), rail_of_pair[where]


# ----------------------------------------------------------------------------------------------------- search


def _direct(network: Network) -> bool:
    """Whether all vertices are ranks."""
    return network.nvertices == network.nranks


def structures(network: Network) -> Iterator[Structure]:
    """Say what the network looks like, the most telling views first.

    Parameters
    ----------
    network
        The network.

    Yields
    ------
    Structure
        At least one coordinate of each has a shift.
    """
    memo = _memo(network)
    for number in itertools.count():
        if number == len(memo.found):
            following = next(memo.rest, None)
            if following is None:
                return
            memo.found.append(following)
        yield memo.found[number]


@dataclass
class _Memo:
    """What was found in a network, and the search that goes on."""

    found: list[Structure]
    rest: Iterator[Structure]


@lru_cache(maxsize=4)
def _memo(network: Network) -> _Memo:
    return _Memo([], _search(network))


def _search(network: Network) -> Iterator[Structure]:
    refiner = Refiner(network)
    if _direct(network) and network.nranks > 1:
        found = translations(network.nranks, network.src, network.dst, network.capacity)
        if found is not None:
            place, images = found
            sizes = tuple(count for _, count in images)
            coordinates = Coordinates(sizes, place, (0,) * len(sizes))
            shifts = tuple(Shift(image, count) for image, count in images)
            if all(is_automorphism(network, shift.image) for shift in shifts):
                yield Structure(network, coordinates, shifts, (), True, ())
                return
    level = levels(network)
    if (level < 0).any():
        return
    twins: tuple[Shift, ...] | None = None
    for chain in units(network, level):
        coordinates_found = coordinates_of(network, chain)
        if coordinates_found is None:
            continue
        shifts_found = []
        for axis, size in enumerate(coordinates_found.sizes):
            image = extend(refiner, coordinates_found.rolled(axis))
            shifts_found.append(None if image is None else Shift(image, size))
        if not any(shifts_found):
            continue
        if twins is None:
            twins = tuple(twin_shifts(refiner, level))
        yield Structure(network, coordinates_found, tuple(shifts_found), twins, False, tuple(chain))
