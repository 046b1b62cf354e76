"""Huawei's rank tables: which devices of which servers take part, with which addresses.

Version 1.0 lists servers with their devices; 1.2 adds supernodes; 2.0 lists ranks with their network
layers. An older form without version (``group_list``) is read too, and so are ``//`` comments, which
samples carry. Tables name addresses and ports, no bandwidths: those are assumed. Devices are the ranks, in
the order of their ids; on hardware with two dies in a package, each die is one.

References
----------
Huawei, CANN documentation, HCCL user guide, "rank table configuration" (versions 1.0, 1.2 and 2.0).
"""

from __future__ import annotations

import itertools
from typing import Any

from pycomm.topology.importers.jsontext import array, integer, parse_json, record, string
from pycomm.topology.importers.source import Reading, Source, joined, natural, rate_of, shown
from pycomm.topology.model import Node, NodeKind, Topology

__all__ = ["ranktable"]

_DEFAULTS = {"link": "200 Gbit/s", "inside": "200 GB/s", "superpod": "200 GB/s", "port": "400 Gbit/s"}


class _Device:
    """A rank as versions 1.0 and 1.2 describe it."""

    def __init__(self, rank: int, server: str, number: str, address: str, field: str) -> None:
        self.rank, self.server, self.number, self.address, self.field = rank, server, number, address, field


def ranktable(
    source: Source, *, link: str = "", inside: str = "", superpod: str = "", port: str = "", model: str = ""
) -> Topology:
    """Read a rank table.

    Parameters
    ----------
    source
        The file.
    link
        Bandwidth of a device's own network port (versions 1.0 and 1.2).
    inside, superpod
        Bandwidth of a device into the network inside its server, or inside its supernode.
    port
        Bandwidth of one port (version 2.0).
    model
        Name of the devices, such as ``"910B"``.
    """
    table = record(source, parse_json(source, comments=True), "table")
    status = table.get("status", "completed")
    if status != "completed":
        source.fail(
            f"status is {str(status)[:40]!r}, not 'completed': wait until the table is filled", field="status"
        )
    rates = {"link": link, "inside": inside, "superpod": superpod, "port": port}
    made = Reading(source)
    if "rank_list" in table:
        _layers(source, made, table, rates, model)
    elif "server_list" in table:
        _servers(source, made, table, rates, model)
    elif "group_list" in table:
        _groups(source, made, table, rates, model)
    else:
        source.fail("there is no server_list, rank_list or group_list; is this a rank table?")
    return made.topology()


def _rate(made: Reading, rates: dict[str, str], keyword: str, what: str) -> int:
    if rates[keyword]:
        return rate_of(rates[keyword], keyword)
    rate = rate_of(_DEFAULTS[keyword], keyword)
    made.assumed(f"{what} has, each way,", shown(rate), keyword)
    return rate


def _check_ranks(source: Source, ranks: dict[int, str]) -> None:
    """Ranks are 0 to n-1, each once; ``ranks`` says where each stands."""
    for rank, field in ranks.items():
        if rank >= len(ranks):
            missing = next(r for r in range(len(ranks)) if r not in ranks)
            source.fail(f"rank {rank} is there but rank {missing} is not; ranks are 0 to n-1", field=field)


def _once(source: Source, ranks: dict[int, str], rank: int, field: str) -> None:
    if rank in ranks:
        source.fail(f"rank {rank} is there twice, first in {ranks[rank]}", field=field)
    ranks[rank] = field


def _declared(source: Source, table: dict[str, Any], key: str, found: int) -> None:
    if key in table and integer(source, table[key], key) != found:
        source.fail(f"{table[key]} are announced but {found} are listed; is the file cut short?", field=key)


# -- versions 1.0 and 1.2 ----------------------------------------------------------------------------------


def _servers(source: Source, made: Reading, table: dict[str, Any], rates: dict[str, str], model: str) -> None:
    version = table.get("version", "1.0")
    if version not in ("1.0", "1.1", "1.2"):
        made.note(f"the table has version {str(version)[:20]!r}; 1.0, 1.2 and 2.0 are known")
    servers = array(source, table["server_list"], "server_list")
    _declared(source, table, "server_count", len(servers))
    unranked = '"rank_id"' not in source.text
    if unranked:
        made.note("the table gives no rank ids: ranks follow the order of its devices")
    devices: list[_Device] = []
    names: dict[str, str] = {}
    for i, entry in enumerate(servers):
        field = f"server_list[{i}]"
        server = record(source, entry, field)
        name = string(source, server.get("server_id"), f"{field}.server_id")
        if name in names:
            source.fail(f"server {name!r} is there twice, first in {names[name]}", field=field)
        names[name] = field
        for j, one in enumerate(array(source, server.get("device"), f"{field}.device")):
            place = f"{field}.device[{j}]"
            device = record(source, one, place)
            address = device.get("device_ip") or ""
            rank = len(devices) if unranked else integer(source, device.get("rank_id"), f"{place}.rank_id")
            devices.append(
                _Device(
                    rank,
                    name,
                    string(source, device.get("device_id"), f"{place}.device_id"),
                    string(source, address, f"{place}.device_ip") if address else "",
                    place,
                )
            )
            if device.get("backup_device_ip"):
                made.skip("backup addresses")
    pods = _pods(source, table, names)
    _build(source, made, devices, pods, rates, model)


