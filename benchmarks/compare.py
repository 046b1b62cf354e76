"""The full comparison: pycomm beside Gloo and every MPI that is installed, interleaved, with ratios.

    python benchmarks/compare.py [--output FOLDER] [--mpis mpich,openmpi,impi] [--ranks 2,4] [--install]

For each MPI and number of ranks: five collectives from 8 B to 64 MiB, the three libraries and the floor
(every rank copies as many bytes as it would receive) taking turns at every point. Writes ``compare.md``
and ``compare.jsonl``. Takes about a quarter of an hour with three MPIs. README.md says how to read it. The
exit code is 1 when a result was wrong.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path

from pycomm.bench import (
    Mpi,
    Record,
    Report,
    Scenario,
    find_mpis,
    parse_kinds,
    run_local,
    sweep,
    to_json_lines,
    to_markdown,
)
from pycomm.bench.scenario import COPY
from pycomm.bench.statistics import geometric_mean

SCENARIO = Scenario(
    kinds=parse_kinds("allreduce,allgather,reduce_scatter,alltoall,broadcast"),
    sizes=(*sweep(8, 32 << 20, factor=4.0), 64 << 20),
    backends=("native", "gloo", "mpi", COPY),
    iterations=0,
    budget_s=0.12,
    warmup=2,
    rounds=4,
    in_place=False,
)
WANTED = 3.0
"""Times faster than Gloo."""
Key = tuple[str, int, int]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--mpis", default="impi,mpich,openmpi")
    parser.add_argument("--ranks", default="2,4")
    parser.add_argument(
        "--backends", default=",".join(SCENARIO.backends), help="without mpi: no MPI is compared with"
    )
    parser.add_argument(
        "--budget", type=float, default=SCENARIO.budget_s, help="seconds per point and library"
    )
    parser.add_argument(
        "--crowded",
        action="store_true",
        help="measure MPICH with more ranks than cores too: seconds per call",
    )
    parser.add_argument("--install", action="store_true", help="install missing MPIs first (.ci/mpi)")
    given = parser.parse_args()
    wanted = given.mpis.split(",")
    if given.install:
        subprocess.run(["bash", str(Path(__file__).parents[1] / ".ci" / "mpi"), *wanted], check=False)
    backends = tuple(given.backends.split(","))
    scenario = dataclasses.replace(SCENARIO, backends=backends, budget_s=given.budget)
    mpis: list[Mpi | None] = (
        [mpi for mpi in find_mpis() if mpi.flavour in wanted] if "mpi" in backends else [None]
    )
    for name in wanted:
        if "mpi" in backends and name not in {mpi.flavour for mpi in mpis if mpi is not None}:
            print(f"{name} is not installed and left out; bash .ci/mpi {name} installs it")
    runs = []
    for mpi in mpis:
        for nranks in map(int, given.ranks.split(",")):
            if mpi and mpi.flavour == "mpich" and nranks > len(os.sched_getaffinity(0)) and not given.crowded:
                print(f"mpich with {nranks} ranks left out: it polls without yielding; --crowded measures it")
                continue
            print(f"\n##### {nranks} ranks" + (f", started by {mpi.flavour}" if mpi else ""), flush=True)
            runs.append((mpi.flavour if mpi else "", run_local(scenario, nranks, mpi)))
    given.output.mkdir(parents=True, exist_ok=True)
    text = report(runs)
    (given.output / "compare.md").write_text(text)
    (given.output / "compare.jsonl").write_bytes(b"".join(to_json_lines(one) for _, one in runs))
    print("\n" + text[text.index("# Summary") :])
    print(f"written: {given.output / 'compare.md'}, {given.output / 'compare.jsonl'}")
    return 1 if any(one.wrong for _, one in runs) else 0


def report(runs: list[tuple[str, Report]]) -> str:
    parts = ["# Comparison\n"]
    for flavour, one in runs:
        facts = one.environment
        title = f"{one.nranks} ranks" + (f", mpi = {flavour}" if flavour else "")
        parts.append(to_markdown(one.records, title))
        parts.append(
            f"{facts['cpu']}, {facts['cores']} cores, kernel {facts['kernel']}, {facts['mpi'] or 'no MPI'}, "
        )
        parts.append(f"pycomm {facts['commit']}, load {facts['load'][0]:.1f}, {facts['time']}\n")
    return "\n".join(parts) + "\n" + summary(runs)


def summary(runs: list[tuple[str, Report]]) -> str:
    """What is asked for: Gloo at every point, the best MPI of each point in the geometric mean."""
    lines = ["# Summary", ""]
    gloo = [record for _, one in runs for record in one.records if record.backend == "gloo"]
    if gloo:
        least = min(gloo, key=lambda record: record.ratio)
        mean = geometric_mean(record.ratio for record in gloo)
        lines.append(
            f"- gloo / native: at least {least.ratio:.2f} ({place(least)}), {mean:.2f} in the geometric mean"
        )
        lines += near_gloo([one.records for _, one in runs])
    best: dict[Key, float] = {}
    for flavour, one in runs:
        inverse = {key(r): 1 / r.ratio for r in one.records if r.backend == "mpi" and r.ratio > 0}
        if inverse:
            far = max(inverse, key=lambda k: inverse[k])
            mean = geometric_mean(inverse.values())
            lines.append(f"- native / {flavour}, {one.nranks} ranks: {mean:.2f} in the geometric mean, ")
            lines[-1] += f"{inverse[far]:.2f} at most ({far[0]}, {far[2]} B)"
        for point, value in inverse.items():
            best[point] = max(best.get(point, -math.inf), value)
    if best:
        mean = geometric_mean(best.values())
        lines.append(
            f"- native / best MPI of each point: {mean:.2f} in the geometric mean of {len(best)} points"
        )
    wrong = sum(one.wrong for _, one in runs)
    lines.append(f"- wrong values: {wrong}")
    return "\n".join(lines) + "\n"


def near_gloo(runs: list[list[Record]]) -> list[str]:
    """List the points where Gloo takes less than three times as long, beside what one copy takes there."""
    points, near = 0, []
    for records in runs:
        copies = {key(one): one.ratio for one in records if one.backend == COPY}
        for one in records:
            points += one.backend == "gloo"
            if one.backend == "gloo" and one.ratio < WANTED:
                floor = copies.get(key(one), math.nan)
                near.append(f"  - {place(one)}: {one.ratio / floor:.2f} and {1 / floor:.2f}")
    head = f"- gloo / native is under {WANTED:g} at {len(near)} of {points} points"
    if near:
        head += "; there gloo and native take so many copies of what a rank receives:"
    return [head, *near]


def key(record: Record) -> Key:
    return record.kind, record.nranks, record.nbytes


def place(record: Record) -> str:
    return f"{record.kind}, {record.nranks} ranks, {record.nbytes} B"


if __name__ == "__main__":
    sys.exit(main())
