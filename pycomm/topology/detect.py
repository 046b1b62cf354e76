"""What this host looks like, from what Linux shows in ``/sys``: processors, PCIe tree, NICs, accelerators.

::

    /sys/devices/system/node/node*        the NUMA nodes: a vertex of kind ``host`` each
    /sys/devices/pci*/...                 the PCIe tree: a bridge with several of the wanted things below it
                                          becomes a switch; rates from link speed and width
    /sys/class/net/*, /sys/class/infiniband/*
                                          NICs and their speeds
    PCI class and vendor numbers          accelerators, whether or not their runtime is installed

Nothing is measured and nothing is sent; what links between hosts really carry is measured by
:mod:`pycomm.probe`. What the system does not say is assumed, and every assumption is a note of the topology.
A host without accelerators has its processes as devices: as many as are asked for, one by default.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pycomm.topology.draft import Draft
from pycomm.topology.model import Node, NodeKind, Topology
from pycomm.units import format_rate

__all__ = ["ACCELERATOR_VENDORS", "detect"]

ACCELERATOR_VENDORS: Final = {
    "0x10de": "nvidia",
    "0x1002": "amd",
    "0x8086": "intel",
    "0x19e5": "huawei",
    "0xcabc": "cambricon",
    "0x1ed5": "moore-threads",
    "0x9999": "metax",
    "0x1d94": "hygon",
    "0x1e3e": "iluvatar",
    "0x1e36": "enflame",
    "0x1d22": "kunlunxin",
    "0x1da3": "habana",
}
"""Makers of accelerators by their PCI vendor number (source: the PCI ID repository, pci-ids.ucw.cz)."""

MEMORY_BYTES_PER_S: Final = 20 * 10**9
"""Assumed between a process or a NIC and its NUMA node, where nothing says better."""
BETWEEN_NUMA_BYTES_PER_S: Final = 20 * 10**9
"""Assumed between two NUMA nodes, each way."""
NIC_BYTES_PER_S: Final = 1_250_000_000
"""Assumed of a NIC that does not tell its speed: 10 Gbit/s, as NCCL assumes (its src/graph/topo.cc)."""

# Megabytes per second of one lane by transfer rate; as NCCL counts them, which is what payloads reach.
_LANE_MBYTES: Final = {"2.5": 187.5, "5.0": 375, "8.0": 750, "16.0": 1500, "32.0": 3000, "64.0": 6000}
_ADDRESS = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]")
_GRAPHICS, _ACCELERATOR, _NETWORK, _BRIDGE = "0x03", "0x12", "0x02", "0x0604"


@dataclass
class _Function:
    """A PCI function that is a device, a NIC, or a bridge above some."""

    address: str
    kind: NodeKind
    vendor: str
    numa: int
    above: tuple[str, ...]  # addresses of the bridges above it, from the root
    rate: int | None
    nics: list[tuple[str, int | None, str]] = field(default_factory=list)  # name, speed, kind


def detect(processes: int | None = None, *, root: Path = Path("/"), host: str = "") -> Topology:
    """Look at this host.

    Parameters
    ----------
    processes
        How many ranks to place on the processors, shared out over the NUMA nodes; ``None`` means none when
        there are accelerators, and one when there are not.
    root
        Where ``sys`` lies; for tests, and for a copy from another machine.
    host
        Name of the host; its own when left out.

    Returns
    -------
    Topology
        Vertices are named ``HOST/numa0``, ``HOST/eth0``, ``HOST/nvidia0`` and so on.
    """
    host = host or socket.gethostname()
    notes: list[str] = []
    draft = Draft()
    numa = _numa_nodes(root / "sys/devices/system/node")
    hosts = {number: draft.add(Node(f"{host}/numa{number}", NodeKind.HOST, host)) for number in numa}
    for i, a in enumerate(numa):
        for b in numa[i + 1 :]:
            draft.cable(hosts[a], hosts[b], BETWEEN_NUMA_BYTES_PER_S, 0.0, "numa")
    if len(numa) > 1:
        notes.append(f"assumed: {format_rate(BETWEEN_NUMA_BYTES_PER_S)} between NUMA nodes, each way")
    functions = _functions(root / "sys/bus/pci/devices")
    loose = _nics(root / "sys/class", functions)
    vertices = _pci_tree(draft, host, functions, hosts, notes)
    _add_nics(draft, host, functions, vertices, loose, hosts[numa[0]], notes)
    accelerators = sum(function.kind is NodeKind.DEVICE for function in functions.values())
    count = (0 if accelerators else 1) if processes is None else processes
    for i in range(count):
        cpu = draft.add(Node(f"{host}/cpu{i}", NodeKind.DEVICE, host, "cpu"))
        draft.cable(cpu, hosts[numa[i * len(numa) // count]], MEMORY_BYTES_PER_S, 0.0, "memory")
    if count:
        notes.append(f"assumed: {format_rate(MEMORY_BYTES_PER_S)} between a process and memory, each way")
    return draft.topology(host, notes)


def _read(path: Path) -> str:
    """Text of a file of sysfs, ``""`` when the kernel does not offer it here."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):  # a NIC that is down answers EINVAL instead of a speed
        return ""


