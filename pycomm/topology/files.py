"""Topology files: TOML with a strict schema, read with the place of every error, and written.

A file lists vertices and links, or has them made: by generators, and from templates of hosts that are
described once. Overrides then slow down, change or take out what is there already. In each file and template
the order is: what it extends, vertices, hosts, generators, links, overrides; ranks are the devices in that
order.

``topologies/README.md`` describes the schema.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from os import PathLike
from pathlib import Path as FilePath
from typing import Any

from pycomm.errors import TopologyError
from pycomm.topology.draft import MAX_LINKS, Draft
from pycomm.topology.generators import GENERATORS
from pycomm.topology.lines import Path, line_of
from pycomm.topology.model import Link, Node, NodeKind, Topology
from pycomm.topology.plaintoml import read_plain
from pycomm.topology.schema import (
    DOCUMENT,
    HOST,
    LINK,
    NODE,
    OVERRIDE,
    TEMPLATE,
    Fault,
    parameters_of,
    take,
)
from pycomm.topology.writer import dumps

__all__ = ["MAX_FILE_BYTES", "dumps", "load", "loads"]

MAX_FILE_BYTES = 256 * 2**20
"""Larger files are refused unread."""

_LARGE = 500_000
"""Characters from which on tomllib is slow enough to try without it."""

_SYNTAX = re.compile(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", re.DOTALL)


def load(path: str | PathLike[str]) -> Topology:
    """Read a topology file.

    Parameters
    ----------
    path
        Of a TOML file. Files that it names with ``.toml`` at the end are looked for beside it.

    Raises
    ------
    TopologyError
        The file cannot be read or is not a topology; the message starts with file and line.
    """
    file = FilePath(path)
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise TopologyError(f"{path}: the file is larger than {MAX_FILE_BYTES} bytes; use generators")
        text = file.read_bytes().decode()
    except OSError as error:
        raise TopologyError(f"{path}: {error.strerror or error}; give the path of a topology file") from None
    except UnicodeDecodeError:
        raise TopologyError(f"{path}: this is not a text file; topology files are TOML in UTF-8") from None
    return _loads(text, str(path), file.stem, file.parent, ())


def loads(text: str, name: str = "topology") -> Topology:
    r"""Read the text of a topology file.

    Parameters
    ----------
    text
        TOML.
    name
        What messages call it, and what the topology is called if the text does not say.

    Raises
    ------
    TopologyError
        The text is not a topology; the message starts with the name and the line.

    Examples
    --------
    >>> t = loads('version = 1\n[[generate]]\nkind = "ring"\ncount = 4\nrate = "50 GB/s"')
    >>> list(t.describe())
    ['4 devices', '8 links of 50 GB/s']
    """
    return _loads(text, name, name, FilePath(), ())


def _loads(text: str, file: str, name: str, folder: FilePath, chain: tuple[str, ...]) -> Topology:
    try:
        plain = read_plain(text) if len(text) > _LARGE else None
        document = tomllib.loads(text) if plain is None else plain
    except tomllib.TOMLDecodeError as error:
        raise TopologyError(_syntax_error(text, file, str(error))) from None
    except (ValueError, RecursionError):
        raise TopologyError(f"{file}: a number or a nesting is too long to be a topology") from None
    try:
        values = take(document, (), DOCUMENT, ("version",))
        context = _Context(values.get("template", {}), folder, chain)
        for template, table in context.templates.items():
            take(table, ("template", template), TEMPLATE)
        topology = _build(values, (), context)
        if not topology.nodes:
            raise Fault((), "there is no vertex; add [[node]], [[host]] or [[generate]]")
        return replace(topology, name=values.get("name", name))
    except Fault as fault:
        where = ".".join(str(key) for key in fault.path if isinstance(key, str))
        line = line_of(text, fault.path)
        raise TopologyError(f"{file}:{line}: {where + ': ' if where else ''}{fault}") from None


def _syntax_error(text: str, file: str, message: str) -> str:
    match = _SYNTAX.fullmatch(message)
    start = text.lstrip("\ufeff \t\r\n")[:1]
    what = {"<": "XML", "{": "JSON"}.get(start)
    if what:
        return f"{file}:1: this is not TOML but looks like {what}; `pycomm topo convert` reads other formats"
    line = text.count("\n") + 1 if match is None or match[2] is None else int(match[2])
    reason = match[1] if match else message
    return f"{file}:{line}: this is not TOML: {reason[:1].lower()}{reason[1:]}; correct the line"


@dataclass(frozen=True)
class _Context:
    """Templates of the file, those made so far, its folder, and the templates being made, to see circles."""

    templates: Mapping[str, dict[str, Any]]
    folder: FilePath
    chain: tuple[str, ...]
    made: dict[str, Topology] = field(default_factory=dict)


def _template(name: str, context: _Context) -> Topology:
    """Find a template: in this file, in the file of that name, or in the catalogue."""
    if name not in context.made:
        if name in context.chain or len(context.chain) > 50:
            raise TopologyError(f"the template {name!r} is made from itself; break the circle")
        chain = (*context.chain, name)
        if name in context.templates:
            path: Path = ("template", name)
            values = take(context.templates[name], path, TEMPLATE)
            made = _build(values, path, replace(context, chain=chain))
            context.made[name] = replace(made, name=name)
        elif name.endswith(".toml"):
            context.made[name] = _load_beside(name, context.folder, chain)
        else:
            from pycomm.topology.catalogue import named  # which reads its files by this module

            context.made[name] = named(name)
    return context.made[name]


def _load_beside(name: str, folder: FilePath, chain: tuple[str, ...]) -> Topology:
    file = folder / name
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise TopologyError(f"the file {str(file)!r} cannot be read; check its path") from None
    return _loads(text, str(file), file.stem, file.parent, chain)


def _build(values: Mapping[str, Any], path: Path, context: _Context) -> Topology:
    """Make what a file or a template describes."""
    draft = Draft()
    notes: dict[str, None] = dict.fromkeys(values.get("source", ()))

    def template(name: str, at: Path) -> Topology:
        try:
            made = _template(name, context)
        except TopologyError as error:
            raise Fault(at, str(error)) from None
        notes.update(dict.fromkeys(made.notes))
        return made

    if "extends" in values:
        draft.merge(template(values["extends"], (*path, "extends")))
    for i, table in enumerate(values.get("node", ())):
        at = (*path, "node", i)
        _add_nodes(draft, take(table, at, NODE, ("name", "kind")), at, values.get("hostname", ""))
    for i, table in enumerate(values.get("host", ())):
        at = (*path, "host", i)
        host = take(table, at, HOST, ("name", "template"))
        made = template(host["template"], (*at, "template"))
        for name in host["name"]:
            _at((*at, "name"), draft.place, made, name)
    for i, table in enumerate(values.get("generate", ())):
        at = (*path, "generate", i)
        made, prefix = _generate(table, at, lambda name, at=at: template(name, (*at, "host")))
        _at(at, draft.merge, made, prefix)
    for i, table in enumerate(values.get("link", ())):
        at = (*path, "link", i)
        _add_links(draft, take(table, at, LINK, ("from", "to", "bandwidth")), at)
    if "override" in values:
        _override(draft, values["override"], (*path, "override"))
    whole: Topology = _at(path, draft.topology, "", notes)
    return whole


def _at(path: Path, function: Any, *arguments: Any) -> Any:
    """Call, and say of an error where in the file it comes from."""
    try:
        return function(*arguments)
    except TopologyError as error:
        raise Fault(path, str(error)) from None


def _add_nodes(draft: Draft, values: Mapping[str, Any], at: Path, hostname: str) -> None:
    kind: NodeKind = values["kind"]
    for ability in ("multicast", "reduction"):
        if values.get(ability) and kind is not NodeKind.SWITCH:
            raise Fault((*at, ability), f"a {kind} cannot do that, only a switch; take the key out")
    rest = [values.get(key, "") for key in ("vendor", "model")]
    rest += [values.get(key, False) for key in ("multicast", "reduction")]
    for name in values["name"]:
        host = values["host"] if "host" in values else _host_in(name) or hostname
        _at((*at, "name"), draft.add, Node(name, kind, host, *rest))


def _host_in(name: str) -> str:
    """Host that a vertex named HOST/VERTEX is part of."""
    return name.rpartition("/")[0]


def _generate(table: Mapping[str, Any], at: Path, template: Any) -> tuple[Topology, str]:
    if "kind" not in table:
        raise Fault(at, "'kind' is missing; name a generator")
    kind = table["kind"]
    spec, required = _at((*at, "kind"), parameters_of, str(kind))
    values = take(table, at, spec, required)
    prefix = values.pop("prefix", "")
    del values["kind"]
    if "host" in values:
        hosts = values["host"]
        values["host"] = [template(name) for name in hosts] if isinstance(hosts, list) else template(hosts)
    return _at(at, lambda: GENERATORS[kind](**values)), prefix


def _pairs(sources: list[int], targets: list[int], values: Mapping[str, Any]) -> Iterable[tuple[int, int]]:
    if values.get("all_pairs"):
        if len(sources) * len(targets) > MAX_LINKS:
            raise TopologyError(f"these are more than {MAX_LINKS} pairs; check the names")
        both = values.get("both") or "back" in values
        pairs = dict.fromkeys((a, b) for a, b in product(sources, targets) if a != b)
        return [(a, b) for a, b in pairs if not (both and b < a and (b, a) in pairs)]
    if len(sources) == 1:
        sources *= len(targets)
    if len(targets) == 1:
        targets *= len(sources)
    if len(sources) != len(targets):
        raise TopologyError(
            f"'from' names {len(sources)} vertices and 'to' names {len(targets)}; "
            "name as many, or one, or write all_pairs = true"
        )
    return zip(sources, targets, strict=True)


def _add_links(draft: Draft, values: Mapping[str, Any], at: Path) -> None:
    if "back" in values and "both" in values:
        raise Fault((*at, "back"), "both = true is the same rate back; give one of the two")
    if values.get("cables") == 0:
        raise Fault((*at, "cables"), "0 cables are no link; give 1 or more")
    sources = _at((*at, "from"), draft.find, values["from"])
    targets = _at((*at, "to"), draft.find, values["to"])
    rate = values["bandwidth"]
    options = {
        "back": values.get("back", rate if values.get("both") else 0),
        "latency_s": values.get("latency", 0.0),
        "kind": values.get("kind", ""),
        "copies": values.get("cables", 1),
    }
    for a, b in _at(at, _pairs, sources, targets, values):
        try:
            draft.join(a, b, rate, **options)
        except TopologyError as error:
            raise Fault(at, str(error)) from None


class _Wires:
    """Links of a draft by their ends, and what overrides have taken out so far."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.dead_links: set[int] = set()
        self.dead_nodes: set[int] = set()
        self.by_end: dict[tuple[bool, int], list[int]] = {}
        for number, link in enumerate(draft.links):
            self.by_end.setdefault((True, link.src), []).append(number)
            self.by_end.setdefault((False, link.dst), []).append(number)

    def between(self, sources: Iterable[int], targets: Iterable[int], cables: int | None) -> list[int]:
        """Numbers of the links from some vertices to others, at most ``cables`` of each pair."""
        src, dst = set(sources), set(targets)
        outgoing = len(src) <= len(dst)
        found: list[int] = []
        seen: dict[tuple[int, int], int] = {}
        for end in sorted(src if outgoing else dst):
            for number in self.by_end.get((outgoing, end), ()):
                link = self.draft.links[number]
                if number in self.dead_links or (link.dst not in dst if outgoing else link.src not in src):
                    continue
                seen[link.src, link.dst] = seen.get((link.src, link.dst), 0) + 1
                if cables is None or seen[link.src, link.dst] <= cables:
                    found.append(number)
        return found


