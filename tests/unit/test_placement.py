"""Orders of devices for launchers and libraries."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from pycomm.errors import UsageError
from pycomm.export.placement import PLACEMENTS, nccl_graph, placement, renumbered_ranktable
from pycomm.topology import Node, NodeKind, Topology


def hosts(*sizes: int) -> Topology:
    nodes = [
        Node(f"n{h}/gpu{i}", NodeKind.DEVICE, f"n{h}") for h, size in enumerate(sizes) for i in range(size)
    ]
    return Topology("hosts", tuple(nodes), ())


def test_a_rankfile_names_host_and_slot():
    assert (
        placement(hosts(2, 1), [2, 1, 0], "rankfile")
        == "rank 0=n1 slot=0\nrank 1=n0 slot=1\nrank 2=n0 slot=0\n"
    )


def test_slurm_gets_a_host_per_rank():
    assert placement(hosts(2, 1), [0, 2, 1], "slurm") == "n0\nn1\nn0\n"


def test_a_hostfile_says_hosts_in_order_or_refuses():
    assert placement(hosts(2, 1), [2, 0, 1], "hostfile") == "n1 slots=1\nn0 slots=2\n"
    for order in ([0, 2, 1], [1, 0, 2]):
        with pytest.raises(UsageError, match="rankfile"):
            placement(hosts(2, 1), order, "hostfile")


def test_nccl_gets_a_channel_for_each_ring():
    graph = ET.fromstring(nccl_graph(hosts(4), [[0, 2, 3, 1], [0, 1, 3, 2]], 25 * 10**9))
    channels = [[int(gpu.get("dev")) for gpu in channel] for channel in graph.iter("channel")]
    assert channels == [[0, 2, 3, 1], [0, 1, 3, 2]]
    assert {key: graph[0].get(key) for key in ("nchannels", "speedintra")} == {
        "nchannels": "2",
        "speedintra": "25.0",
    }
    with pytest.raises(UsageError, match="2 hosts"):
        nccl_graph(hosts(2, 2), [[0, 1, 2, 3]], 10**9)
    with pytest.raises(UsageError, match="each of them once"):
        nccl_graph(hosts(2), [[0]], 10**9)


@pytest.mark.parametrize("format", PLACEMENTS)
def test_an_order_has_every_device_once(format):
    for order in ([0], [0, 0], [0, 1, 2], [-1, 0]):
        with pytest.raises(UsageError, match="each of them once"):
            placement(hosts(2), order, format)


def test_a_device_without_a_host_cannot_be_placed():
    with pytest.raises(UsageError, match="host"):
        placement(Topology("x", (Node("d", NodeKind.DEVICE),), ()), [0], "rankfile")
    with pytest.raises(UsageError, match="no format"):
        placement(hosts(1), [0], "tarot")


@pytest.mark.parametrize("text", [True, False])
def test_a_rank_table_keeps_all_but_its_ids(text):
    def number(rank: int) -> str | int:
        return str(rank) if text else rank

    devices = [{"device_id": str(i), "device_ip": f"192.0.2.{i}", "rank_id": number(i)} for i in range(3)]
    if text:
        table = {
            "version": "1.0",
            "status": "completed",
            "server_list": [{"device": devices[:2]}, {"device": devices[2:]}],
        }
    else:
        table = {"version": "2.0", "rank_list": devices}
    got = json.loads(renumbered_ranktable(json.dumps(table), [2, 0, 1]))
    entries = got["rank_list"] if not text else [d for server in got["server_list"] for d in server["device"]]
    assert [entry["rank_id"] for entry in entries] == [number(1), number(2), number(0)]
    assert [entry["device_ip"] for entry in entries] == [device["device_ip"] for device in devices]


@pytest.mark.parametrize(
    "text", ["", "[", "[]", "{}", '{"rank_list": [{}]}', '{"rank_list": [{"rank_id": "x"}]}']
)
def test_what_is_no_rank_table_is_refused(text):
    with pytest.raises(UsageError):
        renumbered_ranktable(text, [0])
