"""Every collective of torch.distributed, on every type it takes, against what torch computes locally."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
import torch.distributed as dist
from team import on_ranks, raises
from torch import Tensor
from values import ALL, COMPLEX, COUNTS, FLOATS, INTEGERS, combined, mine, same

from pycomm.errors import PycommError, Unsupported, UsageError

_Op = dist.ReduceOp
_ARITHMETIC = (_Op.SUM, _Op.PRODUCT, _Op.MIN, _Op.MAX)
_BITWISE = (_Op.BAND, _Op.BOR, _Op.BXOR)
LARGE = 300_007  # elements: several slots of the engine, and a prime


def reductions() -> Iterator[tuple[torch.dtype, dist.ReduceOp.RedOpType]]:
    """Every type with every op that is defined on it."""
    for dtype in ALL:
        if dtype is torch.bool:
            ops = (*_ARITHMETIC, _Op.BAND, _Op.BOR)
        elif dtype in COMPLEX:
            ops = (_Op.SUM, _Op.AVG)
        elif dtype in INTEGERS:
            ops = (*_ARITHMETIC, _Op.AVG, *_BITWISE)
        else:
            ops = (*_ARITHMETIC, _Op.AVG)
        for op in ops:
            yield dtype, op


def finish(work: dist.Work | None) -> None:
    if work is not None:
        work.wait()


@on_ranks(1, 2, 3, 4)
def test_all_reduce(rank: int, size: int) -> None:
    for dtype, op in reductions():
        for count in COUNTS:
            want = combined([mine(r, count, dtype) for r in range(size)], op)
            for async_op in (False, True):
                tensor = mine(rank, count, dtype)
                finish(dist.all_reduce(tensor, op, async_op=async_op))
                same(tensor, want, f"{dtype} {op} {count} async={async_op}")


@on_ranks(2, 4)
def test_all_reduce_large(rank: int, size: int) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.int8, torch.complex64):
        want = combined([mine(r, LARGE, dtype) for r in range(size)], _Op.SUM)
        tensor = mine(rank, LARGE, dtype)
        dist.all_reduce(tensor)
        same(tensor, want, str(dtype))


@on_ranks(2, 4)
def test_premultiplied_sum(rank: int, size: int) -> None:
    for dtype in (torch.float32, torch.float64, torch.float16):
        tensor = mine(rank, 100, dtype)
        dist.all_reduce(tensor, dist._make_nccl_premul_sum(0.5))
        same(tensor, combined([mine(r, 100, dtype) for r in range(size)], _Op.SUM) * 0.5, str(dtype))


@on_ranks(2, 4)
def test_undefined_reductions_are_refused(rank: int, size: int) -> None:
    for dtype, op in ((torch.float32, _Op.BAND), (torch.complex64, _Op.MAX), (torch.complex64, _Op.PRODUCT)):
        with raises((PycommError, ValueError), str(op).rpartition(".")[2].lower()[:4]):
            dist.all_reduce(torch.ones(3, dtype=dtype), op)
    tensor = torch.ones(3)
    dist.all_reduce(tensor)  # and the group goes on
    same(tensor, torch.full((3,), float(size)), "after the refusals")


@on_ranks(2, 4)
def test_sparse_and_quantized_are_refused(rank: int, size: int) -> None:
    with raises(Unsupported, "sparse", "to_dense"):
        dist.all_reduce(torch.eye(3).to_sparse())
    with warnings.catch_warnings(action="ignore"):  # quantized tensors are on their way out
        quantized = torch.quantize_per_tensor(torch.ones(3), 0.5, 0, torch.quint8)
    with raises(Unsupported, "quint8"):
        dist.all_reduce(quantized)


@on_ranks(2, 3)
def test_broadcast_and_reduce(rank: int, size: int) -> None:
    for dtype in ALL:
        for count in COUNTS:
            for root in range(size):
                tensor = mine(rank, count, dtype)
                dist.broadcast(tensor, root)
                same(tensor, mine(root, count, dtype), f"broadcast {dtype} {count} from {root}")
    for dtype, op in reductions():
        for root in range(size):
            tensor = mine(rank, 7, dtype)
            dist.reduce(tensor, root, op)
            want = (
                combined([mine(r, 7, dtype) for r in range(size)], op)
                if rank == root
                else mine(rank, 7, dtype)
            )
            same(tensor, want, f"reduce {dtype} {op} to {root}")


@on_ranks(2, 4)
def test_all_gather(rank: int, size: int) -> None:
    for dtype in ALL:
        for shape in ((0,), (1,), (5, 3)):
            wanted = [mine(r, shape, dtype) for r in range(size)]
            outputs = [torch.zeros(shape, dtype=dtype) for _ in range(size)]
            finish(dist.all_gather(outputs, mine(rank, shape, dtype), async_op=True))
            for r in range(size):
                same(outputs[r], wanted[r], f"list {dtype} {shape} of {r}")
            into = torch.zeros((size * shape[0], *shape[1:]), dtype=dtype)
            dist.all_gather_into_tensor(into, mine(rank, shape, dtype))
            same(into, torch.cat(wanted), f"into a tensor {dtype} {shape}")


@on_ranks(2, 4)
def test_uneven_all_gather(rank: int, size: int) -> None:
    def shape(r: int) -> tuple[int, int]:
        return (3 * r, 2)  # rank 0 has nothing

    for dtype in (torch.float32, torch.bfloat16, torch.complex64, torch.bool):
        outputs = [torch.zeros(shape(r), dtype=dtype) for r in range(size)]
        dist.all_gather(outputs, mine(rank, shape(rank), dtype))
        for r in range(size):
            same(outputs[r], mine(r, shape(r), dtype), f"{dtype} of {r}")


@on_ranks(2, 4)
def test_reduce_scatter(rank: int, size: int) -> None:
    for dtype, op in reductions():
        for count in (0, 1, 7):
            whole = combined([mine(r, (size, count), dtype) for r in range(size)], op)
            output = torch.zeros(count, dtype=dtype)
            dist.reduce_scatter(output, list(mine(rank, (size, count), dtype)), op)
            same(output, whole[rank], f"list {dtype} {op} {count}")
            output.zero_()
            dist.reduce_scatter_tensor(output, mine(rank, (size, count), dtype).reshape(-1), op)
            same(output, whole[rank], f"tensor {dtype} {op} {count}")


@on_ranks(2, 4)
def test_uneven_reduce_scatter(rank: int, size: int) -> None:
    for dtype in (torch.float32, torch.int64):
        inputs = [[mine(r, 2 * block, dtype, salt=block) for block in range(size)] for r in range(size)]
        output = torch.zeros(2 * rank, dtype=dtype)
        dist.reduce_scatter(output, inputs[rank])
        same(output, combined([inputs[r][rank] for r in range(size)], _Op.SUM), str(dtype))


@on_ranks(2, 4)
def test_all_to_all(rank: int, size: int) -> None:
    for dtype in ALL:
        inputs = [mine(rank, (2, 3), dtype, salt=to) for to in range(size)]
        wanted = [mine(r, (2, 3), dtype, salt=rank) for r in range(size)]
        outputs = [torch.zeros(2, 3, dtype=dtype) for _ in range(size)]
        dist.all_to_all(outputs, inputs)
        for r in range(size):
            same(outputs[r], wanted[r], f"list {dtype} from {r}")
        output = torch.zeros(2 * size, 3, dtype=dtype)
        finish(dist.all_to_all_single(output, torch.cat(inputs), async_op=True))
        same(output, torch.cat(wanted), f"single {dtype}")


@on_ranks(2, 4)
def test_uneven_all_to_all(rank: int, size: int) -> None:
    def rows(src: int, dst: int) -> int:
        return (src + 2 * dst) % 4  # some are 0

    for dtype in (torch.float32, torch.float16, torch.complex128, torch.bool):
        blocks = {(s, d): mine(s, (rows(s, d), 3), dtype, salt=d) for s in range(size) for d in range(size)}
        outputs = [torch.zeros(rows(r, rank), 3, dtype=dtype) for r in range(size)]
        dist.all_to_all(outputs, [blocks[rank, r] for r in range(size)])
        for r in range(size):
            same(outputs[r], blocks[r, rank], f"list {dtype} from {r}")
        output = torch.zeros(sum(rows(r, rank) for r in range(size)), 3, dtype=dtype)
        dist.all_to_all_single(
            output,
            torch.cat([blocks[rank, r] for r in range(size)]),
            [rows(r, rank) for r in range(size)],
            [rows(rank, r) for r in range(size)],
        )
        same(output, torch.cat([blocks[r, rank] for r in range(size)]), f"single {dtype}")


@on_ranks(2, 3)
def test_gather_and_scatter(rank: int, size: int) -> None:
    for dtype in ALL:
        for root in range(size):
            tensor = mine(rank, (2, 2), dtype)
            outputs = [torch.zeros_like(tensor) for _ in range(size)] if rank == root else None
            dist.gather(tensor, outputs, root)
            for r, got in enumerate(outputs or ()):
                same(got, mine(r, (2, 2), dtype), f"gather {dtype} of {r} at {root}")
            inputs = [mine(root, 5, dtype, salt=r) for r in range(size)] if rank == root else None
            output = torch.zeros(5, dtype=dtype)
            dist.scatter(output, inputs, root)
            same(output, mine(root, 5, dtype, salt=rank), f"scatter {dtype} from {root}")


@on_ranks(2, 4)
def test_views(rank: int, size: int) -> None:
    """Strided, transposed, expanded, offset, 0-dimensional, negated and conjugated tensors."""
    total = float(sum(range(size)))
    grid = torch.zeros(4, 6)
    grid[:, ::2] = rank
    dist.all_reduce(grid[:, ::2])
    same(grid, torch.tensor([total, 0.0]).repeat(4, 3), "every second column")
    square = mine(rank, (5, 4))
    dist.all_reduce(square.t())
    same(square, combined([mine(r, (5, 4)) for r in range(size)], _Op.SUM), "transposed")
    point = torch.tensor(float(rank))
    dist.all_reduce(point)
    same(point, torch.tensor(total), "0-dimensional")
    outputs = [torch.zeros(3, 2).t() for _ in range(size)]
    dist.all_gather(outputs, torch.full((1,), float(rank)).expand(2, 3))
    for r in range(size):
        same(outputs[r], torch.full((2, 3), float(r)), "gathered into transposed tensors")
    channels_last = mine(rank, (2, 3, 4, 4)).to(memory_format=torch.channels_last)
    dist.all_reduce(channels_last)
    same(channels_last, combined([mine(r, (2, 3, 4, 4)) for r in range(size)], _Op.SUM), "channels last")
    group, conjugated = dist.group.WORLD, mine(rank, 3, torch.complex64).conj()
    gathered = [torch.zeros(3, dtype=torch.complex64) for _ in range(size)]
    group.allgather([gathered], [conjugated]).wait()  # dist.all_gather would refuse it itself
    parts = [torch.zeros(3) for _ in range(size)]
    dist.all_gather(parts, conjugated.imag)  # lazily negated
    for r in range(size):
        want = mine(r, 3, torch.complex64).conj().resolve_conj()
        same(gathered[r], want, f"conjugated, of {r}")
        same(parts[r], want.imag, f"negated, of {r}")
    with raises(UsageError, "conjugated"):
        group.allreduce([conjugated])
    leaf = torch.ones(3, requires_grad=True)
    dist.all_reduce(leaf)  # in place on a leaf, as DDP's initial broadcast does
    same(leaf.detach(), torch.full((3,), float(size)), "requires grad")


@on_ranks(2, 4)
def test_lists_that_are_one_memory(rank: int, size: int) -> None:
    """Chunks of one tensor, in order, out of order and with holes: the list says what goes where."""
    for name, order in (("in order", list(range(size))), ("reversed", list(reversed(range(size))))):
        store = torch.zeros(size, 4)
        dist.all_gather([store[i] for i in order], mine(rank, 4))
        for r, place in enumerate(order):
            same(store[place], mine(r, 4), f"{name}: of {r}")
    holes = torch.full((size, 6), -9.0)
    dist.all_gather([row[:4] for row in holes], mine(rank, 4))
    for r in range(size):
        same(holes[r], torch.cat([mine(r, 4), torch.full((2,), -9.0)]), f"with holes: of {r}")


SHAPES = ((3,), (0,), (2, 5), (100_000,), (1,))  # what travels in one coalesced call


def columns(size: int, *before: int) -> list[list[Tensor]]:
    """Every rank's tensors: ``columns(size)[i][r]``, with more dimensions before each shape."""
    return [[mine(r, (*before, *shape), salt=i) for r in range(size)] for i, shape in enumerate(SHAPES)]


