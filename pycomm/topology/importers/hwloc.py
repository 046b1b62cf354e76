"""hwloc's XML (``lstopo --of xml``) of versions 2 and 3: packages, PCI tree, accelerators, NICs, matrices.

Devices are PCI functions that compute (by class, or because a compute library knows them), NICs those that
communicate; NVSwitches are switches. PCI rates are in the file. NVLink, xGMI and their kin are in its
matrices of bandwidths, in MB/s, whose objects may be accelerators, switches or packages mixed. A machine
without accelerators has one device for each package.

References ---------- open-mpi/hwloc ``hwloc/topology-xml.c`` and ``include/hwloc.h`` (object types; types
of operating system devices are an index in version 2, a mask in version 3), ``include/hwloc/distances.h``
(matrices).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pycomm.topology.importers.nccl import between_processors
from pycomm.topology.importers.source import Reading, Source, rate_of, shown
from pycomm.topology.importers.xmltext import Element, parse_xml
from pycomm.topology.model import Node, NodeKind, Topology

__all__ = ["hwloc"]

_DEFAULT_PCI = "16 GB/s"
_TYPE = re.compile(r"([0-9a-fA-F]{4})(?: \[([0-9a-fA-F]{4}):([0-9a-fA-F]{4})\])?.*")
_COMPUTE_LIBRARIES = ("CUDA", "OpenCL", "NVML", "RSMI", "LevelZero", "AMDSMI")
_VENDORS = {
    "10de": "nvidia",
    "1002": "amd",
    "8086": "intel",
    "1da3": "habana",
    "19e5": "huawei",
    "cabc": "cambricon",
}
_PACKAGES = ("Package", "Socket")
_MAX_MATRIX = 4096
_MAX_PACKAGES = 1024


class _Function(NamedTuple):
    """A PCI function's class, vendor and the types of its operating system devices as bits of version 3."""

    cls: str
    vendor: str
    types: int
    libraries: bool
    names: tuple[str, ...]


def hwloc(source: Source, *, pcie: str = "", between_cpus: str = "", host: str = "host0") -> Topology:
    """Read an XML file of hwloc.

    Parameters
    ----------
    source
        The file.
    pcie
        Bandwidth of PCI links whose speed is not in the file.
    between_cpus
        Bandwidth between any two packages; by default what NCCL assumes of their kind.
    host
        Name of the machine.
    """
    root = parse_xml(source)
    if root.tag != "topology":
        source.fail(
            f"the root element is <{root.tag[:40]}>, not <topology>; is this a file of hwloc's?", root.line
        )
    return _Machine(source, root, pcie, between_cpus, host).read()


