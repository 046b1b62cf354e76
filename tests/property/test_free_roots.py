"""Free-root allreduce and balanced bounds on random networks, against all cuts written out."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from pycomm.errors import TopologyError
from pycomm.planner.graph.allreduce_plans import shared_seconds
from pycomm.planner.graph.balance import balanced_bound
from pycomm.planner.graph.bounds import flow_network
from pycomm.planner.graph.free_roots import allreduce_bound, allreduce_forests, divided
from pycomm.planner.graph.network import Network, network_of
from pycomm.planner.graph.packing import pack
from pycomm.topology.model import Link, Node, NodeKind, Topology
from pycomm.types import CollectiveKind

KINDS = (CollectiveKind.ALLGATHER, CollectiveKind.REDUCE_SCATTER)


@st.composite
def networks(draw: st.DrawFn, *, most: int = 6, both_ways: bool = False, switches: bool = True) -> Network:
    """Ranks and switches, a tree of cables and some more links, rates of 1 to 9."""
    count = draw(st.integers(2, most))
    nranks = draw(st.integers(2, count)) if switches else count
    rate = st.integers(1, 9)
    rates: dict[tuple[int, int], int] = {}

    def join(a: int, b: int) -> None:
        there = draw(rate)
        rates[a, b] = there
        rates[b, a] = there if both_ways else draw(rate)

    for vertex in range(1, count):
        join(vertex, draw(st.integers(0, vertex - 1)))
    ends = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1))
    for a, b in draw(st.lists(ends, max_size=6)):
        if a != b:
            join(a, b)
    order = draw(st.permutations(range(count)))
    kinds = [NodeKind.DEVICE] * nranks + [NodeKind.SWITCH] * (count - nranks)
    nodes = [Node(f"v{i}", kinds[i]) for i in range(count)]
    links = tuple(Link(order[a], order[b], value) for (a, b), value in rates.items())
    return network_of(Topology("random", tuple(nodes), links))


def by_all_cuts(network: Network, weights: list[list[int]], directions: list[int]) -> float:
    """Solve the programme with every cut written out; a direction is 1, or -1 for against the arcs."""
    narcs, nranks = len(network.src), network.nranks
    width = len(weights) + narcs * len(directions)
    rows, equal = [], []
    for h, direction in enumerate(directions):
        first = len(weights) + h * narcs
        tails, heads = (network.src, network.dst)[::direction]
        for bits in product([False, True], repeat=network.nvertices):
            inside = np.array(bits)
            if inside[:nranks].all() or not inside[:nranks].any():
                continue
            row = np.zeros(width)
            row[: len(weights)] = [
                sum(w for w, i in zip(column, bits, strict=False) if i) for column in weights
            ]
            row[first : first + narcs] -= inside[tails] & ~inside[heads]
            rows.append(row)
        for vertex in range(nranks, network.nvertices):
            row = np.zeros(width)
            row[first : first + narcs] = (heads == vertex).astype(float) - (tails == vertex)
            equal.append(row)
    right = [0.0] * len(rows) + network.capacity.tolist()
    share = np.tile(np.eye(narcs), len(directions))
    rows.extend(np.concatenate([np.zeros((narcs, len(weights))), share], axis=1))
    cost = np.zeros(width)
    cost[: len(weights)] = [-sum(column) for column in weights]
    return -linprog(
        cost,
        np.array(rows),
        right,
        np.array(equal) if equal else None,
        np.zeros(len(equal)) if equal else None,
    ).fun


@settings(max_examples=25, deadline=None)
@given(networks())
def test_exact_value_is_that_of_all_cuts(network: Network) -> None:
    found = allreduce_bound(network)
    assert found.is_exact
    unit_vectors = np.eye(network.nranks, dtype=int).tolist()
    assert float(found.solution.upper) == pytest.approx(by_all_cuts(network, unit_vectors, [1, -1]), rel=1e-9)
    assert found.certificate.value() == found.solution.lower == sum(found.solution.roots)


@settings(max_examples=25, deadline=None)
@given(networks(), st.sampled_from(KINDS))
def test_balanced_optimum_is_that_of_all_cuts(network: Network, kind: CollectiveKind) -> None:
    found = balanced_bound(network, kind)
    assert found.is_exact
    assert found.algbw <= found.cut_bound.algbw
    direction = -1 if kind.reduces else 1
    expected = by_all_cuts(network, [[1] * network.nranks], [direction])
    assert float(found.solution.upper) == pytest.approx(expected, rel=1e-9)
    shares, roots = found.whole()
    forest = pack(flow_network(network, kind), shares, roots)
    assert not [*forest.problems()]
    assert forest.algbw() == found.algbw


def partitions(count: int) -> Iterator[list[int]]:
    """Number the part of each vertex, in every possible way."""
    labels = [[0]]
    for _ in range(count - 1):
        labels = [[*label, part] for label in labels for part in range(max(label) + 2)]
    yield from labels


@settings(max_examples=15, deadline=None)
@given(networks(both_ways=True, switches=False))
def test_without_switches_it_is_the_number_of_spanning_trees(network: Network) -> None:
    """Tutte and Nash-Williams: the least capacity between parts over parts minus one."""
    least = min(
        Fraction(int(network.capacity[label[network.src] != label[network.dst]].sum()), 2 * int(label.max()))
        for label in map(np.array, partitions(network.nranks))
        if label.max()
    )
    assert allreduce_bound(network).solution.lower == least


@settings(max_examples=25, deadline=None)
@given(networks(most=9, both_ways=True))
def test_never_worse_than_equal_shares_one_half_after_the_other(network: Network) -> None:
    found = allreduce_bound(network)
    assert found.attained >= found.equal_shares_algbw


@settings(max_examples=12, deadline=None)
@given(networks(most=9))
def test_forests_reach_the_optimum_within_what_was_asked(network: Network) -> None:
    found = allreduce_bound(network)
    assume(found.attained > 0)
    for close in (Fraction(99, 100), Fraction(1)):
        roots, shares = divided(found, close)
        up, down = allreduce_forests(network, found, close)
        assert not [*up.problems(), *down.problems()]
        assert np.array_equal(up.roots(), roots)
        assert np.array_equal(down.roots(), roots)
        turned = np.lexsort((network.src, network.dst))
        assert (down.loads() <= shares[0]).all()
        assert (up.loads() <= shares[1][turned]).all()
        rate = 1 / shared_seconds(network, (up, down))
        assert close * found.algbw <= rate <= found.algbw


@settings(max_examples=12, deadline=None)
@given(networks(most=7), st.integers(0, 2**31))
def test_without_a_link_it_is_no_faster_and_names_do_not_matter(network: Network, seed: int) -> None:
    found = allreduce_bound(network)
    rng = np.random.default_rng(seed)
    number = np.concatenate(
        [
            rng.permutation(network.nranks),
            network.nranks + rng.permutation(network.nvertices - network.nranks),
        ]
    )
    src, dst = number[network.src], number[network.dst]
    order = np.lexsort((dst, src))
    names = tuple(network.names[int(i)] for i in np.argsort(number))

    def other(kept: np.ndarray) -> Network:
        return Network(
            network.nranks,
            names,
            src[kept].astype(np.int32),
            dst[kept].astype(np.int32),
            network.capacity[kept].copy(),
            network.unit,
            network.latency_s[kept].copy(),
        )

    assert allreduce_bound(other(order)).algbw == found.algbw
    try:
        less = allreduce_bound(other(np.delete(order, int(rng.integers(len(order))))))
    except TopologyError:
        return
    assert less.algbw <= found.algbw
