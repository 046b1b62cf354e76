"""Networks as simulators write them: ASTRA-sim's ``yml``, and the text of SimAI and of ASTRA-sim's ns-3.

ASTRA-sim's "GB/s" are 2^30 bytes per second, its times nanoseconds. A network is a product of dimensions,
the first running fastest: ``Ring`` (both directions), ``FullyConnected`` and ``Switch``, with one rate per
link.

The text begins with how many vertices, switches and links there are (SimAI: also devices per server,
NVSwitches and the device's model), then the switches' numbers, then ``source destination rate latency
error_rate`` for each cable.

References
----------
astra-sim/astra-network-analytical ``common/NetworkFunction.cpp``, ``congestion_aware``; astra-sim/astra-sim
``examples/network``; aliyun/SimAI ``astra-sim-alibabacloud/inputs/topo``.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from pycomm.topology.importers.source import MAX_VERTICES, Reading, Source, count_of
from pycomm.topology.importers.yamltext import Mapping, Sequence, parse_yaml
from pycomm.topology.model import Node, NodeKind, Topology
from pycomm.units import parse_exact_rate, parse_time

__all__ = ["astrasim", "simai"]

_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?")
_MAX_DIMENSIONS = 64
_MAX_LINKS = 20_000_000


def astrasim(source: Source, *, devices_per_host: str | int = "") -> Topology:
    """Read a network file of ASTRA-sim's analytical models.

    Parameters
    ----------
    source
        The file.
    devices_per_host
        How many devices in a row make a host; by default each is its own.
    """
    document = parse_yaml(source)
    if not isinstance(document, Mapping) or "topology" not in document:
        source.fail("'topology: [ Ring ]' is wanted; is this a network file of ASTRA-sim's?", 1)
    made = Reading(source)
    for key in document:
        if key not in ("topology", "npus_count", "bandwidth", "latency"):
            made.skip(f"{key}: fields")
    columns = [_column(source, document, key) for key in ("topology", "npus_count", "bandwidth", "latency")]
    if len({len(column) for column in columns}) != 1 or not columns[0]:
        source.fail(
            "topology, npus_count, bandwidth and latency need one value for each dimension, as many in each",
            document.line,
        )
    shapes, counts, rates, latencies = columns
    if len(shapes) > _MAX_DIMENSIONS:
        source.fail(f"there are more than {_MAX_DIMENSIONS} dimensions", document.line)
    sizes = []
    for text in counts:
        if not re.fullmatch(r"[0-9]{1,7}", text) or int(text) < 1:
            source.fail(f"{text[:30]!r} is not a number of devices", document.lines["npus_count"])
        sizes.append(int(text))
    total = math.prod(sizes)
    edges = sum(
        total // 2 * (size - 1) if shape.lower() == "fullyconnected" else total
        for shape, size in zip(shapes, sizes, strict=True)
    )
    if total > MAX_VERTICES or edges > _MAX_LINKS:
        source.fail(f"{total} devices with {edges} cables are too many", document.lines["npus_count"])
    per_host = count_of(devices_per_host, "devices_per_host") if devices_per_host != "" else 0
    for i in range(total):
        host = f"host{i // per_host}" if per_host else ""
        made.node(Node(f"npu{i}", NodeKind.DEVICE, host))
    for d, (shape, rate, latency) in enumerate(zip(shapes, rates, latencies, strict=True)):
        if not _NUMBER.fullmatch(rate) or not _NUMBER.fullmatch(latency):
            source.fail(
                f"bandwidth {rate[:30]!r} and latency {latency[:30]!r} must be numbers, in GB/s and ns",
                document.lines["bandwidth"],
            )
        bytes_per_s = round(Fraction(rate) * 2**30)
        _dimension(source, made, document, d, shape, sizes, bytes_per_s, float(latency) * 1e-9)
    made.note("ASTRA-sim's GB/s are 2^30 bytes per second")
    return made.topology()


def _column(source: Source, document: Mapping, key: str) -> list[str]:
    value = document.get(key)
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, Sequence | list) or not all(isinstance(item, str) for item in items):
        source.fail(f"'{key}:' needs a list with one value for each dimension", document.lines.get(key, 1))
    return list(items)


def _dimension(
    source: Source,
    made: Reading,
    document: Mapping,
    d: int,
    shape: str,
    sizes: list[int],
    rate: int,
    latency: float,
) -> None:
    """Add the cables of one dimension: of every line of devices along it."""
    stride, size = math.prod(sizes[:d]), sizes[d]
    line = document.lines["bandwidth"]
    kind = f"dimension {d}"
    number = 0
    if shape.lower() not in ("ring", "fullyconnected", "switch"):
        source.fail(
            f"{shape[:30]!r} is not a building block; known are Ring, FullyConnected and Switch",
            document.lines["topology"],
        )
    for start in range(math.prod(sizes)):
        if start // stride % size:
            continue
        members = [start + i * stride for i in range(size)]
        if shape.lower() == "switch":
            hub = made.node(Node(f"switch{d}.{number}", NodeKind.SWITCH))
            for member in members:
                made.cable(member, hub, rate, kind, latency, line)
        elif shape.lower() == "ring":
            for i in range(size if size > 2 else size - 1):
                made.cable(members[i], members[(i + 1) % size], rate, kind, latency, line)
        else:
            for i in range(size):
                for j in range(i):
                    made.cable(members[j], members[i], rate, kind, latency, line)
        number += 1


def simai(source: Source) -> Topology:
    """Read a topology text of SimAI, or of ASTRA-sim's ns-3.

    Parameters
    ----------
    source
        The file.
    """
    lines = [(n, text.split()) for n, text in enumerate(source.text.splitlines(), 1) if text.strip()]
    header = lines[0][1] if lines else []
    wanted = 5 if len(header) in (5, 6) else 3
    if len(header) not in (3, 5, 6) or not all(re.fullmatch(r"[0-9]{1,8}", x) for x in header[:wanted]):
        source.fail(
            "the first line is 'nodes switches links' (ns-3) or 'nodes gpus_per_server nvswitches switches "
            "links gpu_type' (SimAI)",
            lines[0][0] if lines else 1,
        )
    numbers = [int(x) for x in header[:wanted]]
    vertices, links = numbers[0], numbers[-1]
    per_server, nvswitches = (numbers[1], numbers[2]) if wanted == 5 else (0, 0)
    switches = numbers[-2] + nvswitches
    model = header[5] if len(header) == 6 else ""
    if vertices > MAX_VERTICES or switches >= vertices:
        source.fail(f"{vertices} vertices of which {switches} are switches cannot be", lines[0][0])
    numbered, at = _switch_numbers(source, lines, switches, vertices)
    made = Reading(source)
    nvswitch = {number: place for place, number in enumerate(numbered[:nvswitches])}
    is_switch = set(numbered)
    servers = (vertices - switches) // per_server if per_server else 0
    each = nvswitches // servers if servers and nvswitches % servers == 0 else 0
    rank = 0
    for i in range(vertices):
        if i in nvswitch:
            host = f"host{nvswitch[i] // each}" if each else ""
            made.node(Node(f"nvswitch{i}", NodeKind.SWITCH, host))
        elif i in is_switch:
            made.node(Node(f"switch{i}", NodeKind.SWITCH))
        else:
            host = f"host{rank // per_server}" if per_server else ""
            made.node(Node(f"gpu{i}", NodeKind.DEVICE, host, model=model))
            rank += 1
    if len(lines) - at != links:
        source.fail(
            f"{links} links are announced but {len(lines) - at} are listed; is the file cut short?",
            lines[0][0],
        )
    for line, fields in lines[at:]:
        _cable(source, made, fields, line, nvswitch)
    unjoined = set(range(vertices)) - {link.src for link in made.links}
    if unjoined:
        names = [made.nodes[i].name for i in sorted(unjoined)]
        made.note(f"without any link: {', '.join(names[:8])}" + (" ..." if len(names) > 8 else ""))
    return made.topology()


def _switch_numbers(
    source: Source, lines: list[tuple[int, list[str]]], wanted: int, vertices: int
) -> tuple[list[int], int]:
    """Read the switches' numbers, on as many lines as they take; returns them and the next line."""
    numbers: list[int] = []
    at = 1
    while len(numbers) < wanted and at < len(lines):
        line, fields = lines[at]
        for text in fields:
            if not re.fullmatch(r"[0-9]{1,8}", text) or int(text) >= vertices:
                source.fail(f"{text[:30]!r} is not a switch's number below {vertices}", line)
            numbers.append(int(text))
        at += 1
    if len(numbers) != wanted or len(set(numbers)) != wanted:
        source.fail(
            f"{wanted} different switches are wanted, {len(set(numbers))} are listed",
            lines[min(at, len(lines)) - 1][0],
        )
    return numbers, at


def _cable(source: Source, made: Reading, fields: list[str], line: int, nvswitch: dict[int, int]) -> None:
    if len(fields) not in (4, 5) or not all(re.fullmatch(r"[0-9]{1,8}", x) for x in fields[:2]):
        source.fail(
            "a link is 'source destination rate latency error_rate', such as '0 8 400Gbps 0.0005ms 0'", line
        )
    a, b = int(fields[0]), int(fields[1])
    if max(a, b) >= len(made.nodes):
        source.fail(
            f"there is no vertex {max(a, b)}; they are numbered from 0 to {len(made.nodes) - 1}", line
        )
    try:
        rate, latency = round(parse_exact_rate(fields[2])), parse_time(fields[3])
    except (ValueError, OverflowError) as error:
        source.fail(str(error)[:200], line)
    if len(fields) == 5 and fields[4] != "0" and not re.fullmatch(r"0*\.?0*", fields[4]):
        made.skip("error rates")
    kind = "nvlink" if a in nvswitch or b in nvswitch else ""
    made.cable(a, b, rate, kind, latency, line)
