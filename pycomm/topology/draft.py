"""A topology while it is being made: what generators and files add vertices and links to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import lru_cache

from pycomm.errors import TopologyError, UsageError
from pycomm.topology.model import MAX_BYTES_PER_S, Link, Node, Topology
from pycomm.topology.names import MAX_NAMES, expand, has_wildcard, is_plain, matches, words
from pycomm.units import parse_exact_rate, parse_time

__all__ = ["MAX_LINKS", "Draft", "Latency", "Rate", "latency_of", "rate_of"]

MAX_LINKS = 10_000_000
"""More links than this are a mistake."""

Rate = str | int
"""A rate with its unit, ``"200 Gbit/s"``, or whole bytes per second."""

Latency = str | float
"""A time with its unit, ``"1.5 us"``, or seconds."""


def rate_of(rate: Rate) -> int:
    """Whole bytes per second of a rate.

    Raises
    ------
    TopologyError
        The unit is unknown, the rate is not positive, not whole, or too large to be true.

    Examples
    --------
    >>> rate_of("100 Gbit/s"), rate_of(12_500_000_000)
    (12500000000, 12500000000)
    """
    if isinstance(rate, str):
        exact = _parsed_rate(rate)
    elif isinstance(rate, int) and not isinstance(rate, bool):
        exact = Fraction(rate)
    else:
        raise TopologyError(f"{rate!r} is not a rate; write it with its unit, as '200 Gbit/s' or '25 GB/s'")
    if exact <= 0:
        raise TopologyError(f"a bandwidth of {rate} is none; leave out a link that is down")
    if exact.denominator != 1:
        raise TopologyError(f"{rate!r} is not a whole number of bytes per second")
    if exact > MAX_BYTES_PER_S:
        raise TopologyError(f"{rate!r} is more than 10^18 bytes per second; check the unit")
    return int(exact)


def latency_of(latency: Latency) -> float:
    """Seconds of a latency.

    Raises
    ------
    TopologyError
        The unit is unknown, or the time is negative or not finite.

    Examples
    --------
    >>> latency_of("1.5 us"), latency_of(0.0)
    (1.5e-06, 0.0)
    """
    if isinstance(latency, str):
        return _parsed_time(latency)
    if isinstance(latency, bool) or not isinstance(latency, int | float) or not 0 <= latency < math.inf:
        raise TopologyError(f"{latency!r} is not a latency; write it with its unit, as '1.5 us'")
    return float(latency)


@lru_cache(4096)
def _parsed_rate(text: str) -> Fraction:
    try:
        return parse_exact_rate(text)
    except UsageError as error:
        raise TopologyError(str(error)) from None


@lru_cache(4096)
def _parsed_time(text: str) -> float:
    try:
        return parse_time(text)
    except UsageError as error:
        raise TopologyError(str(error)) from None


class Draft:
    """Vertices and links so far.

    Attributes
    ----------
    nodes, links, index
        As in :class:`~pycomm.topology.model.Topology`, but still growing.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.links: list[Link] = []
        self.index: dict[str, int] = {}

    def expect(self, *, nodes: int = 0, links: int = 0) -> None:
        """Refuse more vertices and links than there can be, before time is spent on making them."""
        if len(self.nodes) + nodes > MAX_NAMES:
            raise TopologyError(f"there are more than {MAX_NAMES} vertices; check the counts")
        if len(self.links) + links > MAX_LINKS:
            raise TopologyError(f"there are more than {MAX_LINKS} links; check the counts")

    def add(self, node: Node) -> int:
        """Add a vertex; return its index."""
        number = len(self.nodes)
        if self.index.setdefault(node.name, number) != number:
            raise TopologyError(f"a vertex named {node.name!r} is there already; names must be unique")
        if number >= MAX_NAMES:
            self.expect(nodes=1)
        self.nodes.append(node)
        return number

    def join(
        self,
        src: int,
        dst: int,
        bytes_per_s: int,
        *,
        back: int = 0,
        latency_s: float = 0.0,
        kind: str = "",
        copies: int = 1,
    ) -> None:
        """Add links from one vertex to another, and back when ``back`` is the rate of that way."""
        if src == dst:
            raise TopologyError(f"a link leads from {self.nodes[src].name!r} to itself; give it two ends")
        if len(self.links) + copies > MAX_LINKS:
            self.expect(links=copies)
        for _ in range(copies):
            self.links.append(Link(src, dst, bytes_per_s, latency_s, kind))
            if back:
                self.links.append(Link(dst, src, back, latency_s, kind))

    def cable(self, a: int, b: int, rate: int, latency_s: float, kind: str, copies: int = 1) -> None:
        """Add a cable: a link each way."""
        self.join(a, b, rate, back=rate, latency_s=latency_s, kind=kind, copies=copies)

    def merge(self, topology: Topology, prefix: str = "") -> list[int]:
        """Add a whole topology, the prefix before all names of vertices and hosts; return the new indices."""
        return self._adopt(
            topology,
            lambda node: node._replace(name=prefix + node.name, host=prefix + node.host if node.host else ""),
        )

    def place(self, template: Topology, name: str) -> list[int]:
        """Add an instance of a template; return the new indices.

        Its vertices are called ``NAME/VERTEX``. Where the template names at most one host, all are part of
        the host NAME; where it names several, those of a host are part of ``NAME/HOST``.
        """
        one = len({node.host for node in template.nodes} - {""}) <= 1

        def renamed(node: Node) -> Node:
            host = name if one else f"{name}/{node.host}" if node.host else ""
            return node._replace(name=f"{name}/{node.name}", host=host)

        return self._adopt(template, renamed)

    def _adopt(self, topology: Topology, renamed: Callable[[Node], Node]) -> list[int]:
        first = len(self.nodes)
        numbers = [self.add(renamed(node)) for node in topology.nodes]
        self.expect(links=len(topology.links))
        self.links.extend(Link(link.src + first, link.dst + first, *link[2:]) for link in topology.links)
        return numbers

    def find(self, text: str) -> list[int]:
        """Find the vertices that a text with ranges and wildcards refers to, in the order of its words.

        Raises
        ------
        TopologyError
            A name is not there, or a wildcard fits none.
        """
        if text in self.index and is_plain(text):
            return [self.index[text]]
        found: list[int] = []
        for word in words(text) or [text]:
            if has_wildcard(word):
                names: Sequence[str] = matches(word, self.index)
                if not names:
                    raise TopologyError(f"no vertex is named like {word!r}")
            else:
                names = expand(word)
            for name in names:
                if name not in self.index:
                    raise TopologyError(f"there is no vertex named {name!r}{self._hint(name)}")
                found.append(self.index[name])
        return found

    def _hint(self, name: str) -> str:
        from difflib import get_close_matches

        close = get_close_matches(name, list(self.index)[:5000], 1)
        return f"; did you mean {close[0]!r}?" if close else "; list it under [[node]] first"

    def drop(self, *, nodes: Iterable[int] = (), links: Iterable[int] = ()) -> None:
        """Take out vertices with all their links, and links by number."""
        dead, cut = set(nodes), set(links)
        kept = [i for i in range(len(self.nodes)) if i not in dead]
        renumbered = {old: new for new, old in enumerate(kept)}
        self.links = [
            link._replace(src=renumbered[link.src], dst=renumbered[link.dst])
            for number, link in enumerate(self.links)
            if number not in cut and link.src in renumbered and link.dst in renumbered
        ]
        self.nodes = [self.nodes[i] for i in kept]
        self.index = {node.name: i for i, node in enumerate(self.nodes)}

    def topology(self, name: str, notes: Iterable[str] = ()) -> Topology:
        """Finish."""
        return Topology(name, tuple(self.nodes), tuple(self.links), tuple(notes))