def _pods(source: Source, table: dict[str, Any], servers: dict[str, str]) -> dict[str, str]:
    """Supernode of each server, where there are supernodes."""
    pods: dict[str, str] = {}
    if not table.get("super_pod_list"):
        return pods
    for i, entry in enumerate(array(source, table["super_pod_list"], "super_pod_list")):
        field = f"super_pod_list[{i}]"
        pod = record(source, entry, field)
        name = string(source, pod.get("super_pod_id"), f"{field}.super_pod_id")
        for j, one in enumerate(array(source, pod.get("server_list"), f"{field}.server_list")):
            place = f"{field}.server_list[{j}]"
            server = string(source, record(source, one, place).get("server_id"), f"{place}.server_id")
            if server not in servers:
                source.fail(f"server {server!r} is not in server_list", field=place)
            if server in pods:
                source.fail(f"server {server!r} is in two supernodes", field=place)
            pods[server] = name
    for server, field in servers.items():
        if server not in pods:
            source.fail(f"server {server!r} is in no supernode of super_pod_list", field=field)
    return pods


def _groups(source: Source, made: Reading, table: dict[str, Any], rates: dict[str, str], model: str) -> None:
    """Read the form without version: groups of instances, whose order gives the ranks."""
    found: list[tuple[str, str, str, str]] = []
    for i, entry in enumerate(array(source, table["group_list"], "group_list")):
        group = record(source, entry, f"group_list[{i}]")
        instances = array(source, group.get("instance_list"), f"group_list[{i}].instance_list")
        for j, one in enumerate(instances):
            field = f"group_list[{i}].instance_list[{j}]"
            instance = record(source, one, field)
            server = string(source, instance.get("server_id"), f"{field}.server_id")
            for k, device in enumerate(array(source, instance.get("devices"), f"{field}.devices")):
                place = f"{field}.devices[{k}]"
                numbers = record(source, device, place)
                address = numbers.get("device_ip") or ""
                found.append(
                    (
                        server,
                        string(source, numbers.get("device_id"), f"{place}.device_id"),
                        string(source, address, f"{place}.device_ip") if address else "",
                        place,
                    )
                )
    made.note("the table gives no rank ids: ranks follow the order of its instances")
    devices = [_Device(rank, *one) for rank, one in enumerate(found)]
    _build(source, made, devices, {}, rates, model)


def _build(
    source: Source,
    made: Reading,
    devices: list[_Device],
    pods: dict[str, str],
    rates: dict[str, str],
    model: str,
) -> None:
    """Add devices, the network inside servers or supernodes, and NICs on one network between them."""
    ranks: dict[int, str] = {}
    places: dict[tuple[str, str], str] = {}
    for device in devices:
        _once(source, ranks, device.rank, device.field)
        if (device.server, device.number) in places:
            source.fail(
                f"device {device.number} of server {device.server!r} is there twice, first in "
                f"{places[device.server, device.number]}",
                field=device.field,
            )
        places[device.server, device.number] = device.field
    _check_ranks(source, ranks)
    devices = sorted(devices, key=lambda d: d.rank)
    if len({d.server for d in devices}) != 1 + sum(
        a.server != b.server for a, b in itertools.pairwise(devices)
    ):
        made.note("the ranks of servers interleave, which HCCL does not accept")
    vertex = [
        made.node(Node(f"{d.server}/{d.number}", NodeKind.DEVICE, d.server, "huawei", model)) for d in devices
    ]
    domains: dict[str, list[int]] = {}
    for device, index in zip(devices, vertex, strict=True):
        domains.setdefault(pods[device.server] if pods else device.server, []).append(index)
    what = "superpod" if pods else "inside"
    if any(len(members) > 1 for members in domains.values()):
        label = "supernode" if pods else "server"
        rate = _rate(made, rates, what, f"a device's way into the network of its {label}")
        for name, members in domains.items():
            host = "" if pods else name
            hub = made.node(Node(made.free_name(f"{label} {name}"), NodeKind.SWITCH, host))
            for index in members:
                made.cable(index, hub, rate, what)
    _ports(source, made, devices, vertex, len(domains), rates)


