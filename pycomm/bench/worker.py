"""One rank of a benchmark, started by :mod:`pycomm.bench.launch`."""

from __future__ import annotations

import argparse
import contextlib
import sys
import traceback
from pathlib import Path

import msgspec

import pycomm
from pycomm.bench.report import Report, run
from pycomm.bench.scenario import Scenario
from pycomm.errors import BackendUnavailable, PycommError, UsageError

__all__ = ["main"]


def main() -> int:
    """Measure, and write the report on rank 0."""
    parser = argparse.ArgumentParser(prog="pycomm.bench.worker")
    parser.add_argument("scenario", type=Path)
    parser.add_argument("report", type=Path)
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--rank", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--folder")
    given = parser.parse_args()
    scenario = msgspec.json.decode(given.scenario.read_bytes(), type=Scenario)
    with contextlib.ExitStack() as stack:
        comms = {}
        for name in scenario.libraries:
            comms[name] = stack.enter_context(
                pycomm.init(
                    name,
                    rank=given.rank,
                    size=given.size,
                    rendezvous=f"file:{given.folder}/{name}" if given.folder else None,
                    timeout_s=scenario.timeout_s,
                )
            )
        report: Report = run(scenario, comms, live=given.live)
        if next(iter(comms.values())).rank == 0:
            given.report.write_bytes(msgspec.json.encode(report))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PycommError as error:
        traceback.print_exc()
        sys.stderr.flush()
        sys.exit(2 if isinstance(error, UsageError) else 3 if isinstance(error, BackendUnavailable) else 4)
