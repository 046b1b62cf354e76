"""The long runs of soak.py, shortened."""

from __future__ import annotations

from typing import Any

import pytest
import soak
from team import Team


@pytest.mark.usefixtures("teams")
@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("target", "args"),
    [(soak.churn, (60, 4000)), pytest.param(soak.train, (0.3,), marks=pytest.mark.slow)],
    ids=["groups", "train"],
)
def test_nothing_grows(target: Any, args: tuple[float, ...]) -> None:
    team = Team(2, joins=False)
    try:
        growths = team.run(target, *args, limit_s=150)
    finally:
        team.close()
    assert not soak.judge(growths)


def test_growth_is_noticed() -> None:
    assert soak.judge([(0, 0, 2**20)]) == []
    assert len(soak.judge([(1, 0, 0), (0, 1, 0), (0, 0, 2**25), (-1, -1, -1)])) == 3
