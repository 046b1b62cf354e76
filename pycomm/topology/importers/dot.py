"""Graphviz' DOT: statements, defaults, chains, subgraphs, ports, quoted and HTML texts.

Read here, as networkx needs a further package for DOT. ``host=...`` set for a subgraph's vertices
(``node [host=h0]``) works as in Graphviz: defaults hold to the end of their braces.

References
----------
Graphviz documentation, "DOT Language".
"""

from __future__ import annotations

import bisect
import itertools
import re
from typing import Any

from pycomm.topology.importers.attributes import Edge, Graph, Vertex, build
from pycomm.topology.importers.source import Source
from pycomm.topology.model import Topology

__all__ = ["dot"]

_SKIP = r"(?:\s++|//[^\n]*|/\*.*?\*/|^\#[^\n]*)*+"
_QUOTED = r'"(?:[^"\\]|\\.)*+"'
_WORD = r"[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*|-?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)"
_FLAGS = re.DOTALL | re.MULTILINE
_TOKEN = re.compile(
    rf"{_SKIP}(?:(?P<arrow>->|--)|(?P<quoted>{_QUOTED})|(?P<word>{_WORD})"
    r"|(?P<mark>[{}\[\];,=:+])|(?P<html><)|(?P<end>\Z))",
    _FLAGS,
)
_SIMPLE = re.compile(
    rf"{_SKIP}({_QUOTED}|{_WORD})\s*(?:(->|--)\s*({_QUOTED}|{_WORD})\s*)?"
    rf'(?:\[((?:[^\[\]"<>]|{_QUOTED})*+)\]\s*)?;',
    _FLAGS,
)
"""A vertex or an edge in the form that programs write; most files hold little else."""
_PAIR = re.compile(rf"\s*({_QUOTED}|{_WORD})\s*=\s*({_QUOTED}|{_WORD})\s*(?:[,;]\s*|(?=\Z))", _FLAGS)
_KEYWORDS = frozenset(("graph", "digraph", "node", "edge", "subgraph", "strict"))
_ESCAPE = re.compile(r'\\(["\\\n])')
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


def _unquoted(text: str) -> str:
    """Take off the quotes of a quoted text, and let a word be."""
    if text[:1] != '"':
        return text
    text = text[1:-1]
    return _ESCAPE.sub(lambda m: m[1].strip("\n"), text) if "\\" in text else text