def _numa_nodes(folder: Path) -> list[int]:
    numbers = sorted(int(path.name[4:]) for path in folder.glob("node[0-9]*"))
    return numbers or [0]


def _functions(folder: Path) -> dict[str, _Function]:
    """Accelerators and NICs by PCI address, each with the bridges above it."""
    found: dict[str, _Function] = {}
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        pci_class = _read(path / "class")
        if pci_class.startswith((_GRAPHICS, _ACCELERATOR)):
            vendor = ACCELERATOR_VENDORS.get(_read(path / "vendor"), "")
            if not vendor or (pci_class.startswith("0x0300") and vendor == "intel"):
                continue  # a screen, not an accelerator
            kind = NodeKind.DEVICE
        elif pci_class.startswith(_NETWORK):
            kind, vendor = NodeKind.NIC, ""
        else:
            continue
        above = tuple(part for part in path.resolve().parts[:-1] if _ADDRESS.fullmatch(part))
        numa = _read(path / "numa_node")
        found[path.name] = _Function(path.name, kind, vendor, max(0, int(numa or 0)), above, _pcie_rate(path))
    return found


def _pcie_rate(path: Path) -> int | None:
    """Bytes per second of a function's PCIe link as it was trained; ``None`` when it has none."""
    speed = re.match(r"([0-9.]+) GT/s", _read(path / "current_link_speed"))
    width = _read(path / "current_link_width")
    lane = _LANE_MBYTES.get(f"{float(speed[1]):.1f}") if speed else None
    return int(lane * 10**6) * int(width) if lane and width.isdecimal() and int(width) else None


def _nics(folder: Path, functions: dict[str, _Function]) -> list[tuple[str, int | None, str]]:
    """Give each PCI NIC its interfaces; returns the interfaces that belong to no PCI function."""
    loose: list[tuple[str, int | None, str]] = []
    infiniband = folder / "infiniband"
    for path in sorted(infiniband.glob("*/ports/*")) if infiniband.is_dir() else ():
        rate = re.match(r"([0-9.]+) Gb/sec", _read(path / "rate"))
        if "ACTIVE" not in _read(path / "state"):
            continue
        kind = "infiniband" if "InfiniBand" in _read(path / "link_layer") else "roce"
        name = f"{path.parents[1].name}:{path.name}"
        speed = int(float(rate[1]) * 10**9 / 8) if rate else None
        _attach((path.parents[1] / "device").resolve(), (name, speed, kind), functions, loose)
    rdma = {f.address for f in functions.values() if f.nics}
    for path in sorted((folder / "net").glob("*")):
        device = (path / "device").resolve() if (path / "device").exists() else None
        if _read(path / "type") != "1" or (device is None and _is_inner(path)):
            continue  # loopback, tunnels, bridges and the like carry nothing of their own
        if _read(path / "operstate") not in ("up", "unknown") or _pci_of(device) in rdma:
            continue
        told = _read(path / "speed")
        mbits = int(told) if told.isdecimal() else 0  # "-1" when there is no carrier or no such thing
        _attach(device, (path.name, mbits * 125_000 or None, "ethernet"), functions, loose)
    return loose


