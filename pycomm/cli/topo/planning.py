"""Commands of ``pycomm topo`` on what a network can do: bound, synthesize, place, compare."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from pycomm.cli.render import print_facts, print_json, print_table
from pycomm.cli.topo.source import json_option, load, reads, source_argument, title
from pycomm.errors import UsageError
from pycomm.topology.model import Topology
from pycomm.types import CollectiveKind

__all__ = ["PLANNED", "bound", "bound_facts", "compare", "place", "synthesize"]

PLANNED = ("allgather", "reduce_scatter", "allreduce", "broadcast", "reduce", "alltoall")
"""Collectives that are planned on a network."""

_collective = click.option(
    "--collective", "-c", type=click.Choice(PLANNED), default="allreduce", show_default=True, help="Of what."
)
_root = click.option(
    "--root", type=click.IntRange(0), default=None, help="Root of broadcast and reduce; 0 when left out."
)


@click.command()
@_collective
@_root
@json_option
@reads
@source_argument
def bound(
    source: str,
    file_format: str | None,
    assume: tuple[str, ...],
    collective: str,
    root: int | None,
    as_json: bool,
) -> None:
    """Print the exact bound of a collective, and the cut that proves it."""
    topology = load(source, file_format, assume)
    started = time.perf_counter()
    facts = bound_facts(topology, CollectiveKind[collective.upper()], root)
    facts["seconds"] = time.perf_counter() - started
    if as_json:
        print_json(facts)
        return
    click.secho(f"{collective} on {title(topology)}", bold=True)
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


@click.command()
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
@json_option
@reads
@source_argument
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

    topology = load(source, file_format, assume)
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
    click.secho(f"{collective} on {title(topology)}", bold=True)
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


@click.command()
@click.option(
    "--format",
    "wanted",
    type=click.Choice(["rankfile", "hostfile", "slurm", "nccl-graph", "ranktable"]),
    required=True,
    help="What to write the order for.",
)
@click.option("--ranktable", type=click.Path(exists=True, dir_okay=False), help="The rank table to renumber.")
@click.option("--output", "-o", required=True, type=click.Path(dir_okay=False), help="File to write.")
@json_option
@source_argument
def place(source: str, wanted: str, ranktable: str | None, output: str, as_json: bool) -> None:
    """Write the order of ranks in which a ring runs best, for a launcher or a library.

    The ring is the one that 'ring' would use: hosts together, rails kept, the widest ways.
    """
    from pycomm.export.placement import nccl_graph, placement, renumbered_ranktable
    from pycomm.planner.graph.embedding import known, ring_order, rings
    from pycomm.planner.graph.network import network_of

    topology = load(source, None, ())
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


@click.command()
@_collective
@_root
@json_option
@reads
@source_argument
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

    topology = load(source, file_format, assume)
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
    click.secho(f"{collective} on {title(topology)}", bold=True)
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


def bound_facts(topology: Topology, kind: CollectiveKind, root: int | None) -> dict[str, Any]:
    """Find the exact bound of a collective, and what limits it; fractions as text, rates in GB/s."""
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
