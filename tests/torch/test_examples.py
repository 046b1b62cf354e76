"""The examples train as one process without parallelism does, over Gloo and over pycomm."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
STEPS = 3
# Parallelism adds in another order; each of three steps may add a few units in the last place (2^-24).
ROUNDING = 2e-6


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare_examples", FOLDER / "compare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


compare = _load()


def losses(name: str, ranks: int, backend: str, *more: str) -> list[float]:
    report = compare.launch(name, ranks, backend, "--steps", str(STEPS), *more, timeout_s=100)
    assert report["ranks"] == ranks
    return report["losses"]


@cache
def reference(ranks: int) -> list[float]:
    return compare.reference(ranks, "--steps", str(STEPS), timeout_s=100)["losses"]


def check(got: list[float], wanted: list[float]) -> None:
    assert len(got) == len(wanted) == STEPS
    assert got[-1] < got[0] - 0.5, "it does not learn"
    assert compare.difference(got, wanted) <= ROUNDING, (got, wanted)


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ddp_is_bitwise_equal_to_the_reference(ranks: int) -> None:
    assert losses("ddp", ranks, "pycomm") == reference(ranks)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp2", "tensor_parallel", "pipeline"])
def test_two_ranks_train_as_one_does(name: str) -> None:
    ours = losses(name, 2, "pycomm")
    check(ours, losses(name, 2, "gloo"))
    check(ours, reference(1))


@pytest.mark.slow
def test_experts_train_as_on_one_rank() -> None:
    ours = losses("moe", 2, "pycomm")
    check(ours, losses("moe", 2, "gloo"))
    check(ours, losses("moe", 1, "pycomm"))


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [(1, 2, 2), (2, 2, 1), (2, 1, 2)])
def test_three_dimensions_train_as_one_rank_does(mesh: tuple[int, int, int]) -> None:
    options = ["--mesh", *map(str, mesh)]
    ours = losses("three_d", 4, "pycomm", *options)
    check(ours, losses("three_d", 4, "gloo", *options))
    check(ours, reference(1))


@pytest.mark.slow
def test_differing_losses_are_seen() -> None:
    other = losses("ddp", 1, "pycomm", "--rate", "0.0029")
    assert compare.difference(other, reference(1)) > compare._ROUNDING