def _override(draft: Draft, tables: Iterable[Mapping[str, Any]], path: Path) -> None:
    wires = _Wires(draft)
    for i, table in enumerate(tables):
        at = (*path, i)
        values = take(table, at, OVERRIDE)
        if "node" in values:
            _override_nodes(wires, values, at)
        elif "from" in values and "to" in values:
            _override_links(wires, values, at)
        else:
            raise Fault(at, 'say what to change: node = "...", or from = "..." and to = "..."')
    if wires.dead_links or wires.dead_nodes:
        draft.drop(nodes=wires.dead_nodes, links=wires.dead_links)


def _only(values: Mapping[str, Any], at: Path, allowed: tuple[str, ...], what: str) -> None:
    for key in values:
        if key not in allowed:
            raise Fault((*at, key), f"this key is not for {what}; those are {', '.join(allowed)}")


def _override_nodes(wires: _Wires, values: Mapping[str, Any], at: Path) -> None:
    _only(values, at, ("node", "down", "multicast", "reduction"), "vertices")
    draft = wires.draft
    numbers = _at((*at, "node"), draft.find, values["node"])
    if values.get("down"):
        wires.dead_nodes.update(numbers)
    abilities = {key: values[key] for key in ("multicast", "reduction") if key in values}
    if not abilities and "down" not in values:
        raise Fault(at, "say what changes: down, multicast or reduction")
    for number in numbers:
        node = draft.nodes[number]
        if any(abilities.values()) and node.kind is not NodeKind.SWITCH:
            raise Fault((*at, "node"), f"{node.name!r} is a {node.kind}; only switches can do that")
        draft.nodes[number] = node._replace(**abilities)


