"""Graphviz' DOT: statements, defaults, chains, subgraphs, ports, quoted and HTML texts.

Read here, as networkx needs a further package for DOT. ``host=...`` set for a subgraph's vertices
(``node [host=h0]``) works as in Graphviz: defaults hold to the end of their braces.

References
----------
Graphviz documentation, "DOT Language".
"""

from __future__ import annotations

import itertools
import re
from typing import Any

from pycomm.topology.importers.attributes import Edge, Graph, Vertex, build
from pycomm.topology.importers.source import Source
from pycomm.topology.model import Topology

__all__ = ["dot"]

_TOKEN = re.compile(
    r'(?P<skip>\s+|//[^\n]*|/\*.*?\*/|^\#[^\n]*)|(?P<arrow>->|--)|(?P<quoted>"(?:\\.|[^"\\])*")'
    r"|(?P<word>[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*|-?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?))"
    r"|(?P<mark>[{}\[\];,=:+])|(?P<html><)",
    re.DOTALL | re.MULTILINE,
)
_MAX_DEPTH = 64
_MAX_EDGES = 20_000_000


def dot(source: Source, *, link: str = "", kind: str = "", directed: str = "") -> Topology:
    """Read a DOT file.

    Parameters
    ----------
    source
        The file.
    link, kind
        Bandwidth of edges, and kind of vertices, that the file gives none.
    directed
        ``"yes"`` or ``"no"`` instead of what the file says.
    """
    graph = _Parser(source).parse()
    return build(source, graph, link=link, kind=kind, directed=directed)


def _tokens(source: Source) -> list[tuple[str, str, int]]:
    """Split into (kind, text, line); quoted and HTML texts are unwrapped."""
    text, place, line = source.text, 0, 1
    tokens: list[tuple[str, str, int]] = []
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            source.fail(f"{text[place : place + 20]!r} is not DOT", line)
        kind, end = str(match.lastgroup), match.end()
        value = match[0]
        if kind == "html":
            depth, end = 1, place + 1
            while end < len(text) and depth:
                depth += (text[end] == "<") - (text[end] == ">")
                end += 1
            if depth:
                source.fail("a text in angle brackets is never closed; is the file cut short?", line)
            kind, value = "quoted", text[place + 1 : end - 1]
        elif kind == "quoted":
            value = value[1:-1].replace("\\\n", "").replace('\\"', '"').replace("\\\\", "\\")
        if kind != "skip":
            tokens.append((kind, value, line))
        line += text.count("\n", place, end)
        place = end
    return tokens


