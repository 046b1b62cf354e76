"""Jobs started by the launchers themselves: torchrun, and the mpiexec of each MPI that is installed.

test_launchers.py plays the launchers' environments; this proves that they are what launchers make. Programs
that mpiexec starts use pycomm's own engine here and know nothing of MPI.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from pycomm.bench.launch import FLAVOURS, find_mpis

pytestmark = [pytest.mark.multiproc, pytest.mark.timeout(110)]
MPIS = {mpi.flavour: mpi for mpi in find_mpis()}
PROGRAM = """
import os
import sys

import numpy as np
import pycomm
from pycomm.launch import detect

with pycomm.init("native", timeout_s=60) as comm:
    total = np.full(1000, comm.rank + 1.0)
    comm.allreduce(total)
    assert (total == 3.0).all(), total
    # One write, newline included: the ranks share a pipe, and an unbuffered print would write twice.
    sys.stdout.write(f"rank {comm.rank} of {comm.size} from {detect(os.environ).launcher}: ok\\n")
"""


def launch(command: list[str], directory: Path, environ: dict[str, str] | None = None) -> list[str]:
    """Run the program under a launcher; returns what its ranks printed, sorted."""
    program = directory / "program.py"
    program.write_text(PROGRAM)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYCOMM_")}
    # Sockets of mpiexec have long names, so its folder must have a short one: TMPDIR is left alone.
    done = subprocess.run(
        [*command, str(program)],
        env={**inherited, "XDG_RUNTIME_DIR": str(directory), "OMP_NUM_THREADS": "1", **(environ or {})},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return sorted(line for line in done.stdout.splitlines() if line.startswith("rank "))


@pytest.mark.torch
@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_torchrun(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    assert launch(torchrun, tmp_path) == [f"rank {r} of 2 from torchrun: ok" for r in range(2)]


@pytest.mark.torch
@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_torchrun_with_an_address_of_its_own(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    where = ["--master-addr", "127.0.0.1", "--master-port", "29519"]
    assert launch([*torchrun, *where], tmp_path) == [f"rank {r} of 2 from torchrun: ok" for r in range(2)]


@pytest.mark.parametrize(
    "flavour",
    [
        pytest.param(
            flavour,
            marks=pytest.mark.skipif(flavour not in MPIS, reason=f"no {flavour}; bash .ci/mpi {flavour}"),
        )
        for flavour in FLAVOURS
    ],
)
def test_mpiexec(flavour: str, tmp_path: Path) -> None:
    mpi = MPIS[flavour]
    printed = launch([*mpi.command(2), sys.executable], tmp_path, mpi.environment())
    launcher = "openmpi" if flavour == "openmpi" else "pmi"
    assert printed == [f"rank {r} of 2 from {launcher}: ok" for r in range(2)]
