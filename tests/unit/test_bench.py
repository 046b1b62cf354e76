"""The benchmark's arithmetic: sizes, bandwidths, statistics, tables, files."""

from __future__ import annotations

import csv
import io
import math

import msgspec
import numpy as np
import pytest

from pycomm.bench.calls import Point, bind_copy, contents, count_wrong, expected, sizes
from pycomm.bench.launch import Mpi, find_mpi, find_mpis
from pycomm.bench.report import REPORT_VERSION, Report, summarise, to_csv, to_json, to_json_lines, to_markdown
from pycomm.bench.scenario import (
    KINDS,
    Scenario,
    block_elements,
    busbw_factor,
    forms,
    parse_kinds,
    sweep,
    total_nbytes,
)
from pycomm.bench.statistics import geometric_mean, record, spread, with_ratios
from pycomm.bench.table import footer, header, pair_up, row, significant
from pycomm.errors import BackendUnavailable, UsageError
from pycomm.types import CollectiveKind, DType, ReduceOp


def make(
    backend="native", times=((1000, 3000),), kind=CollectiveKind.ALLREDUCE, in_place=False, count=2, wrong=0
):
    return record(
        kind,
        4,
        backend,
        in_place,
        count,
        DType.FLOAT32,
        ReduceOp.SUM,
        -1,
        spread(np.array(times, np.int64)),
        wrong,
    )


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        ((8, 64), (8, 16, 32, 64)),
        ((8, 8), (8,)),
        ((0, 0), (0,)),
        ((10, 100, 4.0), (10, 40)),
        ((1, 4, 1.1), (1, 2, 3, 4)),
        ((0, 20, 2.0, 8), (0, 8, 16)),
    ],
)
def test_sweep(args, wanted):
    assert sweep(*args) == wanted


@pytest.mark.parametrize("args", [(8, 4), (-1, 4), (0, 8), (8, 64, 1.0), (8, 64, 2.0, -8)])
def test_sweep_that_does_not_grow_is_refused(args):
    with pytest.raises(UsageError):
        sweep(*args)


def test_parse_kinds():
    assert parse_kinds("all") == KINDS
    assert parse_kinds("reduce, allreduce,reduce") == (CollectiveKind.REDUCE, CollectiveKind.ALLREDUCE)
    with pytest.raises(UsageError, match="allredcue"):
        parse_kinds("allredcue")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.label)
@pytest.mark.parametrize("nranks", [1, 2, 3, 4])
def test_size_is_the_whole_array(kind, nranks):
    for nbytes in (0, 8, 1000, 1 << 20):
        count = block_elements(kind, nbytes, 4, nranks)
        total = total_nbytes(kind, count, 4, nranks)
        assert total == 0 if nbytes == 0 else 0 < total <= max(nbytes, 4 * nranks)
        assert nbytes - total < 4 * nranks


def test_busbw_factors():
    assert busbw_factor(CollectiveKind.ALLREDUCE, 4) == 1.5
    assert busbw_factor(CollectiveKind.ALLGATHER, 4) == busbw_factor(CollectiveKind.ALLTOALL, 4) == 0.75
    assert busbw_factor(CollectiveKind.REDUCE_SCATTER, 2) == 0.5
    assert busbw_factor(CollectiveKind.BROADCAST, 7) == busbw_factor(CollectiveKind.REDUCE, 7) == 1.0


def test_a_call_counts_as_long_as_its_slowest_rank():
    times = np.array([[1000, 2000, 9000], [4000, 1000, 5000]], np.int64)
    found = spread(times)
    assert (found.p50_us, found.min_us, found.skew_us, found.iterations) == (4.0, 2.0, 3.0, 3)
    assert found.mean_us == pytest.approx(5.0)
    assert 8.8 < found.p99_us <= 9.0


def test_bandwidths_come_from_the_median():
    one = make(times=((2000, 2000),), count=250)
    assert (one.nbytes, one.algbw, one.busbw) == (1000, pytest.approx(0.5), pytest.approx(0.75))


def test_ratios_are_to_the_first_backend_of_the_same_point():
    records = with_ratios([make(), make("gloo", ((6000,),)), make("gloo", in_place=True)], "native")
    assert [one.ratio for one in records[:2]] == [1.0, pytest.approx(3.0)]
    assert math.isnan(records[2].ratio)
    (summary,) = summarise(records)
    assert (summary.peer, summary.points, summary.mean) == ("gloo", 1, pytest.approx(3.0))


def test_geometric_mean():
    assert geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    assert math.isnan(geometric_mean([]))


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (0, "0"),
        (math.nan, "-"),
        (0.00123456, "0.00123"),
        (999.9, "1000"),
        (12.345, "12.3"),
        (54321.0, "54321"),
    ],
)
def test_significant(value, wanted):
    assert significant(value) == wanted


def test_table_is_aligned_and_complete():
    records = with_ratios([make(), make(in_place=True, wrong=7), make("gloo", wrong=-1)], "native")
    pairs = pair_up(records)
    assert [(out is None, inside is None) for out, inside in pairs] == [(False, False), (False, True)]
    heads = header("allreduce", 4, Scenario(backends=("native", "gloo")))
    lines = [row(*pair) for pair in pairs]
    assert heads[-2].split()[1:6] == ["size", "count", "type", "redop", "backend"]
    for word in ("size", "backend", "time", "ratio"):
        end = heads[-2].index(word) + len(word)
        assert all(line[end - 1] != " " and line[end : end + 1] in ("", " ") for line in lines), word
    assert "whole array" in "\n".join(heads)
    assert footer(records)[0] == "# wrong values: 7 (FAILED)"
    assert footer([make()])[0].endswith("(OK)")
    assert footer([make(wrong=-1)])[0].endswith("(not checked)")


