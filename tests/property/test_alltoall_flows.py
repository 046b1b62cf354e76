"""All-to-all on random networks: bounds agree with another programme, schedules are right and do as said."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycomm.backends.base import Call
from pycomm.communicator import Communicator
from pycomm.planner.base import PlanRequest
from pycomm.planner.graph.alltoall import alltoall_bound
from pycomm.planner.graph.alltoall_lowering import cost, lower
from pycomm.planner.graph.alltoall_plans import FlowPlan, plan
from pycomm.planner.graph.concurrent import rate_by_lengths
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

pytestmark = pytest.mark.timeout(240)


def random_network(rng: random.Random, n: int) -> Network:
    """Ranks and some switches, unlike links that need not go both ways; all can reach all."""
    count = n + rng.choice((0, 0, 1, 3))
    ring = list(range(count))
    rng.shuffle(ring)
    arcs = {(a, b): rng.randint(1, 6) for a, b in zip(ring, ring[1:] + ring[:1], strict=True)}
    for _ in range(rng.randint(0, 3 * count)):
        a, b = rng.sample(range(count), 2)
        arcs[a, b] = rng.randint(1, 6)
    keys = sorted(arcs)
    return Network(
        n,
        tuple(f"v{i}" for i in range(count)),
        np.array([a for a, _ in keys], np.int32),
        np.array([b for _, b in keys], np.int32),
        np.array([arcs[key] for key in keys], np.int64),
        10**9,
        np.zeros(len(keys)),
    )


def random_demands(rng: random.Random, n: int) -> np.ndarray | None:
    if rng.random() < 0.5:
        return None
    demands = np.array([[rng.choice((0, 1, 1, 3, 7)) for _ in range(n)] for _ in range(n)], np.int64)
    demands[0, n - 1] += 1
    return demands


def between(network: Network, demands: np.ndarray | None) -> np.ndarray:
    whole = np.ones((network.nranks,) * 2, np.int64) if demands is None else demands.copy()
    np.fill_diagonal(whole, 0)
    return whole


def rate_by_pairs(network: Network, demands: np.ndarray) -> float:
    """The programme with a flow for each pair: larger, and without anything that ours does to it."""
    from scipy.optimize import linprog

    pairs = [(s, d) for s, d in itertools.product(range(len(demands)), repeat=2) if demands[s, d]]
    narc = len(network.src)
    size = len(pairs) * narc + 1
    rows = []
    for k, (s, d) in enumerate(pairs):
        for v in range(network.nvertices):
            row = np.zeros(size)
            row[k * narc : (k + 1) * narc] = (network.dst == v).astype(float) - (network.src == v)
            row[-1] = demands[s, d] * (int(v == s) - int(v == d))
            rows.append(row)
    shared = np.tile(np.eye(narc), (1, len(pairs)))
    goal = np.zeros(size)
    goal[-1] = -1
    found = linprog(
        goal,
        A_ub=np.append(shared, np.zeros((narc, 1)), axis=1),
        b_ub=network.capacity.astype(float),
        A_eq=np.array(rows),
        b_eq=np.zeros(len(rows)),
        method="highs-ipm",
    )
    return float(found.x[-1])


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 5), st.integers(0, 2**32))
def test_the_bound_is_that_of_the_programme_of_pairs(n: int, seed: int) -> None:
    rng = random.Random(seed)
    network = random_network(rng, n)
    demands = random_demands(rng, n)
    found = alltoall_bound(network, demands)
    whole = n * n if demands is None else int(demands.sum())
    rate = found.algbw * n / whole / network.unit
    assert found.exact
    assert float(rate) == pytest.approx(rate_by_pairs(network, between(network, demands)), rel=1e-6)
    assert rate_by_lengths(network, between(network, demands), found.lengths) == rate


def explicit(found: FlowPlan) -> bool:
    return found.how.startswith("concurrent")


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 7), st.integers(0, 2**32), st.booleans())
def test_plans_are_right_and_as_good_as_they_say(n: int, seed: int, in_place: bool) -> None:
    rng = random.Random(seed)
    network = random_network(rng, n)
    demands = random_demands(rng, n)
    found = plan(network, demands)
    wanted = between(network, demands)
    assert 0 < found.ratio <= 1
    if explicit(found):
        load = dict.fromkeys(network.arc, Fraction(0))
        moved: dict[tuple[int, int], int] = {}
        for i, units in enumerate(found.routes.units.tolist()):
            path = found.routes.path[found.routes.first[i] : found.routes.first[i + 1]].tolist()
            ends = path[0], path[-1]
            moved[ends] = moved.get(ends, 0) + units
            for pair in itertools.pairwise(path):
                load[pair] += Fraction(units * int(wanted[ends]), found.routes.pieces)
        assert set(moved.values()) == {found.routes.pieces}
        assert len(moved) == n * (n - 1)
        worst = max(amount / int(network.capacity[network.arc[pair]]) for pair, amount in load.items())
        whole = n * n if demands is None else int(demands.sum())
        assert found.algbw == Fraction(whole, n) * network.unit / worst
    request = PlanRequest(Kind.ALLTOALL, n, in_place=in_place)
    schedule = lower(request, found.routes, found.unit)
    check(schedule)
    stated, counted = cost(request, found.routes, found.unit), interpret(schedule)
    assert (counted, counted.messages) == (stated, stated.messages)
    assert smallest_capacity(schedule) <= schedule.capacity


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 6), st.integers(0, 2**32))
def test_a_faster_link_never_makes_the_bound_worse(n: int, seed: int) -> None:
    rng = random.Random(seed)
    network = random_network(rng, n)
    capacity = network.capacity.copy()
    capacity[rng.randrange(len(capacity))] += rng.randint(1, 5)
    names = (network.nranks, network.names, network.src, network.dst)
    faster = Network(*names, capacity, network.unit, network.latency_s)
    assert alltoall_bound(faster).algbw >= alltoall_bound(network).algbw


def schedules(n: int) -> list[Schedule]:
    found = [plan(random_network(random.Random(seed), n)) for seed in (3, 8, 11)]
    return [
        lower(PlanRequest(Kind.ALLTOALL, n, in_place=in_place), one.routes, one.unit)
        for one in found
        for in_place in (False, True)
    ]


def execute(comm: Communicator, n: int, given: list[Schedule]) -> list[str]:
    """Run schedules on this rank; returns what was wrong."""
    wrong = []
    dtype, rank, kind = DType.INT32, comm.rank, Kind.ALLTOALL
    for number, schedule in enumerate(given):
        for count in (0, 1, 7, 10_007):
            given_all = inputs(kind, dtype, ReduceOp.SUM, n, -1, count)
            want = expected(kind, dtype, ReduceOp.SUM, given_all, -1)[rank]
            send = given_all[rank].copy()
            recv = send if schedule.in_place else np.full_like(want, -1)
            views = send.view(np.uint8), recv.view(np.uint8)
            call = Call(kind, dtype, root=-1, count=count, send=views[0], recv=views[1], schedule=schedule)
            comm._comm.launch(call, blocking=True).wait(30)
            problem = compare(dtype, recv, want)
            if problem:
                wrong.append(f"schedule {number} count={count} rank={rank}: {problem}")
    return wrong


@pytest.mark.parametrize("n", [2, 5])
def test_threads_get_exact_results(n: int) -> None:
    made = schedules(n)
    assert run_threads(n, lambda comm: execute(comm, n, made), "reference", 120) == [[]] * n


@pytest.mark.multiproc
@pytest.mark.parametrize("n", [3, 6])
def test_processes_of_the_native_engine_get_exact_results(n: int) -> None:
    assert run_processes(n, execute, "native", args=(n, schedules(n)), timeout_s=150) == [[]] * n
