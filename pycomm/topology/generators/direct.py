"""Networks of ends joined by cables with no or one switch between them, and boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod

from pycomm.errors import TopologyError
from pycomm.topology.draft import Draft, Latency, Rate, latency_of, rate_of
from pycomm.topology.generators.ends import Hosts, attach, counted, positive
from pycomm.topology.model import Node, NodeKind, Topology

__all__ = ["box", "full_mesh", "hypercube", "hyperx", "ring", "star", "torus"]


class _Ends:
    """Ends of cables; those with several ports use them in turn."""

    def __init__(self, draft: Draft, count: int, host: Hosts | None, ports: str) -> None:
        self.draft = draft
        self.ports = attach(draft, counted(host, count), ports)
        self.used = [0] * len(self.ports)

    def port(self, end: int) -> int:
        ports, used = self.ports[end], self.used[end]
        self.used[end] = used + 1
        return ports[used % len(ports)]

    def cable(self, a: int, b: int, rate: int, latency_s: float, kind: str, one_way: bool = False) -> None:
        self.draft.join(
            self.port(a), self.port(b), rate, back=0 if one_way else rate, latency_s=latency_s, kind=kind
        )


def ring(
    count: int,
    rate: Rate,
    *,
    host: Topology | str | None = None,
    one_way: bool = False,
    latency: Latency = 0.0,
    link_kind: str = "",
    ports: str = "",
    name: str = "ring",
) -> Topology:
    """Join each end with the next, and the last with the first.

    Parameters
    ----------
    count
        Ends, at least 2. Two ends have two cables.
    rate
        Of each cable and direction.
    host
        Template of the ends, or its name in the catalogue; bare devices when not given.
    one_way
        Links only lead to the next end.
    latency, link_kind
        Of all cables.
    ports
        Names of the vertices of a template that cables go to, in turn; its NICs, or else its devices, when
        empty.
    name
        Of the topology.

    Returns
    -------
    Topology
        Ends ``device0``, ... or ``host0``, ..., in the order of the ring.

    Raises
    ------
    TopologyError
        There are fewer than 2 ends, or the rate is none.

    Examples
    --------
    >>> list(ring(8, "50 GB/s").describe())
    ['8 devices', '16 links of 50 GB/s']
    """
    ends = _Ends(Draft(), positive(count, "count", 2), host, ports)
    speed, seconds = rate_of(rate), latency_of(latency)
    for i in range(count):
        ends.cable(i, (i + 1) % count, speed, seconds, link_kind, one_way)
    return ends.draft.topology(name)


def _per_side(rate: Rate | Sequence[Rate], sides: Sequence[int]) -> list[int]:
    if isinstance(rate, str | int):
        return [rate_of(rate)] * len(sides)
    if len(rate) != len(sides):
        raise TopologyError(
            f"rate lists {len(rate)} rates, but there are {len(sides)} sides; give one for each"
        )
    return [rate_of(one) for one in rate]


def _places(sides: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield number, dimension and stride of every place and dimension; the last side runs fastest."""
    strides = [prod(sides[d + 1 :]) for d in range(len(sides))]
    for number in range(prod(sides)):
        for d, stride in enumerate(strides):
            yield number, d, stride


def torus(
    sides: Sequence[int],
    rate: Rate | Sequence[Rate],
    *,
    wrap: bool | Sequence[bool] = True,
    host: Topology | str | None = None,
    latency: Latency = 0.0,
    link_kind: str = "",
    ports: str = "",
    name: str = "torus",
) -> Topology:
    """Join neighbours on a grid of any number of dimensions that closes on itself.

    Parameters
    ----------
    sides
        Ends along each dimension. A side of 2 has two cables between its ends, a side of 1 none.
    rate
        Of each cable and direction; a list for one of each dimension.
    wrap
        Whether the last of a side is joined with the first; a list for each dimension. ``False`` makes a
        mesh.
    host, latency, link_kind, ports, name
        As for :func:`ring`.

    Returns
    -------
    Topology
        Ends in row-major order: the last coordinate runs fastest.

    Raises
    ------
    TopologyError
        A side is less than 1, or lists have unlike lengths.

    Notes
    -----
    With D dimensions that wrap each end has 2D cables; the least time of an allgather of N ends over links of
    b is (N-1) / (2 D b) times a rank's share.

    References
    ----------
    N. P. Jouppi et al., "TPU v4: an optically reconfigurable supercomputer for machine learning", ISCA 2023,
    for the three-dimensional torus of accelerators.

    Examples
    --------
    >>> list(torus((4, 4, 4), "50 GB/s").describe())
    ['64 devices', '384 links of 50 GB/s']
    """
    for side in sides:
        positive(side, "sides")
    rates, seconds = _per_side(rate, sides), latency_of(latency)
    wraps = [wrap] * len(sides) if isinstance(wrap, bool) else list(wrap)
    if len(wraps) != len(sides):
        raise TopologyError(f"wrap lists {len(wraps)} values, but there are {len(sides)} sides")
    ends = _Ends(Draft(), prod(sides), host, ports)
    for number, d, stride in _places(sides):
        at = number // stride % sides[d]
        if sides[d] > 1 and (wraps[d] or at + 1 < sides[d]):
            onward = number + stride * ((at + 1) % sides[d] - at)
            ends.cable(number, onward, rates[d], seconds, link_kind)
    return ends.draft.topology(name)


