"""``pycomm bench`` from the outside: real processes, small sizes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

pytestmark = [pytest.mark.multiproc, pytest.mark.timeout(100)]
COMMAND = [sys.executable, "-c", "from pycomm.cli import main; main()", "bench"]
HAS_TORCH = find_spec("torch") is not None


def bench(*args, cwd=None):
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYCOMM_", "MPI"))}
    return subprocess.run(
        [*COMMAND, *args], capture_output=True, text=True, timeout=90, env=environ, cwd=cwd, check=False
    )


@pytest.mark.torch
@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
def test_table_and_files(tmp_path):
    files = [
        "--json",
        str(tmp_path / "r.json"),
        "--csv",
        str(tmp_path / "r.csv"),
        "--plot",
        str(tmp_path / "r.svg"),
    ]
    sizes = ["-b", "8", "-e", "512", "-f", "64", "-n", "4", "-w", "1", "--rounds", "2"]
    done = bench("allreduce,broadcast", *sizes, "-np", "2", "--backends", "gloo", *files)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.strip() and not line.startswith("#")]
    assert [line[0] for line in lines] == ["8", "512", "8", "512"]
    assert {line[4] for line in lines} == {"gloo"}
    assert "# wrong values: 0 (OK)" in done.stdout
    report = json.loads((tmp_path / "r.json").read_text())
    assert len(report["records"]) == 6
    assert all(
        one["wrong"] == 0 and one["iterations"] == 4 and one["time_us"] > 0 for one in report["records"]
    )
    assert report["environment"]["cores"] >= 1
    assert len(list(csv.DictReader((tmp_path / "r.csv").read_text().splitlines()))) == 6
    assert (tmp_path / "r.svg").read_text().lstrip().startswith("<?xml")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["allredcue", "-np", "2"], "allredcue"),
        (["--op", "band", "-np", "2"], "band"),
        (["--dtype", "float31", "-np", "2"], "float31"),
        (["-b", "64", "-e", "8", "-np", "2"], "64"),
        (["--root", "2", "-np", "2"], "root"),
        (["-np", "0"], "0 ranks"),
    ],
)
def test_usage_errors_name_the_culprit(args, words):
    done = bench(*args)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr


def test_a_rank_that_fails_ends_the_run():
    done = bench("-np", "2", "--backends", "no-such-backend", "-b", "8", "-e", "8")
    assert done.returncode == 2, done.stderr
    assert "no-such-backend" in done.stderr
