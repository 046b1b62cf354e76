"""Dragonflies: groups of switches that are all joined, and groups that are all joined."""

from __future__ import annotations

from pycomm.errors import TopologyError
from pycomm.topology.draft import Draft, Latency, Rate, latency_of, rate_of
from pycomm.topology.generators.ends import attach, counted, positive
from pycomm.topology.model import Node, NodeKind, Topology

__all__ = ["dragonfly"]


def dragonfly(
    groups: int | None = None,
    *,
    switches_per_group: int,
    ends_per_switch: int,
    global_links: int,
    rate: Rate,
    local_rate: Rate | None = None,
    global_rate: Rate | None = None,
    host: Topology | str | None = None,
    latency: Latency = 0.0,
    global_latency: Latency | None = None,
    link_kind: str = "",
    ports: str = "",
    multicast: bool = False,
    reduction: bool = False,
    name: str = "dragonfly",
) -> Topology:
    """Join switches of a group with each other, and every two groups.

    Parameters
    ----------
    groups
        How many; one more than a group has ports to others when not given, the most that can be.
    switches_per_group
        All joined with each other.
    ends_per_switch
        Cables to ends at each switch.
    global_links
        Ports to other groups of each switch.
    rate, local_rate, global_rate
        Of cables to ends, within groups, and between groups; the first for those not given.
    latency, global_latency
        Of the cables of a group, and between groups; the first when the latter is not given.
    host, link_kind, ports, name
        As for :func:`ring`; all ports of a host go to the same or to neighbouring switches.
    multicast, reduction
        What the switches can do.

    Returns
    -------
    Topology
        Ends first, group by group; then ``group0-switch0``, ...

    Raises
    ------
    TopologyError
        There are more groups than ports to others can join, or ends cannot be shared out evenly.

    Notes
    -----
    Port k of a group leads to the group k + 1 further on, and meets its port ``groups - 2 - k``. With fewer
    groups than ports every two of them have as many cables as all pairs can have; ports left over stay free.

    References
    ----------
    J. Kim, W. J. Dally, S. Scott, D. Abts, "Technology-driven, highly-scalable dragonfly topology", ISCA
    2008. C. Zhao et al., "Insights into DeepSeek-V3", ISCA 2025 (arXiv 2505.09343), table 3: 511 groups of 32
    switches with 16 ends each are 261,632 ends on 16,352 switches.

    Examples
    --------
    >>> t = dragonfly(switches_per_group=4, ends_per_switch=2, global_links=2, rate="25 GB/s")
    >>> list(t.describe())
    ['72 devices', '36 switches', '324 links of 25 GB/s']
    """
    width = positive(switches_per_group, "switches_per_group")
    outward = width * positive(global_links, "global_links")
    count = outward + 1 if groups is None else positive(groups, "groups")
    if count > outward + 1:
        raise TopologyError(
            f"groups = {count}, but {width} switches with {global_links} global links each join at most "
            f"{outward + 1}; use more switches_per_group or global_links"
        )
    per_group = width * positive(ends_per_switch, "ends_per_switch")
    template = counted(host, 1)
    per_host = len(attach(Draft(), template, ports)[0])
    if per_group * count % per_host:
        raise TopologyError(
            f"{per_group * count} ports for ends cannot be shared out to hosts with {per_host} ports each"
        )
    draft, near = Draft(), rate_of(rate)
    draft.expect(links=count * width * (width - 1 + global_links))
    local = near if local_rate is None else rate_of(local_rate)
    far = near if global_rate is None else rate_of(global_rate)
    seconds = latency_of(latency)
    far_seconds = seconds if global_latency is None else latency_of(global_latency)
    ends = [
        port for made in attach(draft, counted(host, per_group * count // per_host), ports) for port in made
    ]
    switches = [
        [
            draft.add(Node(f"group{g}-switch{s}", NodeKind.SWITCH, multicast=multicast, reduction=reduction))
            for s in range(width)
        ]
        for g in range(count)
    ]
    for number, end in enumerate(ends):
        group, place = divmod(number // ends_per_switch, width)
        draft.cable(end, switches[group][place], near, seconds, link_kind)
    for row in switches:
        for a in range(width):
            for b in range(a + 1, width):
                draft.cable(row[a], row[b], local, seconds, link_kind)
    for turn in range(outward // (count - 1) if count > 1 else 0):
        for a in range(count):
            for port in range(count - 1 - a):  # port leads to the group a + port + 1
                here = (turn * (count - 1) + port) // global_links
                there = (turn * (count - 1) + count - 2 - port) // global_links
                draft.cable(switches[a][here], switches[a + port + 1][there], far, far_seconds, link_kind)
    return draft.topology(name)
