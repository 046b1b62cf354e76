"""Topologies written in the formats of others, so that ``pycomm topo convert`` leads both ways.

Node-link JSON, GraphML and DOT carry all that a topology holds, but for its notes: what is written is read
back equal. Slurm's ``topology.conf`` keeps switches and hosts only, and says so in the file. ASTRA-sim's
``yml`` and ns-3's text are written where the network is one that they can describe; otherwise they refuse
and say what stands in the way.
"""

from __future__ import annotations

import bisect
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from pycomm.errors import TopologyError, UsageError
from pycomm.topology.importers.source import natural
from pycomm.topology.model import Link, Node, NodeKind, Topology

__all__ = ["EXPORTS", "write"]

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_SLURM_NAME = re.compile(r"[\w.:/+-]{1,63}", re.ASCII)
_MAX_FACTORS = 20_000


def write(topology: Topology, format: str) -> str:
    """Write a topology as text.

    Parameters
    ----------
    topology
        What to write.
    format
        One of :data:`EXPORTS`.

    Raises
    ------
    UsageError
        There is no such format.
    TopologyError
        The format cannot describe this network.
    """
    if format not in EXPORTS:
        raise UsageError(f"there is no format {format!r} to write; there are {', '.join(EXPORTS)}")
    return EXPORTS[format](topology)


def _toml(topology: Topology) -> str:
    from pycomm.topology.files import dumps

    return dumps(topology)


# -- graphs with attributes --------------------------------------------------------------------------------


def _bandwidth(bytes_per_s: int) -> float | str:
    """GB/s as a number where that is exact, otherwise a text with its unit."""
    number = bytes_per_s / 1e9
    return number if round(Fraction(repr(number)) * 10**9) == bytes_per_s else f"{bytes_per_s} B/s"


def _latency(seconds: float) -> float | str:
    """Microseconds as a number where that is exact, otherwise a text with its unit."""
    number = float(Decimal(repr(seconds)).scaleb(6))
    return number if float(Fraction(repr(number)) / 10**6) == seconds else f"{seconds!r} s"


def _vertex(node: Node) -> dict[str, Any]:
    """Attributes of a vertex: its kind, and what differs from nothing."""
    values: dict[str, Any] = {"kind": node.kind.value}
    values |= {key: value for key in ("host", "vendor", "model") if (value := getattr(node, key))}
    return values | {key: True for key in ("multicast", "reduction") if getattr(node, key)}


def _edge(link: Link) -> dict[str, Any]:
    values: dict[str, Any] = {"bandwidth": _bandwidth(link.bytes_per_s)}
    if link.latency_s:
        values["latency"] = _latency(link.latency_s)
    if link.kind:
        values["kind"] = link.kind
    return values


def _node_link(topology: Topology) -> str:
    """Write what networkx calls node-link data: directed, parallel edges numbered."""
    names = [node.name for node in topology.nodes]
    keys: dict[tuple[int, int], Iterator[int]] = {}
    document = {
        "directed": True,
        "multigraph": True,
        "graph": {"name": topology.name},
        "nodes": [{"id": node.name, **_vertex(node)} for node in topology.nodes],
        "edges": [
            {
                "source": names[link.src],
                "target": names[link.dst],
                "key": next(keys.setdefault((link.src, link.dst), itertools.count())),
                **_edge(link),
            }
            for link in topology.links
        ],
    }
    parts = [f'"{key}": {json.dumps(document[key])}' for key in ("directed", "multigraph", "graph")]
    for key in ("nodes", "edges"):
        rows = ",\n".join(json.dumps(one) for one in document[key])  # type: ignore[attr-defined]
        parts.append(f'"{key}": [\n{rows}\n]')
    return "{" + ",\n".join(parts) + "}\n"


