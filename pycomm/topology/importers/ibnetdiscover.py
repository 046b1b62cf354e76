"""InfiniBand fabrics as ``ibnetdiscover`` prints them: switches, adapters, and every cable with its rate.

Each end of a cable lists it; it is counted once. Aggregation nodes (SHARP) are adapters inside switches: they
are left out, and their switch is marked as able to combine and to replicate. An adapter's description tells
its host (``"node7 mlx5_5"``, ``"node7 HCA-6"``) unless it still is the factory's.

The inside of hosts is not in the file. Unless told otherwise, every adapter serves one device of its own.

References
----------
linux-rdma/rdma-core ``infiniband-diags/ibnetdiscover.c`` and its manual page: topology file format.
InfiniBand Trade Association, roadmap: rates by name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from pycomm.errors import UsageError
from pycomm.topology.importers.source import Reading, Source, joined, natural, rate_of, shown
from pycomm.topology.model import Node, NodeKind, Topology

__all__ = ["ibnetdiscover"]

_LANE_MBITS = {
    "SDR": 2_500,
    "DDR": 5_000,
    "QDR": 10_000,
    "FDR10": 10_000,
    "FDR": 14_000,
    "EDR": 25_000,
    "HDR": 50_000,
    "NDR": 100_000,
    "XDR": 200_000,
}
"""Mbit/s of one lane by name."""

_DEFAULT_LINK = 12_500_000_000

_VERTEX = re.compile(
    r'(Switch|Ca|Hca|Rt|Router)\s+([0-9]{1,6})\s+"([^"]+)"\s*(?:#\s*"(.*)"(.*))?', re.IGNORECASE
)
_PORT = re.compile(
    r"\[([0-9]{1,6})\](?:\[ext [0-9]+\])?(?:\([^()]*\))?\s*"
    r'"([^"]+)"\[([0-9]{1,6})\](?:\[ext [0-9]+\])?(?:\([^()]*\))?\s*(?:#\s*(.*))?'
)
_NAMED = re.compile(r'"([^"]*)"')
_RATE = re.compile(r"\b([0-9]{1,2})x([A-Z]+[0-9]*|[0-9]{1,9}(?:\.[0-9]{1,9})?)(?:\s|$)")
_PROPERTY = re.compile(r"[A-Za-z]\w*=")
_ADAPTER = re.compile(
    r"(?:mlx|mthca|hca|hfi|qib|ipath|bnxt|irdma|ib|opa|roce|rdma|cx)[\w.:-]*", re.IGNORECASE
)
_FACTORY = re.compile(
    r"^MT[0-9]|mellanox|technologies|connectx|infinihost|nvidia|qlogic|intel", re.IGNORECASE
)


class _Port(NamedTuple):
    """One line of a section: port ``number`` of ``owner`` leads to port ``far_number`` of ``far``."""

    owner: str
    number: int
    far: str
    far_number: int
    bytes_per_s: int
    far_text: str
    line: int


class _Adapter(NamedTuple):
    """An adapter whose host is ``""`` when its description does not tell."""

    host: str
    name: str
    guid: str


def ibnetdiscover(
    source: Source,
    *,
    link: str = "",
    inside: str = "",
    devices: str = "nic",
    only: str = "",
    sharp: str = "yes",
) -> Topology:
    """Read the output of ``ibnetdiscover``.

    Parameters
    ----------
    source
        The file.
    link
        Bandwidth of cables whose lines have no rate (old versions of the program).
    inside
        Bandwidth of each device to a switch inside its host; by default devices meet only in the fabric.
    devices
        ``"nic"``: one device for each adapter; ``"host"``: one for each host, on all its adapters.
    only
        Regular expression: adapters whose description does not match are left out, such as storage.
    sharp
        ``"yes"`` or ``"no"``: whether switches with an aggregation node count as able to combine.
    """
    if devices not in ("nic", "host"):
        raise UsageError(f"devices={devices!r} must be 'nic' or 'host'")
    if sharp not in ("yes", "no"):
        raise UsageError(f"sharp={sharp!r} must be 'yes' or 'no'")
    try:
        wanted = re.compile(only)
    except re.error as error:
        raise UsageError(f"only={only!r} is not a regular expression: {error}") from None
    return _Fabric(source, link, inside, devices, wanted, sharp == "yes").read()


class _Fabric:
    def __init__(
        self, source: Source, link: str, inside: str, devices: str, only: re.Pattern[str], sharp: bool
    ) -> None:
        self.source, self.made = source, Reading(source)
        self.link = rate_of(link, "link") if link else 0
        self.inside = rate_of(inside, "inside") if inside else 0
        self.devices, self.only, self.sharp = devices, only, sharp
        self.texts: dict[str, tuple[str, str, int]] = {}
        """Kind, description and line of each vertex by its guid, as its own section says."""
        self.ports: list[_Port] = []

    def read(self) -> Topology:
        self._lines()
        if not self.ports:
            switches = sum(kind == "switch" for kind, _, _ in self.texts.values())
            self.source.fail(
                f"there are {switches} switches and {len(self.texts) - switches} other ends, but no links; "
                "is the file cut short, or the subnet down?"
            )
        self._unlisted()
        cables = self._cables()
        aggregation = {
            guid for guid, (kind, text, _) in self.texts.items() if kind == "ca" and _aggregates(text)
        }
        reducing = {
            a if b in aggregation else b for a, b, _, _ in cables if (a in aggregation) != (b in aggregation)
        }
        if aggregation:
            self.made.note(
                f"left out: {len(aggregation)} aggregation nodes (SHARP)"
                + (f"; their {len(reducing)} switches are marked as able to combine" if self.sharp else "")
            )
        rates: Counter[str] = Counter()
        for a, b, rate, _ in cables:
            rates[a] += rate
            rates[b] += rate
        vertex = self._vertices(aggregation, reducing if self.sharp else set(), rates)
        for a, b, rate, line in cables:
            if a in vertex and b in vertex:
                self.made.cable(vertex[a], vertex[b], rate, "infiniband", line=line)
        return self.made.topology()

    # -- the text ------------------------------------------------------------------------------------------

    def _lines(self) -> None:
        owner, unread = "", 0
        for number, text in enumerate(self.source.text.splitlines(), 1):
            text = text.strip()
            if not text or text[0] == "#":
                continue
            if text[0] == "[":
                self._port(owner, text, number)
            elif match := _VERTEX.fullmatch(text):
                owner = match[3]
                if owner in self.texts:
                    self.source.fail(f"{owner!r} has two sections", number)
                kind = match[1].lower()
                kind = {"hca": "ca", "router": "rt"}.get(kind, kind)
                self.texts[owner] = (kind, (match[4] or "").strip(), number)
            elif not _PROPERTY.match(text):
                unread += 1
                if not self.texts and unread > 20:
                    self.source.fail("this does not look like the output of ibnetdiscover", number)
                if re.match(r"(?:switch|ca|hca|rt)\b", text, re.IGNORECASE):
                    self.source.fail("this line is not whole; is the file cut short?", number)
        if not self.texts:
            self.source.fail("there is no line 'Switch', 'Ca' or 'Rt'; is this the output of ibnetdiscover?")
        if unread:
            self.made.skip("lines that are not of the topology format", unread)

    def _port(self, owner: str, text: str, number: int) -> None:
        match = _PORT.fullmatch(text)
        if match is None or not owner:
            self.source.fail(f"the port {text[:50]!r} is not whole; is the file cut short?", number)
        comment = match[4] or ""
        rates = list(_RATE.finditer(comment))
        rate = self._rate(rates[-1], number) if rates else 0
        names = _NAMED.findall(comment)
        self.ports.append(
            _Port(owner, int(match[1]), match[2], int(match[3]), rate, names[0] if names else "", number)
        )

    def _rate(self, match: re.Match[str], line: int) -> int:
        lanes, name = int(match[1]), match[2]
        if name in _LANE_MBITS:
            return lanes * _LANE_MBITS[name] * 125_000
        if name[0].isdigit():
            return round(lanes * float(name) * 125_000_000)
        self.source.fail(
            f"the rate {match[0].strip()!r} is not known; known are {', '.join(_LANE_MBITS)}", line
        )

    # -- the fabric ----------------------------------------------------------------------------------------

    def _unlisted(self) -> None:
        """Add adapters and routers that only their peers tell of; a switch must have its own section."""
        unlisted = []
        for port in self.ports:
            if port.far not in self.texts:
                kind = {"S": "switch", "R": "rt"}.get(port.far[0].upper(), "ca")
                if kind == "switch":
                    self.source.fail(
                        f"port {port.number} leads to switch {port.far!r}, which has no section; "
                        "is the file cut short?",
                        port.line,
                    )
                self.texts[port.far] = (kind, port.far_text.strip(), port.line)
                unlisted.append(port.far)
        if unlisted:
            self.made.note(f"without a section of their own, known from their peers only: {joined(unlisted)}")

    def _cables(self) -> list[tuple[str, str, int, int]]:
        """Every cable once, with its rate and line."""
        cables: dict[frozenset[tuple[str, int]], tuple[str, str, int, int]] = {}
        taken: dict[tuple[str, int], int] = {}
        for port in self.ports:
            near, far = (port.owner, port.number), (port.far, port.far_number)
            if near in taken:
                self.source.fail(f"port {port.number} of {port.owner!r} is listed twice", port.line)
            taken[near] = port.line
            if port.owner == port.far:
                self.made.skip("cables from a switch to itself")
                continue
            ends = frozenset((near, far))
            known = cables.get(ends)
            rate = port.bytes_per_s
            if known is None:
                cables[ends] = (port.owner, port.far, rate, port.line)
            elif rate and known[2] and rate != known[2]:
                self.made.note(
                    f"the two ends of the cable of line {known[3]} and line {port.line} give different "
                    "rates: the lower counts"
                )
                cables[ends] = (*known[:2], min(rate, known[2]), known[3])
            elif rate:
                cables[ends] = (*known[:2], rate, known[3])
        default = self.link or _DEFAULT_LINK
        unrated = sum(not cable[2] for cable in cables.values())
        if unrated:
            self.made.assumed(f"{unrated} cables without a rate have, each way,", shown(default), "link")
        return [(a, b, rate or default, line) for a, b, rate, line in cables.values()]

    def _vertices(
        self, aggregation: set[str], reducing: set[str], rates: Mapping[str, int]
    ) -> dict[str, int]:
        """Add switches and routers as they stand, then adapters and devices by the names of hosts."""
        vertex: dict[str, int] = {}
        uses = Counter(text for _, text, _ in self.texts.values())
        adapters: list[_Adapter] = []
        for guid, (kind, text, line) in self.texts.items():
            name = text if text and uses[text] == 1 else f"{text} {guid}".strip()
            if kind != "ca":
                able = guid in reducing
                node = Node(self.made.free_name(name), NodeKind.SWITCH, multicast=able, reduction=able)
                vertex[guid] = self.made.node(node, line)
                if kind == "rt":
                    self.made.note("routers count as switches")
            elif guid in aggregation:
                continue
            elif not self.only.search(text):
                self.made.skip("adapters that `only` does not match")
            elif guid not in rates:
                self.made.skip("adapters without a cable")
            else:
                adapters.append(_Adapter(_host_of(text), name, guid))
        self._hosts(adapters, vertex, rates)
        return vertex

    def _hosts(self, adapters: list[_Adapter], vertex: dict[str, int], rates: Mapping[str, int]) -> None:
        """Add adapters and devices, host by host; an adapter whose host is not known is a host of its own."""
        hosts: dict[str, list[_Adapter]] = {}
        for adapter in sorted(adapters, key=lambda a: (not a.host, natural(a.host), natural(a.name), a.guid)):
            hosts.setdefault(adapter.host or f"\0{adapter.guid}", []).append(adapter)
        lost = sum(key[0] == "\0" for key in hosts)
        if lost:
            self.made.note(
                f"{lost} adapters have the factory's description, which does not tell their host: "
                "each counts as a host of its own"
            )
        self.made.note(
            f"assumed, as the file does not say: each {'adapter' if self.devices == 'nic' else 'host'} serves"
            " one device, over links as fast as the adapter's cables (set it with devices=nic or host)"
        )
        if not self.inside:
            self.made.note(
                "the inside of hosts is not in the file: devices meet in the fabric (set inside=...)"
            )
        for members in hosts.values():
            host = members[0].host
            stem = host or members[0].guid
            shares = [members] if self.devices == "host" else [[adapter] for adapter in members]
            devices = [
                self.made.node(Node(self.made.free_name(f"{stem}/{i}"), NodeKind.DEVICE, host or stem))
                for i in range(len(shares))
            ]
            for device, share in zip(devices, shares, strict=True):
                for adapter in share:
                    name = self.made.free_name(adapter.name)
                    vertex[adapter.guid] = self.made.node(Node(name, NodeKind.NIC, host or stem))
                    self.made.cable(device, vertex[adapter.guid], rates[adapter.guid], "pcie")
            if self.inside and len(devices) > 1:
                hub = self.made.node(
                    Node(self.made.free_name(f"{stem}/inside"), NodeKind.SWITCH, host or stem)
                )
                for device in devices:
                    self.made.cable(device, hub, self.inside, "inside")


def _aggregates(text: str) -> bool:
    return "aggregation node" in text.lower()


def _host_of(text: str) -> str:
    """Return the host that an adapter's description names, ``""`` when it is the factory's."""
    words = text.replace("'", "").split()
    if not words or _FACTORY.search(text):
        return ""
    if len(words) == 1 or (len(words) == 2 and _ADAPTER.fullmatch(words[1])):
        return words[0]
    return ""