def _is_inner(path: Path) -> bool:
    """Whether an interface without hardware is no way out of the host; a veth pair's end is one."""
    return _read(path / "iflink") == _read(path / "ifindex")


def _pci_of(device: Path | None) -> str:
    """PCI address that a device hangs off, ``""`` when it hangs off none."""
    addresses = [part for part in (device.parts if device else ()) if _ADDRESS.fullmatch(part)]
    return addresses[-1] if addresses else ""


def _attach(
    device: Path | None,
    nic: tuple[str, int | None, str],
    functions: dict[str, _Function],
    loose: list[tuple[str, int | None, str]],
) -> None:
    function = functions.get(_pci_of(device))
    (function.nics if function else loose).append(nic)


def _pci_tree(
    draft: Draft,
    host: str,
    functions: dict[str, _Function],
    hosts: dict[int, int],
    notes: list[str],
) -> dict[str, tuple[int, int]]:
    """Add accelerators and the bridges that several things share; vertex and rate by which each NIC hangs."""
    wanted = {a: f for a, f in functions.items() if f.kind is NodeKind.DEVICE or f.nics}
    below: dict[str, int] = {}
    for function in wanted.values():
        for bridge in function.above:
            below[bridge] = below.get(bridge, 0) + 1
    bridges: dict[str, int] = {}
    places: dict[str, tuple[int, int]] = {}
    counts: dict[str, int] = {}
    unknown = 0
    for address, function in sorted(wanted.items()):
        parent = hosts.get(function.numa, next(iter(hosts.values())))
        rate = function.rate or MEMORY_BYTES_PER_S
        unknown += function.rate is None
        shared = [b for b in function.above if below[b] > 1]
        # A root port is the slot itself; only a switch (two bridges above each other) is a way of its own.
        for bridge in shared:
            if bridge not in bridges:
                bridges[bridge] = draft.add(Node(f"{host}/pcie-{bridge}", NodeKind.SWITCH, host))
                draft.cable(bridges[bridge], parent, rate, 0.0, "pcie")
            parent = bridges[bridge]
        if function.kind is NodeKind.DEVICE:
            number = counts[function.vendor] = counts.get(function.vendor, -1) + 1
            device = draft.add(
                Node(f"{host}/{function.vendor}{number}", NodeKind.DEVICE, host, function.vendor)
            )
            draft.cable(device, parent, rate, 0.0, "pcie")
        else:
            places[address] = parent, rate
    if unknown:
        notes.append(
            f"assumed: {format_rate(MEMORY_BYTES_PER_S)} for {unknown} PCI functions that tell no link"
        )
    return places


def _add_nics(
    draft: Draft,
    host: str,
    functions: dict[str, _Function],
    places: dict[str, tuple[int, int]],
    loose: Iterable[tuple[str, int | None, str]],
    memory: int,
    notes: list[str],
) -> None:
    """Add the NICs, each joined to the PCIe tree or to memory. Their ports lead nowhere yet."""
    hung = [
        (nic, *places[address]) for address, function in sorted(functions.items()) for nic in function.nics
    ] + [(nic, memory, MEMORY_BYTES_PER_S) for nic in loose]
    for (name, speed, kind), parent, rate in hung:
        vertex = draft.add(Node(f"{host}/{name}", NodeKind.NIC, host))
        if speed is None:
            notes.append(f"assumed: {format_rate(NIC_BYTES_PER_S)} for {name}, which does not tell its speed")
        draft.cable(vertex, parent, min(rate, speed or NIC_BYTES_PER_S), 0.0, kind)