class _Parser:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.tokens = _tokens(source)
        self.at = 0
        self.vertices: dict[str, Vertex] = {}
        self.edges: list[Edge] = []
        self.directed = False
        self.depth = 0

    # -- tokens --------------------------------------------------------------------------------------------

    def _peek(self) -> tuple[str, str, int]:
        if self.at < len(self.tokens):
            return self.tokens[self.at]
        return ("end", "", self.tokens[-1][2] if self.tokens else 1)

    def _take(self, mark: str) -> bool:
        if self._peek()[:2] == ("mark", mark):
            self.at += 1
            return True
        return False

    def _want(self, mark: str) -> None:
        if not self._take(mark):
            kind, text, line = self._peek()
            found = "the end of the file" if kind == "end" else repr(text[:30])
            self.source.fail(f"{mark!r} is wanted here, not {found}; is the file cut short?", line)

    def _id(self) -> str:
        kind, text, line = self._peek()
        if kind not in ("word", "quoted"):
            self.source.fail(f"a name is wanted here, not {text[:30]!r}; is the file cut short?", line)
        self.at += 1
        while kind == "quoted" and self._peek()[:2] == ("mark", "+"):
            self.at += 1
            more = self._peek()
            if more[0] != "quoted":
                self.source.fail("'+' joins quoted texts only", more[2])
            text += more[1]
            self.at += 1
        return text

    def _keyword(self, *words: str) -> str:
        kind, text, _ = self._peek()
        if kind == "word" and text.lower() in words:
            self.at += 1
            return text.lower()
        return ""

    # -- grammar -------------------------------------------------------------------------------------------

    def parse(self) -> Graph:
        strict = bool(self._keyword("strict"))
        what = self._keyword("graph", "digraph")
        if not what:
            self.source.fail("'graph' or 'digraph' is wanted here; is this DOT?", self._peek()[2])
        self.directed = what == "digraph"
        name = self._id() if self._peek()[0] in ("word", "quoted") else ""
        self._want("{")
        self._statements({}, {})
        self._want("}")
        if self._peek()[0] != "end":
            self.source.fail("there is text behind the graph; only one graph is read", self._peek()[2])
        return Graph(name, list(self.vertices.values()), self.edges, not strict)

    def _statements(self, node: dict[str, Any], edge: dict[str, Any]) -> list[str]:
        """Read statements up to the closing brace; returns the vertices they name."""
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self.source.fail(f"subgraphs are nested more than {_MAX_DEPTH} deep", self._peek()[2])
        node, edge = dict(node), dict(edge)
        named: dict[str, None] = {}
        while self._peek()[0] != "end" and self._peek()[:2] != ("mark", "}"):
            if self._take(";"):
                continue
            after = self.tokens[self.at + 1][:2] if self.at + 1 < len(self.tokens) else ("", "")
            if after == ("mark", "=") and self._peek()[0] in ("word", "quoted"):
                self._id()
                self._want("=")
                self._id()
            elif word := (self._keyword("graph", "node", "edge") if after == ("mark", "[") else ""):
                {"graph": {}, "node": node, "edge": edge}[word].update(self._attributes())
            else:
                named.update(dict.fromkeys(self._chain(node, edge)))
        self.depth -= 1
        return list(named)

    def _chain(self, node: dict[str, Any], edge: dict[str, Any]) -> list[str]:
        """Read a vertex, or edges between vertices or subgraphs, with attributes."""
        line = self._peek()[2]
        parts = [self._operand(node, edge)]
        while self._peek()[0] == "arrow":
            arrow = self._peek()[1]
            if (arrow == "->") != self.directed:
                self.source.fail(
                    f"{arrow!r} does not fit a {'digraph' if self.directed else 'graph'}", self._peek()[2]
                )
            self.at += 1
            parts.append(self._operand(node, edge))
        attributes = self._attributes()
        if len(parts) == 1 and len(parts[0]) == 1 and attributes:
            self.vertices[parts[0][0]].attributes.update(attributes)
        for left, right in itertools.pairwise(parts):
            if len(self.edges) + len(left) * len(right) > _MAX_EDGES:
                self.source.fail(f"there are more than {_MAX_EDGES} edges", line)
            values = {**edge, **attributes}
            self.edges += [Edge(a, b, values, self.directed, line) for a in left for b in right]
        return list(dict.fromkeys(name for part in parts for name in part))

    def _operand(self, node: dict[str, Any], edge: dict[str, Any]) -> list[str]:
        """Read a subgraph, or a vertex with an optional port."""
        if self._keyword("subgraph"):
            if self._peek()[0] in ("word", "quoted"):
                self._id()
            if self._peek()[:2] != ("mark", "{"):
                self.source.fail("a subgraph needs its braces here", self._peek()[2])
        if self._take("{"):
            named = self._statements(node, edge)
            self._want("}")
            return named
        line = self._peek()[2]
        name = self._id()
        for _ in range(2):
            if self._take(":"):
                self._id()
        if name not in self.vertices:
            self.vertices[name] = Vertex(name, dict(node), line)
        return [name]

    def _attributes(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while self._take("["):
            while not self._take("]"):
                key = self._id()
                values[key] = self._id() if self._take("=") else "true"
                if not self._take(","):
                    self._take(";")
        return values
