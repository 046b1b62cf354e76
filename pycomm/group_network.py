"""The network between the ranks of a group, as all of them agree on it.

``PYCOMM_TOPOLOGY`` says where it comes from. The group's rank 0 decides, and hands what it has read to all:

``FILE`` or ``NAME``
    A topology file, or a name of the catalogue; ranks are placed by :mod:`pycomm.placement`.
``detect``
    The default. Every rank tells its host, its interface and that interface's speed, and hosts are joined by
    one switch. Nothing is sent but that. A group on one host has no network.
``probe``
    Measured by :mod:`pycomm.probe` when the job starts; until then as ``none``.
``none``
    No network: plans are made and priced by the hosts of the ranks alone.

A group that was split from another takes its part of what the other knows, if all its ranks know the same.

The measured table that ``PYCOMM_TUNING`` names goes the same way: rank 0 reads it for all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from pycomm.config import setting
from pycomm.errors import PycommError, TopologyError
from pycomm.placement import place
from pycomm.topology.draft import Draft
from pycomm.topology.model import Node, NodeKind, Topology
from pycomm.units import format_rate

if TYPE_CHECKING:
    from pycomm.tuner.table import Table

__all__ = ["DETECT", "NONE", "PROBE", "GroupNetwork", "Place", "Placed", "host_names", "joined"]

DETECT: Final = "detect"
PROBE: Final = "probe"
NONE: Final = "none"
MEMORY_BYTES_PER_S: Final = 6 * 10**9
"""Assumed of a rank's way to the others of its host."""

