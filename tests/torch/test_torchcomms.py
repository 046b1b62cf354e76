"""The torchcomms adapter on two processes; see torchcomms_program.py."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.multiproc]
PROGRAM = Path(__file__).parent / "torchcomms_program.py"


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_every_operation_through_torchcomms() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHCOMM_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            env=os.environ | meeting | {"TORCHCOMM_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [rank.communicate(timeout=100)[0] for rank in ranks]
    assert [f"rank {i}: ok\n" in text for i, text in enumerate(printed)] == [True, True], "\n".join(printed)
