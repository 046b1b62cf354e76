"""``pycomm topo``: describe, check, draw, convert and detect networks; bounds and schedules for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from pycomm.cli.render import print_facts, print_json, print_table
from pycomm.errors import UsageError
from pycomm.topology.model import NodeKind, Topology
from pycomm.types import CollectiveKind

__all__ = ["command"]

_PLANNED = ("allgather", "reduce_scatter", "allreduce", "broadcast", "reduce", "alltoall")
_Command = Callable[..., Any]

_source = click.argument("source", metavar="FILE|NAME")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_collective = click.option(
    "--collective", "-c", type=click.Choice(_PLANNED), default="allreduce", show_default=True, help="Of what."
)
_root = click.option(
    "--root", type=click.IntRange(0), default=None, help="Root of broadcast and reduce; 0 when left out."
)


def _reads(function: _Command) -> _Command:
    """Add the options that say how a file is read."""
    for decorate in (
        click.option(
            "--assume",
            multiple=True,
            metavar="KEY=VALUE",
            help="What the file does not say, e.g. --assume link='400 Gbit/s'; may be repeated.",
        ),
        click.option(
            "--format", "file_format", default=None, help="Format of the file; found out when left out."
        ),
    ):
        function = decorate(function)
    return function


@click.group("topo", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Describe networks, and say what they can do at best.

    A network is named by a file (TOML, or any format that 'pycomm topo formats' lists) or by a name from
    'pycomm topo list'.
    """


def _load(source: str, file_format: str | None, assume: tuple[str, ...]) -> Topology:
    assumed: dict[str, str] = {}
    for item in assume:
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"--assume {item!r}: write KEY=VALUE, e.g. link='400 Gbit/s'")
        assumed[key.strip()] = value.strip()
    from pycomm.topology import catalogue
    from pycomm.topology.importers import read

    if file_format is None and not assumed and not Path(source).exists() and not Path(source).suffix:
        return catalogue.named(source)
    return read(source, file_format, **assumed)


@command.command("list")
@_json_option
def list_names(as_json: bool) -> None:
    """List the machines and networks that pycomm knows by name."""
    from pycomm.topology import catalogue

    found = {name: catalogue.named(name) for name in catalogue.names()}
    if as_json:
        print_json({name: _facts(topology) for name, topology in found.items()})
        return
    rows = [(name, len(t.devices), len(set(t.host_numbers())), _makes(t)) for name, t in found.items()]
    print_table(("name", "devices", "hosts", "which"), rows)


@command.command()
@_json_option
def formats(as_json: bool) -> None:
    """List the file formats that can be read and written."""
    from pycomm.topology.exporters import EXPORTS
    from pycomm.topology.importers import FORMATS, assumptions

    known = [*FORMATS, *(name for name in EXPORTS if name not in FORMATS)]
    if as_json:
        print_json(
            {
                name: {
                    "read": name in FORMATS,
                    "write": name in EXPORTS,
                    "assume": list(assumptions(name)) if name in FORMATS else [],
                }
                for name in known
            }
        )
        return
    print_table(
        ("format", "read", "written", "takes --assume", "what"),
        [
            (
                name,
                "yes" if name in FORMATS else "",
                "yes" if name in EXPORTS else "",
                " ".join(assumptions(name)) if name in FORMATS and name != "toml" else "",
                FORMATS[name].help if name in FORMATS else "",
            )
            for name in known
        ],
    )


@command.command()
@_json_option
@_reads
@_source
def show(source: str, file_format: str | None, assume: tuple[str, ...], as_json: bool) -> None:
    """Print what a network consists of."""
    topology = _load(source, file_format, assume)
    if as_json:
        print_json(_facts(topology))
        return
    _print_topology(topology)


@command.command()
@_json_option
@_reads
@_source
@click.pass_context
def check(
    ctx: click.Context, source: str, file_format: str | None, assume: tuple[str, ...], as_json: bool
) -> None:
    """Look for what is wrong with a network (exit code 1), or merely odd."""
    from pycomm.topology.checks import problems, remarks

    topology = _load(source, file_format, assume)
    wrong, odd = list(problems(topology)), list(remarks(topology))
    if as_json:
        print_json({**_facts(topology), "findings": wrong, "remarks": odd})
    else:
        for finding in wrong:
            click.echo(f"wrong: {finding}")
        for remark in odd:
            click.echo(f"odd: {remark}")
        if not wrong:
            click.echo(f"nothing is wrong: {_title(topology)}")
    ctx.exit(1 if wrong else 0)


