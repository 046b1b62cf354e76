"""Passes: valid in, valid out, and they do what they say."""

from __future__ import annotations

from collections import Counter

import pytest

from pycomm.errors import UsageError
from pycomm.planner.base import PlanRequest
from pycomm.planner.registry import plan
from pycomm.schedule import OpKind, Schedule
from pycomm.schedule.passes import relabel, synchronise
from pycomm.testing.interpreter import interpret
from pycomm.types import CollectiveKind as Kind

pytestmark = pytest.mark.timeout(30)


def heard(schedule: Schedule) -> list[set[int]]:
    """From whom each rank has heard at the end of its program, itself included; sends are taken in order."""
    known = [{r} for r in range(schedule.nranks)]
    programs = [list(schedule.ops_of(r)) for r in range(schedule.nranks)]
    at = [0] * schedule.nranks
    under_way: dict[tuple[int, int, int], list[set[int]]] = {}
    moved = True
    while moved:
        moved = False
        for r, program in enumerate(programs):
            while at[r] < len(program):
                op = program[at[r]]
                if op.kind == OpKind.SEND:
                    under_way.setdefault((r, op.peer, op.channel), []).append(set(known[r]))
                elif op.kind in (OpKind.RECV, OpKind.RECV_REDUCE):
                    queue = under_way.get((op.peer, r, op.channel))
                    if not queue:
                        break
                    known[r] |= queue.pop(0)
                at[r] += 1
                moved = True
    return known


@pytest.mark.parametrize("n", [2, 3, 4, 7, 8, 13])
@pytest.mark.parametrize("name", ["ring", "binomial", "direct", "double_tree", "hierarchical"])
@pytest.mark.parametrize("kind", [Kind.BROADCAST, Kind.REDUCE])
def test_synchronised_ranks_have_heard_from_all(name: str, kind: Kind, n: int) -> None:
    before = plan(name, PlanRequest(kind, n, root=n - 1))
    assert any(len(known) < n for known in heard(before)), "the pass would have nothing to do"
    after = synchronise(before)
    assert all(len(known) == n for known in heard(after))
    assert after.channels == before.channels + 1
    old, new = interpret(before), interpret(after)
    rounds = (n - 1).bit_length()
    assert old.steps <= new.steps <= old.steps + rounds
    assert (new.sent, new.total, new.reduced) == (old.sent, old.total, old.reduced)
    assert len(after.ops) == len(before.ops) + 2 * rounds * n


def test_one_rank_needs_no_signals() -> None:
    alone = plan("direct", PlanRequest(Kind.BROADCAST, 1, root=0))
    assert synchronise(alone) is alone


@pytest.mark.parametrize("name", ["ring", "double_tree", "binomial", "recursive_doubling"])
def test_relabelled_schedules_stay_right(name: str) -> None:
    before = plan(name, PlanRequest(Kind.ALLREDUCE, 5))
    after = relabel(before, (3, 0, 4, 1, 2))
    assert interpret(after) == interpret(before)
    assert after.program(3)[:, 0].tolist() == before.program(0)[:, 0].tolist()
    assert relabel(after, (1, 3, 4, 0, 2)) == before


def test_relabelling_moves_the_root() -> None:
    after = relabel(plan("binomial", PlanRequest(Kind.BROADCAST, 4, root=1)), (3, 2, 1, 0))
    assert after.root == 2
    interpret(after)


def test_relabel_follows_given_order() -> None:
    order = (2, 0, 3, 1)
    relabelled = relabel(plan("ring", PlanRequest(Kind.ALLREDUCE, 4)), order)
    assert relabelled == plan("ring", PlanRequest(Kind.ALLREDUCE, 4, order=order))


@pytest.mark.parametrize("numbers", [(0, 1), (0, 1, 1), (1, 2, 3)])
def test_relabel_refuses_what_is_no_permutation(numbers: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="permutation"):
        relabel(plan("ring", PlanRequest(Kind.ALLREDUCE, 3)), numbers)


def test_relabel_refuses_blocks_of_ranks() -> None:
    with pytest.raises(UsageError, match="belong to ranks"):
        relabel(plan("ring", PlanRequest(Kind.ALLGATHER, 3)), (2, 1, 0))


def test_signals_are_told_apart_by_the_channel() -> None:
    after = synchronise(plan("ring", PlanRequest(Kind.BROADCAST, 4, root=0)))
    counts = Counter(
        op.channel for r in range(4) for op in after.ops_of(r) if op.src is None and op.dst is None
    )
    assert counts == {1: 2 * 2 * 4}
