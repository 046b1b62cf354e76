"""Point-to-point: tags, any source, batches."""

from __future__ import annotations

import torch
import torch.distributed as dist
from team import on_ranks, raises
from values import ALL, mine, same

from pycomm.errors import UsageError


@on_ranks(2, 4)
def test_ring(rank: int, size: int) -> None:
    """Everybody sends to the right and receives from the left: every type, empty, small and large."""
    right, left = (rank + 1) % size, (rank - 1) % size
    for dtype in ALL:
        for count in (0, 1, 7, 100_000):
            work = dist.isend(mine(rank, count, dtype), right)
            into = torch.zeros(count, dtype=dtype)
            assert dist.recv(into, left) == left
            work.wait()
            same(into, mine(left, count, dtype), f"{dtype} {count}")


@on_ranks(2)
def test_tags_select(rank: int, size: int) -> None:
    """Receive by tag, not by arrival; messages of one tag keep their order."""
    peer = 1 - rank
    works = [dist.isend(torch.tensor([10 * i + rank]), peer, tag=tag) for i, tag in enumerate((7, 8, 7, 9))]
    got = []
    for tag in (9, 8, 7, 7):
        into = torch.zeros(1, dtype=torch.int64)
        dist.recv(into, peer, tag=tag)
        got.append(int(into))
    for work in works:
        work.wait()
    assert got == [30 + peer, 10 + peer, peer, 20 + peer]


@on_ranks(2, 4)
def test_any_source(rank: int, size: int) -> None:
    if rank:
        dist.send(torch.tensor([rank * 11]), 0, tag=5)
        dist.send(torch.tensor([rank * 12]), 0, tag=6)
        return
    for tag, factor in ((5, 11), (6, 12)):
        seen = {}
        for _ in range(size - 1):
            into = torch.zeros(1, dtype=torch.int64)
            source = dist.recv(into, tag=tag)
            seen[source] = int(into)
        assert seen == {r: factor * r for r in range(1, size)}


@on_ranks(2)
def test_the_work_knows_the_source(rank: int, size: int) -> None:
    if rank == 1:
        dist.send(torch.ones(2), 0)
        return
    work = dist.irecv(torch.zeros(2))
    work.wait()
    assert work.source_rank() == 1
    assert work._source_rank() == 1


@on_ranks(4)
def test_messages_in_a_group_use_its_ranks(rank: int, size: int) -> None:
    group = dist.new_group([1, 3])
    if rank in (1, 3):
        peer = 4 - rank
        work = dist.isend(torch.tensor([rank]), peer, group=group)
        into = torch.zeros(1, dtype=torch.int64)
        assert dist.recv(into, None, group=group) == peer  # as the world numbers it
        work.wait()
        assert int(into) == peer
        work = dist.isend(torch.tensor([rank]), group=group, group_dst=1 - dist.get_rank(group))
        dist.recv(into, group=group, group_src=1 - dist.get_rank(group))
        work.wait()
        assert int(into) == peer
        dist.destroy_process_group(group)


@on_ranks(2, 4)
def test_batch(rank: int, size: int) -> None:
    """Everybody with everybody, sends ahead of receives and behind them, without deadlock at any size."""
    for count in (3, 200_000):
        into = {r: torch.zeros(count) for r in range(size) if r != rank}
        sends = [dist.P2POp(dist.isend, torch.full((count,), float(10 * rank + r)), r) for r in into]
        receives = [dist.P2POp(dist.irecv, tensor, r) for r, tensor in into.items()]
        for work in dist.batch_isend_irecv(sends + receives if rank % 2 else receives + sends):
            work.wait()
        for r, tensor in into.items():
            same(tensor, torch.full((count,), 10.0 * r + rank), f"{count} from {r}")


@on_ranks(2)
def test_coalesced_messages(rank: int, size: int) -> None:
    peer = 1 - rank
    into = torch.zeros(5), torch.zeros(3)
    with dist._coalescing_manager(device=torch.device("cpu"), async_ops=True) as manager:
        for tag, count in enumerate((5, 3)):
            dist.isend(mine(rank, count), peer, tag=tag)
            dist.irecv(into[tag], peer, tag=tag)
    manager.wait()
    for got, count in zip(into, (5, 3), strict=True):
        same(got, mine(peer, count), f"message of {count}")


@on_ranks(2)
def test_strided_messages(rank: int, size: int) -> None:
    peer = 1 - rank
    grid = torch.zeros(4, 6)
    work = dist.isend(mine(rank, (6, 4)).t(), peer)
    dist.recv(grid, peer)
    work.wait()
    same(grid, mine(peer, (6, 4)).t(), "transposed at the sender")
    into = torch.zeros(6, 4)
    works = [dist.isend(mine(rank, (4, 6)), peer), dist.irecv(into.t(), peer)]
    for work in works:
        work.wait()
    same(into.t(), mine(peer, (4, 6)), "transposed at the receiver")


@on_ranks(2)
def test_futures_of_messages(rank: int, size: int) -> None:
    """They complete in any order."""
    peer = 1 - rank
    tensors = [torch.zeros(3) for _ in range(3)]
    futures = [dist.irecv(tensor, peer, tag=tag).get_future() for tag, tensor in enumerate(tensors)]
    for tag in (2, 0, 1):
        dist.isend(mine(rank, 3, salt=tag), peer, tag=tag).wait()
        same(futures[tag].wait()[0], mine(peer, 3, salt=tag), f"tag {tag}")


@on_ranks(2)
def test_a_message_that_does_not_fit(rank: int, size: int) -> None:
    """Both sides' counts are in the receiver's error, and later messages pass."""
    if rank == 0:
        dist.send(torch.ones(5), 1, tag=1)
        dist.send(torch.ones(2), 1, tag=2)
        return
    with raises(RuntimeError, "5", "4"):
        dist.recv(torch.zeros(4), 0, tag=1)
    into = torch.zeros(2)
    dist.recv(into, 0, tag=2)
    same(into, torch.ones(2), "the next message")


@on_ranks(2)
def test_bad_peers(rank: int, size: int) -> None:
    with raises((UsageError, ValueError)):
        dist.send(torch.ones(1), 2)
    with raises((UsageError, ValueError)):
        dist.group.WORLD.recv([torch.ones(1)], 9, 0)
