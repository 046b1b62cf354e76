"""The interpreter that judges planners is judged: each wrong schedule is refused for its own reason."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pycomm.planner.base import PlanRequest
from pycomm.planner.registry import plan
from pycomm.schedule import OpKind
from pycomm.schedule.builder import ScheduleBuilder, inp, out, scr
from pycomm.testing.interpreter import Refused, interpret
from pycomm.types import CollectiveKind as Kind

pytestmark = pytest.mark.timeout(30)
Build = Callable[[ScheduleBuilder], None]


def pair(kind: Kind, build: Build, **rest: object) -> None:
    builder = ScheduleBuilder(PlanRequest(kind, 2, **rest), "wrong")
    build(builder)
    interpret(builder.finish())


def forgets(b: ScheduleBuilder) -> None:
    b.copy(np.arange(2), inp(0), out(0))


def counts_twice(b: ScheduleBuilder) -> None:
    b.send(0, 1, inp(0))
    b.send(0, 1, inp(0))
    b.recv_reduce(1, 0, inp(0), out(0))
    b.recv_reduce(1, 0, out(0), out(0))


def overwrites_what_is_lent(b: ScheduleBuilder) -> None:
    ranks = np.arange(2)
    b.send(ranks, 1 - ranks, inp(0))
    b.recv_reduce(ranks, 1 - ranks, inp(0), out(0))


def deadlocks(b: ScheduleBuilder) -> None:
    ranks = np.arange(2)
    b.recv_reduce(ranks, 1 - ranks, inp(0), out(0))
    b.send(ranks, 1 - ranks, inp(0))


def leaves_a_message(b: ScheduleBuilder) -> None:
    ranks = np.arange(2)
    b.send(ranks, 1 - ranks, inp(0))
    b.recv_reduce(ranks, 1 - ranks, inp(0), out(0))
    b.send(0, 1, inp(0))


def reads_nothing(b: ScheduleBuilder) -> None:
    b.copy(0, out(0), out(0))


def writes_input(b: ScheduleBuilder) -> None:
    b.copy(0, inp(0), inp(0))


def leaves_the_buffer(b: ScheduleBuilder) -> None:
    b.copy(0, inp(0, 2), out(0, 2))


def sends_to_itself(b: ScheduleBuilder) -> None:
    b.send(0, 0, inp(0))


@pytest.mark.parametrize(
    ("build", "in_place", "reason"),
    [
        (forgets, False, "wanted"),
        (counts_twice, False, "wanted"),
        (overwrites_what_is_lent, True, "lent"),
        (deadlocks, False, "never gets past"),
        (leaves_a_message, False, "nobody takes"),
        (reads_nothing, False, "never written"),
        (writes_input, False, "writes INPUT"),
        (leaves_the_buffer, False, "reads chunks"),
        (sends_to_itself, False, "no such peer"),
    ],
)
def test_wrong_allreduce_is_refused(build: Build, in_place: bool, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        pair(Kind.ALLREDUCE, build, in_place=in_place)


def test_block_in_a_slot_of_another_size_is_refused() -> None:
    def build(b: ScheduleBuilder) -> None:
        b.copy(0, inp(0), scr(b.scratch(0, [1])))

    with pytest.raises(Refused, match="does not fit"):
        pair(Kind.ALLGATHER, build)


def test_in_place_reduce_keeps_the_buffers_of_others() -> None:
    def build(b: ScheduleBuilder) -> None:
        b.send(1, 0, inp(0))
        b.recv_reduce(0, 1, inp(0), out(0))
        b.send(0, 1, out(0))
        b.recv(1, 0, out(0))

    with pytest.raises(Refused, match="buffer changed"):
        pair(Kind.REDUCE, build, root=0, in_place=True)


@pytest.mark.parametrize("drop", range(6))
def test_any_message_dropped_from_a_barrier_is_noticed(drop: int) -> None:
    schedule = plan("bruck", PlanRequest(Kind.BARRIER, 3))
    builder = ScheduleBuilder(PlanRequest(Kind.BARRIER, 3), "less")
    builder.scratch(np.arange(3), np.zeros((3, 1), np.int64))
    number = 0
    for rank in range(3):
        for row in schedule.program(rank).tolist():
            number += row[0] == OpKind.SEND
            if row[0] == OpKind.SEND and number == drop + 1:
                continue
            builder.rows(rank, row[0], row[1], row[2], *_places(row))
    with pytest.raises(Refused):
        interpret(builder.finish())


def _places(row: list[int]) -> tuple[object, object]:
    from pycomm.schedule.builder import Place

    return Place(row[3], row[4], row[7]), Place(row[5], row[6], row[7])
