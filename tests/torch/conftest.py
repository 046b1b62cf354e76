"""Every test here needs torch and starts processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for the processes of a team, too

from team import Teams  # noqa: E402 (found by the path above)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.torch)
            item.add_marker(pytest.mark.multiproc)


@pytest.fixture(scope="session")
def teams() -> Iterator[Teams]:
    with pytest.MonkeyPatch.context() as patch:
        # One thread per rank: there may be more ranks than cores. The server of the ranks inherits it.
        patch.setenv("OMP_NUM_THREADS", "1")
        all_teams = Teams()
        yield all_teams
        all_teams.close()
