"""A picture of a topology: switches above, hosts as boxes below, links coloured by their rate.

Networks of more vertices than fit are shown folded: a host becomes one box, and vertices that have the same
neighbours become one, marked with how many they are. A cut (see :mod:`pycomm.planner.graph.bounds`) can be
shown: its inside shaded, the links that leave it thick and red.

Drawn by matplotlib, which is imported only when a picture is asked for; the file's suffix chooses the format.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from pycomm.errors import BackendUnavailable
from pycomm.topology.model import NodeKind, Topology
from pycomm.units import format_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["network_picture"]

_MAX_VERTICES: Final = 120
_MAX_NAMES: Final = 80
_MAX_LEVEL_NAMES: Final = 12
_COLOURS: Final = {
    NodeKind.DEVICE: "#4c9f70",
    NodeKind.NIC: "#e0a030",
    NodeKind.HOST: "#9a9a9a",
    NodeKind.SWITCH: "#4a7fb5",
}


@dataclass
class _Vertex:
    """A vertex of the picture: one or several of the topology."""

    label: str
    kind: NodeKind
    host: str
    members: int = 1
    in_cut: bool = False


@dataclass
class _Picture:
    vertices: list[_Vertex]
    # Rate of each pair of vertices of the picture, and whether its links leave the cut.
    rates: dict[tuple[int, int], int] = field(default_factory=dict)
    leaving: set[tuple[int, int]] = field(default_factory=set)


def network_picture(topology: Topology, suffix: str, cut: Collection[str] = ()) -> bytes:
    """Draw a topology.

    Parameters
    ----------
    topology
        What to draw.
    suffix
        File format: ``".svg"``, ``".png"`` or ``".pdf"``.
    cut
        Names of the vertices inside a cut that is to be shown.

    Returns
    -------
    bytes
        The file. Equal topologies give equal files.

    Raises
    ------
    BackendUnavailable
        If matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendUnavailable(f"pictures need matplotlib ({error}); pip install matplotlib") from error
    shown = _unfolded(topology, frozenset(cut))
    if len(shown.vertices) > _MAX_VERTICES:
        shown = _alike_merged(_hosts_folded(shown))
    places = _places(shown)
    with mpl.rc_context({"svg.hashsalt": "pycomm", "svg.fonttype": "none", "font.size": 8}):
        xs, ys = zip(*places, strict=True) if places else ((0.0,), (0.0,))
        width = min(max(4.0, 0.62 * (max(xs) - min(xs)) + 2.5), 30.0)
        height = min(max(2.5, 1.15 * (max(ys) - min(ys)) + 1.8), 30.0)
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        _draw(axes, shown, places)
        axes.set_title(f"{topology.name}\n{_counts(topology)}", fontsize=9)
        file = io.BytesIO()
        metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix, {})
        figure.savefig(file, format=suffix.removeprefix("."), dpi=150, metadata=metadata)
    return file.getvalue()


def _counts(topology: Topology) -> str:
    return ", ".join(line for line in topology.describe() if " links " not in line)


def _unfolded(topology: Topology, cut: frozenset[str]) -> _Picture:
    vertices = [_Vertex(node.name, node.kind, node.host, 1, node.name in cut) for node in topology.nodes]
    picture = _Picture(vertices)
    for link in topology.links:
        pair = link.src, link.dst
        picture.rates[pair] = picture.rates.get(pair, 0) + link.bytes_per_s
        if vertices[link.src].in_cut and not vertices[link.dst].in_cut:
            picture.leaving.add(pair)
    return picture


def _merged(picture: _Picture, groups: Iterable[tuple[_Vertex, list[int]]]) -> _Picture:
    """Merge groups of vertices; links inside a group vanish, of the others the fastest of each pair stays."""
    merged = _Picture([])
    number: dict[int, int] = {}
    for vertex, members in groups:
        number.update(dict.fromkeys(members, len(merged.vertices)))
        merged.vertices.append(vertex)
    for (src, dst), rate in picture.rates.items():
        pair = number[src], number[dst]
        if pair[0] != pair[1]:
            merged.rates[pair] = max(merged.rates.get(pair, 0), rate)
            if (src, dst) in picture.leaving:
                merged.leaving.add(pair)
    return merged


def _hosts_folded(picture: _Picture) -> _Picture:
    groups: dict[str, list[int]] = {}
    for i, vertex in enumerate(picture.vertices):
        groups.setdefault(f"host {vertex.host}" if vertex.host else f"vertex {i}", []).append(i)
    folded = []
    for members in groups.values():
        first = picture.vertices[members[0]]
        if not first.host:
            folded.append((first, members))
            continue
        devices = sum(picture.vertices[i].kind is NodeKind.DEVICE for i in members)
        in_cut = any(picture.vertices[i].in_cut for i in members)
        label = f"{first.host}\n{devices} device{'s' * (devices != 1)}"
        folded.append((_Vertex(label, NodeKind.HOST, "", 1, in_cut), members))
    return _merged(picture, folded)


def _alike_merged(picture: _Picture) -> _Picture:
    """Merge vertices of one kind that have the same neighbours at the same rates, until none are left."""
    while True:
        around: defaultdict[int, list[tuple[int, int, int]]] = defaultdict(list)
        for (src, dst), rate in picture.rates.items():
            around[src].append((0, dst, rate))
            around[dst].append((1, src, rate))
        groups: dict[object, list[int]] = {}
        for i, vertex in enumerate(picture.vertices):
            key = vertex.kind, vertex.in_cut, vertex.label.partition("\n")[2], tuple(sorted(around[i]))
            groups.setdefault(key, []).append(i)
        if len(groups) == len(picture.vertices):
            return picture
        merged = []
        for members in groups.values():
            vertices = [picture.vertices[i] for i in members]
            first, last = vertices[0], vertices[-1]
            label = first.label
            if len(members) > 1:
                name, _, rest = first.label.partition("\n")
                end = last.label.partition("\n")[0].rpartition(" .. ")[2]
                label = f"{name} .. {end}" + (f"\n{rest}" if rest else "")
            merged.append(
                (_Vertex(label, first.kind, "", sum(v.members for v in vertices), first.in_cut), members)
            )
        picture = _merged(picture, merged)