@command.command()
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="Picture to write (.svg .png .pdf).")
@click.option(
    "--bound",
    "bound_of",
    type=click.Choice(_PLANNED),
    default=None,
    help="Show the cut that limits this collective.",
)
@_json_option
@_reads
@_source
def draw(
    source: str,
    file_format: str | None,
    assume: tuple[str, ...],
    output: str | None,
    bound_of: str | None,
    as_json: bool,
) -> None:
    """Draw a network; large ones are folded."""
    from pycomm.export.network_picture import network_picture

    topology = _load(source, file_format, assume)
    name = output or f"{Path(source).stem}.svg"
    suffix = Path(name).suffix
    if suffix not in (".svg", ".png", ".pdf"):
        raise UsageError(f"cannot draw {name!r} by its suffix; known are .svg, .png and .pdf")
    cut: tuple[str, ...] = ()
    if bound_of is not None:
        cut = tuple(_bound(topology, CollectiveKind[bound_of.upper()], None)["cut"]["vertices"])
    data = network_picture(topology, suffix, cut)
    Path(name).write_bytes(data)
    if as_json:
        print_json({"output": name, "bytes": len(data)})
    else:
        click.echo(f"wrote {name}: {_title(topology)}, {len(data)} bytes")


@command.command()
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="TOML file to write.")
@click.option("--processes", type=click.IntRange(0), default=None, help="Ranks to place on the processors.")
@_json_option
def detect(output: str | None, processes: int | None, as_json: bool) -> None:
    """Look at this host: processors, PCIe tree, NICs, accelerators. Nothing is measured or sent."""
    from pycomm.topology.detect import detect as look
    from pycomm.topology.files import dumps

    topology = look(processes)
    if output is not None:
        Path(output).write_text(dumps(topology))
    if as_json:
        print_json({**_facts(topology), "toml": dumps(topology)})
        return
    _print_topology(topology)
    if output is not None:
        click.echo(f"wrote {output}")


@command.command()
@click.option("--output", "-o", required=True, type=click.Path(dir_okay=False), help="File to write.")
@click.option("--to", "to_format", default=None, help="Format to write; by the file's suffix when left out.")
@_json_option
@_reads
@_source
def convert(
    source: str,
    file_format: str | None,
    assume: tuple[str, ...],
    output: str,
    to_format: str | None,
    as_json: bool,
) -> None:
    """Read a network in one format and write it in another."""
    from pycomm.topology.exporters import write

    topology = _load(source, file_format, assume)
    text = write(topology, to_format or _format_of(output))
    Path(output).write_text(text)
    if as_json:
        print_json({"output": output, "bytes": len(text), "notes": list(topology.notes)})
        return
    click.echo(f"wrote {output}: {_title(topology)}")
    _print_notes(topology)


_SUFFIXES = {".toml": "toml", ".json": "node-link", ".graphml": "graphml", ".dot": "dot", ".gv": "dot"}
_SUFFIXES |= {".conf": "slurm-conf", ".yml": "astra-sim", ".yaml": "astra-sim"}


def _format_of(output: str) -> str:
    suffix = Path(output).suffix.lower()
    if suffix not in _SUFFIXES:
        raise UsageError(
            f"cannot tell the format of {output!r} by its suffix ({', '.join(_SUFFIXES)}); name it with --to"
        )
    return _SUFFIXES[suffix]


@command.command()
@_collective
@_root
@_json_option
@_reads
@_source
def bound(
    source: str,
    file_format: str | None,
    assume: tuple[str, ...],
    collective: str,
    root: int | None,
    as_json: bool,
) -> None:
    """Print the exact bound of a collective, and the cut that proves it."""
    topology = _load(source, file_format, assume)
    started = time.perf_counter()
    facts = _bound(topology, CollectiveKind[collective.upper()], root)
    facts["seconds"] = time.perf_counter() - started
    if as_json:
        print_json(facts)
        return
    click.secho(f"{collective} on {_title(topology)}", bold=True)
    more = f"{facts['cuts_GBps']:.6g} GB/s, but switches with unequal in and out cannot pass that on"
    cuts = (("by cuts", more),) if facts["cuts_fraction"] != facts["algbw_fraction"] else ()
    print_facts(
        (
            ("algbw", f"{facts['algbw_GBps']:.6g} GB/s = {facts['algbw_fraction']} GB/s"),
            *cuts,
            ("limited by", facts["limited_by"]),
            ("time", f"{facts['seconds']:.3g} s to find"),
        ),
        indent="  ",
    )


