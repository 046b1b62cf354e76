"""Topology files as pycomm writes them: alike neighbours share an entry, and the order stays."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pycomm.topology.model import Link, Node, Topology
from pycomm.topology.names import counted_up, fold, numbered
from pycomm.units import format_exact_rate, format_exact_time

__all__ = ["dumps"]


class _Entry(NamedTuple):
    """Links of a pair of vertices as one entry of a file has them."""

    src: int
    dst: int
    rate: int
    back: int
    latency_s: float
    kind: str
    cables: int


def dumps(topology: Topology) -> str:
    """Write a topology as a file that :func:`pycomm.topology.files.loads` reads as an equal one.

    Parameters
    ----------
    topology
        With at least one vertex. Vertices and links keep their order; alike neighbours share an entry.

    Examples
    --------
    >>> from pycomm.topology.generators import ring
    >>> print(dumps(ring(4, "50 GB/s")))
    version = 1
    name = "ring"
    node = [
      {name = "device[0-3]", kind = "device"},
    ]
    link = [
      {from = "device[0-2]", to = "device[1-3]", bandwidth = "50 GB/s", both = true},
      {from = "device3", to = "device0", bandwidth = "50 GB/s", both = true},
    ]
    <BLANKLINE>
    """
    lines = ["version = 1", f"name = {_quote(topology.name)}"]
    if topology.notes:
        lines += ["source = [", *(f"  {_quote(note)}," for note in topology.notes), "]"]
    lines += ["node = [", *_node_lines(topology.nodes), "]"]
    if topology.links:
        lines += ["link = [", *_link_lines(topology), "]"]
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _inline(values: Mapping[str, str | bool | int]) -> str:
    def written(value: str | bool | int) -> str:
        return _quote(value) if isinstance(value, str) else str(value).lower()

    return "  {" + ", ".join(f"{key} = {written(value)}" for key, value in values.items()) + "},"


def _node_lines(nodes: Iterable[Node]) -> Iterator[str]:
    run: list[str] = []
    common: tuple[Any, ...] = ()
    for node in nodes:
        host = None if node.host == node.name.rpartition("/")[0] else node.host
        if run and common != (host, *node[1:2], *node[3:]):
            yield _node_line(run, common)
            run = []
        common = (host, *node[1:2], *node[3:])
        run.append(node.name)
    if run:
        yield _node_line(run, common)


def _node_line(names: list[str], common: tuple[Any, ...]) -> str:
    host, kind, vendor, model, multicast, reduction = common
    values: dict[str, str | bool | int] = {"name": " ".join(fold(names)), "kind": str(kind)}
    if host is not None:
        values["host"] = host
    rest = {"vendor": vendor, "model": model, "multicast": multicast, "reduction": reduction}
    values.update({key: value for key, value in rest.items() if value})
    return _inline(values)


def _entries(links: tuple[Link, ...]) -> Iterator[_Entry]:
    """Join neighbouring links that are the two ways of a cable, and neighbouring cables of a pair."""
    held: _Entry | None = None
    at = 0
    while at < len(links):
        link = links[at]
        back = 0
        if at + 1 < len(links):
            other = links[at + 1]
            if (other.src, other.dst, *other[3:]) == (link.dst, link.src, *link[3:]):
                back = other.bytes_per_s
        entry = _Entry(link.src, link.dst, link.bytes_per_s, back, link.latency_s, link.kind, 1)
        if held is not None and held[:6] == entry[:6]:
            held = held._replace(cables=held.cables + 1)
        else:
            if held is not None:
                yield held
            held = entry
        at += 2 if back else 1
    if held is not None:
        yield held


def _link_lines(topology: Topology) -> Iterator[str]:
    """Cut the entries into runs that one line can say: on each side one name, or names that count up."""
    parts = [numbered(node.name) for node in topology.nodes]

    def step(a: int, b: int) -> int | None:
        """0 for the same vertex, the part of the name that counts up, ``None`` for neither."""
        return 0 if a == b else counted_up(parts[a], parts[b])

    run: list[_Entry] = []
    steps: tuple[int | None, int | None] | None = None
    for entry in _entries(topology.links):
        if run:
            last = run[-1]
            now = step(last.src, entry.src), step(last.dst, entry.dst)
            if last[2:] == entry[2:] and None not in now and now != (0, 0) and steps in (None, now):
                steps = now
                run.append(entry)
                continue
            yield _link_line(topology, run)
        run, steps = [entry], None
    if run:
        yield _link_line(topology, run)


def _link_line(topology: Topology, run: list[_Entry]) -> str:
    first = run[0]

    def side(vertices: list[int]) -> str:
        names = [topology.nodes[v].name for v in vertices]
        return " ".join(fold(names[:1] if len(set(vertices)) == 1 else names))

    values: dict[str, str | bool | int] = {
        "from": side([entry.src for entry in run]),
        "to": side([entry.dst for entry in run]),
        "bandwidth": format_exact_rate(first.rate),
    }
    if first.back:
        values["both" if first.back == first.rate else "back"] = (
            True if first.back == first.rate else format_exact_rate(first.back)
        )
    if first.latency_s:
        values["latency"] = format_exact_time(first.latency_s)
    if first.kind:
        values["kind"] = first.kind
    if first.cables > 1:
        values["cables"] = first.cables
    return _inline(values)
