"""A rank of an MPI that measures the collectives of links.py; rank 0 prints times in seconds as JSON.

python links_mpi.py KINDS SIZES REPEATS    with commas between kinds, and between sizes
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
from mpi4py import MPI


def main() -> None:
    comm = MPI.COMM_WORLD
    n, r = comm.Get_size(), comm.Get_rank()
    kinds, sizes = sys.argv[1].split(","), [int(size) for size in sys.argv[2].split(",")]
    rows = []
    for kind in kinds:
        for nbytes in sizes:
            count = nbytes // 4 if kind == "allreduce" else nbytes // 4 // n
            ramp = np.arange(count, dtype=np.float32) % 1000
            mine, got = ramp + r, np.empty(count if kind == "allreduce" else count * n, np.float32)
            wanted = (
                ramp * n + n * (n - 1) / 2
                if kind == "allreduce"
                else (ramp + np.arange(n, dtype=np.float32)[:, None]).ravel()
            )
            times = []
            for turn in range(int(sys.argv[3]) + 1):
                comm.Barrier()
                began = time.perf_counter()
                if kind == "allreduce":
                    comm.Allreduce(mine, got)
                else:
                    comm.Allgather(mine, got)
                took = comm.allreduce(time.perf_counter() - began, MPI.MAX)
                assert np.array_equal(got, wanted), f"{kind} of {nbytes} bytes: wrong result"
                if turn:
                    times.append(took)
            rows.append({"kind": kind, "nbytes": nbytes, "seconds": statistics.median(times)})
    if r == 0:
        print("ROWS " + json.dumps(rows), flush=True)


if __name__ == "__main__":
    main()
