"""Builds and runs the C++ tests under AddressSanitizer and UBSan, and under ThreadSanitizer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLAVOURS = {"asan": "address,undefined", "tsan": "thread"}
RUN_ENV = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


def run(command: list[str], timeout_s: float) -> str:
    env = {**os.environ, **RUN_ENV, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=env,
        timeout=timeout_s,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-8000:]}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_cpp(flavour: str) -> None:
    build = ROOT / "build" / f"test-{flavour}"
    configure = [
        *("cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja"),
        *("-DPYCOMM_PYTHON=OFF", "-DPYCOMM_TESTS=ON", "-DPYCOMM_WERROR=ON"),
        f"-DPYCOMM_SANITIZE={FLAVOURS[flavour]}",
    ]
    run(configure, 120)
    run(["ninja", "-C", str(build)], 900)
    out = run(["ctest", "--test-dir", str(build), "-j2", "--output-on-failure", "--timeout", "600"], 900)
    assert "100% tests passed" in out
