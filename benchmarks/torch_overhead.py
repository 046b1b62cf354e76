"""What one call costs through ``torch.distributed``: an all-reduce of one element, on pycomm and on Gloo.

    python benchmarks/torch_overhead.py [--ranks 1,2] [--rounds 40] [--calls 50] [--output FILE]

The ways to call take turns, in rounds of some calls each, so that a disturbance of the machine hits all of
them. A round's time is that of the slowest rank, divided by its calls; the table has the median over the
rounds. With one rank nothing has to be moved: what is left is the overhead itself. The sum is checked after
each round.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
import torch.multiprocessing as mp

from pycomm.torch.groups import communicator_of

Call = Callable[[torch.Tensor], "torch.Tensor | None"]


def ways(group: dist.ProcessGroup) -> dict[str, Call]:
    """Ways to call; each sums the tensor over the ranks, in place unless it returns another one."""
    options = dist.AllreduceOptions()

    def waited(tensor: torch.Tensor) -> None:
        dist.all_reduce(tensor, group=group, async_op=True).wait()

    def waited_by_future(tensor: torch.Tensor) -> None:
        dist.all_reduce(tensor, group=group, async_op=True).get_future().wait()

    return {
        "`dist.all_reduce(t)`": lambda tensor: dist.all_reduce(tensor, group=group),
        "`dist.all_reduce(t, async_op=True).wait()`": waited,
        "`dist.all_reduce(t, async_op=True).get_future().wait()`": waited_by_future,
        "`group.allreduce([t], options).wait()`": lambda tensor: (
            group.allreduce([tensor], options).wait() and None
        ),
        "`wait_tensor(all_reduce(t, ...))`, functional": lambda tensor: functional.wait_tensor(
            functional.all_reduce(tensor, "sum", group)
        ),
    }


def timed(call: Call, calls: int, size: int, what: str) -> float:
    """Seconds of one call, the slowest rank's, over a round."""
    tensor = torch.zeros(1)
    call(tensor)
    dist.barrier()
    start = time.perf_counter()
    for _ in range(calls):
        call(tensor)
    took = (time.perf_counter() - start) / calls
    tensor.fill_(1.0)
    result = call(tensor)
    if float(tensor if result is None else result) != size:
        raise AssertionError(
            f"{what}: the sum of {size} ones is {float(tensor if result is None else result)}"
        )
    slowest = torch.tensor([took], dtype=torch.float64)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    return float(slowest)


def rank_main(rank: int, size: int, rounds: int, calls: int, store: str, results: mp.SimpleQueue) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group(
        "pycomm", init_method=f"file://{store}", rank=rank, world_size=size, timeout=timedelta(seconds=60)
    )
    columns = {"pycomm": ways(dist.group.WORLD), "gloo": ways(dist.new_group(backend="gloo"))}
    cases = {(way, name): call for name, calls_of in columns.items() for way, call in calls_of.items()}
    comm = communicator_of()

    def on_memory(tensor: torch.Tensor) -> None:
        comm.allreduce(tensor.numpy())

    cases["`comm.allreduce(t.numpy())`, pycomm's own API", "pycomm"] = on_memory
    times: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
    for turn in range(rounds + 1):
        for case, call in cases.items():
            took = timed(call, calls, size, " on ".join(case))
            if turn:  # the first round warms up
                times[case].append(took)
    if rank == 0:
        results.put({case: statistics.median(each) * 1e6 for case, each in times.items()})
    dist.barrier()
    dist.destroy_process_group()


def measure(size: int, rounds: int, calls: int) -> dict[tuple[str, str], float]:
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(rank_main, (size, rounds, calls, f"{folder}/store", results), nprocs=size)
    return results.get()


def table(runs: dict[int, dict[tuple[str, str], float]]) -> str:
    head = ["call, one float32 (median, µs)"]
    for size in runs:
        ranks = f"{size} rank{'s' if size > 1 else ''}"
        head += [f"pycomm, {ranks}", f"Gloo, {ranks}", "Gloo / pycomm"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    first = next(iter(runs.values()))
    for way in dict.fromkeys(way for way, _ in first):
        line = [way]
        for medians in runs.values():
            ours, theirs = medians[way, "pycomm"], medians.get((way, "gloo"))
            line += [
                f"{ours:.1f}",
                *(["", ""] if theirs is None else [f"{theirs:.1f}", f"{theirs / ours:.2f}"]),
            ]
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", default="1,2")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calls", type=int, default=50, help="in one round")
    parser.add_argument("--output", type=Path, help="file for the table")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    load = os.getloadavg()[0]
    runs = {size: measure(size, given.rounds, given.calls) for size in map(int, given.ranks.split(","))}
    text = (
        f"torch {torch.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores, "
        f"load {load:.1f} before; {given.rounds} rounds of {given.calls} calls\n\n{table(runs)}\n"
    )
    print(text)
    if given.output is not None:
        given.output.write_text(text)


if __name__ == "__main__":
    main()
