"""Rank, size and meeting point from the environments that launchers make."""

from __future__ import annotations

import pytest

from pycomm.errors import UsageError
from pycomm.launch import derived_ports, detect, expand_hosts, is_loopback

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "3",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "head",
    "MASTER_PORT": "29500",
}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
MPICH = {"PMI_RANK": "1", "PMI_SIZE": "4", "MPI_LOCALNRANKS": "2"}
SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_STEP_NUM_NODES": "3",
    "SLURM_STEP_NODELIST": "n[07-09]",
}
KUBERNETES = {"JOB_COMPLETION_INDEX": "2", "WORLD_SIZE": "4", "MASTER_ADDR": "job-0", "MASTER_PORT": "23456"}


@pytest.mark.parametrize(
    ("environ", "launcher", "rank", "size", "is_local", "host"),
    [
        ({}, "alone", 0, 1, False, ""),
        (TORCHRUN, "torchrun", 3, 8, False, "head"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "8"}, "torchrun", 3, 8, True, "head"),
        (OPEN_MPI, "openmpi", 1, 2, True, ""),
        (MPICH, "pmi", 1, 4, False, ""),
        ({**MPICH, "MPI_LOCALNRANKS": "4"}, "pmi", 1, 4, True, ""),
        (SLURM, "slurm", 5, 6, False, "n07"),
        ({**SLURM, "SLURM_STEP_NUM_NODES": "1"}, "slurm", 5, 6, True, "n07"),
        (KUBERNETES, "plain", 2, 4, False, "job-0"),
        ({**KUBERNETES, "RANK": "1"}, "plain", 1, 4, False, "job-0"),
    ],
)
def test_detect_reads_each_launcher(environ, launcher, rank, size, is_local, host):
    place = detect(environ)
    assert (place.launcher, place.rank, place.size, place.is_local, place.host) == (
        launcher,
        rank,
        size,
        is_local,
        host,
    )


def test_detect_avoids_the_port_that_torchrun_itself_uses():
    place = detect(TORCHRUN)
    assert 29500 not in place.ports
    assert place.ports == detect({**TORCHRUN, "RANK": "0"}).ports, "every rank tries the same ports"
    assert detect(KUBERNETES).ports == (23456,)


def test_detect_takes_the_innermost_launcher():
    assert detect({**SLURM, **TORCHRUN}).launcher == "torchrun"
    assert detect({**SLURM, **OPEN_MPI}).launcher == "openmpi"


def test_detect_ignores_a_slurm_allocation_without_a_step():
    allocation = {"SLURM_JOB_ID": "77", "SLURM_PROCID": "0", "SLURM_NTASKS": "6"}
    assert detect(allocation).launcher == "alone"


def test_arguments_go_before_the_environment():
    place = detect(TORCHRUN, rank=0, size=2)
    assert (place.launcher, place.rank, place.size) == ("arguments", 0, 2)


@pytest.mark.parametrize(
    ("environ", "arguments", "words"),
    [
        ({"RANK": "0"}, {}, ["RANK", "WORLD_SIZE"]),
        ({"WORLD_SIZE": "2"}, {}, ["RANK", "JOB_COMPLETION_INDEX"]),
        ({**OPEN_MPI, "OMPI_COMM_WORLD_RANK": "x"}, {}, ["OMPI_COMM_WORLD_RANK", "'x'"]),
        ({**OPEN_MPI, "OMPI_COMM_WORLD_RANK": "2"}, {}, ["OMPI_COMM_WORLD_RANK=2", "OMPI_COMM_WORLD_SIZE=2"]),
        ({**OPEN_MPI, "RANK": "0", "WORLD_SIZE": "2"}, {}, ["OMPI_COMM_WORLD_RANK=1", "RANK=0"]),
        ({**OPEN_MPI, "PMI_RANK": "1", "PMI_SIZE": "4"}, {}, ["OMPI_COMM_WORLD_SIZE=2", "PMI_SIZE=4"]),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "h"}, {}, ["MASTER_ADDR=h", "MASTER_PORT"]),
        ({}, {"rank": 1}, ["rank", "size"]),
        ({}, {"size": 1}, ["rank", "size"]),
        ({}, {"rank": 2, "size": 2}, ["rank=2", "size=2"]),
        ({}, {"rank": -1, "size": 2}, ["rank=-1", "size=2"]),
    ],
)
def test_contradictions_name_both_sides(environ, arguments, words):
    with pytest.raises(UsageError) as caught:
        detect(environ, **arguments)
    for word in words:
        assert word in str(caught.value)


def test_launchers_that_agree_are_no_contradiction():
    assert detect({**OPEN_MPI, "RANK": "1", "WORLD_SIZE": "2"}).rank == 1


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("a", ["a"]),
        ("a,b-1", ["a", "b-1"]),
        ("n[1-3,07],x", ["n1", "n2", "n3", "n07", "x"]),
        ("r[1-2]n[08-10]", ["r1n08", "r1n09", "r1n10", "r2n08", "r2n09", "r2n10"]),
        ("n[9-10].site", ["n9.site", "n10.site"]),
    ],
)
def test_expand_hosts(text, hosts):
    assert expand_hosts(text) == hosts


@pytest.mark.parametrize("text", ["n[1-", "n[3-1]", "n[a]", "a,,b"])
def test_expand_hosts_refuses(text):
    with pytest.raises(UsageError, match="host list"):
        expand_hosts(text)


def test_derived_ports_differ_between_jobs_and_are_not_ephemeral():
    ports = derived_ports("a")
    assert len(set(ports)) == len(ports) > 1
    assert ports != derived_ports("b")
    assert all(1024 < port < 32768 for port in ports)


def test_loopback():
    assert all(is_loopback(h) for h in ("localhost", "127.0.0.1", "127.1.2.3", "::1"))
    assert not any(is_loopback(h) for h in ("head", "10.0.0.1", "1127.0.0.1", ""))
