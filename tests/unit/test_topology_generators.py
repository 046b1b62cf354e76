"""Generators: counts, degrees, bisection, and what they refuse."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import pytest

from pycomm.errors import TopologyError
from pycomm.topology import NodeKind, Topology
from pycomm.topology.checks import problems, remarks
from pycomm.topology.generators import (
    box,
    dragonfly,
    dual_plane,
    fat_tree,
    full_mesh,
    hypercube,
    hyperx,
    leaf_spine,
    rail_only,
    rail_optimized,
    ring,
    star,
    torus,
)

HOST = box(8, "450 GB/s", nics=8, nic_rate="64 GB/s")
PAIR = box(2, "100 GB/s", nics=2, nic_rate="64 GB/s")


def kinds(t: Topology) -> dict[str, int]:
    return dict(Counter(node.kind.value for node in t.nodes))


def fabric(t: Topology) -> list[str]:
    """Switches outside hosts."""
    return [node.name for node in t.nodes if node.kind is NodeKind.SWITCH and not node.host]


def ports(t: Topology) -> Counter[str]:
    """Links that leave each vertex."""
    return Counter(t.nodes[link.src].name for link in t.links)


def is_sound(t: Topology) -> None:
    assert list(problems(t)) == []
    assert list(remarks(t)) == []  # same bandwidth in and out everywhere
    used = ports(t)
    assert all(used[node.name] > 0 for node in t.nodes)


@pytest.mark.parametrize(
    ("make", "ends", "switches"),
    [
        (lambda: fat_tree(radix=64, levels=2, rate="400 Gbit/s"), 2048, 96),
        (lambda: fat_tree(radix=16, levels=3, rate="400 Gbit/s"), 1024, 320),
        (lambda: fat_tree(radix=64, levels=1, rate="400 Gbit/s"), 64, 1),
        (lambda: dragonfly(switches_per_group=4, ends_per_switch=2, global_links=2, rate="1 GB/s"), 72, 36),
        (
            lambda: dragonfly(4, switches_per_group=3, ends_per_switch=2, global_links=1, rate="1 GB/s"),
            24,
            12,
        ),
        (lambda: torus((3, 4, 5), "1 GB/s"), 60, 0),
        (lambda: hypercube(5, "1 GB/s"), 32, 0),
        (lambda: star(5, "1 GB/s"), 5, 1),
        (lambda: leaf_spine(3, 2, hosts_per_leaf=4, rate="1 GB/s"), 12, 5),
    ],
)
def test_counts(make: Any, ends: int, switches: int) -> None:
    t = make()
    assert kinds(t).get("device") == ends
    assert len(fabric(t)) == switches
    is_sound(t)


@pytest.mark.slow
def test_counts_of_large_fabrics() -> None:
    t = fat_tree(radix=64, levels=3, rate="400 Gbit/s")
    assert (len(t.devices), len(fabric(t))) == (65_536, 5_120)
    used = ports(t)
    assert {used[name] for name in fabric(t)} == {64}
    planes = rail_only(2048, HOST, rate="400 Gbit/s")
    assert (sum(node.kind is NodeKind.NIC for node in planes.nodes), len(fabric(planes))) == (16_384, 768)
    flies = dragonfly(511, switches_per_group=32, ends_per_switch=16, global_links=16, rate="25 GB/s")
    assert (len(flies.devices), len(fabric(flies))) == (261_632, 16_352)


def test_full_fat_trees_use_every_port_at_one_to_one() -> None:
    for levels in (2, 3):
        t = fat_tree(radix=8, levels=levels, rate="1 GB/s")
        used = ports(t)
        assert {used[name] for name in fabric(t)} == {8}


@pytest.mark.parametrize(
    ("ratio", "down", "up"), [(1, 8, 8), ("3:1", 12, 4), (7, 14, 2), (Fraction(1, 3), 4, 12)]
)
def test_oversubscription(ratio: Any, down: int, up: int) -> None:
    t = fat_tree(2 * down, rate="1 GB/s", radix=16, levels=2, oversubscription=ratio)
    leaf = [t.nodes[link.dst].name for link in t.links if t.nodes[link.src].name == "leaf0"]
    assert sum(name.startswith("device") for name in leaf) == down
    assert sum(name.startswith("spine") for name in leaf) == up


def test_faster_uplinks_need_fewer_ports() -> None:
    t = fat_tree(40, rate="400 Gbit/s", spine_rate="800 Gbit/s", radix=30)
    assert ports(t)["leaf0"] == 30  # 20 down, 10 up at twice the rate
    assert {link.bytes_per_s for link in t.links} == {50 * 10**9, 100 * 10**9}


def test_partial_fat_trees_are_regular() -> None:
    t = fat_tree(5, HOST, rate="50 GB/s", radix=16)
    assert fabric(t) == ["leaf0", "leaf1", "leaf2", "leaf3", "leaf4", "spine0", "spine1", "spine2", "spine3"]
    assert {ports(t)[f"leaf{i}"] for i in range(5)} == {16}
    assert {ports(t)[f"spine{i}"] for i in range(4)} == {10}
    assert len(t.find_links("leaf0", "spine0")) == 2  # parallel cables
    is_sound(t)


def test_one_switch_is_enough_for_few() -> None:
    assert fabric(fat_tree(4, HOST, rate="50 GB/s", radix=32)) == ["leaf0"]
    assert fabric(rail_only(32, HOST, rate="50 GB/s", radix=32)) == [f"rail{i}-leaf0" for i in range(8)]


def test_rails() -> None:
    t = rail_optimized(32, HOST, rate="50 GB/s", radix=16)
    assert len([name for name in fabric(t) if "leaf" in name]) == 4 * 8
    for host, rail in ((0, 0), (7, 3), (8, 3), (31, 7)):
        assert t.find_links(f"host{host}/nic{rail}", f"rail{rail}-leaf{host // 8}"), (host, rail)
    is_sound(t)
    pods = [t.nodes[link.dst].name for link in t.links if t.nodes[link.src].name == "rail3-leaf1"]
    assert sum(name.startswith("pod") for name in pods) == 8
    # leaves of a unit share a pod
    of = {
        t.nodes[link.src].name: t.nodes[link.dst].name.split("-")[0]
        for link in t.links
        if "leaf" in t.nodes[link.src].name and t.nodes[link.dst].name.startswith("pod")
    }
    assert len({of[f"rail{rail}-leaf2"] for rail in range(8)}) == 1


def test_the_reference_superpod_has_32_leaves_and_16_spines() -> None:
    t = rail_optimized(127, HOST, rate="400 Gbit/s", radix=64)
    assert (len([n for n in fabric(t) if "leaf" in n]), len([n for n in fabric(t) if "spine" in n])) == (
        32,
        16,
    )
    assert len(fabric(t)) == 48


def test_rail_only_joins_no_rails() -> None:
    t = rail_only(16, PAIR, rate="50 GB/s", radix=8)
    for link in t.links:
        a, b = t.nodes[link.src], t.nodes[link.dst]
        if not a.host and not b.host:
            assert a.name.split("-")[0] == b.name.split("-")[0]
    is_sound(t)


def test_planes_are_disjoint_and_every_nic_is_on_each() -> None:
    t = dual_plane(16, HOST, rate="200 Gbit/s", radix=32)
    for link in t.links:
        a, b = t.nodes[link.src], t.nodes[link.dst]
        if not a.host and not b.host:
            assert a.name.split("-")[0] == b.name.split("-")[0]
    for host in range(16):
        for nic in range(8):
            heads = {
                t.nodes[link.dst].name.split("-")[0]
                for link in t.links
                if t.nodes[link.src].name == f"host{host}/nic{nic}" and not t.nodes[link.dst].host
            }
            assert heads == {"plane0", "plane1"}
    is_sound(t)


def test_fewer_rails_than_ports() -> None:
    t = rail_optimized(4, HOST, rails=2, rate="50 GB/s", ends_per_leaf=16)
    assert t.find_links("host0/nic5", "rail1-leaf0")
    assert t.find_links("host3/nic4", "rail0-leaf0")


def test_hosts_of_several_makes() -> None:
    t = rail_optimized([1, 2], [HOST, PAIR], rate="50 GB/s", ends_per_leaf=4)
    assert t.host_numbers() == (0,) * 8 + (1,) * 2 + (2,) * 2
    assert t.find_links("host2/nic1", "rail1-leaf0")
    assert len(fabric(t)) == 8 + 1


def test_ports_by_name() -> None:
    t = star(2, "1 GB/s", host=HOST, ports="device[0-1]")
    assert t.find_links("host1/device1", "switch")
    assert not t.find_links("host1/nic0", "switch")
    with pytest.raises(TopologyError, match="named 'gpu7'"):
        star(2, "1 GB/s", host=HOST, ports="gpu7")


def test_rings_tori_and_meshes() -> None:
    assert [t.dst for t in ring(3, "1 GB/s", one_way=True).links] == [1, 2, 0]
    assert len(ring(2, "1 GB/s").links) == 4  # two cables
    assert len(ring(4, "1 GB/s", host=PAIR).find_links("host1/nic1", "host2/nic0")) == 1
    t = torus((4, 3), ["2 GB/s", "1 GB/s"])
    assert set(ports(t).values()) == {4}
    assert t.links[t.find_links("device0", "device3")[0]].bytes_per_s == 2 * 10**9  # along the first side
    assert t.links[t.find_links("device0", "device1")[0]].bytes_per_s == 10**9
    assert len(torus((4, 1, 2), "1 GB/s").links) == 2 * (8 + 8)
    mesh = torus((3, 3), "1 GB/s", wrap=[True, False])
    assert len(mesh.links) == 2 * (9 + 6)
    assert len(full_mesh(8, "1 GB/s").links) == 56
    assert set(ports(hyperx((3, 4), "1 GB/s")).values()) == {2 + 3}
    assert full_mesh(1, "1 GB/s").links == ()
    assert hypercube(3, "1 GB/s").find_links("device0", "device4")


def test_every_two_groups_of_a_dragonfly_are_joined_alike() -> None:
    for groups, each in ((9, 1), (5, 2), (3, 4)):
        t = dragonfly(groups, switches_per_group=4, ends_per_switch=1, global_links=2, rate="1 GB/s")
        between: Counter[tuple[str, str]] = Counter()
        used: Counter[str] = Counter()
        for link in t.links:
            a, b = t.nodes[link.src].name, t.nodes[link.dst].name
            if a.startswith("group") and b.startswith("group") and a.split("-")[0] != b.split("-")[0]:
                between[a.split("-")[0], b.split("-")[0]] += 1
                used[a] += 1
        assert set(between.values()) == {each}
        assert len(between) == groups * (groups - 1)
        assert max(used.values()) <= 2


def test_boxes() -> None:
    assert kinds(box(8, "1 GB/s")) == {"device": 8, "switch": 1}
    assert kinds(box(1, "1 GB/s", nics=2)) == {"device": 1, "nic": 2}
    shared = box(8, "1 GB/s", nics=2)
    assert shared.find_links("device3", "nic0")
    assert shared.find_links("device4", "nic1")
    assert box(2, "1 GB/s", nics=4).find_links("device1", "nic2")
    assert len(box(4, "1 GB/s", mesh=True).links) == 12
    assert {node.host for node in box(4, "1 GB/s", nics=4, name="x").nodes} == {"x"}


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: ring(1, "1 GB/s"), "count"),
        (lambda: ring(4, "0 GB/s"), "is none"),
        (lambda: ring(4, "-1 GB/s"), "not a rate"),
        (lambda: ring(4, "7"), "no unit"),
        (lambda: ring(4, "1 bit/s"), "whole number of bytes"),
        (lambda: ring(4, "1e12 GB/s"), "check the unit"),
        (lambda: ring(4, True), "not a rate"),
        (lambda: ring(4, ["1 GB/s"]), "not a rate"),  # type: ignore[arg-type]
        (lambda: ring(4, "1 GB/s", latency="5"), "no unit of time"),
        (lambda: ring(4, "1 GB/s", latency=-1.0), "not a latency"),
        (lambda: ring(4, "1 GB/s", host="dgx_h1000"), "did you mean 'dgx_h100'"),
        (lambda: torus((4, 0), "1 GB/s"), "sides"),
        (lambda: torus((4, 4), ["1 GB/s"]), "one for each"),
        (lambda: torus((4, 4), "1 GB/s", wrap=[True]), "wrap"),
        (lambda: hypercube(30, "1 GB/s"), "more than 20"),
        (lambda: box(8, "1 GB/s", nics=3), "shared out evenly"),
        (lambda: fat_tree(rate="1 GB/s"), "how many hosts"),
        (lambda: fat_tree(10**4, rate="1 GB/s", radix=8), "larger radix"),
        (lambda: fat_tree(10**9, rate="1 GB/s", radix=8), "vertices; check the counts"),
        (lambda: full_mesh(10**5, "1 GB/s"), "links; check the counts"),
        (lambda: leaf_spine(10**5, 10**5, hosts_per_leaf=1, rate="1 GB/s"), "links; check the counts"),
        (
            lambda: dragonfly(switches_per_group=10**3, ends_per_switch=1, global_links=1, rate="1 GB/s"),
            "links; check the counts",
        ),
        (lambda: fat_tree(99, rate="1 GB/s", radix=8, levels=2), "levels = 3"),
        (lambda: fat_tree(99, rate="1 GB/s", radix=8, levels=1), "levels = 2"),
        (lambda: fat_tree(9, rate="1 GB/s", levels=4), "1, 2 or 3"),
        (lambda: fat_tree(99, rate="1 GB/s", oversubscription="1:0"), "oversubscription"),
        (lambda: fat_tree(99, rate="1 GB/s", oversubscription=-1), "oversubscription"),
        (lambda: fat_tree(99, rate="1 GB/s", radix=8, ends_per_leaf=7), "fewer ends_per_leaf"),
        (lambda: fat_tree([1], rate="1 GB/s"), "list of counts"),
        (lambda: fat_tree([1], [HOST, PAIR], rate="1 GB/s"), "one of each"),
        (lambda: fat_tree(None, [HOST, PAIR], rate="1 GB/s", levels=2), "of each template"),
        (lambda: rail_optimized(4, HOST, rate="1 GB/s", rails=9), "use 8 or fewer"),
        (
            lambda: dragonfly(99, switches_per_group=2, ends_per_switch=1, global_links=1, rate="1 GB/s"),
            "at most 3",
        ),
        (
            lambda: dragonfly(
                3, switches_per_group=1, ends_per_switch=1, global_links=2, rate="1 GB/s", host=PAIR
            ),
            "shared out",
        ),
    ],
)
def test_refusals(make: Any, complaint: str) -> None:
    with pytest.raises(TopologyError, match=complaint) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(TypeError, match="leafs"):
        fat_tree(4, rate="1 GB/s", leafs=3)  # type: ignore[call-arg]


def test_latency_kind_and_abilities_reach_every_link_and_switch() -> None:
    t = fat_tree(9, rate="1 GB/s", radix=4, latency="2 us", link_kind="ib", multicast=True, reduction=True)
    assert {(link.latency_s, link.kind) for link in t.links} == {(2e-6, "ib")}
    assert {(node.multicast, node.reduction) for node in t.nodes if node.kind is NodeKind.SWITCH} == {
        (True, True)
    }
