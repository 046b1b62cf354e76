"""What the conformance suite tries besides collectives: messages, objects, batches, groups, odd buffers.

Each scenario is a function of a communicator that raises ``AssertionError`` by :func:`_check` when something
is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pycomm.collectives.numbers import epsilon, narrow, widen
from pycomm.communicator import Communicator
from pycomm.errors import Mismatch, UsageError
from pycomm.types import CollectiveKind, DType, ReduceOp

__all__ = ["SCENARIOS", "Scenario"]

Scenario = Callable[[Communicator], None]
_LARGE = 300_000  # elements: beyond what any transport sends eagerly


def _check(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(what)


def _equal(got: Any, want: Any, what: str) -> None:
    _check(bool(np.array_equal(got, want)), f"{what}: wanted {want!r}, got {got!r}")


def ring_of_messages(comm: Communicator) -> None:
    """Everybody sends to the right and receives from the left, small, empty and large."""
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    for count in (0, 1, 5, _LARGE):
        out, into = np.arange(count) + comm.rank, np.full(count, -1)
        work = comm.send(out, right, 3, async_op=True)
        _equal(comm.recv(into, left, 3), left, "source")
        work.wait()
        _equal(into, np.arange(count) + left, f"message of {count}")


def tags_select(comm: Communicator) -> None:
    """Receive by tag, not by arrival; messages of one tag keep their order."""
    peer = comm.rank ^ 1
    if peer >= comm.size:
        return
    values = [np.array([10 * i + comm.rank]) for i in range(4)]
    works = [comm.send(v, peer, tag, async_op=True) for v, tag in zip(values, (7, 8, 7, 2**20), strict=True)]
    got = []
    for tag in (2**20, 8, 7, 7):
        into = np.empty(1, np.int64)
        comm.recv(into, peer, tag)
        got.append(int(into[0]))
    for work in works:
        work.wait()
    _equal(got, [30 + peer, 10 + peer, peer, 20 + peer], "messages by tag")


def any_source(comm: Communicator) -> None:
    """Rank 0 receives from whoever comes, and learns who it was."""
    if not comm._capabilities.any_source:
        return
    if comm.rank:
        comm.send(np.array([comm.rank * 11]), 0, 5)
        return
    seen = {}
    for _ in range(comm.size - 1):
        into = np.empty(1, np.int64)
        source = comm.recv(into, tag=5)
        seen[source] = int(into[0])
    _equal(sorted(seen.items()), [(r, 11 * r) for r in range(1, comm.size)], "messages by source")


def message_to_self(comm: Communicator) -> None:
    """Send to oneself."""
    into = np.zeros(3)
    work = comm.recv(into, comm.rank, 1, async_op=True)
    comm.send(np.arange(3.0), comm.rank, 1)
    _equal(work.wait(), comm.rank, "source")
    _equal(into, np.arange(3.0), "message to itself")


def batched_exchange(comm: Communicator) -> None:
    """Everybody sends to everybody in one batch, without deadlock at any size."""
    into = [np.zeros(_LARGE // 10, np.int32) for _ in range(comm.size)]
    with comm.batch() as batch:
        for r in range(comm.size):
            comm.send(np.full(_LARGE // 10, comm.rank * 100 + r, np.int32), r, r)
            comm.recv(into[r], r, comm.rank)
    batch.wait()
    for r in range(comm.size):
        _equal(np.unique(into[r]), [r * 100 + comm.rank], f"message of rank {r}")


def many_in_flight(comm: Communicator) -> None:
    """Many operations at once, waited for in reverse order."""
    arrays = [np.full(17, float(comm.rank + i)) for i in range(20)]
    works = [comm.allreduce(a, async_op=True) for a in arrays]
    for work in reversed(works):
        work.wait()
        _check(work.done(), "a work that was waited for is done")
    total = comm.size * (comm.size - 1) / 2
    for i, array in enumerate(arrays):
        _equal(array, np.full(17, total + comm.size * i), f"allreduce {i}")


def objects_travel(comm: Communicator) -> None:
    """Every object form, with data that must come back as it was."""
    mine = {"rank": comm.rank, 3: (None, b"x", 2**70), "a": np.arange(4, dtype=np.float32).reshape(2, 2)}
    for r, other in enumerate(comm.allgather_object(mine)):
        _check(other["rank"] == r and other[3] == (None, b"x", 2**70), f"object of rank {r}")
        _equal(other["a"], mine["a"], "array in an object")
    last = comm.size - 1
    _check(comm.broadcast_object([1, comm.rank], last) == [1, last], "broadcast object")
    gathered = comm.gather_object("x" * comm.rank, last)
    _check(
        gathered == (["x" * r for r in range(comm.size)] if comm.rank == last else None), "gathered objects"
    )
    parts = [{"to": r} for r in range(comm.size)] if comm.rank == last else None
    _check(comm.scatter_object(parts, last) == {"to": comm.rank}, "scattered object")
    if comm.rank == 0:
        for r in range(1, comm.size):
            _check(comm.recv_object(r, 4) == {"from": r}, f"object from rank {r}")
    else:
        comm.send_object({"from": comm.rank}, 0, 4)


def groups_divide(comm: Communicator) -> None:
    """Split by parity in reverse order, duplicate, and use all groups in turn."""
    part = comm.split(comm.rank % 2, -comm.rank)
    _check(part is not None, "a color gives a group")
    if part is not None:
        same = [r for r in range(comm.size) if r % 2 == comm.rank % 2]
        _equal((part.rank, part.size), (same[::-1].index(comm.rank), len(same)), "place in the group")
        total = np.array([comm.rank])
        part.allreduce(total)
        _equal(total, [sum(same)], "sum in the group")
        part.close()
    _check(comm.split(0 if comm.rank == 0 else None) is None or comm.rank == 0, "no color gives no group")
    with comm.duplicate() as twin:
        pair = np.array([1]), np.array([2])
        works = [twin.allreduce(pair[0], async_op=True), comm.allreduce(pair[1], async_op=True)]
        for work in works:
            work.wait()
        _equal([int(pair[0][0]), int(pair[1][0])], [comm.size, 2 * comm.size], "sums in two groups")


def odd_buffers(comm: Communicator) -> None:
    """Strided, 0-dimensional, many-dimensional, bytearray and read-only buffers."""
    grid = np.zeros((4, 6))
    grid[:, ::2] = comm.rank + 1
    comm.allreduce(grid[:, ::2])
    total = comm.size * (comm.size + 1) / 2
    _equal(grid, np.tile([total, 0.0], (4, 3)), "strided buffer")
    point = np.array(float(comm.rank))
    comm.allreduce(point)
    _equal(float(point), comm.size * (comm.size - 1) / 2, "0-dimensional buffer")
    raw = bytearray(b"abc") if comm.rank == 0 else bytearray(3)
    comm.broadcast(raw)
    _check(raw == b"abc", "bytearray")
    constant = np.arange(3)
    constant.flags.writeable = False
    out = np.empty((comm.size, 3), np.int64)
    comm.allgather(constant, out)
    _equal(out, np.tile(np.arange(3), (comm.size, 1)), "read-only input")
    columns = np.zeros((comm.size, 3), np.int64, order="F")
    comm.allgather(constant, columns)
    _equal(columns, out, "result in Fortran order")
    try:
        comm.allreduce(constant)
    except UsageError:
        return
    raise AssertionError("a read-only result was accepted")


def random_floats(comm: Communicator) -> None:
    """Sum random floats: within n rounding steps of the sum of magnitudes, and the same bits on all ranks."""
    for dtype in (DType.FLOAT64, DType.FLOAT32, DType.FLOAT16, DType.BFLOAT16):
        if not comm.supports(CollectiveKind.ALLREDUCE, dtype):
            continue
        rows = [np.random.default_rng(r).standard_normal(1003) for r in range(comm.size)]
        bits = [narrow(dtype, row if dtype is DType.FLOAT64 else row.astype(np.float32)) for row in rows]
        exact = np.sum([widen(dtype, b).astype(np.float64) for b in bits], axis=0)
        bound = np.sum([np.abs(widen(dtype, b).astype(np.float64)) for b in bits], axis=0)
        mine = bits[comm.rank].copy()
        comm.allreduce(mine, dtype=dtype)
        error = np.abs(widen(dtype, mine).astype(np.float64) - exact)
        allowed = comm.size * epsilon(dtype) * bound
        worst = int(np.argmax(error - allowed))
        _check(bool((error <= allowed).all()), f"{dtype.label} sum at [{worst}]: off by {error[worst]:g}")
        everybody = np.empty((comm.size, mine.nbytes), np.uint8)
        comm.allgather(mine.view(np.uint8), everybody)
        _check(bool((everybody == everybody[0]).all()), f"{dtype.label}: ranks got different bits")


def premultiplied(comm: Communicator) -> None:
    """Each rank's own factor scales its contribution, in place too."""
    if not comm.supports(CollectiveKind.ALLREDUCE, DType.FLOAT32, ReduceOp.PREMUL_SUM):
        return
    mine = np.full(9, 2.0, np.float32)
    comm.allreduce(mine, op="premul_sum", factor=comm.rank + 0.5)
    want = 2.0 * sum(r + 0.5 for r in range(comm.size))
    _equal(mine, np.full(9, want, np.float32), "scaled sum")


