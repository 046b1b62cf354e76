"""GraphML, with typed keys, nested graphs, yEd's labels and the attributes of the Internet Topology Zoo.

Read here rather than through networkx, which knows no lines and answers a damaged file with many kinds of
exception; what networkx writes is read (tests hold that).

References
----------
U. Brandes, M. Eiglsperger, J. Lerner, C. Pich: Graph Markup Language, in Handbook of Graph Drawing and
Visualization, 2013. S. Knight et al.: The Internet Topology Zoo, IEEE JSAC 29(9), 2011.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from pycomm.topology.importers.attributes import Edge, Graph, Vertex, build
from pycomm.topology.importers.source import Source
from pycomm.topology.importers.xmltext import Element, parse_xml
from pycomm.topology.model import Topology

__all__ = ["graphml"]


def graphml(source: Source, *, link: str = "", kind: str = "", directed: str = "") -> Topology:
    """Read a GraphML file.

    Parameters
    ----------
    source
        The file.
    link, kind
        Bandwidth of edges, and kind of vertices, that the file gives none.
    directed
        ``"yes"`` or ``"no"`` instead of what the file says.
    """
    root = parse_xml(source)
    if root.tag != "graphml":
        source.fail(f"the root element is <{root.tag[:40]}>, not <graphml>", root.line)
    graphs = list(root.named("graph"))
    if not graphs:
        source.fail("there is no <graph> in <graphml>; is the file cut short?", root.line)
    keys, defaults = _keys(root)
    found: list[tuple[Element, dict[str, Any]]] = []
    edges: list[Edge] = []
    for element in graphs[0].walk():
        if element.tag == "node" and not any(child.tag == "graph" for child in element.children):
            found.append((element, _data(element, keys, defaults, "node")))
        elif element.tag == "edge":
            edges.append(_edge(source, element, keys, defaults, graphs[0].get("edgedefault") == "directed"))
    names = _names(source, found)
    multigraph = len({(e.src, e.dst) for e in edges}) < len(edges) or any(
        e.attributes.get("id") for e in edges
    )
    title = str(_data(graphs[0], keys, defaults, "graph").get("name") or "")
    ends = {element.attributes["id"]: name for (element, _), name in zip(found, names, strict=True)}
    graph = Graph(
        title,
        [Vertex(name, data, one.line) for (one, data), name in zip(found, names, strict=True)],
        [edge._replace(src=ends.get(edge.src, edge.src), dst=ends.get(edge.dst, edge.dst)) for edge in edges],
        multigraph,
    )
    return build(source, graph, link=link, kind=kind, directed=directed)


def _keys(root: Element) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """Names of the declared keys, and their defaults by what they are for."""
    names: dict[str, str] = {}
    defaults: dict[tuple[str, str], str] = {}
    for key in root.named("key"):
        names[key.get("id")] = key.get("attr.name") or key.get("yfiles.type") or key.get("id")
        for default in key.named("default"):
            defaults[key.get("for") or "all", names[key.get("id")]] = default.text.strip()
    return names, defaults


def _data(
    element: Element, keys: dict[str, str], defaults: dict[tuple[str, str], str], what: str
) -> dict[str, Any]:
    values: dict[str, Any] = {
        name: text for (where, name), text in defaults.items() if where in (what, "all")
    }
    for data in element.named("data"):
        name = keys.get(data.get("key"), data.get("key"))
        if data.children:
            label = next((e.text.strip() for e in data.walk() if e.tag in ("NodeLabel", "EdgeLabel")), "")
            if label:
                values.setdefault("label", label)
        else:
            values[name] = data.text.strip()
    return values


def _edge(
    source: Source,
    element: Element,
    keys: dict[str, str],
    defaults: dict[tuple[str, str], str],
    directed: bool,
) -> Edge:
    src, dst = (element.attributes.get(end, "") for end in ("source", "target"))
    if not src or not dst:
        source.fail("an edge needs source and target", element.line)
    one_way = {"true": True, "false": False}.get(element.get("directed"), directed)
    return Edge(src, dst, _data(element, keys, defaults, "edge"), one_way, element.line)


def _names(source: Source, found: list[tuple[Element, dict[str, Any]]]) -> list[str]:
    """Labels where vertices have them, with the id behind a label that is there twice; else ids."""
    labels = []
    seen: set[str] = set()
    for element, data in found:
        key = element.attributes.get("id", "")
        if not key:
            source.fail("a node has no id", element.line)
        if key in seen:
            source.fail(f"the node id {key[:60]!r} is there twice", element.line)
        seen.add(key)
        label = data.get("label") or data.get("name")
        labels.append(" ".join(str(label).split()) if label else key)
    uses = Counter(labels)
    return [
        label if uses[label] == 1 else f"{label} ({element.attributes['id']})"
        for label, (element, _) in zip(labels, found, strict=True)
    ]