@command.command()
@_collective
@_root
@click.option(
    "--k",
    "k",
    type=click.IntRange(1),
    default=None,
    help="Trees per rank, or pieces per block of an alltoall; the smallest within 1% when left out.",
)
@click.option("--pieces", type=click.IntRange(0), default=0, help="Pipeline pieces of a tree's data; 0: one.")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False),
    help="Schedule to write; the suffix says in which form.",
)
@_json_option
@_reads
@_source
def synthesize(
    source: str,
    file_format: str | None,
    assume: tuple[str, ...],
    collective: str,
    root: int | None,
    k: int | None,
    pieces: int,
    output: str | None,
    as_json: bool,
) -> None:
    """Make a throughput-optimal schedule, and say how far it is from the bound."""
    from pycomm.planner.graph.synthesis import synthesize as make

    topology = _load(source, file_format, assume)
    kind = CollectiveKind[collective.upper()]
    plan = make(topology, kind, _root_of(kind, root), k)
    facts: dict[str, Any] = {
        "collective": collective,
        "ranks": len(topology.devices),
        **plan.facts(),
    }
    if output is not None:
        facts["output"] = output
        facts["bytes"] = _write_schedule(plan, pieces, output)
    if as_json:
        print_json(facts)
        return
    click.secho(f"{collective} on {_title(topology)}", bold=True)
    click.echo(f"  {plan.text()}")
    made = "trees" if "trees" in facts else "routes"
    print_facts(
        (
            ("how", plan.how),
            (
                made,
                f"{facts[made]}, height {facts['height']}" + (f", k = {facts['k']}" if facts["k"] else ""),
            ),
            ("time", f"{plan.seconds:.3g} s to plan"),
        ),
        indent="  ",
    )
    if output is not None:
        click.echo(f"wrote {output}: {facts['bytes']} bytes")


@command.command()
@click.option(
    "--format",
    "wanted",
    type=click.Choice(["rankfile", "hostfile", "slurm", "nccl-graph", "ranktable"]),
    required=True,
    help="What to write the order for.",
)
@click.option("--ranktable", type=click.Path(exists=True, dir_okay=False), help="The rank table to renumber.")
@click.option("--output", "-o", required=True, type=click.Path(dir_okay=False), help="File to write.")
@_json_option
@_source
def place(source: str, wanted: str, ranktable: str | None, output: str, as_json: bool) -> None:
    """Write the order of ranks in which a ring runs best, for a launcher or a library.

    The ring is the one that 'ring' would use: hosts together, rails kept, the widest ways.
    """
    from pycomm.export.placement import nccl_graph, placement, renumbered_ranktable
    from pycomm.planner.graph.embedding import known, ring_order, rings
    from pycomm.planner.graph.network import network_of

    topology = _load(source, None, ())
    network, hosts = network_of(topology), topology.host_numbers()
    order = ring_order(network, hosts)
    if wanted == "nccl-graph":
        best = max(rings(network, hosts), key=lambda found: len(found.orders))
        figures = known(network, CollectiveKind.ALLGATHER, hosts)
        rate = next(figure.algbw for figure in figures if figure.rings in (best, None))
        text = nccl_graph(
            topology, best.orders, int(rate * (network.nranks - 1) / network.nranks) // len(best.orders)
        )
    elif wanted == "ranktable":
        if ranktable is None:
            raise UsageError("say which rank table to renumber: --ranktable FILE")
        text = renumbered_ranktable(Path(ranktable).read_text(), order)
    else:
        text = placement(topology, order, wanted)
    Path(output).write_text(text)
    if as_json:
        print_json({"output": output, "order": list(order)})
    else:
        click.echo(f"wrote {output}: ranks 0, 1, 2, ... are devices {', '.join(map(str, order[:12]))}, ...")


