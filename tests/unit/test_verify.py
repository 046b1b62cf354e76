"""The verifier on right schedules: accepts all, counts like the interpreter, judges lent memory exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pycomm.errors import ScheduleError
from pycomm.planner.base import PlanRequest
from pycomm.planner.registry import candidates, plan
from pycomm.schedule import OpKind, Schedule, Space
from pycomm.schedule.builder import NOWHERE, ScheduleBuilder, inp, out, scr
from pycomm.testing.brute import fails_under, fault
from pycomm.testing.interpreter import Refused, interpret
from pycomm.types import CollectiveKind
from pycomm.verify import check, metrics, verify

pytestmark = pytest.mark.timeout(60)

KINDS = [k for k in CollectiveKind if k not in (CollectiveKind.SEND, CollectiveKind.RECV)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.label)
@pytest.mark.parametrize("nranks", [1, 2, 3, 6])
def test_every_planner_passes_and_is_counted_like_the_interpreter(kind: CollectiveKind, nranks: int) -> None:
    for in_place in (False, True):
        request = PlanRequest(kind, nranks, nranks - 1 if kind.is_rooted else -1, in_place)
        for planner in candidates(request):
            schedule = planner.plan(request)
            assert verify(schedule) == [], (planner.name, request)
            counted, wanted = metrics(schedule), interpret(schedule)
            for name in ("steps", "sent", "received", "total", "reduced", "messages"):
                assert getattr(counted, name) == getattr(wanted, name), (planner.name, request, name)
            assert counted.per_rank.shape == (nranks, 5)


def test_a_thousand_ranks_verify() -> None:
    schedule = plan("recursive_doubling", PlanRequest(CollectiveKind.ALLREDUCE, 1000))
    assert verify(schedule) == []
    ops = schedule.ops.copy()
    combines = np.flatnonzero(ops[:, 0] == OpKind.RECV_REDUCE)
    forgets = combines[combines > schedule.offsets[500]][3]
    rank = int(np.searchsorted(schedule.offsets, forgets, side="right")) - 1
    ops[forgets, [0, 3, 4]] = OpKind.RECV, -1, -1
    found = verify(replace(schedule, ops=ops, _digest=[]))
    assert found
    assert {d.code for d in found} == {"V302"}
    assert any(f"rank {rank}:" in str(d) for d in found)


def relay(acknowledged: bool, through: int) -> Schedule:
    """Rank 0 sends slot 0 to rank 2, hears from the last of ``through`` ranks, and uses the slot again.

    Whether it may depends on what it hears: rank 2 starts the chain after its receive, or before.
    """
    n = 3 + through
    builder = ScheduleBuilder(PlanRequest(CollectiveKind.BROADCAST, n, root=0), "relay")
    slot = builder.scratch(0, [0])
    builder.copy(0, inp(0), scr(slot))
    builder.send(0, 2, scr(slot))
    steps = [
        lambda: builder.recv(2, 0, out(0)),
        lambda: builder.send(2, 3 if through else 0, NOWHERE, channel=0),
    ]
    for step in steps if acknowledged else reversed(steps):
        step()
    for rank in range(3, n):
        builder.recv(rank, rank - 1 if rank > 3 else 2, NOWHERE)
        builder.send(rank, rank + 1 if rank + 1 < n else 0, NOWHERE)
    builder.recv(0, n - 1 if through else 2, NOWHERE)
    builder.copy(0, inp(0), scr(slot))
    for rank in range(1, n):
        if rank != 2:
            builder.send(0, rank, scr(slot))
            builder.recv(rank, 0, out(0))
    builder.copy(0, inp(0), out(0))
    return builder.finish()


@pytest.mark.parametrize("through", [0, 1, 3])
def test_lent_memory_is_judged_by_chains_of_messages(through: int) -> None:
    assert verify(relay(True, through)) == []
    found = verify(relay(False, through))
    assert [d.code for d in found] == ["V305"]
    assert found[0].rank == 0
    assert "rank 2" in found[0].message


def test_reading_late_is_what_a_lent_finding_is_about() -> None:
    """Rank 1 sends a partial result and replaces it before anybody has read it: wrong only when read late."""
    builder = ScheduleBuilder(PlanRequest(CollectiveKind.ALLGATHER, 2), "hasty")
    slot = builder.scratch(1, [1])
    builder.copy(0, inp(0), out(0))
    builder.recv(0, 1, out(1))
    builder.send(0, 1, inp(0))
    builder.copy(1, inp(0), scr(slot))
    builder.send(1, 0, scr(slot))
    builder.copy(1, scr(slot), out(1))
    builder.recv(1, 0, scr(slot))
    builder.copy(1, scr(slot), out(0))
    right = builder.finish()
    assert verify(right) == []  # rank 0 sends only after its receive
    ops = right.ops.copy()
    ops[[1, 2]] = ops[[2, 1]]  # now it sends first
    hasty = replace(right, ops=ops, _digest=[])
    assert "V305" in {d.code for d in verify(hasty)}
    assert fault(hasty, "early") is None
    assert fault(hasty, "late", lazy=0) is not None
    assert fails_under(hasty) is not None
    with pytest.raises(Refused):
        interpret(hasty)


def test_signals_order_ranks_and_carry_nothing() -> None:
    builder = ScheduleBuilder(PlanRequest(CollectiveKind.BROADCAST, 2, root=0), "signal")
    builder.copy(0, inp(0), out(0))
    builder.send(0, 1, inp(0))
    builder.recv(1, 0, out(0))
    builder.send(1, 0, NOWHERE)
    builder.recv(0, 1, NOWHERE)
    schedule = builder.finish()
    assert verify(schedule) == []
    assert metrics(schedule).steps == 2
    assert metrics(schedule).per_rank.tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 1, 0]]


def test_barrier_may_count_a_contribution_twice_and_nothing_else_may() -> None:
    request = PlanRequest(CollectiveKind.BARRIER, 3)
    builder = ScheduleBuilder(request, "all to all, twice")
    for rank in range(3):
        for peer in range(3):
            if peer != rank:
                builder.send(rank, peer, inp(0))
    for rank in range(3):
        others = [p for p in range(3) if p != rank]
        builder.recv_reduce(rank, others[0], inp(0), out(0))
        builder.recv_reduce(rank, others[1], out(0), out(0))
        builder.reduce(rank, inp(0), out(0))
    schedule = builder.finish()
    assert verify(schedule) == []
    twice = verify(replace(schedule, kind=CollectiveKind.ALLREDUCE, _digest=[]))
    assert [d.code for d in twice] == ["V302"] * 3


def test_in_place_alltoallv_needs_symmetric_shapes() -> None:
    for kind in (CollectiveKind.ALLTOALL, CollectiveKind.ALLTOALLV):
        request = PlanRequest(kind, 4, in_place=True)
        for planner in candidates(request):
            assert verify(planner.plan(request)) == []


def test_metrics_refuse_what_is_malformed_and_count_what_is_merely_wrong() -> None:
    right = plan("ring", PlanRequest(CollectiveKind.ALLGATHER, 4))
    with pytest.raises(ScheduleError, match="malformed"):
        metrics(replace(right, channels=0, _digest=[]))
    ops = right.ops.copy()
    copies = np.flatnonzero(ops[:, 0] == OpKind.COPY)
    wrong = replace(
        right, ops=np.delete(ops, copies, axis=0), offsets=right.offsets - np.arange(5), _digest=[]
    )
    assert verify(wrong) != []
    assert metrics(wrong).total == metrics(right).total
    with pytest.raises(ScheduleError):
        check(wrong)


def test_verifying_changes_nothing() -> None:
    schedule = plan("ring", PlanRequest(CollectiveKind.ALLREDUCE, 5))
    before = schedule.ops.copy()
    verify(schedule)
    np.testing.assert_array_equal(schedule.ops, before)
    assert Space.INPUT not in set(schedule.ops[schedule.ops[:, 5] >= 0, 5].tolist())
