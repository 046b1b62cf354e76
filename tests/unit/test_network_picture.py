"""Pictures of topologies: the same one twice, folded when large, and what a cut changes."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from pycomm.export.network_picture import network_picture
from pycomm.topology import Link, Node, NodeKind, Topology


def pod(hosts: int) -> Topology:
    """Hosts of two devices on one switch."""
    nodes = [Node(f"h{h}.d{d}", NodeKind.DEVICE, f"h{h}") for h in range(hosts) for d in range(2)]
    nodes.append(Node("leaf", NodeKind.SWITCH))
    last = len(nodes) - 1
    ends = [(d, last) for d in range(last)]
    return Topology("pod", tuple(nodes), tuple(Link(*e, 10**9) for a, b in ends for e in ((a, b), (b, a))))


def words(svg: bytes) -> set[str]:
    return {
        "".join(text.itertext()).strip()
        for text in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    }


def test_equal_topologies_give_equal_pictures():
    assert network_picture(pod(3), ".svg") == network_picture(pod(3), ".svg")


def test_every_vertex_is_named_when_there_is_room():
    assert {node.name for node in pod(3).nodes} <= words(network_picture(pod(3), ".svg"))


def test_a_large_network_is_folded_and_says_how_often():
    shown = words(network_picture(pod(100), ".svg"))
    assert {"h0 .. h99", "2 devices", "100 alike", "leaf"} <= shown
    assert "h0.d0" not in shown


def test_what_is_in_the_cut_is_not_folded_into_the_rest():
    shown = words(network_picture(pod(100), ".svg", cut=("h7.d0", "h7.d1")))
    assert {"h7", "99 alike", "the cut that limits"} <= shown


def test_one_vertex_is_a_picture_too():
    assert "d" in words(network_picture(Topology("one", (Node("d", NodeKind.DEVICE),), ()), ".svg"))
