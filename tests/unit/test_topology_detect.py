"""What is found on a host, from made-up copies of /sys."""

from __future__ import annotations

from pathlib import Path

import pytest

from pycomm.topology import NodeKind, Topology
from pycomm.topology.detect import detect


class Sys:
    """A made-up /sys: files, PCI functions in their tree, and interfaces."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "sys/devices/system/node").mkdir(parents=True)

    def write(self, path: str, **files: object) -> Path:
        folder = self.root / "sys" / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(f"{text}\n")
        return folder

    def numa(self, count: int) -> None:
        for number in range(count):
            self.write(f"devices/system/node/node{number}")

    def pci(self, path: str, **files: object) -> Path:
        """A function, given with the bridges above it, and its link in /sys/bus/pci/devices."""
        folder = self.write(f"devices/pci0000:00/{path}", **files)
        bus = self.write("bus/pci/devices")
        (bus / folder.name).symlink_to(folder)
        return folder

    def net(self, name: str, device: Path | None = None, **files: object) -> None:
        facts = {"type": 1, "operstate": "up", "ifindex": 5, "iflink": 5} | files
        folder = self.write(f"class/net/{name}", **facts)
        if device is not None:
            (folder / "device").symlink_to(device)

    def infiniband(self, name: str, device: Path, **files: object) -> None:
        folder = self.write(f"class/infiniband/{name}/ports/1", **files)
        (folder.parents[1] / "device").symlink_to(device)


GEN5 = {"current_link_speed": "32.0 GT/s PCIe", "current_link_width": 16}


@pytest.fixture
def sys(tmp_path):
    return Sys(tmp_path)


def rate(topology: Topology, src: str, dst: str) -> int:
    (link,) = topology.find_links(src, dst)
    return topology.links[link].bytes_per_s


def test_a_host_with_nothing_has_one_process(sys):
    found = detect(root=sys.root, host="h")
    assert [node.name for node in found.nodes] == ["h/numa0", "h/cpu0"]
    assert {node.host for node in found.nodes} == {"h"}
    assert any("assumed" in note and "memory" in note for note in found.notes)


def test_processes_are_shared_out_over_the_numa_nodes(sys):
    sys.numa(2)
    found = detect(4, root=sys.root, host="h")
    assert [found.find_links(f"h/cpu{i}", f"h/numa{i // 2}") != () for i in range(4)] == [True] * 4
    assert rate(found, "h/numa0", "h/numa1") == rate(found, "h/numa1", "h/numa0")


def test_accelerators_and_nics_behind_one_pcie_switch(sys):
    sys.numa(2)
    for n, numa in ((0, 0), (1, 1)):
        up = f"0000:{n}0:01.0/0000:{n}1:00.0"
        sys.pci(
            f"{up}/0000:{n}2:00.0/0000:{n}3:00.0",
            **{"class": "0x030200", "vendor": "0x10de"},
            numa_node=numa,
            **GEN5,
        )
        nic = sys.pci(f"{up}/0000:{n}2:01.0/0000:{n}4:00.0", **{"class": "0x020700"}, numa_node=numa, **GEN5)
        sys.infiniband(
            f"mlx5_{n}", nic, state="4: ACTIVE", rate="400 Gb/sec (4X NDR)", link_layer="InfiniBand"
        )
        sys.net(f"ib{n}", nic, speed=400000)
    found = detect(root=sys.root, host="h")
    kinds = {kind: [node.name for node in found.nodes if node.kind is kind] for kind in NodeKind}
    assert kinds[NodeKind.DEVICE] == ["h/nvidia0", "h/nvidia1"]
    assert kinds[NodeKind.NIC] == ["h/mlx5_0:1", "h/mlx5_1:1"], (
        "an interface of an RDMA port is no NIC of its own"
    )
    assert rate(found, "h/mlx5_0:1", "h/pcie-0000:01:00.0") == 48 * 10**9, "the slower of port and slot"
    assert rate(found, "h/nvidia1", "h/pcie-0000:11:00.0") == 48 * 10**9
    assert found.find_links("h/pcie-0000:11:00.0", "h/numa1") or found.find_links(
        "h/pcie-0000:10:01.0", "h/numa1"
    )
    assert [node.vendor for node in found.nodes if node.kind is NodeKind.DEVICE] == ["nvidia", "nvidia"]


def test_what_carries_nothing_is_left_out(sys):
    sys.net("lo", type=772)
    sys.net("docker0", iflink=5, ifindex=5)
    sys.net("down0", operstate="down", iflink=6)
    sys.net("veth0", iflink=9, speed=10000)
    sys.pci("0000:00:02.0", **{"class": "0x030000", "vendor": "0x8086"})
    sys.pci("0000:00:03.0", **{"class": "0x030000", "vendor": "0x1234"})
    found = detect(root=sys.root, host="h")
    assert [node.name for node in found.nodes] == ["h/numa0", "h/veth0", "h/cpu0"]
    assert rate(found, "h/veth0", "h/numa0") == 1_250_000_000


def test_a_nic_without_speed_is_assumed_and_said(sys):
    nic = sys.pci("0000:00:03.0", **{"class": "0x020000"}, numa_node=-1)
    sys.net("eth0", nic, speed=-1)
    found = detect(root=sys.root, host="h")
    assert rate(found, "h/eth0", "h/numa0") == 1_250_000_000
    assert any("eth0" in note and "assumed" in note for note in found.notes)


def test_this_machine_can_be_looked_at():
    found = detect(2)
    assert len(found.devices) >= 2
    assert all(node.host for node in found.nodes)
