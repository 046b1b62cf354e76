"""How good plans on network graphs are, and how long they take to make.

    python benchmarks/planning.py quality [--collective allgather,allreduce] [--only TEXT] [--exact] [--json]
    python benchmarks/planning.py times [--sizes 8,64,1024,10240] [--limit 120] [--json]

``quality`` has one line for each topology of the catalogue and each generator at several sizes: the exact
bound, our plan and its part of the bound, its height and trees at each rank (k), the seconds to make it, and
beside it one ring and the best of the known algorithms, all in GB/s of the whole result as the busiest link
allows.

``times`` has one line for each kind of network and number of ranks: the seconds for the bound alone, for the
plan, and the peak memory of the process. The irregular networks are the regular ones with a tenth of their
cables slowed down at random (always the same ones). Every line is a process of its own, ended after
``--limit`` seconds.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from pycomm.errors import PycommError
from pycomm.planner.graph.bounds import bound
from pycomm.planner.graph.embedding import known
from pycomm.planner.graph.network import network_of
from pycomm.planner.graph.synthesis import plan_on, synthesize
from pycomm.topology import Topology, catalogue
from pycomm.topology.generators import (
    box,
    dragonfly,
    dual_plane,
    fat_tree,
    full_mesh,
    hypercube,
    hyperx,
    leaf_spine,
    rail_only,
    rail_optimized,
    ring,
    star,
    torus,
)
from pycomm.types import CollectiveKind

KNOWN_RANKS = 128
"""Known algorithms are priced up to this many ranks; their tables grow with the square."""


def host(nics: int = 8) -> Topology:
    """Eight devices on one switch, and NICs."""
    return box(8, "450 GB/s", nics=nics, nic_rate="64 GB/s")


def cubes(ranks: int) -> list[int]:
    """Three sides, as equal as powers of two and what is left allow."""
    sides = [1, 1, 1]
    for factor in sorted(factors(ranks), reverse=True):
        sides[sides.index(min(sides))] *= factor
    return sorted(sides)


def factors(number: int) -> Iterator[int]:
    """Prime factors, smallest first."""
    divisor = 2
    while number > 1:
        while number % divisor == 0:
            yield divisor
            number //= divisor
        divisor += 1


GENERATED: dict[str, Callable[[], Topology]] = {
    **{f"ring {n}": lambda n=n: ring(n, rate="50 GB/s") for n in (4, 16, 64)},
    **{f"star {n}": lambda n=n: star(n, rate="50 GB/s") for n in (4, 64, 512)},
    **{f"full_mesh {n}": lambda n=n: full_mesh(n, rate="50 GB/s") for n in (4, 8, 64)},
    **{f"hypercube {d}": lambda d=d: hypercube(d, rate="50 GB/s") for d in (3, 6, 10)},
    **{
        f"torus {'x'.join(map(str, sides))}": lambda sides=sides: torus(sides, rate="50 GB/s")
        for sides in ([4, 4], [3, 5], [4, 4, 8], [8, 8, 16])
    },
    "grid 4x4": lambda: torus([4, 4], rate="50 GB/s", wrap=False),
    **{
        f"hyperx {'x'.join(map(str, sides))}": lambda sides=sides: hyperx(sides, rate="50 GB/s")
        for sides in ([4, 4], [4, 6], [8, 8])
    },
    **{
        f"dragonfly {a}x{p}x{h}": lambda a=a, p=p, h=h: dragonfly(
            switches_per_group=a, ends_per_switch=p, global_links=h, rate="50 GB/s"
        )
        for a, p, h in ((2, 2, 1), (4, 2, 2), (8, 4, 4))
    },
    **{
        f"leaf_spine {leaves}x{spines}": lambda leaves=leaves, spines=spines: leaf_spine(
            leaves, spines, hosts_per_leaf=4, rate="50 GB/s"
        )
        for leaves, spines in ((2, 2), (4, 4), (6, 3))
    },
    **{
        f"fat_tree {n}": lambda n=n: fat_tree(n, radix=16, levels=3 if n > 128 else 2, rate="50 GB/s")
        for n in (32, 128, 1024)
    },
    **{
        f"rail_optimized {n}x8": lambda n=n: rail_optimized(n, host(), radix=64, rate="50 GB/s")
        for n in (2, 4, 16, 128)
    },
    "rail_optimized 16x8, 4 NICs": lambda: rail_optimized(16, host(4), radix=64, rate="50 GB/s"),
    "rail_optimized 32x8, 2:1": lambda: rail_optimized(
        32, host(), radix=24, rate="50 GB/s", oversubscription=2
    ),
    **{f"rail_only {n}x8": lambda n=n: rail_only(n, host(), radix=64, rate="50 GB/s") for n in (4, 64)},
    **{f"dual_plane {n}x8": lambda n=n: dual_plane(n, host(), radix=64, rate="25 GB/s") for n in (4, 64)},
}


def regular(kind: str, ranks: int) -> Topology:
    """Make a network of a kind with so many ranks."""
    if kind == "torus":
        return torus(cubes(ranks), rate="50 GB/s")
    if kind == "fat_tree":
        return fat_tree(ranks, radix=64, rate="50 GB/s")
    return rail_optimized(ranks // 8, host(), radix=64, rate="50 GB/s")


def slowed(topology: Topology, seed: int = 7) -> Topology:
    """Slow down a tenth of the cables to between a half and nine tenths."""
    dice = random.Random(seed)
    links = list(topology.links)
    cables: dict[tuple[int, int], list[int]] = {}
    for number, link in enumerate(links):
        cables.setdefault((min(link.src, link.dst), max(link.src, link.dst)), []).append(number)
    for cable in dice.sample(sorted(cables), max(1, len(cables) // 10)):
        tenths = dice.randrange(5, 10)
        for number in cables[cable]:
            links[number] = links[number]._replace(bytes_per_s=links[number].bytes_per_s * tenths // 10)
    return Topology(f"{topology.name}, slowed", topology.nodes, tuple(links))


# ---------------------------------------------------------------------------------------------------- quality


def quality(topology: Topology, label: str, kind: CollectiveKind, *, exact: bool) -> dict[str, Any]:
    """Plan one collective, and price what others do."""
    root = 0 if kind.is_rooted else -1
    row: dict[str, Any] = {"topology": label, "ranks": len(topology.devices), "collective": kind.label}
    try:
        plan = synthesize(topology, kind, root, exact=exact)
        row |= plan.facts()
    except (PycommError, ImportError) as error:
        row["error"] = str(error)
        return row
    if row["ranks"] <= KNOWN_RANKS:
        others = known(network_of(topology), kind, topology.host_numbers(), root)
        rings = [other for other in others if other.name == "ring"]
        row["ring_GBps"] = float(rings[0].algbw / 10**9) if rings else None
        row["known"] = others[0].name
        row["known_GBps"] = float(others[0].algbw / 10**9)
    return row


QUALITY_HEAD = (
    f"{'topology':30} {'ranks':>6} {'collective':14} {'bound':>8} {'ours':>8} {'ratio':>7} {'height':>6} "
    f"{'k':>4} {'s':>7} {'ring':>8} {'best known':>10}  name"
)


def quality_line(row: dict[str, Any]) -> str:
    """One line of the table; GB/s."""
    begin = f"{row['topology']:30} {row['ranks']:6} {row['collective']:14} "
    if "error" in row:
        return begin + row["error"]

    def figure(name: str) -> str:
        value = row.get(name)
        return f"{'-':>8}" if value is None else f"{value:8.2f}"

    ratio = "1" if row["algbw_fraction"] == row["bound_fraction"] else f"{row['ratio']:.4f}"
    return (
        begin + f"{figure('bound_GBps')} {figure('algbw_GBps')} {ratio:>7} {row['height']:6} {row['k']:4} "
        f"{row['seconds']:7.3f} {figure('ring_GBps')} {figure('known_GBps'):>10}  {row.get('known', '')}"
    )


def quality_rows(kinds: list[CollectiveKind], only: str, *, exact: bool) -> Iterator[dict[str, Any]]:
    """Plan on everything there is."""
    made: dict[str, Callable[[], Topology]] = {
        name: lambda name=name: catalogue.named(name) for name in catalogue.names()
    }
    for label, make in {**made, **GENERATED}.items():
        if only in label:
            for kind in kinds:
                yield quality(make(), label, kind, exact=exact)


# ------------------------------------------------------------------------------------------------------ times


def measure(kind: str, ranks: int, irregular: bool, what: str) -> dict[str, Any]:
    """Measure in this process, which has done nothing else."""
    topology = regular(kind, ranks)
    if irregular:
        topology = slowed(topology)
    network = network_of(topology)
    row: dict[str, Any] = {"vertices": network.nvertices, "arcs": len(network.src)}
    started = time.perf_counter()
    if what == "bound":
        row["bound_GBps"] = float(bound(network, CollectiveKind.ALLGATHER).algbw / 10**9)
    else:
        plan = plan_on(network, CollectiveKind[what.upper()], 0 if what == "broadcast" else -1)
        row |= {"ratio": float(plan.ratio), "height": plan.height, "k": plan.k, "how": plan.how}
    row["seconds"] = time.perf_counter() - started
    row["peak_MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return row


def in_a_process(arguments: list[str], limit: float) -> dict[str, Any]:
    """Run one measurement; what went wrong is its result."""
    command = [sys.executable, __file__, "one", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"> {limit:g} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["failed"])[-1]}
    result: dict[str, Any] = json.loads(done.stdout)
    return result


TIMES_HEAD = (
    f"{'network':15} {'':9} {'ranks':>6} {'vertices':>8} {'arcs':>8} {'what':10} {'s':>8} {'peak MB':>8} "
    f"{'ratio':>7} {'height':>6} {'k':>4}  how"
)


def times_line(row: dict[str, Any]) -> str:
    """One line of the table."""
    kind = "irregular" if row["irregular"] else "regular"
    begin = f"{row['network']:15} {kind:9} {row['ranks']:6} "
    if "error" in row:
        return begin + f"{'':17} {row['what']:10} {row['error']}"
    plan = f"{row['ratio']:7.4f} {row['height']:6} {row['k']:4}  {row['how']}" if "how" in row else ""
    return (
        begin + f"{row['vertices']:8} {row['arcs']:8} {row['what']:10} {row['seconds']:8.3f} "
        f"{row['peak_MB']:8.0f} {plan}"
    )


def times_rows(
    sizes: list[int], networks: list[str], whats: list[str], limit: float
) -> Iterator[dict[str, Any]]:
    """Measure everything."""
    for irregular in (False, True):
        for network in networks:
            for ranks in sizes:
                for what in whats:
                    row = {"network": network, "irregular": irregular, "ranks": ranks, "what": what}
                    found = in_a_process([network, str(ranks), str(int(irregular)), what], limit)
                    yield row | found


def main() -> None:
    """Read the arguments and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("one")
    one.add_argument("network")
    one.add_argument("ranks", type=int)
    one.add_argument("irregular", type=int)
    one.add_argument("what")
    table = commands.add_parser("quality", help="bound, ours, ring and the best known algorithm")
    table.add_argument("--collective", default="allgather,allreduce,broadcast")
    table.add_argument("--only", default="", help="topologies whose name has this in it")
    table.add_argument("--exact", action="store_true", help="as many trees as meeting the bound takes")
    times = commands.add_parser("times", help="planning time and memory from 8 to 10,240 ranks")
    times.add_argument("--sizes", default="8,64,256,1024,4096,10240")
    times.add_argument("--networks", default="rail_optimized,torus,fat_tree")
    times.add_argument("--what", default="bound,allgather,allreduce")
    times.add_argument("--limit", type=float, default=120)
    for command in (table, times):
        command.add_argument("--json", action="store_true", help="one record a line")
    chosen = parser.parse_args()
    if chosen.command == "one":
        print(json.dumps(measure(chosen.network, chosen.ranks, bool(chosen.irregular), chosen.what)))
        return
    if chosen.command == "quality":
        kinds = [CollectiveKind[name.upper()] for name in chosen.collective.split(",")]
        head, line, rows = QUALITY_HEAD, quality_line, quality_rows(kinds, chosen.only, exact=chosen.exact)
    else:
        sizes = [int(size) for size in chosen.sizes.split(",")]
        rows = times_rows(sizes, chosen.networks.split(","), chosen.what.split(","), chosen.limit)
        head, line = TIMES_HEAD, times_line
    if not chosen.json:
        print(head)
    for row in rows:
        print(json.dumps(row) if chosen.json else line(row), flush=True)


if __name__ == "__main__":
    main()
