"""Topologies from and to networkx."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from fractions import Fraction
from typing import Any

import networkx as nx
import numpy as np
import pytest

from pycomm.errors import TopologyError
from pycomm.topology import Link, Node, NodeKind, Topology, catalogue
from pycomm.topology.generators import box


def pair(graph: Any = None, **attributes: Any) -> Any:
    graph = nx.DiGraph() if graph is None else graph
    graph.add_nodes_from(["a", "b"], kind="device")
    graph.add_edge("a", "b", **attributes)
    return graph


def test_attributes() -> None:
    graph = nx.DiGraph(name="mine")
    graph.add_node(7, kind="device", host=3, vendor="amd", model="MI300X", colour="red")
    graph.add_node("sw", kind="switch", multicast=True, reduction=1)
    graph.add_edge(7, "sw", bandwidth=12.5, latency=1.5, kind="xgmi", weight=3)
    t = Topology.from_networkx(graph)
    assert t.name == "mine"
    assert t.nodes == (
        Node("7", NodeKind.DEVICE, "3", "amd", "MI300X"),
        Node("sw", NodeKind.SWITCH, multicast=True, reduction=True),
    )
    assert t.links == (Link(0, 1, 12_500_000_000, 1.5e-6, "xgmi"),)


@pytest.mark.parametrize(
    ("bandwidth", "bytes_per_s"),
    [
        (50, 50 * 10**9),
        (12.5, 12_500_000_000),
        (0.1, 100_000_000),
        (1 / 3, 333_333_333),
        (Fraction(50, 3), 16_666_666_667),
        (Decimal("23.529411764"), 23_529_411_764),
        (np.float64(12.5), 12_500_000_000),
        (np.int32(3), 3 * 10**9),
        (np.float32(0.1), 100_000_001),
        (1e-9, 1),
    ],
)
def test_bandwidths_are_exact(bandwidth: Any, bytes_per_s: int) -> None:
    assert Topology.from_networkx(pair(bandwidth=bandwidth)).links[0].bytes_per_s == bytes_per_s


def test_undirected_edges_are_both_ways_and_parallel_ones_stay() -> None:
    assert len(Topology.from_networkx(pair(nx.Graph(), bandwidth=1)).links) == 2
    graph = pair(nx.MultiDiGraph(), bandwidth=1)
    graph.add_edge("a", "b", bandwidth=2)
    assert [link.bytes_per_s for link in Topology.from_networkx(graph).links] == [10**9, 2 * 10**9]
    assert len(Topology.from_networkx(pair(nx.MultiGraph(), bandwidth=1)).links) == 2


@pytest.mark.parametrize(
    ("attributes", "complaint"),
    [
        ({}, "edge 'a' -> 'b': it has no bandwidth"),
        ({"bandwidth": 0}, "more than 0"),
        ({"bandwidth": -1.5}, "more than 0"),
        ({"bandwidth": 1e-10}, "more than 0"),
        ({"bandwidth": float("nan")}, "a number of GB/s"),
        ({"bandwidth": float("inf")}, "a number of GB/s"),
        ({"bandwidth": Decimal("NaN")}, "a number of GB/s"),
        ({"bandwidth": "100 Gbit/s"}, "a number of GB/s"),
        ({"bandwidth": True}, "a number of GB/s"),
        ({"bandwidth": None}, "a number of GB/s"),
        ({"bandwidth": 1e12}, "at most"),
        ({"bandwidth": 1, "latency": -1}, "number of microseconds"),
        ({"bandwidth": 1, "latency": "1 us"}, "number of microseconds"),
        ({"bandwidth": 1, "latency": float("inf")}, "number of microseconds"),
    ],
)
def test_bad_edges(attributes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(TopologyError, match=complaint) as caught:
        Topology.from_networkx(pair(**attributes))
    assert "\n" not in str(caught.value)


def test_bad_vertices() -> None:
    graph = nx.DiGraph()
    graph.add_node("x")
    with pytest.raises(TopologyError, match="vertex 'x': it has no kind"):
        Topology.from_networkx(graph)
    graph.add_node("x", kind="gpu")
    with pytest.raises(TopologyError, match="its kind is 'gpu'"):
        Topology.from_networkx(graph)
    graph = nx.DiGraph()
    graph.add_nodes_from([1, "1"], kind="device")
    with pytest.raises(TopologyError, match="a vertex named '1' is there already"):
        Topology.from_networkx(graph)
    graph = nx.DiGraph()
    graph.add_node("x", kind="device")
    graph.add_edge("x", "x", bandwidth=1)
    with pytest.raises(TopologyError, match="to itself"):
        Topology.from_networkx(graph)
    implicit = nx.DiGraph()
    implicit.add_edge("p", "q", bandwidth=1)
    with pytest.raises(TopologyError, match="vertex 'p': it has no kind"):
        Topology.from_networkx(implicit)


@pytest.mark.parametrize(
    "t",
    [
        box(4, "12.5 GB/s", nics=2, nic_rate="23529411764 B/s", latency="0.7 us", vendor="x", multicast=True),
        catalogue.named("mi250x_frontier"),
        catalogue.named("two_vendors"),
    ],
    ids=lambda t: t.name,
)
def test_there_and_back(t: Topology) -> None:
    graph = t.to_networkx()
    assert isinstance(graph, nx.MultiDiGraph)
    back = Topology.from_networkx(graph)
    assert back.name == t.name
    assert back.nodes == t.nodes
    assert Counter(back.links) == Counter(t.links)  # networkx sorts edges by their first vertex
    assert Topology.from_networkx(back.to_networkx()) == back


def test_equal_graphs_give_equal_topologies_in_any_process() -> None:
    digests = {Topology.from_networkx(catalogue.named("dgx1_v100").to_networkx()).digest() for _ in range(3)}
    assert len(digests) == 1
