"""How the commands of ``pycomm topo`` name a network, read it, and say what it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pycomm.errors import UsageError
from pycomm.topology.model import NodeKind, Topology

__all__ = [
    "json_option",
    "load",
    "print_notes",
    "print_topology",
    "reads",
    "source_argument",
    "title",
    "topology_facts",
]

_Command = Callable[..., Any]

source_argument = click.argument("source", metavar="FILE|NAME")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def reads(function: _Command) -> _Command:
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


def load(source: str, file_format: str | None, assume: tuple[str, ...]) -> Topology:
    """Read the network that a command was given: by name, or from a file.

    Raises
    ------
    UsageError
        There is no such format, or an assumption is no ``KEY=VALUE`` or none of the format's.
    TopologyError
        There is no network of that name, or the file is malformed.
    """
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


def title(topology: Topology) -> str:
    """Name and size in a few words."""
    hosts = len(set(topology.host_numbers()))
    ranks = len(topology.devices)
    return f"{topology.name}: {ranks} rank{'s' * (ranks != 1)} on {hosts} host{'s' * (hosts != 1)}"


def print_topology(topology: Topology) -> None:
    """Print what a network consists of."""
    click.secho(title(topology), bold=True)
    for line in topology.describe():
        click.echo(f"  {line}")
    print_notes(topology)


def print_notes(topology: Topology) -> None:
    """Print what was assumed or left out when a network was read."""
    for note in topology.notes:
        click.echo(f"  note: {note}")


def topology_facts(topology: Topology) -> dict[str, Any]:
    """Count what a network consists of, for programs."""
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
