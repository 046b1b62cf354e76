"""The mpi backend over every cell. Collected twice: pytest starts mpiexec, which starts pytest for the ranks.

By hand: ``mpiexec -n 3 python -m pytest --with-mpi tests/conformance/test_mpi.py``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import pycomm
from pycomm.bench.launch import Mpi, find_mpis
from pycomm.testing.conformance import render, run_rank

MPIS = {mpi.flavour: mpi for mpi in find_mpis()}


@pytest.mark.mpi(min_size=2)
@pytest.mark.timeout(150)
def test_ranks() -> None:
    with pycomm.init("mpi", timeout_s=60) as comm:
        outcomes = run_rank(comm, quick=True)
    assert not [o for o in outcomes if o.status == "fail"], render("mpi", outcomes)
    assert sum(o.status == "pass" for o in outcomes) > 500, render("mpi", outcomes)


@pytest.mark.multiproc
@pytest.mark.timeout(180)
@pytest.mark.parametrize(("flavour", "nranks"), [("mpich", 2), ("mpich", 3), ("openmpi", 2), ("impi", 2)])
def test_under_mpiexec(flavour: str, nranks: int) -> None:
    mpi: Mpi | None = MPIS.get(flavour)
    if mpi is None:
        pytest.skip(f"{flavour} is not installed (bash .ci/mpi {flavour})")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--with-mpi",
        "-q",
        "-p",
        "no:cacheprovider",
        f"{__file__}::test_ranks",
    ]
    process = subprocess.Popen(
        [*mpi.command(nranks), *command],
        env={**os.environ, **mpi.environment(), "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=160)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output[-6000:]
    assert output.count("1 passed") == nranks, output[-6000:]
