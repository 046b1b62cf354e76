"""The builder: rows in the order of programs, in-place renaming, scratch, the smallest capacity."""

from __future__ import annotations

import numpy as np
import pytest

from pycomm.planner.base import PlanRequest
from pycomm.schedule import Op, OpKind, Space, Span
from pycomm.schedule.builder import NOWHERE, ScheduleBuilder, inp, out, scr
from pycomm.types import CollectiveKind as Kind

pytestmark = pytest.mark.timeout(30)


def builder(kind: Kind = Kind.ALLREDUCE, nranks: int = 3, **rest: object) -> ScheduleBuilder:
    return ScheduleBuilder(PlanRequest(kind, nranks, **rest), "test", pieces=2, channels=2)


def test_single_ops_and_rounds_mix_in_order_of_calls() -> None:
    b = builder()
    ranks = np.arange(3)
    b.copy(1, inp(0, 2), out(0, 2))
    b.send(ranks, (ranks + 1) % 3, inp(0), channel=1)
    b.recv_reduce(1, 0, inp(0), out(0), channel=1)
    b.reduce(1, inp(1), out(1))
    schedule = b.finish()
    assert [op.kind for op in schedule.ops_of(1)] == [
        OpKind.COPY,
        OpKind.SEND,
        OpKind.RECV_REDUCE,
        OpKind.REDUCE,
    ]
    assert list(schedule.ops_of(0)) == [Op(OpKind.SEND, 1, 1, Span(Space.INPUT, 0), None)]
    assert next(iter(schedule.ops_of(1))) == Op(
        OpKind.COPY, -1, -1, Span(Space.INPUT, 0, 2), Span(Space.OUTPUT, 0, 2)
    )


def test_several_ops_of_one_rank_in_one_call_keep_their_order() -> None:
    b = builder()
    b.send(np.array([2, 0, 2, 0]), np.array([0, 1, 1, 2]), inp(np.array([0, 1, 1, 0])))
    schedule = b.finish()
    assert [op.peer for op in schedule.ops_of(0)] == [1, 2]
    assert [op.peer for op in schedule.ops_of(2)] == [0, 1]


def test_when_reorders_stably() -> None:
    b = builder()
    b.send(0, 1, inp(0), when=1)
    b.send(0, 2, inp(0), when=0)
    b.send(0, 1, inp(1), when=1)
    schedule = b.finish()
    assert [(op.peer, op.src.start) for op in schedule.ops_of(0) if op.src] == [(2, 0), (1, 0), (1, 1)]


@pytest.mark.parametrize("as_array", [False, True])
def test_empty_rounds_add_nothing(as_array: bool) -> None:
    b = builder()
    none = np.empty(0, np.int64)
    b.send(none, none if as_array else 1, inp(0))
    assert len(b.finish().ops) == 0


def test_scratch_is_numbered_per_rank() -> None:
    b = builder()
    ranks = np.array([2, 0])
    first = b.scratch(ranks, [[5, 4], [3, 2]])
    second = b.scratch(2, [1])
    assert first.tolist() == [0, 0]
    assert second == 2
    b.copy(2, inp(0), scr(second))
    schedule = b.finish()
    assert [schedule.scratch_slots(r).tolist() for r in range(3)] == [[3, 2], [], [5, 4, 1]]


def test_signal_has_no_span() -> None:
    b = builder()
    b.send(0, 1, NOWHERE)
    b.recv(1, 0, NOWHERE)
    schedule = b.finish()
    assert schedule.program(0).tolist() == [[OpKind.SEND, 1, 0, -1, -1, -1, -1, 0]]
    assert schedule.program(1).tolist() == [[OpKind.RECV, 0, 0, -1, -1, -1, -1, 0]]


@pytest.mark.parametrize(
    ("kind", "root", "rank", "given", "wanted"),
    [
        (Kind.ALLREDUCE, -1, 1, inp(1), (Space.OUTPUT, 1)),
        (Kind.ALLGATHER, -1, 2, inp(1), (Space.OUTPUT, 5)),
        (Kind.ALLGATHERV, -1, 2, inp(1), (Space.OUTPUT, 5)),
        (Kind.GATHER, 1, 1, inp(0), (Space.OUTPUT, 2)),
        (Kind.GATHER, 1, 2, inp(1), (Space.OUTPUT, 1)),
        (Kind.REDUCE_SCATTER, -1, 2, out(1), (Space.INPUT, 5)),
        (Kind.REDUCE_SCATTERV, -1, 2, inp(3), (Space.INPUT, 3)),
        (Kind.SCATTER, 1, 1, out(1), (Space.INPUT, 3)),
        (Kind.SCATTER, 1, 0, out(1), (Space.INPUT, 1)),
        (Kind.ALLTOALL, -1, 1, inp(4), (Space.OUTPUT, 4)),
    ],
)
def test_in_place_names_one_buffer(
    kind: Kind, root: int, rank: int, given: object, wanted: tuple[Space, int]
) -> None:
    b = builder(kind, root=root, in_place=True)
    b.send(rank, (rank + 1) % 3, given)
    (op,) = b.finish().ops_of(rank)
    assert op.src == Span(wanted[0], wanted[1])


def test_in_place_drops_copies_onto_themselves_only() -> None:
    b = builder(Kind.ALLGATHER, in_place=True)
    b.copy(np.arange(3), inp(0, 2), out(2 * np.arange(3), 2))
    b.copy(1, inp(0), out(0))
    schedule = b.finish()
    assert [len(schedule.program(r)) for r in range(3)] == [0, 1, 0]
    assert next(schedule.ops_of(1)).src == Span(Space.OUTPUT, 2)


def test_capacity_is_the_smallest_that_ends() -> None:
    b = builder(nranks=2)
    for peer in (0, 1):  # both send three messages before they take any
        for _ in range(3):
            b.send(1 - peer, peer, inp(0))
        for _ in range(3):
            b.recv(1 - peer, peer, out(0))
    assert b.finish(capacity=None).capacity == 3


def test_capacity_of_programs_that_never_end_is_refused() -> None:
    b = builder(nranks=2)
    b.recv(0, 1, out(0))
    b.recv(1, 0, out(0))
    with pytest.raises(ValueError, match="never ends"):
        b.finish(capacity=None)


def test_finish_is_repeatable() -> None:
    b = builder(Kind.ALLGATHER, in_place=True)
    b.send(0, 1, inp(0))
    assert b.finish() == b.finish()
