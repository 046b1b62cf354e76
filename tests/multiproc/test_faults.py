"""Every fault, extreme and schedule of the programs beside this file, over shared memory and over TCP."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FAULTS = [
    ("kill", "--trials", "50"),
    ("kill", "--trials", "10", "--tcp"),
    *(
        case
        for name in ("stop", "interrupt", "exit", "abort", "disagree")
        for case in ((name,), (name, "--tcp"))
    ),
    ("strangers",),
]
EXTREMES = [
    ("large",),
    *(case for name in ("empty", "alone", "crowd") for case in ((name,), (name, "--tcp"))),
    ("many",),
]
SCHEDULES = [("--ranks", "1-16"), ("--ranks", "1-6", "--tcp")]


def run(program: str, case: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / program), *case],
        timeout=280,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout[-8000:]


@pytest.mark.multiproc
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", FAULTS, ids=" ".join)
def test_fault(case: tuple[str, ...]) -> None:
    run("faults.py", case)


@pytest.mark.multiproc
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", EXTREMES, ids=" ".join)
def test_extreme(case: tuple[str, ...]) -> None:
    run("extremes.py", case)


@pytest.mark.multiproc
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", SCHEDULES, ids=" ".join)
def test_schedules(case: tuple[str, ...]) -> None:
    run("schedules.py", case)
