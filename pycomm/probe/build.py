"""A topology from what was measured: ranks, their hosts, and what each rail turned out to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pycomm.cost import Links
from pycomm.group_network import MEMORY_BYTES_PER_S, Place, host_names
from pycomm.topology.draft import Draft
from pycomm.topology.inference import rounded
from pycomm.topology.model import Node, NodeKind, Topology

__all__ = ["Found", "build"]

Rates = npt.NDArray[np.float64]
Flow = tuple[int, int]


@dataclass
class Found:
    """What was measured on one rail, in bytes per second and seconds.

    ``groups`` are racks with what leaves and enters each; ``joined`` are cables where there is no switch.
    """

    alone: Rates
    latency: Rates
    leaving: Rates
    entering: Rates
    groups: tuple[tuple[int, ...], ...] = ()
    group_rates: list[tuple[float, float]] = field(default_factory=list)
    joined: tuple[Flow, ...] = ()
    notes: list[str] = field(default_factory=list)


def build(
    places: Sequence[Place], hosts: Sequence[str], rails: Sequence[str], found: Sequence[Found]
) -> Topology:
    """Build the topology: ranks, their hosts, and what each rail turned out to be."""
    names = host_names(places)
    draft = Draft()
    devices = [
        draft.add(Node(f"rank{rank}", NodeKind.DEVICE, names[place.identity], "cpu"))
        for rank, place in enumerate(places)
    ]
    inner = {host: draft.add(Node(names[host], NodeKind.HOST, names[host])) for host in hosts}
    memory = max(MEMORY_BYTES_PER_S, 2 * int(max(rail.leaving.max() for rail in found)))
    stretch = Links().between.stretch  # what was measured is data; links carry headers, too
    rates = {
        rate: round(value * stretch)
        for rate, value in rounded(rate for rail in found for rate in _rates(rail)).items()
    }
    for rail, measured in zip(rails, found, strict=True):
        receivers = [
            [r for r, p in enumerate(places) if p.identity == host and rail in ("", p.interface)]
            for host in hosts
        ]
        _add_rail(draft, rail, measured, rates, [inner[host] for host in hosts], receivers, devices)
    # what comes from a rank's own NIC takes its part of the rank's memory
    taken = [0] * len(places)
    for link in draft.links:
        if link.dst in devices:
            taken[devices.index(link.dst)] += link.bytes_per_s
    for rank, place in enumerate(places):
        host = inner[place.identity]
        draft.join(devices[rank], host, memory, back=memory - taken[rank], kind="memory")
    notes = ["measured: rates have two digits, rates within 12% of one another are taken for equal"]
    notes += [note for rail in found for note in rail.notes]
    return draft.topology("probed", notes)


def _rates(rail: Found) -> list[float]:
    if rail.joined:
        return [float(rail.alone[pair]) for pair in rail.joined]
    return [
        *rail.leaving.tolist(),
        *rail.entering.tolist(),
        *(rate for both in rail.group_rates for rate in both),
    ]


def _add_rail(
    draft: Draft,
    rail: str,
    found: Found,
    rates: dict[float, int],
    inner: Sequence[int],
    receivers: Sequence[Sequence[int]],
    devices: Sequence[int],
) -> None:
    n = len(inner)
    if found.joined:
        for i, j in found.joined:
            latency = _latency(found.latency[i, j])
            draft.join(inner[i], inner[j], rates[float(found.alone[i, j])], latency_s=latency)
        return
    groups = found.groups or (tuple(range(n)),)
    suffix = f"-{rail}" if rail else ""
    half = _latency(float(np.median(found.latency[~np.eye(n, dtype=bool)]))) / 2
    switches = [
        draft.add(Node(f"switch{k}{suffix}" if len(groups) > 1 else f"switch{suffix}", NodeKind.SWITCH))
        for k in range(len(groups))
    ]
    for k, group in enumerate(groups):
        for i in group:
            name = draft.nodes[inner[i]].host
            nic = draft.add(Node(f"{name}/nic{suffix}", NodeKind.NIC, name))
            out, into = rates[float(found.leaving[i])], rates[float(found.entering[i])]
            draft.join(inner[i], nic, out)
            draft.join(nic, switches[k], out, back=into, latency_s=half, kind="ethernet")
            if len(receivers[i]) == sum(draft.nodes[d].host == name for d in devices):
                draft.join(nic, inner[i], into)
            else:
                for rank in receivers[i]:
                    draft.join(nic, devices[rank], into)
    if len(groups) == 2:
        sent, received = found.group_rates
        there, back = rates[max(sent[0], received[1])], rates[max(sent[1], received[0])]
        draft.join(switches[0], switches[1], there, back=back, kind="trunk")
    elif len(groups) > 2:
        core = draft.add(Node(f"core{suffix}", NodeKind.SWITCH))
        for switch, (sends, receives) in zip(switches, found.group_rates, strict=True):
            draft.join(switch, core, rates[sends], back=rates[receives], kind="trunk")


def _latency(measured_s: float) -> float:
    """Return what a way adds to the software's own latency, in whole tenths of a microsecond."""
    return round(max(0.0, measured_s - Links().between.latency_s) * 1e7) / 1e7
