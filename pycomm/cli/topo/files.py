"""Commands of ``pycomm topo`` on networks as they are described: list, show, check, draw, convert, detect."""

from __future__ import annotations

from pathlib import Path

import click

from pycomm.cli.render import print_json, print_table
from pycomm.cli.topo.planning import PLANNED, bound_facts
from pycomm.cli.topo.source import (
    json_option,
    load,
    print_notes,
    print_topology,
    reads,
    source_argument,
    title,
    topology_facts,
)
from pycomm.errors import UsageError
from pycomm.topology.model import Topology
from pycomm.types import CollectiveKind

__all__ = ["check", "convert", "detect", "draw", "formats", "list_names", "show"]


@click.command("list")
@json_option
def list_names(as_json: bool) -> None:
    """List the machines and networks that pycomm knows by name."""
    from pycomm.topology import catalogue

    found = {name: catalogue.named(name) for name in catalogue.names()}
    if as_json:
        print_json({name: topology_facts(topology) for name, topology in found.items()})
        return
    rows = [(name, len(t.devices), len(set(t.host_numbers())), _makes(t)) for name, t in found.items()]
    print_table(("name", "devices", "hosts", "which"), rows)


@click.command()
@json_option
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


@click.command()
@json_option
@reads
@source_argument
def show(source: str, file_format: str | None, assume: tuple[str, ...], as_json: bool) -> None:
    """Print what a network consists of."""
    topology = load(source, file_format, assume)
    if as_json:
        print_json(topology_facts(topology))
        return
    print_topology(topology)


@click.command()
@json_option
@reads
@source_argument
@click.pass_context
def check(
    ctx: click.Context, source: str, file_format: str | None, assume: tuple[str, ...], as_json: bool
) -> None:
    """Look for what is wrong with a network (exit code 1), or merely odd."""
    from pycomm.topology.checks import problems, remarks

    topology = load(source, file_format, assume)
    wrong, odd = list(problems(topology)), list(remarks(topology))
    if as_json:
        print_json({**topology_facts(topology), "findings": wrong, "remarks": odd})
    else:
        for finding in wrong:
            click.echo(f"wrong: {finding}")
        for remark in odd:
            click.echo(f"odd: {remark}")
        if not wrong:
            click.echo(f"nothing is wrong: {title(topology)}")
    ctx.exit(1 if wrong else 0)


@click.command()
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="Picture to write (.svg .png .pdf).")
@click.option(
    "--bound",
    "bound_of",
    type=click.Choice(PLANNED),
    default=None,
    help="Show the cut that limits this collective.",
)
@json_option
@reads
@source_argument
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

    topology = load(source, file_format, assume)
    name = output or f"{Path(source).stem}.svg"
    suffix = Path(name).suffix
    if suffix not in (".svg", ".png", ".pdf"):
        raise UsageError(f"cannot draw {name!r} by its suffix; known are .svg, .png and .pdf")
    cut: tuple[str, ...] = ()
    if bound_of is not None:
        cut = tuple(bound_facts(topology, CollectiveKind[bound_of.upper()], None)["cut"]["vertices"])
    data = network_picture(topology, suffix, cut)
    Path(name).write_bytes(data)
    if as_json:
        print_json({"output": name, "bytes": len(data)})
    else:
        click.echo(f"wrote {name}: {title(topology)}, {len(data)} bytes")


@click.command()
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="TOML file to write.")
@click.option("--processes", type=click.IntRange(0), default=None, help="Ranks to place on the processors.")
@json_option
def detect(output: str | None, processes: int | None, as_json: bool) -> None:
    """Look at this host: processors, PCIe tree, NICs, accelerators. Nothing is measured or sent."""
    from pycomm.topology.detect import detect as look
    from pycomm.topology.files import dumps

    topology = look(processes)
    if output is not None:
        Path(output).write_text(dumps(topology))
    if as_json:
        print_json({**topology_facts(topology), "toml": dumps(topology)})
        return
    print_topology(topology)
    if output is not None:
        click.echo(f"wrote {output}")


@click.command()
@click.option("--output", "-o", required=True, type=click.Path(dir_okay=False), help="File to write.")
@click.option("--to", "to_format", default=None, help="Format to write; by the file's suffix when left out.")
@json_option
@reads
@source_argument
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

    topology = load(source, file_format, assume)
    text = write(topology, to_format or _format_of(output))
    Path(output).write_text(text)
    if as_json:
        print_json({"output": output, "bytes": len(text), "notes": list(topology.notes)})
        return
    click.echo(f"wrote {output}: {title(topology)}")
    print_notes(topology)


_SUFFIXES = {".toml": "toml", ".json": "node-link", ".graphml": "graphml", ".dot": "dot", ".gv": "dot"}
_SUFFIXES |= {".conf": "slurm-conf", ".yml": "astra-sim", ".yaml": "astra-sim"}


def _format_of(output: str) -> str:
    suffix = Path(output).suffix.lower()
    if suffix not in _SUFFIXES:
        raise UsageError(
            f"cannot tell the format of {output!r} by its suffix ({', '.join(_SUFFIXES)}); name it with --to"
        )
    return _SUFFIXES[suffix]


def _makes(topology: Topology) -> str:
    """Vendors and models of the devices, each once."""
    nodes = (topology.nodes[device] for device in topology.devices)
    return ", ".join(dict.fromkeys(f"{node.vendor} {node.model}".strip() for node in nodes))
