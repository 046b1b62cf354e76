"""NCCL's and RCCL's description of a machine: processors, PCI tree, accelerators, NICs, NVLink or xGMI.

``NCCL_TOPO_DUMP_FILE`` writes it; clouds ship hand-made ones in which devices are known by their PCI class
alone. The figures are those that NCCL itself computes with, because the file gives counts and generations,
not rates: PCI lanes times a constant per generation, NVLink and xGMI by the accelerator's generation, the
way between processors by their kind.

References
----------
NVIDIA/nccl ``src/graph/topo.cc`` (elements, attributes, classes, PCI generations) and ``src/graph/topo.h``
(bandwidths); ROCm/rccl ``src/graph/topo.h`` (xGMI).
"""

from __future__ import annotations

import re

from pycomm.topology.importers.source import Reading, Source, rate_of, shown
from pycomm.topology.importers.xmltext import Element, parse_xml
from pycomm.topology.model import Node, NodeKind, Topology

__all__ = ["between_processors", "nccl"]

_LANE_MBYTES = {"2.5": 15, "5": 30, "8": 60, "16": 120, "32": 240, "64": 480}
"""Units of 100 Mbit/s for one lane by transfer rate: what NCCL counts on, somewhat below the line rate."""

_NVLINK = ((100, 40.1), (90, 20.6), (87, 20.0), (86, 12.0), (80, 20.0), (70, 20.0), (60, 18.0), (0, 20.0))
"""GB/s of one NVLink from this compute capability on."""

_XGMI = (("gfx90a", 36.0), ("910", 36.0), ("gfx94", 48.0), ("940", 48.0), ("941", 48.0), ("942", 48.0))
"""GB/s of one xGMI link by architecture; older ones have 24."""

_MAX_PROCESSORS = 4096

_SPEED = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*GT/s(?:\s+PCIe)?")
_PROCESSORS = (0xCF, 40.0), (0x8F, 22.0), (0x55, 10.0), (0, 6.0)
"""GB/s between Intel processors of family 6 from this model on."""


def nccl(
    source: Source, *, nvlink: str = "", xgmi: str = "", between_cpus: str = "", host: str = "host0"
) -> Topology:
    """Read a topology file of NCCL or RCCL.

    Parameters
    ----------
    source
        The file.
    nvlink, xgmi
        Bandwidth of one such link, instead of what NCCL or RCCL assumes of the generation.
    between_cpus
        Bandwidth between any two processors, instead of what NCCL assumes of their kind.
    host
        Name of the machine; when the file holds several, they are numbered after it.
    """
    root = parse_xml(source)
    if root.tag != "system":
        source.fail(
            f"the root element is <{root.tag[:40]}>, not <system>; is this a file of NCCL's?", root.line
        )
    return _Reader(source, root, nvlink, xgmi, between_cpus, host).read()


