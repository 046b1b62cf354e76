"""Every format on a small file with the traps of real ones: the counts, the rates and the order of ranks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pycomm.errors import TopologyError, UsageError
from pycomm.topology import Topology
from pycomm.topology.graphs import from_networkx
from pycomm.topology.importers import FORMATS, assumptions, detect_format, read, reads
from pycomm.topology.model import NodeKind

FILES = Path(__file__).parent.parent / "topofiles"

# file, format, (devices, NICs, hosts, switches, links)
COUNTS = {
    "nccl_hgx.xml": ("nccl-xml", (4, 4, 2, 5, 34)),
    "nccl_virtual.xml": ("nccl-xml", (2, 1, 1, 1, 8)),
    "rccl_ring.xml": ("nccl-xml", (3, 0, 1, 0, 12)),
    "hwloc_v2.xml": ("hwloc-xml", (2, 1, 2, 2, 16)),
    "hwloc_v3.xml": ("hwloc-xml", (2, 1, 2, 2, 16)),
    "ranktable_1_0.json": ("ranktable", (4, 4, 0, 3, 24)),
    "ranktable_1_2.json": ("ranktable", (4, 4, 0, 3, 24)),
    "ranktable_2_0.json": ("ranktable", (4, 0, 0, 4, 24)),
    "ranktable_groups.json": ("ranktable", (2, 2, 0, 1, 8)),
    "ibnetdiscover.out": ("ibnetdiscover", (4, 4, 0, 3, 22)),
    "slurm_tree.conf": ("slurm-conf", (11, 0, 11, 5, 60)),
    "slurm_blocks.conf": ("slurm-conf", (8, 0, 8, 3, 48)),
    "slurm_topologies.yaml": ("slurm-yaml", (4, 0, 4, 3, 20)),
    "topograph.yaml": ("topograph", (6, 0, 6, 5, 40)),
    "graph.graphml": ("graphml", (3, 0, 0, 1, 6)),
    "zoo.graphml": ("graphml", (3, 0, 0, 0, 6)),
    "graph.dot": ("dot", (4, 0, 0, 1, 10)),
    "nodelink_edges.json": ("node-link", (2, 0, 0, 1, 4)),
    "nodelink_links.json": ("node-link", (3, 0, 0, 0, 3)),
    "astrasim.yml": ("astra-sim", (24, 0, 0, 6, 120)),
    "simai.txt": ("simai", (4, 0, 0, 5, 18)),
    "ns3.txt": ("simai", (2, 0, 0, 1, 4)),
    "msccl.json": ("matrix", (3, 0, 0, 2, 6)),
    "matrix.csv": ("matrix", (3, 0, 0, 0, 5)),
    "matrix.json": ("matrix", (3, 0, 0, 0, 6)),
}


def counts(topology: Topology) -> tuple[int, ...]:
    kinds = Counter(node.kind for node in topology.nodes)
    order = (NodeKind.DEVICE, NodeKind.NIC, NodeKind.HOST, NodeKind.SWITCH)
    return (*(kinds[kind] for kind in order), len(topology.links))


def rate(topology: Topology, src: str, dst: str) -> float:
    """GB/s of all links from one vertex to another together."""
    return sum(topology.links[i].bytes_per_s for i in topology.find_links(src, dst)) / 1e9


def names(topology: Topology) -> list[str]:
    return [topology.nodes[i].name for i in topology.devices]


def noted(topology: Topology, *words: str) -> bool:
    return any(all(word in note for word in words) for note in topology.notes)


def test_every_sample_has_its_counts() -> None:
    found = {path.name for path in FILES.iterdir() if path.is_file()}
    assert found == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name: str) -> None:
    format, wanted = COUNTS[name]
    text = (FILES / name).read_text()
    assert detect_format(text) == format  # the name is not needed
    assert counts(read(FILES / name)) == wanted
    assert counts(reads(text, format=format)) == wanted


def test_every_format_has_a_sample() -> None:
    assert {format for format, _ in COUNTS.values()} == set(FORMATS) - {"toml"}


@pytest.mark.parametrize("name", COUNTS)
def test_names_are_unique_and_links_join_the_hosts_parts(name: str) -> None:
    topology = read(FILES / name)
    assert len({node.name for node in topology.nodes}) == len(topology.nodes)
    assert read(FILES / name) == topology


class TestNccl:
    def test_ranks_are_not_device_numbers(self) -> None:
        topology = read(FILES / "nccl_hgx.xml")
        assert names(topology) == ["gpu3", "gpu2", "gpu1", "gpu0"]
        assert noted(topology, "order of the file's ranks")

    def test_every_spelling_of_a_link_speed(self) -> None:
        topology = read(FILES / "nccl_hgx.xml")
        assert rate(topology, "cpu0", "pci 0000:10:00.0") == 48  # 32.0 GT/s PCIe, 16 lanes
        assert rate(topology, "pci 0000:10:00.0", "gpu0") == 24  # 16.0 GT/s PCIe
        assert rate(topology, "pci 0000:10:00.0", "gpu1") == 24  # 16 GT/s
        assert rate(topology, "cpu1", "pci ffff:ff:01.0") == 12  # unknown: generation 3, 0 lanes: 16
        assert rate(topology, "pci ffff:ff:01.0", "gpu2") == 3  # 5.0 GT/s, 8 lanes
        assert rate(topology, "gpu3", "pci ffff:ff:01.0") == 3  # 2.5 GT/s
        assert noted(topology, "'Unknown'", "generation 3")
        assert noted(topology, "width", "16 lanes")

    def test_a_port_is_as_fast_as_the_slower_of_port_and_link(self) -> None:
        topology = read(FILES / "nccl_hgx.xml")
        assert rate(topology, "pci 0000:10:00.0", "mlx5_0") == 48
        assert rate(topology, "pci 0000:23:00.0", "mlx5_1") == 12.5
        assert rate(topology, "pci 0000:23:00.0", "mlx5_1 port 2") == 1.25
        assert rate(topology, "cpu1", "eth0") == 3.125
        assert noted(topology, "10 Gbit/s, as NCCL has it")
        assert noted(topology, "1 network ports of 400 Gbit/s")

    def test_nvswitches_that_are_not_in_the_tree(self) -> None:
        topology = read(FILES / "nccl_hgx.xml")
        assert rate(topology, "gpu0", "nvswitch 0000:e0:00.0") == pytest.approx(4 * 20.6)
        assert rate(topology, "nvswitch 0000:e1:00.0", "gpu1") == pytest.approx(5 * 20.6)
        assert rate(topology, "gpu2", "gpu3") == pytest.approx(2 * 20.6)
        assert noted(topology, "left out: 3 nvlink links to devices that are not in the file")
        assert noted(topology, "left out: 1 PCI bridges")
        assert noted(topology, "left out: 1 PCI functions of class 0x010802")

    def test_assumptions_change_the_rates(self) -> None:
        topology = read(FILES / "nccl_hgx.xml", nvlink="25 GB/s", between_cpus="100 GB/s", host="node7")
        assert rate(topology, "gpu2", "gpu3") == 50
        assert rate(topology, "cpu0", "cpu1") == 100
        assert {node.host for node in topology.nodes if node.kind is NodeKind.DEVICE} == {"node7"}

    def test_the_class_decides_without_tags(self) -> None:
        topology = read(FILES / "nccl_virtual.xml")
        assert [topology.nodes[i].vendor for i in topology.devices] == ["nvidia", "amd"]
        assert noted(topology, "no ranks")

    def test_bus_ids_alone_are_not_enough(self) -> None:
        with pytest.raises(TopologyError, match=r"no device.*known by their bus id alone"):
            reads('<system version="1"><cpu numaid="0"><pci busid="0000:00:16.0"/></cpu></system>')

    def test_a_compute_capability_that_cannot_be(self) -> None:
        text = (FILES / "nccl_hgx.xml").read_text().replace('sm="90"', 'sm="-1"')
        assert rate(reads(text), "gpu2", "gpu3") == 40

    def test_xgmi_by_generation(self) -> None:
        topology = read(FILES / "rccl_ring.xml")
        assert rate(topology, "gpu0", "gpu1") == 144
        assert rate(topology, "gpu1", "gpu2") == 36

    def test_devices_that_share_a_function_share_its_links(self) -> None:
        fast = '<nvlink target="ff" count="36" tclass="0x068000"/>'
        part = '<gpu dev="0" sm="107" mlopart="{}" rank="{}">' + fast + "</gpu>"
        pci = f'<pci busid="a" class="0x030200" link_speed="64.0 GT/s PCIe" link_width="2">{part}{part}</pci>'
        nic = '<nic><net name="eth0" dev="0" speed="10000" port="0"/></nic>'
        cpus = f'<cpu numaid="0">{pci.format(0, 0, 1, 1)}{nic}</cpu><cpu numaid="1">{nic}</cpu>'
        topology = reads(f'<system version="1">{cpus}</system>')
        assert names(topology) == ["gpu0", "gpu1"]
        assert rate(topology, "gpu0", "nvswitch ff") == rate(topology, "nvswitch ff", "gpu1") == 721.8
        assert rate(topology, "cpu0", "pci a") == 12
        assert noted(topology, "1 network ports of 10 Gbit/s")
        assert rate(topology, "cpu0", "eth0") == rate(topology, "cpu1", "eth0") == 1.25

    def test_hosts_of_a_fused_file_are_told_apart(self) -> None:
        gpu = '<pci busid="0:1:0.0" class="0x030200"><gpu dev="0" sm="80" rank="{}"/></pci>'
        one = '<cpu numaid="0" host_hash="{}">' + gpu + "</cpu>"
        topology = reads(f'<system version="2">{one.format("0xa", 1)}{one.format("0xb", 0)}</system>')
        assert [(n.name, n.host) for n in topology.nodes if n.kind is NodeKind.DEVICE] == [
            ("host1/gpu0", "host1"),
            ("gpu0", "host0"),
        ]


class TestHwloc:
    def test_types_of_system_devices_mean_the_same_in_both_versions(self) -> None:
        assert read(FILES / "hwloc_v2.xml") == read(FILES / "hwloc_v3.xml")

    def test_matrix_of_accelerators_and_switches(self) -> None:
        topology = read(FILES / "hwloc_v3.xml")
        assert rate(topology, "gpu0", "gpu1") == 50
        assert rate(topology, "gpu1", "nvswitch 0000:13:00.0") == 25
        assert rate(topology, "pci 0000:10:00.0", "gpu0") == 31.507692
        assert rate(topology, "pci 0000:10:00.0", "nvswitch 0000:13:00.0") == 0
        assert topology.nodes[0].model == "Example Accelerator"
        assert topology.nodes[topology.index["mlx5_0"]].kind is NodeKind.NIC

    def test_what_is_left_out_and_assumed_is_listed(self) -> None:
        topology = read(FILES / "hwloc_v3.xml")
        assert noted(topology, "left out: 1 PCI functions of class 0300")
        assert noted(topology, "left out: 1 PCI bridges that lead to neither")
        assert noted(topology, "left out: 1 matrices NUMALatency")
        assert noted(topology, "PCI links without a speed", "pcie=")
        assert noted(topology, "between two packages", "22 GB/s")

    def test_a_machine_without_accelerators(self) -> None:
        package = '<object type="Machine"><object type="Package" os_index="0"/></object>'
        topology = reads(f'<topology version="2.0">{package}</topology>')
        assert names(topology) == ["cpu0"]
        assert noted(topology, "no accelerator")

    def test_a_matrix_must_be_whole(self) -> None:
        text = (FILES / "hwloc_v3.xml").read_text().replace("50000 1000000 25000 0", "50000 1000000 25000")
        with pytest.raises(
            TopologyError, match=r":45: matrix NVLinkBandwidth has 4 objects and 15 values; 4 and 16"
        ):
            reads(text, "m.xml")


class TestRanktable:
    def test_ranks_give_the_order(self) -> None:
        assert names(read(FILES / "ranktable_1_0.json")) == [
            "10.1.0.1/0",
            "10.1.0.1/1",
            "10.1.0.2/3",
            "10.1.0.2/4",
        ]
        assert noted(read(FILES / "ranktable_groups.json"), "no rank ids")

    def test_supernodes_join_their_devices(self) -> None:
        topology = read(FILES / "ranktable_1_2.json", superpod="392 GB/s", link="400 Gbit/s", model="910C")
        assert rate(topology, "node_1/0", "supernode 1") == 392
        assert rate(topology, "nic 192.168.1.3", "network") == 50
        assert {topology.nodes[i].model for i in topology.devices} == {"910C"}
        assert noted(topology, "left out: 1 backup addresses")

    def test_layers_count_ports_by_plane(self) -> None:
        topology = read(FILES / "ranktable_2_0.json", port="100 Gbit/s")
        assert rate(topology, "rack0-pod0/0", "layer 0 rack0-pod0") == 12.5
        assert rate(topology, "rack0-pod1/1", "layer 1 rack0 plane0") == 50
        assert rate(topology, "rack0-pod1/1", "layer 1 rack0 plane1") == 25

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            (('"rank_id": "3"', '"rank_id": "2"'), r"server_list\[1\].device\[1\]: rank 2 is there twice"),
            (('"rank_id": "3"', '"rank_id": "7"'), r"device\[0\]: rank 7 is there but rank 3 is not"),
            (('"rank_id": "3"', '"rank_id": "x"'), r"rank_id: a whole number"),
            (('"server_count": "2"', '"server_count": "3"'), "3 are announced but 2 are listed"),
            (('"device_id": "4"', '"device_id": "3"'), r"device 3 of server '10.1.0.2' is there twice"),
            (('"10.1.0.2"', '"10.1.0.1"'), "server '10.1.0.1' is there twice"),
            (('"device_ip": "192.168.0.4", ', ""), "1 devices have no device_ip"),
        ],
    )
    def test_contradictions(self, change: tuple[str, str], complaint: str) -> None:
        with pytest.raises(TopologyError, match=complaint):
            reads((FILES / "ranktable_1_0.json").read_text().replace(*change))

    def test_tables_without_rank_ids(self) -> None:
        text = '{"server_list": [{"server_id": "s", "device": [{"device_id": "4"}, {"device_id": "2"}]}]}'
        topology = reads(text)
        assert names(topology) == ["s/4", "s/2"]
        assert noted(topology, "no rank ids")

    def test_one_server_needs_no_addresses(self) -> None:
        topology = reads(
            '{"server_list": [{"server_id": "s", "device": [{"device_id": "0", "rank_id": "0"}]}]}'
        )
        assert counts(topology) == (1, 0, 0, 0, 0)


class TestIbnetdiscover:
    def test_cables_count_once_with_their_rates(self) -> None:
        topology = read(FILES / "ibnetdiscover.out")
        assert rate(topology, "leaf-1", 'spine \\"core\\"') == 100  # two cables of 50
        assert rate(topology, "node2 mlx5_0", "leaf-1") == 12.5  # 2xHDR
        assert rate(topology, "gateway", 'spine \\"core\\"') == 12.5  # a router with no section of its own
        assert noted(topology, "left out: 1 cables from a switch to itself")
        assert noted(topology, "left out: 1 adapters without a cable")
        assert noted(topology, "without a section of their own", "R-0000000000000300")

    def test_hosts_in_natural_order_and_lost_names(self) -> None:
        topology = read(FILES / "ibnetdiscover.out")
        assert names(topology) == ["node1/0", "node2/0", "node10/0", "H-0000000000000004/0"]
        assert noted(topology, "1 adapters have the factory's description")

    def test_aggregation_nodes_mark_their_switch(self) -> None:
        def marked(**assume: str) -> list[str]:
            topology = read(FILES / "ibnetdiscover.out", **assume)
            return [node.name for node in topology.nodes if node.reduction]

        assert marked() == ["leaf-1"]
        assert marked(sharp="no") == []

    def test_adapters_can_be_chosen(self) -> None:
        topology = read(FILES / "ibnetdiscover.out", only="^node", inside="100 GB/s", devices="host")
        assert len(topology.devices) == 3
        assert noted(topology, "left out: 2 adapters that `only`")

    def test_port_listed_twice(self) -> None:
        text = (FILES / "ibnetdiscover.out").read_text().replace('[2]\t"H-', '[1]\t"H-')
        with pytest.raises(TopologyError, match=r"f:12: port 1 of 'S-0000000000000100' is listed twice"):
            reads(text, "f")

    def test_unknown_rate(self) -> None:
        text = (FILES / "ibnetdiscover.out").read_text().replace("2xHDR", "4xZDR")
        with pytest.raises(TopologyError, match="f:13: the rate '4xZDR' is not known"):
            reads(text, "f")


class TestSlurm:
    def test_names_in_any_case_with_ranges_comments_and_continuations(self) -> None:
        topology = read(FILES / "slurm_tree.conf")
        hosts = [node.name for node in topology.nodes if node.kind is NodeKind.HOST]
        assert hosts[:7] == ["tux0", "tux1", "tux2", "tux3", "tux12", "tux018", "tux019"]
        assert hosts[7:] == ["rack1n01", "rack1n02", "rack2n01", "rack2n02"]
        assert noted(topology, "s1 is leaf one")
        assert noted(topology, "left out: 1 LinkSpeed=")
        assert noted(topology, "left out: 1 lines with topologyparam=")

    def test_rates_are_asked_for_or_noted(self) -> None:
        assert noted(read(FILES / "slurm_tree.conf"), "every link has", "400 Gbit/s", "link=")
        topology = read(
            FILES / "slurm_tree.conf", link="100 Gbit/s", trunk="full", devices="8", inside="300 GB/s"
        )
        assert len(topology.devices) == 88
        assert rate(topology, "tux0", "s1") == 12.5
        assert rate(topology, "s1", "top") == 7 * 12.5
        assert rate(topology, "tux0/3", "tux0") == 300
        assert not noted(topology, "every link has")

    def test_blocks(self) -> None:
        topology = read(FILES / "slurm_blocks.conf", domain="450 GB/s")
        assert rate(topology, "n05/0", "b2") == 450
        assert noted(topology, "left out: 1 blocks without nodes")
        assert noted(topology, "one switch 'network'")

    def test_the_default_topology_of_a_yaml(self) -> None:
        tree = read(FILES / "slurm_topologies.yaml")
        assert tree.name == "tree"
        assert rate(tree, "leaf2", "root") == 50
        assert noted(tree, "other topologies: blocky, none")
        assert counts(read(FILES / "slurm_topologies.yaml", topology="blocky")) == (4, 0, 4, 3, 24)
        with pytest.raises(TopologyError, match="flat"):
            read(FILES / "slurm_topologies.yaml", topology="none")
        with pytest.raises(TopologyError, match="no topology 'x'"):
            read(FILES / "slurm_topologies.yaml", topology="x")

    def test_a_model_of_topograph(self) -> None:
        topology = read(FILES / "topograph.yaml")
        assert noted(topology, "domains of fast links: nvl1, nvl2")
        assert noted(topology, "left out: 1 blocks without nodes")
        assert rate(topology, "other7", "sw2") == 50
        assert rate(topology, "node0002/0", "nvl2") == 50


class TestGraphs:
    def test_graphml(self) -> None:
        topology = read(FILES / "graph.graphml")
        assert names(topology) == ["gpu A", "gpu B (n1)", "gpu B (n3)"]
        assert rate(topology, "n2", "gpu A") == 50
        assert topology.links[topology.find_links("n2", "gpu A")[0]].latency_s == 1.5e-6
        assert topology.nodes[topology.index["gpu B (n1)"]].host == "h1"
        assert noted(topology, "1 edges without a bandwidth")
        assert noted(topology, "left out: 1 edges from a vertex to itself")

    def test_topology_zoo(self) -> None:
        topology = read(FILES / "zoo.graphml", link="1 Gbit/s")
        assert rate(topology, "Paris", "Rome") == 1.25
        assert rate(topology, "Rome", "None") == 0.3125
        assert rate(topology, "Paris", "None") == 0.125
        assert noted(topology, "bounds")
        assert noted(topology, "3 vertices without a kind", "kind=")

    def test_dot(self) -> None:
        topology = read(FILES / "graph.dot")
        assert topology.name == "my net"
        assert rate(topology, "g 3", "sw") == rate(topology, "sw", "g0") == 50
        assert rate(topology, "g0", "g1") == 25
        assert [node.host for node in topology.nodes] == ["h0", "h0", "h1", "h1", ""]
        latencies = {topology.link_name(i): link.latency_s for i, link in enumerate(topology.links)}
        assert latencies["g0 -> g1"] == latencies["g1 -> g0"] == 2e-6  # a bare number is microseconds

    def test_node_link_collapses_repeated_edges(self) -> None:
        topology = read(FILES / "nodelink_edges.json")
        assert topology.name == "star"
        assert rate(topology, "sw", "0") == 12.5
        assert topology.nodes[0].multicast
        assert noted(topology, "left out: 1 edges that repeat another")

    def test_directed_flag_on_what_is_not(self) -> None:
        assert noted(read(FILES / "nodelink_links.json"), "directed=no")
        assert len(read(FILES / "nodelink_links.json", directed="no").links) == 6

    def test_written_by_networkx(self, tmp_path: Path) -> None:
        networkx = pytest.importorskip("networkx")
        import json

        graph = networkx.DiGraph(name="pair")
        graph.add_node("a", kind="device", host="h")
        graph.add_node("b", kind="switch")
        graph.add_edge("a", "b", bandwidth=12.5, latency=1.5)
        graph.add_edge("b", "a", bandwidth=25)
        networkx.write_graphml(graph, tmp_path / "g.graphml")
        dump = json.dumps(networkx.node_link_data(graph, edges="edges"))
        assert read(tmp_path / "g.graphml") == reads(dump) == from_networkx(graph)
        assert rate(reads(dump), "b", "a") == 25


class TestSimulators:
    def test_dimensions_and_binary_units(self) -> None:
        topology = read(FILES / "astrasim.yml")
        assert topology.links[0].bytes_per_s == 50 * 2**30
        assert rate(topology, "npu0", "npu2") == 50 * 2**30 / 1e9  # the ring closes
        assert rate(topology, "npu0", "npu3") == 25 * 2**30 / 1e9
        assert (
            rate(topology, "npu0", "switch2.0") == rate(topology, "npu18", "switch2.0") == 12.5 * 2**30 / 1e9
        )
        assert topology.links[-1].latency_s == pytest.approx(2e-6)

    def test_simai(self) -> None:
        topology = read(FILES / "simai.txt")
        assert [topology.nodes[i].host for i in topology.devices] == ["host0", "host0", "host1", "host1"]
        assert topology.nodes[5].name == "nvswitch5"
        assert topology.nodes[5].host == "host1"
        assert rate(topology, "gpu0", "nvswitch4") == 360
        assert topology.links[0].latency_s == pytest.approx(25e-9)
        assert noted(topology, "left out: 1 error rates")

    def test_links_are_counted(self) -> None:
        text = (FILES / "simai.txt").read_text().replace("3 9 H100", "3 10 H100")
        with pytest.raises(TopologyError, match="f:1: 10 links are announced but 9 are listed"):
            reads(text, "f")


class TestMatrix:
    def test_msccl_rows_receive_and_switches_limit(self) -> None:
        topology = read(FILES / "msccl.json", unit="25 GB/s")
        assert topology.name == "half ring"
        assert rate(topology, "gpu1", "out of 1") == 25
        assert rate(topology, "out of 1", "into 0") == 25
        assert rate(topology, "out of 1", "gpu2") == 25
        assert rate(topology, "gpu2", "into 0") == 50
        assert rate(topology, "into 0", "gpu0") == 50
        assert rate(topology, "gpu0", "gpu1") == 25

    def test_tables_with_headings_and_units(self) -> None:
        topology = read(FILES / "matrix.csv")
        assert rate(topology, "gpu1", "gpu2") == 12.5
        assert rate(topology, "gpu0", "gpu1") == 25
        assert topology.find_links("gpu2", "gpu0") == ()
        hosts = [node.host for node in read(FILES / "matrix.json", devices_per_host=2).nodes]
        assert hosts == ["host0", "host0", "host1"]

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("[[0, 1], [1]]", "row 2: there are 1 columns but 2 rows"),
            ("[[0, -1], [1, 0]]", "row 1, column 2: '-1' is not a bandwidth"),
            ("[[0, 1e30], [1, 0]]", "row 1, column 2"),
            ("[[0, NaN], [1, 0]]", "NaN is not a JSON number"),
        ],
    )
    def test_bad_cells(self, text: str, complaint: str) -> None:
        with pytest.raises(TopologyError, match=complaint):
            reads(text, format="matrix")


class TestUse:
    def test_assumptions_are_checked(self) -> None:
        with pytest.raises(
            UsageError, match="speed= is no assumption of the format slurm-conf, which takes link"
        ):
            read(FILES / "slurm_tree.conf", speed="1 GB/s")
        with pytest.raises(UsageError, match="has no unit"):
            read(FILES / "slurm_tree.conf", link=400)
        with pytest.raises(UsageError, match="devices='0' must be a whole number from 1"):
            read(FILES / "slurm_tree.conf", devices="0")
        with pytest.raises(UsageError, match="there is no format 'xls'"):
            read(FILES / "slurm_tree.conf", "xls")
        assert assumptions("slurm-conf") == ("link", "trunk", "domain", "devices", "inside")

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(TopologyError, match=r"none\.xml: cannot be read: No such file"):
            read(tmp_path / "none.xml")
        with pytest.raises(TopologyError, match="cannot be read: Is a directory"):
            read(tmp_path)
