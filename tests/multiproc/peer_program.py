"""One rank of the tests of the backends over foreign libraries: own collectives against the oracle, failures.

Run by test_peers.py: ``peer_program.py gloo RANK SIZE FOLDER``, or under mpiexec ``peer_program.py mpi``.
Prints ``ok N`` with the number of checked operations; anything else is a failure.
"""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest

from pycomm.backends.base import Call, GroupConfig
from pycomm.collectives.reference import evaluate
from pycomm.collectives.spec import equal_form
from pycomm.errors import Aborted, DeadlineExceeded, Unsupported
from pycomm.store import FileStore
from pycomm.types import CollectiveKind as K
from pycomm.types import DType, ReduceOp

COUNTS = (0, 1, 67)
MOVED = (DType.BFLOAT16, DType.BOOL, DType.FLOAT32, DType.INT64)  # bytes are bytes: one type of each size


def values(dtype, rank, count):
    """Small integers that depend on rank and position; exact in every type."""
    numbers = (np.arange(count) * 3 + rank * 2 + 1) % 5 + (rank % 2)
    if dtype is DType.BOOL:
        return (numbers % 2).astype(bool)
    if dtype.is_float and dtype not in (DType.FLOAT64, DType.FLOAT32, DType.FLOAT16):
        return numbers.astype(dtype.storage)
    return numbers.astype(dtype.storage)


def shapes(kind, rank, size, root, count, counts):
    """Elements of send and recv of one rank; -1 where it has none."""
    form = equal_form(kind)
    blocks = np.full(size, count) if counts is None else counts
    total, own = int(np.sum(blocks)), int(np.asarray(blocks).reshape(-1)[rank])
    if kind is K.ALLTOALLV:
        table = counts.reshape(size, size)
        return int(table[rank].sum()), int(table[:, rank].sum())
    return {
        K.ALLREDUCE: (count, count),
        K.BARRIER: (-1, -1),
        K.BROADCAST: (count if rank == root else -1, count),
        K.REDUCE: (count, count if rank == root else -1),
        K.ALLGATHER: (own, total),
        K.GATHER: (own, total if rank == root else -1),
        K.SCATTER: (total if rank == root else -1, own),
        K.REDUCE_SCATTER: (total, own),
        K.ALLTOALL: (total, total),
    }[form]


def check(comm, rank, size, kind, dtype, op, count, root, in_place):
    """Run one cell; compare with the oracle."""
    counts = None
    if kind.is_ragged:
        counts = np.array(
            [(count + 3 * i) % 7 for i in range(size * size if kind is K.ALLTOALLV else size)], np.int64
        )
    form = equal_form(kind)
    inputs = []
    for r in range(size):
        elements = shapes(kind, r, size, root, count, counts)[0]
        inputs.append(values(dtype, r, elements).view(dtype.storage) if elements >= 0 else None)
    wanted = evaluate(kind, dtype, op, inputs, root=root, counts=counts)[rank]
    elements = shapes(kind, rank, size, root, count, counts)[1]
    mine = inputs[rank]
    send = None if mine is None else mine.view(np.uint8).copy()
    recv = None if elements < 0 else np.full(elements * dtype.itemsize, 0xA5, np.uint8)
    place = slice(None)
    if in_place and send is not None and recv is not None:
        starts = np.concatenate(([0], np.cumsum(counts if counts is not None else [count] * size)))
        own = slice(*(int(starts[i]) * dtype.itemsize for i in (rank, rank + 1)))
        if form in (K.REDUCE_SCATTER, K.SCATTER):
            recv, place = send, own
        else:
            if form in (K.ALLGATHER, K.GATHER):
                recv[own] = send
            else:
                recv = send
            send = recv
    before = None if send is None or recv is send else send.copy()
    if before is not None:
        send.setflags(write=False)
    call = Call(kind, dtype, op, root=root, count=count, send=send, recv=recv, counts=counts, timeout_s=20)
    comm.launch(call).wait()
    where = f"{kind.label} {dtype.label} {op.label} count={count} root={root} in_place={in_place} rank={rank}"
    if wanted is not None:
        got = recv[place].view(dtype.storage)
        assert np.array_equal(got, wanted), f"{where}: got {got[:8]}, wanted {wanted[:8]}"
    if before is not None:
        assert np.array_equal(before, send), f"{where}: the input was written"


def collectives(backend, comm, rank, size):
    """Check every cell of the declared capabilities."""
    offered = backend.capabilities()
    done = 0
    for kind in sorted(offered.own):
        for dtype in sorted(offered.own[kind]) if kind.reduces else MOVED:
            for op in sorted(offered.reductions[dtype]) if kind.reduces else (ReduceOp.SUM,):
                for index, count in enumerate(COUNTS):
                    root = (index % size) if kind.is_rooted else -1
                    for in_place in (False, True):
                        if kind is K.ALLTOALLV and in_place:
                            continue
                        check(comm, rank, size, kind, dtype, op, count, root, in_place)
                        done += 1
    return done + refusals(comm, offered)


