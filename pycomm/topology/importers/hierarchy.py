"""Trees of switches over named hosts, as schedulers describe them, made into a topology.

Such files name switches, hosts and domains of fast links, and say nothing of bandwidths or of what is
inside a host. All of that is assumed, and each assumption is noted.
"""

from __future__ import annotations

from pycomm.topology.importers.source import Reading, Source, count_of, rate_of, shown
from pycomm.topology.model import Node, NodeKind, Topology

__all__ = ["Hierarchy"]

DEFAULT_LINK = "400 Gbit/s"


class Hierarchy:
    """What the file says: switches with what is below them, and domains of hosts."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.made = Reading(source)
        self.switches: dict[str, int] = {}
        self.children: list[tuple[str, str, int]] = []
        self.hosts: dict[str, int] = {}
        self.attached: list[tuple[str, str, int]] = []
        self.domains: dict[str, tuple[int, list[str]]] = {}

    def switch(self, name: str, line: int) -> None:
        """Describe a switch."""
        if name in self.switches:
            self.source.fail(f"switch {name!r} is described twice; names must be unique", line)
        self.switches[name] = line

    def under(self, switch: str, children: list[str], line: int) -> None:
        """Put switches under a switch."""
        self.children += [(switch, child, line) for child in children]

    def attach(self, switch: str, hosts: list[str], line: int) -> None:
        """Attach hosts to a switch."""
        for host in hosts:
            self.hosts.setdefault(host, line)
        self.attached += [(switch, host, line) for host in hosts]

    def domain(self, name: str, hosts: list[str], line: int) -> None:
        """Put hosts into a domain of fast links; may be called several times for one."""
        for host in hosts:
            self.hosts.setdefault(host, line)
        self.domains.setdefault(name, (line, []))[1].extend(hosts)

    def topology(self, link: str, trunk: str, domain: str, devices: str | int, inside: str) -> Topology:
        """Build the graph.

        Parameters
        ----------
        link, trunk, domain, inside
            Bandwidths: host to switch, switch to switch (``"full"``: as much as the hosts below have
            together), device to its domain, and device to its host. Empty: a default, noted.
        devices
            How many devices each host has.
        """
        self._check()
        made = self.made
        per_host = count_of(devices, "devices", 1024)
        rate = rate_of(link or DEFAULT_LINK, "link")
        if not link:
            made.assumed("every link has, each way,", shown(rate), "link")
        inner = rate_of(inside, "inside") if inside else rate
        fast = rate_of(domain, "domain") if domain else rate
        if not domain and self.domains:
            made.assumed("a device's link to its block or domain has, each way,", shown(fast), "domain")
        made.note(
            f"assumed, as the file does not say: {per_host} device(s) in each host, each joined to "
            f"the host's one uplink at {shown(inner)} (set it with devices=..., inside=...)"
        )
        vertex: dict[str, int] = {}
        members: dict[str, list[int]] = {}
        for host, line in self.hosts.items():
            hub = made.node(Node(host, NodeKind.HOST, host), line)
            vertex[host] = hub
            for i in range(per_host):
                device = made.node(Node(made.free_name(f"{host}/{i}"), NodeKind.DEVICE, host), line)
                made.cable(device, hub, inner, "inside")
                members.setdefault(host, []).append(device)
        switch: dict[str, int] = {}
        for name, line in self.switches.items():
            switch[name] = made.node(Node(made.free_name(name), NodeKind.SWITCH), line)
        for name, host, line in self.attached:
            made.cable(vertex[host], switch[name], rate, "network", line=line)
        trunks = self._trunks(rate, trunk)
        for (parent, child, line), width in zip(self.children, trunks, strict=True):
            made.cable(switch[child], switch[parent], width, "network", line=line)
        for name, (line, hosts) in self.domains.items():
            hub = made.node(Node(made.free_name(name), NodeKind.SWITCH), line)
            for host in dict.fromkeys(hosts):
                for device in members[host]:
                    made.cable(device, hub, fast, "domain", line=line)
        return made.topology()

    def _check(self) -> None:
        for parent, child, line in self.children:
            if child not in self.switches:
                self.source.fail(
                    f"switch {parent!r} leads to {child!r}, which is not described; is the file cut short?",
                    line,
                )
        for name, line in self.switches.items():
            if name in self.hosts:
                self.source.fail(f"{name!r} is both a switch and a host", line)
        self._order()
        for label, pairs in (("a switch", self.children), ("a host", self.attached)):
            seen: set[tuple[str, str]] = set()
            for parent, child, line in pairs:
                if (parent, child) in seen:
                    self.source.fail(f"{child!r} is listed twice under {parent!r}; name {label} once", line)
                seen.add((parent, child))

    def _order(self) -> list[str]:
        """Switches, each after all that are below it; a circle is refused."""
        waiting = dict.fromkeys(self.switches, 0)
        parents: dict[str, list[str]] = {}
        for parent, child, _ in self.children:
            waiting[parent] += 1
            parents.setdefault(child, []).append(parent)
        order = [name for name, count in waiting.items() if not count]
        for name in order:
            for parent in parents.get(name, ()):
                waiting[parent] -= 1
                if not waiting[parent]:
                    order.append(parent)
        if len(order) < len(waiting):
            done = set(order)
            name = next(n for n in waiting if n not in done)
            self.source.fail(f"switch {name!r} is, through others, below itself", self.switches[name])
        return order

    def _trunks(self, rate: int, trunk: str) -> list[int]:
        """Bandwidth of each link between switches."""
        if trunk != "full":
            width = rate_of(trunk, "trunk") if trunk else rate
            if not trunk and self.children:
                self.made.note(
                    f"assumed, as the file does not say: one link of {shown(width)} between two switches "
                    "(set trunk=..., or trunk=full for as much as the hosts below have)"
                )
            return [width] * len(self.children)
        below: dict[str, int] = dict.fromkeys(self.switches, 0)
        for name, _, _ in self.attached:
            below[name] += 1
        children: dict[str, list[str]] = {}
        parents: dict[str, int] = {}
        for parent, child, _ in self.children:
            children.setdefault(parent, []).append(child)
            parents[child] = parents.get(child, 0) + 1
        for name in self._order():
            below[name] += sum(below[child] for child in children.get(name, ()))
        return [max(1, below[child]) * rate // parents[child] for _, child, _ in self.children]
