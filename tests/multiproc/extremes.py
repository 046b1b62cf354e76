"""Right results where counts, sizes and numbers of ranks are extreme.

python tests/multiproc/extremes.py large      a 3 GiB allreduce on 2 ranks, every element checked
python tests/multiproc/extremes.py empty      zero elements in every collective
python tests/multiproc/extremes.py alone      groups of one rank
python tests/multiproc/extremes.py crowd      8 ranks on however few cores there are
python tests/multiproc/extremes.py many       1,000 groups made and closed, descriptors and threads flat
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ranks import Failed, Say, run_to_end, start

import pycomm

GIB = 1 << 30


def on_ranks(n: int, body: Callable[[pycomm.Communicator, Say], None], limit_s: float = 60) -> None:
    ranks = start(n, body, timeout_s=limit_s)
    run_to_end(ranks, limit_s)


def check(name: str, got: np.ndarray, wanted: object) -> None:
    if not np.array_equal(got, np.broadcast_to(np.asarray(wanted), got.shape)):
        raise Failed(f"{name}: wrong result")


def large() -> None:
    def body(comm: pycomm.Communicator, _: Say) -> None:
        count = 3 * GIB // 4 + 3
        x = np.arange(count, dtype=np.uint32)
        x *= np.uint32(comm.rank + 1)
        comm.allreduce(x)
        step = 1 << 24
        for at in range(0, count, step):
            part = x[at : at + step]
            check("large", part, np.arange(at, at + len(part), dtype=np.uint32) * np.uint32(3))

    on_ranks(2, body, 200)
    print("large: allreduce of 3 GiB + 12 bytes on 2 ranks: every element right")


def every_collective(comm: pycomm.Communicator, count: int) -> None:
    n, r = comm.size, comm.rank
    mine = np.arange(count, dtype=np.float32) + r
    total = np.arange(count, dtype=np.float32) * n + n * (n - 1) / 2
    out = np.empty(count, np.float32)
    blocks = np.empty(n * count, np.float32)
    comm.allreduce(mine, out)
    check("allreduce", out, total)
    comm.allgather(mine, blocks)
    check("allgather", blocks, np.concatenate([np.arange(count, dtype=np.float32) + s for s in range(n)]))
    comm.alltoall(np.repeat(np.arange(n, dtype=np.float32) + 10 * r, count), blocks)
    check("alltoall", blocks, np.repeat(10 * np.arange(n, dtype=np.float32) + r, count))
    comm.reduce_scatter(np.repeat(np.arange(n, dtype=np.float32), count), out)
    check("reduce_scatter", out, np.float32(n * r))
    for root in {0, n - 1}:
        data = mine.copy()
        comm.broadcast(data, root=root)
        check("broadcast", data, np.arange(count, dtype=np.float32) + root)
        comm.reduce(mine, out, root=root)
        if r == root:
            check("reduce", out, total)
        comm.gather(mine, blocks if r == root else None, root=root)
        comm.scatter(np.repeat(np.arange(n, dtype=np.float32), count) if r == root else None, out, root=root)
        check("scatter", out, np.float32(r))
    counts = [count if s % 2 else 0 for s in range(n)]
    ragged = np.empty(sum(counts), np.float32)
    comm.allgatherv(mine[: counts[r]], ragged, counts)
    parts = [np.arange(c, dtype=np.float32) + s for s, c in enumerate(counts)]
    check("allgatherv", ragged, np.concatenate(parts))
    comm.barrier()
    if n > 1:
        work = comm.recv(out, (r - 1) % n, tag=3, async_op=True)
        comm.send(mine, (r + 1) % n, tag=3)
        work.wait()
        check("send, recv", out, np.arange(count, dtype=np.float32) + (r - 1) % n)


def empty() -> None:
    for n in (1, 2, 3):
        on_ranks(n, lambda comm, _: every_collective(comm, 0))
    print("empty: every collective of zero elements on 1, 2 and 3 ranks")


def alone() -> None:
    on_ranks(1, lambda comm, _: [every_collective(comm, c) for c in (1, 17, 100_000)])
    print("alone: every collective in a group of one rank")


def crowd() -> None:
    on_ranks(8, lambda comm, _: [every_collective(comm, c) for c in (1, 17, 1000, 100_003)], 120)
    print(f"crowd: every collective on 8 ranks on {len(os.sched_getaffinity(0))} cores")


def many() -> None:
    def resources() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count() + len(
            list(Path("/proc/self/task").iterdir())
        )

    def body(comm: pycomm.Communicator, _: Say) -> None:
        x = np.ones(10, np.float32)
        first = None
        for i in range(1000):
            with comm.duplicate() as twin:
                twin.allreduce(x)
            if i == 10:
                first = resources()
        if any(now > then for now, then in zip(resources(), first, strict=True)):
            raise Failed(f"descriptors and threads were {first} after 10 groups and {resources()} after 1000")

    on_ranks(2, body, 100)
    print("many: 1,000 groups made, used and closed; descriptors and threads flat")


EXTREMES: dict[str, Callable[[], None]] = {
    "large": large,
    "empty": empty,
    "alone": alone,
    "crowd": crowd,
    "many": many,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=EXTREMES)
    parser.add_argument("--tcp", action="store_true", help="without shared memory, as between hosts")
    args = parser.parse_args()
    os.environ["PYCOMM_SHM"] = "0" if args.tcp else "1"
    try:
        EXTREMES[args.case]()
    except Failed as failure:
        print(f"{args.case}: FAILED: {failure}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