Exchange = Callable[[str, bytes, float | None], list[bytes]]


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a rank tells of itself.

    ``host`` and ``identity`` are its host's name and what tells it from others of the same name;
    ``bytes_per_s`` is the speed of the interface, 0 when unknown. ``known`` is what its parent group knows.
    Of rank 0: where the topology comes from and what it says, the measured table, what is wrong with them.
    """

    host: str
    identity: str
    interface: str = ""
    bytes_per_s: int = 0
    known: str = ""
    source: str = ""
    text: str = ""
    tuning: str = ""
    problem: str = ""


class Placed(NamedTuple):
    """A topology, and the vertex of each rank."""

    topology: Topology
    devices: tuple[int, ...]


class GroupNetwork:
    """Found once, when a schedule is first needed; the same on all ranks.

    Parameters
    ----------
    size, rank
        The group.
    exchange
        Collects a value of every rank under a topic, as :class:`~pycomm.agreement.Agreement` does.
    identity
        Names this rank's host.
    parent
        Network of the group that this one was split from, and the ranks there of its members.
    """

    def __init__(
        self,
        size: int,
        rank: int,
        exchange: Exchange,
        identity: bytes,
        parent: tuple[GroupNetwork, Sequence[int]] | None = None,
    ) -> None:
        self._size, self._rank, self._exchange, self._identity = size, rank, exchange, identity
        self._lock = threading.Lock()
        self._found: Placed | None = None
        self._table: Table | None = None
        self._is_found = False
        self._places: list[Place] | None = None
        self._inherited: Placed | None = None
        self._is_world = parent is None
        if parent is not None and parent[0]._found is not None:
            topology, devices = parent[0]._found
            self._inherited = Placed(topology, tuple(devices[member] for member in parent[1]))

    @property
    def wants_probe(self) -> bool:
        """Whether the environment asks for a measurement."""
        return str(setting("topology")) == PROBE

    def adopt(self, placed: Placed) -> None:
        """Take a network that all ranks have agreed on otherwise, e.g. measured. Collective."""
        self.find()
        with self._lock:
            self._found = placed

    def find(self, timeout_s: float | None = None) -> Placed | None:
        """Find the network, or ``None`` when there is none. Collective when first called.

        Raises
        ------
        TopologyError
            Rank 0 cannot read the topology or the table, or the ranks do not fit. The same on all ranks.
        """
        with self._lock:
            self._settle(timeout_s)
            return self._found

    def table(self, timeout_s: float | None = None) -> Table | None:
        """Find the measured table, or ``None`` when there is none. Collective as :meth:`find`, which see."""
        with self._lock:
            self._settle(timeout_s)
            return self._table

    def places(self, timeout_s: float | None = None) -> list[Place]:
        """Collect what the ranks tell of themselves. Collective, once."""
        if self._places is None:
            mine = msgspec.json.encode(self._own())
            texts = self._exchange("place", mine, timeout_s)
            self._places = [msgspec.json.decode(text, type=Place) for text in texts]
        return self._places

    def _settle(self, timeout_s: float | None) -> None:
        if self._is_found:
            return
        places = self.places(timeout_s)
        first = places[0]
        if first.problem:
            raise TopologyError(f"as rank 0 of the group reads it: {first.problem}")
        if first.tuning:
            from pycomm.tuner.table import read_table

            self._table = read_table(first.tuning, "PYCOMM_TUNING")
        self._found = self._network(places) if self._size > 1 else None
        self._is_found = True

    def _network(self, places: Sequence[Place]) -> Placed | None:
        first = places[0]
        if first.known and all(place.known == first.known for place in places):
            return self._inherited
        if first.source == NONE or (first.source == PROBE and self._is_world):
            return None
        if first.source in (DETECT, PROBE):
            return joined(places)
        from pycomm.topology.files import loads

        topology = loads(first.text, first.source)
        return Placed(topology, place(topology, [place.host for place in places]))

    def _own(self) -> Place:
        import socket

        interface = str(setting("interface")) or _default_interface()
        known = ""
        if self._inherited is not None:
            known = f"{self._inherited.topology.digest().hex()} {self._inherited.devices}"
        return Place(
            socket.gethostname(),
            self._identity.decode(errors="replace"),
            interface,
            _speed(interface),
            known,
            *(_read() if self._rank == 0 else ()),
        )


def _read() -> tuple[str, str, str, str]:
    """Source and content of the topology, content of the table, and what is wrong with them."""
    source, tuning = str(setting("topology")) or DETECT, str(setting("tuning"))
    table = ""
    try:
        if tuning:
            from pycomm.tuner.table import load_table, write_table

            table = write_table(load_table(tuning))
        if source in (DETECT, PROBE, NONE):
            return source, "", table, ""
        from pycomm.topology import catalogue
        from pycomm.topology.files import dumps, load

        path = Path(source)
        is_file = path.exists() or path.suffix == ".toml" or len(path.parts) > 1
        topology = load(path) if is_file else catalogue.named(source)
    except PycommError as error:
        return source, "", "", str(error)
    return topology.name, dumps(topology), table, ""


def _default_interface() -> str:
    """Name the interface of the default route, else the first that is up and is not the loopback."""
    try:
        rows = [row.split() for row in Path("/proc/net/route").read_text().splitlines()[1:]]
    except OSError:
        rows = []
    by_default = [row[0] for row in rows if row[1] == "00000000"]
    return next(iter([*by_default, *(row[0] for row in rows)]), "")


def _speed(interface: str) -> int:
    """Bytes per second that an interface says it has; 0 when it does not."""
    try:
        told = int(Path(f"/sys/class/net/{interface}/speed").read_text())
    except (OSError, ValueError):
        return 0
    return max(0, told) * 125_000


def joined(places: Sequence[Place], rate: int = 1_250_000_000) -> Placed | None:
    """Join hosts by one switch, each by the interfaces that its ranks use; ``None`` when all share a host.

    Parameters
    ----------
    places
        What each rank tells.
    rate
        Of interfaces that do not tell theirs, in bytes per second.
    """
    hosts = list(dict.fromkeys(place.identity for place in places))
    if len(hosts) < 2:
        return None
    notes = [f"assumed: {format_rate(MEMORY_BYTES_PER_S)} between the ranks of a host, and one switch"]
    draft = Draft()
    names = host_names(places)
    devices = [
        draft.add(Node(f"rank{rank}", NodeKind.DEVICE, names[place.identity], "cpu"))
        for rank, place in enumerate(places)
    ]
    switch = draft.add(Node("network", NodeKind.SWITCH))
    for identity in hosts:
        name = names[identity]
        members = [rank for rank, place in enumerate(places) if place.identity == identity]
        host = draft.add(Node(name, NodeKind.HOST, name))
        for rank in members:
            draft.cable(devices[rank], host, MEMORY_BYTES_PER_S, 0.0, "memory")
        interfaces = {places[rank].interface: places[rank].bytes_per_s for rank in members}
        for interface, told in interfaces.items():
            if not told:
                notes.append(f"assumed: {format_rate(rate)} for {name}/{interface}, which tells no speed")
            nic = draft.add(Node(f"{name}/{interface or 'network'}", NodeKind.NIC, name))
            draft.cable(host, nic, told or rate, 0.0, "")
            draft.cable(nic, switch, told or rate, 0.0, "ethernet")
    topology = draft.topology("detected", notes)
    return Placed(topology, tuple(devices))


def host_names(places: Sequence[Place]) -> dict[str, str]:
    """Name each host, by its identity: its own name, with a number where several have the same."""
    hosts = dict.fromkeys(place.identity for place in places)
    told = {place.identity: place.host for place in places}
    names: dict[str, str] = {}
    for identity in hosts:
        name, number = told[identity], 1
        while name in names.values():
            number += 1
            name = f"{told[identity]}#{number}"
        names[identity] = name
    return names
