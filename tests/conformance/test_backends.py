"""Every backend against the oracle, over every cell that it declares; what it does not declare must raise."""

from __future__ import annotations

import pytest

from pycomm.backends.registry import get_backend
from pycomm.testing.conformance import Outcome, render, run_group


def judge(backend: str, outcomes: list[Outcome], fewest: int) -> None:
    failures = [o for o in outcomes if o.status == "fail"]
    assert not failures, render(backend, outcomes)
    passed = sum(o.status == "pass" for o in outcomes)
    assert passed >= fewest, f"only {passed} of {len(outcomes)} calls were made: {render(backend, outcomes)}"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("nranks", [1, 2, 3, 4])
def test_reference(nranks: int) -> None:
    judge("reference", run_group("reference", nranks, quick=True), 1000)


@pytest.mark.multiproc
@pytest.mark.timeout(180)
@pytest.mark.parametrize("nranks", [1, 2, 3, 4, 7, 8])
def test_native(nranks: int) -> None:
    judge("native", run_group("native", nranks, quick=True), 1000)


@pytest.mark.torch
@pytest.mark.multiproc
@pytest.mark.timeout(180)
@pytest.mark.parametrize("nranks", [2, 3])
def test_gloo(nranks: int) -> None:
    reason = get_backend("gloo", usable=False).available()
    if reason is not None:
        pytest.skip(reason)
    judge("gloo", run_group("gloo", nranks, quick=True), 500)
