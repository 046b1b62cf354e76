"""What every importer shares: the text with its name, the topology under construction, and the assumptions.

An importer is a function that takes a :class:`Source` and keyword-only assumptions, builds a
:class:`Reading` and returns its topology. What the file does not say is an assumption with a default; each
one that was used becomes a note, and so does everything that was left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, NoReturn

from pycomm.errors import TopologyError, UsageError
from pycomm.topology.model import MAX_BYTES_PER_S, Link, Node, NodeKind, Topology
from pycomm.units import format_rate, parse_exact_rate

__all__ = ["Reading", "Source", "count_of", "joined", "natural", "rate_of", "read_text"]

MAX_FILE_BYTES = 256 * 2**20
"""Larger files are refused: no description of a network needs more."""

MAX_VERTICES = 2_000_000
"""A short file can ask for many vertices by ranges of names; more than this is refused."""


class Source(NamedTuple):
    """A file's name, for messages, and its text."""

    name: str
    text: str

    def fail(self, problem: str, line: int = 0, field: str = "") -> NoReturn:
        """Refuse the file, with the place.

        Raises
        ------
        TopologyError
            Always: ``name:line: field: problem``.
        """
        place = self.name.replace("\n", " ") + (f":{line}" if line else "") + (f": {field}" if field else "")
        words = (word if len(word) <= 120 else f"{word[:60]}..." for word in problem.split())
        said = " ".join(words)
        raise TopologyError(f"{place}: {said if len(said) <= 600 else said[:597] + '...'}")


def read_text(path: str | Path) -> Source:
    """Read a file as UTF-8 text.

    Raises
    ------
    TopologyError
        It cannot be read, is too large, is binary, or is not UTF-8.
    """
    name = str(path)
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TopologyError(f"{name}: cannot be read: {reason}") from None
    return decode(raw, name)


