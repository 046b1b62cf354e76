"""The registry: names, reasons, requests that contradict themselves, plug-ins."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

from pycomm.errors import PlanningError, UsageError
from pycomm.planner import registry
from pycomm.planner.base import PlanRequest
from pycomm.planner.ring import PLANNER as RING
from pycomm.types import CollectiveKind as Kind

pytestmark = pytest.mark.timeout(30)


def test_own_planners_are_there() -> None:
    assert set(registry.names()) >= {
        "ring",
        "bidirectional_ring",
        "double_tree",
        "binomial",
        "knomial4",
        "recursive_doubling",
        "halving_doubling",
        "bruck",
        "pat",
        "pairwise",
        "direct",
        "hierarchical",
    }


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(PlanningError, match=r"'rinf'.*ring, bidirectional_ring"):
        registry.plan("rinf", PlanRequest(Kind.ALLREDUCE, 2))


def test_rejection_gives_the_reason() -> None:
    with pytest.raises(PlanningError, match="pat does not offer broadcast"):
        registry.plan("pat", PlanRequest(Kind.BROADCAST, 4, root=0))


def test_candidates_keep_the_registry_order() -> None:
    found = [planner.name for planner in registry.candidates(PlanRequest(Kind.ALLTOALL, 5))]
    assert found == ["bruck", "pairwise", "direct", "hierarchical"]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (PlanRequest(Kind.ALLREDUCE, 0), "nranks"),
        (PlanRequest(Kind.SEND, 2), "not a collective"),
        (PlanRequest(Kind.BROADCAST, 2), "root between 0 and 1"),
        (PlanRequest(Kind.BROADCAST, 2, root=2), "root between 0 and 1"),
        (PlanRequest(Kind.ALLREDUCE, 2, root=0), "has no root"),
        (PlanRequest(Kind.ALLREDUCE, 2, hosts=(0,)), "hosts"),
        (PlanRequest(Kind.ALLREDUCE, 2, order=(0, 0)), "permutation"),
        (PlanRequest(Kind.ALLREDUCE, 2, channels=0), "channels"),
        (PlanRequest(Kind.ALLREDUCE, 2, pieces=-1), "pieces"),
    ],
)
def test_requests_that_contradict_themselves_are_refused(request_: PlanRequest, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        registry.plan("ring", request_)
    with pytest.raises(UsageError, match=words):
        registry.candidates(request_)


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    found: list[EntryPoint] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: found)
    registry.planners.cache_clear()
    yield found
    registry.planners.cache_clear()


class Nobody:
    """A planner that rejects everything."""

    name = "nobody"

    def rejects(self, request: PlanRequest) -> str:
        return "it is a test"


NOBODY = Nobody()


def test_plugins_come_last(plugins: list[EntryPoint], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EntryPoint, "load", lambda self: NOBODY)
    plugins.append(EntryPoint("nobody", "somewhere:NOBODY", "pycomm.planners"))
    assert registry.names()[-1] == "nobody"
    with pytest.raises(PlanningError, match="nobody cannot plan allreduce on 2 ranks: it is a test"):
        registry.plan("nobody", PlanRequest(Kind.ALLREDUCE, 2))


def test_no_candidate_lists_every_reason(plugins: list[EntryPoint], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "OWN", (NOBODY,))
    with pytest.raises(PlanningError, match="nobody: it is a test"):
        registry.candidates(PlanRequest(Kind.ALLREDUCE, 2))


def test_plugin_that_does_not_load_is_left_out(
    plugins: list[EntryPoint], caplog: pytest.LogCaptureFixture
) -> None:
    plugins.append(EntryPoint("gone", "pycomm_no_such_module:PLANNER", "pycomm.planners"))
    assert "gone" not in registry.names()
    assert "pycomm_no_such_module" in caplog.text


def test_plugin_must_not_take_a_name(plugins: list[EntryPoint], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EntryPoint, "load", lambda self: RING)
    plugins.append(EntryPoint("ring", "somewhere:PLANNER", "pycomm.planners"))
    with pytest.raises(PlanningError, match="taken"):
        registry.names()