@on_ranks(2, 4)
def test_coalesced_all_reduce(rank: int, size: int) -> None:
    """Many tensors in one call: empty, small and large."""
    for op in (_Op.SUM, _Op.MAX, _Op.AVG):
        for async_ops in (False, True):
            tensors = [column[rank].clone() for column in columns(size)]
            with dist._coalescing_manager(async_ops=async_ops) as manager:
                for tensor in tensors:
                    dist.all_reduce(tensor, op)
            if async_ops:
                manager.wait()
            for tensor, column in zip(tensors, columns(size), strict=True):
                same(tensor, combined(column, op), f"{tuple(tensor.shape)} {op} async={async_ops}")
    mixed = [mine(rank, 5, dtype) for dtype in (torch.float32, torch.int64, torch.bfloat16)]
    with dist._coalescing_manager():
        for tensor in mixed:
            dist.all_reduce(tensor)
    for tensor in mixed:
        same(tensor, combined([mine(r, 5, tensor.dtype) for r in range(size)], _Op.SUM), str(tensor.dtype))


@on_ranks(2, 4)
def test_coalesced_all_gather_and_reduce_scatter(rank: int, size: int) -> None:
    gathered = [torch.zeros(size * shape[0], *shape[1:]) for shape in SHAPES]
    with dist._coalescing_manager():
        for output, column in zip(gathered, columns(size), strict=True):
            dist.all_gather_into_tensor(output, column[rank])
    for output, column in zip(gathered, columns(size), strict=True):
        same(output, torch.cat(column), f"all_gather {tuple(output.shape)}")
    scattered = [torch.zeros(shape) for shape in SHAPES]
    with dist._coalescing_manager():
        for output, column in zip(scattered, columns(size, size), strict=True):
            dist.reduce_scatter_tensor(output, column[rank].flatten(0, 1))
    for output, column in zip(scattered, columns(size, size), strict=True):
        same(output, combined(column, _Op.SUM)[rank], f"reduce_scatter {tuple(output.shape)}")


