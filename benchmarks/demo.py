"""The demonstration: four collectives on 2 and 4 real processes, pycomm beside Gloo and an MPI, all checked.

    python benchmarks/demo.py [--output out] [--mpi impi]

The tables go to the screen; the picture and the numbers go to the output folder. A peer that is not installed
is left out and named. Takes two to four minutes. The exit code is 1 when a result was wrong.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from pycomm.bench import (
    Record,
    Report,
    Scenario,
    find_mpi,
    parse_kinds,
    run_local,
    summarise,
    sweep,
    to_json_lines,
)
from pycomm.bench.plot import plot
from pycomm.errors import BackendUnavailable

RANKS = (2, 4)
SCENARIO = Scenario(
    kinds=parse_kinds("allreduce,allgather,reduce_scatter,alltoall"),
    sizes=(*sweep(8, 8 << 20, factor=8.0), 64 << 20),
    iterations=0,
    budget_s=0.1,
    warmup=2,
    rounds=3,
    in_place=False,
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("out"))
    parser.add_argument("--mpi", help="mpich, openmpi, impi or a folder; by default the first that is found")
    parser.add_argument("--backends", default="native,gloo,mpi")
    given = parser.parse_args()
    backends = given.backends.split(",")
    mpi = None
    if "gloo" in backends and find_spec("torch") is None:
        print("Gloo is left out: torch is not installed")
        backends.remove("gloo")
    if "mpi" in backends:
        try:
            mpi = find_mpi(given.mpi)
            print(f"MPI: {mpi.flavour} in {mpi.prefix}")
        except BackendUnavailable as reason:
            print(f"MPI is left out: {reason}")
            backends.remove("mpi")
    scenario = Scenario(
        **{name: getattr(SCENARIO, name) for name in SCENARIO.__slots__} | {"backends": tuple(backends)}
    )
    reports = [run_local(scenario, nranks, mpi) for nranks in RANKS]
    records = [record for report in reports for record in report.records]
    given.output.mkdir(parents=True, exist_ok=True)
    save(given.output, reports, records)
    return 1 if any(report.wrong for report in reports) else 0


def save(folder: Path, reports: list[Report], records: list[Record]) -> None:
    plot(records, folder / "demo.svg")
    (folder / "demo.jsonl").write_bytes(b"".join(map(to_json_lines, reports)))
    print()
    for one in summarise(records):
        where = f"{one.worst.kind}, {one.worst.nranks} ranks, {one.worst.nbytes} B"
        mean = f"{one.mean:.2f} in the geometric mean of {one.points} points"
        print(f"{one.peer} / {records[0].backend}: {mean}, {one.smallest:.2f} at least ({where})")
    print(f"picture: {folder / 'demo.svg'}; numbers: {folder / 'demo.jsonl'}")


if __name__ == "__main__":
    sys.exit(main())
