"""The network as a typed, directed multigraph: devices, NICs, hosts and switches, joined by one-way links.

A link carries bytes one way; a cable is two links. Bandwidths are whole bytes per second, so that every bound
and every plan made from them is exact. A vertex of kind ``host`` is the way through a host's processors and
memory; which host another vertex belongs to is its field ``host``, whether or not that host is a vertex.

Ranks are the devices, in the order in which they are listed, unless a placement says otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from pycomm.errors import TopologyError
from pycomm.units import format_rate

if TYPE_CHECKING:
    import networkx

__all__ = ["Link", "LinkTable", "Node", "NodeKind", "Topology"]

MAX_BYTES_PER_S = 10**18
"""Faster links are a mistake of units."""


class NodeKind(StrEnum):
    """What a vertex is. Only devices are ranks; all others pass on what they receive."""

    DEVICE = "device"
    NIC = "nic"
    HOST = "host"
    SWITCH = "switch"


class Node(NamedTuple):
    """A vertex.

    Parameters
    ----------
    name
        Unique in the topology.
    kind
        What it is.
    host
        Name of the host that it is part of, ``""`` for switches between hosts.
    vendor, model
        Of a device: ``"nvidia"``, ``"H100"``; ``""`` when unknown.
    multicast, reduction
        Of a switch: whether it can send one message on to several links, and combine several into one.
    """

    name: str
    kind: NodeKind
    host: str = ""
    vendor: str = ""
    model: str = ""
    multicast: bool = False
    reduction: bool = False


class Link(NamedTuple):
    """A one-way link between the vertices of two indices. Several may join the same two.

    Parameters
    ----------
    src, dst
        Indices into ``Topology.nodes``.
    bytes_per_s
        Whole bytes per second, more than 0.
    latency_s
        From the first byte in to the first byte out; 0 when unknown.
    kind
        Such as ``"nvlink"``, ``"pcie"``, ``"infiniband"``, ``"roce"``; ``""`` when unknown.
    """

    src: int
    dst: int
    bytes_per_s: int
    latency_s: float = 0.0
    kind: str = ""


class LinkTable(NamedTuple):
    """The links as columns; row i is link i. Read-only."""

    src: npt.NDArray[np.int32]
    dst: npt.NDArray[np.int32]
    bytes_per_s: npt.NDArray[np.int64]
    latency_s: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Topology:
    """A network. Immutable; equal content has equal :meth:`digest`.

    Parameters
    ----------
    name
        For people.
    nodes, links
        The graph. Checked: unique names, links between vertices that exist, no link from a vertex to itself,
        positive bandwidths.
    notes
        Where figures come from, and what an importer had to leave out or assume; one sentence each. Not part
        of equality.

    Raises
    ------
    TopologyError
        The description contradicts itself.
    """

    name: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if len(self.index) != len(self.nodes):
            # the index holds the last vertex of each name: the first that it does not hold is there twice
            twice = next(node.name for i, node in enumerate(self.nodes) if self.index[node.name] != i)
            raise TopologyError(f"{self.name}: two vertices are named {twice!r}; names must be unique")
        count = len(self.nodes)
        for number, link in enumerate(self.links):
            if not (0 <= link.src < count and 0 <= link.dst < count):
                raise TopologyError(
                    f"{self.name}: link {number} leads from vertex {link.src} to {link.dst}, "
                    f"but there are only {count} vertices"
                )
            if link.src == link.dst:
                raise TopologyError(f"{self.name}: a link leads from {self.nodes[link.src].name!r} to itself")
            if not 0 < link.bytes_per_s <= MAX_BYTES_PER_S:
                raise TopologyError(
                    f"{self.name}: the link {self.link_name(number)} has a bandwidth of "
                    f"{link.bytes_per_s} B/s; it must be at least 1 B/s and at most 10^18; "
                    "leave out a link that is down"
                )
            if not 0 <= link.latency_s < float("inf"):
                raise TopologyError(
                    f"{self.name}: the link {self.link_name(number)} has a latency of {link.latency_s} s; "
                    "it must be 0 or more"
                )

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Index of each vertex by its name."""
        return {node.name: i for i, node in enumerate(self.nodes)}

    @cached_property
    def devices(self) -> tuple[int, ...]:
        """Indices of the devices: the vertex of each rank."""
        return tuple(i for i, node in enumerate(self.nodes) if node.kind is NodeKind.DEVICE)

    @cached_property
    def table(self) -> LinkTable:
        """The links as columns."""
        columns = list(zip(*self.links, strict=True)) or [()] * 5
        table = LinkTable(
            np.array(columns[0], np.int32),
            np.array(columns[1], np.int32),
            np.array(columns[2], np.int64),
            np.array(columns[3], np.float64),
        )
        for column in table:
            column.setflags(write=False)
        return table

    def link_name(self, number: int) -> str:
        """Name a link ``"a -> b"``, for messages."""
        link = self.links[number]
        return f"{self.nodes[link.src].name} -> {self.nodes[link.dst].name}"

    def host_numbers(self) -> tuple[int, ...]:
        """Host number of each rank, in order of first appearance; a device without a host has its own."""
        numbers: dict[str, int] = {}
        return tuple(
            numbers.setdefault(self.nodes[d].host or f"\0{self.nodes[d].name}", len(numbers))
            for d in self.devices
        )

    def without(self, *, links: Iterable[int] = (), nodes: Iterable[str] = ()) -> Topology:
        """Take out links by number, and vertices by name with all their links. The rest keeps its order.

        Raises
        ------
        TopologyError
            There is no such link or vertex.
        """
        dead_links, dead = set(links), {self._find(name) for name in nodes}
        for number in dead_links:
            if not 0 <= number < len(self.links):
                raise TopologyError(
                    f"{self.name}: there is no link {number}; the last is {len(self.links) - 1}"
                )
        kept = [i for i in range(len(self.nodes)) if i not in dead]
        renamed = {old: new for new, old in enumerate(kept)}
        return Topology(
            self.name,
            tuple(self.nodes[i] for i in kept),
            tuple(
                link._replace(src=renamed[link.src], dst=renamed[link.dst])
                for number, link in enumerate(self.links)
                if number not in dead_links and link.src in renamed and link.dst in renamed
            ),
            self.notes,
        )

    def with_rate(self, number: int, bytes_per_s: int) -> Topology:
        """Give one link another bandwidth, as a cable that has slowed down."""
        links = list(self.links)
        links[number] = links[number]._replace(bytes_per_s=bytes_per_s)
        return replace(self, links=tuple(links))

    def find_links(self, src: str, dst: str) -> tuple[int, ...]:
        """Numbers of the links that lead from one named vertex to another; empty when there is none."""
        ends = self._find(src), self._find(dst)
        return tuple(i for i, link in enumerate(self.links) if (link.src, link.dst) == ends)

    def _find(self, name: str) -> int:
        if name not in self.index:
            raise TopologyError(f"{self.name}: there is no vertex named {name!r}")
        return self.index[name]

    @classmethod
    def from_networkx(cls, graph: networkx.Graph) -> Topology:
        """Make a topology of any graph of networkx; see :func:`pycomm.topology.graphs.from_networkx`."""
        from pycomm.topology.graphs import from_networkx

        return from_networkx(graph)

    def to_networkx(self) -> networkx.MultiDiGraph:
        """Make a graph of networkx; see :func:`pycomm.topology.graphs.to_networkx`."""
        from pycomm.topology.graphs import to_networkx

        return to_networkx(self)

    def digest(self) -> bytes:
        """SHA-256 over vertices and links; the name and the notes have no part in it."""
        return self._digest

    @cached_property
    def _digest(self) -> bytes:
        h = hashlib.sha256(repr([tuple(node) for node in self.nodes]).encode())
        for column in self.table:
            h.update(np.ascontiguousarray(column).data)
        h.update("\0".join(link.kind for link in self.links).encode())
        return h.digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Topology) and self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())

    def describe(self) -> Iterator[str]:
        """One line for each kind of vertex and of link: how many, and at which rates."""
        for kind in NodeKind:
            count = sum(node.kind is kind for node in self.nodes)
            if count:
                plural = {NodeKind.NIC: "NICs", NodeKind.SWITCH: "switches"}.get(kind, f"{kind.value}s")
                single = "NIC" if kind is NodeKind.NIC else kind.value
                yield f"{count} {single if count == 1 else plural}"
        rates: dict[tuple[str, int], int] = {}
        for link in self.links:
            rates[link.kind, link.bytes_per_s] = rates.get((link.kind, link.bytes_per_s), 0) + 1
        for (kind_name, rate), count in sorted(rates.items()):
            yield f"{count} links {kind_name + ' ' if kind_name else ''}of {format_rate(rate)}"