def _ports(
    source: Source,
    made: Reading,
    devices: list[_Device],
    vertex: list[int],
    parts: int,
    rates: dict[str, str],
) -> None:
    """Add a NIC for each address, all on one switch that stands for the network between servers."""
    without = [d for d in devices if not d.address]
    if without and parts > 1:
        source.fail(
            f"{len(without)} devices have no device_ip, and there are several servers that need one",
            field=without[0].field,
        )
    if without:
        made.note(f"{len(without)} devices have no device_ip: they count without a NIC of their own")
    if len(without) == len(devices):
        return
    rate = _rate(made, rates, "link", "a device's own network port")
    made.note("assumed, as the file does not say: all device addresses are ports on one switch 'network'")
    network = made.node(Node(made.free_name("network"), NodeKind.SWITCH))
    for device, index in zip(devices, vertex, strict=True):
        if device.address:
            nic = made.node(Node(made.free_name(f"nic {device.address}"), NodeKind.NIC, device.server))
            made.cable(index, nic, rate, "nic")
            made.cable(nic, network, rate, "roce")


# -- version 2.0 -------------------------------------------------------------------------------------------


def _layers(source: Source, made: Reading, table: dict[str, Any], rates: dict[str, str], model: str) -> None:
    entries = array(source, table["rank_list"], "rank_list")
    _declared(source, table, "rank_count", len(entries))
    version = table.get("version", "2.0")
    if version != "2.0":
        made.note(f"the table has version {str(version)[:20]!r}; 1.0, 1.2 and 2.0 are known")
    ranks: dict[int, str] = {}
    lists: list[tuple[int, str, dict[str, Any], list[Any]]] = []
    for i, entry in enumerate(entries):
        field = f"rank_list[{i}]"
        rank = record(source, entry, field)
        number = integer(source, rank.get("rank_id"), f"{field}.rank_id")
        _once(source, ranks, number, field)
        levels = array(source, rank.get("level_list", []), f"{field}.level_list")
        lists.append((number, field, rank, levels))
    _check_ranks(source, ranks)
    lists.sort(key=lambda one: one[0])
    vertex = []
    for number, field, rank, levels in lists:
        local = string(source, rank.get("local_id", rank.get("device_id", number)), f"{field}.local_id")
        host = ""
        for j, one in enumerate(levels):
            level = record(source, one, f"{field}.level_list[{j}]")
            if integer(source, level.get("net_layer"), f"{field}.level_list[{j}].net_layer") == 0:
                host = string(
                    source, level.get("net_instance_id"), f"{field}.level_list[{j}].net_instance_id"
                )
        name = f"{host}/{local}" if host else f"rank {number}"
        if name in made.index:
            source.fail(f"local_id {local} is there twice in {host!r}", field=f"{field}.local_id")
        vertex.append(made.node(Node(name, NodeKind.DEVICE, host, "huawei", model)))
    port = _rate(made, rates, "port", "one port")
    switches: dict[tuple[int, str, str], int] = {}
    ways: dict[tuple[int, str, str], list[tuple[int, int]]] = {}
    for (_, field, _, levels), device in zip(lists, vertex, strict=True):
        for j, level in enumerate(levels):
            _level(source, made, level, f"{field}.level_list[{j}]", device, ways)
    for key in sorted(ways, key=lambda k: (k[0], natural(k[1]), natural(k[2]))):
        layer, instance, plane = key
        host = instance if layer == 0 else ""
        name = f"layer {layer} {instance}" + (f" {plane}" if plane else "")
        switches[key] = made.node(Node(made.free_name(name), NodeKind.SWITCH, host))
        for device, ports in ways[key]:
            made.cable(device, switches[key], ports * port, f"layer {layer}")
    made.note(
        "each plane of each layer counts as one switch: "
        + joined(made.nodes[v].name for v in switches.values())
    )


def _level(
    source: Source,
    made: Reading,
    level: dict[str, Any],
    field: str,
    device: int,
    ways: dict[tuple[int, str, str], list[tuple[int, int]]],
) -> None:
    """Note how many ports of a device lead into each plane of a layer."""
    layer = integer(source, level.get("net_layer"), f"{field}.net_layer", 64)
    instance = string(source, level.get("net_instance_id"), f"{field}.net_instance_id")
    if level.get("net_type") == "TOPO_FILE_DESC":
        made.note(
            "how layers of type TOPO_FILE_DESC are wired stands in the machine's topology file, not here"
        )
    counts: dict[str, int] = {}
    for k, one in enumerate(array(source, level.get("rank_addr_list", []), f"{field}.rank_addr_list")):
        place = f"{field}.rank_addr_list[{k}]"
        address = record(source, one, place)
        ports = array(source, address.get("ports", []), f"{place}.ports")
        plane = string(source, address["plane_id"], f"{place}.plane_id") if address.get("plane_id") else ""
        if layer == 0:
            plane = ""
        counts[plane] = counts.get(plane, 0) + (len(ports) or 1)
    for plane, ports_there in counts.items():
        ways.setdefault((layer, instance, plane), []).append((device, ports_there))
