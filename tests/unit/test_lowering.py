"""What forests become: costs of known shapes, the layout of spans, and what is refused."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pycomm.errors import PlanningError
from pycomm.planner import ring
from pycomm.planner.base import PlanRequest
from pycomm.planner.graph import lowering
from pycomm.planner.graph.forest import Edge, Forest, Tree
from pycomm.planner.graph.lowering import cost, lower
from pycomm.planner.graph.network import Network
from pycomm.planner.graph.symmetric import BaseTree, Shift, Symmetry, symmetric_forest
from pycomm.schedule import OpKind
from pycomm.testing.interpreter import interpret
from pycomm.types import CollectiveKind as Kind


def circle(n: int) -> Network:
    """Every rank joined with the next, one way, 1 GB/s."""
    rank = np.arange(n, dtype=np.int32)
    src, dst = (rank, (rank + 1) % n) if n > 1 else (rank[:0], rank[:0])
    names = tuple(f"gpu{r}" for r in rank)
    return Network(n, names, src, dst, np.ones(src.size, np.int64), 10**9, np.zeros(src.size))


def chain(n: int, root: int, step: int, weight: int = 1) -> Tree:
    ranks = [(root + step * i) % n for i in range(n)]
    return Tree(root, weight, tuple(Edge(a, b, (a, b)) for a, b in pairwise(ranks)))


def chains(n: int, weights: list[int], step: int) -> Forest:
    network = circle(n) if step == 1 else circle(n).reversed()
    return Forest(network, tuple(chain(n, r, step, w) for r, w in enumerate(weights) if w))


@pytest.mark.parametrize("n", [2, 3, 4, 7, 8])
def test_chains_cost_what_the_ring_costs(n: int) -> None:
    down, up = chains(n, [1] * n, 1), chains(n, [1] * n, -1)
    for kind, forests in (
        (Kind.ALLGATHER, [down]),
        (Kind.REDUCE_SCATTER, [up]),
        (Kind.ALLREDUCE, [up, down]),
    ):
        request = PlanRequest(kind, n, pieces=1)
        assert cost(request, *forests) == ring.PLANNER.cost(request)
        assert interpret(lower(request, *forests)) == cost(request, *forests)


def test_a_ring_is_full_at_every_step_and_needs_one_piece() -> None:
    for kind, forests in ((Kind.ALLGATHER, 1), (Kind.ALLREDUCE, 2)):
        n = 16
        request = PlanRequest(kind, n)
        stated = cost(request, *[chains(n, [1] * n, -1), chains(n, [1] * n, 1)][-forests:])
        assert (stated.fill, stated.pieces) == (0, 1 if kind is Kind.ALLGATHER else n)


def test_height_costs_an_eighth_when_pieces_are_chosen() -> None:
    for n in (3, 6):
        stated = cost(PlanRequest(Kind.BROADCAST, n, root=0), chains(n, [1] + [0] * (n - 1), 1))
        assert stated.pieces == 8 * (n - 2)
        assert stated.fill * 8 <= stated.sent
        assert stated.steps == n - 1


def test_a_tree_of_weight_three_sends_one_span_of_three_chunks() -> None:
    forest = chains(3, [3, 0, 0], 1)
    forest = Forest(forest.network, (*forest.trees, chain(3, 0, 1, 2)))
    schedule = lower(PlanRequest(Kind.BROADCAST, 3, root=0, pieces=2), forest)
    sends = [op for op in schedule.ops_of(0) if op.kind is OpKind.SEND]
    assert [(op.src.start, op.src.count) for op in sends] == [(0, 3), (3, 2), (5, 3), (8, 2)]
    assert [op.channel for op in sends] == [0, 1, 0, 1]


def test_what_divides_all_weights_makes_no_chunks() -> None:
    assert lower(PlanRequest(Kind.BROADCAST, 3, 0, pieces=1), chains(3, [300, 0, 0], 1)).pieces == 1


def test_ranks_without_weight_root_nothing_of_an_allreduce() -> None:
    forests = chains(4, [0, 2, 0, 5], -1), chains(4, [0, 2, 0, 5], 1)
    schedule = lower(PlanRequest(Kind.ALLREDUCE, 4, pieces=1), *forests)
    interpret(schedule)
    assert schedule.pieces == 7


def test_halves_of_an_allreduce_may_count_in_other_units() -> None:
    up = chains(3, [2, 0, 4], -1)
    down = Forest(circle(3), (chain(3, 0, 1, 5), chain(3, 2, 1, 7), chain(3, 2, 1, 3)))
    request = PlanRequest(Kind.ALLREDUCE, 3, pieces=1)
    schedule = lower(request, up, down)
    assert schedule.pieces == 15
    assert interpret(schedule) == cost(request, up, down)


def test_weights_too_fine_for_slabs_are_cut_between_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowering, "SLAB_CELLS", 1)
    for kind, forests in (
        (Kind.BROADCAST, [chains(6, [97] + [0] * 5, 1)]),
        (Kind.REDUCE, [chains(6, [97] + [0] * 5, -1)]),
        (Kind.ALLREDUCE, [chains(6, [97, 3] + [0] * 4, -1), chains(6, [97, 3] + [0] * 4, 1)]),
    ):
        if kind is Kind.BROADCAST:  # so that no number divides all weights
            forests = [Forest(forests[0].network, (chain(6, 0, 1, 96), chain(6, 0, 1, 1)))]
        elif kind is Kind.REDUCE:
            forests = [Forest(forests[0].network, (chain(6, 0, -1, 90), chain(6, 0, -1, 7)))]
        request = PlanRequest(kind, 6, 0 if kind.is_rooted else -1)
        schedule = lower(request, *forests)
        assert schedule.pieces == (100 if kind is Kind.ALLREDUCE else 97)
        counted = interpret(schedule)
        assert counted == cost(request, *forests)
        assert cost(request, *forests).messages > 30


def test_one_rank_copies_and_a_forest_may_be_empty() -> None:
    for kind in lowering.COLLECTIVES:
        request = PlanRequest(kind, 1, 0 if kind.is_rooted else -1)
        forests = [Forest(circle(1), ())] * (2 if kind is Kind.ALLREDUCE else 1)
        assert interpret(lower(request, *forests)) == cost(request, *forests)


def test_images_are_lowered_as_the_trees_that_they_are() -> None:
    network = circle(5)
    turn = Shift((np.arange(5) + 1) % 5, 5)
    bushy = BaseTree(
        2, 3, np.array([2, 3, 4, 4]), np.array([3, 4, 0, 1]), np.array([[2, 3], [3, 4], [4, 0], [4, 1]])
    )
    line = chain(5, 0, 1, 6)
    columns = np.array([[edge.src, edge.dst] for edge in line.edges])
    forest = symmetric_forest(Symmetry(network, (turn,)), (bushy, BaseTree(0, 6, *columns.T, columns)))
    plain = Forest(network, tuple(forest.trees))
    for kind in (Kind.ALLGATHER, Kind.REDUCE_SCATTER):
        schedule = lower(PlanRequest(kind, 5, pieces=2), forest)
        assert schedule == lower(PlanRequest(kind, 5, pieces=2), plain)
        interpret(schedule)


def test_channels_fold() -> None:
    forest = Forest(circle(3), tuple(chain(3, 0, 1) for _ in range(40)))
    schedule = lower(PlanRequest(Kind.BROADCAST, 3, 0), forest)
    assert (schedule.channels, schedule.capacity) == (16, 3)
    assert lower(PlanRequest(Kind.BROADCAST, 3, 0), forest, channels=40).capacity == 1
    assert lower(PlanRequest(Kind.BROADCAST, 3, 0), forest, channels=99).channels == 40


def test_far_counts_what_leaves_the_busiest_host() -> None:
    request = PlanRequest(Kind.ALLGATHER, 4, hosts=(0, 0, 1, 1), pieces=1)
    assert cost(request, chains(4, [1] * 4, 1)).far == 3


@pytest.mark.parametrize(
    ("kind", "root", "forests", "says"),
    [
        (Kind.ALLTOALL, -1, [chains(3, [1] * 3, 1)], "trees cannot perform alltoall"),
        (Kind.ALLREDUCE, -1, [chains(3, [1] * 3, 1)], "takes 2 forests, got 1"),
        (Kind.ALLGATHER, -1, [chains(4, [1] * 4, 1)], "instead of 3"),
        (Kind.ALLGATHER, -1, [Forest(circle(3), ())], "has no tree"),
        (Kind.ALLGATHER, -1, [chains(3, [1, 2, 1], 1)], "equal weights at all roots, got 1 to 2"),
        (Kind.BROADCAST, 1, [chains(3, [1, 0, 0], 1)], "root 1 has trees with other roots"),
        (
            Kind.ALLREDUCE,
            -1,
            [chains(3, [1, 2, 0], -1), chains(3, [2, 1, 0], 1)],
            "root of 1/3 of the data up but of 2/3 down",
        ),
        (
            Kind.BROADCAST,
            0,
            [Forest(circle(3), (Tree(0, 1, chain(3, 0, 1).edges[:1]),))],
            "2 edges that span",
        ),
        (
            Kind.BROADCAST,
            0,
            [Forest(circle(3), (chain(3, 0, 1, 2**30), chain(3, 0, 1, 1)))],
            "are more than 134217728 chunks",
        ),
    ],
)
def test_forests_that_do_not_fit_are_refused(kind: Kind, root: int, forests: list[Forest], says: str) -> None:
    with pytest.raises(PlanningError, match=says) as caught:
        lower(PlanRequest(kind, 3, root), *forests)
    assert "\n" not in str(caught.value)