@on_ranks(2, 4)
def test_coalesced_by_name(rank: int, size: int) -> None:
    """The calls that take lists of tensors themselves."""
    tensors = [mine(rank, 5), mine(rank, (2, 2), salt=1)]
    group = dist.group.WORLD
    group.allreduce_coalesced(tensors).wait()
    for i, shape in enumerate((5, (2, 2))):
        same(tensors[i], combined([mine(r, shape, salt=i) for r in range(size)], _Op.SUM), f"all_reduce {i}")
    lists = [[torch.zeros(3), torch.zeros(2)] for _ in range(size)]
    group.allgather_coalesced(lists, [mine(rank, 3), mine(rank, 2)]).wait()
    for r in range(size):
        same(lists[r][0], mine(r, 3), f"first of {r}")
        same(lists[r][1], mine(r, 2), f"second of {r}")


@on_ranks(2, 4)
def test_objects(rank: int, size: int) -> None:
    thing = {"rank": rank, 3: (None, b"x", 2**70), "t": torch.arange(rank + 1)}
    everything: list = [None] * size
    dist.all_gather_object(everything, thing)
    for r, other in enumerate(everything):
        assert other["rank"] == r
        same(other["t"], torch.arange(r + 1), f"tensor in the object of {r}")
    some = [f"from {rank}", rank]
    dist.broadcast_object_list(some, src=size - 1)
    assert some == [f"from {size - 1}", size - 1]
    gathered = [None] * size if rank == 1 else None
    dist.gather_object("x" * rank, gathered, dst=1)
    assert gathered == (["x" * r for r in range(size)] if rank == 1 else None)
    part: list = [None]
    dist.scatter_object_list(part, [{"to": r} for r in range(size)] if rank == 0 else None, src=0)
    assert part == [{"to": rank}]
    if rank == 0:
        dist.send_object_list(["a", 7], dst=1)
    elif rank == 1:
        received: list = [None, None]
        dist.recv_object_list(received, src=0)
        assert received == ["a", 7]