def _places(picture: _Picture) -> list[tuple[float, float]]:
    """Put what has switches in tiers, by distance from the devices; other graphs on a circle."""
    tiers = _tiers(picture)
    if max(tiers, default=0) == 0:
        from math import cos, pi, sin

        n = max(1, len(tiers))
        radius = max(1.5, 0.28 * n)
        return [(radius * sin(2 * pi * i / n), radius * 0.8 * cos(2 * pi * i / n)) for i in range(len(tiers))]
    rows: defaultdict[int, list[int]] = defaultdict(list)
    for i, tier in enumerate(tiers):
        rows[tier].append(i)
    neighbours: defaultdict[int, set[int]] = defaultdict(set)
    for src, dst in picture.rates:
        neighbours[src].add(dst)
        neighbours[dst].add(src)
    widest = max(map(len, rows.values()))
    x: dict[int, float] = {}
    for tier in sorted(rows):
        row = rows[tier]
        if tier:
            mean = {
                i: sum(x[j] for j in neighbours[i] if j in x) / max(1, sum(j in x for j in neighbours[i]))
                for i in row
            }
            row.sort(key=lambda i: mean[i])
        gap = max(1.0, (widest - 1) / max(1, len(row) - 1) if len(row) > 1 else 1.0)
        for position, i in enumerate(row):
            x[i] = (position - (len(row) - 1) / 2) * gap
    return [(x[i], 1.4 * tier) for i, tier in enumerate(tiers)]


def _tiers(picture: _Picture) -> list[int]:
    """Hops from the nearest device (or folded host)."""
    ends = [i for i, v in enumerate(picture.vertices) if v.kind is NodeKind.DEVICE]
    ends = ends or [i for i, v in enumerate(picture.vertices) if v.kind is NodeKind.HOST]
    neighbours: defaultdict[int, set[int]] = defaultdict(set)
    for src, dst in picture.rates:
        neighbours[src].add(dst)
        neighbours[dst].add(src)
    tier = dict.fromkeys(ends, 0)
    front = ends
    while front:
        reached = sorted({j for i in front for j in neighbours[i] if j not in tier})
        for j in reached:
            tier[j] = tier[front[0]] + 1
        front = reached
    return [tier.get(i, 0) for i in range(len(picture.vertices))]


def _draw(axes: Axes, picture: _Picture, places: list[tuple[float, float]]) -> None:
    from matplotlib import colormaps

    rates = sorted(set(picture.rates.values()))
    palette = colormaps["viridis"]
    colour = {rate: palette(0.15 + 0.7 * i / max(1, len(rates) - 1)) for i, rate in enumerate(rates)}
    both = {frozenset(pair) for pair in picture.rates}
    for ends in sorted(map(sorted, both)):
        a, b = ends
        rate = max(picture.rates.get((a, b), 0), picture.rates.get((b, a), 0))
        is_cut = (a, b) in picture.leaving or (b, a) in picture.leaving
        axes.plot(
            *zip(places[a], places[b], strict=True),
            color="#c03028" if is_cut else colour[rate],
            linewidth=2.4 if is_cut else 0.9,
            zorder=1,
        )
    with_names = len(picture.vertices) <= _MAX_NAMES
    in_row = Counter(y for _, y in places)
    lowest = min(in_row, default=0.0)
    for vertex, (x, y) in zip(picture.vertices, places, strict=True):
        edge = "#c03028" if vertex.in_cut else "white"
        axes.scatter([x], [y], s=150, color=_COLOURS[vertex.kind], edgecolors=edge, linewidths=1.6, zorder=2)
        text = vertex.label + (f"\n{vertex.members} alike" if vertex.members > 1 else "")
        if with_names:
            below, crowded = y == lowest, in_row[y] > _MAX_LEVEL_NAMES
            axes.annotate(
                text,
                (x, y),
                xytext=(0, -9 if below else 9),
                textcoords="offset points",
                ha="center" if below or not crowded else "left",
                va="top" if below else "bottom",
                fontsize=6.5,
                rotation=0 if not crowded else 90 if below else 55,
                rotation_mode="default" if below else "anchor",
            )
    _legend(axes, picture, colour)
    axes.margins(0.06, 0.14)
    axes.set_axis_off()


def _legend(axes: Axes, picture: _Picture, colour: dict[int, tuple[float, float, float, float]]) -> None:
    from matplotlib.lines import Line2D

    rates = sorted(colour, reverse=True)
    if len(rates) > 8:  # first and last say the range
        rates = [*[rates[0], *(b for a, b in pairwise(rates[1:-1]) if a // b > 1)][:7], rates[-1]]
    handles = [
        Line2D([], [], marker="o", linestyle="", color=_COLOURS[kind], label=kind.value)
        for kind in NodeKind
        if any(vertex.kind is kind for vertex in picture.vertices)
    ]
    handles += [Line2D([], [], color=colour[rate], label=format_rate(rate)) for rate in rates]
    if picture.leaving:
        handles.append(Line2D([], [], color="#c03028", linewidth=2.4, label="the cut that limits"))
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, frameon=False)