def hyperx(
    sides: Sequence[int],
    rate: Rate | Sequence[Rate],
    *,
    host: Topology | str | None = None,
    latency: Latency = 0.0,
    link_kind: str = "",
    ports: str = "",
    name: str = "hyperx",
) -> Topology:
    """Join all ends that differ in one coordinate: a full mesh along each dimension.

    Parameters
    ----------
    sides
        Ends along each dimension.
    rate
        Of each cable and direction; a list for one of each dimension.
    host, latency, link_kind, ports, name
        As for :func:`ring`.

    Returns
    -------
    Topology
        Ends in row-major order: the last coordinate runs fastest.

    Raises
    ------
    TopologyError
        A side is less than 1, or lists have unlike lengths.

    References
    ----------
    J. H. Ahn et al., "HyperX: topology, routing, and packaging of efficient large-scale networks", SC 2009.
    H. Liao et al., "UB-Mesh: a hierarchically localized nD-FullMesh datacenter network architecture", arXiv
    2503.20377, 2025, for accelerators.

    Examples
    --------
    >>> list(hyperx((8, 8), ["28 GB/s", "14 GB/s"]).describe())
    ['64 devices', '448 links of 14 GB/s', '448 links of 28 GB/s']
    """
    for side in sides:
        positive(side, "sides")
    rates, seconds = _per_side(rate, sides), latency_of(latency)
    draft = Draft()
    draft.expect(links=prod(sides) * sum(side - 1 for side in sides))
    ends = _Ends(draft, prod(sides), host, ports)
    for number, d, stride in _places(sides):
        at = number // stride % sides[d]
        for other in range(at + 1, sides[d]):
            ends.cable(number, number + stride * (other - at), rates[d], seconds, link_kind)
    return ends.draft.topology(name)


def full_mesh(
    count: int,
    rate: Rate,
    *,
    host: Topology | str | None = None,
    latency: Latency = 0.0,
    link_kind: str = "",
    ports: str = "",
    name: str = "full_mesh",
) -> Topology:
    """Join every end with every other.

    Parameters
    ----------
    count
        Ends.
    rate
        Of each cable and direction.
    host, latency, link_kind, ports, name
        As for :func:`ring`.

    Returns
    -------
    Topology
        Ends ``device0``, ... or ``host0``, ...

    Raises
    ------
    TopologyError
        The count is less than 1, or the rate none.

    Examples
    --------
    >>> list(full_mesh(8, "28 GB/s").describe())
    ['8 devices', '56 links of 28 GB/s']
    """
    return hyperx(
        (positive(count, "count"),),
        rate,
        host=host,
        latency=latency,
        link_kind=link_kind,
        ports=ports,
        name=name,
    )


def hypercube(
    dimensions: int,
    rate: Rate | Sequence[Rate],
    *,
    host: Topology | str | None = None,
    latency: Latency = 0.0,
    link_kind: str = "",
    ports: str = "",
    name: str = "hypercube",
) -> Topology:
    """Join the ends whose numbers differ in one binary digit.

    Parameters
    ----------
    dimensions
        Digits; there are two to the power of this many ends.
    rate
        Of each cable and direction; a list for one of each dimension, that of the highest digit first.
    host, latency, link_kind, ports, name
        As for :func:`ring`.

    Returns
    -------
    Topology
        Ends ``device0``, ... or ``host0``, ...

    Raises
    ------
    TopologyError
        There are fewer than 1 or more than 20 dimensions, or lists have unlike lengths.

    Examples
    --------
    >>> list(hypercube(3, "50 GB/s").describe())
    ['8 devices', '24 links of 50 GB/s']
    """
    if positive(dimensions, "dimensions") > 20:
        raise TopologyError(f"dimensions = {dimensions}: more than 20 make more than a million ends")
    return hyperx(
        (2,) * dimensions, rate, host=host, latency=latency, link_kind=link_kind, ports=ports, name=name
    )


