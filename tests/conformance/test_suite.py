"""The conformance suite itself: it must see a backend that is wrong, in every way that it claims to see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pycomm.backends.base import Call
from pycomm.communicator import Communicator
from pycomm.errors import Unsupported
from pycomm.testing import run_threads
from pycomm.testing.cells import COLLECTIVES, LARGE, Cell, cells, run_cell
from pycomm.testing.conformance import Outcome, merge, render
from pycomm.types import CollectiveKind, DType, ReduceOp

MOVING = [k for k in COLLECTIVES if k is not CollectiveKind.BARRIER]
TWO_BUFFERS = [
    k for k in MOVING if k is not CollectiveKind.BROADCAST
]  # a broadcast has one, input and result


def spoil(comm: Communicator, after: Callable[[Call], None]) -> None:
    """Let ``after`` loose on the memory of every call that has ended."""
    launch = comm._comm.launch

    def crooked(call: Call, **options: Any) -> Any:
        work = launch(call, **options)
        work.wait()
        comm._comm.launch = launch
        comm.barrier()  # nobody spoils what another rank still reads
        comm._comm.launch = crooked
        after(call)
        return work

    comm._comm.launch = crooked


def statuses(cell: Cell, prepare: Callable[[Communicator], None], nranks: int = 3) -> list[tuple[str, str]]:
    def rank(comm: Communicator) -> tuple[str, str]:
        prepare(comm)
        return run_cell(comm, cell)

    return run_threads(nranks, rank)


def a_cell(kind: CollectiveKind, in_place: bool = False) -> Cell:
    return Cell(kind, DType.INT32, ReduceOp.SUM, 31, 1 if kind.is_rooted else -1, in_place)


@pytest.mark.parametrize("kind", MOVING, ids=lambda k: k.label)
def test_one_wrong_bit_is_seen(kind: CollectiveKind) -> None:
    def flip(call: Call) -> None:
        if call.kind is kind and call.recv is not None and call.recv.size:
            call.recv[-1] ^= 1

    found = statuses(
        a_cell(kind), lambda comm: spoil(comm, flip) if comm.rank == 1 else spoil(comm, lambda _: None)
    )
    assert found[1][0] == "fail"
    assert "wanted" in found[1][1]
    assert {found[0][0], found[2][0]} == {"pass"}


@pytest.mark.parametrize("kind", TWO_BUFFERS, ids=lambda k: k.label)
def test_a_result_that_was_not_written_is_seen(kind: CollectiveKind) -> None:
    def rank(comm: Communicator) -> tuple[str, str]:
        launch = comm._comm.launch

        def elsewhere(call: Call, **options: Any) -> Any:
            if call.kind is kind and call.recv is not None:
                call = replace(call, recv=call.recv.copy())
            return launch(call, **options)

        comm._comm.launch = elsewhere
        return run_cell(comm, a_cell(kind))

    assert run_threads(3, rank)[1][0] == "fail"


@pytest.mark.parametrize("kind", TWO_BUFFERS, ids=lambda k: k.label)
def test_a_changed_input_is_seen(kind: CollectiveKind) -> None:
    def scribble(call: Call) -> None:
        if call.kind is kind and call.send is not None and call.send.size:
            call.send[0] ^= 1

    found = statuses(a_cell(kind), lambda comm: spoil(comm, scribble))
    assert found[1] == ("fail", "changed the input")


def test_writing_outside_the_result_is_seen() -> None:
    def overrun(call: Call) -> None:
        if call.recv is not None:
            base = call.recv
            while isinstance(base.base, np.ndarray):
                base = base.base
            base[-1] = 0

    found = statuses(a_cell(CollectiveKind.ALLGATHER), lambda comm: spoil(comm, overrun))
    assert found[0] == ("fail", "wrote outside the result")


def test_capabilities_that_promise_too_much_or_too_little_are_seen() -> None:
    def refusing(comm: Communicator) -> None:
        def refuse(call: Call, **options: Any) -> Any:
            raise Unsupported("not today")

        comm._comm.launch = refuse

    def modest(comm: Communicator) -> None:
        comm.supports = lambda *_: False

    assert "is declared, but raised" in statuses(a_cell(CollectiveKind.ALLREDUCE), refusing)[0][1]
    assert "did not raise" in statuses(a_cell(CollectiveKind.ALLREDUCE), modest)[0][1]


def test_every_collective_dtype_op_and_way_has_a_cell() -> None:
    full = list(cells(3))
    ways = {(c.kind, c.dtype, c.op) for c in full}
    for kind in MOVING:
        for dtype in DType:
            wanted = [op for op in ReduceOp if dtype.supports(op)] if kind.reduces else [ReduceOp.SUM]
            assert {(kind, dtype, op) for op in wanted} <= ways
    assert ways == {(c.kind, c.dtype, c.op) for c in cells(3, quick=True)}
    assert {c.count for c in full} == {0, 1, 2, 3, 4, 31, LARGE}
    assert {(c.in_place, c.blocking) for c in full if c.kind is CollectiveKind.ALLTOALL} == {
        (a, b) for a in (False, True) for b in (False, True)
    }
    assert {c.root for c in full if c.kind.is_rooted} == {0, 1, 2}


def test_merge_keeps_any_rank_s_failure() -> None:
    good = Outcome(2, "cells", "x", "allreduce", "int8", "pass")
    bad = replace(good, status="fail", detail="rank 1: wrong")
    assert merge([[good], [bad]])[0].detail == "rank 1: wrong"
    assert merge([[good, good], [good]])[1].status == "fail", "a rank that stopped early is a failure"
    assert merge([[good], [replace(good, status="unsupported")]])[0].status == "fail"
    assert "FAIL 1" in render("x", merge([[good], [bad]]))
