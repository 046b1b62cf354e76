"""pycomm topo: what is printed, what is written, and how bad input ends."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest

from pycomm import cli
from pycomm.schedule.text import parse_schedule
from pycomm.topology.files import load
from pycomm.verify import check

PAIR = """version = 1
[[node]]
name = "gpu[0-3]"
kind = "device"
[[node]]
name = "leaf"
kind = "switch"
[[link]]
from = "gpu[0-3]"
to = "leaf"
bandwidth = "100 Gbit/s"
both = true
"""


@pytest.fixture
def pycomm(capsys):
    """Run the command line in this process; gives the exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["topo", *map(str, arguments)])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


@pytest.fixture
def star(tmp_path):
    path = tmp_path / "star.toml"
    path.write_text(PAIR)
    return path


def test_show_says_what_there_is(pycomm, star):
    code, out, _ = pycomm("show", star)
    assert code == 0
    assert "4 ranks on 4 hosts" in out
    assert "8 links of 12.5 GB/s" in out


def test_names_of_the_catalogue_are_sources_too(pycomm):
    code, out, _ = pycomm("show", "dgx_h100", "--json")
    assert code == 0
    assert json.loads(out)["devices"] == 8
    listed = json.loads(pycomm("list", "--json")[1])
    assert listed["dgx_h100"]["ranks"] == 8


@pytest.mark.parametrize("collective", ["allgather", "reduce_scatter", "alltoall"])
def test_a_bound_is_a_fraction_and_names_its_cut(pycomm, star, collective):
    code, out, _ = pycomm("bound", star, "-c", collective, "--json")
    facts = json.loads(out)
    assert code == 0
    # M/T: each rank hears three quarters of M through a link of 12.5 GB/s.
    assert Fraction(facts["algbw_fraction"]) == Fraction(25, 2) * Fraction(4, 3)
    assert facts["cut"]["vertices"]
    assert "leaf" in facts["limited_by"]


def test_broadcast_has_a_root(pycomm, star):
    assert (
        json.loads(pycomm("bound", star, "-c", "broadcast", "--root", 2, "--json")[1])["algbw_GBps"] == 12.5
    )
    code, _, err = pycomm("bound", star, "-c", "broadcast", "--root", 4)
    assert code == 2
    assert "root" in err


