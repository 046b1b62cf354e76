"""What is written in the formats of others is read back, or refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pycomm.errors import TopologyError, UsageError
from pycomm.topology import Link, Node, NodeKind, Topology
from pycomm.topology.exporters import EXPORTS, write
from pycomm.topology.graphs import from_networkx
from pycomm.topology.importers import read, reads

FILES = Path(__file__).parent.parent / "topofiles"
SAMPLES = sorted(path.name for path in FILES.iterdir() if path.is_file())


def pair(*rates: int, latency_s: float = 0.0) -> Topology:
    nodes = (Node("a", NodeKind.DEVICE), Node("b", NodeKind.DEVICE))
    ends = ((0, 1), (1, 0))
    return Topology(
        "pair", nodes, tuple(Link(*e, rate, latency_s) for e, rate in zip(ends, rates, strict=False))
    )


@pytest.mark.parametrize("format", ["toml", "node-link", "graphml", "dot"])
@pytest.mark.parametrize("name", SAMPLES)
def test_whole_formats_lose_nothing(name: str, format: str) -> None:
    topology = read(FILES / name)
    assert reads(write(topology, format), format=format) == topology


@pytest.mark.parametrize("name", ["simai.txt", "graph.dot", "nccl_hgx.xml"])
def test_networkx_reads_what_is_written(name: str, tmp_path: Path) -> None:
    networkx = pytest.importorskip("networkx")
    topology = read(FILES / name)
    (tmp_path / "t.graphml").write_text(write(topology, "graphml"))
    # networkx groups links by vertex, so their order may differ.
    links = sorted(from_networkx(networkx.read_graphml(tmp_path / "t.graphml", force_multigraph=True)).links)
    assert links == sorted(topology.links)
    document = json.loads(write(topology, "node-link"))
    assert sorted(from_networkx(networkx.node_link_graph(document, edges="edges")).links) == links


def test_slurm_keeps_the_tree() -> None:
    topology = read(FILES / "slurm_tree.conf")
    text = write(topology, "slurm-conf")
    assert reads(text) == reads(write(reads(text), "slurm-conf"))
    lines = text.splitlines()
    assert lines[1:] == [
        "SwitchName=top Switches=s[1-2],s3x",
        "SwitchName=s1 Nodes=tux[0-3],tux12,tux[018-019]",
        "SwitchName=s2 Nodes=rack1n[01-02],rack2n[01-02]",
        "SwitchName=s3x Switches=s3",
        "SwitchName=s3 Nodes=rack1n[01-02],rack2n[01-02]",
    ]


def test_slurm_gets_names_that_it_can_have() -> None:
    text = write(read(FILES / "ibnetdiscover.out"), "slurm-conf")
    assert '# spine_core_=spine \\"core\\"' in text
    assert "SwitchName=leaf-1 Nodes=H-0000000000000004,node[1-2],node10" in text
    assert "SwitchName=spine_core_ Switches=leaf-1" in text


def test_slurm_refuses_switches_that_are_no_tree() -> None:
    hosts = [Node(name, NodeKind.DEVICE) for name in "hij"]
    switches = [Node(name, NodeKind.SWITCH) for name in "stu"]
    ends = [(0, 3), (1, 4), (2, 5), (3, 4), (4, 5), (5, 3)]
    links = [Link(*pair, 1) for a, b in ends for pair in ((a, b), (b, a))]
    with pytest.raises(TopologyError, match="'s' and 't' are on one level and joined"):
        write(Topology("x", (*hosts, *switches), tuple(links)), "slurm-conf")
    with pytest.raises(TopologyError, match="no switch between hosts"):
        write(pair(1, 1), "slurm-conf")


@pytest.mark.parametrize("shapes", ["Ring", "Switch", "FullyConnected"])
@pytest.mark.parametrize("sizes", ["2", "3", "8", "1", "4, 3", "3, 2, 2"])
def test_astrasim_finds_the_product_again(shapes: str, sizes: str) -> None:
    count = sizes.count(",") + 1
    rates, times = ["50", "12.3", "7"][:count], ["500", "0", "3.5"][:count]
    text = (
        f"topology: [ {', '.join([shapes] * count)} ]\nnpus_count: [ {sizes} ]\n"
        f"bandwidth: [ {', '.join(rates)} ]\nlatency: [ {', '.join(times)} ]\n"
    )
    topology = reads(text)
    again = reads(write(topology, "astra-sim"))
    found, wanted = sorted(again.links), sorted(topology.links)
    assert [link[:3] for link in found] == [link[:3] for link in wanted]
    assert [link.latency_s for link in found] == pytest.approx([link.latency_s for link in wanted])


def test_astrasim_of_the_sample() -> None:
    text = write(read(FILES / "astrasim.yml"), "astra-sim")
    assert text.splitlines() == [
        "topology: [ Ring, FullyConnected, Switch ]".replace("FullyConnected", "Ring"),  # of 2, the same
        "npus_count: [ 3, 2, 4 ]",
        "bandwidth: [ 50, 25, 12.5 ]  # units of 2^30 bytes per second",
        "latency: [ 500, 936.25, 2000 ]  # ns",
    ]


def test_astrasim_refuses_what_it_cannot_say() -> None:
    with pytest.raises(TopologyError, match="no product of rings, full meshes and switches"):
        write(pair(1000, 2000), "astra-sim")
    with pytest.raises(TopologyError, match="joins two vertices that are not devices"):
        write(read(FILES / "slurm_tree.conf"), "astra-sim")


def test_ns3_knows_cables_only() -> None:
    topology = read(FILES / "simai.txt")
    again = reads(write(topology, "simai"))
    assert [link[:4] for link in again.links] == [link[:4] for link in topology.links]
    with pytest.raises(TopologyError, match="a -> b has no equal one back"):
        write(pair(1000, 2000), "simai")


def test_unknown_format() -> None:
    with pytest.raises(UsageError, match=f"no format 'xls' to write; there are {', '.join(EXPORTS)}"):
        write(pair(1, 1), "xls")


def test_names_that_a_format_cannot_have() -> None:
    topology = Topology("x", (Node("a\x01", NodeKind.DEVICE),), ())
    with pytest.raises(TopologyError, match="characters that XML cannot carry"):
        write(topology, "graphml")
    assert reads(write(topology, "node-link")) == topology
