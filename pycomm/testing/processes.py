"""Ranks as fresh processes of this host: started together, bounded in time, results and failures collected.

A rank is ``python -m pycomm.testing.worker``. It finds what to do in a private directory of the run, joins
the group there, and leaves its result there. A rank that does not end in time is asked for the stacks of its
threads, then killed.
"""

from __future__ import annotations

import inspect
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycomm.testing.threads import RankError

__all__ = ["Ranks", "run_processes", "start_processes", "target_name"]

_OUTPUT_SHOWN = 6000


def target_name(target: Callable[..., Any] | str) -> str:
    """Name a function so that another process finds it: ``file.py:function`` or ``module:function``."""
    if isinstance(target, str):
        return target
    if "<locals>" in target.__qualname__ or target.__qualname__ == "<lambda>":
        raise TypeError(
            f"{target.__qualname__} cannot be found by another process; use a module-level function"
        )
    if target.__module__.startswith("pycomm."):
        return f"{target.__module__}:{target.__qualname__}"
    return f"{Path(inspect.getfile(target)).resolve()}:{target.__qualname__}"


@dataclass(slots=True)
class Ranks:
    """Processes under way.

    Attributes
    ----------
    processes : list of subprocess.Popen
        One per rank, for tests that stop or kill some.
    directory : Path
        The run's private directory: ``result.R``, ``output.R`` and the store.
    """

    directory: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def wait(self, timeout_s: float) -> list[int | None]:
        """Wait until all have ended; returns their exit codes, ``None`` for those that had to be killed."""
        deadline = time.monotonic() + timeout_s
        codes: list[int | None] = []
        late = []
        for process in self.processes:
            try:
                codes.append(process.wait(max(0.0, deadline - time.monotonic())))
            except subprocess.TimeoutExpired:
                codes.append(None)
                late.append(process)
        self.kill(late, with_stacks=True)
        return codes

    def kill(self, processes: Sequence[subprocess.Popen[bytes]], *, with_stacks: bool = False) -> None:
        """Kill processes of this run, after asking them to write their stacks."""
        living = [p for p in processes if p.poll() is None]
        if with_stacks and living:
            for process in living:
                process.send_signal(signal.SIGUSR1)
            time.sleep(0.5)
        for process in living:
            process.kill()
            process.wait()

    def output(self, rank: int) -> str:
        """Return what a rank wrote to its standard streams."""
        return (self.directory / f"output.{rank}").read_text(errors="replace")

    def result(self, rank: int) -> tuple[bool, Any]:
        """Whether a rank succeeded, and what it returned or the text of its failure."""
        path = self.directory / f"result.{rank}"
        if not path.exists():
            return False, f"ended without a result\n{self.output(rank)[-_OUTPUT_SHOWN:]}"
        succeeded, value = pickle.loads(
            path.read_bytes()
        )  # written by our own child into a private directory
        return succeeded, value if succeeded else f"{value}{self.output(rank)[-_OUTPUT_SHOWN:]}"


def start_processes(
    n: int,
    target: Callable[..., Any] | str,
    backend: str | None = "native",
    *,
    directory: Path,
    args: tuple[Any, ...] = (),
    timeout_s: float = 60.0,
    env: Mapping[str, str] | None = None,
) -> Ranks:
    """Start ``n`` ranks and return at once; see :func:`run_processes`."""
    name = target_name(target)
    (directory / "task").write_bytes(pickle.dumps((name, backend, n, args, timeout_s)))
    ranks = Ranks(directory)
    # One thread per rank: tests often run more ranks than there are cores.
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **(env or {})}
    for rank in range(n):
        with (directory / f"output.{rank}").open("wb") as output:
            command = [sys.executable, "-m", "pycomm.testing.worker", str(directory), str(rank)]
            ranks.processes.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ)
            )
    return ranks


def run_processes(
    n: int,
    target: Callable[..., Any] | str,
    backend: str | None = "native",
    *,
    args: tuple[Any, ...] = (),
    timeout_s: float = 60.0,
    run_s: float | None = None,
    env: Mapping[str, str] | None = None,
) -> list[Any]:
    """Run ``target(comm, *args)`` on ``n`` ranks that are processes; returns their results in rank order.

    Parameters
    ----------
    n
        Number of ranks.
    target
        A module-level function, or its name as ``module:function`` or ``file.py:function``.
    backend
        Name of the backend; ``None`` calls ``target(rank, n, *args)`` without a communicator.
    args
        More arguments; must be picklable, as must be the results.
    timeout_s
        Deadline of the group's waits.
    run_s
        Deadline of the whole run; ``timeout_s`` and 15 s when ``None``.
    env
        Variables to set, beyond this process's environment.

    Raises
    ------
    RankError
        Ranks raised, died or did not end in time; the message holds their tracebacks and output.
    """
    with tempfile.TemporaryDirectory(prefix="pycomm-test-") as path:
        ranks = start_processes(
            n, target, backend, directory=Path(path), args=args, timeout_s=timeout_s, env=env
        )
        try:
            codes = ranks.wait(timeout_s + 15 if run_s is None else run_s)
        finally:
            ranks.kill(ranks.processes)
        results = [ranks.result(rank) for rank in range(n)]
    errors = {}
    for rank, ((succeeded, value), code) in enumerate(zip(results, codes, strict=True)):
        if not succeeded:
            how = "killed: it did not end in time" if code is None else f"exit code {code}"
            errors[rank] = f"{how}\n{value}"
    if errors:
        shown = "".join(f"\n--- rank {rank}: {text}" for rank, text in errors.items())
        raise RankError(f"{len(errors)} of {n} ranks of {target_name(target)!r} failed:{shown}", errors)
    return [value for _, value in results]
