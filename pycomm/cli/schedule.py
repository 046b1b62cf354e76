"""``pycomm schedule``: plan, show, verify, convert and draw schedules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from pycomm.cli.render import print_facts, print_json, print_table
from pycomm.collectives.spec import block_count
from pycomm.errors import ScheduleError, UsageError
from pycomm.export import READERS, export, read
from pycomm.planner.base import PlanRequest
from pycomm.schedule import OpKind, Schedule
from pycomm.schedule.text import format_op, format_span
from pycomm.types import CollectiveKind

__all__ = ["command"]

_ROWS_SHOWN = 200
_COLLECTIVES = [
    kind.label for kind in CollectiveKind if kind not in (CollectiveKind.SEND, CollectiveKind.RECV)
]
_Command = Callable[..., None]


class Source(NamedTuple):
    """Where a schedule comes from: a file, or an algorithm and a request."""

    name: str
    collective: str | None
    ranks: int | None
    root: int | None
    in_place: bool
    channels: int
    pieces: int
    hosts: tuple[int, ...]
    order: tuple[int, ...]

    def load(self) -> Schedule:
        """Read the file, or plan."""
        if self.collective is None:
            if not self.name.endswith(tuple(READERS)):
                raise UsageError(
                    f"{self.name!r} is neither a schedule file ({', '.join(READERS)}) nor followed by a "
                    f"collective; write e.g. '{self.name} allreduce --ranks 4'"
                )
            return read(Path(self.name).read_bytes(), self.name)
        if self.ranks is None:
            raise UsageError(f"say for how many ranks to plan: --ranks 4, or --hosts 2,2 ({self.name})")
        from pycomm.planner.registry import plan

        kind = CollectiveKind[self.collective.upper()]
        root = (0 if kind.is_rooted else -1) if self.root is None else self.root
        return plan(
            self.name,
            PlanRequest(
                kind,
                self.ranks,
                root=root,
                in_place=self.in_place,
                hosts=self.hosts,
                channels=self.channels,
                order=self.order,
                pieces=self.pieces,
            ),
        )


def _numbers(_ctx: click.Context, parameter: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(item) for item in text.split(",")) if text else ()
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 2,2", param=parameter) from None


def _takes_source(function: _Command) -> _Command:
    """Add the arguments and options that say which schedule is meant; the command gets a ``Source``."""

    def wrapped(
        source: str, collective: str | None, ranks: int | None, hosts: tuple[int, ...], **rest: Any
    ) -> None:
        names = ("root", "in_place", "channels", "pieces", "order")
        request = {name: rest.pop(name) for name in names}
        if any(size < 1 for size in hosts):
            raise UsageError("--hosts lists the ranks of each host, each at least 1")
        if hosts and ranks not in (None, sum(hosts)):
            raise UsageError(f"--hosts lists {sum(hosts)} ranks, --ranks says {ranks}")
        placed = tuple(host for host, size in enumerate(hosts) for _ in range(size))
        function(Source(source, collective, len(placed) or ranks, hosts=placed, **request), **rest)

    wrapped.__doc__ = function.__doc__
    wrapped.__name__ = function.__name__
    wrapped.__click_params__ = list(getattr(function, "__click_params__", []))  # type: ignore[attr-defined]  # click's own
    decorators = (
        click.argument("source", metavar="FILE|ALGORITHM"),
        click.argument("collective", required=False, type=click.Choice(_COLLECTIVES), metavar="[COLLECTIVE]"),
        click.option("--ranks", "-n", type=click.IntRange(1), help="Number of ranks to plan for."),
        click.option("--root", type=click.IntRange(0), help="Root of a rooted collective; 0 when left out."),
        click.option("--in-place", is_flag=True, help="Plan for one buffer that is both input and output."),
        click.option("--channels", type=click.IntRange(1), default=1, help="Independent lanes to use."),
        click.option(
            "--pieces", type=click.IntRange(0), default=0, help="Pieces of a block; 0: planner's choice."
        ),
        click.option("--hosts", default="", callback=_numbers, help="Ranks on each host, e.g. 2,2."),
        click.option(
            "--order", default="", callback=_numbers, help="Order of the ranks in a ring, e.g. 0,2,1,3."
        ),
    )
    for decorate in reversed(decorators):
        wrapped = decorate(wrapped)
    return wrapped


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("schedule", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Show, verify, convert and draw schedules.

    A schedule is named by a file (.txt, .msgpack, .json, .xml of MSCCL), or by an algorithm and a
    collective, as in 'ring allreduce --ranks 4'.
    """


@command.command()
@click.option("--all", "show_all", is_flag=True, help="Print every op, however many there are.")
@_json_option
@_takes_source
def show(source: Source, show_all: bool, as_json: bool) -> None:
    """Print a schedule: its cost, and what each rank does in which step."""
    from pycomm.export.timeline import unit_timeline

    schedule = source.load()
    timeline = unit_timeline(schedule)
    if as_json:
        ops = [
            _op_facts(rank, op, timeline.times[rank][op], row)
            for rank in range(schedule.nranks)
            for op, row in enumerate(schedule.program(rank).tolist())
        ]
        print_json({**_facts(schedule), **_cost(schedule), "ops": ops})
        return
    _print_summary(schedule)
    click.echo()
    rows = [
        (rank, op, timeline.times[rank][op], format_op(row))
        for rank in range(schedule.nranks)
        for op, row in enumerate(schedule.program(rank).tolist())
    ]
    shown = rows if show_all else rows[:_ROWS_SHOWN]
    print_table(("rank", "op", "step", "what"), shown)
    if len(shown) < len(rows):
        click.echo(f"... and {len(rows) - len(shown)} more ops; --all prints them")


