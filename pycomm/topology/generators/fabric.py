"""The folded Clos network of all fabrics: what it can be told, how ports are divided, how it is joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypedDict

from pycomm.errors import TopologyError
from pycomm.topology.draft import Draft, Latency, Rate, latency_of, rate_of
from pycomm.topology.generators.ends import positive
from pycomm.topology.model import Node, NodeKind

__all__ = ["Fabric", "FabricOptions", "add_fabric", "fabric_of", "full_ends", "ports_down"]

Oversubscription = int | float | str | Fraction
"""Bandwidth below a switch over bandwidth above it: 1, 2.5 or ``"3:1"``."""


class FabricOptions(TypedDict, total=False):
    """What all fabrics of leaves, spines and cores can be told, by keyword.

    Parameters
    ----------
    radix
        Ports of each switch, 64 when not given.
    levels
        Of switches, 1 to 3; as few as do when not given.
    oversubscription, core_oversubscription
        Bandwidth below over bandwidth above, of leaves and of the spines of pods; 1 when not given.
    ends_per_leaf
        Ends below each leaf, where fewer than would fit are wanted.
    spine_rate, core_rate
        Of the cables between leaves and spines, and between spines and cores; as below them when not given.
    latency, link_kind
        Of all cables.
    ports
        Names of the vertices of a host template that go to the network; its NICs, or else its devices, when
        not given.
    multicast, reduction
        What the switches can do.
    """

    radix: int
    levels: int
    oversubscription: Oversubscription
    core_oversubscription: Oversubscription
    ends_per_leaf: int
    spine_rate: Rate
    core_rate: Rate
    latency: Latency
    link_kind: str
    ports: str
    multicast: bool
    reduction: bool


@dataclass(frozen=True)
class Fabric:
    """The options, checked, with their defaults; rates in bytes per second."""

    radix: int
    levels: int | None
    rate: int
    spine_rate: int
    core_rate: int
    oversubscription: Fraction
    core_oversubscription: Fraction
    ends_per_leaf: int | None
    latency_s: float
    link_kind: str
    ports: str
    multicast: bool
    reduction: bool

    def switch(self, draft: Draft, name: str) -> int:
        """Add a switch."""
        return draft.add(Node(name, NodeKind.SWITCH, multicast=self.multicast, reduction=self.reduction))

    def cable(self, draft: Draft, a: int, b: int, rate: int, copies: int = 1) -> None:
        """Add cables between two vertices."""
        draft.cable(a, b, rate, self.latency_s, self.link_kind, copies)


def _ratio(value: Oversubscription, what: str) -> Fraction:
    try:
        if isinstance(value, str):
            below, colon, above = value.partition(":")
            ratio = Fraction(below) / Fraction(above if colon else "1")
        else:
            ratio = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        ratio = Fraction(0)
    if ratio <= 0 or isinstance(value, bool):
        raise TopologyError(f"{what} = {value!r}: write it as 1, 2.5 or '3:1'")
    return ratio


def fabric_of(rate: Rate, options: FabricOptions) -> Fabric:
    """Check the options and fill in the defaults; ``rate`` is that of the cables between ends and leaves."""
    unknown = sorted(set(options) - set(FabricOptions.__annotations__))
    if unknown:
        raise TypeError(f"a fabric has no option {unknown[0]!r}")
    levels, below = options.get("levels"), rate_of(rate)
    if levels is not None and (isinstance(levels, bool) or levels not in (1, 2, 3)):
        raise TopologyError(f"levels = {levels!r}: a fabric has 1, 2 or 3 levels of switches")
    spine = rate_of(options.get("spine_rate", below))
    return Fabric(
        positive(options.get("radix", 64), "radix", 2),
        levels,
        below,
        spine,
        rate_of(options.get("core_rate", spine)),
        _ratio(options.get("oversubscription", 1), "oversubscription"),
        _ratio(options.get("core_oversubscription", 1), "core_oversubscription"),
        positive(options["ends_per_leaf"], "ends_per_leaf") if "ends_per_leaf" in options else None,
        latency_of(options.get("latency", 0.0)),
        options.get("link_kind", ""),
        options.get("ports", ""),
        options.get("multicast", False),
        options.get("reduction", False),
    )


def _split(
    radix: int, below: int, above: int, ratio: Fraction, down: int | None, what: str
) -> tuple[int, int]:
    """Ports of a switch that go down and up: as many down as leave enough to go up."""

    def uplinks(ports: int) -> int:
        return -(-ports * below // (ratio * above))

    if down is None:
        down = max((ports for ports in range(1, radix) if ports + uplinks(ports) <= radix), default=0)
    if not down or down + uplinks(down) > radix:
        raise TopologyError(
            f"a {what} of {radix} ports cannot have {down or 'any'} ports down and bandwidth for "
            f"oversubscription {ratio} up; use a larger radix, fewer ends_per_leaf or more oversubscription"
        )
    return down, uplinks(down)


def _upper(below: int, uplinks: int, radix: int) -> int:
    """Least number of upper switches with as many cables from each of ``below`` switches; 0 if too many."""
    return next((s for s in range(1, uplinks + 1) if uplinks % s == 0 and below * (uplinks // s) <= radix), 0)


def _layer(
    draft: Draft, fabric: Fabric, lower: Sequence[int], uplinks: int, names: str, rate: int
) -> list[int]:
    """Add the switches above a row of switches, and the cables."""
    count = _upper(len(lower), uplinks, fabric.radix)
    upper = [fabric.switch(draft, f"{names}{i}") for i in range(count)]
    for switch in lower:
        for above in upper:
            fabric.cable(draft, switch, above, rate, uplinks // count)
    return upper


def _leaf(fabric: Fabric) -> tuple[int, int]:
    """Ports of a leaf that go down and up."""
    return _split(
        fabric.radix, fabric.rate, fabric.spine_rate, fabric.oversubscription, fabric.ends_per_leaf, "leaf"
    )


def _spine(fabric: Fabric) -> tuple[int, int]:
    """Ports of a spine below cores that go down and up."""
    return _split(
        fabric.radix, fabric.spine_rate, fabric.core_rate, fabric.core_oversubscription, None, "spine"
    )


def ports_down(fabric: Fabric, ends: int | None = None) -> int:
    """Ports for ends of a leaf; all of them, where one switch is the whole fabric of so many ends."""
    fits = ends is not None and ends <= fabric.radix and fabric.levels is None
    if fabric.ends_per_leaf is None and (fits or fabric.levels == 1):
        return fabric.radix
    return fabric.ends_per_leaf if fabric.ends_per_leaf and fabric.levels == 1 else _leaf(fabric)[0]


def add_fabric(
    draft: Draft,
    fabric: Fabric,
    leaves: Sequence[tuple[str, Sequence[int]]],
    prefix: str = "",
    together: int = 1,
) -> None:
    """Add leaves, given by name and ends, and all above them; ``together`` leaves stay in one pod."""
    rows = [fabric.switch(draft, name) for name, _ in leaves]
    for leaf, (_, ends) in zip(rows, leaves, strict=True):
        for end in ends:
            fabric.cable(draft, end, leaf, fabric.rate)
    levels = fabric.levels or (1 if len(rows) == 1 else 2 if len(rows) <= fabric.radix else 3)
    if levels == 1:
        if len(rows) > 1:
            raise TopologyError(f"one level is one switch, but {len(rows)} are needed; use levels = 2")
        return
    up = _leaf(fabric)[1]
    if levels == 3:
        _pods(draft, fabric, rows, up, prefix, together)
        return
    if not _upper(len(rows), up, fabric.radix):
        raise TopologyError(
            f"two levels of {fabric.radix}-port switches hold {fabric.radix} leaves, "
            f"but {len(rows)} are needed; use levels = 3 or a larger radix"
        )
    _layer(draft, fabric, rows, up, f"{prefix}spine", fabric.spine_rate)


def _pods(draft: Draft, fabric: Fabric, rows: Sequence[int], up: int, prefix: str, together: int) -> None:
    """Group leaves in pods with spines of their own, and join the pods by cores, a plane for each spine."""
    below, above = _spine(fabric)
    size = below // together * together or below
    pods = [rows[i : i + size] for i in range(0, len(rows), size)]
    if not _upper(len(pods), above, fabric.radix):
        raise TopologyError(
            f"three levels of {fabric.radix}-port switches hold {fabric.radix} pods of {size} leaves, "
            f"but {len(rows)} leaves are needed; use a larger radix or more oversubscription"
        )
    planes: list[list[int]] = [[] for _ in range(up)]
    for number, pod in enumerate(pods):
        spines = [fabric.switch(draft, f"{prefix}pod{number}-spine{i}") for i in range(up)]
        for leaf in pod:
            for spine in spines:
                fabric.cable(draft, leaf, spine, fabric.spine_rate)
        for plane, spine in zip(planes, spines, strict=True):
            plane.append(spine)
    for number, plane in enumerate(planes):
        _layer(draft, fabric, plane, above, f"{prefix}core{number}-", fabric.core_rate)


def full_ends(fabric: Fabric) -> int:
    """Count the ends of a fabric in which every port is used."""
    if fabric.levels is None:
        raise TopologyError("say how many hosts there are, or how many levels of switches to fill")
    if fabric.levels < 3:
        return ports_down(fabric) * int(fabric.radix ** (fabric.levels - 1))
    return _leaf(fabric)[0] * _spine(fabric)[0] * fabric.radix
