"""What is wrong with a topology although every vertex and link of it is well-formed."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pycomm.errors import TopologyError
from pycomm.topology.model import NodeKind, Topology
from pycomm.units import format_rate

__all__ = ["check", "problems", "remarks"]

_UNLIKE = 10_000
"""How many times slower than the fastest a link is when its unit is probably wrong."""


def problems(topology: Topology) -> Iterator[str]:
    """Say what makes a topology useless for planning.

    Parameters
    ----------
    topology
        Any.

    Yields
    ------
    str
        A sentence each: no device, vertices without links, devices that cannot reach each other.
    """
    if not topology.devices:
        yield 'there is no device, and so no rank; give some vertices kind = "device"'
    count = len(topology.nodes)
    if count > 1:
        joined = np.zeros(count, np.bool_)
        joined[topology.table.src] = joined[topology.table.dst] = True
        lonely = np.flatnonzero(~joined)
        if len(lonely):
            yield f"{_vertices(topology, lonely)} without any link; add links or take out the vertices"
    if len(topology.devices) > 1:
        yield from _disconnected(topology)


def _vertices(topology: Topology, numbers: npt.NDArray[np.int64]) -> str:
    first = topology.nodes[int(numbers[0])]
    if len(numbers) == 1:
        return f"there is 1 vertex, the {first.kind} {first.name!r},"
    return f"there are {len(numbers)} vertices, the first the {first.kind} {first.name!r},"


def _disconnected(topology: Topology) -> Iterator[str]:
    first = topology.devices[0]
    devices = np.array(topology.devices)
    table, name = topology.table, topology.nodes[first].name
    for tails, heads, sentence in (
        (table.src, table.dst, "data of {0!r} cannot reach {1!r}"),
        (table.dst, table.src, "data of {1!r} cannot reach {0!r}"),
    ):
        apart = devices[~_reached(len(topology.nodes), tails, heads, first)[devices]]
        if len(apart):
            lost = topology.nodes[int(apart[0])].name
            yield (
                f"disconnected: {sentence.format(name, lost)} ({len(apart)} of {len(devices)} devices are "
                "apart); add the links that are missing"
            )
            return


def _reached(
    count: int, tails: npt.NDArray[np.int32], heads: npt.NDArray[np.int32], start: int
) -> npt.NDArray[np.bool_]:
    """Which vertices a walk along the links from the start can reach."""
    order = np.argsort(tails, kind="stable")
    heads = heads[order]
    first = np.searchsorted(tails[order], np.arange(count + 1))
    reached = np.zeros(count, np.bool_)
    reached[start] = True
    stack = [start]
    while stack:
        vertex = stack.pop()
        for head in heads[first[vertex] : first[vertex + 1]].tolist():
            if not reached[head]:
                reached[head] = True
                stack.append(head)
    return reached


def remarks(topology: Topology) -> Iterator[str]:
    """Say what is odd, though it can be planned for.

    Parameters
    ----------
    topology
        Any.

    Yields
    ------
    str
        A sentence each: links so slow that their unit may be wrong, switches with unequal bandwidth in and
        out, devices without a host beside others with one.
    """
    table = topology.table
    if len(table.bytes_per_s):
        fastest, slowest = int(table.bytes_per_s.argmax()), int(table.bytes_per_s.argmin())
        most, least = int(table.bytes_per_s[fastest]), int(table.bytes_per_s[slowest])
        if most >= _UNLIKE * least:
            yield (
                f"the link {topology.link_name(slowest)} has {format_rate(least)} and the link "
                f"{topology.link_name(fastest)} {format_rate(most)}; check the units"
            )
    inward = np.zeros(len(topology.nodes), np.int64)
    outward = np.zeros(len(topology.nodes), np.int64)
    unit = math.gcd(*table.bytes_per_s.tolist()) or 1
    np.add.at(inward, table.dst, table.bytes_per_s // unit)
    np.add.at(outward, table.src, table.bytes_per_s // unit)
    unequal = [
        i for i in np.flatnonzero(inward != outward).tolist() if topology.nodes[i].kind is not NodeKind.DEVICE
    ]
    if unequal:
        node = topology.nodes[unequal[0]]
        enters, leaves = (format_rate(int(rates[unequal[0]]) * unit) for rates in (inward, outward))
        yield (
            f"{len(unequal)} {'vertex has' if len(unequal) == 1 else 'vertices have'} unequal bandwidth in "
            f"and out, the first the {node.kind} {node.name!r}: {enters} in, {leaves} out; "
            "no more than the lower can pass through it"
        )
    homeless = [topology.nodes[d].name for d in topology.devices if not topology.nodes[d].host]
    if homeless and len(homeless) < len(topology.devices):
        yield (
            f"{len(homeless)} of {len(topology.devices)} devices have no host, the first {homeless[0]!r}; "
            "each counts as a host of its own"
        )


def check(topology: Topology) -> Topology:
    """Return the topology, if nothing is wrong with it.

    Raises
    ------
    TopologyError
        The first of its :func:`problems`.
    """
    for problem in problems(topology):
        raise TopologyError(f"{topology.name}: {problem}")
    return topology
