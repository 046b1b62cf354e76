"""Run every example over Gloo and over pycomm: compare the losses and the speeds.

``python examples/compare.py`` runs all; ``python examples/compare.py ddp moe --steps 10`` some of them. Exits
with 1 when losses differ by more than float32 rounding.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_RANKS = {"ddp": 2, "fsdp2": 2, "tensor_parallel": 2, "pipeline": 2, "moe": 2, "three_d": 8}
# Sums of different order differ in the last bits (2^-24 of the value each), and each step builds on the last.
_ROUNDING = 1e-5


def launch(name: str, ranks: int, backend: str, *more: str, timeout_s: float = 300) -> dict[str, Any]:
    """Run one example under torchrun and return its report.

    Raises
    ------
    RuntimeError
        It failed; the message is what it wrote.
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return _run([*torchrun, str(_HERE / f"{name}.py"), "--backend", backend, *more], timeout_s)


def reference(ranks: int, *more: str, timeout_s: float = 300) -> dict[str, Any]:
    """Run the DDP example's reference in one process and return its report."""
    return _run([str(_HERE / "ddp.py"), "--reference", str(ranks), *more], timeout_s)


def _run(arguments: list[str], timeout_s: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        done = subprocess.run(
            [sys.executable, *arguments, "--report", str(path)],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return json.loads(path.read_text())


def difference(some: list[float], others: list[float]) -> float:
    """Return the largest relative difference of two loss curves."""
    return max(abs(a - b) / abs(b) for a, b in zip(some, others, strict=True))


def main() -> int:
    """Run, print the table, return the exit code."""
    parser = argparse.ArgumentParser(description="Gloo and pycomm side by side")
    parser.add_argument("examples", nargs="*", metavar="EXAMPLE", help=f"{', '.join(_RANKS)}; all if none")
    parser.add_argument("--steps", type=int, default=40, help="steps of each run")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each; the median speed is shown")
    arguments = parser.parse_args()
    more = ("--steps", str(arguments.steps))
    worst = 0.0
    print("example          ranks  steps  loss diff  Gloo tokens/s  pycomm tokens/s  ratio")
    for name in arguments.examples or _RANKS:
        ranks = _RANKS[name]
        runs: dict[str, list[dict[str, Any]]] = {"gloo": [], "pycomm": []}
        for _ in range(arguments.repeats):
            for backend, reports in runs.items():
                reports.append(launch(name, ranks, backend, *more))
        losses = runs["pycomm"][0]["losses"]
        diff = difference(losses, runs["gloo"][0]["losses"])
        gloo, ours = (statistics.median(r["tokens_per_s"] for r in reports) for reports in runs.values())
        shown = f"{name:16} {ranks:5} {arguments.steps:6} {diff:10.1e} {gloo:14.0f} {ours:16.0f}"
        print(f"{shown} {ours / gloo:6.2f}", flush=True)
        worst = max(worst, diff)
        if name == "ddp" and losses != reference(ranks, *more)["losses"]:
            print("ddp: losses are not bitwise equal to those of ddp.py --reference")
            worst = max(worst, 1.0)
    print(f"largest relative difference {worst:.1e}, allowed {_ROUNDING:.0e}")
    return 0 if worst <= _ROUNDING else 1


if __name__ == "__main__":
    sys.exit(main())