def wrong_table(comm: Communicator) -> None:
    """Pass an alltoallv counts that do not fit: all ranks raise, and the communicator stays usable."""
    if comm.size == 1:
        return
    counts = [1] * comm.size
    expects = list(counts)
    if comm.rank == 1:
        expects[0] = 2
    try:
        comm.alltoallv(np.zeros(sum(counts)), counts, np.zeros(sum(expects)), expects)
    except Mismatch:
        comm.barrier()
        return
    raise AssertionError("counts that do not fit were accepted")


def deferred_alltoallv(comm: Communicator) -> None:
    """Start alltoallv without waiting for the counts; what is called next comes next, waited for or not."""
    n = comm.size
    send_counts, recv_counts = [comm.rank + r for r in range(n)], [r + comm.rank for r in range(n)]
    sent = np.concatenate([np.full(count, 10 * comm.rank + r) for r, count in enumerate(send_counts)])
    expected = np.concatenate([np.full(count, 10 * r + comm.rank) for r, count in enumerate(recv_counts)])
    received = [np.full(sum(recv_counts), -1) for _ in range(2)]
    works = [comm.alltoallv(sent, send_counts, into, recv_counts, async_op=True) for into in received]
    total = np.ones(3)
    comm.allreduce(total)
    _equal(total, np.full(3, float(n)), "what came after")
    for work, into in zip(works, received, strict=True):
        work.wait()
        _check(work.done(), "a work that was waited for is done")
        _equal(into, expected, "blocks")
    if n == 1:
        return
    wrong = [count + (comm.rank == 1 and r == 0) for r, count in enumerate(recv_counts)]
    work = comm.alltoallv(sent, send_counts, np.zeros(sum(wrong), sent.dtype), wrong, async_op=True)
    comm.barrier()
    for _ in range(2):
        try:
            work.wait()
        except Mismatch:
            continue
        raise AssertionError("counts that do not fit were accepted")


def chosen_ranks(comm: Communicator) -> None:
    """Make a group of some ranks, in an order of their own, without the others."""
    ranks = list(range(comm.size))[::-2]
    if comm.rank not in ranks:
        return
    part = comm.subgroup(ranks, f"{comm.name}/chosen")
    _equal(part.rank, ranks.index(comm.rank), "place in the group")
    total = np.array([comm.rank])
    part.allreduce(total)
    _equal(total, [sum(ranks)], "sum in the group")
    part.close()
    for wrong in (ranks + ranks[:1], [r for r in ranks if r != comm.rank], [comm.size, *ranks]):
        try:
            comm.subgroup(wrong, "never")
        except UsageError:
            continue
        raise AssertionError(f"a group of ranks {wrong} was made")


SCENARIOS: dict[str, Scenario] = {
    f.__name__: f
    for f in (
        ring_of_messages,
        tags_select,
        any_source,
        message_to_self,
        batched_exchange,
        many_in_flight,
        objects_travel,
        groups_divide,
        odd_buffers,
        random_floats,
        premultiplied,
        wrong_table,
        deferred_alltoallv,
        chosen_ranks,
    )
}
