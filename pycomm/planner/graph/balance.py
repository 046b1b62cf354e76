"""Switches that take in more than they can pass on, or less: the best balanced part of a network, exactly.

The cut bound counts what can leave a set of vertices. It is attained when every switch has as much capacity
in as out. A switch that lets out more than it takes in would have to replicate, and where it cannot, each set
of ranks by itself may be served, but not all of them together:

    a --20--> w --20--> b        b and c exchange 4 each way; a broadcast from a
              w --20--> c        cuts: 20; truth: 10 to each and 4 from the other, 14

What to use is a linear programme: shares of the arcs, in = out at each switch, as much data as every cut lets
through (:mod:`~pycomm.planner.graph.cut_lp` with one half and given weights of the roots). Its optimum is
what trees attain; both figures are reported, and the shares are what the trees are packed into.

References
----------
* J. Bang-Jensen, A. Frank, B. Jackson: Preserving and increasing local edge-connectivity in mixed graphs.
  SIAM Journal on Discrete Mathematics 8, 1995 (balanced switches can be split away).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from pycomm.errors import TopologyError
from pycomm.planner.graph.bounds import Bound, Cut, bound, describe_links, flow_network, weights_of
from pycomm.planner.graph.cut_lp import solve
from pycomm.planner.graph.cut_programme import Certificate, Half, Programme, Solution
from pycomm.planner.graph.flat_forest import FlatForest, flat_forest
from pycomm.planner.graph.network import Network
from pycomm.planner.graph.packing import WITHIN, unbalanced
from pycomm.planner.graph.packing import forest as pack
from pycomm.planner.graph.symmetry import orbits_of
from pycomm.types import CollectiveKind

__all__ = ["BalancedBound", "balanced_bound", "balanced_forest", "tree_bound"]


@dataclass(frozen=True, eq=False)
class BalancedBound:
    """What cuts allow, and what trees attain where switches have unequal in and out.

    Parameters
    ----------
    cut_bound
        By cuts alone: nothing exceeds it, but trees need not reach it.
    solution
        The balanced optimum on ``flow_network(network, kind)``: shares of its arcs in ``shares[0]``, and the
        proof.
    """

    cut_bound: Bound
    solution: Solution

    @property
    def network(self) -> Network:
        """What it is the bound of."""
        return self.cut_bound.network

    @property
    def algbw(self) -> Fraction:
        """Rate that no trees exceed, in bytes of the whole result per second; at most the cut bound's."""
        return min(self.solution.upper * self.network.unit, self.cut_bound.algbw)

    @property
    def attained(self) -> Fraction:
        """Rate that the shares attain; equal to :attr:`algbw` unless numbers were too hard."""
        return self.solution.lower * self.network.unit

    @property
    def seconds_per_byte(self) -> Fraction:
        """Least time over the bytes of the whole result."""
        return 1 / self.algbw

    @property
    def is_exact(self) -> bool:
        """Whether the proof meets the solution."""
        return self.algbw == self.attained

    @property
    def cut(self) -> Cut:
        """The set of vertices that limits by cuts alone."""
        return self.cut_bound.cut

    @property
    def certificate(self) -> Certificate:
        """Proof of the balanced optimum."""
        return self.solution.certificate

    @property
    def shares(self) -> tuple[Fraction, ...]:
        """Share of each arc of ``flow_network(network, kind)``, in units of capacity."""
        return self.solution.shares[0]

    def whole(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Scale shares and roots to the least whole numbers: capacities and roots for the packing."""
        values = (*self.shares, *self.solution.roots)
        common = math.lcm(*{value.denominator for value in values})
        divisor = math.gcd(*(int(value * common) for value in values))
        shares, roots = (
            np.array([int(value * common) // divisor for value in part], np.int64)
            for part in (self.shares, self.solution.roots)
        )
        return shares, roots

    def limited_by(self) -> str:
        """Name the links that limit the balanced optimum; links alike are one."""
        flows = flow_network(self.network, self.cut_bound.kind)
        arcs = self.certificate.limiting()
        ends = [
            (flows.names[a], flows.names[b])
            for a, b in zip(flows.src[arcs].tolist(), flows.dst[arcs].tolist(), strict=True)
        ]
        return describe_links([(b, a) for a, b in ends] if self.cut_bound.kind.reduces else ends)


def balanced_bound(network: Network, kind: CollectiveKind, root: int = -1) -> BalancedBound:
    """Find the best balanced shares of a network's arcs for a collective, and what they attain.

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
        Another collective, a root that is none, or a single rank.
    TopologyError
        Data cannot reach some rank, or only through switches that let nothing in or nothing out.
    """
    by_cuts = bound(network, kind, root)
    flows = flow_network(network, kind)
    weights = weights_of(network, kind, root)
    label = np.zeros(network.nvertices, np.int64)
    label[: network.nranks] = weights
    half = Half(flows, np.arange(len(flows.src)))
    solution = solve(Programme(flows, (half,), weights[None, :], orbits_of(flows, label)))
    if solution.upper <= 0:
        raise TopologyError(
            "some ranks are joined only by a switch that lets nothing in or nothing out: join it both ways"
        )
    return BalancedBound(by_cuts, solution)


def tree_bound(network: Network, kind: CollectiveKind, root: int = -1) -> Bound | BalancedBound:
    """Bound what trees can carry: by cuts where every switch has as much in as out, or can replicate.

    Parameters and errors as of :func:`balanced_bound`.
    """
    flows = flow_network(network, kind)
    if flows.multicast or not len(unbalanced(flows, flows.capacity)):
        return bound(network, kind, root)
    return balanced_bound(network, kind, root)


def balanced_forest(found: BalancedBound, k: int | None = None, *, within: Fraction = WITHIN) -> FlatForest:
    """Pack trees into the balanced shares.

    Parameters
    ----------
    found
        From :func:`balanced_bound`.
    k, within
        As of :func:`pycomm.planner.graph.packing.forest`.

    Returns
    -------
    FlatForest
        On the network on which the data flow from roots to leaves.
    """
    flows = flow_network(found.network, found.cut_bound.kind)
    shares, _ = found.whole()
    live = np.flatnonzero(shares)
    unit = math.gcd(*shares[live].tolist())
    ends = (flows.src[live], flows.dst[live])
    part = Network(flows.nranks, flows.names, *ends, shares[live] // unit, unit, flows.latency_s[live])
    kind = CollectiveKind.BROADCAST if found.cut_bound.kind.is_rooted else CollectiveKind.ALLGATHER
    return flat_forest(flows, pack(part, bound(part, kind, found.cut_bound.root), k, within=within).flat)
