"""Matrices of bandwidths: MSCCL's JSON, plain JSON lists of lists, and CSV.

In MSCCL's ``links[d][s]`` is the link from s to d, in units of its own; entries of ``switches`` limit what
groups of links carry together. A plain matrix has the rows' devices send to the columns', in GB/s or as
texts with units.

References
----------
Azure/msccl-tools ``msccl/topologies/topology.py`` and ``msccl/serialization.py``.
"""

from __future__ import annotations

import csv
import math
import re
from typing import Any

from pycomm.topology.importers.jsontext import array, integer, parse_json, record
from pycomm.topology.importers.source import Reading, Source, count_of, rate_of, shown
from pycomm.topology.model import Node, NodeKind, Topology
from pycomm.units import parse_rate

__all__ = ["matrix"]

_MAX_SIZE = 8192
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15})(?:[eE][+-]?[0-9]{1,2})?")


def matrix(source: Source, *, unit: str = "", devices_per_host: str | int = "") -> Topology:
    """Read a matrix of bandwidths.

    Parameters
    ----------
    source
        The file.
    unit
        What the number 1 stands for, such as ``"25 GB/s"``; by default 1 GB/s.
    devices_per_host
        How many devices in a row make a host; by default nothing is said of hosts.
    """
    made = Reading(source)
    scale = rate_of(unit or "1 GB/s", "unit")
    switches: list[Any] = []
    transposed = False
    if source.text.lstrip()[:1] in ("{", "["):
        document = parse_json(source)
        if isinstance(document, dict):
            rows = array(source, document.get("links"), "links")
            switches = array(source, document.get("switches", []), "switches")
            transposed = document.get("msccl_type") == "topology" or "switches" in document
            made.name = str(document.get("name") or made.name)
        else:
            rows = array(source, document, "the file")
    else:
        rows = _table(source)
    if not unit:
        made.assumed("the number 1 in the matrix stands for", shown(scale), "unit")
    values = _values(source, made, rows, scale)
    size = len(values)
    per_host = count_of(devices_per_host, "devices_per_host") if devices_per_host != "" else 0
    for i in range(size):
        made.node(Node(f"gpu{i}", NodeKind.DEVICE, f"host{i // per_host}" if per_host else ""))
    if transposed:
        made.note("rows receive and columns send, as in MSCCL")
        values = [[values[d][s] for d in range(size)] for s in range(size)]
    egress, ingress = _limits(source, made, switches, size, scale, values)
    for s in range(size):
        for d in range(size):
            if s != d and values[s][d]:
                made.link(egress.get((s, d), s), ingress.get((s, d), d), values[s][d])
    return made.topology()


def _table(source: Source) -> list[list[Any]]:
    """Read CSV with commas, semicolons, tabs or blanks; a heading row and column of names are passed over."""
    first = next((line for line in source.text.splitlines() if line.strip()), "")
    delimiter = next((letter for letter in ",;\t" if letter in first), " ")
    rows = []
    for text in source.text.splitlines():
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        try:
            cells = next(csv.reader([text.strip()], delimiter=delimiter, skipinitialspace=True))
        except (csv.Error, StopIteration):
            source.fail(f"{text[:40]!r} cannot be read as a row of a table")
        rows.append([cell.strip() for cell in cells if cell.strip() or delimiter != " "])
    if rows and len(rows) > 1 and (len(rows[0]) == len(rows) - 1 or not any(map(_is_rate, rows[0]))):
        del rows[0]
    if rows and all(len(row) == len(rows) + 1 for row in rows):
        rows = [row[1:] for row in rows]
    return rows


def _is_rate(cell: str) -> bool:
    return bool(_NUMBER.fullmatch(cell)) or cell.endswith(("/s", "bps"))


def _values(source: Source, made: Reading, rows: list[Any], scale: int) -> list[list[int]]:
    """Check a square matrix of bandwidths; the diagonal is left out."""
    size = len(rows)
    if not 1 <= size <= _MAX_SIZE:
        source.fail(f"a square matrix of 1 to {_MAX_SIZE} rows is wanted; there are {size}")
    values = []
    for i, row in enumerate(rows):
        field = f"row {i + 1}"
        cells = array(source, row, field)
        if len(cells) != size:
            source.fail(
                f"there are {len(cells)} columns but {size} rows; the matrix must be square", field=field
            )
        values.append(
            [
                0 if i == j else _cell(source, cell, scale, f"{field}, column {j + 1}")
                for j, cell in enumerate(cells)
            ]
        )
    if any(_nonzero(row[i]) for i, row in enumerate(rows)):
        made.note("the diagonal of the matrix is left out")
    return values


def _nonzero(cell: Any) -> bool:
    return str(cell).strip() not in ("", "0", "0.0", "-", "X", "x", "None")


def _cell(source: Source, cell: Any, scale: int, field: str) -> int:
    text = "0" if cell is None else str(cell).strip()
    if text in ("", "-"):
        return 0
    try:
        rate = parse_rate(text) if not _NUMBER.fullmatch(text) else float(text) * scale
    except (ValueError, OverflowError):
        rate = math.nan
    if isinstance(cell, bool) or not 0 <= rate <= 1e18:
        source.fail(
            f"{text[:30]!r} is not a bandwidth of 0 or more; write a number or like '25 GB/s'", field=field
        )
    return max(1, round(rate)) if rate else 0


def _limits(
    source: Source, made: Reading, switches: list[Any], size: int, scale: int, values: list[list[int]]
) -> tuple[dict[tuple[int, int], int], dict[tuple[int, int], int]]:
    """Turn limits of groups of links into vertices that those links pass.

    A limit on one sender's links is a vertex behind that sender, one on one receiver's links a vertex
    before it.
    """
    egress: dict[tuple[int, int], int] = {}
    ingress: dict[tuple[int, int], int] = {}
    for i, entry in enumerate(switches):
        field = f"switches[{i}]"
        parts = entry if isinstance(entry, list) else list(record(source, entry, field).values())
        if len(parts) != 4:
            source.fail("a switch is [senders, receivers, bandwidth, name]", field=field)
        senders, receivers = (
            [integer(source, r, field, size - 1) for r in array(source, p, field)] for p in parts[:2]
        )
        rate = _cell(source, parts[2], scale, field)
        if not rate:
            source.fail("a switch's bandwidth must be more than 0", field=field)
        name = made.free_name(str(parts[3])[:200] or f"switch{i}")
        if len(senders) != 1 and len(receivers) != 1:
            source.fail(
                "a limit on several senders to several receivers together cannot be drawn as a graph",
                field=field,
            )
        hub = made.node(Node(name, NodeKind.SWITCH))
        table = egress if len(senders) == 1 else ingress
        for pair in ((s, d) for s in senders for d in receivers if s != d and values[s][d]):
            if pair in table:
                source.fail(
                    f"the link from {pair[0]} to {pair[1]} is in two limits of the same side", field=field
                )
            table[pair] = hub
        if len(senders) == 1:
            made.link(senders[0], hub, rate)
        else:
            made.link(hub, receivers[0], rate)
    return egress, ingress