@command.command()
@_json_option
@_takes_source
@click.pass_context
def verify(ctx: click.Context, source: Source, as_json: bool) -> None:
    """Prove a schedule right, or list what is wrong with it (exit code 1)."""
    from pycomm.verify import verify as find

    schedule = source.load()
    findings = find(schedule)
    if as_json:
        cost = {} if findings else _cost(schedule)
        listed = [{"code": f.code, "rank": f.rank, "op": f.op, "message": f.message} for f in findings]
        print_json({**_facts(schedule), **cost, "verified": not findings, "findings": listed})
    elif findings:
        for finding in findings:
            click.echo(str(finding))
        click.echo(f"{len(findings)} findings; docs/diagnostics.md explains the codes", err=True)
    else:
        cost = _cost(schedule)
        click.echo(
            f"verified: {_title(schedule)}: {cost['steps']} steps, {cost['sent_chunks']} of "
            f"{cost['array_chunks']} chunks sent by the busiest rank"
        )
    ctx.exit(1 if findings else 0)


@command.command()
@click.option("--output", "-o", required=True, type=click.Path(dir_okay=False), help="File to write.")
@click.option("--unverified", is_flag=True, help="Write it even if it is wrong.")
@_json_option
@_takes_source
def plan(source: Source, output: str, unverified: bool, as_json: bool) -> None:
    """Write a schedule to a file; the suffix says in which form.

    .txt .msgpack .json .xml (of MSCCL) can be read back; .mscclpp.json is for MSCCL++, .dot for
    Graphviz, .trace.json for Perfetto;
    .svg .png .pdf are pictures.
    """
    _write(source.load(), output, unverified, as_json)


@command.command()
@click.argument("input", type=click.Path(exists=True, dir_okay=False))
@click.argument("output", type=click.Path(dir_okay=False))
@click.option("--unverified", is_flag=True, help="Write it even if it is wrong.")
@_json_option
def convert(input: str, output: str, unverified: bool, as_json: bool) -> None:
    """Read a schedule from INPUT and write it to OUTPUT, each in the form its suffix says."""
    _write(read(Path(input).read_bytes(), input), output, unverified, as_json)


@command.command()
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False),
    help="Picture (.svg .png .pdf) or .trace.json to write.",
)
@_json_option
@_takes_source
def draw(source: Source, output: str | None, as_json: bool) -> None:
    """Draw a schedule: ranks as rows, steps from left to right, messages as arrows."""
    schedule = source.load()
    name = output or f"{schedule.name}_{schedule.kind.label}_{schedule.nranks}.svg"
    _write(schedule, name, unverified=True, as_json=as_json)


def _write(schedule: Schedule, output: str, unverified: bool, as_json: bool) -> None:
    if not unverified:
        from pycomm.verify import verify as find

        if findings := find(schedule):
            raise ScheduleError(
                f"{_title(schedule)} is wrong and was not written; --unverified writes it all the same",
                findings,
            )
    data = export(schedule, output)
    Path(output).write_bytes(data)
    if as_json:
        print_json({**_facts(schedule), "output": output, "bytes": len(data)})
    else:
        click.echo(f"wrote {output}: {_title(schedule)}, {len(data)} bytes")


def _title(schedule: Schedule) -> str:
    return f"{schedule.name} {schedule.kind.label} on {schedule.nranks} ranks"


def _facts(schedule: Schedule) -> dict[str, Any]:
    return {
        "name": schedule.name,
        "collective": schedule.kind.label,
        "ranks": schedule.nranks,
        "root": schedule.root,
        "pieces": schedule.pieces,
        "in_place": schedule.in_place,
        "channels": schedule.channels,
        "capacity": schedule.capacity,
        "digest": schedule.digest().hex(),
    }


def _cost(schedule: Schedule) -> dict[str, int]:
    """Count steps and chunks on the schedule itself."""
    from pycomm.verify import metrics

    counted = metrics(schedule)
    return {
        "steps": counted.steps,
        "array_chunks": block_count(schedule.kind, schedule.nranks) * schedule.pieces,
        "sent_chunks": counted.sent,
        "received_chunks": counted.received,
        "reduced_chunks": counted.reduced,
        "total_sent_chunks": counted.total,
    }


def _print_summary(schedule: Schedule) -> None:
    cost = _cost(schedule)
    places = "in place" if schedule.in_place else "out of place"
    root = f", root {schedule.root}" if schedule.root >= 0 else ""
    click.secho(f"{_title(schedule)}{root}, {places}", bold=True)
    print_facts(
        (
            ("steps", f"{cost['steps']}  (longest chain of messages)"),
            ("array", f"{cost['array_chunks']} chunks, {schedule.pieces} per block"),
            ("sent", f"{cost['sent_chunks']} chunks by the busiest rank, {cost['total_sent_chunks']} by all"),
            ("received", f"{cost['received_chunks']} chunks by the busiest rank"),
            ("reduced", f"{cost['reduced_chunks']} chunks by the busiest rank"),
            ("channels", f"{schedule.channels}, each holding up to {schedule.capacity} unmatched messages"),
            ("scratch", f"{int(np.diff(schedule.scratch_offsets).max())} chunks on the hungriest rank"),
            ("digest", schedule.digest().hex()[:16]),
        ),
        indent="  ",
    )


def _op_facts(rank: int, op: int, step: int, row: list[int]) -> dict[str, Any]:
    kind, peer, channel, src_space, src_start, dst_space, dst_start, count = row
    return {
        "rank": rank,
        "op": op,
        "step": step,
        "kind": OpKind(kind).name.lower(),
        "peer": peer,
        "channel": channel,
        "src": format_span(src_space, src_start, count) if src_space >= 0 else None,
        "dst": format_span(dst_space, dst_start, count) if dst_space >= 0 else None,
        "chunks": count,
    }
