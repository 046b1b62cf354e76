"""Equal roots and shared links on small random networks, against free roots, which are exact."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pycomm.errors import TopologyError
from pycomm.planner.graph.allreduce_plans import shared_seconds
from pycomm.planner.graph.free_roots import allreduce_bound
from pycomm.planner.graph.network import Network, network_of
from pycomm.planner.graph.shared_links import shared_allreduce
from pycomm.topology.model import Link, Node, NodeKind, Topology


@st.composite
def networks(draw: st.DrawFn, *, most: int = 8, both_ways: bool = False, switches: bool = True) -> Network:
    """Ranks and switches, a tree of cables and some more, rates of 10 to 99."""
    count = draw(st.integers(2, most))
    nranks = draw(st.integers(2, count)) if switches else count
    rate = st.integers(10, 99)
    ends = [(vertex, draw(st.integers(0, vertex - 1))) for vertex in range(1, count)]
    pair = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1))
    ends += [(a, b) for a, b in draw(st.lists(pair, max_size=8)) if a != b]
    order = draw(st.permutations(range(count)))
    kinds = [NodeKind.DEVICE] * nranks + [NodeKind.SWITCH] * (count - nranks)
    links = []
    for a, b in ends:
        there = draw(rate)
        links.append(Link(order[a], order[b], there))
        links.append(Link(order[b], order[a], there if both_ways else draw(rate)))
    nodes = tuple(Node(f"v{i}", kind) for i, kind in enumerate(kinds))
    return network_of(Topology("random", nodes, tuple(links)))


def checked(network: Network) -> tuple[Fraction, Fraction, Fraction]:
    """Rate of the plan, the bound told with it, and the optimum of free roots."""
    best = allreduce_bound(network)
    found = shared_allreduce(network)
    assert found is not None
    (up, down), bound = found
    assert not [*up.problems(), *down.problems()]
    assert np.array_equal(up.roots(), down.roots())
    rate = 1 / shared_seconds(network, (up, down))
    assert rate <= best.algbw <= bound.algbw
    return rate, bound.algbw, best.algbw


def dead_ends() -> Network:
    """Two ranks that send faster than they hear; other switches hang on theirs, and first shares go there."""
    kinds = [NodeKind.DEVICE] * 2 + [NodeKind.SWITCH] * 5
    links = [Link(0, 2, 20), Link(2, 0, 10), Link(1, 2, 20), Link(2, 1, 10)]
    links += [link for end in range(3, 7) for link in (Link(2, end, 10), Link(end, 2, 10))]
    nodes = tuple(Node(f"v{i}", kind) for i, kind in enumerate(kinds))
    return network_of(Topology("dead ends", nodes, tuple(links)))


@settings(max_examples=40, deadline=None)
@given(networks())
@example(dead_ends())
def test_at_least_half_of_free_roots_and_bounds_that_hold(network: Network) -> None:
    """Both shares together let as much into every set as free roots carry: enough for a half of equal roots.

    A half with equal roots needs (N - 1) / N of the data at most, and whole shares come within a few percent.
    """
    try:
        rate, _, best = checked(network)
    except TopologyError:
        assume(False)
    n = network.nranks
    assert rate >= best * Fraction(n, 2 * (n - 1)) * Fraction(97, 100)


@settings(max_examples=25, deadline=None)
@given(networks(both_ways=True, switches=False))
def test_without_switches_roots_do_not_matter(network: Network) -> None:
    rate, _, best = checked(network)
    assert rate >= best * Fraction(97, 100)
