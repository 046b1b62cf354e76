"""``pycomm bench``: nccl-tests' habits, several libraries side by side."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

import pycomm
from pycomm.bench import Report, Scenario, find_mpi, parse_kinds, run, run_local, sweep, to_csv, to_json
from pycomm.errors import UsageError
from pycomm.launch import detect
from pycomm.types import DType, ReduceOp
from pycomm.units import parse_size

__all__ = ["command"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path)
_OPTIONS = (
    click.argument("collectives", default="allreduce"),
    click.option("-b", "--begin", default="8", show_default=True, help="First size, e.g. 8 or 4K."),
    click.option("-e", "--end", default="64M", show_default=True, help="Last size."),
    click.option("-f", "--factor", default=2.0, show_default=True, help="Size over the size before."),
    click.option("-i", "--increment", metavar="SIZE", help="Size minus the size before; instead of -f."),
    click.option("-n", "--iters", default=20, show_default=True, help="Timed calls; 0: what fits --budget."),
    click.option("-w", "--warmup", default=5, show_default=True, help="Calls before the timed ones."),
    click.option("--budget", default=0.3, show_default=True, help="Seconds per point and backend, for -n 0."),
    click.option("--rounds", default=5, show_default=True, help="Turns that backends take at each point."),
    click.option("--check/--no-check", default=True, help="Compare results with the oracle (default)."),
    click.option("--op", default="sum", show_default=True, help="Reduce op."),
    click.option("--dtype", default="float32", show_default=True, help="Element type."),
    click.option("--root", default=0, show_default=True, help="Root of rooted collectives."),
    click.option(
        "--form",
        type=click.Choice(["both", "in-place", "out-of-place"]),
        default="both",
        show_default=True,
        help="Which forms are measured.",
    ),
    click.option(
        "--backends",
        default="native",
        show_default=True,
        help="E.g. native,gloo,mpi; copy: what one copy takes.",
    ),
    click.option("-np", "--ranks", type=int, help="Start so many processes here; else join the job."),
    click.option("--mpi", metavar="MPI", help="openmpi, mpich, impi or a folder: the MPI that starts them."),
    click.option("--timeout", default=300.0, show_default=True, help="Deadline of every call in seconds."),
    click.option("--json", "json_path", type=_FILE, help="Write everything to this file as JSON."),
    click.option("--csv", "csv_path", type=_FILE, help="Write the records to this file as CSV."),
    click.option("--plot", "plot_path", type=_FILE, help="Draw time over size (.svg, .png, .pdf)."),
)


def _options(function: _Command) -> _Command:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command("bench", context_settings={"help_option_names": ["-h", "--help"]})
@_options
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    """Measure COLLECTIVES: names with commas between them, or 'all'.

    Prints time (us), algbw and busbw (GB/s) of each size, out of place and in place, every result checked.
    With -np it starts the ranks itself; otherwise it runs on the ranks that torchrun, mpirun or srun have
    started. The exit code is 1 when results were wrong.
    """
    scenario = _scenario(given)
    report = _report(scenario, given["ranks"], given["mpi"])
    if not report.environment:
        return  # another rank than 0
    if given["json_path"] is not None:
        given["json_path"].write_bytes(to_json(report))
    if given["csv_path"] is not None:
        given["csv_path"].write_text(to_csv(report))
    if given["plot_path"] is not None:
        from pycomm.bench.plot import plot

        plot(report.records, given["plot_path"])
    ctx.exit(1 if report.wrong else 0)


def _scenario(given: dict[str, Any]) -> Scenario:
    increment = 0 if given["increment"] is None else parse_size(given["increment"])
    return Scenario(
        kinds=parse_kinds(given["collectives"]),
        sizes=sweep(parse_size(given["begin"]), parse_size(given["end"]), given["factor"], increment),
        backends=tuple(name.strip() for name in given["backends"].split(",") if name.strip()),
        dtype=_one_of(DType, given["dtype"], "element type"),
        op=_one_of(ReduceOp, given["op"], "reduce op"),
        root=given["root"],
        iterations=given["iters"],
        warmup=given["warmup"],
        budget_s=given["budget"],
        rounds=given["rounds"],
        check=given["check"],
        in_place=given["form"] != "out-of-place",
        out_of_place=given["form"] != "in-place",
        timeout_s=given["timeout"],
    ).validate()


def _one_of(kind: Any, text: str, what: str) -> Any:
    names = {one.label: one for one in kind}
    if text not in names:
        raise UsageError(f"there is no {what} {text!r}; choose one of {', '.join(names)}")
    return names[text]


def _report(scenario: Scenario, nranks: int | None, mpi: str | None) -> Report:
    if nranks is not None:
        if nranks < 1:
            raise UsageError(f"{nranks} ranks cannot measure anything; ask for 1 or more")
        if not 0 <= scenario.root < nranks:
            raise UsageError(f"root {scenario.root} is no rank of {nranks}")
        needs_mpi = mpi is not None or "mpi" in scenario.backends
        return run_local(scenario, nranks, find_mpi(mpi) if needs_mpi else None)
    placement = detect(os.environ)
    if not 0 <= scenario.root < placement.size:
        raise UsageError(f"root {scenario.root} is no rank of {placement.size}")
    with contextlib.ExitStack() as stack:
        comms = {
            name: stack.enter_context(pycomm.init(name, timeout_s=scenario.timeout_s))
            for name in scenario.libraries
        }
        return run(scenario, comms, live=True)
