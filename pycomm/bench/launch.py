"""Starts the ranks of a benchmark on this host: as plain processes, or under an MPI's mpiexec."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pycomm.bench.report import Report
from pycomm.bench.scenario import Scenario
from pycomm.errors import BackendUnavailable, CommError, UsageError

__all__ = ["FLAVOURS", "Mpi", "find_mpi", "find_mpis", "run_local"]

FLAVOURS = ("impi", "mpich", "openmpi")
_LIBRARIES = {"openmpi": "libmpi.so.40", "mpich": "libmpi.so.12", "impi": "libmpi.so.12"}
_CODES = {2: UsageError, 3: BackendUnavailable}


@dataclass(frozen=True, slots=True)
class Mpi:
    """An MPI installation.

    Parameters
    ----------
    flavour
        ``"openmpi"``, ``"mpich"`` or ``"impi"``.
    prefix
        The folder that has its ``bin`` and ``lib``.
    """

    flavour: str
    prefix: Path

    def command(self, nranks: int) -> list[str]:
        """Return the beginning of a command line that starts ``nranks`` ranks here, even more than cores."""
        mpiexec = str(self.prefix / "bin" / "mpiexec")
        if self.flavour == "openmpi":
            crowded = nranks > len(os.sched_getaffinity(0))
            placing = ["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none" if crowded else "core"]
            return [mpiexec, *placing, "-n", str(nranks)]
        return [mpiexec, "-n", str(nranks)]

    def environment(self) -> dict[str, str]:
        """Return the variables that this MPI needs, and those that show it at its best on one host."""
        libmpi = self.prefix / "lib" / _LIBRARIES[self.flavour]
        found = {"MPI4PY_RC_THREAD_LEVEL": "funneled"}  # MPI_THREAD_MULTIPLE doubles the latency of some
        if libmpi.is_file():
            found["MPI4PY_LIBMPI"] = str(libmpi)
        if self.flavour == "openmpi":
            found |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        elif self.flavour == "impi":
            found |= {"I_MPI_ROOT": str(self.prefix), "I_MPI_FABRICS": "shm"}
        else:
            found |= {"UCX_LOG_LEVEL": "error"}
        return found


def find_mpis(roots: Sequence[Path] = ()) -> list[Mpi]:
    """Find MPIs: in ``build/mpi/*`` of ``roots``, this folder and the checkout; of this Python; in PATH."""
    checkout = Path(__file__).resolve().parents[2]
    candidates = [
        folder
        for root in dict.fromkeys((*roots, Path.cwd(), checkout))
        for folder in sorted((root / "build" / "mpi").glob("*"))
    ]
    candidates.append(Path(sys.prefix))
    mpiexec = shutil.which("mpiexec")
    if mpiexec is not None:
        candidates.append(Path(mpiexec).resolve().parents[1])
    found: dict[str, Mpi] = {}
    for prefix in candidates:
        flavour = _flavour(prefix)
        if flavour:
            found.setdefault(flavour, Mpi(flavour, prefix))
    return [found[flavour] for flavour in FLAVOURS if flavour in found]


def find_mpi(wanted: str | None = None) -> Mpi:
    """Find one MPI: by flavour, by folder (or its mpiexec), or the first there is.

    Raises
    ------
    BackendUnavailable
        There is none; the message says how to get one.
    """
    if wanted is not None and wanted not in FLAVOURS:
        prefix = Path(wanted)
        prefix = prefix.resolve().parents[1] if prefix.is_file() else prefix
        flavour = _flavour(prefix)
        if not flavour:
            raise UsageError(
                f"{wanted} is none of {', '.join(FLAVOURS)}, nor the folder of an MPI (with bin/mpiexec)"
            )
        return Mpi(flavour, prefix)
    for mpi in find_mpis():
        if wanted in (None, mpi.flavour):
            return mpi
    name = wanted or "mpich"
    raise BackendUnavailable(f"no {wanted or 'MPI'} found; install it with: bash .ci/mpi {name}")


def _flavour(prefix: Path) -> str:
    programs = prefix / "bin"
    if not (programs / "mpiexec").exists():
        return ""
    if (programs / "impi_info").exists():
        return "impi"
    return "openmpi" if (programs / "ompi_info").exists() else "mpich"


def run_local(scenario: Scenario, nranks: int, mpi: Mpi | None = None, *, live: bool = True) -> Report:
    """Measure a scenario on ``nranks`` fresh processes of this host.

    Parameters
    ----------
    scenario
        What to measure.
    nranks
        How many processes.
    mpi
        What starts them; needed when ``mpi`` is among the backends.
    live
        Whether rank 0 prints the table, and a progress bar on a terminal, while it measures.

    Raises
    ------
    CommError
        A rank failed; what it said is on stderr.
    """
    scenario.validate()
    if nranks < 1:
        raise UsageError(f"{nranks} ranks cannot measure anything; ask for 1 or more")
    if "mpi" in scenario.backends and mpi is None:
        mpi = find_mpi()
    with tempfile.TemporaryDirectory(prefix="pycomm-bench-") as folder:
        task, result = Path(folder) / "scenario.json", Path(folder) / "report.json"
        task.write_bytes(msgspec.json.encode(scenario))
        worker = [sys.executable, "-m", "pycomm.bench.worker", str(task), str(result)]
        worker.append("--live" if live else "--quiet")
        environ = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
        environ["OMP_NUM_THREADS"] = "1"
        if mpi is not None:
            code = _wait([_start([*mpi.command(nranks), *worker], {**environ, **mpi.environment()})])
        else:
            worker += ["--folder", f"{folder}/store", "--size", str(nranks)]
            code = _wait([_start([*worker, "--rank", str(rank)], environ) for rank in range(nranks)])
        if code:
            kind = _CODES.get(code, CommError)
            raise kind(f"the benchmark's ranks ended with exit code {code}; see above for the cause")
        return msgspec.json.decode(result.read_bytes(), type=Report)


def _start(command: list[str], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=environ, start_new_session=True)


def _wait(processes: list[subprocess.Popen[bytes]]) -> int:
    """Wait for all; when one fails, give the others a moment and end them. Returns the first exit code."""
    code = 0
    deadline = float("inf")
    try:
        while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
            failed = [process.returncode for process in processes if process.returncode]
            if failed and not code:
                code, deadline = failed[0], time.monotonic() + 5
            time.sleep(0.02)
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return code or next((process.returncode for process in processes if process.returncode), 0)
