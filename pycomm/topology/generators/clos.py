r"""Fabrics of leaves, spines and cores: fat trees, rails and planes.

All of them are the same folded Clos network; they differ in which port of which host goes to which leaf, and
in how many such networks there are::

    fat_tree        rail_optimized            rail_only / dual_plane

     s   s           s   s   s                s s     s s     a spine layer for each rail,
     |\ /|           |\ /|\ /|                  |x|     |x|     none where one switch holds a rail
     l   l           l0  l1  l0               l l     l l
    hhhh hhhh        port 0, port 1, ...      port 0  port 1

Leaves divide their ports by the oversubscription that is asked for. There are as few spines as hold all
uplinks when each leaf has the same number of cables to each spine, so every plan is regular.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypedDict, Unpack

from pycomm.errors import TopologyError
from pycomm.topology.draft import Draft, Latency, Rate, latency_of, rate_of
from pycomm.topology.generators.ends import Hosts, attach, counted, positive
from pycomm.topology.model import Node, NodeKind, Topology

__all__ = ["FabricOptions", "dual_plane", "fat_tree", "leaf_spine", "rail_only", "rail_optimized"]

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
class _Fabric:
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
        return draft.add(Node(name, NodeKind.SWITCH, multicast=self.multicast, reduction=self.reduction))

    def cable(self, draft: Draft, a: int, b: int, rate: int, copies: int = 1) -> None:
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


def _fabric(rate: Rate, options: FabricOptions) -> _Fabric:
    unknown = sorted(set(options) - set(FabricOptions.__annotations__))
    if unknown:
        raise TypeError(f"a fabric has no option {unknown[0]!r}")
    levels, below = options.get("levels"), rate_of(rate)
    if levels is not None and (isinstance(levels, bool) or levels not in (1, 2, 3)):
        raise TopologyError(f"levels = {levels!r}: a fabric has 1, 2 or 3 levels of switches")
    spine = rate_of(options.get("spine_rate", below))
    return _Fabric(
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
    draft: Draft, fabric: _Fabric, lower: Sequence[int], uplinks: int, names: str, rate: int
) -> list[int]:
    """Add the switches above a row of switches, and the cables."""
    count = _upper(len(lower), uplinks, fabric.radix)
    upper = [fabric.switch(draft, f"{names}{i}") for i in range(count)]
    for switch in lower:
        for above in upper:
            fabric.cable(draft, switch, above, rate, uplinks // count)
    return upper


def _leaf(fabric: _Fabric) -> tuple[int, int]:
    """Ports of a leaf that go down and up."""
    return _split(
        fabric.radix, fabric.rate, fabric.spine_rate, fabric.oversubscription, fabric.ends_per_leaf, "leaf"
    )


def _spine(fabric: _Fabric) -> tuple[int, int]:
    """Ports of a spine below cores that go down and up."""
    return _split(
        fabric.radix, fabric.spine_rate, fabric.core_rate, fabric.core_oversubscription, None, "spine"
    )


def _down(fabric: _Fabric, ends: int | None = None) -> int:
    """Ports for ends of a leaf; all of them, where one switch is the whole fabric of so many ends."""
    fits = ends is not None and ends <= fabric.radix and fabric.levels is None
    if fabric.ends_per_leaf is None and (fits or fabric.levels == 1):
        return fabric.radix
    return fabric.ends_per_leaf if fabric.ends_per_leaf and fabric.levels == 1 else _leaf(fabric)[0]


def _clos(
    draft: Draft,
    fabric: _Fabric,
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


def _pods(draft: Draft, fabric: _Fabric, rows: Sequence[int], up: int, prefix: str, together: int) -> None:
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


def _full(fabric: _Fabric) -> int:
    """Count the ends of a fabric in which every port is used."""
    if fabric.levels is None:
        raise TopologyError("say how many hosts there are, or how many levels of switches to fill")
    if fabric.levels < 3:
        return _down(fabric) * int(fabric.radix ** (fabric.levels - 1))
    return _leaf(fabric)[0] * _spine(fabric)[0] * fabric.radix


def fat_tree(
    hosts: int | Sequence[int] | None = None,
    host: Hosts | None = None,
    *,
    rate: Rate,
    name: str = "fat_tree",
    **options: Unpack[FabricOptions],
) -> Topology:
    """Make a folded Clos network; the ports of a host go to leaves one after the other.

    Parameters
    ----------
    hosts
        How many; all that fit into ``levels`` of switches when not given. A list when ``host`` is one.
    host
        Template of the hosts, or its name in the catalogue; a list for a mix. Bare devices when not given.
    rate
        Of the cables between ends and leaves.
    name
        Of the topology.
    options
        See :class:`FabricOptions`.

    Returns
    -------
    Topology
        Hosts first. Switches are called ``leaf0``, ``spine0``, or, in three levels, ``pod0-spine0`` and
        ``core0-0`` for the core 0 of those that join the spines 0.

    Raises
    ------
    TopologyError
        The parameters contradict each other, or there are more ends than ports.

    Notes
    -----
    Full fabrics of radix r without oversubscription: two levels have r^2/2 ends on 3r/2 switches, three r^3/4
    ends on 5r^2/4 switches.

    References
    ----------
    C. E. Leiserson, "Fat-trees: universal networks for hardware-efficient supercomputing", IEEE Transactions
    on Computers, 1985. M. Al-Fares, A. Loukissas, A. Vahdat, "A scalable, commodity data center network
    architecture", SIGCOMM 2008, for the counts of three levels.

    Examples
    --------
    >>> t = fat_tree(radix=4, levels=3, rate="400 Gbit/s")
    >>> list(t.describe())
    ['16 devices', '20 switches', '96 links of 50 GB/s']
    """
    fabric = _fabric(rate, options)
    draft = Draft()
    if hosts is None:
        one = counted(host, 1)
        if len(one) > 1:
            raise TopologyError("say how many hosts there are of each template")
        hosts = max(_full(fabric) // len(attach(Draft(), one, fabric.ports)[0]), 1)
    ends = [port for made in attach(draft, counted(host, hosts), fabric.ports) for port in made]
    down = _down(fabric, len(ends))
    rows = [ends[i : i + down] for i in range(0, len(ends), down)]
    _clos(draft, fabric, [(f"leaf{i}", row) for i, row in enumerate(rows)])
    return draft.topology(name)


def leaf_spine(
    leaves: int,
    spines: int,
    *,
    hosts_per_leaf: int,
    rate: Rate,
    spine_rate: Rate | None = None,
    cables: int = 1,
    host: Topology | str | None = None,
    latency: Latency = 0.0,
    link_kind: str = "",
    ports: str = "",
    multicast: bool = False,
    reduction: bool = False,
    name: str = "leaf_spine",
) -> Topology:
    """Make two levels of switches by their numbers, whatever their ports.

    Parameters
    ----------
    leaves, spines
        How many switches.
    hosts_per_leaf
        All ports of a host go to its leaf.
    rate, spine_rate
        Of the cables below the leaves and above them; the same when the latter is not given.
    cables
        Between each leaf and each spine.
    host, name
        As for :func:`fat_tree`.
    latency, link_kind, ports, multicast, reduction
        See :class:`FabricOptions`.

    Returns
    -------
    Topology
        Hosts first, then ``leaf0``, ... and ``spine0``, ...

    Raises
    ------
    TopologyError
        A count is less than 1.

    References
    ----------
    C. Clos, "A study of non-blocking switching networks", Bell System Technical Journal, 1953; folded.

    Examples
    --------
    >>> list(leaf_spine(2, 1, hosts_per_leaf=4, rate="50 GB/s", spine_rate="100 GB/s").describe())
    ['8 devices', '3 switches', '16 links of 50 GB/s', '4 links of 100 GB/s']
    """
    positive(leaves, "leaves")
    positive(spines, "spines")
    positive(cables, "cables")
    below = rate_of(rate)
    above = below if spine_rate is None else rate_of(spine_rate)
    seconds = latency_of(latency)
    draft = Draft()
    draft.expect(links=leaves * spines * cables)
    ends = attach(draft, counted(host, leaves * positive(hosts_per_leaf, "hosts_per_leaf")), ports)

    def switch(what: str) -> int:
        return draft.add(Node(what, NodeKind.SWITCH, multicast=multicast, reduction=reduction))

    row = [switch(f"leaf{i}") for i in range(leaves)]
    top = [switch(f"spine{i}") for i in range(spines)]
    for number, made in enumerate(ends):
        for port in made:
            draft.cable(port, row[number // hosts_per_leaf], below, seconds, link_kind)
    for leaf in row:
        for spine in top:
            draft.cable(leaf, spine, above, seconds, link_kind, cables)
    return draft.topology(name)


def _by_rail(ends: Sequence[Sequence[int]], rails: int | None) -> list[list[int]]:
    """Ports of each rail; port i of a host belongs to rail i modulo the number of rails."""
    most = max(len(ports) for ports in ends)
    if rails is not None and positive(rails, "rails") > most:
        raise TopologyError(f"rails = {rails}, but no host has more than {most} ports; use {most} or fewer")
    count = rails or most
    return [[port for ports in ends for port in ports[rail::count]] for rail in range(count)]


def _units(
    fabric: _Fabric, rails: Sequence[Sequence[int]], prefix: str = ""
) -> list[tuple[str, Sequence[int]]]:
    """Leaves of all rails, unit by unit: one leaf for each rail in each unit of neighbouring hosts."""
    down = _down(fabric, len(rails[0]) if len(rails) == 1 else None)
    return [
        (f"{prefix}rail{rail}-leaf{unit}", row)
        for unit, first in enumerate(range(0, max(map(len, rails)), down))
        for rail, ends in enumerate(rails)
        if (row := ends[first : first + down])
    ]


def rail_optimized(
    hosts: int | Sequence[int],
    host: Hosts,
    *,
    rate: Rate,
    rails: int | None = None,
    name: str = "rail_optimized",
    **options: Unpack[FabricOptions],
) -> Topology:
    """Make a folded Clos network in which the same port of neighbouring hosts goes to the same leaf.

    Parameters
    ----------
    hosts, host
        How many, and their template or its name in the catalogue; lists for a mix.
    rate
        Of the cables between hosts and leaves.
    rails
        How many; as many as a host has ports when not given. With fewer, port i goes to rail i modulo rails.
    name
        Of the topology.
    options
        See :class:`FabricOptions`.

    Returns
    -------
    Topology
        Hosts first. Leaves are called ``rail0-leaf0``; above them all rails are joined by spines (and cores).

    Raises
    ------
    TopologyError
        The parameters contradict each other, or there are more ends than ports.

    Notes
    -----
    Neighbouring hosts, as many as a leaf has ports down, form a unit; a rail has one leaf in each unit.

    References
    ----------
    NVIDIA, "DGX SuperPOD reference architecture featuring DGX H100", 2023: 32 hosts and 8 leaves of 64 ports
    in each scalable unit.

    Examples
    --------
    >>> from pycomm.topology.generators import box
    >>> t = rail_optimized(8, box(4, "450 GB/s", nics=4), radix=8, rate="50 GB/s")
    >>> sum(node.name.startswith("rail") for node in t.nodes), t.nodes[-1].name
    (8, 'spine3')
    """
    fabric = _fabric(rate, options)
    draft = Draft()
    by_rail = _by_rail(attach(draft, counted(host, hosts), fabric.ports), rails)
    _clos(draft, fabric, _units(fabric, by_rail), together=len(by_rail))
    return draft.topology(name)


def rail_only(
    hosts: int | Sequence[int],
    host: Hosts,
    *,
    rate: Rate,
    rails: int | None = None,
    name: str = "rail_only",
    **options: Unpack[FabricOptions],
) -> Topology:
    """Make a network for each rail, and nothing between rails but the insides of the hosts.

    Parameters
    ----------
    hosts, host, rate, rails, name
        As for :func:`rail_optimized`.
    options
        See :class:`FabricOptions`; ``levels`` are those of the network of one rail.

    Returns
    -------
    Topology
        Hosts first; then, rail by rail, ``rail0-leaf0``, ... and ``rail0-spine0``, ...

    Raises
    ------
    TopologyError
        The parameters contradict each other, or there are more ends than ports.

    Notes
    -----
    Each rail is a plane of its own. 2,048 hosts with 8 ports on two levels of 64-port switches are 16,384
    ends on 768 switches: the multi-plane network of DeepSeek-V3.

    References
    ----------
    W. Wang, M. Ghobadi, K. Shakeri, Y. Zhang, N. Hasani, "Rail-only: a low-cost high-performance network for
    training LLMs with trillion parameters", arXiv 2307.12169, 2023. C. Zhao et al., "Insights into
    DeepSeek-V3", ISCA 2025 (arXiv 2505.09343), table 3, for the counts.

    Examples
    --------
    >>> from pycomm.topology.generators import box
    >>> t = rail_only(8, box(4, "450 GB/s", nics=4), rate="50 GB/s")
    >>> [node.name for node in t.nodes if not node.host]
    ['rail0-leaf0', 'rail1-leaf0', 'rail2-leaf0', 'rail3-leaf0']
    """
    fabric = _fabric(rate, options)
    draft = Draft()
    for rail, ends in enumerate(_by_rail(attach(draft, counted(host, hosts), fabric.ports), rails)):
        down = _down(fabric, len(ends))
        rows = [ends[i : i + down] for i in range(0, len(ends), down)]
        _clos(draft, fabric, [(f"rail{rail}-leaf{i}", row) for i, row in enumerate(rows)], f"rail{rail}-")
    return draft.topology(name)


def dual_plane(
    hosts: int | Sequence[int],
    host: Hosts,
    *,
    rate: Rate,
    planes: int = 2,
    rails: int | None = None,
    name: str = "dual_plane",
    **options: Unpack[FabricOptions],
) -> Topology:
    """Make several networks, and give every NIC a port on each: the loss of a leaf leaves it the others.

    Parameters
    ----------
    hosts, host
        How many, and their template or its name in the catalogue; lists for a mix.
    rate
        Of each port of a NIC; a NIC of 400 Gbit/s on two planes has two of 200 Gbit/s.
    planes
        How many networks.
    rails
        Within a plane, the same port of neighbouring hosts goes to the same leaf; 1 puts all ports of a host
        on one leaf. As many as a host has ports when not given.
    name
        Of the topology.
    options
        See :class:`FabricOptions`; ``levels`` are those of the network of one plane.

    Returns
    -------
    Topology
        Hosts first; then, plane by plane, ``plane0-rail0-leaf0``, ... and ``plane0-spine0``, ...

    Raises
    ------
    TopologyError
        The parameters contradict each other, or there are more ends than ports.

    References
    ----------
    K. Qian et al., "Alibaba HPN: a data center network for large language model training", SIGCOMM 2024: two
    ports of 200 Gbit/s for each GPU, on two leaves in two planes; 128 hosts of 8 GPUs in a segment.

    Examples
    --------
    >>> from pycomm.topology.generators import box
    >>> t = dual_plane(4, box(2, "450 GB/s", nics=2), rate="200 Gbit/s", radix=8)
    >>> [node.name for node in t.nodes if node.name.startswith("plane1")]
    ['plane1-rail0-leaf0', 'plane1-rail1-leaf0', 'plane1-spine0']
    """
    fabric = _fabric(rate, options)
    draft = Draft()
    by_rail = _by_rail(attach(draft, counted(host, hosts), fabric.ports), rails)
    for plane in range(positive(planes, "planes")):
        prefix = f"plane{plane}-"
        _clos(draft, fabric, _units(fabric, by_rail, prefix), prefix, len(by_rail))
    return draft.topology(name)
