"""Topologies as networkx graphs, and any graph of networkx as a topology.

Vertices carry ``kind`` (``"device"``, ``"nic"``, ``"host"`` or ``"switch"``) and may carry ``host``,
``vendor``, ``model``, ``multicast`` and ``reduction``. Edges carry ``bandwidth`` in GB/s (10^9 bytes per
second, one way) and may carry ``latency`` in microseconds and ``kind``. Other attributes are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, SupportsFloat

from pycomm.errors import TopologyError
from pycomm.topology.draft import Draft
from pycomm.topology.model import MAX_BYTES_PER_S, Node, NodeKind, Topology

if TYPE_CHECKING:
    import networkx

__all__ = ["from_networkx", "to_networkx"]


def from_networkx(graph: networkx.Graph) -> Topology:
    """Make a topology of a graph of networkx.

    Parameters
    ----------
    graph
        ``Graph``, ``DiGraph``, ``MultiGraph`` or ``MultiDiGraph``. An undirected edge is a link each way. The
        vertices' names are their keys as text, so the keys 1 and "1" cannot both be there. Vertices and edges
        keep the order of the graph, and devices are ranks in that order.

    Returns
    -------
    Topology
        Bandwidths are rounded to whole bytes per second; decimals such as 12.5 are exact.

    Raises
    ------
    TopologyError
        A vertex has no kind or an unknown one, an edge has no bandwidth or one that is not positive, an edge
        leads from a vertex to itself, or two keys are the same text.

    Examples
    --------
    >>> import networkx
    >>> graph = networkx.DiGraph()
    >>> graph.add_nodes_from(["a", "b"], kind="device")
    >>> graph.add_edge("a", "b", bandwidth=12.5, latency=1.5)
    >>> from_networkx(graph).links[0]
    Link(src=0, dst=1, bytes_per_s=12500000000, latency_s=1.5e-06, kind='')
    """
    name = str(graph.graph.get("name") or "graph")
    draft, numbers = Draft(), {}
    for key, attributes in graph.nodes(data=True):
        try:
            numbers[key] = draft.add(_node(str(key), attributes))
        except TopologyError as error:
            raise TopologyError(f"{name}: vertex {key!r}: {error}") from None
    for src, dst, attributes in graph.edges(data=True):
        try:
            rate = _bytes_per_s(attributes)
            draft.join(
                numbers[src],
                numbers[dst],
                rate,
                back=0 if graph.is_directed() else rate,
                latency_s=_latency_s(attributes),
                kind=_text(attributes, "kind"),
            )
        except TopologyError as error:
            raise TopologyError(f"{name}: edge {src!r} -> {dst!r}: {error}") from None
    return draft.topology(name)


def _text(attributes: Mapping[str, Any], key: str) -> str:
    value = attributes.get(key)
    return "" if value is None else str(value)


def _node(name: str, attributes: Mapping[str, Any]) -> Node:
    if "kind" not in attributes:
        raise TopologyError("it has no kind; set kind to device, nic, host or switch")
    try:
        kind = NodeKind(str(attributes["kind"]))
    except ValueError:
        raise TopologyError(
            f"its kind is {attributes['kind']!r}; it must be device, nic, host or switch"
        ) from None
    return Node(
        name,
        kind,
        _text(attributes, "host"),
        _text(attributes, "vendor"),
        _text(attributes, "model"),
        bool(attributes.get("multicast", False)),
        bool(attributes.get("reduction", False)),
    )


def _number(value: Any) -> Fraction | None:
    """Read a number as the decimal that it is printed as; ``None`` when it is not a finite number."""
    if isinstance(value, bool | str):
        return None
    if isinstance(value, int | Fraction | Decimal):
        return Fraction(value) if not isinstance(value, Decimal) or value.is_finite() else None
    if not isinstance(value, SupportsFloat):
        return None
    number = float(value)
    return Fraction(repr(number)) if math.isfinite(number) else None


def _bytes_per_s(attributes: Mapping[str, Any]) -> int:
    if "bandwidth" not in attributes:
        raise TopologyError("it has no bandwidth; set bandwidth to its GB/s")
    value = attributes["bandwidth"]
    number = _number(value)
    if number is None:
        raise TopologyError(f"its bandwidth is {value!r}; it must be a number of GB/s")
    rate = round(number * 10**9)
    if not 0 < rate <= MAX_BYTES_PER_S:
        raise TopologyError(f"its bandwidth is {value} GB/s; it must be more than 0 and at most 10^9 GB/s")
    return rate


def _latency_s(attributes: Mapping[str, Any]) -> float:
    value = attributes.get("latency")
    if value is None:
        return 0.0
    number = _number(value)
    if number is None or number < 0:
        raise TopologyError(f"its latency is {value!r}; it must be a number of microseconds, 0 or more")
    return float(number / 10**6)


def to_networkx(topology: Topology) -> networkx.MultiDiGraph:
    """Make a graph of networkx of a topology.

    Parameters
    ----------
    topology
        Any.

    Returns
    -------
    networkx.MultiDiGraph
        Keys are the names of the vertices; attributes are as :func:`from_networkx` reads them, without those
        that are empty. The numbers of parallel edges are those that networkx gives.

    Examples
    --------
    >>> from pycomm.topology.generators import star
    >>> graph = to_networkx(star(3, "100 Gbit/s"))
    >>> graph.edges["device0", "switch", 0]["bandwidth"]
    12.5
    """
    import networkx

    graph = networkx.MultiDiGraph(name=topology.name)
    for node in topology.nodes:
        rest = {key: value for key, value in node._asdict().items() if value and key not in ("name", "kind")}
        graph.add_node(node.name, kind=node.kind.value, **rest)
    for link in topology.links:
        attributes: dict[str, Any] = {"bandwidth": _gigabytes(link.bytes_per_s)}
        if link.latency_s:
            attributes["latency"] = float(Decimal(repr(link.latency_s)).scaleb(6))
        if link.kind:
            attributes["kind"] = link.kind
        graph.add_edge(topology.nodes[link.src].name, topology.nodes[link.dst].name, **attributes)
    return graph


def _gigabytes(bytes_per_s: int) -> int | float:
    whole, rest = divmod(bytes_per_s, 10**9)
    return bytes_per_s / 10**9 if rest else whole
