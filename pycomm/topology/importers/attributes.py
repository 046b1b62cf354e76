"""Graphs with free attributes, whatever file they come from, made into a topology.

A vertex has a kind (``kind``, ``type`` or ``role``: device, NIC, host or switch, or a common word for one)
and optionally ``host``, ``vendor``, ``model``, ``multicast``, ``reduction``. An edge has a bandwidth:
``bandwidth`` is a number of GB/s or a text with its unit; under other names (``capacity``, ``speed``,
``rate``, labels) only a text with its unit counts, but ``LinkSpeedRaw`` (Internet Topology Zoo) is bits per
second. ``latency`` is a number of microseconds or a text with its unit, ``latency_s`` one of seconds. What
has no kind is a device, what has no bandwidth gets the assumed one; both are noted.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any, NamedTuple

from pycomm.errors import UsageError
from pycomm.topology.importers.source import Reading, Source, joined, rate_of, shown
from pycomm.topology.model import Node, NodeKind, Topology
from pycomm.units import parse_exact_rate, parse_time

__all__ = ["Edge", "Graph", "Vertex", "build"]

_KINDS = {
    **dict.fromkeys(("device", "gpu", "npu", "tpu", "accelerator", "dcu", "xpu", "rank"), NodeKind.DEVICE),
    **dict.fromkeys(("nic", "hca", "adapter", "ca", "port"), NodeKind.NIC),
    **dict.fromkeys(("host", "server", "cpu", "node", "compute"), NodeKind.HOST),
    **dict.fromkeys(
        ("switch", "leaf", "spine", "core", "tor", "aggregation", "router", "nvswitch", "pcie", "sw"),
        NodeKind.SWITCH,
    ),
}
_KIND_KEYS = ("kind", "type", "role")
_RATE_KEYS = ("bandwidth", "bw", "capacity", "rate", "speed", "LinkSpeed", "LinkLabel", "label", "name")
_KNOWN_VERTEX = {*_KIND_KEYS, "host", "vendor", "model", "multicast", "reduction", "label", "name", "id"}
_KNOWN_EDGE = {*_RATE_KEYS, "LinkSpeedRaw", "LinkSpeedUnits", "latency", "latency_s", "kind", "key", "id"}
_NUMBER = re.compile(r"(?:[0-9]{1,18}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,2})?")
_RATE_TEXT = re.compile(r"(?:<|<=|~)?\s*([0-9][0-9.]*\s*[kKMGTP]?i?(?:bits?/s|bps|b/s|B/s|Bps))")


class Vertex(NamedTuple):
    """A vertex by its name, with its attributes and its place: line, or path of the field."""

    name: str
    attributes: dict[str, Any]
    line: int = 0
    field: str = ""


class Edge(NamedTuple):
    """An edge by its ends' names."""

    src: str
    dst: str
    attributes: dict[str, Any]
    directed: bool
    line: int = 0
    field: str = ""


class Graph(NamedTuple):
    """What a file describes; ``multigraph`` is whether parallel edges are meant."""

    name: str
    vertices: list[Vertex]
    edges: list[Edge]
    multigraph: bool


def build(source: Source, graph: Graph, *, link: str = "", kind: str = "", directed: str = "") -> Topology:
    """Make the topology.

    Parameters
    ----------
    source
        The file.
    graph
        What it describes.
    link
        Bandwidth of edges without one.
    kind
        Kind of vertices without one.
    directed
        ``"yes"`` or ``"no"``: whether edges lead one way only, whatever the file says.
    """
    if directed not in ("", "yes", "no"):
        raise UsageError(f"directed={directed!r} must be 'yes' or 'no'")
    if kind and kind not in _KINDS:
        raise UsageError(f"kind={kind!r} must be device, nic, host or switch")
    made = Reading(source, graph.name)
    unknown = _vertices(source, made, graph, _KINDS[kind] if kind else NodeKind.DEVICE)
    if unknown:
        made.assumed(
            f"{len(unknown)} vertices without a kind ({joined(unknown)}) are", kind or "devices", "kind"
        )
    default = rate_of(link or "100 Gbit/s", "link")
    unrated, seen = 0, set()
    known: dict[tuple[tuple[str, Any], ...], tuple[int, str, float]] = {}
    for edge in graph.edges:
        for end in (edge.src, edge.dst):
            if end not in made.index:
                source.fail(f"an edge leads to {end[:60]!r}, which is not a vertex", edge.line, edge.field)
        if edge.src == edge.dst:
            made.skip("edges from a vertex to itself")
            continue
        one_way = edge.directed if not directed else directed == "yes"
        ends = (edge.src, edge.dst) if one_way else tuple(sorted((edge.src, edge.dst)))
        if not graph.multigraph and (one_way, *ends) in seen:
            made.skip("edges that repeat another, in a graph without parallel edges")
            continue
        seen.add((one_way, *ends))
        rate, label, latency = _figures(source, made, edge, known)
        unrated += not rate
        add = made.link if one_way else made.cable
        add(made.index[edge.src], made.index[edge.dst], rate or default, label, latency, edge.line)
    if unrated:
        made.assumed(f"{unrated} edges without a bandwidth have", shown(default), "link")
    pairs = {(one.src, one.dst) for one in made.links}
    if pairs and not any((b, a) in pairs for a, b in pairs):
        made.note("no link has a counterpart the other way; if edges are cables, set directed=no")
    return made.topology()