@on_ranks(2, 4)
def test_barrier(rank: int, size: int) -> None:
    """Nobody leaves before everybody has come."""
    store = dist.PrefixStore(f"barrier{size}", dist.group.WORLD.get_group_store())
    for turn in range(5):
        store.add(f"{turn}", 1)
        if turn % 2:
            dist.barrier()
        else:
            dist.barrier(async_op=True).wait()
        assert store.add(f"{turn}", 0) == size


@on_ranks(2)
def test_float8_is_reduced_in_float32(rank: int, size: int) -> None:
    """A sum beyond what float8 counts exactly is rounded once, to nearest even."""
    for dtype, summands in ((torch.float8_e4m3fn, (9.0, 8.0)), (torch.float8_e5m2, (10.0, 7.0))):
        exact = [torch.full((9,), x).to(dtype) for x in summands]
        tensor = exact[rank].clone()
        dist.all_reduce(tensor)
        same(tensor, sum(x.float() for x in exact).to(dtype), str(dtype))


@on_ranks(2, 4)
def test_random_floats_agree_bitwise(rank: int, size: int) -> None:
    """Every rank gets the same bits, within n roundings of the exact sum."""
    for dtype in FLOATS:
        rows = [
            torch.randn(1003, generator=torch.Generator().manual_seed(r), dtype=torch.float64)
            for r in range(size)
        ]
        rows = [row.to(dtype) for row in rows]
        tensor = rows[rank].clone()
        dist.all_reduce(tensor)
        bound = sum(row.double().abs() for row in rows) * size * torch.finfo(dtype).eps
        assert ((tensor.double() - sum(row.double() for row in rows)).abs() <= bound).all(), f"{dtype}"
        everybody = [torch.zeros_like(tensor) for _ in range(size)]
        dist.all_gather(everybody, tensor)
        for r in range(size):
            same(everybody[r], tensor, f"{dtype}: bits of rank {r}")
