"""Node-link JSON as networkx and D3 write it: ``nodes`` with ids, ``edges`` or ``links`` with two ends.

References ---------- networkx ``networkx/readwrite/json_graph/node_link.py`` (keys; the name of the list of
edges changed from ``links`` to ``edges``).
"""

from __future__ import annotations

from typing import Any

from pycomm.topology.importers.attributes import Edge, Graph, Vertex, build
from pycomm.topology.importers.jsontext import array, parse_json, record
from pycomm.topology.importers.source import Source
from pycomm.topology.model import Topology

__all__ = ["node_link"]


def node_link(source: Source, *, link: str = "", kind: str = "", directed: str = "") -> Topology:
    """Read a node-link file.

    Parameters
    ----------
    source
        The file.
    link, kind
        Bandwidth of edges, and kind of vertices, that the file gives none.
    directed
        ``"yes"`` or ``"no"`` instead of what the file says.
    """
    document = record(source, parse_json(source), "the file")
    nodes = array(source, document.get("nodes"), "nodes")
    key = "edges" if "edges" in document else "links"
    if key not in document:
        source.fail("there is no 'edges' and no 'links'; is this a node-link graph?")
    if "edges" in document and "links" in document:
        source.fail("there are both 'edges' and 'links'; keep one", field="links")
    for flag in ("directed", "multigraph"):
        if not isinstance(document.get(flag, False), bool):
            source.fail("true or false is wanted here", field=flag)
    one_way = document.get("directed", False)
    vertices = []
    names: dict[Any, str] = {}
    for i, node in enumerate(nodes):
        attributes = node if isinstance(node, dict) else {"id": node}
        name = _name(source, attributes.get("id", attributes.get("name")), f"nodes[{i}].id")
        names[i] = name
        vertices.append(Vertex(name, attributes, field=f"nodes[{i}]"))
    known = set(names.values())
    edges = []
    for i, one in enumerate(array(source, document[key], key)):
        field = f"{key}[{i}]"
        attributes = record(source, one, field)
        src = _name(source, attributes.get("source"), f"{field}.source")
        dst = _name(source, attributes.get("target"), f"{field}.target")
        if src not in known or dst not in known:
            lost = dst if src in known else src
            source.fail(f"there is no node {lost[:60]!r}", field=field)
        rest = {k: v for k, v in attributes.items() if k not in ("source", "target", "key")}
        edges.append(Edge(src, dst, rest, one_way, field=field))
    title = record(source, document.get("graph", {}), "graph").get("name")
    graph = Graph(str(title or ""), vertices, edges, bool(document.get("multigraph", False)))
    return build(source, graph, link=link, kind=kind, directed=directed)


def _name(source: Source, value: Any, field: str) -> str:
    """Take an id: a text, a number, or a list of them as networkx writes tuples."""
    if type(value) is str and value:
        return value
    if isinstance(value, list) and value and all(isinstance(part, str | int | float) for part in value):
        return ",".join(str(part) for part in value)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        source.fail("an id is wanted here: a text or a number", field=field)
    return str(value)
