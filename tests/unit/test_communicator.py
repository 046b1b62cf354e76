"""The communicator over the reference backend: arguments, places, batches, failures, choice of schedules."""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
import pytest

import pycomm
from pycomm import IN_PLACE
from pycomm.errors import (
    Aborted,
    BackendUnavailable,
    DeadlineExceeded,
    Mismatch,
    PeerLost,
    PlanningError,
    PycommError,
    Unsupported,
    UsageError,
)
from pycomm.selection import Forced, forced_algorithms
from pycomm.testing import RankError, run_threads
from pycomm.types import CollectiveKind


def outcome(call):
    """What a call raises, as a value that a rank can return."""
    try:
        call()
    except PycommError as error:
        return error
    return None


@pytest.fixture
def alone():
    with pycomm.init("reference") as comm:
        yield comm


def test_one_process_is_a_group_of_one(alone):
    assert (alone.rank, alone.size, alone.backend) == (0, 1, "reference")
    x = np.arange(3.0)
    y = np.empty(3)
    assert alone.allreduce(x, y).done()
    assert y.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c: c.allreduce(np.ones(3), np.ones(2)), "recv must have 3"),
        (lambda c: c.allreduce(np.ones(3), np.ones(3, np.int64)), "float64 and recv holds int64"),
        (lambda c: c.allreduce(np.ones(3), op="mean"), "choose one of sum"),
        (lambda c: c.allreduce(np.ones(3), op="band"), "no sense on float64"),
        (lambda c: c.allreduce(np.ones(3), factor=2.0), "factor is for op='premul_sum'"),
        (lambda c: c.allreduce(np.ones(3), op="premul_sum", factor=float("nan")), "finite"),
        (lambda c: c.allreduce(np.ones(3), timeout_s=-1), "timeout_s=-1"),
        (lambda c: c.allreduce(IN_PLACE, IN_PLACE), "both buffers are missing"),
        (lambda c: c.allgather(np.ones(3), np.ones(4)), "recv must have 6"),
        (lambda c: c.allgather(np.ones(6), IN_PLACE), "pass send=IN_PLACE"),
        (lambda c: c.allgather(np.ones(6), None), "pass send=IN_PLACE"),
        (lambda c: c.reduce_scatter(np.ones(3), np.ones(1)), "cannot share equally"),
        (lambda c: c.reduce_scatter(IN_PLACE, np.ones(4)), "pass recv=IN_PLACE"),
        (lambda c: c.alltoall(np.ones(2), None), "recv is missing"),
        (lambda c: c.broadcast(np.ones(2), 2), "root=2 is not a rank"),
        (lambda c: c.broadcast(np.ones(2), 1.5), "root=1.5"),
        (lambda c: c.gather(None, np.ones(2)), "send is missing"),
        (lambda c: c.allgatherv(np.ones(1), np.ones(3), [1]), "counts has 1 entries"),
        (lambda c: c.allgatherv(np.ones(1), np.ones(3), [1, -1]), "negative"),
        (lambda c: c.allgatherv(np.ones(1), np.ones(3), [1.0, 2.0]), "whole numbers"),
        (lambda c: c.allgatherv(np.ones(7), np.ones(3), [1, 2]), "the counts ask for"),
        (lambda c: c.send(np.ones(1), 2), "dest=2"),
        (lambda c: c.send(np.ones(1), 0, -1), "tag=-1"),
        (lambda c: c.recv(np.ones(1), -2), "source=-2"),
        (lambda c: c.split(-1), "color=-1"),
        (lambda c: c.allreduce(np.ones(2), algorithm="no-such"), "no-such"),
    ],
)
def test_wrong_arguments_raise_before_anything_moves(call, words):
    def rank(comm):
        error = outcome(lambda: call(comm))
        comm.barrier()  # the communicator stays usable
        return error

    for error in run_threads(2, rank):
        assert isinstance(error, UsageError | PlanningError), error
        assert words in str(error)