def _override_links(wires: _Wires, values: Mapping[str, Any], at: Path) -> None:
    allowed = ("from", "to", "both", "down", "bandwidth", "scale", "latency", "kind", "cables")
    _only(values, at, allowed, "links")
    changes = [key for key in ("down", "bandwidth", "scale", "latency", "kind") if key in values]
    if not changes:
        raise Fault(at, "say what changes: down, bandwidth, scale, latency or kind")
    if "bandwidth" in values and "scale" in values:
        raise Fault((*at, "scale"), "the bandwidth is given as well; give one of the two")
    draft = wires.draft
    sources = _at((*at, "from"), draft.find, values["from"])
    targets = _at((*at, "to"), draft.find, values["to"])
    numbers = wires.between(sources, targets, values.get("cables"))
    if values.get("both"):
        numbers += wires.between(targets, sources, values.get("cables"))
    if not numbers:
        raise Fault((*at, "from"), f"no link leads from {values['from']!r} to {values['to']!r}")
    if values.get("down"):
        wires.dead_links.update(numbers)
    for number in dict.fromkeys(numbers):
        link = draft.links[number]
        rate = values.get("bandwidth", int(link.bytes_per_s * values.get("scale", 1)))
        if rate < 1:
            raise Fault((*at, "scale"), "the bandwidth left is none; a link that is down has down = true")
        draft.links[number] = Link(
            link.src, link.dst, rate, values.get("latency", link.latency_s), values.get("kind", link.kind)
        )