def _vertices(source: Source, made: Reading, graph: Graph, default: NodeKind) -> list[str]:
    """Add the vertices; returns the names of those without a kind."""
    unknown = []
    for vertex in graph.vertices:
        kind = None
        for key in _KIND_KEYS:
            word = _text(vertex.attributes.get(key)).lower()
            kind = _KINDS.get(word)
            if kind is not None:
                break
            if word and key == "kind":
                source.fail(
                    f"{vertex.name[:60]!r} has the unknown kind {word[:30]!r}; "
                    "it is device, nic, host or switch",
                    vertex.line,
                    vertex.field,
                )
        if kind is None:
            unknown.append(vertex.name)
        host, vendor, model = (_text(vertex.attributes.get(key)) for key in ("host", "vendor", "model"))
        multicast, reduction = (_flag(vertex.attributes.get(key)) for key in ("multicast", "reduction"))
        for key in vertex.attributes:
            if key not in _KNOWN_VERTEX:
                made.skip(f"attributes {key[:40]!r} of vertices")
        if not vertex.name.strip():
            source.fail("a vertex has no name", vertex.line, vertex.field)
        if vertex.name in made.index:
            problem = f"{vertex.name[:60]!r} is described twice; names must be unique"
            source.fail(problem, vertex.line, vertex.field)
        made.node(Node(vertex.name, kind or default, host, vendor, model, multicast, reduction), vertex.line)
    return unknown


def _text(value: object) -> str:
    return "" if value is None or isinstance(value, dict | list) else str(value).strip()


def _flag(value: object) -> bool:
    return value is True or _text(value).lower() in ("true", "yes", "1")


def _figures(
    source: Source,
    made: Reading,
    edge: Edge,
    known: dict[tuple[tuple[str, Any], ...], tuple[int, str, float]],
) -> tuple[int, str, float]:
    """Bandwidth, kind and latency of an edge; attributes that were read before are not read again."""
    key = tuple(edge.attributes.items())
    try:
        if key in known:
            return known[key]
    except TypeError:  # an attribute is a list or an object
        key = ()
    figures = _rate(source, made, edge), _text(edge.attributes.get("kind")), _latency(source, edge)
    if key:
        known[key] = figures
    return figures


def _rate(source: Source, made: Reading, edge: Edge) -> int:
    """Whole bytes per second, 0 when the edge says nothing."""
    for key in edge.attributes:
        if key not in _KNOWN_EDGE:
            made.skip(f"attributes {key[:40]!r} of edges")
    raw = _text(edge.attributes.get("LinkSpeedRaw"))
    if _NUMBER.fullmatch(raw) and float(raw) > 0:
        return max(1, round(float(raw) / 8))
    for key in _RATE_KEYS:
        text = _text(edge.attributes.get(key))
        if not text:
            continue
        if key == "bandwidth":
            return _bandwidth(source, made, text, edge)
        rate = _rate_in(made, text)
        if rate:
            return rate
        if key in ("bw", "capacity", "rate", "speed"):
            source.fail(f"{key}={text[:40]!r} has no unit; write it like '400 Gbit/s'", edge.line, edge.field)
    return 0


def _bandwidth(source: Source, made: Reading, text: str, edge: Edge) -> int:
    if _NUMBER.fullmatch(text):
        rate = Fraction(text) * 10**9
        if not 0 < rate <= 10**18:
            source.fail(
                f"the edge from {edge.src!r} to {edge.dst!r} has a bandwidth of {text} GB/s; "
                "it must be more than 0 and at most 10^9; leave out a link that is down",
                edge.line,
                edge.field,
            )
        return max(1, round(rate))
    rate_there = _rate_in(made, text)
    if not rate_there:
        source.fail(
            f"bandwidth={text[:40]!r} is neither a number of GB/s nor like '400 Gbit/s'",
            edge.line,
            edge.field,
        )
    return rate_there


def _rate_in(made: Reading, text: str) -> int:
    """Read the rate that a text is or contains as a whole; 0 when there is none."""
    match = _RATE_TEXT.fullmatch(text)
    if match is None:
        return 0
    if text[0] in "<~":
        made.note(f"rates such as {text[:30]!r} are bounds; they count as if exact")
    unit = re.sub(r"Bps$", "B/s", match[1])
    try:
        return round(parse_exact_rate(unit))
    except (ValueError, OverflowError):
        return 0


def _latency(source: Source, edge: Edge) -> float:
    key = "latency_s" if "latency_s" in edge.attributes else "latency"
    text = _text(edge.attributes.get(key))
    if not text:
        return 0.0
    try:
        number = _NUMBER.fullmatch(text)
        seconds = float(Fraction(text) / (1 if key == "latency_s" else 10**6)) if number else parse_time(text)
    except (ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds < 1e9:
        problem = f"{key}={text[:40]!r} is neither a number nor like '1.5 us'"
        source.fail(problem, edge.line, edge.field)
    return seconds