def test_partial_overlap_is_refused():
    def rank(comm):
        x = np.zeros(8)
        return [
            outcome(lambda: comm.allreduce(x[:4], x[1:5])),
            outcome(lambda: comm.allgather(x[1:5], x)),
            outcome(lambda: comm.reduce_scatter(x, x[2:6])),
            outcome(lambda: comm.alltoall(x[:6], x[2:8])),
            outcome(lambda: comm.allgather(x[comm.rank * 4 :][:4], x)),
            outcome(lambda: comm.alltoall(x, x)),
        ]

    for errors in run_threads(2, rank):
        assert [type(e) for e in errors] == [UsageError] * 4 + [type(None)] * 2
        assert "IN_PLACE" in str(errors[0])


def test_a_view_at_its_natural_place_is_in_place():
    def rank(comm):
        whole = np.full(6, -1)
        whole[2 * comm.rank :][:2] = comm.rank
        comm.allgather(whole[2 * comm.rank :][:2], whole)
        parts = np.arange(6) + comm.rank
        comm.reduce_scatter(parts, parts[2 * comm.rank :][:2])
        return whole.tolist(), parts[2 * comm.rank :][:2].tolist()

    for r, (whole, part) in enumerate(run_threads(3, rank)):
        assert whole == [0, 0, 1, 1, 2, 2]
        assert part == [6 * r + 3, 6 * r + 6]


def test_in_place_by_marker_and_by_none():
    def rank(comm):
        n, r = comm.size, comm.rank
        a, b, c, d = (np.arange(n) + r for _ in range(4))
        comm.allreduce(a)
        comm.allreduce(IN_PLACE, b)
        comm.reduce(c, IN_PLACE if r == 1 else None, root=1)
        comm.alltoall(d, IN_PLACE)
        gathered = np.zeros(n, np.int64)
        gathered[r] = r + 1
        comm.gather(gathered[r : r + 1] if r else IN_PLACE, gathered)
        scattered = np.arange(n) * 10 if r == 2 else np.zeros(1, np.int64)
        comm.scatter(scattered if r == 2 else None, IN_PLACE if r == 2 else scattered, root=2)
        return [x.tolist() for x in (a, b, c, d, gathered, scattered)]

    results = run_threads(3, rank)
    for r, (a, b, c, d, gathered, scattered) in enumerate(results):
        assert a == b == [3, 6, 9]
        assert c == ([3, 6, 9] if r == 1 else [r, r + 1, r + 2])
        assert d == [r, r + 1, r + 2]
        if r == 0:
            assert gathered == [1, 2, 3]
        assert scattered == ([0, 10, 20] if r == 2 else [10 * r])


def test_ranks_that_disagree_all_learn_it_and_go_on():
    def rank(comm):
        errors = [
            outcome(lambda: comm.allreduce(np.ones(3 + comm.rank))),
            outcome(lambda: comm.allreduce(np.ones(3), op="max" if comm.rank else "sum")),
            outcome(lambda: comm.broadcast(np.ones(3), comm.rank)),
            outcome(lambda: comm.allreduce(np.ones(3, np.float32 if comm.rank else np.float64))),
            outcome(lambda: comm.barrier() if comm.rank else comm.allreduce(np.ones(1))),
        ]
        x = np.ones(1)
        comm.allreduce(x)
        return errors, x[0]

    for errors, total in run_threads(2, rank):
        assert [type(e) for e in errors] == [Mismatch] * 5
        assert "count=3" in str(errors[0])
        assert "count=4" in str(errors[0])
        assert total == 2


def test_a_rank_that_does_not_come_is_named():
    def rank(comm):
        if comm.rank == 2:
            time.sleep(0.5)
            return None
        return outcome(lambda: comm.allreduce(np.ones(1), timeout_s=0.1))

    first, second, _ = run_threads(3, rank)
    assert isinstance(first, DeadlineExceeded)
    assert isinstance(first, TimeoutError)
    assert 2 in first.ranks
    assert (first.group, first.operation, first.seq) == ("world", "allreduce", 0)
    assert "rank 2" in str(second)