def decode(raw: bytes, name: str) -> Source:
    """Take bytes as UTF-8 text, with or without a byte order mark."""
    source = Source(name, "")
    if len(raw) > MAX_FILE_BYTES:
        source.fail(f"the file is larger than {MAX_FILE_BYTES >> 20} MiB; no topology file needs so much")
    zero = raw.find(b"\0")
    if zero >= 0:
        source.fail(
            f"byte {zero} is 0, so this is a binary file or UTF-16 text; topology files are UTF-8 text",
            raw.count(b"\n", 0, zero) + 1,
        )
    try:
        return Source(name, raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        source.fail("the text is not UTF-8; convert it, or check that this is a topology file", line)


class Reading:
    """A topology being read: vertices, links, what was assumed and what was left out.

    Parameters
    ----------
    source
        Where it comes from.
    name
        Its name; by default the file's name without directories.
    """

    def __init__(self, source: Source, name: str = "") -> None:
        self.source = source
        self.name = name or Path(source.name).name or source.name
        self.nodes: list[Node] = []
        self.links: list[Link] = []
        self.index: dict[str, int] = {}
        self._notes: dict[str, None] = {}
        self._numbers: dict[str, int] = {}
        self._skipped: dict[str, int] = {}

    def node(self, node: Node, line: int = 0) -> int:
        """Add a vertex; a name that is taken is refused. Returns its index."""
        if node.name in self.index:
            self.source.fail(f"{node.name!r} is described twice; names must be unique", line)
        if len(self.nodes) >= MAX_VERTICES:
            self.source.fail(f"there are more than {MAX_VERTICES} vertices; that is too many", line)
        self.index[node.name] = len(self.nodes)
        self.nodes.append(node)
        return len(self.nodes) - 1

    def free_name(self, wanted: str) -> str:
        """Return the name if it is free, otherwise the name with the first free number behind it."""
        name, number = wanted, self._numbers.get(wanted, 1)
        while name in self.index:
            number += 1
            name = f"{wanted} ({number})"
        self._numbers[wanted] = number
        return name

    def link(
        self, src: int, dst: int, bytes_per_s: int, kind: str = "", latency_s: float = 0.0, line: int = 0
    ) -> None:
        """Add a one-way link; a bandwidth that cannot be is refused with its line."""
        if src == dst:
            self.source.fail(f"a link leads from {self.nodes[src].name!r} to itself; leave it out", line)
        if not 0 < bytes_per_s <= MAX_BYTES_PER_S:
            self.source.fail(
                f"the link between {self.nodes[src].name!r} and {self.nodes[dst].name!r} has a bandwidth of "
                f"{bytes_per_s} B/s; it must be more than 0 and at most 10^18; leave out a link that is down",
                line,
            )
        if not 0 <= latency_s < 1e9:
            self.source.fail(f"the latency {latency_s} s cannot be; it must be 0 or more", line)
        self.links.append(Link(src, dst, bytes_per_s, latency_s, kind))

    def cable(
        self, a: int, b: int, bytes_per_s: int, kind: str = "", latency_s: float = 0.0, line: int = 0
    ) -> None:
        """Add a link each way."""
        self.link(a, b, bytes_per_s, kind, latency_s, line)
        self.link(b, a, bytes_per_s, kind, latency_s, line)

    def note(self, text: str) -> None:
        """Say something once, however often it is asked for."""
        self._notes[text] = None

    def assumed(self, what: str, value: str, keyword: str) -> None:
        """Note a figure that the file does not give, and the keyword that changes it."""
        self.note(f"assumed, as the file does not say: {what} {value} (set it with {keyword}=...)")

    def skip(self, what: str, count: int = 1) -> None:
        """Count something that is left out."""
        what = what if len(what) <= 120 else f"{what[:117]}..."
        self._skipped[what] = self._skipped.get(what, 0) + count

    def topology(self) -> Topology:
        """Finish: order the devices' notes and check the whole.

        Raises
        ------
        TopologyError
            There is no device, or the description contradicts itself.
        """
        if not any(node.kind is NodeKind.DEVICE for node in self.nodes):
            left = "".join(f"; left out: {count} {what}" for what, count in self._skipped.items())
            self.source.fail(f"the file describes no device, so there is nothing to plan for{left}")
        skipped = [f"left out: {count} {what}" for what, count in self._skipped.items()]
        return Topology(self.name, tuple(self.nodes), tuple(self.links), (*self._notes, *skipped))


def rate_of(value: object, keyword: str) -> int:
    """Read an assumed bandwidth such as ``"400 Gbit/s"``: whole bytes per second.

    Raises
    ------
    UsageError
        It is not a text with a unit, or not positive.
    """
    if not isinstance(value, str):
        raise UsageError(f"{keyword}={value!r} has no unit; write it like {keyword}='400 Gbit/s'")
    try:
        rate = round(parse_exact_rate(value))
    except ValueError as error:  # a number of thousands of digits is one, and so is a wrong unit
        raise UsageError(f"{keyword}={value[:60]!r}: {str(error)[:200]}") from None
    if not 0 < rate <= MAX_BYTES_PER_S:
        raise UsageError(f"{keyword}={value!r} must be at least 1 B/s and at most 10^18 B/s")
    return rate


def count_of(value: object, keyword: str, most: int = 100_000) -> int:
    """Read an assumed number, at least 1.

    Raises
    ------
    UsageError
        It is not a whole number from 1 to ``most``.
    """
    text = str(value)
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise UsageError(f"{keyword}={value!r} must be a whole number from 1 to {most}")
    return int(text)


def natural(text: str) -> tuple[tuple[int, str], ...]:
    """Key that sorts ``node2`` before ``node10``."""
    return tuple(
        (int(part), part) if part.isascii() and part.isdigit() and len(part) < 4000 else (-1, part)
        for part in re.split(r"([0-9]+)", text)
    )


def joined(items: Iterable[str], most: int = 8) -> str:
    """Print the first few of a list, and how many more there are."""
    every = list(items)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def shown(bytes_per_s: int) -> str:
    """Print a bandwidth for a note, in bytes and bits."""
    return f"{format_rate(bytes_per_s)} ({bytes_per_s * 8 / 1e9:g} Gbit/s)"
