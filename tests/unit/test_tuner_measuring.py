"""Tables from measurements: the fastest right algorithm of each size, and wrong ones disqualified."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from pycomm.bench import candidates
from pycomm.bench.candidates import Trial, measure_candidates, table_of
from pycomm.communicator import Communicator
from pycomm.testing.threads import run_threads
from pycomm.tuner.table import NO_END, Key, read_table, write_table
from pycomm.types import CollectiveKind as Kind

pytestmark = pytest.mark.timeout(100)
KEY = Key(4, (4,))


def trial(nbytes: int, algorithm: str, seconds: float, **more: Any) -> Trial:
    return Trial(Kind.ALLREDUCE, nbytes, algorithm, seconds=seconds, **more)


def test_the_fastest_serves_up_to_half_way() -> None:
    table = table_of(
        [
            trial(100, "direct", 1.0),
            trial(100, "ring", 2.0),
            trial(10_000, "direct", 9.0),
            trial(10_000, "ring", 3.0, pieces=4),
        ],
        KEY,
    )
    assert [(e.low, e.high, e.algorithm, e.pieces) for e in table.entries] == [
        (0, 1000, "direct", 0),
        (1001, NO_END, "ring", 4),
    ]
    assert read_table(write_table(table)) == table


def test_neighbours_that_agree_are_one_entry() -> None:
    table = table_of([trial(size, "ring", 1.0) for size in (10, 1000, 100_000)], KEY)
    assert [(e.low, e.high) for e in table.entries] == [(0, NO_END)]


def test_wrong_and_failed_ones_have_no_entry() -> None:
    table = table_of(
        [
            trial(100, "ring", 1.0, wrong=7),
            trial(100, "direct", 5.0),
            trial(10_000, "ring", 1.0, wrong=1),
            trial(10_000, "direct", inf, problem="no plan"),
        ],
        KEY,
    )
    assert [(e.low, e.high, e.algorithm) for e in table.entries] == [(0, 1000, "direct")]


def test_candidates_are_measured_and_wrong_ones_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = candidates._checked

    def checked(comm: Communicator, point: Any, wanted: Any, run: Any, name: str) -> tuple[int, float]:
        wrong, took = real(comm, point, wanted, run, name)
        return (3 if name == "ring" else wrong), took

    monkeypatch.setattr(candidates, "_checked", checked)

    def body(comm: Communicator) -> list[Trial]:
        return measure_candidates(comm, [Kind.ALLREDUCE, Kind.BARRIER], [64], repeats=1)

    found = run_threads(3, body)
    assert found[0] == found[1] == found[2]
    by_name = {t.algorithm: t for t in found[0] if t.kind is Kind.ALLREDUCE}
    assert by_name["ring"].wrong == 3
    assert not by_name["ring"].counts
    assert by_name["direct"].counts
    assert by_name["direct"].predicted < inf
    assert {t.kind for t in found[0]} == {Kind.ALLREDUCE, Kind.BARRIER}
    assert "ring" not in {e.algorithm for e in table_of(found[0], KEY).entries if e.kind is Kind.ALLREDUCE}
