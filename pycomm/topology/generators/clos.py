r"""Fabrics of leaves, spines and cores: fat trees, rails and planes.

All of them are the same folded Clos network; they differ in which port of which host goes to which leaf, and
in how many such networks there are::

    fat_tree        rail_optimized            rail_only / dual_plane

     s   s           s   s   s                s s     s s     a spine layer for each rail,
     |\ /|           |\ /|\ /|                |x|     |x|     none where one switch holds a rail
     l   l           l0  l1  l0               l l     l l
    hhhh hhhh        port 0, port 1, ...      port 0  port 1

Leaves divide their ports by the oversubscription that is asked for. There are as few spines as hold all
uplinks when each leaf has the same number of cables to each spine, so every plan is regular.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from pycomm.errors import TopologyError
from pycomm.topology.draft import Draft, Latency, Rate, latency_of, rate_of
from pycomm.topology.generators.ends import Hosts, attach, counted, positive
from pycomm.topology.generators.fabric import (
    Fabric,
    FabricOptions,
    add_fabric,
    fabric_of,
    full_ends,
    ports_down,
)
from pycomm.topology.model import Node, NodeKind, Topology

__all__ = ["dual_plane", "fat_tree", "leaf_spine", "rail_only", "rail_optimized"]


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
    fabric = fabric_of(rate, options)
    draft = Draft()
    if hosts is None:
        one = counted(host, 1)
        if len(one) > 1:
            raise TopologyError("say how many hosts there are of each template")
        hosts = max(full_ends(fabric) // len(attach(Draft(), one, fabric.ports)[0]), 1)
    ends = [port for made in attach(draft, counted(host, hosts), fabric.ports) for port in made]
    down = ports_down(fabric, len(ends))
    rows = [ends[i : i + down] for i in range(0, len(ends), down)]
    add_fabric(draft, fabric, [(f"leaf{i}", row) for i, row in enumerate(rows)])
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
    fabric: Fabric, rails: Sequence[Sequence[int]], prefix: str = ""
) -> list[tuple[str, Sequence[int]]]:
    """Leaves of all rails, unit by unit: one leaf for each rail in each unit of neighbouring hosts."""
    down = ports_down(fabric, len(rails[0]) if len(rails) == 1 else None)
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
    fabric = fabric_of(rate, options)
    draft = Draft()
    by_rail = _by_rail(attach(draft, counted(host, hosts), fabric.ports), rails)
    add_fabric(draft, fabric, _units(fabric, by_rail), together=len(by_rail))
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
    fabric = fabric_of(rate, options)
    draft = Draft()
    for rail, ends in enumerate(_by_rail(attach(draft, counted(host, hosts), fabric.ports), rails)):
        down = ports_down(fabric, len(ends))
        rows = [ends[i : i + down] for i in range(0, len(ends), down)]
        add_fabric(
            draft, fabric, [(f"rail{rail}-leaf{i}", row) for i, row in enumerate(rows)], f"rail{rail}-"
        )
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
    fabric = fabric_of(rate, options)
    draft = Draft()
    by_rail = _by_rail(attach(draft, counted(host, hosts), fabric.ports), rails)
    for plane in range(positive(planes, "planes")):
        prefix = f"plane{plane}-"
        add_fabric(draft, fabric, _units(fabric, by_rail, prefix), prefix, len(by_rail))
    return draft.topology(name)
