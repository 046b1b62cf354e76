"""Networks with structure, their vertices in any order: loads are exact, forests span, bounds are true."""

from __future__ import annotations

import itertools
import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pycomm.planner.graph.bounds import bound
from pycomm.planner.graph.candidates import allgather_candidates, most_load
from pycomm.planner.graph.few_trees import broadcast_forests, free_forests
from pycomm.planner.graph.forest import Forest
from pycomm.planner.graph.free_roots import allreduce_bound
from pycomm.planner.graph.network import network_of
from pycomm.planner.graph.partition_bound import partition_bound
from pycomm.planner.graph.structure import structures
from pycomm.planner.graph.unit_trees import UnitTrees
from pycomm.topology import Topology
from pycomm.topology.generators import (
    box,
    dual_plane,
    fat_tree,
    full_mesh,
    hyperx,
    leaf_spine,
    rail_only,
    rail_optimized,
    star,
    torus,
)
from pycomm.types import CollectiveKind

RATES = ("25 GB/s", "50 GB/s", "100 GB/s")
counts = st.integers(2, 4)
rates = st.sampled_from(RATES)
hosts = st.sampled_from((2, 4, 8))
leaves = st.sampled_from((2, 4, 8))


@st.composite
def boxes(draw: st.DrawFn) -> Topology:
    devices = draw(st.sampled_from((2, 4)))
    return box(devices, draw(rates), nics=devices, nic_rate=draw(rates), mesh=draw(st.booleans()))


@st.composite
def networks(draw: st.DrawFn) -> Topology:
    rate = draw(rates)
    sides = st.lists(st.integers(2, 5), min_size=1, max_size=3)
    kind = draw(st.integers(0, 8))
    if kind == 0:
        made = torus(draw(sides), rate=rate)
    elif kind == 1:
        made = hyperx(draw(st.lists(st.integers(2, 4), min_size=1, max_size=2)), rate=rate)
    elif kind == 2:
        made = draw(st.sampled_from((full_mesh, star)))(draw(st.integers(2, 9)), rate=rate)
    elif kind == 3:
        made = leaf_spine(
            draw(counts), draw(counts), hosts_per_leaf=draw(counts), rate=rate, spine_rate=draw(rates)
        )
    elif kind == 4:
        made = fat_tree(draw(st.sampled_from((8, 16))), radix=4, levels=3, rate=rate)
    elif kind == 5:
        made = rail_optimized(draw(hosts), draw(boxes()), radix=16, ends_per_leaf=draw(leaves), rate=rate)
    elif kind == 6:
        made = rail_only(draw(hosts), draw(boxes()), radix=16, ends_per_leaf=draw(leaves), rate=rate)
    elif kind == 7:
        made = dual_plane(draw(hosts), draw(boxes()), radix=16, ends_per_leaf=draw(leaves), rate=rate)
    else:
        made = draw(boxes())
    return shuffled(made, draw(st.integers(0, 2**16)))


def shuffled(topology: Topology, seed: int) -> Topology:
    """List vertices and links in another order."""
    dice = random.Random(seed)
    order = list(range(len(topology.nodes)))
    dice.shuffle(order)
    number = {old: new for new, old in enumerate(order)}
    links = [link._replace(src=number[link.src], dst=number[link.dst]) for link in topology.links]
    dice.shuffle(links)
    return Topology(topology.name, tuple(topology.nodes[i] for i in order), tuple(links))


def same_as_its_trees(forest: Forest) -> None:
    trees = Forest(forest.network, tuple(forest.trees))
    assert list(forest.problems()) == list(trees.problems()) == []
    np.testing.assert_array_equal(forest.loads(), trees.loads())
    np.testing.assert_array_equal(forest.roots(), trees.roots())
    assert forest.height() == trees.height()
    assert forest.weight() == trees.weight()
    assert forest.algbw() == trees.algbw()


@settings(deadline=None, max_examples=40)
@given(networks())
def test_candidates_are_what_they_say(topology: Topology) -> None:
    network = network_of(topology)
    truth = bound(network, CollectiveKind.ALLGATHER).seconds_per_byte * network.nranks * network.unit
    for candidate in itertools.islice(allgather_candidates(network, truth, trees=4), 8):
        same_as_its_trees(candidate.forest)
        assert len(set(candidate.forest.roots().tolist())) == 1
        assert candidate.load * candidate.k == most_load(network, candidate.forest.loads())
        assert candidate.load >= truth


@settings(deadline=None, max_examples=40)
@given(networks(), st.data())
def test_few_trees_are_what_they_say(topology: Topology, data: st.DataObject) -> None:
    network = network_of(topology)
    root = data.draw(st.integers(0, network.nranks - 1))
    truth = bound(network, CollectiveKind.BROADCAST, root).seconds_per_byte * network.unit
    for structure in structures(network):
        if structure.direct:
            continue
        for _, forest in broadcast_forests(UnitTrees(structure), root):
            same_as_its_trees(forest)
            assert set(np.flatnonzero(forest.roots()).tolist()) == {root}
            assert most_load(network, forest.loads()) >= truth * forest.weight()
        for _, forest in free_forests(UnitTrees(structure)):
            same_as_its_trees(forest)


@settings(deadline=None, max_examples=40)
@given(networks())
def test_shifts_leave_the_network_as_it_is(topology: Topology) -> None:
    network = network_of(topology)
    rate = {pair: int(network.capacity[arc]) for pair, arc in network.arc.items()}
    for structure in structures(network):
        for shift in (*filter(None, structure.shifts), *structure.twins):
            image = shift.image.tolist()
            assert sorted(image) == list(range(network.nvertices))
            assert sorted(image[: network.nranks]) == list(range(network.nranks))
            assert {(image[a], image[b]): c for (a, b), c in rate.items()} == rate
        for twin in structure.twins:
            assert twin.image[: network.nranks].tolist() == list(range(network.nranks))


@settings(deadline=None, max_examples=40)
@given(networks(), st.integers(0, 2**16))
def test_a_slow_link_is_not_overlooked(topology: Topology, seed: int) -> None:
    number = seed % len(topology.links)
    slow = topology.with_rate(number, topology.links[number].bytes_per_s // 2)
    network = network_of(slow)
    truth = bound(network, CollectiveKind.ALLGATHER).seconds_per_byte * network.nranks * network.unit
    for candidate in itertools.islice(allgather_candidates(network, truth, trees=2), 4):
        same_as_its_trees(candidate.forest)
        assert candidate.load >= truth


@settings(deadline=None, max_examples=12)
@given(networks(), st.lists(st.integers(0, 2**16), max_size=3))
def test_parts_bound_every_allreduce(topology: Topology, slow: list[int]) -> None:
    for seed in slow:
        number = seed % len(topology.links)
        topology = topology.with_rate(number, topology.links[number].bytes_per_s // 2)
    network = network_of(topology)
    whole = partition_bound(network)
    assert whole is not None
    if network.nranks <= 8:
        assert allreduce_bound(network).attained <= whole.algbw
