"""Slurm's ``topology.conf`` and ``topology.yaml``, and Topograph's models, which have the same content.

None of them has bandwidths or tells what is inside a host: see :mod:`pycomm.topology.importers.hierarchy` for
what is assumed. ``LinkSpeed`` has arbitrary units by its documentation, so it is left out, and listed.

References ---------- SchedMD, Slurm documentation: ``topology.conf(5)``, ``topology.yaml(5)``.
NVIDIA/topograph ``docs/modeling.md`` and ``tests/models``.
"""

from __future__ import annotations

import re
from typing import Any

from pycomm.topology.importers.hierarchy import Hierarchy
from pycomm.topology.importers.hostlist import expand
from pycomm.topology.importers.source import Source, joined
from pycomm.topology.importers.yamltext import Mapping, Sequence, parse_yaml
from pycomm.topology.model import Topology

__all__ = ["slurm_conf", "slurm_yaml", "topograph"]

_PAIR = re.compile(r'([A-Za-z]\w*)\s*=\s*("[^"]*"|\S+)')
_ALIAS = re.compile(r"#\s*([^\s=]+)=(\S.*)")


def slurm_conf(
    source: Source,
    *,
    link: str = "",
    trunk: str = "",
    domain: str = "",
    devices: str | int = 1,
    inside: str = "",
) -> Topology:
    """Read a ``topology.conf``: a tree of switches, or blocks of hosts.

    Parameters
    ----------
    source
        The file.
    link, trunk, domain, inside
        Bandwidths: host to switch, switch to switch (``"full"``: as much as the hosts below have), device
        to its block, device to its host.
    devices
        How many devices each host has.
    """
    tree = Hierarchy(source)
    aliases: dict[str, str] = {}
    found = False
    for number, text in _logical_lines(source):
        if match := _ALIAS.fullmatch(text.strip()):
            aliases[match[1]] = match[2].strip()
        text = text.split("#", 1)[0].strip()
        if not text:
            continue
        fields = _fields(source, text, number)
        if "switchname" in fields:
            _switch_line(source, tree, fields, number)
        elif "blockname" in fields:
            _block_line(source, tree, fields, number)
        elif "blocksizes" in fields:
            tree.made.note(
                f"block sizes {fields['blocksizes']} are a matter of the scheduler and have no part here"
            )
        else:
            tree.made.skip(f"lines with {next(iter(fields))}=")
            continue
        found = True
    if not found:
        source.fail("there is no SwitchName= or BlockName= line; is this Slurm's topology.conf?")
    named = [
        f"{name} is {alias}"
        for name, alias in aliases.items()
        if name in tree.switches or name in tree.domains
    ]
    if named:
        tree.made.note(f"names in comments: {joined(named, 1000)}")
    _join_blocks(tree)
    return tree.topology(link, trunk, domain, devices, inside)


def _logical_lines(source: Source) -> list[tuple[int, str]]:
    """Join lines that end in a backslash; each keeps the number of its first."""
    lines: list[tuple[int, str]] = []
    parts: list[str] = []
    begin = 0
    for number, text in enumerate(source.text.splitlines(), 1):
        begin = begin if parts else number
        if text.rstrip().endswith("\\") and not text.lstrip().startswith("#"):
            parts.append(text.rstrip()[:-1])
            continue
        lines.append((begin, "".join([*parts, text])))
        parts = []
    if parts:
        source.fail("the last line ends in a backslash; is the file cut short?", begin)
    return lines


def _fields(source: Source, text: str, line: int) -> dict[str, str]:
    """Read ``Key=value`` pairs; keys in any case."""
    fields: dict[str, str] = {}
    place = 0
    while place < len(text):
        match = _PAIR.match(text, place)
        if match is None:
            source.fail(f"{text[place : place + 40]!r} is not 'Key=value'", line)
        key = match[1].lower()
        if key in fields:
            source.fail(f"{match[1]}= stands twice in one line", line)
        fields[key] = match[2].strip('"')
        place = match.end()
        while place < len(text) and text[place].isspace():
            place += 1
    return fields


