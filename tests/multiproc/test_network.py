"""Ranks on two hosts, as one machine can play them: every case of hosts.py; interfaces that do not exist."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [pytest.mark.multiproc, pytest.mark.timeout(110)]
PROGRAM = Path(__file__).with_name("hosts.py")
CASES = [("results",), ("results", "--ipv6"), ("interface",), ("unplug",), ("kill",)]
if find_spec("torch") is not None:
    CASES.append(("torch",))


@cache
def why_no_hosts() -> str:
    """Why this machine cannot play two hosts; ``""`` when it can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    if shutil.which("ip") is None:
        return "the ip command (package iproute2) is not installed"
    name = f"pycomm-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return f"this container may not make network namespaces: {made.stderr.strip()}"
    cable = ["ip", "-n", name, "link", "add", "probe0", "type", "veth", "peer", "name", "probe1"]
    joined = subprocess.run(cable, capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=True)
    return "" if joined.returncode == 0 else f"this kernel has no veth pairs: {joined.stderr.strip()}"


@pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts() or "can be run")
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_two_hosts(case: tuple[str, ...]) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYCOMM_")}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *case],
        env=environ,
        timeout=100,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]


PROGRAM_WITH_INTERFACE = """
import sys
import pycomm

rank = int(sys.argv[1])
try:
    pycomm.init("native", rank=rank, size=2, rendezvous="127.0.0.1:29533", secret="abc")
except pycomm.errors.UsageError as error:
    print(error)
"""


def test_an_interface_that_does_not_exist_is_refused_on_every_rank(tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM_WITH_INTERFACE, str(rank)],
            env={**os.environ, "PYCOMM_INTERFACE": "nosuch0", "XDG_RUNTIME_DIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for rank in ranks:
            out, err = rank.communicate(timeout=60)
            assert "'nosuch0' is neither an address nor an interface of this machine" in out, err
            assert "lo" in out.partition("choose one of")[2]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
