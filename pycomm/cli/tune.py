"""``pycomm tune``: say what the tuner chooses and why; measure, and write a table that overrides it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

import pycomm
from pycomm.bench import KINDS, parse_kinds, sweep
from pycomm.bench.candidates import Trial, measure_candidates, table_of
from pycomm.cli.render import print_json, print_table
from pycomm.errors import CommError, TopologyError, UsageError
from pycomm.launch import detect
from pycomm.planner.base import PlanRequest
from pycomm.topology.model import Topology
from pycomm.tuner import crossovers, explain
from pycomm.tuner.table import Key, Table, key_of, load_table, merged, write_table
from pycomm.types import CollectiveKind
from pycomm.units import format_size, format_size_rounded, format_time, parse_size

__all__ = ["command"]

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("tune", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("collectives", default="allreduce")
@click.option(
    "-np", "--ranks", type=click.IntRange(1), help="Start so many processes here; else join the job."
)
@click.option("-b", "--begin", default="1K", show_default=True, help="First size, e.g. 8 or 4K.")
@click.option("-e", "--end", default="16M", show_default=True, help="Last size.")
@click.option("-f", "--factor", default=4.0, show_default=True, help="Size over the size before.")
@click.option("-r", "--repeats", type=click.IntRange(1), default=5, show_default=True, help="Turns of each.")
@click.option("-o", "--output", type=_FILE, help="Table to write; what it holds for other calls is kept.")
@click.option("--explain", "explains", is_flag=True, help="Measure nothing: say what is chosen, and why.")
@click.option("--topology", help="For --explain: a file or a name of 'pycomm topo list'.")
@click.option("--bytes", "size", help="For --explain: one size, instead of the table of all.")
@click.option("--root", type=click.IntRange(0), default=0, show_default=True, help="Of rooted collectives.")
@click.option("--merge", "tables", type=_FILE, multiple=True, help="Put tables together; the last one wins.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--folder", hidden=True, help="Where the ranks that were started here meet.")
@click.option("--rank", type=int, hidden=True, help="Number of a rank that was started here.")
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    r"""Choose algorithms for COLLECTIVES: names with commas between them, or 'all'.

    Measures every algorithm that can serve them, every result checked, on processes started here (-np) or on
    the ranks that torchrun, mpirun or srun have started. With -o the fastest are written to a table, which
    PYCOMM_TUNING=FILE puts to use. The exit code is 1 when results were wrong.

    \b
    pycomm tune allreduce --explain --topology dgx_h100 --bytes 64M
    pycomm tune allreduce,allgather -np 4 -o table.toml
    pycomm tune --merge old.toml --merge new.toml -o table.toml
    """
    if given["tables"]:
        _merge(given["tables"], given["output"])
        return
    kinds = parse_kinds(given["collectives"])
    if given["explains"]:
        _explain(kinds, given)
        return
    if given["topology"] or given["size"]:
        raise UsageError(
            "--topology and --bytes are for --explain; a job takes PYCOMM_TOPOLOGY, and -b and -e"
        )
    if given["ranks"] is not None and given["rank"] is None:
        ctx.exit(_start(given["ranks"], given))
    try:
        code = _measure(kinds, given)
    except (UsageError, TopologyError):
        if not given["rank"]:
            raise  # rank 0 says what is wrong, for all that were started here
        code = 2
    ctx.exit(code)


def _merge(files: Sequence[Path], output: Path | None) -> None:
    table = merged(load_table(file) for file in files)
    text = write_table(table)
    if output is None:
        click.echo(text, nl=False)
        return
    output.write_text(text)
    click.echo(f"wrote {output}: {len(table.entries)} entries of {len(files)} tables")


# ------------------------------------------------------------------------------------------------------
# explaining


def _load(source: str) -> Topology:
    from pycomm.topology import catalogue
    from pycomm.topology.importers import read

    path = Path(source)
    return read(source) if path.exists() or path.suffix else catalogue.named(source)


def _request(kind: CollectiveKind, topology: Topology | None, given: dict[str, Any]) -> PlanRequest:
    root = given["root"] if kind.is_rooted else -1
    if topology is None:
        return PlanRequest(kind, given["ranks"] or 8, root)
    devices, hosts = topology.devices, topology.host_numbers()
    count = given["ranks"] or len(devices)
    if count > len(devices):
        raise UsageError(f"{topology.name} has {len(devices)} devices, too few for -np {count}")
    if kind.is_rooted and root >= count:
        raise UsageError(f"root {root} is no rank of {count}")
    shape = hosts[:count] if len(set(hosts[:count])) > 1 else ()
    return PlanRequest(kind, count, root, hosts=shape, topology=topology, devices=devices[:count])


def _explain(kinds: Sequence[CollectiveKind], given: dict[str, Any]) -> None:
    topology = _load(given["topology"]) if given["topology"] else None
    table = load_table(os.environ["PYCOMM_TUNING"]) if os.environ.get("PYCOMM_TUNING") else None
    facts: list[dict[str, Any]] = []
    for kind in kinds:
        request = _request(kind, topology, given)
        if given["size"] is not None:
            found = explain(request, parse_size(given["size"]), table=table)
            facts.append(found.facts())
            if not given["as_json"]:
                click.echo(found.text())
            continue
        low, high = max(1, parse_size(given["begin"])), parse_size(given["end"])
        rows = crossovers(request, low=low, high=high, table=table)
        facts.append(
            {
                "collective": kind.label,
                "nranks": request.nranks,
                "crossovers": [
                    {
                        "nbytes": r.nbytes,
                        "chosen": r.chosen,
                        "seconds": None if r.seconds != r.seconds else r.seconds,
                    }
                    for r in rows
                ],
            }
        )
        if not given["as_json"]:
            on = f" on {topology.name}" if topology else ""
            click.secho(f"{kind.label}, {request.nranks} ranks{on}", bold=True)
            print_table(
                ("from", "choice", "time"),
                [
                    (
                        format_size_rounded(r.nbytes),
                        r.chosen,
                        "measured" if r.seconds != r.seconds else format_time(r.seconds),
                    )
                    for r in rows
                ],
            )
    if given["as_json"]:
        print_json(facts)


# -------------------------------------------------------------------------------------------------------
# measuring


def _start(ranks: int, given: dict[str, Any]) -> int:
    """Start the ranks on this host; each runs this command again."""
    with tempfile.TemporaryDirectory(prefix="pycomm-tune-") as folder:
        words = [sys.executable, "-m", "pycomm", "tune", given["collectives"], "-np", str(ranks)]
        for name in ("begin", "end", "factor", "repeats", "root"):
            words += [f"--{name}", str(given[name])]
        words += ["--folder", f"{folder}/store"]
        words += ["-o", str(given["output"])] if given["output"] else []
        words += ["--json"] if given["as_json"] else []
        environ = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
        environ["OMP_NUM_THREADS"] = "1"
        started = [subprocess.Popen([*words, "--rank", str(rank)], env=environ) for rank in range(ranks)]
        try:
            codes = [process.wait() for process in started]
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
                    process.wait()
    failed = [code for code in codes if code not in (0, 1, 2)]
    if failed:
        raise CommError(f"a rank ended with exit code {failed[0]}; see above for the cause")
    return max(codes)


def _measure(kinds: Sequence[CollectiveKind], given: dict[str, Any]) -> int:
    sizes = sweep(parse_size(given["begin"]), parse_size(given["end"]), given["factor"], 0)
    unknown = [kind.label for kind in kinds if kind not in KINDS]
    if unknown:
        raise UsageError(f"{', '.join(unknown)} cannot be tuned")
    with contextlib.ExitStack() as stack:
        comm = stack.enter_context(_join(given))
        if kinds and given["root"] >= comm.size:
            raise UsageError(f"root {given['root']} is no rank of {comm.size}")
        old = _read_first(comm, given["output"])
        talks = comm.rank == 0 and not given["as_json"]
        trials = measure_candidates(
            comm, kinds, sizes, repeats=given["repeats"], root=given["root"], on_size=_show if talks else None
        )
        key = _key(comm)
        table = merged([old, table_of(trials, key)])
        if comm.rank == 0:
            _report(trials, table, given)
    return 1 if any(trial.wrong for trial in trials) else 0


def _join(given: dict[str, Any]) -> pycomm.Communicator:
    if given["rank"] is not None:
        return pycomm.init(rank=given["rank"], size=given["ranks"], rendezvous=f"file:{given['folder']}")
    if detect(os.environ).size == 1:
        raise UsageError(
            "there is nothing to tune on one rank; use -np, or start this with torchrun or mpirun"
        )
    return pycomm.init()


def _read_first(comm: pycomm.Communicator, output: Path | None) -> Table:
    """Read the table that will be overwritten; what is wrong with it is known before anything is measured."""
    text = output.read_text() if comm.rank == 0 and output is not None and output.exists() else ""
    problem = ""
    table = Table()
    if text and output is not None:
        try:
            table = load_table(output)
        except UsageError as error:
            problem = str(error)
    said = np.array([len(problem.encode())])
    comm.broadcast(said)
    if said[0]:
        raw = np.frombuffer(problem.encode().ljust(int(said[0])), np.uint8).copy()
        comm.broadcast(raw)
        raise UsageError(raw.tobytes().decode())
    return table


def _key(comm: pycomm.Communicator) -> Key:
    placed = comm.network()
    topology, devices = placed or (None, ())
    return key_of(
        PlanRequest(
            CollectiveKind.ALLREDUCE, comm.size, hosts=comm.hosts(), topology=topology, devices=devices
        )
    )


def _show(trials: list[Trial]) -> None:
    first = trials[0]
    click.secho(f"{first.kind.label}, {format_size(first.nbytes)}", bold=True)
    print_table(
        ("algorithm", "pieces", "time", "predicted", ""),
        [
            (
                trial.algorithm + (", placed" if trial.order else ""),
                str(trial.pieces or ""),
                format_time(trial.seconds) if trial.counts else "-",
                format_time(trial.predicted) if trial.predicted < float("inf") else "",
                f"WRONG: {trial.wrong} elements, disqualified" if trial.wrong else trial.problem,
            )
            for trial in trials
        ],
    )


def _report(trials: Sequence[Trial], table: Table, given: dict[str, Any]) -> None:
    wrong = [trial for trial in trials if trial.wrong]
    if given["as_json"]:
        print_json(
            {
                "trials": [
                    {
                        "collective": t.kind.label,
                        "nbytes": t.nbytes,
                        "algorithm": t.algorithm,
                        "pieces": t.pieces,
                        "order": list(t.order),
                        "seconds": t.seconds if t.counts else None,
                        "predicted": t.predicted if t.predicted < float("inf") else None,
                        "wrong": t.wrong,
                        "problem": t.problem,
                    }
                    for t in trials
                ],
                "table": write_table(table),
            }
        )
    elif wrong:
        names = sorted({f"{trial.algorithm} in {trial.kind.label}" for trial in wrong})
        click.secho(f"wrong results, not in the table: {', '.join(names)}", fg="red")
    if given["output"] is not None:
        given["output"].write_text(write_table(table))
        if not given["as_json"]:
            click.echo(f"wrote {given['output']}: {len(table.entries)} entries; use it with PYCOMM_TUNING")
