"""How commands print: aligned columns with heads, JSON, nothing that a pipe would choke on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click
import msgspec

__all__ = ["print_facts", "print_json", "print_table"]

_GAP = "  "


def print_json(value: object) -> None:
    """Print a value as indented JSON, keys in the order given."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]], *, indent: str = "") -> None:
    """Print rows under a head. Columns of numbers are aligned to the right, all others to the left."""
    body = [[str(cell) for cell in row] for row in rows]
    columns = [list(column) for column in zip(head, *body, strict=True)]
    padded = []
    for column in columns:
        width = max(map(len, column))
        is_number = len(column) > 1 and all(_is_number(cell) for cell in column[1:] if cell)
        padded.append([cell.rjust(width) if is_number else cell.ljust(width) for cell in column])
    for number, line in enumerate(zip(*padded, strict=True)):
        click.secho((indent + _GAP.join(line)).rstrip(), bold=number == 0)


def print_facts(facts: Iterable[tuple[str, object]], *, indent: str = "") -> None:
    """Print ``name  value`` lines, the values aligned."""
    pairs = [(name, str(value)) for name, value in facts]
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        click.echo(f"{indent}{name.ljust(width)}{_GAP}{value}".rstrip())


def _is_number(cell: str) -> bool:
    return cell.lstrip("-").replace(".", "", 1).isdecimal() or cell == "-"
