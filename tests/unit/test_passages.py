"""Switches between two neighbours are left out, and put back into paths."""

from __future__ import annotations

import numpy as np
import pytest

from pycomm.planner.graph.network import Network, network_of
from pycomm.planner.graph.packing import pack
from pycomm.planner.graph.passages import joined
from pycomm.topology.generators import box, rail_optimized
from pycomm.topology.model import Link, Node, NodeKind, Topology


def chain(rates: list[int], *, around: bool = False) -> Network:
    """Two ranks joined by switches one after another; perhaps directly as well."""
    kinds = [NodeKind.DEVICE, NodeKind.DEVICE] + [NodeKind.SWITCH] * (len(rates) - 1)
    way = [0, *range(2, len(rates) + 1), 1]
    ends = list(zip(way, way[1:], rates, strict=False))
    if around:
        ends.append((0, 1, 5))
    links = [link for a, b, rate in ends for link in (Link(a, b, rate), Link(b, a, 2 * rate))]
    return network_of(
        Topology("chain", tuple(Node(f"v{i}", kind) for i, kind in enumerate(kinds)), tuple(links))
    )


def test_joined_links_are_as_fast_as_the_slower() -> None:
    small = joined(chain([9, 4]))
    assert small.network.nvertices == 2
    assert small.network.capacity.tolist() == [4, 8]
    assert small.via.tolist() == [2, 2]


def test_neighbours_of_what_is_left_out_stay() -> None:
    small = joined(chain([9, 4, 7, 6]))
    assert small.kept.tolist() == [0, 1, 3]
    assert small.via.tolist() == [2, 4, 2, 4]
    assert small.network.names == ("v0", "v1", "v3")


def test_what_runs_beside_another_link_stays() -> None:
    network = chain([9, 4], around=True)
    small = joined(network)
    assert small.network.nvertices == network.nvertices
    assert np.array_equal(small.network.capacity, network.capacity)
    assert (small.via < 0).all()


@pytest.mark.parametrize("back", [False, True])
def test_paths_get_back_what_was_left_out(back: bool) -> None:
    whole = network_of(rail_optimized(3, box(4, "400 GB/s", nics=4, nic_rate="64 GB/s"), rate="50 GB/s"))
    small = joined(whole)
    assert small.network.nvertices == whole.nvertices - 12  # a NIC for each device
    inner = small.network.reversed() if back else small.network
    forest = pack(inner, inner.capacity, np.ones(12, np.int64))
    expanded = small.expanded(forest, back=back)
    assert not [*expanded.problems()]
    assert expanded.roots().tolist() == forest.roots().tolist()
    used = {whole.names[v] for tree in expanded.trees for edge in tree.edges for v in edge.path}
    assert any("nic" in name for name in used)
    assert expanded.seconds_per_unit() == forest.seconds_per_unit()