def test_reports_can_be_read_back():
    records = with_ratios([make(), make("gloo")], "native")
    scenario = Scenario(backends=("native", "gloo"))
    report = Report(REPORT_VERSION, scenario, 4, {"cpu": "x"}, records)
    assert msgspec.json.decode(to_json(report), type=Report) == report
    head, *lines = to_json_lines(report).splitlines()
    assert msgspec.json.decode(head)["nranks"] == 4
    assert msgspec.json.decode(lines[1])["backend"] == "gloo"
    rows = list(csv.DictReader(io.StringIO(to_csv(report))))
    assert [line["backend"] for line in rows] == ["native", "gloo"]
    assert float(rows[0]["time_us"]) == records[0].time_us
    assert to_markdown(records, "t").count("\n| allreduce | 4 |") == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"kinds": ()},
        {"sizes": ()},
        {"backends": ("gloo", "gloo")},
        {"backends": ("copy", "native")},
        {"iterations": -1},
        {"rounds": 0},
        {"in_place": False, "out_of_place": False},
        {"op": ReduceOp.BAND},
    ],
)
def test_scenarios_that_cannot_be_measured_are_refused(fields):
    with pytest.raises(UsageError):
        Scenario(**fields).validate()


def test_forms():
    both = Scenario()
    assert tuple(forms(CollectiveKind.ALLREDUCE, both)) == (False, True)
    assert tuple(forms(CollectiveKind.BROADCAST, both)) == (True,)
    assert tuple(forms(CollectiveKind.ALLGATHER, Scenario(in_place=False))) == (False,)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.label)
@pytest.mark.parametrize("rank", [0, 1])
def test_the_floor_copies_what_a_rank_receives(kind, rank):
    point = Point.make(kind, DType.FLOAT32, ReduceOp.SUM, 1, 5, rank, 3, False)
    to, source = bind_copy(point).args
    receives = {"broadcast": rank != 1, "reduce": rank == 1, "gather": rank == 1}.get(kind.label, True)
    assert to.nbytes == source.nbytes == (4 * sizes(kind, 5, 3)[1] if receives else 0)


@pytest.mark.parametrize("dtype", list(DType), ids=lambda dtype: dtype.label)
def test_contents_depend_on_rank_and_position(dtype):
    first, second = contents(dtype, 0, 5000), contents(dtype, 1, 5000)
    assert first.dtype == dtype.storage
    assert not np.array_equal(first, second)
    assert not np.array_equal(first[:1000], first[1000:2000])


@pytest.mark.parametrize(
    "kind", [k for k in KINDS if k is not CollectiveKind.BARRIER], ids=lambda kind: kind.label
)
@pytest.mark.parametrize("in_place", [False, True])
def test_the_check_sees_wrong_elements(kind, in_place):
    point = Point.make(kind, DType.INT32, ReduceOp.SUM, 0, 6, 0, 3, in_place)
    point.fill()
    wanted = expected(point)
    assert wanted is not None
    assert point.recv is not None
    assert point.recv.size == wanted.size
    point.recv[...] = wanted
    assert count_wrong(point, wanted) == 0
    point.recv[1] += 1
    assert count_wrong(point, wanted) == 1


def test_the_check_allows_roundings_of_averages_only():
    for op, allowed in ((ReduceOp.AVG, 0), (ReduceOp.SUM, 6)):
        point = Point.make(CollectiveKind.ALLREDUCE, DType.FLOAT32, op, -1, 6, 0, 3, False)
        point.fill()
        wanted = expected(point)
        assert wanted is not None
        assert point.recv is not None
        point.recv[...] = wanted * np.float32(1 + 2e-7)
        assert count_wrong(point, wanted) == allowed


def fake_mpi(folder, program):
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "mpiexec").touch()
    (folder / "bin" / program).touch()


def test_mpis_are_told_apart(tmp_path, monkeypatch):
    for name, program in (("a", "ompi_info"), ("b", "mpichversion"), ("c", "impi_info")):
        fake_mpi(tmp_path / "build" / "mpi" / name, program)
    found = {mpi.flavour: mpi.prefix.name for mpi in find_mpis([tmp_path])}
    assert found == {"openmpi": "a", "mpich": "b", "impi": "c"}
    assert find_mpi(str(tmp_path / "build" / "mpi" / "a")).flavour == "openmpi"
    assert find_mpi(str(tmp_path / "build" / "mpi" / "c" / "bin" / "mpiexec")).flavour == "impi"
    with pytest.raises(UsageError, match="nowhere"):
        find_mpi("nowhere")
    monkeypatch.setattr("pycomm.bench.launch.find_mpis", list)
    with pytest.raises(BackendUnavailable, match=r"\.ci/mpi"):
        find_mpi()


@pytest.mark.parametrize("flavour", ["openmpi", "mpich", "impi"])
def test_mpi_command_lines(tmp_path, flavour):
    mpi = Mpi(flavour, tmp_path)
    command = mpi.command(64)
    assert command[0] == str(tmp_path / "bin" / "mpiexec")
    assert command[-2:] == ["-n", "64"]
    assert ("--bind-to" in command) == (flavour == "openmpi")
    assert all(isinstance(value, str) for value in mpi.environment().values())
