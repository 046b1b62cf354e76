"""pycomm schedule and the command line around it: what is printed, and every exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path

import pytest

from pycomm import cli, errors
from pycomm.schedule.text import format_schedule, parse_schedule

GOLDEN = Path(__file__).parent.parent / "golden"
TRIANGLE = str(GOLDEN / "triangle.txt")
GATHER = (
    "schedule 1\nname pair\ncollective allgather\nranks 2\npieces 1\n"
    "rank 0\n copy input[0] to output[0]\n send input[0] to 1\n recv output[1] from 1\n"
    "rank 1\n copy input[0] to output[1]\n send input[0] to 0\n recv output[0] from 0\n"
)


@pytest.fixture
def pycomm(capsys):
    """Run the command line in this process; gives the exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


@pytest.fixture
def pair(tmp_path):
    path = tmp_path / "pair.txt"
    path.write_text(GATHER)
    return path


def test_show_prints_cost_and_ops(pycomm, golden):
    code, out, err = pycomm("schedule", "show", TRIANGLE)
    assert (code, err) == (0, "")
    golden("show_triangle.txt.out", out)


def test_show_as_json_holds_the_whole_schedule(pycomm):
    code, out, _ = pycomm("schedule", "show", TRIANGLE, "--json")
    facts = json.loads(out)
    schedule = parse_schedule(Path(TRIANGLE).read_text())
    assert code == 0
    assert (facts["steps"], facts["sent_chunks"], facts["total_sent_chunks"]) == (2, 3, 6)
    assert facts["digest"] == schedule.digest().hex()
    assert len(facts["ops"]) == len(schedule.ops)
    assert facts["ops"][1] == {
        "rank": 0, "op": 1, "step": 0, "kind": "send", "peer": 2, "channel": 1,
        "src": "input[1:3]", "dst": None, "chunks": 2,
    }  # fmt: skip


def test_show_plans_an_algorithm(pycomm):
    code, out, _ = pycomm("schedule", "show", "ring", "allreduce", "--ranks", 4)
    assert code == 0
    assert out.startswith("ring allreduce on 4 ranks, out of place\n")
    assert "steps     6" in out


def test_show_shortens_long_tables_unless_asked(pycomm):
    _, short, _ = pycomm("schedule", "show", "ring", "allgather", "-n", 16)
    _, whole, _ = pycomm("schedule", "show", "ring", "allgather", "-n", 16, "--all")
    assert "more ops; --all prints them" in short
    assert "more ops" not in whole
    assert len(whole.splitlines()) > len(short.splitlines())


def test_a_right_schedule_is_verified(pycomm, pair):
    code, out, err = pycomm("schedule", "verify", pair)
    assert (code, err) == (0, "")
    assert out == "verified: pair allgather on 2 ranks: 1 steps, 1 of 2 chunks sent by the busiest rank\n"
    code, out, _ = pycomm("schedule", "verify", pair, "--json")
    assert code == 0
    assert json.loads(out)["verified"] is True


def test_a_wrong_schedule_is_exit_code_1_with_findings(pycomm, pair):
    pair.write_text(GATHER.replace("recv output[0] from 0", "recv output[1] from 0"))
    code, out, err = pycomm("schedule", "verify", pair)
    assert code == 1
    assert out.startswith("V3")
    assert "docs/diagnostics.md" in err
    code, out, _ = pycomm("schedule", "verify", pair, "--json")
    facts = json.loads(out)
    assert (code, facts["verified"]) == (1, False)
    assert facts["findings"][0]["code"].startswith("V3")


def test_convert_goes_round(pycomm, pair, tmp_path):
    steps = [pair, *(tmp_path / f"x{suffix}" for suffix in (".msgpack", ".json", ".txt"))]
    for source, target in pairwise(steps):
        code, out, _ = pycomm("schedule", "convert", source, target)
        assert code == 0
        assert out.startswith(f"wrote {target}: pair allgather on 2 ranks")
    assert steps[-1].read_text() == format_schedule(parse_schedule(GATHER))
    code, out, _ = pycomm("schedule", "convert", pair, tmp_path / "x.xml", "--json")
    assert json.loads(out)["bytes"] == (tmp_path / "x.xml").stat().st_size


