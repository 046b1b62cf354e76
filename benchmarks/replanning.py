"""Replanning after a fault: how soon there is a valid plan, how good it is, and what a longer search adds.

    python benchmarks/replanning.py [--graph NAME ...] [--collective NAME ...] [--limit SECONDS] [--markdown]

For each kind of part of each graph one fault: a link of each kind of ends (one way, a cable, and at half its
rate), a NIC, a device, a switch of each kind, a host. Names that differ in digits alone are of one kind; of
each kind the one in the middle is taken.

*repair* is from the fault to the plan, *check* the time to verify all changed trees: the least of three, and
in processor seconds, which other work on the machine disturbs less. The plan's trees have been indexed
before (`prepare`, once for each plan).
*of known* is the rate over the bound that is known at once, *of optimum* over the exact one.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator
from fractions import Fraction

from pycomm.errors import DeadlineExceeded, PycommError
from pycomm.planner.graph.faults import Fault, host_fault, link_fault, node_fault
from pycomm.planner.graph.patched_forest import PatchedForest
from pycomm.planner.graph.repair import prepare, repair
from pycomm.planner.graph.replanning import replan_in_background
from pycomm.planner.graph.synthesis import Plan, synthesize
from pycomm.topology.catalogue import named
from pycomm.topology.generators import rail_optimized, torus
from pycomm.topology.model import NodeKind, Topology
from pycomm.types import CollectiveKind

GRAPHS = {
    "rail pod, 128 x 8": lambda: rail_optimized(128, "dgx_h100", rate="50 GB/s"),
    "torus 8 x 8 x 8": lambda: torus((8, 8, 8), "50 GB/s"),
    "DGX A100 x 4": lambda: named("published_dgx_a100_x4"),
    "MI250 x 2": lambda: named("published_mi250_x2"),
}
KINDS = {"allgather": CollectiveKind.ALLGATHER, "allreduce": CollectiveKind.ALLREDUCE}
HEAD = (
    "graph", "collective", "fault", "changed", "repair ms", "cpu ms", "check ms", "GB/s", "of known",
    "of optimum", "background s", "of optimum",
)  # fmt: skip


def shape(name: str) -> str:
    """Name without its digits."""
    return re.sub(r"\d+", "*", name)


def faults(topology: Topology) -> Iterator[tuple[str, Fault]]:
    """One fault of each kind, and its name."""
    links: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for link in topology.links:
        ends = topology.nodes[link.src].name, topology.nodes[link.dst].name
        kind = sorted(map(shape, ends))
        links.setdefault((kind[0], kind[1]), []).append(ends)
    for kind, found in links.items():
        src, dst = found[len(found) // 2]
        back = bool(topology.find_links(dst, src))
        rate = sum(topology.links[i].bytes_per_s for i in topology.find_links(src, dst))
        yield f"{kind[0]} - {kind[1]}, one way", link_fault(src, dst)
        if back:
            yield f"{kind[0]} - {kind[1]}, cable", link_fault(src, dst, both_ways=True)
        yield f"{kind[0]} - {kind[1]}, half the rate", link_fault(src, dst, rate // 2)
    nodes: dict[str, list[str]] = {}
    for node in topology.nodes:
        if node.kind is not NodeKind.HOST:
            nodes.setdefault(shape(node.name), []).append(node.name)
    for name, names in nodes.items():
        yield name, node_fault(names[len(names) // 2])
    hosts = list(dict.fromkeys(node.host for node in topology.nodes if node.host))
    if 2 < len(hosts) < len(topology.devices):
        yield "a host", host_fault(topology, hosts[len(hosts) // 2])


def percent(ratio: Fraction) -> str:
    """Print in percent, rounded down."""
    return f"{int(ratio * 1000) / 10:.1f}%"


def measured(plan: Plan, fault: Fault) -> tuple[Plan, float, float, float]:
    """Repair three times; milliseconds of each step, the least of three."""
    walls, cpus, checks = [], [], []
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        repaired = repair(plan, fault)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        wall = time.process_time()
        for forest in repaired.forests:
            assert isinstance(forest, PatchedForest)  # noqa: S101
            problems = list(forest.problems_of_changes())
            if problems:
                sys.exit(f"{fault.text()}: {problems[0]}")
        checks.append(time.process_time() - wall)
    return repaired, *(1e3 * min(times) for times in (walls, cpus, checks))


def row(graph: str, collective: str, name: str, plan: Plan, fault: Fault, limit: float) -> tuple[str, ...]:
    """Measure one fault."""
    try:
        repaired, wall, cpu, check = measured(plan, fault)
    except PycommError as error:
        return (graph, collective, name, str(error)[:60], *[""] * 8)
    changed = re.findall(r"(\d+ of \d+) trees", repaired.how)[0]
    said = [graph, collective, name, changed, f"{wall:.0f}", f"{cpu:.0f}", f"{check:.0f}"]
    said += [f"{float(repaired.algbw / 10**9):.1f}", percent(repaired.ratio)]
    search = replan_in_background(repaired)
    try:
        better = search.result(limit)
    except DeadlineExceeded:
        search.cancel()
        return (*said, "", f"> {limit:.0f}", "")
    except PycommError as error:
        return (*said, "", type(error).__name__, "")
    return (
        *said,
        percent(repaired.algbw / better.bound.algbw),
        f"{better.seconds:.1f}",
        percent(better.ratio),
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graph", action="append", choices=GRAPHS, help="which graphs; all by default")
    parser.add_argument("--collective", action="append", choices=KINDS)
    parser.add_argument("--limit", type=float, default=60, help="seconds for each search in the background")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    line = "| " + " | ".join(["{}"] * len(HEAD)) + " |"
    if options.markdown:
        print(line.format(*HEAD))
        print(line.format(*["---"] * len(HEAD)))
    else:
        line = "{:<18} {:<10} {:<42} {:>13} {:>9} {:>6} {:>8} {:>6} {:>8} {:>10} {:>12} {:>10}"
        print(line.format(*HEAD))
    for graph in options.graph or GRAPHS:
        topology = GRAPHS[graph]()
        for collective in options.collective or KINDS:
            plan = prepare(synthesize(topology, KINDS[collective]))
            for name, fault in faults(topology):
                print(line.format(*row(graph, collective, name, plan, fault, options.limit)), flush=True)


if __name__ == "__main__":
    main()
