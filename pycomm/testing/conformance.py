"""The conformance suite: what a backend declares must equal the oracle, all else must raise ``Unsupported``.

``python -m pycomm.testing.conformance --backend native --ranks 2,3,4`` runs it and prints the table of cells.
All cells of one group size run in one set of ranks, so thousands of them take seconds. Under a launcher
(``mpiexec -n 4 python -m pycomm.testing.conformance --backend mpi --launched``) the launched processes are
the ranks.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from pycomm.communicator import Communicator
from pycomm.errors import CommError, PycommError
from pycomm.testing.cells import COLLECTIVES, Cell, cells, run_cell, schedule_cells
from pycomm.testing.processes import run_processes
from pycomm.testing.scenarios import SCENARIOS
from pycomm.testing.threads import run_threads
from pycomm.types import DType

__all__ = ["Outcome", "merge", "render", "run_group", "run_rank"]

_TARGET: Final = "pycomm.testing.conformance:run_rank"  # by name: this module may run as __main__


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one cell or scenario ended.

    Attributes
    ----------
    nranks
        Size of the group.
    part
        ``"cells"``, ``"schedules"`` or ``"scenarios"``.
    name
        The cell in words, or the scenario's name.
    group, column
        Where it counts in the table: the collective, and the dtype or algorithm.
    status
        ``"pass"``, ``"unsupported"`` (declared so, and raised) or ``"fail"``.
    detail
        What was wrong, and on which rank.
    """

    nranks: int
    part: str
    name: str
    group: str
    column: str
    status: str
    detail: str = ""


def _outcome(comm: Communicator, part: str, cell: Cell) -> Outcome:
    column = cell.algorithm or cell.dtype.label
    start = Outcome(comm.size, part, str(cell), cell.kind.label, column, "pass")
    try:
        status, detail = run_cell(comm, cell)
    except CommError:
        raise
    except Exception as error:  # one wrong cell must not hide the others
        status, detail = "fail", f"raised {type(error).__name__}: {error}"
    return replace(start, status=status, detail=f"rank {comm.rank}: {detail}" if detail else "")


def run_rank(comm: Communicator, quick: bool = False) -> list[Outcome]:
    """Run the whole suite on this rank; every rank of the group calls it.

    Parameters
    ----------
    comm
        The group to try.
    quick
        Whether to leave out most of the repetitions.

    Returns
    -------
    list of Outcome
        In the same order on every rank; ends early, with a failure, when the communicator died.
    """
    outcomes: list[Outcome] = []
    todo = [("cells", cell) for cell in cells(comm.size, quick=quick)]
    if comm._capabilities.runs_schedules:
        todo += [("schedules", cell) for cell in schedule_cells(comm.size, quick=quick)]
    current = ""
    try:
        for part, cell in todo:
            current = str(cell)
            outcomes.append(_outcome(comm, part, cell))
        for name, scenario in SCENARIOS.items():
            current = name
            status, detail = "pass", ""
            try:
                scenario(comm)
            except CommError:
                raise
            except Exception as error:  # as for the cells
                status, detail = "fail", f"rank {comm.rank}: {type(error).__name__}: {error}"
            outcomes.append(Outcome(comm.size, "scenarios", name, "scenarios", name, status, detail))
    except CommError as error:
        detail = f"rank {comm.rank}: the communicator died: {type(error).__name__}: {error}"
        outcomes.append(Outcome(comm.size, "cells", current, "aborted", "", "fail", detail))
    return outcomes


def merge(by_rank: Sequence[Sequence[Outcome]]) -> list[Outcome]:
    """Join the ranks' views of each cell: it passed when it passed everywhere."""
    merged = []
    longest = max(len(outcomes) for outcomes in by_rank)
    for index in range(longest):
        views = [outcomes[index] for outcomes in by_rank if index < len(outcomes)]
        failed = [v for v in views if v.status == "fail"]
        kinds = {v.status for v in views}
        if failed:
            first = failed[0]
            merged.append(replace(first, detail="; ".join(dict.fromkeys(v.detail for v in failed))))
        elif len(kinds) > 1 or len(views) < len(by_rank):
            merged.append(replace(views[0], status="fail", detail=f"ranks disagree: {sorted(kinds)}"))
        else:
            merged.append(views[0])
    return merged


