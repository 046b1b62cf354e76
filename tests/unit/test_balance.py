"""The balanced optimum of networks whose switches take in more than they let out, or less."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pycomm.errors import TopologyError, UsageError
from pycomm.planner.graph.balance import balanced_bound, balanced_forest
from pycomm.planner.graph.bounds import flow_network
from pycomm.planner.graph.network import Network, network_of
from pycomm.planner.graph.packing import pack, unbalanced
from pycomm.planner.graph.rounding import apportioned, whole_shares
from pycomm.planner.graph.synthesis import plan_on
from pycomm.topology.model import Link, Node, NodeKind, Topology
from pycomm.types import CollectiveKind
from pycomm.verify import verify

GB = 10**9


def network(ranks: str, others: str, *links: tuple[str, int]) -> Network:
    """Vertices are letters; a link is ``("ab", gigabytes per second)``, one way."""
    names = ranks + others
    nodes = [Node(name, NodeKind.DEVICE if name in ranks else NodeKind.SWITCH) for name in names]
    return network_of(
        Topology(
            "small",
            tuple(nodes),
            tuple(Link(names.index(pair[0]), names.index(pair[1]), rate * GB) for pair, rate in links),
        )
    )


FAN = network("abc", "w", ("aw", 20), ("wb", 20), ("wc", 20), ("bc", 4), ("cb", 4))
"""Each of b and c can get 20 from a, but not both without a copy made in the switch."""
FAN_TURNED = network("abc", "w", ("wa", 20), ("bw", 20), ("cw", 20), ("bc", 4), ("cb", 4))


@pytest.mark.parametrize(
    ("graph", "kind"), [(FAN, CollectiveKind.BROADCAST), (FAN_TURNED, CollectiveKind.REDUCE)]
)
def test_a_switch_that_would_have_to_replicate_costs_what_the_cut_does_not_see(
    graph: Network, kind: CollectiveKind
) -> None:
    found = balanced_bound(graph, kind, 0)
    assert found.cut_bound.algbw == 20 * GB
    assert found.algbw == found.attained == 14 * GB
    assert found.is_exact
    assert found.certificate.value() * graph.unit == 14 * GB
    assert unbalanced(graph, graph.capacity).tolist() == [3]


def test_shares_are_what_trees_are_packed_into() -> None:
    found = balanced_bound(FAN, CollectiveKind.BROADCAST, 0)
    shares, roots = found.whole()
    forest = pack(FAN, shares, roots)
    assert not [*forest.problems()]
    assert (forest.loads() <= shares).all()
    assert forest.algbw() == 14 * GB


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    ("graph", "kind"), [(FAN, CollectiveKind.BROADCAST), (FAN_TURNED, CollectiveKind.REDUCE)]
)
def test_a_plan_reaches_the_balanced_optimum_and_reports_both_bounds(
    graph: Network, kind: CollectiveKind, exact: bool
) -> None:
    plan = plan_on(graph, kind, 0, exact=exact)
    assert plan.algbw >= 14 * GB * (1 if exact else Fraction(99, 100))
    assert plan.bound.algbw == 14 * GB
    assert not [*plan.forests[0].problems()]
    assert "14.0 GB/s of 14.0 possible (100%)" in plan.text() or not exact
    assert plan.text().endswith("cuts alone would allow 20.0 GB/s, but switches cannot pass that on")
    assert plan.facts()["cut_bound_GBps"] == 20
    assert not [*verify(plan.schedule())]


def test_trees_in_balance_may_be_few() -> None:
    found = balanced_bound(FAN, CollectiveKind.BROADCAST, 0)
    forest = balanced_forest(found, 1)
    assert forest.weight() == 1
    assert not [*forest.problems()]


def test_broadcast_in_the_other_direction_is_not_limited() -> None:
    graph = network("ab", "w", ("aw", 3), ("wb", 3), ("bw", 5), ("wa", 5))
    assert not len(unbalanced(graph, graph.capacity))
    found = balanced_bound(graph, CollectiveKind.BROADCAST, 1)
    assert found.algbw == found.cut_bound.algbw == 5 * GB
    assert plan_on(graph, CollectiveKind.BROADCAST, 1).cut_bound is None


def test_unlike_links_of_a_balanced_switch_stay_balanced_in_whole_units() -> None:
    """In 2 + 3 + 5, out 6 + 4: rounding each link by itself breaks the balance for most numbers of units."""
    graph = network("abcde", "w", ("aw", 2), ("bw", 3), ("cw", 5), ("wd", 6), ("we", 4))
    for numerator in range(1, 40):
        shares = whole_shares(graph, [int(c) * numerator for c in graph.capacity], 7)
        into, out = shares[graph.dst == 5].sum(), shares[graph.src == 5].sum()
        assert into == out
        exact = graph.capacity * numerator / 7
        assert (np.abs(shares - exact) < 1).all()


def test_whole_shares_of_arcs_between_ranks_are_the_nearest() -> None:
    graph = network("ab", "", ("ab", 3), ("ba", 5))
    assert whole_shares(graph, [13, 17], 10).tolist() == [1, 2]


def test_units_are_divided_in_proportion() -> None:
    weights = [Fraction(1, 3), Fraction(1, 3), Fraction(0), Fraction(1, 3)]
    assert apportioned(weights, 4).tolist() == [2, 1, 0, 1]
    assert apportioned(weights, 6).tolist() == [2, 2, 0, 2]


def test_a_switch_that_is_a_dead_end_is_said_to_be_one() -> None:
    graph = network("abc", "w", ("ab", 1), ("ba", 1), ("aw", 2), ("wc", 1), ("ca", 1))
    found = balanced_bound(graph, CollectiveKind.ALLGATHER)
    assert found.algbw == found.cut_bound.algbw
    apart = network("ab", "w", ("ab", 1), ("bw", 1))
    with pytest.raises(TopologyError, match="no link leads from"):
        balanced_bound(apart, CollectiveKind.ALLGATHER)


def test_what_has_no_such_bound_is_refused() -> None:
    with pytest.raises(UsageError, match="no single bound by cuts for allreduce"):
        balanced_bound(FAN, CollectiveKind.ALLREDUCE)
    with pytest.raises(UsageError, match="root"):
        balanced_bound(FAN, CollectiveKind.BROADCAST, 9)


def test_shares_belong_to_the_arcs_on_which_data_flow() -> None:
    found = balanced_bound(FAN_TURNED, CollectiveKind.REDUCE, 0)
    flows = flow_network(FAN_TURNED, CollectiveKind.REDUCE)
    assert len(found.shares) == len(flows.src)
    into = [Fraction(0)] * flows.nvertices
    out = [Fraction(0)] * flows.nvertices
    for arc, share in enumerate(found.shares):
        assert 0 <= share <= int(flows.capacity[arc])
        out[flows.src[arc]] += share
        into[flows.dst[arc]] += share
    assert into[3] == out[3]
