"""The network that a group agrees on: read by rank 0, joined from what ranks tell, or inherited."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest

from pycomm.communicator import Communicator
from pycomm.errors import TopologyError
from pycomm.group_network import GroupNetwork, Place, Placed, joined
from pycomm.placement import place
from pycomm.testing.threads import RankError, run_threads
from pycomm.topology.generators import star
from pycomm.topology.model import Node, NodeKind, Topology

pytestmark = pytest.mark.timeout(60)
FILE = """
version = 1
[[generate]]
kind = "star"
count = 3
rate = "8 Gbit/s"
"""


def boxes(*sizes: int) -> Topology:
    nodes = [
        Node(f"n{h}/d{i}", NodeKind.DEVICE, f"n{h}") for h, size in enumerate(sizes) for i in range(size)
    ]
    return Topology("boxes", tuple(nodes), ())


def test_ranks_are_placed_by_the_names_of_hosts() -> None:
    assert place(boxes(2, 2), ["n1", "n0", "n1"]) == (2, 0, 3)
    assert place(boxes(2, 2), ["n1.example.org", "n0.example.org"]) == (2, 0)


def test_ranks_are_placed_in_order_where_no_name_matches() -> None:
    assert place(boxes(2, 3), ["a", "b", "a", "b", "b"]) == (0, 2, 1, 3, 4)
    assert place(boxes(1, 1, 1), ["only", "only", "only"]) == (0, 1, 2)


@pytest.mark.parametrize(
    ("hosts", "wanted"),
    [
        (["n0", "n0", "n0"], "host 'n0' has 2 devices for 3 ranks"),
        (["n0", "other"], "it has the host 'n0' of the job, but not 'other'"),
        (["a"] * 5, "it has 4 devices for 5 ranks"),
        (["a", "a", "a", "b"], r"its hosts have 2 \+ 2 devices, the job's hosts 3 \+ 1 ranks"),
    ],
)
def test_what_does_not_fit_is_said(hosts: list[str], wanted: str) -> None:
    with pytest.raises(TopologyError, match=wanted):
        place(boxes(2, 2), hosts)


def test_hosts_are_joined_by_a_switch() -> None:
    places = [Place("a", "1", "eth0", 10**9), Place("b", "2", "eth0", 10**8), Place("a", "1", "eth0", 10**9)]
    found = joined(places)
    assert found is not None
    topology, devices = found
    assert topology.devices == devices
    assert topology.host_numbers() == (0, 1, 0)
    rates = {topology.link_name(i): link.bytes_per_s for i, link in enumerate(topology.links)}
    assert rates["a/eth0 -> network"] == rates["network -> a/eth0"] == 10**9
    assert rates["b/eth0 -> network"] == 10**8
    assert joined(places[:1]) is None
    same_names = joined([Place("a", "1"), Place("a", "2")])
    assert same_names is not None
    assert same_names.topology.host_numbers() == (0, 1)
    assert any("assumed" in note for note in same_names.topology.notes)


def test_two_interfaces_of_a_host_are_two_ways() -> None:
    found = joined([Place("a", "1", "eth0", 5), Place("a", "1", "eth1", 7), Place("b", "2", "eth0", 9)])
    assert found is not None
    names = {node.name for node in found.topology.nodes}
    assert {"a/eth0", "a/eth1", "b/eth0"} <= names


def network_of(comm: Communicator) -> Placed | None:
    return comm.network()


def test_rank_0_reads_the_topology_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "three.toml"
    file.write_text(FILE)
    monkeypatch.setenv("PYCOMM_TOPOLOGY", str(file))
    found = run_threads(3, network_of)
    assert found[0] is not None
    assert found[0].topology == star(3, rate="8 Gbit/s")
    assert all(other == found[0] for other in found)
    assert found[0].devices == (0, 1, 2)


def test_a_topology_that_cannot_be_read_is_the_same_error_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYCOMM_TOPOLOGY", "/nowhere/at_all.toml")
    with pytest.raises(RankError) as caught:
        run_threads(3, network_of)
    texts = {str(error) for error in caught.value.errors.values()}
    assert len(caught.value.errors) == 3
    assert len(texts) == 1
    assert "as rank 0 of the group reads it: /nowhere/at_all.toml: No such file" in texts.pop()


def test_ranks_that_do_not_fit_are_refused_on_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "three.toml"
    file.write_text(FILE)
    monkeypatch.setenv("PYCOMM_TOPOLOGY", str(file))
    with pytest.raises(RankError, match="it has 3 devices for 4 ranks"):
        run_threads(4, network_of)


def test_a_group_on_one_host_has_no_network_unless_told() -> None:
    assert run_threads(2, network_of) == [None, None]


def test_a_subgroup_takes_its_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "three.toml"
    file.write_text(FILE)
    monkeypatch.setenv("PYCOMM_TOPOLOGY", str(file))

    def body(comm: Communicator) -> object:
        comm.network()
        part = comm.subgroup([2, 0], "part") if comm.rank != 1 else None
        if part is None:
            return None
        got = np.zeros(4)
        part.allreduce(np.full(4, float(comm.rank)), got, algorithm="free_root")
        placed = part.network()
        part.close()
        return (placed.devices if placed else None), got.tolist()

    found = run_threads(3, body)
    assert found[0] == found[2] == ((2, 0), [2.0] * 4)


def test_the_network_is_asked_for_once() -> None:
    asked: list[str] = []

    def exchange(topic: str, value: bytes, timeout_s: float | None) -> list[bytes]:
        asked.append(topic)
        return [value, value]

    network = GroupNetwork(2, 0, exchange, b"here")
    assert network.find() is None
    assert network.table() is None
    assert network.places()[0].host == socket.gethostname()
    assert asked == ["place"]


def test_what_was_measured_is_adopted() -> None:
    def body(comm: Communicator) -> bool:
        topology = star(2, rate="8 Gbit/s")
        comm.adopt_network(Placed(topology, topology.devices))
        got = np.zeros(3)
        comm.allreduce(np.ones(3), got, algorithm="free_root")
        return comm.network() == Placed(topology, topology.devices) and got.tolist() == [2.0] * 3

    assert run_threads(2, body) == [True, True]


def test_a_table_goes_to_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "table.toml"
    table.write_text(
        'format = "pycomm-tuning"\nversion = 1\n'
        '[[entry]]\ncollective = "allreduce"\nranks = 2\nalgorithm = "direct"\nfrom = "100 B"\n'
    )
    monkeypatch.setenv("PYCOMM_TUNING", str(table))

    def body(comm: Communicator) -> tuple[str, str]:
        got = np.zeros(100)
        comm.allreduce(np.ones(100), got)
        assert got.tolist() == [2.0] * 100
        return comm.explain("allreduce", 800).source, comm.explain("allreduce", 800).chosen

    assert run_threads(2, body) == [("measured", "direct")] * 2
    table.write_text(table.read_text().replace("direct", "dierct"))
    with pytest.raises(RankError, match=r"table\.toml:6: algorithm: there is no algorithm 'dierct'"):
        run_threads(2, body)