class _Machine:
    def __init__(self, source: Source, root: Element, pcie: str, between_cpus: str, host: str) -> None:
        self.source, self.root, self.made, self.host = source, root, Reading(source), host
        version = root.get("version") or "1"
        if not re.fullmatch(r"[0-9]{1,3}(?:\.[0-9]{1,3})*", version):
            source.fail(f"version={version[:20]!r} is not a version of hwloc's format", root.line)
        self.major = int(version.split(".")[0])
        if self.major not in (1, 2, 3):
            self.made.note(f"the file has version {version}; 2 and 3 are known")
        self.pcie = rate_of(pcie, "pcie") if pcie else 0
        self.between = rate_of(between_cpus, "between_cpus") if between_cpus else 0
        self.vertex: dict[str, int] = {}
        """Vertex of each object by its key in matrices, such as ``OSDev:802``."""
        self.packages: list[tuple[int, Element]] = []
        self.devices = 0
        self.nics = 0

    def read(self) -> Topology:
        top = list(self.root.named("object"))
        if not top:
            self.source.fail("there is no <object> in <topology>; is the file cut short?", self.root.line)
        for machine in top:
            self._accelerators(machine)
        for machine in top:
            self._object(machine, -1)
        self._matrices()
        if not self.devices:
            self._processors_as_devices()
        self._between_packages()
        return self.made.topology()

    # -- objects -------------------------------------------------------------------------------------------

    def _accelerators(self, machine: Element) -> None:
        """Add the devices first, in document order, so that ranks do not depend on what lies between."""
        for element in machine.walk():
            if (
                element.tag == "object"
                and element.get("type") == "PCIDev"
                and self._kind(element) is NodeKind.DEVICE
            ):
                function = self._function(element)
                model = next(
                    (
                        i.get("value")
                        for i in element.walk()
                        if i.tag == "info" and i.get("name") == "GPUModel"
                    ),
                    "",
                )
                name = f"gpu{self.devices}"
                vendor = _VENDORS.get(function.vendor, "")
                vertex = self.made.node(Node(name, NodeKind.DEVICE, self.host, vendor, model), element.line)
                self._register(element, vertex)
                self.devices += 1

    def _register(self, element: Element, vertex: int) -> None:
        for one in element.walk():
            if one.tag == "object" and one.get("type") in ("PCIDev", "OSDev"):
                self.vertex[f"{one.get('type')}:{one.get('gp_index')}"] = vertex
                self.vertex[f"gp:{one.get('gp_index')}"] = vertex

    def _object(self, element: Element, parent: int) -> None:
        kind = element.get("type")
        if kind in _PACKAGES:
            name = self.made.free_name(f"package{element.get('os_index') or len(self.packages)}")
            parent = self.made.node(Node(name, NodeKind.HOST, self.host), element.line)
            self.packages.append((parent, element))
            for key in (f"{kind}:{element.get('gp_index')}", f"gp:{element.get('gp_index')}"):
                self.vertex[key] = parent
        elif kind == "Bridge":
            self._bridge(element, parent)
            return
        elif kind == "PCIDev":
            self._function_object(element, parent)
            return
        for child in element.children:
            if child.tag == "object":
                self._object(child, parent)

    def _above(self, parent: int) -> int:
        """Return the vertex that PCI devices hang on: their package, or the machine where they have none."""
        if parent >= 0:
            return parent
        if "machine" not in self.made.index:
            self.packages.append((self.made.node(Node("machine", NodeKind.HOST, self.host)), self.root))
        return self.made.index["machine"]

    def _bridge(self, bridge: Element, parent: int) -> None:
        """Add a PCI bridge, unless nothing that communicates lies below; a host bridge is its package."""
        if not any(
            e.tag == "object"
            and e.get("type") == "PCIDev"
            and self._kind(e) in (NodeKind.DEVICE, NodeKind.NIC)
            for e in bridge.walk()
        ):
            self.made.skip("PCI bridges that lead to neither accelerator nor NIC")
        elif bridge.get("bridge_type").startswith("0-"):
            self.made.note("host bridges of PCI are part of their package")
            parent = self._above(parent)
        else:
            bus = bridge.get("pci_busid") or f"{bridge.get('gp_index')}"
            parent = self._above(parent)
            vertex = self.made.node(
                Node(self.made.free_name(f"pci {bus}"), NodeKind.SWITCH, self.host), bridge.line
            )
            self.made.cable(parent, vertex, self._pci_rate(bridge), "pcie", line=bridge.line)
            parent = vertex
        for child in bridge.children:
            if child.tag == "object":
                self._object(child, parent)

    def _function_object(self, element: Element, parent: int) -> None:
        kind = self._kind(element)
        bus = element.get("pci_busid") or element.get("gp_index")
        if kind is NodeKind.DEVICE:
            vertex = self.vertex[f"PCIDev:{element.get('gp_index')}"]
            self.made.cable(self._above(parent), vertex, self._pci_rate(element), "pcie", line=element.line)
        elif kind is NodeKind.NIC:
            names = self._function(element).names
            name = self.made.free_name(names[0] if names else f"nic {bus}")
            vertex = self.made.node(Node(name, NodeKind.NIC, self.host), element.line)
            self._register(element, vertex)
            self.made.cable(self._above(parent), vertex, self._pci_rate(element), "pcie", line=element.line)
            self.made.note(
                "port speeds of NICs are not in the file: they count with the rate of their PCI link"
            )
        elif kind is NodeKind.SWITCH:
            vertex = self.made.node(
                Node(self.made.free_name(f"nvswitch {bus}"), NodeKind.SWITCH, self.host), element.line
            )
            self._register(element, vertex)
            self.made.note("the PCI links of NVSwitches carry no data and are left out")
        else:
            self.made.skip(f"PCI functions of class {self._function(element).cls or 'unknown'}")
        for child in element.children:
            if child.tag == "object" and child.get("type") == "PCIDev":
                self._object(child, parent)

    def _function(self, element: Element) -> _Function:
        match = _TYPE.fullmatch(element.get("pci_type"))
        types, libraries, names = 0, False, []
        for child in element.named("object"):
            if child.get("type") != "OSDev":
                continue
            text = child.get("osdev_type")
            value = int(text) if re.fullmatch(r"[0-9]{1,6}", text) else 0
            if self.major < 3:  # an index: block, GPU, network, OpenFabrics, DMA, co-processor, memory
                value = (1, 4, 16, 32, 64, 8, 2)[value] if text and value < 7 else 0
            types |= value
            libraries |= child.get("subtype") in _COMPUTE_LIBRARIES or bool(value & 8)
            if value & 48:
                names.append(child.get("name"))
        found = tuple(
            sorted((n for n in names if n), key=lambda n: (not n.startswith(("mlx", "hfi", "bxi")), n))
        )
        cls, vendor = (match[1].lower(), (match[2] or "").lower()) if match else ("", "")
        return _Function(cls, vendor, types, libraries, found)

    def _kind(self, element: Element) -> NodeKind | None:
        if element.get("subtype") == "NVSwitch":
            return NodeKind.SWITCH
        function = self._function(element)
        if function.cls in ("0302", "1200") or function.libraries:
            return NodeKind.DEVICE
        if function.cls in ("0300", "0380") and function.vendor == "10de" and function.types & 12:
            return NodeKind.DEVICE
        if function.cls == "0380" and function.vendor == "1002":
            return NodeKind.DEVICE
        if function.cls.startswith("02") or function.types & 48:
            return NodeKind.NIC
        return None

    def _pci_rate(self, element: Element) -> int:
        text = element.get("pci_link_speed")
        if re.fullmatch(r"[0-9]{1,6}(?:\.[0-9]{1,12})?", text) and float(text) > 0:
            return round(float(text) * 1e9)
        rate = self.pcie or rate_of(_DEFAULT_PCI, "pcie")
        self.made.assumed("PCI links without a speed have, each way,", shown(rate), "pcie")
        return rate

    # -- matrices ------------------------------------------------------------------------------------------

    def _matrices(self) -> None:
        for matrix in self.root.children:
            if matrix.tag not in ("distances2", "distances2hetero"):
                continue
            name, kind = matrix.get("name"), matrix.get("kind")
            if name.endswith("Bandwidth") and name != "Bandwidth":
                self._bandwidths(matrix, name)
            else:
                self.made.skip(f"matrices {name or 'without a name'} (kind {kind})")

    def _bandwidths(self, matrix: Element, name: str) -> None:
        size = matrix.get("nbobjs")
        if not re.fullmatch(r"[0-9]{1,5}", size) or int(size) > _MAX_MATRIX:
            self.source.fail(f"nbobjs={size[:20]!r} is not a number up to {_MAX_MATRIX}", matrix.line)
        count = int(size)
        keys = " ".join(one.text for one in matrix.named("indexes")).split()
        texts = " ".join(one.text for one in matrix.named("u64values")).split()
        if len(keys) != count or len(texts) != count * count:
            self.source.fail(
                f"matrix {name} has {len(keys)} objects and {len(texts)} values; {count} and "
                f"{count * count} are wanted; is the file cut short?",
                matrix.line,
            )
        kind = name.removesuffix("Bandwidth").lower()
        ends = [self._end(matrix, key) for key in keys]
        for place, text in enumerate(texts):
            row, column = divmod(place, count)
            if not re.fullmatch(r"[0-9]{1,12}", text):
                self.source.fail(f"matrix {name}: {text[:20]!r} is not a bandwidth in MB/s", matrix.line)
            a, b = ends[row], ends[column]
            if row == column or int(text) == 0:
                continue
            if a is None or b is None:
                self.made.skip(f"entries of {name} between objects that are left out")
            elif a != b:
                self.made.link(a, b, int(text) * 10**6, kind, line=matrix.line)

    def _end(self, matrix: Element, key: str) -> int | None:
        if ":" not in key:  # all of one type, by index of the operating system or of the file
            key = f"gp:{key}" if matrix.get("indexing") == "gp" else f"{matrix.get('type')}:{key}"
        return self.vertex.get(key)

    # -- processors ----------------------------------------------------------------------------------------

    def _processors_as_devices(self) -> None:
        if not self.packages:
            self._above(-1)
        self.made.note(
            "there is no accelerator: each package counts as one device, joined to the package at 100 GB/s"
        )
        for vertex, _ in list(self.packages):
            name = self.made.free_name(f"cpu{self.devices}")
            device = self.made.node(Node(name, NodeKind.DEVICE, self.host, model="cpu"))
            self.made.cable(device, vertex, 100 * 10**9, "memory")
            self.devices += 1

    def _between_packages(self) -> None:
        """Join every two packages."""
        if len(self.packages) < 2:
            return
        if len(self.packages) > _MAX_PACKAGES:
            self.source.fail(f"there are more than {_MAX_PACKAGES} packages; no machine has")
        info = {one.get("name"): one.get("value") for one in self.packages[0][1].named("info")}
        for one in self.root.walk():
            if one.tag == "info" and one.get("name") == "Architecture":
                info.setdefault("Architecture", one.get("value"))
        rate = self.between or between_processors(
            info.get("Architecture", "x86_64"),
            info.get("CPUVendor", ""),
            info.get("CPUFamilyNumber", ""),
            info.get("CPUModelNumber", ""),
        )
        for i, (a, _) in enumerate(self.packages):
            for b, _ in self.packages[i + 1 :]:
                self.made.cable(a, b, rate, "processors")
        self.made.assumed("the way between two packages has, each way,", shown(rate), "between_cpus")
