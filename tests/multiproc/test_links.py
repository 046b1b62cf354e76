"""Choices on shaped links: a small case of every scene of links.py, judged by results, not by times."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.multiproc, pytest.mark.slow, pytest.mark.timeout(200)]
PROGRAM = Path(__file__).with_name("links.py")


def why_no_links() -> str:
    """Why this machine cannot play hosts with slow links; ``""`` when it can."""
    spec = importlib.util.spec_from_file_location("network_tests", PROGRAM.with_name("test_network.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    reason = str(module.why_no_hosts())
    if reason:
        return reason
    if shutil.which("tc") is None:
        return "the tc command (package iproute2) is not installed"
    name = f"pycomm-shape-{os.getpid()}"
    shape = [
        "qdisc",
        "add",
        "dev",
        "lo",
        "root",
        "tbf",
        "rate",
        "100mbit",
        "burst",
        "6000",
        "limit",
        "100000",
    ]
    subprocess.run(["ip", "netns", "add", name], capture_output=True, check=True)
    done = subprocess.run(["tc", "-n", name, *shape], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=True)
    return "" if done.returncode == 0 else f"this kernel has no token buckets: {done.stderr.strip()}"


REASON = why_no_links()


def run(*arguments: str) -> str:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYCOMM_")}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        env=environ,
        timeout=190,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


@pytest.mark.skipif(bool(REASON), reason=REASON or "can be run")
@pytest.mark.parametrize("scene", ["racks", "rails", "nics", "ring"])
def test_every_candidate_is_right_and_the_choice_is_planned_for_the_links(scene: str) -> None:
    """With the topology from a file; every algorithm runs, on every rank, with right results."""
    out = run(
        scene,
        "--sources",
        "file",
        "--sizes",
        "65536",
        "--repeats",
        "1",
        "--no-gloo",
        "--no-mpi",
        "--no-judge",
    )
    rows = [line.split() for line in out.splitlines() if line.startswith(("allreduce ", "allgather "))]
    assert [row[:2] for row in rows] == [["allreduce", "65536"], ["allgather", "65536"]]


@pytest.mark.skipif(bool(REASON), reason=REASON or "can be run")
def test_the_probe_gives_all_ranks_the_same_network() -> None:
    """What the rates are is judged by links.py itself: other load on this machine spoils them."""
    out = run("racks", "--probe-only")
    assert "racks: 4 ranks on 4 hosts, probed in" in out