def refusals(comm, offered):
    """Check that what is not declared raises."""
    done = 0
    for kind in (K.ALLREDUCE, K.REDUCE):
        for dtype in DType:
            for op in ReduceOp:
                if op not in offered.reductions.get(dtype, ()):
                    try:
                        comm.launch(Call(kind, dtype, op, root=0))
                    except Unsupported:
                        done += 1
                    else:
                        raise AssertionError(
                            f"{kind.label} {dtype.label} {op.label} is not declared, yet did not raise"
                        )
    return done


def messages(comm, rank, size):
    """Send around a ring, all first sending then receiving; then everybody to rank 0 from any source."""
    right, left = (rank + 1) % size, (rank - 1) % size
    sends, recvs, buffers = [], [], []
    for tag, count in ((3, 0), (1, 5), (2, 100_000)):
        data = values(DType.INT32, rank + tag, count).view(np.uint8)
        sends.append(comm.launch(Call(K.SEND, DType.INT32, count=count, send=data, peer=right, tag=tag)))
    for tag, count in ((2, 100_000), (1, 5), (3, 0)):
        buffers.append((tag, np.zeros(count * 4, np.uint8)))
        recvs.append(
            comm.launch(Call(K.RECV, DType.INT32, count=count, recv=buffers[-1][1], peer=left, tag=tag))
        )
    for work in recvs:
        assert work.wait() == left
    for work in sends:
        work.wait(20)
        assert work.done()
    for tag, buffer in buffers:
        assert np.array_equal(buffer.view(np.int32), values(DType.INT32, left + tag, buffer.size // 4)), tag
    if rank:
        mine = np.full(1, rank, np.uint8)
        comm.launch(Call(K.SEND, DType.UINT8, count=1, send=mine, peer=0, tag=9)).wait()
        return
    seen = set()
    for _ in range(size - 1):
        buffer = np.zeros(1, np.uint8)
        source = comm.launch(Call(K.RECV, DType.UINT8, count=1, recv=buffer, peer=-1, tag=9)).wait()
        assert source == buffer[0]
        seen.add(source)
    assert seen == set(range(1, size))


def late(backend, config, rank):
    """Rank 1 does not come: rank 0's deadline ends its wait, and the others learn of it with its cause.

    The late rank may still find what the others had sent, so its first call may end well, but not for long.
    """
    comm = backend.open(config("late"))
    data = np.ones(4, np.float32).view(np.uint8)
    began = time.monotonic()
    if rank == 1:
        time.sleep(1.5)

    def use():
        for _ in range(100):
            call = Call(K.ALLREDUCE, DType.FLOAT32, count=4, send=data, recv=data, timeout_s=0.5)
            comm.launch(call).wait()
            assert rank == 1, "an allreduce without rank 1 has ended well"

    with pytest.raises(DeadlineExceeded, match="allreduce"):
        use()
    assert time.monotonic() - began < 4.0
    comm.close()


def aborted(backend, config, rank):
    """Rank 0 aborts from another thread while all wait."""
    comm = backend.open(config("aborted"))
    size = config("aborted").size
    buffer = np.zeros(8, np.uint8)
    if rank == 0:
        threading.Timer(0.3, comm.abort, ["tired of waiting"]).start()
    began = time.monotonic()
    works = [comm.launch(Call(K.RECV, DType.UINT8, count=8, recv=buffer, peer=(rank + 1) % size, tag=1))]
    for work in works:
        for _ in range(2):
            with pytest.raises(Aborted, match="tired of waiting"):
                work.wait(10)
    assert time.monotonic() - began < 3.0
    comm.abort("again")
    comm.close()
    comm.close()


def main():
    name = sys.argv[1]
    if name == "mpi":
        from mpi4py import MPI

        from pycomm.backends.mpi import BACKEND

        rank, size, store = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size, None
    else:
        from pycomm.backends.gloo import BACKEND

        rank, size, store = int(sys.argv[2]), int(sys.argv[3]), FileStore(sys.argv[4])

    def config(group):
        return GroupConfig(group, rank, size, tuple(range(size)), 20.0, store=store)

    comm = BACKEND.open(config("main"))
    done = collectives(BACKEND, comm, rank, size)
    if size > 1:
        messages(comm, rank, size)
        comm.close()
        aborted(BACKEND, config, rank)
        late(BACKEND, config, rank)
    else:
        comm.close()
    print(f"ok {done}", flush=True)


main()
