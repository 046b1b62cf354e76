"""Forests for data that flow one way: allgather and broadcast; reduce_scatter and reduce are these reversed.

What the structure of the network suggests is added up exactly and compared with the bound; what comes close
enough is taken, and only where nothing does are trees packed.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from pycomm.planner.graph.bounds import Bound, flow_network
from pycomm.planner.graph.bounds import bound as exact_bound
from pycomm.planner.graph.candidates import MAX_TREES, allgather_candidates, most_load
from pycomm.planner.graph.few_trees import broadcast_forests
from pycomm.planner.graph.forest import Forest
from pycomm.planner.graph.network import Network
from pycomm.planner.graph.reports import AnyBound
from pycomm.planner.graph.structure import structures
from pycomm.planner.graph.unit_trees import UnitTrees
from pycomm.types import CollectiveKind

if TYPE_CHECKING:
    from pycomm.planner.graph.balance import BalancedBound

__all__ = ["CLOSE", "Found", "better", "most_trees", "rooted", "spread"]

CLOSE = Fraction(99, 100)
"""Part of the bound that is enough when no number of trees is asked for."""
EXACT_TREES = 64
"""Trees at each rank that a structure may take to meet its bound exactly."""


@dataclass(frozen=True)
class Found:
    """A plan in the making.

    Parameters
    ----------
    forests
        One, or those up and those down.
    seconds_per_byte
        Time over the bytes of the whole result, on the busiest link.
    bound
        What nothing can beat.
    k
        The most trees at one rank.
    how
        What was done, for people.
    """

    forests: tuple[Forest, ...]
    seconds_per_byte: Fraction
    bound: AnyBound
    k: int
    how: str


# ------------------------------------------------------------------------------- allgather and reduce_scatter


def _pack_exactly(network: Network) -> Forest:
    """Pack the inside of a host."""
    return spread(network, CollectiveKind.ALLGATHER, None, exact=True).forests[0]


def spread(network: Network, kind: CollectiveKind, k: int | None, exact: bool) -> Found:
    """Plan an allgather, or a reduce_scatter as an allgather on the network reversed.

    Parameters
    ----------
    network
        Of at least two ranks.
    kind
        Which of the two.
    k
        The most trees at each rank; when not given, the fewest that come close enough.
    exact
        Meet the bound, rather than come close.
    """
    flows = flow_network(network, kind)
    bound = exact_bound(network, kind)
    per_byte = network.nranks * network.unit
    least = bound.seconds_per_byte * per_byte
    goal = least if exact or k is not None else least / CLOSE
    most = k or (EXACT_TREES if exact else MAX_TREES)
    best = None
    for candidate in allgather_candidates(flows, least, _pack_exactly, most):
        if k is None or candidate.k <= k:
            if best is None or candidate.load < best.load:
                best = candidate
            if best.load <= goal:
                break
    found = Found((best.forest,), best.load / per_byte, bound, best.k, best.how) if best else None
    if found and found.seconds_per_byte * per_byte <= goal:
        return found
    return better(found, _packed(flows, bound, k, exact))


def _packed(flows: Network, bound: Bound, k: int | None, exact: bool) -> Found:
    """Pack trees; where some switch has not as much in as out, into the best balanced part of the network."""
    from pycomm.planner.graph.packing import forest as pack
    from pycomm.planner.graph.packing import unbalanced

    within = Fraction(0) if exact else 1 - CLOSE
    if not len(unbalanced(flows, flows.capacity)):
        forest, how = pack(flows, bound, k, within=within), "trees packed"
        proved: Bound | BalancedBound = bound
    else:
        from pycomm.planner.graph.balance import balanced_bound, balanced_forest

        balanced = balanced_bound(bound.network, bound.kind, bound.root)
        forest, how = balanced_forest(balanced, k, within=within), "switches balanced, trees packed"
        proved = bound if flows.multicast else balanced  # what replicates may let out more than it takes in
    return Found((forest,), 1 / forest.algbw(), proved, most_trees(forest), how)


def better(found: Found | None, packed: Found) -> Found:
    """Take what was found first, if that is as good; what packing learnt about the bound stays."""
    if found is None or packed.seconds_per_byte < found.seconds_per_byte:
        return packed
    return replace(found, bound=packed.bound)


def most_trees(forest: Forest) -> int:
    """Count the trees of the rank that has most."""
    return int(np.bincount([tree.root for tree in forest.trees]).max())


# --------------------------------------------------------------------------------------- broadcast and reduce


def rooted(network: Network, kind: CollectiveKind, root: int, k: int | None, exact: bool) -> Found:
    """Plan a broadcast, or a reduce as a broadcast on the network reversed.

    Parameters
    ----------
    network
        Of at least two ranks.
    kind, root
        Which of the two, and its root.
    k, exact
        As of :func:`spread`.
    """
    flows = flow_network(network, kind)
    bound = exact_bound(network, kind, root)
    goal = bound.seconds_per_byte / (1 if exact or k is not None else CLOSE)
    best: Found | None = None
    indirect = (UnitTrees(s) for s in structures(flows) if s.complete or not s.direct)
    for what, forest in itertools.chain.from_iterable(broadcast_forests(unit, root) for unit in indirect):
        seconds = most_load(flows, forest.loads()) / (forest.weight() * network.unit)
        if (k is None or len(forest.trees) <= k) and (best is None or seconds < best.seconds_per_byte):
            best = Found((forest,), seconds, bound, len(forest.trees), what)
            if seconds <= goal:
                return best
    return better(best, _packed(flows, bound, k, exact))