def star(
    count: int,
    rate: Rate,
    *,
    host: Topology | str | None = None,
    latency: Latency = 0.0,
    link_kind: str = "",
    ports: str = "",
    multicast: bool = False,
    reduction: bool = False,
    name: str = "star",
) -> Topology:
    """Join all ends with one switch.

    Parameters
    ----------
    count
        Ends.
    rate
        Of each cable and direction.
    multicast, reduction
        What the switch can do.
    host, latency, link_kind, ports, name
        As for :func:`ring`; all ports of a host are joined.

    Returns
    -------
    Topology
        Ends first, then ``switch``.

    Raises
    ------
    TopologyError
        The count is less than 1, or the rate none.

    Examples
    --------
    >>> list(star(8, "50 GB/s").describe())
    ['8 devices', '1 switch', '16 links of 50 GB/s']
    """
    draft, speed, seconds = Draft(), rate_of(rate), latency_of(latency)
    ends = attach(draft, counted(host, count), ports)
    switch = draft.add(Node("switch", NodeKind.SWITCH, multicast=multicast, reduction=reduction))
    for port in (port for made in ends for port in made):
        draft.cable(port, switch, speed, seconds, link_kind)
    return draft.topology(name)


def box(
    devices: int,
    rate: Rate,
    *,
    nics: int = 0,
    nic_rate: Rate | None = None,
    mesh: bool = False,
    latency: Latency = 0.0,
    link_kind: str = "",
    nic_link_kind: str = "pcie",
    vendor: str = "",
    model: str = "",
    multicast: bool = False,
    reduction: bool = False,
    name: str = "box",
) -> Topology:
    """Make one host of alike devices, the template that most fabrics need.

    Parameters
    ----------
    devices
        How many.
    rate
        Of each device to the switch inside, or to each other device when ``mesh``.
    nics
        How many; each joined with as many devices as share it. 0 leaves the devices themselves as ports.
    nic_rate
        Between a device and its NIC; ``rate`` when not given.
    mesh
        Devices are joined with each other, and there is no switch.
    latency, link_kind
        Of the links inside.
    nic_link_kind
        Of the links between devices and NICs.
    vendor, model
        Of the devices.
    multicast, reduction
        What the switch inside can do.
    name
        Of the topology, and of the host.

    Returns
    -------
    Topology
        ``device0``, ..., ``nic0``, ..., ``switch``, all part of one host.

    Raises
    ------
    TopologyError
        Devices cannot be shared out evenly to the NICs, or a count or a rate is none.

    Examples
    --------
    >>> list(box(8, "450 GB/s", nics=4, nic_rate="64 GB/s").describe())
    ['8 devices', '4 NICs', '1 switch', '16 links of 450 GB/s', '16 links pcie of 64 GB/s']
    """
    draft, speed, seconds = Draft(), rate_of(rate), latency_of(latency)
    outward = speed if nic_rate is None else rate_of(nic_rate)
    positive(devices, "devices")
    positive(nics, "nics", 0)
    if nics and devices % nics and nics % devices:
        raise TopologyError(f"{devices} devices cannot be shared out evenly to {nics} NICs")
    made = [draft.add(Node(f"device{i}", NodeKind.DEVICE, name, vendor, model)) for i in range(devices)]
    ports = [draft.add(Node(f"nic{i}", NodeKind.NIC, name)) for i in range(nics)]
    if mesh:
        for a, b in product(range(devices), repeat=2):
            if a < b:
                draft.cable(made[a], made[b], speed, seconds, link_kind)
    elif devices > 1:
        switch = draft.add(Node("switch", NodeKind.SWITCH, name, multicast=multicast, reduction=reduction))
        for device in made:
            draft.cable(device, switch, speed, seconds, link_kind)
    for i in range(max(devices, nics) if nics else 0):
        draft.cable(
            made[i * devices // max(devices, nics)],
            ports[i * nics // max(devices, nics)],
            outward,
            seconds,
            nic_link_kind,
        )
    return draft.topology(name)
