"""Allreduce with free roots and shared links: published figures, proofs, forests, words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from pycomm.errors import PlanningError, TopologyError, UsageError
from pycomm.planner.graph import cut_exact
from pycomm.planner.graph.allreduce_plans import shared_seconds
from pycomm.planner.graph.cut_lp import broken_cuts
from pycomm.planner.graph.cut_programme import both_halves
from pycomm.planner.graph.free_roots import allreduce_bound, allreduce_forests, divided
from pycomm.planner.graph.network import Network, network_of
from pycomm.planner.graph.rational import simplest, solve_exactly
from pycomm.planner.graph.symmetry import is_automorphism, orbits_of
from pycomm.topology.model import Link, Node, NodeKind, Topology

GB = 10**9


def cables(name: str, kinds: dict[str, NodeKind], ends: list[tuple[str, str, float]]) -> Topology:
    """Build a topology of cables: each is two links."""
    index = {vertex: i for i, vertex in enumerate(kinds)}
    links = [Link(index[a], index[b], int(rate * GB)) for a, b, rate in ends]
    both = [link for one in links for link in (one, one._replace(src=one.dst, dst=one.src))]
    return Topology(name, tuple(Node(vertex, kind) for vertex, kind in kinds.items()), tuple(both))


def star(count: int = 8, slow: float = 50.0) -> Network:
    """Ranks on one switch at 100 GB/s, one of them at another rate."""
    kinds = {f"r{i}": NodeKind.DEVICE for i in range(count)} | {"switch": NodeKind.SWITCH}
    rates = [slow] + [100.0] * (count - 1)
    return network_of(cables("star", kinds, [(f"r{i}", "switch", rate) for i, rate in enumerate(rates)]))


def boxes(count: int = 8, dead: int = 0) -> Network:
    """Boxes of 8 with 50 GB/s for each NIC, ample inside and between them; the first has lost some NICs."""
    kinds: dict[str, NodeKind] = {"spine": NodeKind.SWITCH}
    ends = []
    for box in range(count):
        kinds[f"box{box}"] = NodeKind.SWITCH
        for i in range(8):
            kinds[f"gpu{box}.{i}"] = NodeKind.DEVICE
            ends.append((f"gpu{box}.{i}", f"box{box}", 1000.0))
            if box or i >= dead:
                kinds[f"nic{box}.{i}"] = NodeKind.NIC
                ends.append((f"gpu{box}.{i}", f"nic{box}.{i}", 50.0))
                ends.append((f"nic{box}.{i}", "spine", 50.0))
    return network_of(cables("boxes", kinds, ends))


def torus(side: int = 6, out: int = 1) -> Network:
    """Cables of 50 GB/s, some of them out."""
    kinds = {f"{x},{y}": NodeKind.DEVICE for x in range(side) for y in range(side)}
    right = [(f"{x},{y}", f"{(x + 1) % side},{y}", 50.0) for x in range(side) for y in range(side)]
    up = [(f"{x},{y}", f"{x},{(y + 1) % side}", 50.0) for x in range(side) for y in range(side)]
    return network_of(cables("torus", kinds, (right + up)[out:]))


FIGURES = [
    pytest.param(star, Fraction(200, 7), Fraction(50), id="one slow rank of 8 on a switch"),
    pytest.param(lambda: boxes(dead=0), Fraction(1600, 7), Fraction(1600, 7), id="8 boxes, all NICs alive"),
    pytest.param(lambda: boxes(dead=1), Fraction(200), Fraction(225), id="8 boxes, one NIC dead"),
    pytest.param(lambda: boxes(dead=2), Fraction(1200, 7), Fraction(1550, 7), id="8 boxes, two NICs dead"),
    pytest.param(lambda: boxes(dead=4), Fraction(800, 7), Fraction(200), id="8 boxes, four NICs dead"),
    pytest.param(lambda: torus(out=0), Fraction(720, 7), Fraction(720, 7), id="6x6 torus"),
    pytest.param(lambda: torus(out=1), Fraction(540, 7), Fraction(710, 7), id="6x6 torus, a cable out"),
]
"""Network, gigabytes per second of reduce_scatter then allgather, and of free roots."""


@pytest.mark.parametrize(("make", "equal", "free"), FIGURES)
def test_published_figures_are_exact_and_their_forests_come_within_1_percent(
    make: Callable[[], Network], equal: Fraction, free: Fraction
) -> None:
    network = make()
    found = allreduce_bound(network)
    assert found.equal_shares_algbw == equal * GB
    assert found.algbw == found.attained == free * GB
    assert found.is_exact
    assert sum(found.roots) == 1
    up, down = allreduce_forests(network, found)
    assert not [*up.problems(), *down.problems()]
    assert np.array_equal(up.roots(), down.roots())
    rate = 1 / shared_seconds(network, (up, down))
    assert found.algbw * 99 / 100 <= rate <= found.algbw


@pytest.mark.parametrize("make", [star, lambda: boxes(count=3, dead=2), lambda: torus(side=4)])
def test_exact_optimum_is_packed_when_it_is_asked_for(make: Callable[[], Network]) -> None:
    network = make()
    found = allreduce_bound(network)
    forests = allreduce_forests(network, found, close=Fraction(1))
    assert 1 / shared_seconds(network, forests) == found.algbw


def test_solution_keeps_every_condition() -> None:
    network = boxes(dead=2)
    found = allreduce_bound(network)
    for down, up, capacity in zip(
        found.broadcast_shares, found.reduce_shares, network.capacity.tolist(), strict=True
    ):
        assert down >= 0
        assert up >= 0
        assert down + up <= capacity
    for half, shares in zip(both_halves(network), found.solution.shares, strict=True):
        unit = np.lcm.reduce([s.denominator for s in (*shares, *found.solution.roots)], dtype=object)
        counts = np.array([int(s * unit) for s in shares], np.int64)
        roots = np.array([int(s * unit) for s in found.solution.roots], np.int64)
        assert not broken_cuts(half.network, counts[half.base], roots)
        assert broken_cuts(half.network, counts[half.base] * 1000, roots * 1001)
        net = np.zeros(network.nvertices, np.int64)
        np.add.at(net, network.dst, counts)
        np.subtract.at(net, network.src, counts)
        assert not net[network.nranks :].any()


def test_a_proof_with_too_little_weight_proves_nothing_and_one_with_other_weights_proves_less() -> None:
    found = allreduce_bound(star())
    proof = found.certificate
    assert proof.value() == found.solution.upper
    first = proof.cuts[0]
    assert (
        replace(proof, cuts=(first._replace(weight=first.weight * 2), *proof.cuts[1:])).value()
        > proof.value()
    )
    assert replace(proof, cuts=(first._replace(weight=Fraction(-1)), *proof.cuts[1:])).value() is None
    assert replace(proof, cuts=()).value() is None
    everyone = first._replace(vertices=np.ones_like(first.vertices))
    assert replace(proof, cuts=(everyone, *proof.cuts[1:])).value() is None


def test_without_exact_fractions_there_is_an_interval_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut_exact, "_simple_primal", lambda master, point: None)
    monkeypatch.setattr(cut_exact, "_primal", lambda master, point, tight: None)
    network = boxes(count=3, dead=2)
    found = allreduce_bound(network)
    assert not found.is_exact
    assert found.algbw * (1 - Fraction(1, 10**6)) < found.attained < found.algbw
    assert found.explain().startswith("between ")
    shares, roots = found.solution.shares, found.solution.roots
    unit = np.lcm.reduce([s.denominator for s in (*shares[0], *shares[1], *roots)], dtype=object)
    for half, side in zip(both_halves(network), shares, strict=True):
        counts = np.array([int(s * unit) for s in side], np.int64)
        assert not broken_cuts(
            half.network, counts[half.base], np.array([int(r * unit) for r in roots], np.int64)
        )
    up, down = allreduce_forests(network, found)
    assert 1 / shared_seconds(network, (up, down)) >= found.algbw * 99 / 100
    with pytest.raises(PlanningError, match="is known to be attained"):
        divided(found, Fraction(1))


def test_exact_equations_give_what_small_denominators_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cut_exact, "simplest", lambda value, tolerance: None)
        patch.setattr(cut_exact, "_simple_primal", lambda master, point: None)
        slowly = allreduce_bound(torus(side=4))
    assert slowly.is_exact
    assert slowly.algbw == allreduce_bound(torus(side=4)).algbw


def test_bandwidths_with_many_digits_are_exact_too() -> None:
    kinds = {name: NodeKind.DEVICE for name in "abcd"}
    rates = [12_345_678_901, 23_456_789_017, 31_415_926_535, 27_182_818_281, 16_180_339_887]
    ends = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a"), ("a", "c")]
    whole = [(a, b, rate / GB) for (a, b), rate in zip(ends, rates, strict=True)]
    network = network_of(cables("odd", kinds, whole))
    found = allreduce_bound(network)
    assert found.is_exact
    forests = allreduce_forests(network, found)
    assert 1 / shared_seconds(network, forests) >= found.algbw * 99 / 100


def test_one_line_says_what_limits_and_how_far_equal_shares_are() -> None:
    assert allreduce_bound(star()).explain() == (
        "50 GB/s possible, limited by switch -> r0; "
        "+75.0% over reduce_scatter then allgather with equal shares, 28.57 GB/s"
    )
    assert allreduce_bound(torus(out=0)).explain().endswith("with equal shares reaches as much")


def test_cut_is_one_of_the_proof() -> None:
    found = allreduce_bound(star())
    assert found.cut.capacity == 1
    assert found.cut.weight == 7
    assert 0 not in found.cut.vertices


def test_what_has_no_allreduce_is_refused() -> None:
    one = network_of(cables("one", {"a": NodeKind.DEVICE, "s": NodeKind.SWITCH}, [("a", "s", 1.0)]))
    with pytest.raises(UsageError, match="single rank"):
        allreduce_bound(one)
    apart = network_of(
        cables("apart", {name: NodeKind.DEVICE for name in "abcd"}, [("a", "b", 1), ("c", "d", 1)])
    )
    with pytest.raises(TopologyError, match="no link leads from"):
        allreduce_bound(apart)


def test_equal_requests_give_equal_forests() -> None:
    first, second = (allreduce_forests(boxes(count=3, dead=1)) for _ in range(2))
    assert [list(half.trees) for half in first] == [list(half.trees) for half in second]


def test_alike_parts_are_found_and_renamings_hold() -> None:
    network = boxes(count=16, dead=2)
    orbits = orbits_of(network)
    assert orbits.nvertex <= 8
    everyone = np.arange(network.nvertices)
    for old, new in orbits.generators:
        image = everyone.copy()
        image[old] = new
        assert is_automorphism(network, image)
    assert orbits_of(torus(out=0)).nvertex == 1
    image = everyone.copy()
    image[[0, network.nranks]] = image[[network.nranks, 0]]
    assert not is_automorphism(network, image)


def test_vertices_of_one_colour_that_no_renaming_joins_stay_apart() -> None:
    """A cubic graph with a bridge: all its vertices get one colour, but the two sides differ in size."""
    small = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("b", "e"), ("c", "e"), ("d", "e")]
    large = [("p", "q"), ("p", "r"), ("q", "s"), ("q", "t"), ("r", "u"), ("r", "v"), ("s", "u"), ("t", "v")]
    large += [("s", "t"), ("u", "v")]
    kinds = {name: NodeKind.DEVICE for name in "abcdepqrstuv"}
    network = network_of(cables("bridge", kinds, [(a, b, 1.0) for a, b in [*small, *large, ("a", "p")]]))
    orbits = orbits_of(network)
    assert orbits.vertex[0] != orbits.vertex[5]
    assert allreduce_bound(network).is_exact


def test_label_keeps_a_root_apart() -> None:
    network = star(slow=100.0)
    label = np.zeros(network.nvertices, np.int64)
    assert orbits_of(network, label).nvertex == 2
    label[3] = 1
    assert orbits_of(network, label).nvertex == 3


def test_equations_are_solved_exactly_or_not_at_all() -> None:
    rows = [{0: 1, 1: 2, 2: -1}, {0: 3, 1: -1}, {1: 1, 2: 5}, {0: 4, 1: 1, 2: -1}]
    solution = [Fraction(1, 7), Fraction(-22, 3), Fraction(10**15, 11)]
    right = [sum(a * solution[j] for j, a in row.items()) for row in rows]
    assert solve_exactly(rows, right, 3) == solution
    assert solve_exactly(rows, [*right[:3], right[3] + 1], 3) is None
    assert solve_exactly(rows[:2], right[:2], 3) is None
    assert solve_exactly([{0: 1, 1: 1}, {0: 2, 1: 2}], [1, 2], 2) is None
    assert simplest(0.285714285714, 1e-9) == Fraction(2, 7)
    assert simplest(0.1234567890123, 1e-13, most=100) is None
