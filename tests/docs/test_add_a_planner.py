"""The worked example of docs/add-a-planner.md runs as printed, and its planner works once registered."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from pycomm.planner import registry
from pycomm.planner.base import PlanRequest
from pycomm.testing.interpreter import interpret
from pycomm.types import CollectiveKind

pytestmark = pytest.mark.timeout(30)
PAGE = Path(__file__).parents[2] / "docs" / "add-a-planner.md"


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """Names defined by the page's Python blocks, run one after the other."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {"__name__": "add_a_planner"}
    for block in blocks:
        exec(compile("from __future__ import annotations\n" + block, str(PAGE), "exec"), names)
    return names


def test_example_is_found_through_its_entry_point(
    page: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = EntryPoint("star", "my_package.star:PLANNER", "pycomm.planners")
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    monkeypatch.setattr(EntryPoint, "load", lambda self: page["PLANNER"])
    registry.planners.cache_clear()
    try:
        schedule = registry.plan("star", PlanRequest(CollectiveKind.ALLREDUCE, 5, in_place=True))
        offered = [p.name for p in registry.candidates(PlanRequest(CollectiveKind.ALLREDUCE, 5))]
    finally:
        registry.planners.cache_clear()
    assert interpret(schedule).steps == 2
    assert offered[-1] == "star"


def test_example_rejects_what_it_does_not_offer(page: dict[str, Any]) -> None:
    reason = page["PLANNER"].rejects(PlanRequest(CollectiveKind.BARRIER, 2))
    assert reason == "star does not offer barrier, only allreduce"