class _Reader:
    """The tables that fill while the tree is walked."""

    def __init__(
        self, source: Source, root: Element, nvlink: str, xgmi: str, between_cpus: str, host: str
    ) -> None:
        self.source, self.root = source, root
        self.made = Reading(source)
        self.nvlink = rate_of(nvlink, "nvlink") if nvlink else 0
        self.xgmi = rate_of(xgmi, "xgmi") if xgmi else 0
        self.between = rate_of(between_cpus, "between_cpus") if between_cpus else 0
        self.host_name = host
        self.cpus: list[tuple[int, Element, str]] = []
        self.by_bus: dict[tuple[str, str], int] = {}
        self.cpu_of: dict[int, int] = {}
        self.vertex_of: dict[int, list[int]] = {}
        """Devices of each PCI function, by the identity of its element."""
        self.gpus: list[tuple[int, Element | None, Element, str]] = []
        self.ports: dict[str, int] = {}
        self.nets: dict[tuple[str, str, str], int] = {}

    def read(self) -> Topology:
        version = self.root.get("version")
        if version not in ("", "1", "2"):
            self.made.note(f"the file has version {version}; 1 and 2 are known")
        cpus = list(self.root.named("cpu"))
        if not cpus:
            self.source.fail("there is no <cpu> in <system>; is the file cut short?", self.root.line)
        if len(cpus) > _MAX_PROCESSORS:
            self.source.fail(
                f"there are more than {_MAX_PROCESSORS} processors; that is too many", cpus[-1].line
            )
        hosts = self._hosts(cpus)
        plan = [(cpu, host) for cpu, host in zip(cpus, hosts, strict=True)]
        self._devices(plan)
        for cpu, host in plan:
            name = self._qualified(f"cpu{cpu.get('numaid') or len(self.cpus)}", host)
            vertex = self.made.node(Node(name, NodeKind.HOST, host), cpu.line)
            self.cpus.append((vertex, cpu, host))
            for child in cpu.children:
                if child.tag == "pci":
                    self._pci(child, vertex, vertex, host)
                elif child.tag == "nic":
                    self._nets(child, vertex, host, 0)
                else:
                    self.made.skip(f"<{child.tag[:20]}> elements outside <pci>")
        self._processors()
        for vertex, gpu, pci, host in self.gpus:
            if gpu is not None:
                self._links(vertex, gpu, host, len(self.vertex_of[id(pci)]))
        for speed, count in self.ports.items():
            self.made.note(
                f"{count} network ports of {int(speed) / 1000:g} Gbit/s; the network is not in the file"
            )
        return self.made.topology()

    def _hosts(self, cpus: list[Element]) -> list[str]:
        """Name of each processor's host: one, unless the file was fused from several."""
        hashes: dict[str, str] = {}
        for cpu in cpus:
            hashes.setdefault(cpu.get("host_hash"), "")
        several = len(hashes) > 1
        stem = re.sub(r"[0-9]+$", "", self.host_name) or "host"
        for number, key in enumerate(hashes):
            hashes[key] = f"{stem}{number}" if several else self.host_name
        return [hashes[cpu.get("host_hash")] for cpu in cpus]

    def _qualified(self, name: str, host: str) -> str:
        return f"{host}/{name}" if host != self.host_name else name

    # -- accelerators, in the order of their ranks ---------------------------------------------------------

    def _devices(self, plan: list[tuple[Element, str]]) -> None:
        """Add the accelerators: by rank where every one has a rank, by device number, else as they stand."""
        found: list[tuple[Element | None, Element, str]] = []
        for cpu, host in plan:
            for pci in cpu.walk():
                if pci.tag == "pci":
                    gpus = list(pci.named("gpu"))
                    found += [(gpu, pci, host) for gpu in gpus]
                    if not gpus and _kind(pci) is NodeKind.DEVICE:
                        found.append((None, pci, host))
        ranks = [_integer(gpu, "rank", -1) if gpu else -1 for gpu, _, _ in found]
        numbers = [_integer(gpu, "dev", -1) if gpu else -1 for gpu, _, _ in found]
        order = list(range(len(found)))
        if len(set(ranks)) == len(ranks) and -1 not in ranks:
            order.sort(key=lambda i: ranks[i])
            if ranks != sorted(ranks) or sorted(ranks) != list(range(len(ranks))) or ranks != numbers:
                self.made.note("the devices are listed in the order of the file's ranks")
        elif found:
            self.made.note("the file gives no ranks: the devices are listed as they stand in the file")
        names = [f"gpu{n}" for n in numbers]
        if -1 in numbers or len({(n, f[2]) for n, f in zip(names, found, strict=True)}) != len(found):
            names = [f"gpu{i}" for i in range(len(found))]
        for i in order:
            gpu, pci, host = found[i]
            name = self.made.free_name(self._qualified(names[i], host))
            model = (gpu.get("gcn") or (f"sm_{gpu.get('sm')}" if gpu.get("sm") else "")) if gpu else ""
            vertex = self.made.node(Node(name, NodeKind.DEVICE, host, _vendor(gpu, pci), model), pci.line)
            self.gpus.append((vertex, gpu, pci, host))
            self.vertex_of.setdefault(id(pci), []).append(vertex)

    # -- the PCI tree --------------------------------------------------------------------------------------

    def _pci(self, pci: Element, parent: int, cpu: int, host: str) -> None:
        bus = pci.get("busid").lower()
        if not bus:
            self.source.fail("this <pci> has no busid; is the file damaged?", pci.line)
        devices = self.vertex_of.get(id(pci), [])
        kind = _kind(pci)
        below = [child for child in pci.children if child.tag == "pci"]
        nics = list(pci.named("nic"))
        if devices:
            self._accelerators(pci, bus, devices, parent, cpu, host)
        elif nics or kind is NodeKind.NIC:
            self._nic(pci, nics, parent, host)
        elif below:
            vertex = self._hub(parent, pci, host, self._pci_rate(pci))
            for child in below:
                self._pci(child, vertex, cpu, host)
            return
        elif kind is NodeKind.SWITCH:
            self.made.skip("PCI bridges that nothing is attached to")
        elif not pci.get("class"):
            self.made.skip(
                "PCI functions known by their bus id alone (dump the topology on the machine instead)"
            )
        else:
            self.made.skip(f"PCI functions of class {pci.get('class')[:10]}")
        for child in below:
            self._pci(child, parent, cpu, host)

    def _accelerators(
        self, pci: Element, bus: str, devices: list[int], parent: int, cpu: int, host: str
    ) -> None:
        """Attach what shares one PCI function; more than one device hangs on a vertex of its own."""
        if self.by_bus.setdefault((host, bus), devices[0]) != devices[0]:
            self.source.fail(f"two accelerators have the bus id {bus[:40]}", pci.line)
        rate = self._pci_rate(pci)
        hub = parent if len(devices) == 1 else self._hub(parent, pci, host, rate)
        for device in devices:
            self.cpu_of[device] = cpu
            self.made.cable(hub, device, rate, "pcie", line=pci.line)

    def _hub(self, parent: int, pci: Element, host: str, rate: int) -> int:
        """Add a vertex for a PCI function that several things are attached to."""
        name = self._qualified(f"pci {pci.get('busid').lower()}", host)
        if name in self.made.index:
            self.made.note("some bus ids of PCI bridges occur twice: each is a bridge of its own")
        vertex = self.made.node(Node(self.made.free_name(name), NodeKind.SWITCH, host), pci.line)
        self.made.cable(parent, vertex, rate, "pcie", line=pci.line)
        return vertex

    def _nic(self, pci: Element, nics: list[Element], parent: int, host: str) -> None:
        rate = self._pci_rate(pci)
        nets = [net for nic in nics for net in nic.named("net")]
        if len(nets) > 1:
            parent = self._hub(parent, pci, host, rate)
        for nic in nics:
            self._nets(nic, parent, host, rate)
        if not nets:
            name = self.made.free_name(self._qualified(f"nic {pci.get('busid').lower()}", host))
            vertex = self.made.node(Node(name, NodeKind.NIC, host), pci.line)
            self.made.cable(parent, vertex, rate, "pcie", line=pci.line)
            self.made.note(
                "the file gives no port speeds of some NICs: they count with the rate of their PCI link"
            )

    def _nets(self, nic: Element, parent: int, host: str, rate: int) -> None:
        """Add the ports of a NIC, each as fast as the slower of port and PCI link."""
        for net in nic.named("net"):
            speed = _integer(net, "speed", 0, self.source)
            if speed <= 0:
                speed = 10_000
                self.made.note("a port's speed is missing or -1: it counts as 10 Gbit/s, as NCCL has it")
            name = self._qualified(net.get("name") or f"net{net.get('dev')}", host)
            key = (name, net.get("dev"), net.get("port"))
            if key in self.nets:
                self.made.note(
                    "some ports are listed under several processors: each is one NIC, joined to all"
                )
                self.made.cable(parent, self.nets[key], min(speed * 125_000, rate or speed * 125_000), "pcie")
                continue
            self.ports[str(speed)] = self.ports.get(str(speed), 0) + 1
            if name in self.made.index:
                name = self.made.free_name(f"{name} port {net.get('port')}")
            vertex = self.nets[key] = self.made.node(Node(name, NodeKind.NIC, host), net.line)
            port = speed * 125_000
            latency = _number(net.get("latency"))
            self.made.cable(parent, vertex, min(port, rate or port), "pcie", latency * 1e-6, net.line)

    def _pci_rate(self, pci: Element) -> int:
        text, width = pci.get("link_speed"), _integer(pci, "link_width", 0, self.source)
        match = _SPEED.fullmatch(text)
        key = f"{float(match[1]):g}" if match and len(match[1]) < 9 else ""
        if not width:
            width = 16
            self.made.note("a PCI link's width is missing or 0: it counts as 16 lanes, as NCCL has it")
        if key not in _LANE_MBYTES:
            key = "8"
            self.made.note(
                f"the PCI speed {text[:30]!r} is not known: it counts as generation 3, as NCCL has it"
                if text
                else "a PCI link's speed is missing: it counts as generation 3, as NCCL has it"
            )
        return width * _LANE_MBYTES[key] * 12_500_000

    # -- what is not PCI -----------------------------------------------------------------------------------

    def _processors(self) -> None:
        """Join every two processors of a host."""
        used = set()
        for i, (a, first, host) in enumerate(self.cpus):
            for b, _, other in self.cpus[i + 1 :]:
                if host == other:
                    kind = first.get("arch"), first.get("vendor"), first.get("familyid"), first.get("modelid")
                    rate = self.between or between_processors(*kind)
                    used.add(rate)
                    self.made.cable(a, b, rate, "processors")
        for rate in sorted(used):
            self.made.assumed("the way between two processors has, each way,", shown(rate), "between_cpus")

    def _links(self, vertex: int, gpu: Element, host: str, sharers: int) -> None:
        """Add the fast links of a device; those of a PCI function with several devices are divided."""
        if sharers > 1:
            self.made.note("devices that share a PCI function share its fast links: each has an equal part")
        for link in gpu.children:
            if link.tag in ("nvlink", "xgmi"):
                self._fast_link(vertex, gpu, link, host, sharers)
            elif link.tag == "c2c":
                rate = _integer(link, "count", 0, self.source) * _integer(link, "bw", 0, self.source) * 10**6
                self.made.cable(vertex, self.cpu_of[vertex], rate // sharers, "c2c", line=link.line)

    def _fast_link(self, vertex: int, gpu: Element, link: Element, host: str, sharers: int) -> None:
        count = _integer(link, "count", 0, self.source)
        if not 0 < count <= 1024:
            self.source.fail(f"the count of this link is {count}; it must be from 1 to 1024", link.line)
        if link.tag == "xgmi":
            rate = self.xgmi or round(_xgmi_rate(gpu) * 1e9)
        else:
            rate = self.nvlink or round(_nvlink_rate(gpu, self.source) * 1e9)
        self.made.assumed(f"one {link.tag} link has, each way,", shown(rate), link.tag)
        rate = rate * count // sharers
        target, cls = link.get("target").lower(), link.get("tclass").lower()
        if cls.startswith("0x068001") or cls.startswith("0x0604"):
            self.made.cable(vertex, self.cpu_of[vertex], rate, link.tag, line=link.line)
        elif cls.startswith("0x0680"):
            name = self._qualified(f"nvswitch {target}".strip(), host)
            switch = self.made.index.get(name)
            if switch is None:
                switch = self.made.node(Node(name, NodeKind.SWITCH, host), link.line)
            self.made.cable(vertex, switch, rate, link.tag, line=link.line)
        elif (remote := self.by_bus.get((host, target))) is not None and remote != vertex:
            # Each of the two lists the link, and each entry is its own direction.
            self.made.link(vertex, remote, rate, link.tag, line=link.line)
        else:
            self.made.skip(f"{link.tag} links to devices that are not in the file", count)


def between_processors(arch: str, vendor: str, family: str, model: str) -> int:
    """Return NCCL's figure for the way between two processors of one host, bytes per second each way."""
    if arch.startswith("ppc64"):
        rate = 32.0
    elif arch in ("arm64", "aarch64"):
        rate = 6.0
    elif vendor == "AuthenticAMD":
        rate = 16.0
    elif vendor == "GenuineIntel" and model.isascii() and model.isdigit() and len(model) < 6:
        rate = next(r for least, r in _PROCESSORS if int(model) >= least) if family == "6" else 6.0
    elif vendor == "GenuineIntel":
        rate = 6.0
    elif (vendor, family, model) == ("CentaurHauls", "7", "91"):
        rate = 9.0
    elif vendor in ("CentaurHauls", "Shanghai"):
        rate = 6.0
    else:
        rate = 16.0
    return round(rate * 1e9)


def _nvlink_rate(gpu: Element, source: Source) -> float:
    capability = max(_integer(gpu, "sm", 80, source), 0)
    return next(rate for least, rate in _NVLINK if capability >= least)


def _xgmi_rate(gpu: Element) -> float:
    arch = gpu.get("gcn").lower()
    return next((rate for prefix, rate in _XGMI if arch.startswith(prefix)), 24.0)


def _kind(pci: Element) -> NodeKind | None:
    """Tell from its class what a PCI function is; ``None`` for what neither computes nor communicates."""
    cls = pci.get("class").lower()
    if cls.startswith(("0x03", "0x1200")):
        return NodeKind.DEVICE
    if cls.startswith("0x02"):
        return NodeKind.NIC
    return NodeKind.SWITCH if cls.startswith("0x06") else None


def _vendor(gpu: Element | None, pci: Element) -> str:
    number = pci.get("vendor").lower()
    if number == "0x1002" or (gpu is not None and gpu.get("gcn")):
        return "amd"
    return "nvidia" if number == "0x10de" or gpu is not None else ""


def _integer(element: Element, name: str, default: int, source: Source | None = None) -> int:
    text = element.get(name)
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return int(text)
    if text and source is not None:
        source.fail(f"{name}={text[:40]!r} is not a whole number", element.line)
    return default


def _number(text: str) -> float:
    return float(text) if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,18})?", text) else 0.0
