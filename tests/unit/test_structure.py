"""Structure of small networks, the forests it suggests, and what plans say of themselves."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from pycomm.errors import UsageError
from pycomm.planner.graph.allreduce_plans import AlikeBound, shared_seconds
from pycomm.planner.graph.few_trees import two_trees
from pycomm.planner.graph.forest import Forest
from pycomm.planner.graph.network import Network, network_of
from pycomm.planner.graph.structure import structures
from pycomm.planner.graph.symmetric import BaseTree, Shift, Symmetry, symmetric_forest
from pycomm.planner.graph.synthesis import Plan, synthesize
from pycomm.planner.graph.translations import translations
from pycomm.planner.graph.unit_trees import binomial, both_ways, chain, growth_order
from pycomm.topology import Topology
from pycomm.topology.generators import (
    box,
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
from pycomm.topology.model import Link, Node, NodeKind
from pycomm.types import CollectiveKind

HOST = box(8, "450 GB/s", nics=8, nic_rate="50 GB/s")


def a100(boxes: int) -> Topology:
    """Boxes of eight on an NVSwitch, and each device on one of two switches (notes on published optima)."""
    nodes, links = [], []

    def cable(a: int, b: int, rate: int) -> None:
        links.extend((Link(a, b, rate * 10**9), Link(b, a, rate * 10**9)))

    for number in range(boxes):
        nodes += [Node(f"b{number}g{i}", NodeKind.DEVICE, f"b{number}") for i in range(8)]
    nodes += [Node(f"nv{number}", NodeKind.SWITCH, f"b{number}") for number in range(boxes)]
    nodes += [Node("even", NodeKind.SWITCH), Node("odd", NodeKind.SWITCH)]
    for device in range(8 * boxes):
        cable(device, 8 * boxes + device // 8, 300)
        cable(device, 9 * boxes + device % 2, 25)
    return Topology(f"a100 x{boxes}", tuple(nodes), tuple(links))


def plan(topology: Topology, kind: CollectiveKind = CollectiveKind.ALLGATHER, **options: object) -> Plan:
    """Plan, and check what every plan must be."""
    made = synthesize(topology, kind, 0 if kind.is_rooted else -1, **options)  # type: ignore[arg-type]
    for forest in made.forests:
        assert list(forest.problems()) == []
        trees = Forest(forest.network, tuple(forest.trees))
        assert list(trees.problems()) == []
        np.testing.assert_array_equal(trees.loads(), forest.loads())
        np.testing.assert_array_equal(trees.roots(), forest.roots())
        assert trees.height() == forest.height()
    assert made.algbw <= made.bound.algbw
    return made


# ------------------------------------------------------------------------------------------------- structure


@pytest.mark.parametrize(
    ("topology", "says"),
    [
        (torus([3, 5], rate="50 GB/s"), "3 x 5"),
        (torus([4, 4, 4], rate="50 GB/s"), "4 x 4 x 4"),
        (hypercube(6, rate="50 GB/s"), "4 x 4 x 4"),
        (full_mesh(7, rate="50 GB/s"), "7"),
        (ring(9, rate="50 GB/s"), "9"),
        (star(6, rate="50 GB/s"), "6"),
        (leaf_spine(4, 2, hosts_per_leaf=3, rate="50 GB/s"), "4 x 3"),
        (rail_optimized(32, HOST, radix=16, rate="50 GB/s"), "4 x 8 x 8"),
        (fat_tree(64, radix=8, levels=3, rate="50 GB/s"), "4 x 4 x 4"),
        (a100(4), "4 x 2 x 4"),
    ],
    ids=lambda value: value.name if isinstance(value, Topology) else "",
)
def test_a_network_is_recognised(topology: Topology, says: str) -> None:
    found = next(structures(network_of(topology)))
    assert sorted(found.describe().split(" x ")) == sorted(says.split(" x "))
    for shift in found.shifts:
        assert shift is not None
        assert list(Symmetry(found.network, (shift,)).problems()) == []


def test_twins_move_no_rank() -> None:
    found = next(structures(network_of(leaf_spine(4, 3, hosts_per_leaf=2, rate="50 GB/s"))))
    (spines,) = found.twins
    assert spines.count == 3
    np.testing.assert_array_equal(spines.image[:8], np.arange(8))
    assert sorted(spines.image.tolist()) == list(range(15))
    assert (spines.image != np.arange(15)).sum() == 3


def test_no_structure_where_a_link_differs() -> None:
    topology = torus([4, 4], rate="50 GB/s")
    slow = network_of(topology.with_rate(5, 10**9))
    assert list(structures(slow)) == []


def test_a_path_has_no_translation() -> None:
    network = network_of(torus([5], rate="50 GB/s", wrap=False))
    assert translations(5, network.src, network.dst, network.capacity) is None


def test_translations_reach_every_vertex_once() -> None:
    network = network_of(hyperx([3, 4], rate="50 GB/s"))
    found = translations(12, network.src, network.dst, network.capacity)
    assert found is not None
    place, images = found
    assert len({tuple(row) for row in place.tolist()}) == 12
    for row, vertex in zip(place.tolist(), range(12), strict=True):
        at = 0
        for times, (image, _) in reversed(list(zip(row, images, strict=True))):
            for _ in range(times):
                at = int(image[at])
        assert at == vertex


# ----------------------------------------------------------------------------------------- symmetric forests


def line_of_four() -> tuple[Network, Symmetry]:
    """A ring of four ranks, and its rotation."""
    network = network_of(ring(4, rate="1 GB/s"))
    return network, Symmetry(network, (Shift(np.array([1, 2, 3, 0]), 4),))


def chain_tree() -> BaseTree:
    src = np.array([0, 1, 2])
    return BaseTree(0, 1, src, src + 1, np.stack((src, src + 1), axis=1))


def test_images_of_a_chain_load_one_direction_evenly() -> None:
    network, symmetry = line_of_four()
    forest = symmetric_forest(symmetry, [chain_tree()])
    assert [tree.root for tree in forest.trees] == [0, 1, 2, 3]
    assert forest.trees[-1].edges[0].path == (3, 0)
    onward = (network.dst - network.src) % 4 == 1
    np.testing.assert_array_equal(forest.loads(), np.where(onward, 3, 0))
    assert forest.height() == 3
    assert forest.weight() == 4
    assert list(forest.problems()) == []


@pytest.mark.parametrize("count", range(1, 12))
def test_loads_of_any_number_of_images(count: int) -> None:
    network, _ = line_of_four()
    forest = symmetric_forest(Symmetry(network, (Shift(np.array([1, 2, 3, 0]), count),)), [chain_tree()])
    np.testing.assert_array_equal(forest.loads(), Forest(network, tuple(forest.trees)).loads())
    assert len(forest.trees) == count


def test_a_shift_that_loses_an_arc_is_named() -> None:
    network, _ = line_of_four()
    symmetry = Symmetry(network, (Shift(np.array([0, 2, 1, 3]), 2),))
    assert list(symmetric_forest(symmetry, [chain_tree()]).problems()) == [
        "shift 0 leads an arc to where there is none"
    ]


def test_a_tree_beyond_the_last_is_refused() -> None:
    forest = symmetric_forest(line_of_four()[1], [chain_tree()])
    with pytest.raises(IndexError, match="4 trees"):
        forest.trees[4]


# ---------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 13])
@pytest.mark.parametrize(("shape", "height"), [(chain, "n - 1"), (both_ways, "n // 2"), (binomial, "bits")])
def test_shapes_reach_all(count: int, shape: object, height: str) -> None:
    parents = shape(count)  # type: ignore[operator]
    depth = np.zeros(count, np.int64)
    for place in growth_order(parents).tolist():
        depth[place] = depth[parents[place]] + 1
    wanted = {"n - 1": count - 1, "n // 2": count // 2, "bits": (count - 1).bit_length()}[height]
    assert depth[1:].all()
    assert depth.max() <= wanted


@pytest.mark.parametrize("count", range(1, 34))
def test_in_two_trees_no_place_has_children_in_both(count: int) -> None:
    children = []
    for parents in two_trees(count):
        assert (parents < 0).sum() == 1
        assert len(growth_order(parents)) == count - 1
        depth = np.zeros(count, np.int64)
        for place in growth_order(parents).tolist():
            depth[place] = depth[parents[place]] + 1
        assert depth.max() <= count.bit_length() + 1
        children.append(np.bincount(parents[parents >= 0], minlength=count))
        assert children[-1].max() <= 2
    assert not ((children[0] > 0) & (children[1] > 0)).any()


# ----------------------------------------------------------------------------------------------------- plans


@pytest.mark.parametrize(
    ("topology", "gigabytes", "height"),
    [
        (star(8, rate="50 GB/s"), Fraction(400, 7), 1),
        (full_mesh(8, rate="50 GB/s"), Fraction(400), 1),
        (torus([4, 4], rate="50 GB/s"), Fraction(640, 3), 4),
        (torus([2, 3, 4], rate="50 GB/s"), Fraction(24 * 300, 23), 4),
        (torus([4, 8], rate=["50 GB/s", "100 GB/s"]), Fraction(9600, 31), 6),
        (hypercube(5, rate="50 GB/s"), Fraction(8000, 31), 5),
        (ring(8, rate="50 GB/s"), Fraction(800, 7), 4),
        (a100(2), Fraction(16 * 65, 3), 2),
        (a100(4), Fraction(32 * 25, 3), 2),
        (rail_optimized(8, HOST, radix=16, rate="50 GB/s"), Fraction(64 * 400, 56), 2),
        (rail_only(16, HOST, rate="50 GB/s", radix=8, levels=2), Fraction(128 * 400, 120), 3),
        (dual_plane(16, HOST, rate="200 Gbit/s", radix=16), Fraction(128 * 400, 120), 3),
        (fat_tree(64, radix=8, levels=3, rate="50 GB/s"), Fraction(3200, 63), 3),
    ],
    ids=lambda value: value.name if isinstance(value, Topology) else "",
)
def test_allgather_meets_the_bound(topology: Topology, gigabytes: Fraction, height: int) -> None:
    made = plan(topology, exact=True)
    assert made.ratio == 1
    assert made.algbw == gigabytes * 10**9
    assert made.height <= height
    assert len(set(made.forests[0].roots().tolist())) == 1


def test_two_published_boxes_need_thirteen_trees() -> None:
    assert plan(a100(2), exact=True).k == 13
    near = plan(a100(2))
    assert near.k < 13
    assert Fraction(99, 100) <= near.ratio < 1


def test_reduce_scatter_is_an_allgather_on_the_network_turned_round() -> None:
    made = plan(star(4, rate="50 GB/s"), CollectiveKind.REDUCE_SCATTER)
    assert made.ratio == 1
    assert made.bound.limited_by() == "device0 -> switch"
    back = made.network.reversed()
    for mine, theirs in ((made.forests[0].network.src, back.src), (made.forests[0].network.dst, back.dst)):
        np.testing.assert_array_equal(mine, theirs)


def test_allreduce_of_alike_ranks_takes_its_halves_one_after_the_other() -> None:
    made = plan(torus([4, 4], rate="50 GB/s"), CollectiveKind.ALLREDUCE, exact=True)
    assert isinstance(made.bound, AlikeBound)
    assert made.ratio == 1
    assert made.algbw == Fraction(320, 3) * 10**9
    up, down = made.forests
    assert up.roots().tolist() == down.roots().tolist()
    assert shared_seconds(made.network, (up, down)) == 1 / made.algbw


def test_allreduce_on_many_hosts_takes_two_trees_a_rail() -> None:
    made = plan(
        rail_only(128, box(2, "450 GB/s", nics=2), rate="50 GB/s", radix=128), CollectiveKind.ALLREDUCE
    )
    assert made.trees == 4
    assert made.height <= 2 * (8 + 1)
    assert made.ratio >= Fraction(99, 100)


def test_switches_that_replicate_and_combine_double_an_allreduce() -> None:
    plain = plan(box(8, "450 GB/s"), CollectiveKind.ALLREDUCE, exact=True)
    special = plan(box(8, "450 GB/s", multicast=True, reduction=True), CollectiveKind.ALLREDUCE, exact=True)
    assert plain.algbw == Fraction(1800, 7) * 10**9
    assert special.algbw == special.bound.algbw == 450 * 10**9


def test_replicating_leaves_are_sent_to_once() -> None:
    inside = box(2, "450 GB/s", nics=2, nic_rate="64 GB/s", multicast=True, reduction=True)
    made = plan(
        rail_optimized(16, inside, radix=8, rate="50 GB/s", multicast=True, reduction=True),
        CollectiveKind.ALLREDUCE,
        exact=True,
    )
    assert made.algbw == made.bound.algbw == 100 * 10**9


@pytest.mark.parametrize("kind", [CollectiveKind.BROADCAST, CollectiveKind.REDUCE])
@pytest.mark.parametrize(
    ("topology", "gigabytes"),
    [
        (star(9, rate="50 GB/s"), 50),
        (star(40, rate="50 GB/s"), 50),
        (full_mesh(8, rate="50 GB/s"), 350),
        (leaf_spine(4, 4, hosts_per_leaf=4, rate="50 GB/s"), 50),
        (rail_optimized(8, HOST, radix=16, rate="50 GB/s"), 400),
    ],
    ids=lambda value: value.name if isinstance(value, Topology) else "",
)
def test_one_root(kind: CollectiveKind, topology: Topology, gigabytes: int) -> None:
    made = plan(topology, kind)
    assert made.ratio == 1
    assert made.algbw == gigabytes * 10**9
    assert made.height <= 8
    assert np.flatnonzero(made.forests[0].roots()).tolist() == [0]


def test_the_line_that_a_plan_says_of_itself() -> None:
    made = plan(star(8, rate="50 GB/s"))
    assert made.text().startswith("57.1 GB/s of 57.1 possible (100%), limited by ")
    near = plan(a100(2))
    assert near.text().startswith("346.4 GB/s of 346.7 possible (99.9%), limited by ")
    facts = near.facts()
    assert Fraction(facts["bound_fraction"]) == Fraction(16 * 65, 3)
    assert facts["k"] == near.k


def test_a_plan_is_the_same_twice() -> None:
    topology = rail_optimized(8, HOST, radix=8, rate="50 GB/s")
    first, again = plan(topology), synthesize(topology, CollectiveKind.ALLGATHER)
    for one, other in zip(first.forests, again.forests, strict=True):
        assert list(itertools.islice(one.trees, 5)) == list(itertools.islice(other.trees, 5))


@pytest.mark.parametrize(
    ("topology", "kind", "root", "k", "says"),
    [
        (star(1, rate="1 GB/s"), CollectiveKind.ALLGATHER, -1, None, "single rank"),
        (star(4, rate="1 GB/s"), CollectiveKind.BROADCAST, 4, None, "root"),
        (star(4, rate="1 GB/s"), CollectiveKind.ALLGATHER, -1, 0, "at least one tree"),
        (star(4, rate="1 GB/s"), CollectiveKind.GATHER, -1, None, "gather"),
    ],
)
def test_what_cannot_be_planned(
    topology: Topology, kind: CollectiveKind, root: int, k: int | None, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        synthesize(topology, kind, root, k)
