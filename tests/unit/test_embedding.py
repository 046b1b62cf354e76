"""Known algorithms on known machines: their figures, and that rings are rings."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest

from pycomm.collectives.spec import equal_form
from pycomm.errors import TopologyError
from pycomm.planner import pairwise, recursive_doubling, ring
from pycomm.planner.base import PlanRequest
from pycomm.planner.graph.embedding import Rings, known, ring_forests, rings, schedule_algbw, schedule_loads
from pycomm.planner.graph.lowering import lower
from pycomm.planner.graph.network import Network, network_of
from pycomm.planner.graph.routing import algbw, message_loads
from pycomm.testing.interpreter import interpret
from pycomm.topology.model import Link, Node, NodeKind, Topology
from pycomm.types import CollectiveKind as Kind

GB = 10**9
RING_KINDS = (Kind.ALLREDUCE, Kind.ALLGATHER, Kind.REDUCE_SCATTER, Kind.BROADCAST, Kind.REDUCE)


def build(nodes: list[Node], cables: list[tuple[str, str, int]]) -> Topology:
    index = {node.name: i for i, node in enumerate(nodes)}
    ends = [(index[a], index[b], rate * GB) for a, b, rate in cables]
    links = [Link(*pair, rate) for a, b, rate in ends for pair in ((a, b), (b, a))]
    return Topology("test", tuple(nodes), tuple(links))


def direct(n: int, cables: dict[tuple[int, int], int]) -> Network:
    nodes = [Node(f"gpu{i}", NodeKind.DEVICE, "host") for i in range(n)]
    return network_of(build(nodes, [(f"gpu{a}", f"gpu{b}", rate) for (a, b), rate in cables.items()]))


def dgx1() -> Network:
    twice = [(0, 1), (0, 4), (1, 3), (2, 3), (2, 6), (4, 5), (5, 7), (6, 7)]
    once = [(0, 2), (0, 3), (1, 2), (1, 5), (3, 7), (4, 6), (4, 7), (5, 6)]
    return direct(8, dict.fromkeys(twice, 50) | dict.fromkeys(once, 25))


def torus(*sides: int) -> Network:
    places = list(product(*map(range, sides)))
    number = {place: i for i, place in enumerate(places)}
    cables = {}
    for place in places:
        for axis, side in enumerate(sides):
            after = (*place[:axis], (place[axis] + 1) % side, *place[axis + 1 :])
            cables[tuple(sorted((number[place], number[after])))] = 50
    return direct(len(places), cables)


def boxes(count: int, gpus: int = 8) -> Topology:
    """Boxes with 300 GB/s to a switch and 25 GB/s to a NIC for each device, two rails."""
    nodes = [Node(f"gpu{b}.{i}", NodeKind.DEVICE, f"box{b}") for b in range(count) for i in range(gpus)]
    cables = []
    for b in range(count):
        nodes.append(Node(f"switch{b}", NodeKind.SWITCH, f"box{b}"))
        for i in range(gpus):
            nodes.append(Node(f"nic{b}.{i}", NodeKind.NIC, f"box{b}"))
            cables += [(f"gpu{b}.{i}", f"switch{b}", 300), (f"gpu{b}.{i}", f"nic{b}.{i}", 25)]
            cables.append((f"nic{b}.{i}", f"rail{i % 2}", 25))
    nodes += [Node(f"rail{i}", NodeKind.SWITCH) for i in range(2)]
    return build(nodes, cables)


def figures(network: Network, kind: Kind, hosts: tuple[int, ...] = (), root: int = -1) -> dict[str, Fraction]:
    return {candidate.name: candidate.algbw / GB for candidate in known(network, kind, hosts, root)}


def test_six_rings_fill_a_cube_mesh() -> None:
    found = figures(dgx1(), Kind.ALLGATHER)
    assert found["6 direct rings"] == Fraction(1200, 7)  # the optimum of this machine
    assert found["ring"] < found["ring both ways"] < found["6 direct rings"]
    assert figures(dgx1(), Kind.ALLREDUCE)["6 direct rings"] == Fraction(600, 7)


@pytest.mark.parametrize(("sides", "count"), [((4, 4), 4), ((3, 5), 4), ((6, 6), 4), ((4, 4, 4), 6)])
def test_disjoint_rings_fill_a_torus(sides: tuple[int, ...], count: int) -> None:
    network = torus(*sides)
    n = network.nranks
    (found,) = (found for found in rings(network) if "direct" in found.name)
    assert len(found.orders) == count
    hops = [hop for order in found.orders for hop in zip(order, (*order[1:], order[0]), strict=True)]
    assert sorted(hops) == sorted(zip(network.src.tolist(), network.dst.tolist(), strict=True))
    assert all(sorted(order) == list(range(n)) for order in found.orders)


def test_rail_rings_reach_the_published_figures_of_boxes() -> None:
    for count, ring_figure, best in (
        (2, Fraction(640, 3), Fraction(2400, 7)),
        (4, Fraction(6400, 31), Fraction(800, 3)),
    ):
        topology = boxes(count)
        found = figures(network_of(topology), Kind.ALLGATHER, topology.host_numbers())
        assert found["8 rail rings"] == ring_figure
        assert max(found.values()) == found["hierarchical"] == best


def test_rail_rings_stay_on_their_rails() -> None:
    for count in (2, 3, 4, 5):
        topology = boxes(count, 4)
        network = network_of(topology)
        (found,) = (f for f in rings(network, topology.host_numbers()) if "rail" in f.name)
        for order in found.orders:
            hosts = [rank // 4 for rank in order]
            changes = [i for i in range(len(order)) if hosts[i - 1] != hosts[i]]
            assert len(changes) == count
            assert all(order[i - 1] % 4 == order[i] % 4 for i in changes)


def test_unequal_hosts_and_one_rank_hosts_have_rings() -> None:
    topology = boxes(3, 4)
    ranks = [0, 1, 2, 3, 4, 5, 8, 9, 10]
    network = network_of(topology, [topology.devices[r] for r in ranks])
    for hosts in (tuple(r // 4 for r in ranks), tuple(range(9)), ()):
        for candidate in known(network, Kind.ALLGATHER, hosts):
            assert candidate.algbw > 0
            for order in candidate.rings.orders if candidate.rings else ():
                assert sorted(order) == list(range(9))


def test_one_ring_keeps_hosts_together_whatever_their_numbers() -> None:
    topology = boxes(4, 4)
    shuffled = [(5 * i) % 16 for i in range(16)]
    network = network_of(topology, [topology.devices[r] for r in shuffled])
    order = rings(network, [r // 4 for r in shuffled])[0].orders[0]
    hosts = [shuffled[rank] // 4 for rank in order]
    assert sum(a != b for a, b in zip(hosts, hosts[1:] + hosts[:1], strict=True)) == 4


def test_loads_of_a_schedule_are_what_its_messages_weigh() -> None:
    network = torus(4)
    schedule = pairwise.PLANNER.plan(PlanRequest(Kind.ALLTOALL, 4))
    loads = dict(
        zip(
            zip(network.src.tolist(), network.dst.tolist(), strict=True),
            schedule_loads(schedule, network),
            strict=True,
        )
    )
    # a quarter to each neighbour, and of the quarters across the ring each way takes half: two arcs each
    assert set(loads.values()) == {Fraction(1, 4) + 2 * Fraction(1, 8)}
    assert schedule_algbw(schedule, network) == 100 * GB


def test_a_ring_planned_in_this_order_costs_what_the_candidate_says() -> None:
    topology = boxes(3, 4)
    network = network_of(topology)
    for kind in RING_KINDS:
        root = 5 if kind.is_rooted else -1
        (found,) = (c for c in known(network, kind, topology.host_numbers(), root) if c.name == "ring")
        assert found.request is not None
        assert schedule_algbw(ring.PLANNER.plan(found.request), network) == found.algbw


@pytest.mark.parametrize("kind", RING_KINDS)
def test_several_rings_become_a_schedule_of_the_same_figure(kind: Kind) -> None:
    network, root = dgx1(), 3 if kind.is_rooted else -1
    for candidate in known(network, kind, (), root):
        if candidate.rings is None:
            continue
        forests = ring_forests(network, kind, candidate.rings, root)
        assert not [problem for forest in forests for problem in forest.problems()]
        schedule = lower(PlanRequest(kind, 8, root, pieces=1), *forests)
        assert interpret(schedule).steps == candidate.steps
        assert schedule_algbw(schedule, network) == candidate.algbw


def test_a_network_of_one_way_links_has_one_ring() -> None:
    links = tuple(Link(i, (i + 1) % 5, GB) for i in range(5))
    network = network_of(
        Topology("one way", tuple(Node(f"gpu{i}", NodeKind.DEVICE) for i in range(5)), links)
    )
    assert rings(network) == [Rings("ring", ((0, 1, 2, 3, 4),))]
    assert figures(network, Kind.ALLGATHER)["ring"] == Fraction(5, 4)


def test_two_ranks_and_one() -> None:
    assert known(direct(1, {}), Kind.ALLGATHER) == rings(direct(1, {})) == []
    assert figures(direct(2, {(0, 1): 10}), Kind.ALLGATHER)["ring"] == 20


def test_every_planner_is_priced_and_the_best_comes_first() -> None:
    for kind in (Kind.ALLREDUCE, Kind.ALLTOALL, Kind.GATHER):
        found = known(torus(3, 3), kind, (), 0 if kind.is_rooted else -1)
        assert len(found) > 2
        assert [c.algbw for c in found] == sorted((c.algbw for c in found), reverse=True)
        assert ("ring" in {c.name for c in found}) is (equal_form(kind) is Kind.ALLREDUCE)


def test_capacities_share_what_leads_on() -> None:
    nodes = [Node("a", NodeKind.DEVICE), Node("b", NodeKind.DEVICE)]
    nodes += [Node("s", NodeKind.SWITCH), Node("t", NodeKind.SWITCH)]
    network = network_of(build(nodes, [("a", "s", 30), ("s", "b", 30), ("a", "t", 10), ("t", "b", 10)]))
    loads = message_loads(network, {(0, 1): Fraction(1)})
    assert {load for load in loads if load} == {Fraction(3, 4), Fraction(1, 4)}
    assert algbw(network, loads) == 40 * GB


def test_what_cannot_be_routed_is_named() -> None:
    network = direct(3, {(0, 1): 1})
    with pytest.raises(TopologyError, match=r"no way from 'gpu2' to 'gpu0'|no way from 'gpu\d' to 'gpu2'"):
        known(network, Kind.ALLGATHER)
    with pytest.raises(TopologyError, match="4 ranks cannot be routed on a network of 3"):
        schedule_loads(recursive_doubling.PLANNER.plan(PlanRequest(Kind.ALLREDUCE, 4)), network)
