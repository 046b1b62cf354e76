"""Measures collectives: a sweep over sizes, several libraries side by side, every result checked.

:func:`run` measures on the ranks of a job that stands already; :func:`run_local` starts processes on this
host first.
"""

from pycomm.bench.launch import Mpi, find_mpi, find_mpis, run_local
from pycomm.bench.report import Report, run, summarise, to_csv, to_json, to_json_lines, to_markdown
from pycomm.bench.scenario import KINDS, Scenario, parse_kinds, sweep
from pycomm.bench.statistics import Record

__all__ = [
    "KINDS",
    "Mpi",
    "Record",
    "Report",
    "Scenario",
    "find_mpi",
    "find_mpis",
    "parse_kinds",
    "run",
    "run_local",
    "summarise",
    "sweep",
    "to_csv",
    "to_json",
    "to_json_lines",
    "to_markdown",
]
