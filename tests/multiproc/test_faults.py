"""Every fault of faults.py, over shared memory and over TCP."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("faults.py")
CASES = [
    ("kill", "--trials", "50"),
    ("kill", "--trials", "10", "--tcp"),
    ("stop",),
    ("stop", "--tcp"),
    ("interrupt",),
    ("interrupt", "--tcp"),
    ("exit",),
    ("exit", "--tcp"),
    ("abort",),
    ("abort", "--tcp"),
    ("disagree",),
    ("disagree", "--tcp"),
    ("strangers",),
]


@pytest.mark.multiproc
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_fault(case: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *case], timeout=280, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout[-8000:]
