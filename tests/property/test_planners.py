"""Planners on requests that nobody thought of: the interpreter and the formulas must agree on all of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycomm.planner.base import PlanRequest
from pycomm.planner.registry import planners
from pycomm.schedule.builder import smallest_capacity
from pycomm.schedule.passes import synchronise
from pycomm.testing.interpreter import interpret
from pycomm.types import CollectiveKind as Kind

pytestmark = pytest.mark.timeout(120)
COLLECTIVES = [kind for kind in Kind if kind not in (Kind.SEND, Kind.RECV)]


@st.composite
def requests(draw: st.DrawFn) -> PlanRequest:
    kind = draw(st.sampled_from(COLLECTIVES))
    n = draw(st.integers(1, 12))
    return PlanRequest(
        kind,
        n,
        root=draw(st.integers(0, n - 1)) if kind.is_rooted else -1,
        in_place=draw(st.booleans()),
        hosts=tuple(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))),
        channels=draw(st.integers(1, 3)),
        order=tuple(draw(st.permutations(range(n)))),
        pieces=draw(st.integers(0, 5)),
    )


@settings(max_examples=150)
@given(requests(), st.sampled_from(list(planners())))
def test_any_request_is_served_right_or_rejected(request: PlanRequest, name: str) -> None:
    planner = planners()[name]
    if planner.rejects(request) is not None:
        return
    schedule = planner.plan(request)
    assert interpret(schedule) == planner.cost(request)
    assert smallest_capacity(schedule) <= schedule.capacity
    if request.kind.is_rooted:
        interpret(synchronise(schedule))