def _switch_line(source: Source, tree: Hierarchy, fields: dict[str, str], line: int) -> None:
    name = fields.pop("switchname")
    switches, nodes = fields.pop("switches", ""), fields.pop("nodes", "")
    if fields.pop("linkspeed", ""):
        tree.made.skip("LinkSpeed= values, whose unit is not defined")
    for key in fields:
        tree.made.skip(f"{key}= fields of switches")
    if not switches and not nodes:
        tree.made.skip("switches with nothing below them that the file says")
    for one in expand(source, name, line):
        tree.switch(one, line)
        tree.under(one, expand(source, switches, line) if switches else [], line)
        tree.attach(one, expand(source, nodes, line) if nodes else [], line)


def _block_line(source: Source, tree: Hierarchy, fields: dict[str, str], line: int) -> None:
    name, nodes = fields.pop("blockname"), fields.pop("nodes", "")
    for key in fields:
        tree.made.skip(f"{key}= fields of blocks")
    if not nodes:
        tree.made.skip("blocks without nodes (placeholders)")
        return
    if name in tree.domains:
        source.fail(f"block {name!r} is described twice; names must be unique", line)
    tree.domain(name, expand(source, nodes, line), line)


def _join_blocks(tree: Hierarchy) -> None:
    """Where there are blocks and no tree, attach every host to one switch between the blocks."""
    if tree.domains and not tree.switches:
        name = "network"
        while name in tree.hosts or name in tree.domains:
            name += "'"
        tree.switch(name, 0)
        tree.attach(name, list(tree.hosts), 0)
        tree.made.note(f"assumed, as the file does not say: every host has a link to one switch {name!r}")


def slurm_yaml(
    source: Source,
    *,
    topology: str = "",
    link: str = "",
    trunk: str = "",
    domain: str = "",
    devices: str | int = 1,
    inside: str = "",
) -> Topology:
    """Read one topology of a ``topology.yaml``.

    Parameters
    ----------
    source
        The file.
    topology
        Which of the file's topologies; by default the one marked ``cluster_default``, else the first.
    link, trunk, domain, inside, devices
        As in :func:`slurm_conf`.
    """
    document = parse_yaml(source)
    if not isinstance(document, Sequence) or not document:
        source.fail("a list of topologies is wanted: '- topology: name'", 1)
    chosen = _choose(source, document, topology)
    tree = Hierarchy(source)
    tree.made.name = str(chosen["topology"])
    if len(document) > 1:
        others = [str(entry["topology"]) for entry in document if entry is not chosen]
        tree.made.note(f"the file has other topologies: {joined(others)} (set topology=...)")
    known = {"topology", "cluster_default", "tree", "block", "flat"}
    for key in chosen:
        if key not in known:
            tree.made.skip(f"{key}: entries")
    if chosen.get("tree") is not None:
        for item, line in _entries(source, chosen["tree"], "switches"):
            _yaml_switch(source, tree, item, line)
    elif chosen.get("block") is not None:
        for item, line in _entries(source, chosen["block"], "blocks"):
            fields = {"blockname": _name(source, item, "block", line)}
            if nodes := _listed(source, item.get("nodes"), line):
                fields["nodes"] = nodes
            _block_line(source, tree, fields, line)
        _join_blocks(tree)
    else:
        source.fail(
            f"topology {tree.made.name!r} has no tree and no blocks: a flat one names no hosts", chosen.line
        )
    return tree.topology(link, trunk, domain, devices, inside)


def _choose(source: Source, document: Sequence, wanted: str) -> Mapping:
    for entry, line in zip(document, document.lines, strict=True):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("topology"), str):
            source.fail("each entry is a mapping with 'topology: name'", line)
    if wanted:
        for entry in document:
            if entry["topology"] == wanted:
                return entry  # type: ignore[no-any-return]
        source.fail(f"there is no topology {wanted!r}; there are {joined(e['topology'] for e in document)}")
    defaults = [e for e in document if str(e.get("cluster_default")).lower() in ("true", "yes", "on")]
    return (defaults or document)[0]  # type: ignore[no-any-return]


def _entries(source: Source, value: Any, key: str) -> list[tuple[Mapping, int]]:
    """List the mappings of a list under a key, with their lines."""
    inner = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(inner, Sequence):
        source.fail(f"'{key}:' with a list is wanted here", getattr(value, "line", 0))
    for item, line in zip(inner, inner.lines, strict=True):
        if not isinstance(item, Mapping):
            source.fail(f"each entry of '{key}:' is a mapping", line)
    return list(zip(inner, inner.lines, strict=True))


