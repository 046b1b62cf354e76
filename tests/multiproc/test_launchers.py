"""Ranks started as each launcher starts them find one another on one host, and leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.multiproc, pytest.mark.timeout(120)]

PROGRAM = """
import sys
import numpy as np
import pycomm

for turn in range(2):  # a job may come together again
    with pycomm.init(timeout_s=60) as comm:
        total = np.array([float(comm.rank + 1)])
        comm.allreduce(total)
        if turn:
            print(comm.rank, comm.size, total[0])
"""
LAUNCHERS = {
    "torchrun": lambda r, n: {
        "TORCHELASTIC_RUN_ID": "none",
        "RANK": r,
        "WORLD_SIZE": n,
        "LOCAL_WORLD_SIZE": n,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": 29500,
    },
    "openmpi": lambda r, n: {
        "OMPI_COMM_WORLD_RANK": r,
        "OMPI_COMM_WORLD_SIZE": n,
        "OMPI_COMM_WORLD_LOCAL_SIZE": n,
    },
    "mpich": lambda r, n: {"PMI_RANK": r, "PMI_SIZE": n, "MPI_LOCALNRANKS": n},
    "slurm": lambda r, n: {
        "SLURM_JOB_ID": 4711,
        "SLURM_STEP_ID": 0,
        "SLURM_PROCID": r,
        "SLURM_STEP_NUM_TASKS": n,
        "SLURM_STEP_NUM_NODES": 1,
    },
    "plain": lambda r, n: {"RANK": r, "WORLD_SIZE": n, "MASTER_ADDR": "localhost", "MASTER_PORT": 29777},
}


def clean_environment() -> dict[str, str]:
    prefixes = ("OMPI_", "PMI", "SLURM_", "TORCHELASTIC_", "MASTER_", "PYCOMM_")
    names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "JOB_COMPLETION_INDEX", "MPI_LOCALNRANKS")
    return {k: v for k, v in os.environ.items() if not k.startswith(prefixes) and k not in names}


def start(directory: Path, n: int, variables) -> list[subprocess.Popen[str]]:
    program = directory / "program.py"
    program.write_text(PROGRAM)
    return [
        subprocess.Popen(
            [sys.executable, str(program)],
            env={
                **clean_environment(),
                "XDG_RUNTIME_DIR": str(directory),
                "PYCOMM_BACKEND": "native",
                **{k: str(v) for k, v in variables(rank, n).items()},
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(n)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> list[tuple[str, str]]:
    try:
        return [process.communicate(timeout=90) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ranks_of_one_host_meet(launcher, tmp_path):
    outputs = finish(start(tmp_path, 3, LAUNCHERS[launcher]))
    assert [out for out, _ in outputs] == [f"{r} 3 6.0\n" for r in range(3)], outputs
    assert list((tmp_path / "pycomm").iterdir()) == [], "the job's directory is gone"


def test_two_jobs_of_one_user_do_not_mix(tmp_path):
    jobs = [
        start(tmp_path, 2, lambda r, n, job=job: {**LAUNCHERS["slurm"](r, n), "SLURM_JOB_ID": job})
        for job in (1, 2)
    ]
    for processes in jobs:
        outputs = finish(processes)
        assert [out for out, _ in outputs] == ["0 2 3.0\n", "1 2 3.0\n"], outputs


def network(rank: int, n: int, **more: str) -> dict[str, object]:
    # The address is this host's, but nothing says so: the ranks meet as on two hosts.
    return {"RANK": rank, "WORLD_SIZE": n, "MASTER_ADDR": "0.0.0.0", "MASTER_PORT": 29778, **more}


def test_ranks_meet_over_the_network(tmp_path):
    outputs = finish(start(tmp_path, 2, lambda r, n: network(r, n, PYCOMM_SECRET="x" * 32)))
    assert [out for out, _ in outputs] == ["0 2 3.0\n", "1 2 3.0\n"], outputs


def test_a_job_over_the_network_without_a_secret_is_refused(tmp_path):
    for out, err in finish(start(tmp_path, 2, network)):
        assert out == ""
        assert "UsageError" in err
        assert "PYCOMM_SECRET" in err


def test_a_wrong_secret_is_told_to_the_one_who_has_it(tmp_path):
    processes = start(tmp_path, 2, lambda r, n: network(r, n, PYCOMM_SECRET="ab"[r] * 32))
    try:
        assert processes[1].wait(60) == 1
        assert "AuthError" in processes[1].communicate()[1]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_init_bounds_its_wait(tmp_path):
    program = "import pycomm; pycomm.init(timeout_s=0.3)"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **clean_environment(),
            "XDG_RUNTIME_DIR": str(tmp_path),
            **{k: str(v) for k, v in LAUNCHERS["openmpi"](1, 2).items()},
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "DeadlineExceeded" in ran.stderr
    assert "rank 0" in ran.stderr
