"""Programs that end while their daemon threads are in the core: they end well, wherever those threads are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.multiproc, pytest.mark.timeout(110)]

# While Python ends, SlowEnd lets others have the GIL for longer than any wait in the core goes without it.
# But for case "closed", nobody ends those waits before.
PROGRAM = """
import atexit
import sys
import threading
import time

import numpy as np
import pycomm
from pycomm import core, job

rank, rendezvous, case = int(sys.argv[1]), sys.argv[2], sys.argv[3]


class SlowEnd:
    def __del__(self, sleep=time.sleep):
        sleep(0.5)


def join():
    return pycomm.init("native", rank=rank, size=2, rendezvous=rendezvous, timeout_s=60)


def compute():
    data = np.zeros(1 << 20, np.uint8)
    while True:
        core.native.reduce(data, data, data, pycomm.DType.UINT8, pycomm.ReduceOp.SUM)


last = SlowEnd()
comm = None if case in ("join", "compute") else join()
if rank == 1:
    sys.stdin.read()
    sys.exit()
if case != "closed":
    atexit.unregister(job._close_all)
data = np.zeros(1000)
calls = {
    "join": join,
    "compute": compute,
    "closed": lambda: comm.recv(data, 1, timeout_s=1),
    "recv": lambda: comm.recv(data, 1),
    "allreduce": lambda: comm.allreduce(data),
    "async": lambda: comm.allreduce(data, async_op=True).wait(),
}
threading.Thread(target=calls[case], daemon=True).start()
time.sleep(0.3)
"""
CASES = ["join", "compute", "closed", "recv", "allreduce", "async"]


@pytest.mark.parametrize("case", CASES)
def test_a_program_ends_well_whatever_its_daemon_threads_do(case: str, tmp_path: Path) -> None:
    for trial in range(2):
        command = [sys.executable, "-c", PROGRAM]
        with subprocess.Popen(
            [*command, "1", f"file:{tmp_path}/{trial}", case], stdin=subprocess.PIPE
        ) as peer:
            try:
                done = subprocess.run(
                    [*command, "0", f"file:{tmp_path}/{trial}", case],
                    timeout=30,
                    text=True,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    check=False,
                )
            finally:
                peer.kill()
        assert done.returncode == 0, done.stdout[-8000:]


LEAVER = """
import sys
import time

import numpy as np
import pycomm

rank, rendezvous = int(sys.argv[1]), sys.argv[2]
comm = pycomm.init("native", rank=rank, size=2, rendezvous=rendezvous, timeout_s=60)
if rank == 1:
    comm.send(np.arange(3.0), 0)
    comm.close()
    sys.exit()
got = np.zeros(3)
comm.recv(got, 1)  # what was sent before is taken
assert got.tolist() == [0, 1, 2]
began = time.monotonic()
try:
    comm.recv(got, 1)
except pycomm.errors.PeerLost as error:
    took = time.monotonic() - began
    assert error.ranks == (1,), error
    assert took < 10, took  # and not the 60 s of the group
else:
    raise AssertionError("nobody sent this")
"""


def test_a_receive_from_a_rank_that_has_left_ends_before_its_deadline(tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", LEAVER, str(rank), f"file:{tmp_path}/store"],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]
    try:
        outputs = [rank.communicate(timeout=50)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], outputs