@command.command()
@_collective
@_root
@_json_option
@_reads
@_source
def compare(
    source: str,
    file_format: str | None,
    assume: tuple[str, ...],
    collective: str,
    root: int | None,
    as_json: bool,
) -> None:
    """Set the known algorithms beside the optimum: GB/s on the links of this network, exact."""
    from pycomm.planner.graph.embedding import known
    from pycomm.planner.graph.network import network_of
    from pycomm.planner.graph.synthesis import synthesize as make

    topology = _load(source, file_format, assume)
    kind = CollectiveKind[collective.upper()]
    found = known(network_of(topology), kind, topology.host_numbers(), _root_of(kind, root))
    plan = make(topology, kind, _root_of(kind, root))
    rows: list[tuple[str, Fraction, int | None]] = [
        ("optimum", plan.bound.algbw, None),
        (f"pycomm: {plan.how}", plan.algbw, None),
    ]
    rows += [(candidate.name, candidate.algbw, candidate.steps) for candidate in found]
    if as_json:
        print_json(
            [
                {
                    "name": name,
                    "algbw_GBps": float(algbw / 10**9),
                    "fraction": str(algbw / 10**9),
                    "steps": steps,
                }
                for name, algbw, steps in rows
            ]
        )
        return
    click.secho(f"{collective} on {_title(topology)}", bold=True)
    best = plan.bound.algbw
    print_table(
        ("algorithm", "GB/s", "of the optimum", "steps"),
        [
            (
                name,
                f"{float(algbw / 10**9):.2f}",
                f"{float(algbw / best):.1%}",
                "" if steps is None else steps,
            )
            for name, algbw, steps in rows
        ],
        indent="  ",
    )


def _write_schedule(plan: Any, pieces: int, output: str) -> int:
    from pycomm.export import export
    from pycomm.verify import check as prove

    schedule = plan.schedule(pieces=pieces)
    prove(schedule)
    data = export(schedule, output)
    Path(output).write_bytes(data)
    return len(data)


def _root_of(kind: CollectiveKind, root: int | None) -> int:
    return (0 if kind.is_rooted else -1) if root is None else root


def _bound(topology: Topology, kind: CollectiveKind, root: int | None) -> dict[str, Any]:
    from pycomm.planner.graph.balance import BalancedBound, tree_bound
    from pycomm.planner.graph.network import network_of

    network = network_of(topology)
    if kind is CollectiveKind.ALLREDUCE:
        from pycomm.planner.graph.free_roots import allreduce_bound

        found: Any = allreduce_bound(network)
    elif kind is CollectiveKind.ALLTOALL:
        from pycomm.planner.graph.alltoall import alltoall_bound

        found = alltoall_bound(network)
    else:
        found = tree_bound(network, kind, _root_of(kind, root))
    gigabytes: Fraction = found.algbw / 10**9
    cuts = found.cut_bound.algbw / 10**9 if isinstance(found, BalancedBound) else gigabytes
    return {
        "topology": topology.name,
        "collective": kind.label,
        "ranks": network.nranks,
        "algbw_GBps": float(gigabytes),
        "algbw_fraction": str(gigabytes),
        "cuts_GBps": float(cuts),
        "cuts_fraction": str(cuts),
        "limited_by": found.limited_by(),
        "cut": {"vertices": [network.names[v] for v in found.cut.vertices]},
    }


def _makes(topology: Topology) -> str:
    """Vendors and models of the devices, each once."""
    nodes = (topology.nodes[device] for device in topology.devices)
    return ", ".join(dict.fromkeys(f"{node.vendor} {node.model}".strip() for node in nodes))


def _title(topology: Topology) -> str:
    hosts = len(set(topology.host_numbers()))
    ranks = len(topology.devices)
    return f"{topology.name}: {ranks} rank{'s' * (ranks != 1)} on {hosts} host{'s' * (hosts != 1)}"


def _print_topology(topology: Topology) -> None:
    click.secho(_title(topology), bold=True)
    for line in topology.describe():
        click.echo(f"  {line}")
    _print_notes(topology)


def _print_notes(topology: Topology) -> None:
    for note in topology.notes:
        click.echo(f"  note: {note}")


def _facts(topology: Topology) -> dict[str, Any]:
    return {
        "name": topology.name,
        **{
            f"{kind.value}s" if kind is not NodeKind.SWITCH else "switches": sum(
                n.kind is kind for n in topology.nodes
            )
            for kind in NodeKind
        },
        "links": len(topology.links),
        "ranks": len(topology.devices),
        "rank_hosts": len(set(topology.host_numbers())),
        "digest": topology.digest().hex(),
        "notes": list(topology.notes),
    }