def _name(source: Source, item: Mapping, key: str, line: int) -> str:
    value = item.get(key)
    if not isinstance(value, str):
        source.fail(f"'{key}: name' is wanted here", line)
    return value


def _listed(source: Source, value: Any, line: int) -> str:
    """Take names as one text, or as a list of texts; joined by commas."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    source.fail("a name, or a list of names, is wanted here", line)


def _yaml_switch(source: Source, tree: Hierarchy, item: Mapping, line: int) -> None:
    fields = {"switchname": _name(source, item, "switch", line)}
    for key, value in item.items():
        if key in ("children", "nodes"):
            if names := _listed(source, value, item.lines[key]):
                fields["switches" if key == "children" else "nodes"] = names
        elif key != "switch":
            tree.made.skip(f"{key}: fields of switches")
    _switch_line(source, tree, fields, line)


def topograph(
    source: Source,
    *,
    link: str = "",
    trunk: str = "",
    domain: str = "",
    devices: str | int = 1,
    inside: str = "",
) -> Topology:
    """Read a model of Topograph's: switches, blocks of hosts, and domains of fast links.

    Parameters
    ----------
    source
        The file.
    link, trunk, domain, inside, devices
        As in :func:`slurm_conf`.
    """
    document = parse_yaml(source)
    if not isinstance(document, Mapping) or not {"switches", "blocks"} & document.keys():
        source.fail("'switches:' and 'blocks:' are wanted; is this a model of Topograph's?", 1)
    tree = Hierarchy(source)
    for key in document:
        if key not in ("switches", "blocks"):
            tree.made.skip(f"{key}: sections")
    _model_switches(source, tree, document)
    if document.get("blocks") is not None:
        for item, line in _entries(source, document, "blocks"):
            _model_block(source, tree, item, line)
    if tree.domains:
        tree.made.note(f"domains of fast links: {joined(tree.domains, 1000)}")
    _join_blocks(tree)
    return tree.topology(link, trunk, domain, devices, inside)


def _model_switches(source: Source, tree: Hierarchy, document: Mapping) -> None:
    switches = document["switches"] if document.get("switches") is not None else Mapping(0)
    if not isinstance(switches, Mapping):
        source.fail("'switches:' is a mapping of names", document.lines["switches"])
    children: list[tuple[str, int]] = []
    for name, value in switches.items():
        line = switches.lines[name]
        item = Mapping(line) if value is None else value
        if not isinstance(item, Mapping):
            source.fail(f"switch {name!r} is a mapping", line)
        tree.switch(name, line)
        below = _listed(source, item.get("switches"), line)
        names = expand(source, below, line) if below else []
        tree.under(name, names, line)
        children += [(child, line) for child in names]
        nodes = _listed(source, item.get("nodes"), line)
        tree.attach(name, expand(source, nodes, line) if nodes else [], line)
        for key in item:
            if key not in ("switches", "nodes"):
                tree.made.skip(f"{key}: fields of switches")
    for child, line in children:
        if child not in tree.switches:
            tree.switch(child, line)  # leaves are described by the blocks on them


def _model_block(source: Source, tree: Hierarchy, item: Mapping, line: int) -> None:
    nodes = _listed(source, item.get("nodes"), line)
    hosts = expand(source, nodes, line) if nodes else []
    if not hosts:
        tree.made.skip("blocks without nodes (placeholders)")
        return
    switch = item.get("switch")
    if switch is not None:
        name = _name(source, item, "switch", line)
        if name not in tree.switches:
            tree.switch(name, line)
        tree.attach(name, hosts, line)
    annotations = item.get("annotations")
    if annotations is not None and not isinstance(annotations, Mapping):
        source.fail("'annotations:' is a mapping", item.lines["annotations"])
    for key, value in (annotations or {}).items():
        if key.rpartition("/")[2] == "domain" and isinstance(value, str):
            tree.domain(value, hosts, line)
        else:
            tree.made.skip(f"{key}: annotations of blocks")
    if switch is None and not annotations:
        tree.domain(_name(source, item, "name", line), hosts, line)