def test_a_rank_that_leaves_early_is_named():
    def rank(comm):
        if comm.rank == 1:
            comm.close()
            return None
        return outcome(comm.barrier)

    error = run_threads(2, rank)[0]
    assert isinstance(error, PeerLost)
    assert error.ranks == (1,)


def test_abort_ends_the_waits_of_all():
    def rank(comm):
        if comm.rank == 0:
            timer = threading.Timer(0.1, comm.abort, ("because",))
            timer.start()
        error = outcome(lambda: comm.recv(np.ones(1), 0, 7) if comm.rank else comm.allreduce(np.ones(1)))
        return error, outcome(comm.barrier)

    for first, second in run_threads(2, rank):
        assert isinstance(first, Aborted)
        assert isinstance(second, Aborted), "the communicator is dead"
        assert "because" in str(first)


def test_a_rank_that_raises_ends_the_others():
    def rank(comm):
        if comm.rank == 1:
            raise KeyError("oops")
        comm.barrier()

    with pytest.raises(RankError, match="oops") as caught:
        run_threads(2, rank)
    assert isinstance(caught.value.errors[0], Aborted)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_closed_communicator_says_so(alone):
    alone.close()
    alone.close()
    with pytest.raises(UsageError, match="closed"):
        alone.barrier()


def test_waiting_raises_each_time():
    def rank(comm):
        work = comm.allreduce(np.ones(1 + comm.rank), async_op=True)
        return [outcome(work.wait), outcome(work.wait)], work.done()

    for errors, done in run_threads(2, rank):
        assert [type(e) for e in errors] == [Mismatch] * 2
        assert done


def test_wait_with_a_deadline_of_its_own():
    def rank(comm):
        if comm.rank == 0:
            work = comm.recv(np.empty(1), 1, async_op=True)
            return outcome(lambda: work.wait(0.05))
        return None

    assert isinstance(run_threads(2, rank)[0], DeadlineExceeded)


def test_batch_starts_at_its_end_and_not_before():
    def rank(comm):
        x, y = np.ones(2), np.ones(2)
        with comm.batch() as batch:
            first = comm.allreduce(x)
            comm.allreduce(y, op="max")
            early = (first.done(), outcome(first.wait), x.tolist())
        batch.wait()
        return early, batch.done(), x.tolist(), y.tolist()

    for (done, error, before), all_done, x, y in run_threads(2, rank):
        assert (done, before) == (False, [1, 1])
        assert isinstance(error, UsageError)
        assert all_done
        assert (x, y) == ([2, 2], [1, 1])


def test_batch_left_by_an_exception_starts_nothing():
    def rank(comm):
        x = np.ones(1)
        with contextlib.suppress(ZeroDivisionError), comm.batch():
            comm.allreduce(x)
            raise ZeroDivisionError
        comm.allreduce(x)
        return x[0]

    assert run_threads(2, rank) == [2, 2]


def test_blocking_forms_are_refused_inside_a_batch():
    def rank(comm):
        errors = []
        with comm.batch() as batch:
            errors.append(outcome(lambda: comm.split(0)))
            errors.append(outcome(lambda: comm.allgather_object(1)))
            errors.append(outcome(lambda: comm.alltoallv(np.ones(2), [1, 1], np.ones(2), [1, 1])))
            errors.append(outcome(lambda: comm.batch().__enter__()))
        batch.wait()
        return errors

    for errors in run_threads(2, rank):
        assert [type(e) for e in errors] == [UsageError] * 4


def test_dropped_works_keep_their_memory():
    def rank(comm):
        for i in range(100):
            comm.allreduce(np.ones(1000), async_op=True)
            if i % 10 == 9:
                comm.barrier()
        return len(comm._in_flight)

    for held in run_threads(2, rank):
        assert held < 100, "finished works are let go"


