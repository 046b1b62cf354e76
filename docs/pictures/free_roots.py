"""Draw the pictures of docs/free-root-allreduce.md, with figures from the planner.

From the root of the repository: ``python docs/pictures/free_roots.py``
"""

from __future__ import annotations

from pathlib import Path

from pycomm.planner.graph.free_roots import FreeRootBound, allreduce_bound
from pycomm.planner.graph.network import Network, network_of
from pycomm.topology.model import Link, Node, NodeKind, Topology

HERE = Path(__file__).parent
GB = 10**9
UP, DOWN, EQUAL, FREE, INK = "#4477aa", "#ee8866", "#bbbbbb", "#228833", "#222222"


def cables(kinds: dict[str, NodeKind], ends: list[tuple[str, str, int]]) -> Network:
    """Build a network of cables, each of two links."""
    index = {name: i for i, name in enumerate(kinds)}
    links = [Link(index[a], index[b], rate * GB) for a, b, rate in ends]
    links += [link._replace(src=link.dst, dst=link.src) for link in links]
    return network_of(
        Topology("picture", tuple(Node(name, kind) for name, kind in kinds.items()), tuple(links))
    )


def star() -> Network:
    """Join eight ranks to a switch by 100 GB/s, one of them by 50."""
    kinds = {f"rank{i}": NodeKind.DEVICE for i in range(8)} | {"switch": NodeKind.SWITCH}
    return cables(kinds, [(f"rank{i}", "switch", 100 if i else 50) for i in range(8)])


def boxes(dead: int) -> Network:
    """Join eight boxes of eight by NICs of 50 GB/s, some of them dead in the first box."""
    kinds, ends = {"spine": NodeKind.SWITCH}, []
    for box in range(8):
        kinds[f"box{box}"] = NodeKind.SWITCH
        for i in range(8):
            kinds[f"gpu{box}.{i}"] = NodeKind.DEVICE
            ends.append((f"gpu{box}.{i}", f"box{box}", 1000))
            if box or i >= dead:
                kinds[f"nic{box}.{i}"] = NodeKind.NIC
                ends += [(f"gpu{box}.{i}", f"nic{box}.{i}", 50), (f"nic{box}.{i}", "spine", 50)]
    return cables(kinds, ends)


def rates(found: FreeRootBound) -> tuple[float, float]:
    """Give what equal shares and free roots attain, in GB/s."""
    return float(found.equal_shares_algbw / GB), float(found.attained / GB)


def box(x: float, y: float, width: float, height: float, fill: str) -> str:
    """Draw a rectangle."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"/>'


def text(x: float, y: float, words: str, anchor: str = "start") -> str:
    """Write some words."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}">{words}</text>'


def picture(name: str, width: int, height: int, parts: list[str]) -> None:
    """Write a picture."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">'
    )
    lines = [head, box(0, 0, width, height, "#ffffff"), *parts, "</svg>", ""]
    (HERE / name).write_text("\n".join(lines))


def slow_link() -> None:
    """Show what the slow rank's link carries while time goes by, for one gigabyte."""
    found = allreduce_bound(star())
    equal, free = (1000 / rate for rate in rates(found))  # milliseconds
    if found.roots != (found.roots[0],) * 8:
        raise SystemExit("the roots are not equal: the picture would be wrong")
    per_ms, left, half = 14.0, 60.0, equal / 2
    parts = [
        box(left, 8, 12, 12, UP),
        text(left + 18, 19, "reducing"),
        box(left + 110, 8, 12, 12, DOWN),
        text(left + 128, 19, "broadcasting"),
        text(left, 50, f"one after the other, {equal:.0f} ms"),
        text(left - 8, 74, "out", "end"),
        box(left, 60, half * per_ms, 20, UP),
        box(left + half * per_ms, 60, half / 7 * per_ms, 20, DOWN),
        text(left - 8, 98, "in", "end"),
        box(left, 84, half / 7 * per_ms, 20, UP),
        box(left + half * per_ms, 84, half * per_ms, 20, DOWN),
        text(left, 138, f"at once, {free:.0f} ms"),
        text(left - 8, 162, "out", "end"),
        box(left, 148, free * per_ms, 20 * 7 / 8, UP),
        box(left, 148 + 20 * 7 / 8, free * per_ms, 20 / 8, DOWN),
        text(left - 8, 186, "in", "end"),
        box(left, 172, free * per_ms, 20 / 8, UP),
        box(left, 172 + 20 / 8, free * per_ms, 20 * 7 / 8, DOWN),
    ]
    picture("free-roots-slow-link.svg", 580, 204, parts)


def dead_nics() -> None:
    """Show rates of eight boxes by how many NICs of one are dead."""
    parts = [
        box(130, 8, 12, 12, EQUAL),
        text(148, 19, "equal shares, one half after the other"),
        box(400, 8, 12, 12, FREE),
        text(418, 19, "free roots, shared links"),
    ]
    for row, dead in enumerate((0, 1, 2, 3, 4)):
        y = 36 + 50 * row
        parts.append(text(120, y + 24, f"{dead} of 8 NICs dead", "end"))
        for i, (rate, colour) in enumerate(
            zip(rates(allreduce_bound(boxes(dead))), (EQUAL, FREE), strict=True)
        ):
            parts.append(box(130, y + 18 * i, rate * 1.7, 16, colour))
            parts.append(text(136 + rate * 1.7, y + 13 + 18 * i, f"{rate:.1f} GB/s"))
    picture("free-roots-dead-nics.svg", 600, 290, parts)


if __name__ == "__main__":
    slow_link()
    dead_nics()
