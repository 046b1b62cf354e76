"""Which device of a topology each rank of a group is."""

from __future__ import annotations

from collections.abc import Sequence

from pycomm.errors import TopologyError
from pycomm.topology.model import Topology

__all__ = ["place"]


def place(topology: Topology, hosts: Sequence[str]) -> tuple[int, ...]:
    """Find each rank's device: on its host by name, or in order where the topology knows none of the names.

    A job on one host with as many ranks as the topology has devices plays them all: so a cluster's plan can
    be tried out without the cluster.

    Parameters
    ----------
    topology
        The network.
    hosts
        Name of each rank's host. A name matches with or without its domain.

    Returns
    -------
    tuple of int
        Vertex of each rank. Ranks of one host have that host's devices in order; what is left over has no
        rank.

    Raises
    ------
    TopologyError
        The ranks do not fit; the message says where.
    """
    devices: dict[str, list[int]] = {}
    for vertex in topology.devices:
        node = topology.nodes[vertex]
        devices.setdefault(_short(node.host or node.name), []).append(vertex)
    ranks: dict[str, list[int]] = {}
    for rank, host in enumerate(hosts):
        ranks.setdefault(host, []).append(rank)
    named = {host: _short(host) for host in ranks}
    unknown = [host for host in ranks if named[host] not in devices]
    if len(unknown) == len(ranks):
        return _in_order(topology, devices, ranks)
    if unknown:
        known = next(host for host in ranks if host not in unknown)
        raise TopologyError(
            f"{topology.name}: it has the host {known!r} of the job, but not {unknown[0]!r}; add it, "
            "or rename the hosts so that none matches and ranks are placed in order"
        )
    found = [-1] * len(hosts)
    for host, members in ranks.items():
        there = devices[named[host]]
        if len(members) > len(there):
            raise TopologyError(
                f"{topology.name}: host {host!r} has {len(there)} devices for {len(members)} ranks; "
                "start fewer ranks there, or describe a device for each"
            )
        for rank, vertex in zip(members, there, strict=False):
            found[rank] = vertex
    return tuple(found)


def _short(host: str) -> str:
    return host.partition(".")[0]


def _in_order(
    topology: Topology, devices: dict[str, list[int]], ranks: dict[str, list[int]]
) -> tuple[int, ...]:
    """Place host by host, in the order in which ranks and devices name them."""
    count = sum(map(len, ranks.values()))
    if count > len(topology.devices):
        raise TopologyError(
            f"{topology.name}: it has {len(topology.devices)} devices for {count} ranks; "
            "describe a device for each rank"
        )
    if len(ranks) == 1 and count == len(topology.devices):
        return topology.devices  # one host plays them all: the plan of a cluster, rehearsed
    fits = len(ranks) <= len(devices) and all(
        len(members) <= len(there) for members, there in zip(ranks.values(), devices.values(), strict=False)
    )
    if not fits:
        shape = " + ".join(str(len(members)) for members in ranks.values())
        there = " + ".join(str(len(vertices)) for vertices in devices.values())
        raise TopologyError(
            f"{topology.name}: its hosts have {there} devices, the job's hosts {shape} ranks, and no host "
            f"has a name that both know ({next(iter(devices))!r}, {next(iter(ranks))!r}); "
            "name the hosts of the topology as the job's hosts are named"
        )
    found = [-1] * count
    for members, vertices in zip(ranks.values(), devices.values(), strict=False):
        for rank, vertex in zip(members, vertices, strict=False):
            found[rank] = vertex
    return tuple(found)