def _xml(text: object, what: str) -> str:
    if _CONTROL.search(str(text)):
        raise TopologyError(f"{what} {str(text)!r} has characters that XML cannot carry; choose another name")
    # Line ends and tabs would become blanks in an attribute.
    return escape(str(text), {'"': "&quot;", "\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})


def _graphml(topology: Topology) -> str:
    """Write GraphML with typed keys."""
    types = {
        "node": dict.fromkeys(("kind", "host", "vendor", "model"), "string")
        | dict.fromkeys(("multicast", "reduction"), "boolean"),
        "edge": dict.fromkeys(("bandwidth", "latency"), "double") | {"kind": "string"},
    }
    edges = [_edge(link) for link in topology.links]
    for key in ("bandwidth", "latency"):
        if any(isinstance(edge.get(key), str) for edge in edges):
            types["edge"][key] = "string"
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">',
        '<key id="graph_name" for="graph" attr.name="name" attr.type="string"/>',
    ]
    for where, keys in types.items():
        for key, kind in keys.items():
            lines.append(f'<key id="{where}_{key}" for="{where}" attr.name="{key}" attr.type="{kind}"/>')
    lines.append('<graph edgedefault="directed">')
    lines.append(f'<data key="graph_name">{_xml(topology.name, "the name")}</data>')
    names = [_xml(node.name, "the name") for node in topology.nodes]

    def data(where: str, values: dict[str, Any]) -> str:
        texts = {key: str(value).lower() if value is True else str(value) for key, value in values.items()}
        return "".join(f'<data key="{where}_{k}">{_xml(v, f"the {k}")}</data>' for k, v in texts.items())

    lines += [
        f'<node id="{name}">{data("node", _vertex(node))}</node>'
        for name, node in zip(names, topology.nodes, strict=True)
    ]
    lines += [
        f'<edge id="e{i}" source="{names[link.src]}" target="{names[link.dst]}">{data("edge", edge)}</edge>'
        for i, (link, edge) in enumerate(zip(topology.links, edges, strict=True))
    ]
    return "\n".join([*lines, "</graph>", "</graphml>", ""])


def _quoted(text: object) -> str:
    if "\0" in str(text):
        raise TopologyError(
            f"the name {str(text)!r} has a zero byte, which DOT cannot carry; choose another name"
        )
    return '"' + str(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _dot(topology: Topology) -> str:
    """Write a digraph; every text is quoted."""

    def listed(values: dict[str, Any]) -> str:
        texts = {key: str(value).lower() if value is True else value for key, value in values.items()}
        return " [" + ", ".join(f"{key}={_quoted(value)}" for key, value in texts.items()) + "]"

    names = [_quoted(node.name) for node in topology.nodes]
    lines = [f"digraph {_quoted(topology.name)} {{"]
    lines += [f"  {name}{listed(_vertex(node))};" for name, node in zip(names, topology.nodes, strict=True)]
    lines += [f"  {names[link.src]} -> {names[link.dst]}{listed(_edge(link))};" for link in topology.links]
    return "\n".join([*lines, "}", ""])


# -- Slurm -------------------------------------------------------------------------------------------------


def _slurm(topology: Topology) -> str:
    """Write switches between hosts, level by level from the hosts, and which hosts are on them.

    A name that Slurm cannot have is changed; the true one stands in a comment, as Topograph writes it.
    """
    hosts = [node.host or (node.name if node.kind is NodeKind.DEVICE else "") for node in topology.nodes]
    near: dict[int, set[int]] = {}
    leaves: dict[int, set[str]] = {}
    for link in topology.links:
        for a, b in ((link.src, link.dst), (link.dst, link.src)):
            if not hosts[a] and hosts[b]:
                leaves.setdefault(a, set()).add(hosts[b])
            elif not hosts[a]:
                near.setdefault(a, set()).add(b)
    if not leaves:
        raise TopologyError(
            f"{topology.name}: there is no switch between hosts, so there is nothing that Slurm could be told"
        )
    level = _levels(near, sorted(leaves))
    order = list(level)
    lines = ["# Bandwidths, latencies and what is inside hosts have no place in this format."]
    every = [topology.nodes[a].name for a in order] + [host for a in order for host in leaves.get(a, ())]
    names = _slurm_names(sorted(set(every), key=natural))
    lines += [f"# {names[name]}={' '.join(name.split())}" for name in names if names[name] != name]
    for a in sorted(order, key=lambda v: (-level[v], v)):
        name = topology.nodes[a].name
        same = [b for b in sorted(near.get(a, ())) if level[b] == level[a]]
        if same:
            raise TopologyError(
                f"{topology.name}: the switches {name!r} and {topology.nodes[same[0]].name!r} are on one "
                "level and joined, which Slurm's tree cannot describe"
            )
        below = [topology.nodes[b].name for b in sorted(near.get(a, ())) if level[b] < level[a]]
        lines.append(
            f"SwitchName={names[name]}"
            + _field("Switches", [names[one] for one in below])
            + _field("Nodes", [names[one] for one in sorted(leaves.get(a, ()), key=natural)])
        )
    return "\n".join([*lines, ""])


def _levels(near: dict[int, set[int]], leaves: list[int]) -> dict[int, int]:
    """Give each switch a level: its distance from the hosts, or, in a tree, from its top, negative.

    Joined switches are to be on different levels, which distances from the hosts ensure in a fat tree. In a
    graph without circles every choice of a top will do: the switch farthest from the hosts, with most
    neighbours.
    """
    level = dict.fromkeys(leaves, 0)
    for a in (order := list(level)):
        new = [b for b in sorted(near.get(a, ())) if b not in level]
        level |= dict.fromkeys(new, level[a] + 1)
        order += new
    if all(level[a] != level[b] for a in order for b in near.get(a, ())):
        return level
    depth: dict[int, int] = {}
    parts = 0
    for top in sorted(order, key=lambda a: (-level[a], -len(near.get(a, ())), a)):
        if top in depth:
            continue
        parts += 1
        depth[top] = 0
        for a in (found := [top]):
            new = [b for b in sorted(near.get(a, ())) if b not in depth]
            depth |= dict.fromkeys(new, depth[a] + 1)
            found += new
    joined = sum(len(near.get(a, ())) for a in order) // 2
    return {a: -depth[a] for a in order} if joined == len(order) - parts else level


def _slurm_names(names: list[str]) -> dict[str, str]:
    """Give each name one that Slurm can have: letters, digits and a few signs, different from the others."""
    taken = {name for name in names if _SLURM_NAME.fullmatch(name)}
    result = {}
    for name in names:
        changed = stem = (
            name if name in taken else re.sub(r"[^\w.:/+-]+", "_", name, flags=re.ASCII)[:60] or "_"
        )
        number = 1
        while changed != name and changed in taken:
            number += 1
            changed = f"{stem}_{number}"
        taken.add(changed)
        result[name] = changed
    return result


def _field(key: str, names: list[str]) -> str:
    return f" {key}={_ranges(names)}" if names else ""


def _ranges(names: list[str]) -> str:
    """Print names with runs of their last numbers in brackets, in order of first appearance."""
    stems: dict[tuple[str, int], list[int]] = {}
    parts: list[tuple[tuple[str, int] | None, str]] = []
    for name in dict.fromkeys(names):
        match = re.fullmatch(r"(.*?)([0-9]{1,9})", name)
        if match is None:
            parts.append((None, name))
            continue
        padded = len(match[2]) if match[2][0] == "0" and len(match[2]) > 1 else 0
        key = (match[1], padded or -len(match[2]))
        if key not in stems:
            parts.append((key, name))
        stems.setdefault(key, []).append(int(match[2]))
    return ",".join(_runs(key, stems[key]) if key else name for key, name in parts)


def _runs(key: tuple[str, int], numbers: list[int]) -> str:
    """``node[001-003,007]`` of one stem and width; a single number stands without brackets."""
    stem, width = key[0], max(key[1], 0)
    numbers = sorted(numbers)
    runs = []
    for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        members = [number for _, number in group]
        first, last = f"{members[0]:0{width}d}", f"{members[-1]:0{width}d}"
        runs.append(first if first == last else f"{first}-{last}")
    return f"{stem}{runs[0]}" if len(numbers) == 1 else f"{stem}[{','.join(runs)}]"


# -- simulators --------------------------------------------------------------------------------------------


class _Form(NamedTuple):
    """What matters to ASTRA-sim of a network.

    ``groups`` are the sets of devices on a switch, sorted. A link is between two ranks, or between a rank
    and a group g as ``-1 - g``; ``links`` are sorted.
    """

    groups: tuple[tuple[int, ...], ...]
    links: tuple[tuple[int, int, int, float], ...]


def _form(topology: Topology) -> _Form:
    """Say who is joined to whom, a switch being the set of devices on it."""
    rank = {vertex: i for i, vertex in enumerate(topology.devices)}
    members: dict[int, set[int]] = {}
    for number, link in enumerate(topology.links):
        for a, b in ((link.src, link.dst), (link.dst, link.src)):
            if a not in rank and b in rank:
                members.setdefault(a, set()).add(rank[b])
            elif a not in rank:
                raise TopologyError(
                    f"{topology.name}: the link {topology.link_name(number)} joins two vertices that are not "
                    "devices, which ASTRA-sim's network file cannot describe"
                )
    groups = sorted({tuple(sorted(group)) for group in members.values()})
    place = {group: -1 - g for g, group in enumerate(groups)}
    ends = rank | {vertex: place[tuple(sorted(group))] for vertex, group in members.items()}
    links = sorted((ends[one.src], ends[one.dst], one.bytes_per_s, one.latency_s) for one in topology.links)
    return _Form(tuple(groups), tuple(links))


def _astrasim(topology: Topology) -> str:
    """Find dimensions whose product is this network; the reader of the format judges."""
    from pycomm.topology.importers import reads

    count = len(topology.devices)
    wanted = _form(topology)
    for sizes in _factorisations(count):
        found = [_dimension(wanted, math.prod(sizes[:d]), size) for d, size in enumerate(sizes)]
        dimensions = [one for one in found if one is not None]
        if len(dimensions) < len(sizes):
            continue
        shapes, rates, latencies = zip(*dimensions, strict=True)
        text = (
            f"topology: [ {', '.join(shapes)} ]\nnpus_count: [ {', '.join(map(str, sizes))} ]\n"
            f"bandwidth: [ {', '.join(rates)} ]  # units of 2^30 bytes per second\n"
            f"latency: [ {', '.join(latencies)} ]  # ns\n"
        )
        made = _form(reads(text, topology.name, "astra-sim"))
        # Latencies pass through decimal nanoseconds: equal to a millionth of one is equal.
        if made.groups == wanted.groups and len(made.links) == len(wanted.links):
            pairs = zip(made.links, wanted.links, strict=True)
            if all(x[:3] == y[:3] and abs(x[3] - y[3]) < 1e-15 for x, y in pairs):
                return text
    raise TopologyError(
        f"{topology.name}: the network is no product of rings, full meshes and switches with one bandwidth "
        "each, which is all that ASTRA-sim's network file can describe"
    )


def _factorisations(count: int) -> Iterator[tuple[int, ...]]:
    """Ordered factorisations of a number into factors from 2, fewest factors first; 1 is itself."""
    if count == 1:
        yield (1,)
        return
    level: list[tuple[tuple[int, ...], int]] = [((), count)] if count else []
    made = 0
    while level and made < _MAX_FACTORS:
        after: list[tuple[tuple[int, ...], int]] = []
        for head, rest in level:
            yield (*head, rest)
            made += 1
            after += [((*head, f), rest // f) for f in range(2, rest // 2 + 1) if rest % f == 0]
        level = after


def _dimension(form: _Form, stride: int, size: int) -> tuple[str, str, str] | None:
    """Guess shape, bandwidth and latency of a dimension from the links of device 0."""
    line = tuple(i * stride for i in range(size))
    first = form.links[bisect.bisect_left(form.links, (0,)) : bisect.bisect_left(form.links, (1,))]
    rows = {link[1]: link for link in first}
    direct = rows.get(stride) if size > 1 else None
    group = bisect.bisect_left(form.groups, line)
    if group < len(form.groups) and form.groups[group] == line and -1 - group in rows:
        shape, row = "Switch", rows[-1 - group]
    elif direct is not None:
        shape, row = ("FullyConnected" if size > 3 and 2 * stride in rows else "Ring"), direct
    elif size == 1 and not form.links:
        return "Ring", "1", "0"
    else:
        return None
    rate = f"{Decimal(row[2]) / 2**30:.12f}".rstrip("0").rstrip(".")
    return shape, rate, f"{row[3] * 1e9:.6f}".rstrip("0").rstrip(".")


def _ns3(topology: Topology) -> str:
    """Write the text of ns-3's front end: devices first, then all that passes on; one line for each cable."""
    order = [*topology.devices, *(i for i in range(len(topology.nodes)) if i not in set(topology.devices))]
    number = {vertex: i for i, vertex in enumerate(order)}
    waiting: dict[tuple[int, int, int, float], int] = {}
    cables = []
    for i, link in enumerate(topology.links):
        back = (link.dst, link.src, link.bytes_per_s, link.latency_s)
        if waiting.get(back):
            waiting[back] -= 1
            cables.append(topology.links[i])
        else:
            waiting[link.src, link.dst, link.bytes_per_s, link.latency_s] = (
                waiting.get((link.src, link.dst, link.bytes_per_s, link.latency_s), 0) + 1
            )
    single = next((key for key, count in waiting.items() if count), None)
    if single is not None:
        raise TopologyError(
            f"{topology.name}: the link {topology.nodes[single[0]].name} -> "
            f"{topology.nodes[single[1]].name} has no equal one back, and ns-3's text knows only cables"
        )
    switches = range(len(topology.devices), len(order))
    lines = [f"{len(order)} {len(switches)} {len(cables)}", " ".join(map(str, switches))]
    for link in cables:
        a, b = sorted((number[link.src], number[link.dst]))
        lines.append(f"{a} {b} {link.bytes_per_s * 8}bps {link.latency_s * 1e9:.6g}ns 0")
    return "\n".join([*lines, ""])


EXPORTS: dict[str, Callable[[Topology], str]] = {
    "toml": _toml,
    "node-link": _node_link,
    "graphml": _graphml,
    "dot": _dot,
    "slurm-conf": _slurm,
    "astra-sim": _astrasim,
    "simai": _ns3,
}
"""Every format that is written, by the name under which it is read."""
