"""Allreduce with equal roots and shared links: rates, rounding, proofs, and what does not work."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pycomm.errors import TopologyError
from pycomm.planner.graph import allreduce_plans
from pycomm.planner.graph.allreduce_plans import shared_seconds
from pycomm.planner.graph.free_roots import FreeRootBound, allreduce_bound
from pycomm.planner.graph.network import Network, network_of
from pycomm.planner.graph.partition_bound import PartitionBound
from pycomm.planner.graph.shared_links import mirror, shared_allreduce
from pycomm.planner.graph.synthesis import plan_on
from pycomm.topology.model import Link, Node, NodeKind, Topology
from pycomm.types import CollectiveKind
from pycomm.verify import verify

GB = 10**9


def joined(nranks: int, nswitches: int, cables: list[tuple[int, int, int]], back: int = 1) -> Network:
    """Ranks, then switches; cables as ends and rate, the way back so many times as fast."""
    nodes = [Node(f"r{i}", NodeKind.DEVICE) for i in range(nranks)]
    nodes += [Node(f"s{i}", NodeKind.SWITCH) for i in range(nswitches)]
    links = [link for a, b, rate in cables for link in (Link(a, b, rate * GB), Link(b, a, rate * GB * back))]
    return network_of(Topology("joined", tuple(nodes), tuple(links)))


def star(rates: list[int]) -> Network:
    """Ranks on one switch."""
    return joined(len(rates), 1, [(i, len(rates), rate) for i, rate in enumerate(rates)])


def rate_of(network: Network) -> tuple[Fraction, Fraction]:
    """Rate of the forests, which are checked, and the bound told with them."""
    found = shared_allreduce(network)
    assert found is not None
    (up, down), bound = found
    assert not [*up.problems(), *down.problems()]
    assert np.array_equal(up.roots(), down.roots())
    assert len(set(down.roots().tolist())) == 1
    rate = 1 / shared_seconds(network, (up, down))
    assert rate <= bound.algbw
    return rate / GB, bound.algbw / GB


def test_slow_rank_gives_its_way_in_to_one_half_and_its_way_out_to_the_other() -> None:
    rate, bound = rate_of(star([50] + [100] * 15))
    assert bound == 50
    assert rate >= 49.5


def test_links_between_two_groups_are_shared() -> None:
    """Two switches of four ranks each, 100 GB/s between them: all data cross once each way."""
    ends = [(i, 8 + i // 4, 400) for i in range(8)]
    rate, bound = rate_of(joined(8, 2, [*ends, (8, 9, 100)]))
    assert bound == 100
    assert rate >= 99


def test_cables_without_switches_are_all_used() -> None:
    """Tutte and Nash-Williams: a ring of 6 with a cable at half rate carries 5.5 cables over 5 edges."""
    rate, bound = rate_of(joined(6, 0, [(i, (i + 1) % 6, 100 if i else 50) for i in range(6)]))
    assert bound == 110
    assert rate >= 108


def test_partition_bound_is_told_where_it_is_met() -> None:
    found = shared_allreduce(star([90] + [100] * 8))
    assert found is not None
    assert isinstance(found[1], PartitionBound)


@pytest.mark.parametrize(
    ("back", "cables"),
    [
        pytest.param(1, [(0, 1, 126), (1, 2, 74), (2, 3, 64), (3, 0, 77)], id="as fast both ways"),
        pytest.param(2, [(0, 1, 56), (1, 2, 52), (2, 3, 55), (0, 3, 114)], id="faster one way"),
    ],
)
def test_gap_is_closed_by_a_proof_of_the_programme(back: int, cables: list[tuple[int, int, int]]) -> None:
    """A ring with a cable faster than can be used: single ranks are not tight, two together are."""
    network = joined(4, 0, cables, back=back)
    found = shared_allreduce(network)
    assert found is not None
    exact = allreduce_bound(network)
    assert isinstance(found[1], FreeRootBound)
    assert exact.algbw <= found[1].algbw <= exact.algbw * Fraction(1000001, 1000000)
    assert found[1].attained == 1 / shared_seconds(network, found[0]) >= Fraction(98, 100) * exact.algbw
    assert found[1].limited_by()


def test_mirror_needs_cables_that_are_as_fast_both_ways() -> None:
    network = star([50, 60, 70])
    turned = mirror(network)
    assert turned is not None
    assert np.array_equal(network.src[turned], network.dst)
    assert mirror(joined(3, 1, [(i, 3, 10) for i in range(3)], back=2)) is None


@pytest.mark.parametrize("back", [1, 2])
def test_equal_requests_give_equal_forests(back: int) -> None:
    made = []
    for _ in range(2):
        found = shared_allreduce(joined(5, 1, [(i, 5, 20 + 7 * i) for i in range(5)], back=back))
        assert found is not None
        made.append([tuple(forest.trees) for forest in found[0]])
    assert made[0] == made[1]


def test_ranks_that_are_apart_are_named() -> None:
    with pytest.raises(TopologyError, match="r3"):
        shared_allreduce(joined(4, 0, [(0, 1, 10), (1, 2, 10)]))


def test_many_unlike_ranks_are_planned_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allreduce_plans, "FREE_ROOT_RANKS", 4)
    network = star([50] + [100] * 7)
    plan = plan_on(network, CollectiveKind.ALLREDUCE)
    assert plan.how == "equal roots, shared links"
    assert plan.ratio >= Fraction(99, 100)
    assert not [problem for forest in plan.forests for problem in forest.problems()]
    assert not [*verify(plan.schedule())]


def test_halves_are_planned_as_well_where_sharing_falls_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allreduce_plans, "FREE_ROOT_RANKS", 4)
    monkeypatch.setattr(allreduce_plans, "FALLS_SHORT", Fraction(2))
    network = star([50] + [100] * 7)
    shared = plan_on(network, CollectiveKind.ALLREDUCE)
    assert shared.how == "equal roots, shared links"  # which is better
    monkeypatch.setattr("pycomm.planner.graph.shared_links.shared_allreduce", lambda network: None)
    equal = plan_on(network, CollectiveKind.ALLREDUCE)
    assert equal.how.startswith("equal shares up and down")
    assert equal.algbw < shared.algbw
