"""Routes, their ECMP sets and shares; judged by networkx on small graphs."""

from __future__ import annotations

import time
from fractions import Fraction

import networkx as nx
import pytest

from pycomm.errors import TopologyError, UsageError
from pycomm.topology import Link, Node, NodeKind, Topology, catalogue
from pycomm.topology.files import loads
from pycomm.topology.generators import box, fat_tree, leaf_spine, rail_optimized, ring, torus
from pycomm.topology.routes import Routes

HOST = box(4, "450 GB/s", nics=4, nic_rate="64 GB/s")


def oracle(t: Topology, src: int, dst: int) -> list[tuple[int, ...]]:
    """All shortest paths by (relays, hops, latency), from networkx on the graph without parallel links."""
    graph = nx.DiGraph()
    for link in t.links:
        relay = 10**6 if t.nodes[link.dst].kind is NodeKind.DEVICE and link.dst != dst else 0
        weight = (relay + 1) * 10**12 + round(link.latency_s * 1e9)
        known = graph.get_edge_data(link.src, link.dst, {"weight": weight})["weight"]
        graph.add_edge(link.src, link.dst, weight=min(weight, known))
    return sorted(map(tuple, nx.all_shortest_paths(graph, src, dst, weight="weight")))


@pytest.mark.parametrize(
    "t",
    [
        leaf_spine(3, 3, hosts_per_leaf=2, rate="1 GB/s"),
        leaf_spine(2, 2, hosts_per_leaf=2, rate="1 GB/s", cables=2, latency="1 us"),
        rail_optimized(4, HOST, rate="50 GB/s", radix=4),
        torus((4, 4), "1 GB/s"),
        ring(5, "1 GB/s", one_way=True),
        catalogue.named("published_dgx1v"),
        catalogue.named("published_ndv2_x4"),
        catalogue.named("two_vendors"),
    ],
    ids=lambda t: t.name,
)
def test_the_same_paths_as_networkx(t: Topology) -> None:
    routes = Routes(t)
    some = t.devices[:: max(1, len(t.devices) // 5)]
    for src in some:
        for dst in some:
            if src == dst:
                continue
            found = routes.all_between(src, dst)
            assert sorted({route.vertices for route in found}) == oracle(t, src, dst)
            assert len(found) == routes.count(src, dst)
            assert found[0] == routes.between(src, dst)
            hops = {len(route.links) for route in found}
            assert hops == {int(routes.to(dst).hops[src])}
            for route in found:
                assert [t.links[number].src for number in route.links] == list(route.vertices[:-1])
                assert [t.links[number].dst for number in route.links] == list(route.vertices[1:])
                assert route.latency_s == pytest.approx(float(routes.to(dst).latency_s[src]))
                assert route.bytes_per_s == min(t.links[number].bytes_per_s for number in route.links)


def test_shares_are_what_equal_splitting_gives() -> None:
    t = leaf_spine(2, 2, hosts_per_leaf=2, rate="1 GB/s", cables=2)
    shares = Routes(t).shares(0, 3)
    assert shares[t.find_links("device0", "leaf0")[0]] == 1
    assert sorted(shares.values()) == [Fraction(1, 4)] * 8 + [Fraction(1)] * 2
    # what enters a vertex leaves it
    for vertex in range(len(t.nodes)):
        enters = sum(share for number, share in shares.items() if t.links[number].dst == vertex)
        leaves = sum(share for number, share in shares.items() if t.links[number].src == vertex)
        assert enters - leaves == {0: -1, 3: 1}.get(vertex, 0)


def test_networks_relay_rather_than_devices() -> None:
    t = rail_optimized(2, HOST, rate="50 GB/s", radix=4)
    here, there = t.index["host0/device0"], t.index["host1/device1"]
    names = [t.nodes[v].name for v in Routes(t).between(here, there).vertices]
    assert names[1] == "host0/nic0"
    assert not any("device" in name for name in names[1:-1])
    only = catalogue.named("rail_only_h100_x16")
    routes = Routes(only)
    src, dst = only.index["host0/gpu0"], only.index["host1/gpu1"]
    assert int(routes.to(dst).relays[src]) == 1  # no other way between rails
    assert routes.count(src, dst) == 2


def test_the_least_latency_among_equally_many_hops() -> None:
    t = loads(
        """
        version = 1
        [[node]]
        name = "a b"
        kind = "device"
        [[node]]
        name = "slow fast quick"
        kind = "switch"
        [[link]]
        from = "a"
        to = "slow fast quick"
        bandwidth = "1 GB/s"
        latency = "0.1 us"
        [[link]]
        from = "slow fast quick"
        to = "b"
        bandwidth = "1 GB/s"
        latency = "0.3 us"
        [[override]]
        from = "a"
        to = "slow"
        latency = "0.2 us"
        """
    )
    routes = Routes(t)
    assert [t.nodes[r.vertices[1]].name for r in routes.all_between(0, 1)] == ["fast", "quick"]
    assert float(routes.to(1).latency_s[0]) == pytest.approx(0.4e-6)


def test_no_route() -> None:
    t = Topology("t", (Node("a", NodeKind.DEVICE), Node("b", NodeKind.DEVICE)), (Link(0, 1, 10**9),))
    routes = Routes(t)
    assert routes.between(0, 1).links == (0,)
    assert routes.between(0, 0).links == ()
    assert routes.count(1, 0) == 0
    assert int(routes.to(0).hops[1]) == -1
    with pytest.raises(TopologyError, match="no route leads from 'b' to 'a'"):
        routes.between(1, 0)
    with pytest.raises(UsageError, match="no vertex 7"):
        routes.to(7)
    with pytest.raises(UsageError, match="no vertex 9"):
        routes.between(9, 0)


@pytest.mark.slow
def test_ten_thousand_devices_on_demand() -> None:
    t = rail_optimized(1250, box(8, "450 GB/s", nics=8), rate="400 Gbit/s")
    routes = Routes(t)
    routes.between(t.devices[0], t.devices[1])  # imports scipy
    began = time.process_time()
    assert routes.count(t.devices[0], t.devices[9999]) == 4096
    assert len(routes.shares(t.devices[0], t.devices[9999])) > 1000
    assert time.process_time() - began < 5


def test_the_limit_of_a_large_ecmp_set() -> None:
    t = fat_tree(radix=8, levels=3, rate="1 GB/s")
    routes = Routes(t)
    assert routes.count(0, len(t.devices) - 1) == 16
    assert len(routes.all_between(0, len(t.devices) - 1, limit=5)) == 5
