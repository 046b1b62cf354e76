"""What is wrong, or odd, with topologies that can be built."""

from __future__ import annotations

import pytest

from pycomm.errors import TopologyError
from pycomm.topology import Link, Node, NodeKind, Topology
from pycomm.topology.checks import check, problems, remarks
from pycomm.topology.generators import ring, star

A, B, C = (Node(name, NodeKind.DEVICE) for name in "abc")
SW = Node("sw", NodeKind.SWITCH)


def both(a: int, b: int, rate: int = 10**9) -> tuple[Link, Link]:
    return Link(a, b, rate), Link(b, a, rate)


@pytest.mark.parametrize(
    ("t", "found"),
    [
        (Topology("t", (SW,), ()), ["there is no device"]),
        (
            Topology("t", (A, B, C), both(0, 1)),
            ["the device 'c', without any link", "data of 'a' cannot reach 'c'"],
        ),
        (
            Topology("t", (A, B, SW, Node("s2", NodeKind.SWITCH)), both(0, 1)),
            ["2 vertices, the first the switch"],
        ),
        (
            Topology("t", (A, B), (Link(1, 0, 1),)),
            ["data of 'a' cannot reach 'b' (1 of 2 devices are apart)"],
        ),
        (Topology("t", (A, B), (Link(0, 1, 1),)), ["data of 'b' cannot reach 'a'"]),
        (Topology("t", (A,), ()), []),
        (star(4, "1 GB/s"), []),
        (ring(4, "1 GB/s", one_way=True), []),
    ],
)
def test_problems(t: Topology, found: list[str]) -> None:
    said = list(problems(t))
    assert len(said) == len(found)
    for sentence, part in zip(said, found, strict=True):
        assert part in sentence
        assert "\n" not in sentence
    if found:
        with pytest.raises(TopologyError, match=r"^t: "):
            check(t)
    else:
        assert check(t) is t


def test_remarks() -> None:
    slow = Topology("t", (A, B), both(0, 1, 10**9) + both(0, 1, 10**4))
    assert "check the units" in next(remarks(slow))
    unequal = Topology("t", (A, B, SW), (*both(0, 2), Link(1, 2, 3 * 10**9), Link(2, 1, 10**9)))
    assert list(remarks(unequal)) == [
        "1 vertex has unequal bandwidth in and out, the first the switch 'sw': 4 GB/s in, 2 GB/s out; "
        "no more than the lower can pass through it"
    ]
    homeless = Topology("t", (A, Node("d", NodeKind.DEVICE, "h")), both(0, 1))
    assert "1 of 2 devices have no host, the first 'a'" in next(remarks(homeless))
    assert list(remarks(star(4, "1 GB/s"))) == []