def run_group(backend: str, nranks: int, *, quick: bool = False, timeout_s: float = 60.0) -> list[Outcome]:
    """Start the ranks of one group, run the suite, and join their views.

    Parameters
    ----------
    backend
        Name of the backend; ``"reference"`` runs its ranks as threads, all others as processes.
    nranks
        Number of ranks.
    quick
        Whether to leave out most of the repetitions.
    timeout_s
        Deadline of every wait of the group.
    """
    if backend == "reference":
        return merge(run_threads(nranks, lambda comm: run_rank(comm, quick), backend, max(timeout_s, 600.0)))
    return merge(run_processes(nranks, _TARGET, backend, args=(quick,), timeout_s=timeout_s, run_s=600.0))


def _entry(counts: Counter[str]) -> str:
    if counts["fail"]:
        return f"FAIL {counts['fail']}"
    if counts["pass"]:
        return str(counts["pass"])
    return "-" if counts["unsupported"] else ""


def render(backend: str, outcomes: Iterable[Outcome]) -> str:
    """Print cells as a table of collectives and dtypes: how many were right, ``-`` where unsupported."""
    table: dict[str, dict[tuple[str, str], Counter[str]]] = {"cells": {}, "schedules": {}, "scenarios": {}}
    total: Counter[str] = Counter()
    failures = []
    for outcome in outcomes:
        table[outcome.part].setdefault((outcome.group, outcome.column), Counter())[outcome.status] += 1
        total[outcome.status] += 1
        if outcome.status == "fail":
            failures.append(f"  {outcome.nranks} ranks: {outcome.name}: {outcome.detail}")
    lines = [
        f"backend {backend}: right calls by collective and dtype (- declared unsupported, and raises)",
        "",
    ]
    lines += _grid(table["cells"], [k.label for k in COLLECTIVES], [d.label for d in DType])
    if table["schedules"]:
        lines += ["", "right calls by collective and algorithm of the schedule", ""]
        lines += _grid(
            table["schedules"], [k.label for k in COLLECTIVES], sorted({c for _, c in table["schedules"]})
        )
    lines += [
        "",
        "scenarios: " + ", ".join(f"{name} {_entry(c)}" for (_, name), c in table["scenarios"].items()),
    ]
    lines += [
        "",
        f"{total['pass']} pass, {total['unsupported']} unsupported and raising, {total['fail']} FAIL",
    ]
    return "\n".join(lines + failures)


def _grid(entries: dict[tuple[str, str], Counter[str]], rows: list[str], columns: list[str]) -> list[str]:
    widths = [max([len(c), *(len(_entry(entries.get((r, c), Counter()))) for r in rows)]) for c in columns]
    lines = [" " * 15 + "  ".join(c.rjust(w) for c, w in zip(columns, widths, strict=True))]
    for row in rows:
        shown = (
            _entry(entries.get((row, c), Counter())).rjust(w) for c, w in zip(columns, widths, strict=True)
        )
        lines.append(row.ljust(15) + "  ".join(shown))
    return lines


def _launched(backend: str, quick: bool, timeout_s: float) -> list[Outcome] | None:
    import pycomm

    with pycomm.init(backend, timeout_s=timeout_s) as comm:
        views = comm.gather_object([asdict(outcome) for outcome in run_rank(comm, quick)])
    return None if views is None else merge([[Outcome(**entry) for entry in view] for view in views])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite from the command line; the exit code is 0 when no cell failed, else 1."""
    parser = argparse.ArgumentParser(prog="python -m pycomm.testing.conformance", description=__doc__)
    parser.add_argument("--backend", default="native")
    parser.add_argument("--ranks", default="2,3,4", help="sizes of the groups, e.g. 1,2,3,4,7,8")
    parser.add_argument("--quick", action="store_true", help="leave out most of the repetitions")
    parser.add_argument("--json", action="store_true", help="print every cell as one JSON document")
    parser.add_argument("--launched", action="store_true", help="the ranks are the processes of a launcher")
    parser.add_argument("--timeout-s", type=float, default=60.0, help="deadline of every wait")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        if options.launched:
            found = _launched(options.backend, options.quick, options.timeout_s)
            if found is None:
                return 0
        else:
            found = []
            for n in (int(part) for part in options.ranks.split(",")):
                found += run_group(options.backend, n, quick=options.quick, timeout_s=options.timeout_s)
    except PycommError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 3
    if options.json:
        print(json.dumps({"backend": options.backend, "cells": [asdict(outcome) for outcome in found]}))
    else:
        print(render(options.backend, found))
        print(f"{len(found)} cells in {time.monotonic() - started:.1f} s")
    return 1 if any(outcome.status == "fail" for outcome in found) else 0


if __name__ == "__main__":
    sys.exit(main())