class _Parser:
    """Reads from left to right; ``token`` is the next one, as kind, text, begin and end."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.newlines = [match.start() for match in re.finditer("\n", source.text)]
        self.vertices: dict[str, Vertex] = {}
        self.edges: list[Edge] = []
        self.lists: dict[str, dict[str, Any] | None] = {"": {}}
        self.directed = False
        self.depth = 0
        self.token = self._lex(0)

    # -- tokens --------------------------------------------------------------------------------------------

    def _lex(self, place: int) -> tuple[str, str, int, int]:
        """Read the token from a place on; quoted and HTML texts are unwrapped."""
        text = self.source.text
        match = _TOKEN.match(text, place)
        if match is None:
            rest = text[place:].lstrip()
            self.source.fail(f"{rest[:20]!r} is not DOT", self._line(len(text) - len(rest)))
        kind, end = str(match.lastgroup), match.end()
        begin = match.start(kind)
        if kind == "quoted":
            return kind, _unquoted(match[kind]), begin, end
        if kind != "html":
            return kind, match[kind], begin, end
        depth = 1
        while end < len(text) and depth:
            depth += (text[end] == "<") - (text[end] == ">")
            end += 1
        if depth:
            self.source.fail(
                "a text in angle brackets is never closed; is the file cut short?", self._line(begin)
            )
        return "quoted", text[begin + 1 : end - 1], begin, end

    def _advance(self) -> None:
        self.token = self._lex(self.token[3])

    def _line(self, place: int) -> int:
        return bisect.bisect_left(self.newlines, place) + 1

    def _here(self) -> int:
        """Line of the next token."""
        return self._line(self.token[2])

    def _peek(self) -> tuple[str, str]:
        return self.token[:2]

    def _take(self, mark: str) -> bool:
        if self._peek() == ("mark", mark):
            self._advance()
            return True
        return False

    def _want(self, mark: str) -> None:
        if not self._take(mark):
            kind, text = self._peek()
            found = "the end of the file" if kind == "end" else repr(text[:30])
            self.source.fail(f"{mark!r} is wanted here, not {found}; is the file cut short?", self._here())

    def _id(self) -> str:
        kind, text = self._peek()
        if kind not in ("word", "quoted"):
            self.source.fail(
                f"a name is wanted here, not {text[:30]!r}; is the file cut short?", self._here()
            )
        self._advance()
        while kind == "quoted" and self._peek() == ("mark", "+"):
            self._advance()
            more = self._peek()
            if more[0] != "quoted":
                self.source.fail("'+' joins quoted texts only", self._here())
            text += more[1]
            self._advance()
        return text

    def _keyword(self, *words: str) -> str:
        kind, text = self._peek()
        if kind == "word" and text.lower() in words:
            self._advance()
            return text.lower()
        return ""

    # -- grammar -------------------------------------------------------------------------------------------

    def parse(self) -> Graph:
        strict = bool(self._keyword("strict"))
        what = self._keyword("graph", "digraph")
        if not what:
            self.source.fail("'graph' or 'digraph' is wanted here; is this DOT?", self._here())
        self.directed = what == "digraph"
        name = self._id() if self._peek()[0] in ("word", "quoted") else ""
        self._want("{")
        self._statements({}, {})
        self._want("}")
        if self._peek()[0] != "end":
            self.source.fail("there is text behind the graph; only one graph is read", self._here())
        return Graph(name, list(self.vertices.values()), self.edges, not strict)

    def _statements(self, node: dict[str, Any], edge: dict[str, Any]) -> list[str]:
        """Read statements up to the closing brace; returns the vertices they name."""
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self.source.fail(f"subgraphs are nested more than {_MAX_DEPTH} deep", self._here())
        node, edge = dict(node), dict(edge)
        named: dict[str, None] = {}
        while self._peek()[0] != "end" and self._peek() != ("mark", "}"):
            if self._take(";"):
                continue
            if names := self._simple(node, edge):
                named.update(dict.fromkeys(names))
                continue
            after = self._lex(self.token[3])[:2]
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

    def _simple(self, node: dict[str, Any], edge: dict[str, Any]) -> list[str]:
        """Read a statement in the common form at once; empty when it has another."""
        match = _SIMPLE.match(self.source.text, self.token[2])
        if match is None or match[1].lower() in _KEYWORDS or (match[3] or "").lower() in _KEYWORDS:
            return []
        raw = match[4] or ""
        if raw not in self.lists:
            self.lists[raw] = _pairs(raw)
        attributes = self.lists[raw]
        if attributes is None or (match[2] and (match[2] == "->") != self.directed):
            return []
        line = self._here()
        names = [_unquoted(name) for name in match.groups()[0:3:2] if name]
        for name in names:
            if name not in self.vertices:
                self.vertices[name] = Vertex(name, dict(node), line)
        if match[2]:
            self.edges.append(Edge(names[0], names[1], {**edge, **attributes}, self.directed, line))
        else:
            self.vertices[names[0]].attributes.update(attributes)
        self.token = self._lex(match.end())
        return names

    def _chain(self, node: dict[str, Any], edge: dict[str, Any]) -> list[str]:
        """Read a vertex, or edges between vertices or subgraphs, with attributes."""
        line = self._here()
        parts = [self._operand(node, edge)]
        while self._peek()[0] == "arrow":
            arrow = self._peek()[1]
            if (arrow == "->") != self.directed:
                self.source.fail(
                    f"{arrow!r} does not fit a {'digraph' if self.directed else 'graph'}", self._here()
                )
            self._advance()
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
            if self._peek() != ("mark", "{"):
                self.source.fail("a subgraph needs its braces here", self._here())
        if self._take("{"):
            named = self._statements(node, edge)
            self._want("}")
            return named
        line = self._here()
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


def _pairs(raw: str) -> dict[str, Any] | None:
    """Read ``a=b, c=d``; ``None`` when it is anything else."""
    values: dict[str, Any] = {}
    place = 0
    while place < len(raw.rstrip()):
        match = _PAIR.match(raw, place)
        if match is None:
            return None
        values[_unquoted(match[1])] = _unquoted(match[2])
        place = match.end()
    return values
