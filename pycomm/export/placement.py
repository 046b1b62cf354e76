"""Where ranks go: an order of the devices written for the launchers and libraries that take one.

=================  =======================================================================================
``rankfile``       Open MPI (``mpirun --rankfile F``): the host and the slot of each rank
``hostfile``       hosts with their slots, in the order in which a launcher fills them
``slurm``          a host per rank, for ``SLURM_HOSTFILE=F srun --distribution=arbitrary``
=================  =======================================================================================

Rank i goes where device ``order[i]`` of the topology is. The slot of a device is its number among the devices
of its host. :func:`nccl_graph` writes rings for NCCL and its kin (``NCCL_GRAPH_FILE``), which number the
devices of a host in the same way.

:func:`renumbered_ranktable` rewrites the rank ids of a rank table of Huawei's that is there already: it names
addresses, which a topology does not.

References
----------
open-mpi/ompi: ``docs/man-openmpi/man1/mpirun.1.rst`` (rank files); SchedMD/slurm: ``doc/man/man1/srun.1``
(arbitrary distribution); NVIDIA/nccl: ``src/graph/xml.cc`` and ``src/graph/search.cc`` (graph files).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from xml.sax.saxutils import quoteattr

from pycomm.errors import UsageError
from pycomm.topology.model import Topology

__all__ = ["PLACEMENTS", "nccl_graph", "placement", "renumbered_ranktable"]

_RING: Final = 4
"""NCCL's number for the pattern of a ring."""


def placement(topology: Topology, order: Sequence[int], format: str) -> str:
    """Write an order of the devices.

    Parameters
    ----------
    topology
        The network; all of its devices have to be part of a host.
    order
        Which device, counted among the devices, each rank is; each device once.
    format
        One of :data:`PLACEMENTS`.

    Raises
    ------
    UsageError
        There is no such format, the order leaves out devices, or the format cannot say it.
    """
    if format not in PLACEMENTS:
        raise UsageError(f"there is no format {format!r} of placements; there are {', '.join(PLACEMENTS)}")
    if sorted(order) != list(range(len(topology.devices))):
        raise UsageError(f"an order of {len(topology.devices)} devices lists each of them once")
    return PLACEMENTS[format](_seats(topology, order))


def _seats(topology: Topology, order: Sequence[int]) -> list[tuple[str, int]]:
    """Host of each rank, and its device's number on that host."""
    hosts = [topology.nodes[device].host for device in topology.devices]
    for device, host in zip(topology.devices, hosts, strict=True):
        if not host or re.search(r"\s", host):
            raise UsageError(
                f"{topology.nodes[device].name!r} is on no host whose name a launcher could use ({host!r}); "
                "give each device a host"
            )
    count: dict[str, int] = {}
    number = []
    for host in hosts:
        number.append(count.get(host, 0))
        count[host] = number[-1] + 1
    return [(hosts[device], number[device]) for device in order]


def _rankfile(seats: list[tuple[str, int]]) -> str:
    return "".join(f"rank {rank}={host} slot={slot}\n" for rank, (host, slot) in enumerate(seats))


def _slurm(seats: list[tuple[str, int]]) -> str:
    return "".join(f"{host}\n" for host, _ in seats)


def _hostfile(seats: list[tuple[str, int]]) -> str:
    filled: dict[str, int] = {}
    last = ""
    for rank, (host, slot) in enumerate(seats):
        if slot != filled.get(host, 0) or (host in filled and host != last):
            raise UsageError(
                f"a hostfile fills host after host, slot after slot, but rank {rank} is slot {slot} of "
                f"{host}; write a rankfile"
            )
        filled[host], last = slot + 1, host
    return "".join(f"{host} slots={slots}\n" for host, slots in filled.items())


def nccl_graph(topology: Topology, rings: Sequence[Sequence[int]], bytes_per_s: int) -> str:
    """Write rings through one host's devices as a graph file: a channel for each.

    Parameters
    ----------
    topology
        One host.
    rings
        Orders of all its devices.
    bytes_per_s
        Of one ring.

    Raises
    ------
    UsageError
        There is more than one host, no ring, or a ring that leaves out devices.
    """
    hosts = {topology.nodes[device].host for device in topology.devices}
    if len(hosts) != 1:
        raise UsageError(
            f"NCCL reads a graph file for each host; take one of the {len(hosts)} hosts by itself"
        )
    everything = list(range(len(topology.devices)))
    if not rings or any(sorted(ring) != everything for ring in rings):
        raise UsageError(f"a ring through {len(everything)} devices lists each of them once")
    facts = {
        "id": 0,
        "pattern": _RING,
        "crossnic": 0,
        "nchannels": len(rings),
        "speedintra": bytes_per_s / 1e9,
        "speedinter": bytes_per_s / 1e9,
        "latencyinter": 0,
        "typeintra": "SYS",  # any way between two devices will do
        "typeinter": "SYS",
        "samechannels": 0,
    }
    words = " ".join(f"{key}={quoteattr(str(value))}" for key, value in facts.items())
    lines = ['<graphs version="1">', f"  <graph {words}>"]
    for ring in rings:
        gpus = [f'      <gpu dev="{device}"/>' for device in ring]
        lines += ["    <channel>", *gpus, "    </channel>"]
    return "\n".join([*lines, "  </graph>", "</graphs>", ""])


PLACEMENTS: Final[Mapping[str, Callable[[list[tuple[str, int]]], str]]] = {
    "rankfile": _rankfile,
    "hostfile": _hostfile,
    "slurm": _slurm,
}
"""Every format that can be written, by name."""


def renumbered_ranktable(text: str, order: Sequence[int]) -> str:
    """Give the devices of a rank table other rank ids.

    Parameters
    ----------
    text
        A rank table of version 1.0 or 1.2 (``server_list``) or 2.0 (``rank_list``).
    order
        Which rank of the table, by its present id, each new rank is.

    Raises
    ------
    UsageError
        It is no rank table, or the order is not one of its ranks.
    """
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the rank table is no JSON: {error}") from None
    entries = _ranked(table)
    ids = [int(entry["rank_id"]) for entry in entries]
    if not entries or sorted(ids) != sorted(order):
        raise UsageError(f"the table has ranks {sorted(ids)}; an order of them lists each once")
    new = {old: rank for rank, old in enumerate(order)}
    for entry, old in zip(entries, ids, strict=True):
        entry["rank_id"] = str(new[old]) if isinstance(entry["rank_id"], str) else new[old]
    return json.dumps(table, indent=2) + "\n"


def _ranked(table: Any) -> list[dict[str, Any]]:
    """Entries of a rank table that have a rank id."""
    if not isinstance(table, dict):
        raise UsageError("a rank table is a JSON object with server_list or rank_list")
    if isinstance(table.get("rank_list"), list):
        found = table["rank_list"]
    elif isinstance(table.get("server_list"), list):
        servers = [server for server in table["server_list"] if isinstance(server, dict)]
        found = [device for server in servers for device in server.get("device", ())]
    else:
        raise UsageError("a rank table is a JSON object with server_list or rank_list")
    for entry in found:
        if not isinstance(entry, dict) or not re.fullmatch(r"[0-9]{1,9}", str(entry.get("rank_id"))):
            raise UsageError(f"an entry of the rank table has no rank_id that is a number: {str(entry)[:60]}")
    return list(found)
