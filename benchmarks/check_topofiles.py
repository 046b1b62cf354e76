"""Check the importers on a folder of real topology files against counts made without them.

``python benchmarks/check_topofiles.py FOLDER`` reads ``FOLDER/expected.json`` and every file named there,
prints one line for each with the time that reading took, and ends with exit code 1 if any count differs.
What the file of counts says of formats is translated here into what a topology holds: kinds of vertices,
cables, and notes of what was left out.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pycomm.errors import TopologyError
from pycomm.topology import Topology
from pycomm.topology.importers import read
from pycomm.topology.model import NodeKind

Finding = tuple[str, object, object]


def noted(topology: Topology, pattern: str) -> int:
    """The number in the first note that matches a pattern, 0 when there is none."""
    return next((int(m[1]) for note in topology.notes if (m := re.search(pattern, note))), 0)


def kinds(topology: Topology) -> Counter[str]:
    return Counter(node.kind.value for node in topology.nodes)


def cables(topology: Topology, *ends: NodeKind) -> int:
    """How many pairs of links join vertices of these two kinds."""
    wanted = sorted(ends)
    found = [
        link
        for link in topology.links
        if sorted((topology.nodes[link.src].kind, topology.nodes[link.dst].kind)) == wanted
    ]
    return len(found) // 2


def nccl(topology: Topology, want: dict[str, Any]) -> Iterator[Finding]:
    classes = want["pci_class"]
    gpus = want["gpu_tags"] or sum(n for c, n in classes.items() if c.startswith(("0x03", "0x12")))
    nics = want["net_tags"] or sum(n for c, n in classes.items() if c.startswith("0x02"))
    bridges = sum("pci " in node.name for node in topology.nodes)
    fast = sum(link.kind in ("xgmi", "nvlink") for link in topology.links)
    left = noted(topology, r"left out: (\d+) PCI")
    yield "processors", kinds(topology)["host"], want["cpus"]
    yield "devices", kinds(topology)["device"], gpus
    yield "NICs", kinds(topology)["nic"], nics
    yield "bridges", bridges, classes.get("0x0604", 0)
    yield "PCI functions", bridges + gpus + nics + left, want["pci"]
    yield "fast links", fast, want["xgmi_tags"] + want["nvlink_tags"]
    if want["ranks"]:
        yield (
            "order of ranks",
            [topology.nodes[i].name for i in topology.devices],
            [f"gpu{r}" for r in want["ranks"]],
        )


def hwloc(topology: Topology, want: dict[str, Any]) -> Iterator[Finding]:
    bridges = sum(node.name.startswith("pci ") for node in topology.nodes)
    switches = sum(node.name.startswith("nvswitch ") for node in topology.nodes)
    roots = 4  # host bridges: part of their package
    yield "packages", kinds(topology)["host"], want["objects"]["Package"]
    yield "devices", kinds(topology)["device"], want["pci_gpu"]
    yield "NICs", kinds(topology)["nic"], want["pci_net"]
    yield (
        "bridges",
        bridges + noted(topology, r"left out: (\d+) PCI bridges") + roots,
        want["objects"]["Bridge"],
    )
    yield "PCI functions", want["pci_gpu"] + switches, want["objects"]["PCIDev"]


def fabric(topology: Topology, want: dict[str, Any]) -> Iterator[Finding]:
    between = cables(topology, NodeKind.SWITCH, NodeKind.SWITCH)
    aggregation = noted(topology, r"left out: (\d+) aggregation nodes")
    rates = Counter(link.bytes_per_s for link in topology.links if link.kind == "infiniband")
    yield "switches", kinds(topology)["switch"], want["switches"]
    yield "aggregation nodes", aggregation, want["agg_nodes"]
    yield "adapters", kinds(topology)["nic"] + aggregation, want["cas"]
    yield "between switches", between, want["switch_switch_links"]
    yield "cables", between + cables(topology, NodeKind.SWITCH, NodeKind.NIC) + aggregation, want["links"]
    yield "rates", dict(rates), {50 * 10**9: 2 * (want["links"] - aggregation)}


def tree(topology: Topology, want: dict[str, Any]) -> Iterator[Finding]:
    up = {
        topology.nodes[link.src].name
        for link in topology.links
        if topology.nodes[link.src].kind is topology.nodes[link.dst].kind is NodeKind.SWITCH
    }
    leaves = {
        topology.nodes[link.dst].name
        for link in topology.links
        if topology.nodes[link.src].kind is NodeKind.HOST and topology.nodes[link.dst].kind is NodeKind.SWITCH
    }
    yield "switches", kinds(topology)["switch"], want["switches"]
    yield "hosts", kinds(topology)["host"], want["nodes"]
    yield "leaves", len(leaves), want["leaf_switches"]
    yield "joined switches", len(up), want["switches"]
    yield "roots", [n.name for n in topology.nodes if n.name in want["roots"]], want["roots"]


def model(topology: Topology, want: dict[str, Any]) -> Iterator[Finding]:
    domains = len({link.dst for link in topology.links if link.kind == "domain"} - set(topology.devices))
    yield "domains", domains, want["domains"]
    yield "switches", kinds(topology)["switch"] - domains, want["switches"]
    yield "hosts", kinds(topology)["host"], want["nodes"]


def astrasim(topology: Topology, _want: object) -> Iterator[Finding]:
    yield "devices", kinds(topology)["device"], 8
    yield "rate", {link.bytes_per_s for link in topology.links}, {400 * 2**30}


CHECKS: dict[str, Callable[[Topology, Any], Iterator[Finding]]] = {
    "rccl_mi300x_8p_8nic.xml": nccl,
    "aws_p4d_24xl_virtual.xml": nccl,
    "nvidia_dgx2h_v3.xml": hwloc,
    "topograph_superpod_ndr.out": fabric,
    "topograph_tree.conf": tree,
    "topograph_model_medium.yaml": model,
    "astrasim_HGX-H100-validated.yml": astrasim,
}
REFUSED = {"topograph_bad.out": "no links"}


def check(path: Path, want: Any) -> tuple[list[str], float]:
    """What is wrong with one file, and the seconds that reading took."""
    begin = time.perf_counter()
    try:
        topology = read(path)
    except TopologyError as error:
        reason = REFUSED.get(path.name)
        return ([] if reason and reason in str(error) else [f"refused: {error}"]), time.perf_counter() - begin
    seconds = time.perf_counter() - begin
    if path.name in REFUSED or path.name not in CHECKS:
        return ["should be refused" if path.name in REFUSED else "has no check"], seconds
    wrong = [
        f"{what} is {found}, {wanted} wanted"
        for what, found, wanted in CHECKS[path.name](topology, want)
        if found != wanted
    ]
    return wrong, seconds


def main(folder: Path) -> int:
    """Check a folder; the exit code."""
    expected = json.loads((folder / "expected.json").read_text())
    bad = 0
    for name, want in expected.items():
        wrong, seconds = check(folder / name, want)
        bad += bool(wrong)
        print(f"{name:36} {seconds * 1000:8.1f} ms  {'; '.join(wrong) or 'equal'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
