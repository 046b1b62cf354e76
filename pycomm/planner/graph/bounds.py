"""What no schedule can beat on a network, exactly, and the cut that proves it.

Let every rank hold some of the data, and let all others have to hear it. Whatever the ranks of a set S hold
has to leave S as soon as one rank is outside, through the links that leave S: the time is at least what S
holds over the capacity leaving it. The greatest such ratio over all S is the bound. Where every switch
passes on as much as it can receive, trees reach it (J. Edmonds, Edge-disjoint branchings, 1973, once the
switches are split away as J. Bang-Jensen, A. Frank and B. Jackson show in Preserving and increasing local
edge-connectivity in mixed graphs, 1995).

The greatest ratio is found by Newton's method on fractions (W. Dinkelbach, On nonlinear fractional
programming, 1967): with the best ratio p/q so far, links get p times their capacity and ranks q times what
they hold; a rank that cannot hear everything then shows a set with a greater ratio. All numbers are whole.
A rank that heard everything once does so for every greater ratio, and so one pass over the ranks is enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from pycomm.core import native
from pycomm.errors import PlanningError, TopologyError, UsageError
from pycomm.planner.graph.network import Network
from pycomm.types import CollectiveKind

__all__ = [
    "Bound",
    "Cut",
    "bound",
    "describe_links",
    "flow_network",
    "greatest_ratio",
    "separate",
    "weights_of",
]

_KINDS = (
    CollectiveKind.ALLGATHER,
    CollectiveKind.REDUCE_SCATTER,
    CollectiveKind.BROADCAST,
    CollectiveKind.REDUCE,
)


@dataclass(frozen=True)
class Cut:
    """A set of vertices whose data have to leave it.

    Parameters
    ----------
    vertices
        The set, in rising order; at least one rank is not in it.
    weight
        What its ranks hold together.
    capacity
        Of the arcs that leave it, in units of the network's.
    """

    vertices: tuple[int, ...]
    weight: int
    capacity: int

    def arcs(self, network: Network) -> npt.NDArray[np.int64]:
        """Numbers of the arcs that leave the set."""
        inside = np.zeros(network.nvertices, bool)
        inside[list(self.vertices)] = True
        return np.flatnonzero(inside[network.src] & ~inside[network.dst])


@dataclass(frozen=True)
class Bound:
    """The least time of a collective.

    Parameters
    ----------
    network
        What it is the bound of. For a collective that reduces, the data flow from many to one; everything is
        told of the reversed network, on which they flow from one to many.
    kind, root
        The collective; the root is ``-1`` where there is none.
    seconds_per_byte
        Least time over the bytes of the whole result: of all blocks for an allgather.
    cut
        The set that proves it, on :func:`flow_network`.
    """

    network: Network
    kind: CollectiveKind
    root: int
    seconds_per_byte: Fraction
    cut: Cut

    @property
    def algbw(self) -> Fraction:
        """Greatest rate, in bytes of the whole result per second."""
        return 1 / self.seconds_per_byte

    def links(self) -> list[tuple[str, str]]:
        """Names of the two ends of every link that the proof counts, as the links of the network lead."""
        flows = flow_network(self.network, self.kind)
        names = flows.names
        arcs = self.cut.arcs(flows)
        ends = [(names[a], names[b]) for a, b in zip(flows.src[arcs], flows.dst[arcs], strict=True)]
        return [(b, a) for a, b in ends] if self.kind.reduces else ends

    def limited_by(self) -> str:
        """Name the links that limit the collective, such as ``"leaf3 -> spine*"``; links alike are one."""
        return describe_links(self.links())


def flow_network(network: Network, kind: CollectiveKind) -> Network:
    """Network on which the data of a collective flow from roots to leaves: reversed for those that reduce."""
    return network.reversed() if kind.reduces else network


def weights_of(network: Network, kind: CollectiveKind, root: int = -1) -> npt.NDArray[np.int64]:
    """Give what each rank holds of the data, in equal parts: one each, or all of it at the root.

    Raises
    ------
    UsageError
        The collective has no bound here, or the root is not a rank of the network.
    """
    if kind not in _KINDS:
        names = ", ".join(one.label for one in _KINDS)
        raise UsageError(f"there is no single bound by cuts for {kind.label}; there is for {names}")
    if not kind.is_rooted:
        return np.ones(network.nranks, np.int64)
    if not 0 <= root < network.nranks:
        raise UsageError(f"{kind.label} needs a root from 0 to {network.nranks - 1}, not {root}")
    weights = np.zeros(network.nranks, np.int64)
    weights[root] = 1
    return weights


def bound(network: Network, kind: CollectiveKind, root: int = -1) -> Bound:
    """Find the least time of a collective and the cut that proves it, both exact.

    Parameters
    ----------
    network
        Of at least two ranks.
    kind
        allgather, reduce_scatter, broadcast or reduce.
    root
        Of the last two.

    Raises
    ------
    UsageError
        Another collective, a root that is none, or a single rank, which has nothing to exchange.
    TopologyError
        Data cannot reach some rank.
    PlanningError
        The bandwidths do not fit 64 bits.
    """
    if network.nranks < 2:
        raise UsageError("a single rank has nothing to exchange and no bound; give at least two")
    weights = weights_of(network, kind, root)
    flows = flow_network(network, kind)
    ratio, cut = greatest_ratio(flows, weights)
    total = int(weights.sum())
    return Bound(network, kind, root if kind.is_rooted else -1, ratio / (total * network.unit), cut)


def greatest_ratio(
    network: Network, weights: npt.NDArray[np.int64], capacity: npt.NDArray[np.int64] | None = None
) -> tuple[Fraction, Cut]:
    """Find the set with the most weight per capacity leaving it, of all that leave out a rank.

    Parameters
    ----------
    network
        The arcs.
    weights
        What each rank holds, shape ``(nranks,)``, 0 or more, at least two ranks and not all 0.
    capacity
        Of the arcs, if not the network's own; 0 for an arc that is not to be used.

    Raises
    ------
    TopologyError
        Some rank cannot hear another that holds something.
    PlanningError
        Weights or capacities add up to more than 2^62.
    """
    capacities = network.capacity if capacity is None else capacity
    try:
        weight, leaving, outside = native.network_bound(*native_arguments(network, capacities, weights))
    except OverflowError as error:
        raise PlanningError(f"{error}; round the bandwidths to fewer digits") from None
    cut = _cut(network, capacities, weights, outside)
    if leaving == 0:
        raise TopologyError(_disconnected(network, cut))
    return Fraction(weight, leaving), cut


def separate(network: Network, capacity: npt.NDArray[np.int64], weights: npt.NDArray[np.int64]) -> list[Cut]:
    """Find sets that hold more than can leave them: cuts that a plan with these capacities violates.

    Parameters
    ----------
    network
        The arcs.
    capacity
        int64 of shape ``(narcs,)``, 0 or more.
    weights
        int64 of shape ``(nranks,)``, 0 or more.

    Returns
    -------
    list of Cut
        At most one for each rank that cannot hear ``sum(weights)``, no two alike; empty when all can.
    """
    try:
        found = native.network_separate(*native_arguments(network, capacity, weights))
    except OverflowError as error:
        raise PlanningError(f"{error}; scale them down") from None
    return [_cut(network, capacity, weights, outside) for outside in found]


def native_arguments(
    network: Network, capacity: npt.NDArray[np.int64], weights: npt.NDArray[np.int64]
) -> tuple[
    int,
    int,
    npt.NDArray[np.int32],
    npt.NDArray[np.int32],
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
]:
    """Arrays of a network as the native core takes them."""
    return (
        network.nranks,
        network.nvertices,
        np.ascontiguousarray(network.src, np.int32),
        np.ascontiguousarray(network.dst, np.int32),
        np.ascontiguousarray(capacity, np.int64),
        np.ascontiguousarray(weights, np.int64),
    )


def _cut(
    network: Network,
    capacity: npt.NDArray[np.int64],
    weights: npt.NDArray[np.int64],
    outside: npt.NDArray[np.uint8],
) -> Cut:
    """Make the cut whose complement is given by membership."""
    inside = outside == 0
    leaving = inside[network.src] & ~inside[network.dst]
    return Cut(
        tuple(np.flatnonzero(inside).tolist()),
        int(weights[inside[: network.nranks]].sum()),
        int(capacity[leaving].sum()),
    )


def _disconnected(network: Network, cut: Cut) -> str:
    inside = set(cut.vertices)
    deaf = next(rank for rank in range(network.nranks) if rank not in inside)
    unheard = next(rank for rank in range(network.nranks) if rank in inside)
    outside = [name for v, name in enumerate(network.names) if v not in inside]
    part = ", ".join(outside[:4]) + (f" and {len(outside) - 4} more" if len(outside) > 4 else "")
    return (
        f"no link leads from the part of {network.names[unheard]} into that of {network.names[deaf]} "
        f"({part}), the way the data flow: join them, or leave one out of the group"
    )


def describe_links(links: Iterable[tuple[str, str]]) -> str:
    """Name many links in few words: runs of digits in which names differ become ``*``.

    Examples
    --------
    >>> describe_links([("leaf3", "spine0"), ("leaf3", "spine1")])
    'leaf3 -> spine*'
    """
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for src, dst in links:
        groups.setdefault((_shape(src), _shape(dst)), []).append((src, dst))
    said = [
        f"{_pattern([a for a, _ in group])} -> {_pattern([b for _, b in group])}" for group in groups.values()
    ]
    return ", ".join(said[:3]) + (f" and {len(said) - 3} other kinds" if len(said) > 3 else "")


def _shape(name: str) -> str:
    return re.sub(r"\d+", "0", name)


def _pattern(names: Sequence[str]) -> str:
    """One name for names of one shape."""
    parts = [re.split(r"(\d+)", name) for name in dict.fromkeys(names)]
    return "".join(part[0] if len(set(part)) == 1 else "*" for part in zip(*parts, strict=True))
