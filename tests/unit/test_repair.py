"""Repaired plans: what stays, what is found wrong, what is proved, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from pycomm.errors import PlanningError, TopologyError, UsageError
from pycomm.planner.base import PlanRequest
from pycomm.planner.graph.columns import columns_of
from pycomm.planner.graph.faults import Fault, host_fault, link_fault, node_fault, undamaged
from pycomm.planner.graph.forest import Forest
from pycomm.planner.graph.lowering import lower
from pycomm.planner.graph.network import Network, network_of
from pycomm.planner.graph.parts_bound import PartsBound, parts_bounds
from pycomm.planner.graph.patched_forest import PatchedForest
from pycomm.planner.graph.patches import Held
from pycomm.planner.graph.repair import prepare, repair
from pycomm.planner.graph.replanning import replan, replan_in_background
from pycomm.planner.graph.synthesis import Plan, plan_on
from pycomm.testing.interpreter import interpret
from pycomm.topology.generators import box, rail_optimized, star, torus
from pycomm.topology.model import Topology
from pycomm.types import CollectiveKind as Kind

TORUS = torus((4, 4), "50 GB/s")
RAILS = rail_optimized(4, box(4, "400 GB/s", nics=4), rate="50 GB/s", radix=8)


def planned(topology: Topology, kind: Kind, root: int = -1) -> Plan:
    return plan_on(network_of(topology), kind, root)


def forests(plan: Plan) -> list[PatchedForest]:
    found = [forest for forest in plan.forests if isinstance(forest, PatchedForest)]
    assert len(found) == len(plan.forests)
    return found


def wrong(plan: Plan) -> list[str]:
    return [
        problem for forest in forests(plan) for problem in (*forest.problems_of_changes(), *forest.problems())
    ]


def same(one: Network, other: Network) -> bool:
    return (
        (one.nranks, one.names, one.unit, one.multicast)
        == (other.nranks, other.names, other.unit, other.multicast)
        and np.array_equal(one.src, other.src)
        and np.array_equal(one.dst, other.dst)
        and np.array_equal(one.capacity, other.capacity)
        and np.array_equal(one.latency_s, other.latency_s)
    )


def test_what_is_left_is_the_network_of_the_topology_that_is_left() -> None:
    links = RAILS.find_links("host1/nic0", "rail0-leaf0")
    damage = undamaged(network_of(RAILS)).after(link_fault("host1/nic0", "rail0-leaf0"))
    assert same(damage.network, network_of(RAILS.without(links=links)))
    damage = damage.after(node_fault("host2/device1", "rail3-leaf0"))
    left = RAILS.without(links=links).without(nodes=["host2/device1", "rail3-leaf0"])
    assert same(damage.network, network_of(left))
    slow = left.find_links("host0/nic1", "rail1-leaf0")[0]
    damage = damage.after(link_fault("host0/nic1", "rail1-leaf0", 7 * 10**9))
    assert same(damage.network, network_of(left.with_rate(slow, 7 * 10**9)))


def test_a_fault_says_what_it_is() -> None:
    assert link_fault("a", "b").text() == "a -> b is down"
    assert (
        link_fault("a", "b", 5 * 10**9, both_ways=True).text()
        == "a -> b has 5 GB/s left; b -> a has 5 GB/s left"
    )
    assert host_fault(RAILS, "host3").text().startswith("host3/device0 is gone; ")
    with pytest.raises(TopologyError, match="belongs to a host named 'host9'"):
        host_fault(RAILS, "host9")


@pytest.mark.parametrize("kind", [Kind.ALLGATHER, Kind.REDUCE_SCATTER])
def test_only_trees_that_crossed_the_link_change(kind: Kind) -> None:
    old = planned(TORUS, kind)
    new = repair(old, link_fault("device5", "device6"))
    assert not wrong(new)
    ends = (6, 5) if kind.reduces else (5, 6)
    crossing = {
        number
        for number, tree in enumerate(old.forests[0].trees)
        if any(ends == (a, b) for edge in tree.edges for a, b in zip(edge.path, edge.path[1:], strict=False))
    }
    forest = forests(new)[0]
    assert set(forest.patches) == crossing
    assert 0 < len(crossing) < len(old.forests[0].trees)
    kept = [tree for number, tree in enumerate(old.forests[0].trees) if number not in crossing]
    assert [tree._replace(weight=tree.weight * forest.scale) for tree in kept] == [
        tree for tree in forest.trees if not any(tree == changed for changed in forest.changed())
    ]


def test_a_rank_with_three_of_four_links_hears_as_fast_as_three_links_allow() -> None:
    new = repair(planned(TORUS, Kind.ALLGATHER), link_fault("device5", "device6", both_ways=True))
    assert new.algbw == new.bound.algbw == Fraction(16, 15) * 150 * 10**9
    assert new.text().startswith("160.0 GB/s of 160.0 possible (100%)")
    assert "repaired, device5 -> device6 is down" in new.how


def test_a_network_card_that_is_gone_is_replaced_by_those_of_its_host() -> None:
    new = repair(planned(RAILS, Kind.ALLGATHER), node_fault("host1/nic2"))
    assert not wrong(new)
    assert new.network.nranks == 16
    assert new.bound.algbw == Fraction(16, 12) * 150 * 10**9
    assert new.ratio > Fraction(98, 100)


def test_half_a_link_sheds_half_of_its_trees() -> None:
    old = planned(TORUS, Kind.ALLGATHER)
    new = repair(old, link_fault("device5", "device6", 25 * 10**9))
    assert not wrong(new)
    arc = new.network.arc[5, 6]
    assert new.network.capacity[arc] * new.network.unit == 25 * 10**9
    assert new.ratio > Fraction(95, 100)


@pytest.mark.parametrize("kind", [Kind.ALLGATHER, Kind.REDUCE_SCATTER, Kind.ALLREDUCE, Kind.BROADCAST])
def test_ranks_move_down_when_a_host_is_gone(kind: Kind) -> None:
    new = repair(planned(RAILS, kind, 1 if kind.is_rooted else -1), host_fault(RAILS, "host2"))
    assert not wrong(new)
    assert new.network.names[7:9] == ("host1/device3", "host3/device0")
    interpret(new.schedule())


def test_a_root_that_is_gone_is_followed_by_another_where_it_carried_much() -> None:
    old = planned(RAILS, Kind.ALLREDUCE)
    heavy = int(np.argmax(old.forests[1].roots()))
    new = repair(old, node_fault(old.network.names[heavy]))
    assert not wrong(new)
    up, down = (forest.roots() for forest in new.forests)
    assert np.array_equal(up * int(down.sum()), down * int(up.sum()))
    interpret(new.schedule())


def test_columns_and_any_order_of_asking_give_the_trees_that_iterating_gives() -> None:
    old = planned(RAILS, Kind.ALLGATHER)
    for fault in (link_fault("host1/nic0", "rail0-leaf0"), node_fault("host2/device1"), Fault()):
        forest = forests(repair(old, fault))[0]
        trees = list(forest.trees)
        assert [forest.trees[i] for i in range(-len(trees), 0)] == trees == list(forest.trees[:])
        plain = Forest(forest.network, tuple(trees))
        for mine, other in zip(columns_of(forest), columns_of(plain), strict=True):
            assert np.array_equal(mine, other)
        request = PlanRequest(Kind.ALLGATHER, forest.network.nranks, pieces=1)
        assert lower(request, forest) == lower(request, plain)
        with pytest.raises(IndexError, match="there is no tree"):
            forest.trees[len(trees)]


def test_what_is_wrong_with_changed_trees_is_found() -> None:
    new = repair(planned(TORUS, Kind.ALLGATHER), link_fault("device5", "device6"))
    forest = forests(new)[0]
    number, group = next((t, g) for t, g in forest.patches.items() if g[0].held)
    rank, held = next(iter(group[0].held.items()))

    def spoilt(**changes: object) -> str:
        patch = group[0].copy()
        for name, value in changes.items():
            setattr(patch, name, value)
        patches = {**forest.patches, number: (patch, *group[1:])}
        return "; ".join(replace(forest, patches=patches).problems_of_changes())

    assert "leaves out" in spoilt(held={r: h for r, h in group[0].held.items() if r != rank})
    assert "has other ends" in spoilt(held={**group[0].held, rank: Held(held.parent, held.path[1:] * 2)})
    far = (held.path[0], (held.path[0] + 10) % 16, held.path[-1])
    assert "is not there" in spoilt(held={**group[0].held, rank: Held(held.parent, far)})
    assert "of weight 0" in spoilt(weight=0)
    cycle = {r: Held(rank, h.path) for r, h in group[0].held.items()}
    assert "leaves out" in spoilt(held=cycle)
    patches = {t: g for t, g in forest.patches.items() if t != number}
    assert "crosses a link" in next(replace(forest, patches=patches).problems_of_changes())


def test_parts_prove_what_an_allreduce_needs() -> None:
    network = network_of(star(8, "50 GB/s"))
    single, parts = parts_bounds(network)
    assert (len(single.parts), single.algbw) == (1, 50 * 10**9)
    assert (len(parts.parts), parts.algbw) == (8, Fraction(8 * 50 * 10**9, 14))
    assert plan_on(network, Kind.ALLREDUCE).bound.algbw == parts.algbw
    assert "device*" in parts.limited_by()
    assert parts.cut.capacity * network.unit == 50 * 10**9
    assert isinstance(
        repair(planned(star(8, "50 GB/s"), Kind.ALLREDUCE), node_fault("device3")).bound, PartsBound
    )


def test_repairs_are_the_same_every_time_and_leave_the_old_plan_alone() -> None:
    old = prepare(planned(RAILS, Kind.ALLREDUCE))
    first = repair(old, node_fault("host1/nic2"))
    again = repair(repair(old, node_fault("host1/nic2")), node_fault("host0/device0"))
    assert list(first.forests[0].trees) == list(repair(old, node_fault("host1/nic2")).forests[0].trees)
    once = repair(first, node_fault("host0/device0"))
    assert [list(f.trees) for f in once.forests] == [list(f.trees) for f in again.forests]
    assert not wrong(first)


@pytest.mark.parametrize(
    ("kind", "fault", "error", "says"),
    [
        (Kind.ALLGATHER, link_fault("device1", "nowhere"), TopologyError, "is named 'nowhere'"),
        (
            Kind.ALLGATHER,
            link_fault("device1", "device11"),
            TopologyError,
            "leads from 'device1' to 'device11'",
        ),
        (Kind.ALLGATHER, link_fault("device0", "device1", 10**12), UsageError, "for a link that came back"),
        (Kind.BROADCAST, node_fault("device3"), PlanningError, "rank 3, the root of the broadcast, is gone"),
        (Kind.ALLGATHER, node_fault(*(f"device{i}" for i in range(15))), UsageError, "1 of the ranks"),
        (
            Kind.ALLGATHER,
            node_fault("device1", "device4", "device3", "device12"),
            TopologyError,
            "after the fault nothing leads from device. to device.*: leave one of them out",
        ),
    ],
)
def test_faults_that_leave_no_plan_are_refused(
    kind: Kind, fault: Fault, error: type[Exception], says: str
) -> None:
    topology = TORUS if not kind.is_rooted else star(8, "50 GB/s")
    with pytest.raises(error, match=says) as caught:
        repair(planned(topology, kind, 3 if kind.is_rooted else -1), fault)
    assert "\n" not in str(caught.value)


def test_the_background_gives_the_exact_bound_and_can_be_cancelled() -> None:
    plan = repair(planned(TORUS, Kind.ALLGATHER), link_fault("device5", "device6", both_ways=True))
    search = replan_in_background(plan)
    better = search.result(60)
    assert search.done()
    assert better.ratio >= Fraction(99, 100)
    assert better.algbw >= plan.algbw
    search = replan_in_background(plan)
    search.cancel()
    assert search.result() is plan
    assert search.done()


def test_a_search_that_nobody_wants_any_more_ends_at_its_next_step() -> None:
    plan = planned(torus([4, 4], rate="50 GB/s"), Kind.ALLREDUCE)
    worse = repair(plan, link_fault("device5", "device6", 10**9, both_ways=True))
    assert worse.ratio < Fraction(99, 100)
    ended = replan(worse, is_wanted=lambda: False)
    assert ended.algbw == worse.algbw
    assert replan(worse).algbw > worse.algbw


def test_a_lost_cable_between_switches_is_passed_round_on_one_other_switch() -> None:
    """Leaf, spine, leaf: another spine, and no leaf more."""
    topology = rail_optimized(16, box(2, "100 GB/s", nics=2, nic_rate="10 GB/s"), radix=8, rate="10 GB/s")
    plan = planned(topology, Kind.ALLGATHER)
    longest = max(len(edge.path) for tree in plan.forests[0].trees for edge in tree.edges)
    ends = next(
        (topology.nodes[link.src].name, topology.nodes[link.dst].name)
        for link in topology.links
        if "leaf" in topology.nodes[link.src].name and "spine" in topology.nodes[link.dst].name
    )
    repaired = repair(plan, link_fault(*ends, both_ways=True))
    assert not wrong(repaired)
    assert max(len(edge.path) for tree in repaired.forests[0].trees for edge in tree.edges) == longest