@pytest.mark.parametrize(
    "collective", ["allgather", "reduce_scatter", "broadcast", "reduce", "allreduce", "alltoall"]
)
def test_a_schedule_is_written_and_proved(pycomm, star, tmp_path, collective):
    file = tmp_path / "plan.txt"
    code, out, err = pycomm("synthesize", star, "-c", collective, "-o", file, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["ratio"] == 1.0
    schedule = parse_schedule(file.read_text())
    check(schedule)
    assert (schedule.kind.label, schedule.nranks) == (collective, 4)


def test_text_of_synthesize_states_the_bound(pycomm, star):
    code, out, _ = pycomm("synthesize", star, "-c", "allgather")
    assert code == 0
    assert "16.7 GB/s of 16.7 possible (100%), limited by leaf -> gpu" in out


def test_the_optimum_beside_the_known_algorithms(pycomm, star):
    found = json.loads(pycomm("compare", star, "-c", "allgather", "--json")[1])
    rates = {one["name"]: one["algbw_GBps"] for one in found}
    assert rates["optimum"] == max(rates.values()) == pytest.approx(16.667, abs=1e-3)
    assert rates["ring"] == pytest.approx(16.667, abs=1e-3)
    assert "100.0%" in pycomm("compare", star, "-c", "allgather")[1]


@pytest.mark.parametrize("wanted", ["rankfile", "hostfile", "slurm", "nccl-graph"])
def test_the_order_of_a_ring_for_launchers(pycomm, tmp_path, wanted):
    file = tmp_path / "order"
    assert pycomm("place", "dgx_h100", "--format", wanted, "-o", file)[0] == 0
    assert file.read_text()
    if wanted == "rankfile":
        assert len(file.read_text().splitlines()) == 8
    code, _, err = pycomm("place", "dgx_h100", "--format", "ranktable", "-o", file)
    assert code == 2
    assert "--ranktable" in err


def test_draw_with_the_cut(pycomm, star, tmp_path):
    file = tmp_path / "star.svg"
    assert pycomm("draw", star, "-o", file, "--bound", "allgather")[0] == 0
    assert "the cut that limits" in file.read_text()
    assert pycomm("draw", star, "-o", tmp_path / "star.bmp")[0] == 2


@pytest.mark.parametrize("suffix", [".json", ".graphml", ".dot", ".toml"])
def test_convert_there_and_back(pycomm, star, tmp_path, suffix):
    there, back = tmp_path / f"there{suffix}", tmp_path / "back.toml"
    assert pycomm("convert", star, "-o", there)[0] == 0
    assert pycomm("convert", there, "-o", back)[0] == 0
    assert load(back) == load(star)


def test_convert_asks_for_the_format_it_cannot_tell(pycomm, star, tmp_path):
    code, _, err = pycomm("convert", star, "-o", tmp_path / "x.bin")
    assert code == 2
    assert "--to" in err


def test_assumptions_reach_the_reader(pycomm, tmp_path):
    slurm = tmp_path / "topology.conf"
    slurm.write_text("SwitchName=leaf Nodes=n[0-3]\n")
    assert "25 GB/s" in pycomm("show", slurm, "--assume", "link=200 Gbit/s")[1]
    code, _, err = pycomm("show", slurm, "--assume", "link")
    assert code == 2
    assert "KEY=VALUE" in err
    code, _, err = pycomm("show", slurm, "--assume", "nonsense=1")
    assert code == 2
    assert "nonsense" in err


def test_formats_are_listed(pycomm):
    known = json.loads(pycomm("formats", "--json")[1])
    assert known["nccl-xml"] == {"read": True, "write": False, "assume": known["nccl-xml"]["assume"]}
    assert "link" in known["slurm-conf"]["assume"]
    assert "ibnetdiscover" in pycomm("formats")[1]


def test_detect_writes_a_file_that_can_be_read(pycomm, tmp_path):
    file = tmp_path / "here.toml"
    code, out, _ = pycomm("detect", "--processes", 2, "-o", file)
    assert code == 0
    assert "assumed" in out
    assert len(load(file).devices) >= 2


def test_check_finds_what_is_cut_off(pycomm, star, tmp_path):
    assert pycomm("check", star)[0] == 0
    alone = tmp_path / "alone.toml"
    alone.write_text(PAIR + '[[node]]\nname = "gpu9"\nkind = "device"\n')
    code, out, _ = pycomm("check", alone)
    assert code == 1
    assert "gpu9" in out
    code, _, err = pycomm("bound", alone, "-c", "allgather")
    assert code == 2
    assert "gpu9" in err


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (("100 Gbit/s", "100"), "unit"),
        (("100 Gbit/s", "-1 Gbit/s"), "bandwidth"),
        (("100 Gbit/s", "0 Gbit/s"), "bandwidth"),
        (("100 Gbit/s", "100 parsec"), "parsec"),
        (('to = "leaf"', 'to = "nowhere"'), "nowhere"),
        (('kind = "switch"', 'kind = "toaster"'), "toaster"),
        (('name = "leaf"', 'name = "gpu1"'), "gpu1"),
        (("both = true", "bth = true"), "bth"),
        (('to = "leaf"', "to = "), "line"),
    ],
)
def test_bad_files_end_in_one_line_with_the_place(pycomm, tmp_path, damage, names):
    path = tmp_path / "bad.toml"
    path.write_text(PAIR.replace(*damage))
    code, out, err = pycomm("show", path)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1, err
    assert "bad.toml" in err
    assert names in err


def test_what_is_not_there_is_said(pycomm, tmp_path):
    code, _, err = pycomm("show", tmp_path / "missing.toml")
    assert code == 2
    assert "missing.toml" in err
    code, _, err = pycomm("show", "dgx_h1000")
    assert code == 2
    assert "dgx_h100" in err
