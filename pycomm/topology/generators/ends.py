"""What generators attach to their switches: bare devices, or the ports of hosts made from templates."""

from __future__ import annotations

from collections.abc import Sequence

from pycomm.errors import TopologyError
from pycomm.topology.draft import Draft
from pycomm.topology.model import Node, NodeKind, Topology

__all__ = ["Hosts", "attach", "counted", "positive", "template_of"]

Hosts = Topology | str | Sequence[Topology | str]
"""A template, or the name of one in the catalogue, or several."""


def positive(value: int, what: str, least: int = 1) -> int:
    """Refuse counts that are too small.

    Raises
    ------
    TopologyError
        The count is not a whole number of at least ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise TopologyError(f"{what} = {value!r}: it must be a whole number of {least} or more")
    return value


def template_of(host: Topology | str) -> Topology:
    """Look a template up by name, where it is one."""
    if isinstance(host, Topology):
        return host
    from pycomm.topology.catalogue import named  # the catalogue reads files, and files call generators

    return named(host)


def counted(host: Hosts | None, hosts: int | Sequence[int]) -> list[tuple[Topology | None, int]]:
    """Pair templates with how many hosts are made of each; no template means bare devices."""
    if host is None or isinstance(host, Topology | str):
        if not isinstance(hosts, int):
            raise TopologyError(
                "hosts is a list of counts, but host is not a list of templates; give both or none"
            )
        return [(None if host is None else template_of(host), positive(hosts, "hosts"))]
    counts = [hosts] * len(host) if isinstance(hosts, int) else list(hosts)
    if not host or len(counts) != len(host):
        raise TopologyError(
            f"host lists {len(host)} templates, but hosts {len(counts)} counts; give one of each"
        )
    return [(template_of(one), positive(count, "hosts")) for one, count in zip(host, counts, strict=True)]


def _ports(template: Topology, ports: str) -> list[int]:
    """Vertices of a template that go to the network: those named, or its NICs, or else its devices."""
    if ports:
        draft = Draft()
        draft.merge(template)
        return draft.find(ports)
    nics = [i for i, node in enumerate(template.nodes) if node.kind is NodeKind.NIC]
    return nics or list(template.devices)


def attach(draft: Draft, hosts: Sequence[tuple[Topology | None, int]], ports: str = "") -> list[list[int]]:
    """Make the hosts; return the indices of the ports of each.

    Hosts are named ``host0``, ``host1``, ..., bare devices ``device0``, ``device1``, ...
    """
    made: list[list[int]] = []
    draft.expect(
        nodes=sum(count * (len(template.nodes) if template else 1) for template, count in hosts),
        links=sum(count * len(template.links) for template, count in hosts if template),
    )
    for template, count in hosts:
        if template is None:
            made.extend(
                [draft.add(Node(f"device{i}", NodeKind.DEVICE))] for i in range(len(made), len(made) + count)
            )
            continue
        which = _ports(template, ports)
        if not which:
            raise TopologyError(f"the host template {template.name!r} has no NIC and no device to attach")
        for i in range(len(made), len(made) + count):
            numbers = draft.place(template, f"host{i}")
            made.append([numbers[port] for port in which])
    return made
