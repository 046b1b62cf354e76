"""The closed form in time, and what the tuner makes of it."""

from __future__ import annotations

import pytest

from pycomm.cost import Link, Links, PlanCost, time_s
from pycomm.errors import PlanningError, UsageError
from pycomm.planner.base import PlanRequest
from pycomm.testing.interpreter import interpret
from pycomm.tuner import choose, estimates
from pycomm.types import CollectiveKind as Kind

pytestmark = pytest.mark.timeout(60)
SIMPLE = Links(Link(1.0, 0.0, 1.0), Link(10.0, 0.0, 0.1), 2.0)


def test_time_is_the_sum_of_its_terms() -> None:
    cost = PlanCost(steps=3, sent=5, received=4, total=9, reduced=2, messages=7, fill=1)
    links = Links(Link(100.0, 10.0, 4.0), Link(1.0, 1.0, 1.0), 2.0)
    assert time_s(cost, 8.0, links) == 3 * 100 + 7 * 10 + (5 + 1) * 8 / 4 + 2 * 8 / 2


def test_time_between_hosts_counts_what_leaves_the_busiest_host() -> None:
    cost = PlanCost(steps=4, sent=6, received=6, total=24, reduced=0, messages=0, far_steps=1, far=3)
    assert time_s(cost, 1.0, SIMPLE, (0, 0, 1, 1)) == 4 + (10 - 1) + 3 / 0.1
    assert time_s(cost, 1.0, SIMPLE, (0, 0, 0, 0)) == 4 + 6


def test_small_messages_take_few_steps_and_large_ones_little_data() -> None:
    request = PlanRequest(Kind.ALLREDUCE, 64)
    small, large = choose(request, 8), choose(request, 1 << 28)
    assert interpret(small.schedule).steps < interpret(large.schedule).steps or small.planner != large.planner
    slow_start = Links(Link(1e-3, 1e-3, 1e12), Link(1e-3, 1e-3, 1e12))
    assert estimates(request, 8, slow_start)[0].planner in ("recursive_doubling", "knomial4", "binomial")
    moved = {
        e.planner: e.seconds for e in estimates(request, 1 << 30, Links(Link(0, 0, 1e9), Link(0, 0, 1e9)))
    }
    assert moved["ring"] < moved["recursive_doubling"] / 2


def test_hosts_make_the_hierarchy_pay() -> None:
    hosts = tuple(r // 8 for r in range(32))
    scattered = tuple(r % 4 for r in range(32))
    for layout in (hosts, scattered):
        choice = choose(PlanRequest(Kind.ALLREDUCE, 32, hosts=layout), 1 << 22)
        assert choice.planner == "hierarchical"
    assert choose(PlanRequest(Kind.ALLREDUCE, 32), 1 << 22).planner != "hierarchical"


def test_choice_explains_itself() -> None:
    choice = choose(PlanRequest(Kind.ALLREDUCE, 4), 1 << 20)
    assert choice.planner in choice.why
    assert choice.runner_up in choice.why
    assert "1 MiB" in choice.why
    assert choice.runner_up != choice.planner


def test_pieces_grow_with_the_message() -> None:
    request = PlanRequest(Kind.BROADCAST, 16, root=0)
    chosen = [
        next(e.pieces for e in estimates(request, nbytes, Links()) if e.planner == "ring")
        for nbytes in (8, 1 << 16, 1 << 20, 1 << 26)
    ]
    assert chosen == sorted(chosen)
    assert chosen[0] == 1
    assert chosen[-1] > 8


def test_given_pieces_are_kept() -> None:
    choice = choose(PlanRequest(Kind.BROADCAST, 4, root=0, pieces=6), 1 << 26, algorithm=None)
    assert choice.schedule.pieces % 6 == 0 or choice.schedule.pieces == 1


def test_rooted_choices_are_synchronised() -> None:
    rooted = choose(PlanRequest(Kind.GATHER, 5, root=2), 1000).schedule
    assert (rooted.ops[:, 7] == 0).sum() == 2 * 3 * 5
    assert not (choose(PlanRequest(Kind.ALLGATHER, 5), 1000).schedule.ops[:, 7] == 0).any()
    interpret(rooted)


def test_algorithm_by_name() -> None:
    choice = choose(PlanRequest(Kind.ALLREDUCE, 4), 8, algorithm="ring")
    assert (choice.planner, choice.schedule.name, choice.runner_up) == ("ring", "ring", "")
    with pytest.raises(PlanningError, match="pat does not offer"):
        choose(PlanRequest(Kind.ALLREDUCE, 4), 8, algorithm="pat")


def test_choosing_is_deterministic_and_cached() -> None:
    request = PlanRequest(Kind.ALLTOALL, 9)
    first, second = choose(request, 12345), choose(request, 12345)
    assert first == second
    assert first.schedule is second.schedule


@pytest.mark.parametrize("kind", [k for k in Kind if k not in (Kind.SEND, Kind.RECV)])
@pytest.mark.parametrize("nbytes", [0, 1, 1 << 24])
def test_every_collective_can_be_chosen_for(kind: Kind, nbytes: int) -> None:
    for n in (1, 2, 5):
        root = 0 if kind.is_rooted else -1
        interpret(choose(PlanRequest(kind, n, root=root), nbytes).schedule)


def test_negative_size_is_refused() -> None:
    with pytest.raises(UsageError, match="negative"):
        choose(PlanRequest(Kind.ALLREDUCE, 2), -1)
