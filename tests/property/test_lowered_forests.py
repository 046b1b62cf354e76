"""Forests of any shape become schedules that three judges accept: interpreter, verifier, and execution."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycomm.backends.base import Call
from pycomm.collectives.spec import equal_form
from pycomm.communicator import Communicator
from pycomm.planner.base import PlanRequest
from pycomm.planner.graph.forest import Edge, Forest, Tree
from pycomm.planner.graph.lowering import COLLECTIVES, cost, lower
from pycomm.planner.graph.network import Network
from pycomm.schedule import Schedule
from pycomm.schedule.builder import smallest_capacity
from pycomm.testing.interpreter import interpret
from pycomm.testing.oracle import compare, expected, inputs
from pycomm.testing.processes import run_processes
from pycomm.testing.threads import run_threads
from pycomm.types import CollectiveKind as Kind
from pycomm.types import DType, ReduceOp
from pycomm.verify import check

pytestmark = pytest.mark.timeout(180)


def complete(n: int) -> Network:
    """Every two ranks joined both ways."""
    pairs = np.array([(a, b) for a in range(n) for b in range(n) if a != b], np.int32).reshape(-1, 2)
    ones = np.ones(len(pairs))
    names = tuple(f"gpu{r}" for r in range(n))
    return Network(n, names, pairs[:, 0].copy(), pairs[:, 1].copy(), ones.astype(np.int64), 10**9, 0 * ones)


def random_tree(rng: random.Random, n: int, root: int, weight: int) -> Tree:
    reached, left = [root], [r for r in range(n) if r != root]
    rng.shuffle(left)
    bushy = rng.random()
    edges = []
    for rank in left:
        src = rng.choice(reached) if rng.random() < bushy else reached[-1]
        edges.append(Edge(src, rank, (src, rank)))
        reached.append(rank)
    return Tree(root, weight, tuple(edges))


def random_forest(rng: random.Random, weights: Sequence[int]) -> Forest:
    """Trees of random weights that sum up to the given ones; those of different roots are mixed."""
    n = len(weights)
    trees = []
    for root, left in enumerate(weights):
        while left:
            weight = rng.randint(1, left)
            trees.append(random_tree(rng, n, root, weight))
            left -= weight
    rng.shuffle(trees)
    return Forest(complete(n), tuple(trees))


def random_plan(
    kind: Kind, n: int, seed: int, in_place: bool, pieces: int
) -> tuple[PlanRequest, list[Forest]]:
    rng = random.Random(seed)
    root = rng.randrange(n) if kind.is_rooted else -1
    weights = [0] * n
    if kind.is_rooted:
        weights[root] = rng.randint(1, 7)
    elif equal_form(kind) is Kind.ALLREDUCE:
        weights = [rng.choice((0, 0, 1, 2, 5, 9)) for _ in range(n)]
        weights[rng.randrange(n)] += 1
    else:
        weights = [rng.randint(1, 4)] * n
    forests = [random_forest(rng, weights) for _ in range(2 if kind is Kind.ALLREDUCE else 1)]
    return PlanRequest(kind, n, root, in_place, channels=rng.randint(1, 3), pieces=pieces), forests


@settings(max_examples=200)
@given(
    st.sampled_from([*COLLECTIVES, Kind.ALLGATHERV, Kind.REDUCE_SCATTERV]),
    st.integers(1, 9),
    st.integers(0, 2**32),
    st.booleans(),
    st.integers(0, 4),
)
def test_any_forest_is_lowered_right(kind: Kind, n: int, seed: int, in_place: bool, pieces: int) -> None:
    request, forests = random_plan(kind, n, seed, in_place, pieces)
    schedule = lower(request, *forests, channels=request.channels)
    assert schedule == lower(request, *forests, channels=request.channels)
    check(schedule)
    stated, counted = cost(request, *forests), interpret(schedule)
    assert counted == stated
    if n > 1:
        assert (counted.messages, schedule.pieces) == (stated.messages, stated.pieces)
    assert smallest_capacity(schedule) <= schedule.capacity


def cases(n: int) -> list[tuple[PlanRequest, Schedule]]:
    found = []
    for kind in COLLECTIVES:
        for in_place in (False, True):
            for seed, pieces in ((1, 0), (2, 3)):
                request, forests = random_plan(kind, n, seed, in_place, pieces)
                found.append((request, lower(request, *forests)))
    return found


def execute(comm: Communicator, n: int) -> list[str]:
    """Run all cases on this rank; returns what was wrong."""
    wrong = []
    dtype, rank = DType.INT32, comm.rank
    for request, schedule in cases(n):
        for count in (0, n + 1, 1009, 50_021):
            kind, root = request.kind, request.root
            given_all = inputs(kind, dtype, ReduceOp.SUM, n, root, count)
            mine, want = given_all[rank], expected(kind, dtype, ReduceOp.SUM, given_all, root)[rank]
            send = None if mine is None else mine.copy()
            recv = None if want is None else np.full_like(want, -1)
            result = recv
            if request.in_place:
                size = max(0 if a is None else a.size for a in (mine, want))
                send = recv = np.full(size, -1, np.int32)
                begin = rank * count if kind is Kind.ALLGATHER else 0
                if mine is not None:
                    recv[begin : begin + mine.size] = mine
                begin = rank * count if kind is Kind.REDUCE_SCATTER else 0
                result = None if want is None else recv[begin : begin + want.size]
            sides = [None if a is None else a.view(np.uint8) for a in (send, recv)]
            call = Call(kind, dtype, root=root, count=count, send=sides[0], recv=sides[1], schedule=schedule)
            comm._comm.launch(call, blocking=True).wait(30)
            problem = None if want is None else compare(dtype, result, want)
            if want is None and request.in_place and not np.array_equal(recv, mine):
                problem = "a rank without result lost its input"
            if not request.in_place and mine is not None and not np.array_equal(send, mine):
                problem = "the input was altered"
            if problem:
                wrong.append(f"{kind.label} in_place={request.in_place} count={count} rank={rank}: {problem}")
    return wrong


@pytest.mark.parametrize("n", [2, 4])
def test_threads_get_exact_results(n: int) -> None:
    assert run_threads(n, lambda comm: execute(comm, n), "reference", 120) == [[]] * n


@pytest.mark.multiproc
@pytest.mark.parametrize("n", [2, 5])
def test_processes_of_the_native_engine_get_exact_results(n: int) -> None:
    assert run_processes(n, execute, "native", args=(n,), timeout_s=100) == [[]] * n
