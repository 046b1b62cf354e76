"""The planners that need a topology: what they refuse, whom they ask, and what they keep."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from types import ModuleType, SimpleNamespace

import pytest

from pycomm.errors import PlanningError, UsageError
from pycomm.planner import registry
from pycomm.planner.base import PlanRequest
from pycomm.planner.graph import planners
from pycomm.planner.graph.embedding import Rings, ring_forests
from pycomm.planner.graph.network import network_of
from pycomm.planner.graph.routing import schedule_algbw
from pycomm.testing.interpreter import interpret
from pycomm.topology.generators import torus
from pycomm.topology.model import Link, Node, NodeKind, Topology
from pycomm.types import CollectiveKind as Kind

Question = tuple[Topology, Kind, int, tuple[int, ...] | None]


def circle(n: int, *, cut: bool = False) -> Topology:
    nodes = tuple(Node(f"gpu{i}", NodeKind.DEVICE) for i in range(n))
    return Topology("circle", nodes, tuple(Link(i, (i + 1) % n, 10**9) for i in range(n - cut)))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Question]]:
    """Let synthesis answer with a ring; returns what it was asked."""
    questions: list[Question] = []

    def synthesize(
        topology: Topology, kind: Kind, root: int, ranks: tuple[int, ...] | None
    ) -> SimpleNamespace:
        questions.append((topology, kind, root, ranks))
        network = network_of(topology, ranks)
        ring = Rings("ring", (tuple(range(network.nranks)),))
        return SimpleNamespace(forests=ring_forests(network, kind, ring, root))

    module = ModuleType("pycomm.planner.graph.synthesis")
    module.synthesize = synthesize  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    planners._synthesized.cache_clear()
    yield questions
    planners._synthesized.cache_clear()


@pytest.mark.parametrize(
    "kind", [Kind.ALLREDUCE, Kind.ALLGATHER, Kind.REDUCE_SCATTER, Kind.BROADCAST, Kind.REDUCE]
)
def test_they_plan_what_synthesis_finds(kind: Kind, asked: list[Question]) -> None:
    name = "free_root" if kind is Kind.ALLREDUCE else "tree_packing"
    request = PlanRequest(kind, 5, 2 if kind.is_rooted else -1, topology=circle(5))
    for variant in (request, replace(request, in_place=True), replace(request, pieces=3, channels=2)):
        schedule = registry.plan(name, variant)
        assert schedule.name == name
        assert interpret(schedule) == registry.planner(name).cost(variant)
    assert asked == [(circle(5), kind, request.root, None)]  # once for all of them


def test_the_ragged_form_has_the_trees_of_the_equal_one(asked: list[Question]) -> None:
    request = PlanRequest(Kind.ALLGATHERV, 3, topology=circle(3))
    interpret(registry.plan("tree_packing", request))
    assert asked == [(circle(3), Kind.ALLGATHER, -1, None)]


def test_the_group_may_be_some_of_the_devices(asked: list[Question]) -> None:
    request = PlanRequest(Kind.ALLGATHER, 2, topology=circle(4), devices=(3, 1))
    interpret(registry.plan("tree_packing", request))
    assert asked == [(circle(4), Kind.ALLGATHER, -1, (3, 1))]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "has no topology"),
        ({"topology": circle(5)}, "has 5 devices for 4 ranks"),
        ({"topology": circle(5), "devices": (0, 1, 2, 5)}, "vertex 5 is not a device"),
        ({"topology": circle(5), "devices": (0, 1, 2, 2)}, "two ranks are on the same device"),
        ({"topology": circle(4, cut=True)}, "no way from gpu1 to gpu0"),
    ],
)
def test_requests_that_do_not_fit_are_rejected(changes: dict[str, object], says: str) -> None:
    request = PlanRequest(Kind.ALLGATHER, 4, **changes)  # type: ignore[arg-type]
    with pytest.raises(PlanningError, match=says):
        registry.plan("tree_packing", request)
    assert "tree_packing" not in [planner.name for planner in registry.candidates(request)]


def test_devices_must_go_with_the_ranks_and_a_topology() -> None:
    with pytest.raises(UsageError, match="each of the 4 ranks, got 2 entries"):
        registry.plan("ring", PlanRequest(Kind.ALLGATHER, 4, topology=circle(4), devices=(0, 1)))
    with pytest.raises(UsageError, match="pass it too"):
        registry.plan("ring", PlanRequest(Kind.ALLGATHER, 2, devices=(0, 1)))


def test_requests_with_equal_topologies_are_equal() -> None:
    requests = [PlanRequest(Kind.ALLGATHER, 4, topology=circle(4)) for _ in range(2)]
    assert len(set(requests)) == 1
    assert requests[0] != PlanRequest(Kind.ALLGATHER, 4, topology=circle(4, cut=True))


@pytest.mark.parametrize("kind", [Kind.ALLREDUCE, Kind.ALLGATHER, Kind.REDUCE_SCATTER])
@pytest.mark.parametrize("sides", [(2, 2), (3, 4), (2, 3, 2)])
def test_a_torus_is_filled_by_the_schedule_itself(kind: Kind, sides: tuple[int, ...]) -> None:
    topology = torus(sides, "50 GB/s")
    network = network_of(topology)
    name, halves = ("free_root", 2) if kind is Kind.ALLREDUCE else ("tree_packing", 1)
    request = PlanRequest(kind, network.nranks, topology=topology)
    schedule = registry.plan(name, request)
    assert interpret(schedule) == registry.planner(name).cost(request)
    entering = int(network.capacity[network.dst == 0].sum()) * network.unit
    optimum = Fraction(entering * network.nranks, halves * (network.nranks - 1))
    assert schedule_algbw(schedule, network) * 100 >= 99 * optimum
