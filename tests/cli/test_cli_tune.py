"""pycomm tune: explanations, crossovers, measured tables, and how bad input ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from pycomm import cli
from pycomm.tuner.table import load_table

pytestmark = pytest.mark.timeout(110)
STAR = """version = 1
[[generate]]
kind = "star"
count = 4
rate = "10 Gbit/s"
[[override]]
from = "device3"
to = "*"
scale = 0.25
both = true
"""
TABLE = (
    'format = "pycomm-tuning"\nversion = 1\n'
    '[[entry]]\ncollective = "allreduce"\nranks = {}\nalgorithm = "{}"\n'
)


@pytest.fixture
def tune(capsys):
    """Run the command line in this process; gives the exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["tune", *map(str, arguments)])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


@pytest.fixture
def star(tmp_path):
    file = tmp_path / "star.toml"
    file.write_text(STAR)
    return file


def test_explain_one_size(tune, star):
    code, out, _ = tune("allreduce", "--explain", "--topology", star, "--bytes", "64M")
    assert code == 0
    assert "allreduce of 64 MiB on 4 ranks on star" in out
    assert "choice" in out
    assert "limited by switch -> device3" in out


def test_explain_as_json(tune, star):
    code, out, _ = tune("allgather", "--explain", "--topology", star, "--bytes", "1M", "--json")
    assert code == 0
    [facts] = json.loads(out)
    assert facts["collective"] == "allgather"
    assert facts["chosen"].partition(",")[0] in {c["planner"] for c in facts["candidates"]}
    assert facts["limit"]["exact"] == "1250000000/3"


def test_crossovers(tune, star):
    code, out, _ = tune("allreduce", "--explain", "--topology", star, "-b", "1K", "-e", "4M")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "allreduce, 4 ranks on star"
    assert lines[1].split() == ["from", "choice", "time"]
    assert lines[2].startswith("1 KiB")


def test_same_text_every_time(tune, star):
    asked = ("allreduce", "--explain", "--topology", star, "--bytes", "100000", "--json")
    assert tune(*asked)[1] == tune(*asked)[1]


def test_measure_write_and_use(tune, tmp_path):
    file = tmp_path / "table.toml"
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYCOMM_", "MPI"))}
    command = [sys.executable, "-m", "pycomm", "tune", "allreduce", "-np", "2"]
    sizes = ["-b", "64", "-e", "4K", "-f", "64", "-r", "1"]
    done = subprocess.run(
        [*command, *sizes, "-o", str(file)],
        capture_output=True,
        text=True,
        timeout=90,
        env=environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "wrote" in done.stdout
    assert done.stdout.count("predicted") == 2
    table = load_table(file)
    assert {entry.key.ranks for entry in table.entries} == {2}
    assert {entry.kind.label for entry in table.entries} == {"allreduce"}
    # what the table holds for others is kept
    file.write_text(file.read_text() + TABLE.format(5, "ring").partition("version = 1\n")[2])
    done = subprocess.run(
        [*command, *sizes, "-o", str(file)],
        capture_output=True,
        text=True,
        timeout=90,
        env=environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {entry.key.ranks for entry in load_table(file).entries} == {2, 5}


def test_merge(tune, tmp_path):
    old, new, both = (tmp_path / name for name in ("old.toml", "new.toml", "both.toml"))
    old.write_text(TABLE.format(4, "ring"))
    new.write_text(TABLE.format(4, "direct") + 'from = "1 K"\nto = "2 K"\n')
    assert tune("--merge", old, "--merge", new, "-o", both)[0] == 0
    assert [e.algorithm for e in load_table(both).entries] == ["ring", "direct", "ring"]
    assert tune("--merge", old)[1] == tune("--merge", old)[1] != ""


def test_a_table_is_used_by_explain(tune, tmp_path, monkeypatch):
    file = tmp_path / "table.toml"
    file.write_text(TABLE.format(8, "knomial4"))
    monkeypatch.setenv("PYCOMM_TUNING", str(file))
    assert "knomial4: the measured table says so" in tune("allreduce", "--explain", "--bytes", "1M")[1]
    file.write_text(TABLE.format(8, "knomial5"))
    code, _, err = tune("allreduce", "--explain", "--bytes", "1M")
    assert code == 2
    assert f"{file}:6: algorithm: there is no algorithm 'knomial5'" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("allredcue",), "allredcue"),
        (("allreduce", "--topology", "dgx_h100"), "--topology and --bytes are for --explain"),
        (("allreduce", "--explain", "--topology", "dgx_h101"), "dgx_h101"),
        (
            ("allreduce", "--explain", "--topology", "dgx_h100", "-np", "9"),
            "has 8 devices, too few for -np 9",
        ),
        (("broadcast", "--explain", "--topology", "dgx_h100", "--root", "8"), "root 8 is no rank of 8"),
        (("allreduce", "--explain", "--bytes", "many"), "'many' is not a size"),
        (("--merge", "/nowhere/a.toml"), "No such file"),
        (("allreduce",), "there is nothing to tune on one rank"),
    ],
)
def test_usage_errors_are_one_line(tune, monkeypatch, arguments, wanted):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    code, _, err = tune(*arguments)
    assert code == 2
    assert wanted in err
    assert err.strip().count("\n") == 0