def test_a_wrong_schedule_is_not_written_unless_asked(pycomm, pair, tmp_path):
    pair.write_text(GATHER.replace("recv output[0] from 0", "recv output[1] from 0"))
    target = tmp_path / "x.json"
    code, _, err = pycomm("schedule", "convert", pair, target)
    assert code == 1
    assert "was not written" in err
    assert not target.exists()
    code, _, _ = pycomm("schedule", "convert", pair, target, "--unverified")
    assert code == 0
    assert target.exists()


def test_plan_writes_what_show_reads(pycomm, tmp_path):
    target = tmp_path / "ring.msgpack"
    code, _, _ = pycomm("schedule", "plan", "ring", "allreduce", "--hosts", "2,1", "--in-place", "-o", target)
    assert code == 0
    _, out, _ = pycomm("schedule", "show", target)
    assert out.startswith("ring allreduce on 3 ranks, in place")


def test_draw_writes_a_picture(pycomm, pair, tmp_path):
    pytest.importorskip("matplotlib")
    target = tmp_path / "pair.svg"
    code, out, _ = pycomm("schedule", "draw", pair, "-o", target)
    assert code == 0
    assert out.startswith(f"wrote {target}")
    assert target.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "ring"], "neither a schedule file"),
        (["show", "ring", "allreduce"], "say for how many ranks"),
        (["show", "ring", "allsum", "-n", "2"], "allsum"),
        (["show", "nothing", "allreduce", "-n", "2"], "there is no planner called 'nothing'"),
        (["show", "ring", "allreduce", "-n", "2", "--root", "1"], "allreduce has no root"),
        (["show", "ring", "allreduce", "-n", "3", "--hosts", "2,2"], "--hosts lists 4 ranks, --ranks says 3"),
        (["show", "ring", "allreduce", "--hosts", "2,x"], "not a list of numbers"),
        (["show", "ring", "allreduce", "--hosts", "2,0"], "each at least 1"),
        (["show", "missing.txt"], "missing.txt"),
        (["plan", "ring", "allreduce", "-n", "2", "-o", "x.yaml", "--unverified"], "suffix"),
        (["convert", TRIANGLE, "x.txt", "--fast"], "--fast"),
        (["paint"], "paint"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_one_clear_message(pycomm, arguments, message):
    code, out, err = pycomm("schedule", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ScheduleError("x"), 1),
        (errors.UsageError("x"), 2),
        (errors.TopologyError("x"), 2),
        (errors.PlanningError("x"), 2),
        (FileNotFoundError("x"), 2),
        (errors.BackendUnavailable("x"), 3),
        (errors.Unsupported("x"), 3),
        (errors.ResourceError("x"), 3),
        (errors.PeerLost("x"), 4),
        (errors.DeadlineExceeded("x"), 4),
        (errors.Mismatch("x"), 4),
        (errors.InternalError("x"), 70),
        (KeyError("x"), 70),
    ],
)
def test_every_failure_has_its_exit_code(error, code, pycomm, monkeypatch):
    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(cli.group, "main", fail)
    got, _, err = pycomm()
    assert got == code
    assert f"pycomm: error: {error}" in err
    assert ("Traceback" in err) == (code == 70)


def test_help_lists_every_command_without_importing_them():
    program = (
        "import sys; from pycomm.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "late = ('pycomm.cli.', 'torch', 'matplotlib', 'mpi4py')\n"
        "print(sorted(name for name in sys.modules if name.startswith(late)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.endswith("[]\n")
    for name in ("bench", "conformance", "doctor", "schedule"):
        assert f"  {name} " in done.stdout


def test_the_command_is_installed(pycomm):
    scripts = {point.name: point.value for point in entry_points(group="console_scripts")}
    assert scripts["pycomm"] == "pycomm.cli:main"
    code, out, _ = pycomm("--version")
    assert code == 0
    assert out.startswith("pycomm, version ")


def test_a_wrong_log_setting_is_named_and_the_doctor_still_works(pycomm, monkeypatch):
    monkeypatch.setenv("PYCOMM_LOG", "loud")
    code, _, err = pycomm("schedule", "show", TRIANGLE)
    assert code == 2
    assert "PYCOMM_LOG: 'loud' will not do" in err
    code, out, _ = pycomm("doctor")
    assert code == 1
    assert "problem: PYCOMM_LOG: 'loud' will not do" in out
