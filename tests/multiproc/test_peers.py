"""The backends over foreign libraries, on real processes: see peer_program.py."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from pycomm.bench.launch import find_mpis

pytestmark = [pytest.mark.multiproc, pytest.mark.timeout(110)]
PROGRAM = str(Path(__file__).with_name("peer_program.py"))
MPIS = find_mpis() if find_spec("mpi4py") else []


def finish(processes):
    try:
        outputs = [process.communicate(timeout=100) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (out, err) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, f"{out}\n{err}"
    return [out for out, _ in outputs]


def start(command, environ=None):
    return subprocess.Popen(
        [*command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environ or {})},
    )


@pytest.mark.torch
@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("nranks", [1, 3])
def test_gloo(nranks, tmp_path):
    command = [sys.executable, "-W", "error", PROGRAM, "gloo"]
    folder = str(tmp_path / "store")
    outputs = finish([start([*command, str(rank), str(nranks), folder]) for rank in range(nranks)])
    assert all(out.startswith("ok ") for out in outputs)


@pytest.mark.skipif(not MPIS, reason="no MPI and mpi4py installed; bash .ci/mpi")
@pytest.mark.parametrize("nranks", [1, 3])
@pytest.mark.parametrize("mpi", MPIS, ids=lambda mpi: mpi.flavour)
def test_mpi(mpi, nranks):
    environ = mpi.environment()
    environ["MPI4PY_RC_THREAD_LEVEL"] = "multiple"
    command = [*mpi.command(nranks), sys.executable, "-W", "error", PROGRAM, "mpi"]
    (output,) = finish([start(command, environ)])
    assert output.count("ok ") == nranks, output
