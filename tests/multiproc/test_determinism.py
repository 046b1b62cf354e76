"""Same request, same schedule, byte for byte: in other processes, and under other hash seeds."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import hashlib
from pycomm.planner.base import PlanRequest
from pycomm.planner.registry import plan
from pycomm.schedule.codec import encode
from pycomm.topology import catalogue, generators
from pycomm.topology.files import loads
from pycomm.types import CollectiveKind

SLOW = '''version = 1
[[generate]]
kind = "star"
count = 6
rate = "100 Gbit/s"
[[override]]
from = "device2"
to = "*"
both = true
scale = 0.5
'''
networks = {
    "dgx1": catalogue.named("published_dgx1v"),
    "a100": catalogue.named("published_dgx_a100_x2"),
    "torus": generators.torus([3, 4], rate="100 Gbit/s"),
    "slow": loads(SLOW, "slow"),
}
for name, topology in networks.items():
    n = len(topology.devices)
    for kind in ("ALLGATHER", "REDUCE_SCATTER", "ALLREDUCE", "BROADCAST"):
        which = CollectiveKind[kind]
        planner = "free_root" if kind == "ALLREDUCE" else "tree_packing"
        request = PlanRequest(which, n, 1 if which.is_rooted else -1, topology=topology)
        data = encode(plan(planner, request))
        print(name, kind, topology.digest().hex()[:8], hashlib.sha256(data).hexdigest())
"""


@pytest.mark.multiproc
@pytest.mark.timeout(300)
def test_other_processes_and_hash_seeds_make_the_same_bytes():
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in ("0", "1", "4242")
    ]
    outputs = [process.communicate(timeout=280) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], outputs
    printed = {out for out, _ in outputs}
    assert len(printed) == 1
    assert printed.pop().count("\n") == 16
