"""Programs that run on two processes as they are: torchcomms_program.py, device_program.py."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.torch,
    pytest.mark.multiproc,
    pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed"),
]


def run_pair(program: str) -> None:
    """Run a program of this folder as ranks 0 and 1."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    meeting = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / program)],
            env=os.environ | meeting | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [rank.communicate(timeout=100)[0] for rank in ranks]
    assert [f"rank {i}: ok\n" in text for i, text in enumerate(printed)] == [True, True], "\n".join(printed)


def test_every_operation_through_torchcomms() -> None:
    run_pair("torchcomms_program.py")


def test_tensors_of_a_device_are_staged() -> None:
    run_pair("device_program.py")