def test_calls_from_several_threads_of_a_rank():
    def rank(comm):
        groups = [comm.duplicate() for _ in range(4)]
        totals = [np.full(3, float(i)) for i in range(4)]

        def use(i):
            for _ in range(5):
                groups[i].allreduce(totals[i], op="avg")

        threads = [threading.Thread(target=use, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        return [t.tolist() for t in totals]

    assert run_threads(2, rank) == [[[float(i)] * 3 for i in range(4)]] * 2


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("op", ["sum", "avg", "premul_sum"])
def test_forced_schedules(op, in_place):
    factor = 2.0 if op == "premul_sum" else None

    def rank(comm):
        x = np.arange(7.0) + comm.rank
        y = x if in_place else np.empty(7)
        comm.allreduce(x, y, op, algorithm="ring", factor=factor)
        return y.tolist()

    want = 3 * np.arange(7.0) + 3
    want = {"sum": want, "avg": want / 3, "premul_sum": want * 2}[op]
    assert run_threads(3, rank) == [want.tolist()] * 3


def test_algorithms_from_the_environment(monkeypatch):
    assert forced_algorithms("") == {}
    assert forced_algorithms("allreduce:ring, reduce:binomial") == {
        CollectiveKind.ALLREDUCE: Forced("ring"),
        CollectiveKind.REDUCE: Forced("binomial"),
    }
    everywhere = forced_algorithms("broadcast:binomial,ring")
    assert everywhere[CollectiveKind.ALLTOALL] == Forced("ring", everywhere=True)
    assert everywhere[CollectiveKind.BROADCAST] == Forced("binomial")
    with pytest.raises(UsageError, match="alreduce"):
        forced_algorithms("alreduce:ring")
    monkeypatch.setenv("PYCOMM_ALGO", "ring")
    seen = []

    def rank(comm):
        launch = comm._comm.launch
        comm._comm.launch = lambda call, **options: (seen.append(call), launch(call, **options))[1]
        comm.allreduce(np.ones(2))
        comm.alltoall(np.ones(2), np.ones(2))  # ring does not serve it
        comm.allreduce(np.ones(2), algorithm="own")

    run_threads(2, rank)
    names = sorted({(call.kind.label, call.schedule and call.schedule.name) for call in seen}, key=str)
    assert names == [("allreduce", "ring"), ("allreduce", None), ("alltoall", None)]


def test_rounding_once_is_not_pretended():
    def rank(comm):
        x = np.ones(4, np.float16)
        comm.allreduce(x, round_once=True)
        return outcome(lambda: comm.allreduce(x, round_once=True, algorithm="ring"))

    assert all(isinstance(e, Unsupported) for e in run_threads(2, rank))


def test_init_refuses_what_cannot_work(monkeypatch):
    with pytest.raises(UsageError, match="no backend 'nccl2'"):
        pycomm.init("nccl2")
    with pytest.raises(UsageError, match="PYCOMM_STORE"):
        pycomm.init("reference", rank=0, size=2)
    with pytest.raises(UsageError, match="host:port"):
        pycomm.init("reference", rank=0, size=2, rendezvous="nonsense")
    with pytest.raises(UsageError, match="PYCOMM_SECRET"):
        pycomm.init("reference", rank=0, size=2, rendezvous="10.1.2.3:4000")
    with pytest.raises(UsageError, match="timeout_s"):
        pycomm.init("reference", timeout_s=0)
    monkeypatch.setenv("PYCOMM_TIMEOUT_S", "soon")
    with pytest.raises(UsageError, match="PYCOMM_TIMEOUT_S"):
        pycomm.init("reference")


def test_reference_ranks_cannot_be_processes(tmp_path):
    with pytest.raises(BackendUnavailable, match="threads"):
        pycomm.init("reference", rank=0, size=2, rendezvous=f"file:{tmp_path}")
