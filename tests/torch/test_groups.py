"""Groups: made, split, shrunk, watched, timed, aborted, destroyed and made again; beside other backends."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import torch
import torch.distributed as dist
from team import join, on_ranks, raises
from torch.distributed.device_mesh import init_device_mesh
from values import same

import pycomm.torch
from pycomm.errors import Aborted, CommError, DeadlineExceeded, Unsupported, UsageError

SECOND = timedelta(seconds=1)


def check_sum(group: dist.ProcessGroup | None, members: list[int], what: str) -> None:
    """All-reduce over the group; every member's rank in the world must have been counted."""
    tensor = torch.tensor([float(dist.get_rank()), 1.0])
    dist.all_reduce(tensor, group=group)
    same(tensor, torch.tensor([float(sum(members)), float(len(members))]), what)


@on_ranks(2, 4)
def test_names(rank: int, size: int) -> None:
    group = dist.group.WORLD
    assert dist.get_backend() == "pycomm"
    assert "cpu:pycomm" in dist.get_backend_config()
    assert (group.rank(), group.size()) == (rank, size)
    assert group.getBackendName() == group.name() == "pycomm"
    assert dist.get_process_group_ranks(group) == list(range(size))
    assert group._device_types == [torch.device("cpu")]
    assert group.group_name == group.getGroupName()
    named = dist.new_group(group_desc="a test")
    assert named.group_desc == "a test"
    assert named.group_name != group.group_name
    assert dist.distributed_c10d._resolve_process_group(named.group_name) is named
    dist.destroy_process_group(named)
    comm = group.communicator
    assert (comm.rank, comm.size) == (rank, size)


@on_ranks(2)
def test_sequence_numbers(rank: int, size: int) -> None:
    group = dist.new_group()
    before = group._get_sequence_number_for_group()
    for _ in range(3):
        dist.all_reduce(torch.ones(1), group=group)
    dist.all_reduce(torch.ones(1), group=group, async_op=True).wait()
    assert group._get_sequence_number_for_group() == before + 4
    dist.destroy_process_group(group)


@on_ranks(4)
def test_new_groups(rank: int, size: int) -> None:
    for members in ([0, 1], [2, 3], [3, 0], [1], [0, 1, 2, 3]):
        group = dist.new_group(members)
        if rank in members:
            check_sum(group, members, f"{members}")
            assert dist.get_group_rank(group, rank) == sorted(members).index(rank)
        else:
            assert group == dist.GroupMember.NON_GROUP_MEMBER
    halves = [[0, 2], [1, 3]]
    ours, _ = dist.new_subgroups_by_enumeration(halves)
    check_sum(ours, halves[rank % 2], "enumerated")
    pair, _ = dist.new_subgroups(2)
    check_sum(pair, [0, 1] if rank < 2 else [2, 3], "in pairs")
    check_sum(None, [0, 1, 2, 3], "the world, still")


@on_ranks(4, fresh=True)
def test_groups_made_by_their_members(rank: int, size: int) -> None:
    """Rank 3 has no part in them, and does not call. torch wants the others to be in as many groups each."""
    join(rank, size)
    for turn in range(3):
        if rank != 3:
            check_sum(dist.new_group([0, 1, 2], use_local_synchronization=True), [0, 1, 2], f"turn {turn}")
    check_sum(None, [0, 1, 2, 3], "the world")


@on_ranks(4)
def test_groups_of_groups(rank: int, size: int) -> None:
    """Two groups at once: collectives of one do not touch the other's."""
    even = dist.new_group([0, 2])
    everybody = dist.new_group()
    if rank % 2 == 0:
        first, second = torch.ones(100), torch.ones(3)
        works = [dist.all_reduce(first, group=even, async_op=True), dist.all_reduce(second, async_op=True)]
        for work in works:
            work.wait()
        same(first, torch.full((100,), 2.0), "in the small group")
        same(second, torch.full((3,), 4.0), "in the world")
    else:
        dist.all_reduce(torch.ones(3))
    check_sum(everybody, [0, 1, 2, 3], "the other group of all")
    dist.destroy_process_group(everybody)


@on_ranks(4)
def test_device_mesh(rank: int, size: int) -> None:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    row, column = [rank // 2 * 2, rank // 2 * 2 + 1], [rank % 2, rank % 2 + 2]
    assert dist.get_backend(mesh["tp"].get_group()) == "pycomm"
    check_sum(mesh["tp"].get_group(), row, "tp")
    check_sum(mesh["dp"].get_group(), column, "dp")
    assert mesh.get_local_rank("dp") == rank // 2
    flat = mesh[("dp", "tp")]._flatten("all")
    check_sum(flat.get_group(), [0, 1, 2, 3], "flattened")


@on_ranks(4)
def test_split_group(rank: int, size: int) -> None:
    """The group's own method, which torch calls where a device is bound to the group."""
    world = dist.group.WORLD
    half = [0, 1] if rank < 2 else [2, 3]
    group = world.split_group(half, timeout=SECOND * 30, group_name=f"half{half[0]}")
    tensor = torch.tensor([float(rank)])
    group.allreduce([tensor]).wait()
    same(tensor, torch.tensor([float(sum(half))]), "sum in the half")
    assert (group.rank(), group.size()) == (rank % 2, 2)
    group.shutdown()
    assert world.split_group([r for r in range(4) if r != rank]) is None


@on_ranks(4, fresh=True)
def test_shrink(rank: int, size: int) -> None:
    join(rank, size)
    dist.new_group([0, 1])  # ranks are in different numbers of groups
    check_sum(None, [0, 1, 2, 3], "before")
    with raises(UsageError, "ranks_to_exclude"):
        pycomm.torch.shrink_group([])
    with raises(UsageError, "ranks_to_exclude"):
        pycomm.torch.shrink_group([7])
    if rank == 1:
        with raises(UsageError, "rank 1"):
            pycomm.torch.shrink_group([1])
        time.sleep(1)
        return
    smaller = pycomm.torch.shrink_group([1])
    assert dist.group.WORLD is smaller
    assert dist.get_world_size() == 3
    tensor = torch.ones(5)
    dist.all_reduce(tensor)
    same(tensor, torch.full((5,), 3.0), "after")
    assert dist.get_rank() == [0, None, 1, 2][rank]


@on_ranks(3)
def test_monitored_barrier(rank: int, size: int) -> None:
    pycomm.torch.monitored_barrier(timeout=SECOND * 10)
    # Rank 2 stays away from the second one: the others are told so, and the group goes on.
    if rank != 2:
        with raises(DeadlineExceeded, "2", within_s=8):
            pycomm.torch.monitored_barrier(timeout=SECOND / 2, wait_all_ranks=True)
    dist.barrier()
    if rank == 2:
        dist.group.WORLD.next_barrier()
    dist.group.WORLD.monitored_barrier(SECOND * 10, True)


@on_ranks(2, fresh=True)
def test_destroy_and_init_again(rank: int, size: int) -> None:
    for attempt in range(4):
        join(rank, size, attempt=attempt)
        assert dist.is_initialized()
        check_sum(None, [0, 1], f"life {attempt}")
        extra = dist.new_group([0, 1])
        check_sum(extra, [0, 1], f"group of life {attempt}")
        dist.destroy_process_group()
        assert not dist.is_initialized()


@on_ranks(2, fresh=True)
def test_destroyed_groups_refuse(rank: int, size: int) -> None:
    join(rank, size)
    group = dist.group.WORLD
    dist.destroy_process_group()
    with raises((CommError, UsageError), "closed"):
        group.allreduce([torch.ones(1)])


@on_ranks(2, fresh=True)
def test_timeout_of_the_group(rank: int, size: int) -> None:
    join(rank, size, timeout=SECOND)
    dist.all_reduce(torch.ones(1))
    if rank == 0:
        with raises(DeadlineExceeded, "rank 1", within_s=5):
            dist.all_reduce(torch.ones(1))
    else:
        time.sleep(2.5)


@on_ranks(2, fresh=True)
def test_timeout_of_a_call(rank: int, size: int) -> None:
    join(rank, size)
    dist.all_reduce(torch.ones(1))
    if rank == 0:
        options = dist.AllreduceOptions()
        options.timeout = SECOND
        with raises(DeadlineExceeded, "rank 1", within_s=5):
            dist.group.WORLD.allreduce([torch.ones(1)], options).wait()
    else:
        time.sleep(2.5)


@on_ranks(2, fresh=True)
def test_set_timeout(rank: int, size: int) -> None:
    join(rank, size)
    dist.all_reduce(torch.ones(1))
    group = dist.new_group()
    group.set_timeout(SECOND)
    with raises(UsageError, "timeout"):
        group.set_timeout(timedelta(0))
    if rank == 0:
        with raises(DeadlineExceeded, within_s=5):
            dist.recv(torch.ones(1), 1, group=group)
    else:
        time.sleep(2.5)
    check_sum(None, [0, 1], "the other group is not concerned")


@on_ranks(2, fresh=True)
def test_abort_from_another_thread(rank: int, size: int) -> None:
    join(rank, size)
    dist.all_reduce(torch.ones(1))
    group = dist.new_group()
    if rank == 0:
        threading.Timer(0.5, group.abort).start()
    with raises(Aborted, "abort", within_s=5):
        dist.recv(torch.ones(1), 1 - rank, group=group)
    check_sum(None, [0, 1], "the other group is not concerned")


@on_ranks(4, fresh=True)
def test_the_others_go_on_after_an_abort(rank: int, size: int) -> None:
    """As torchft does: abort what hangs, and make a new group of those that are left."""
    join(rank, size)
    dist.all_reduce(torch.ones(1))
    if rank == 3:
        time.sleep(4)  # hangs, and then finds that it was left behind
        with raises(CommError):
            dist.all_reduce(torch.ones(1))
        return
    work = dist.all_reduce(torch.ones(1), async_op=True)
    with raises(CommError, within_s=3):  # its own patience, or the abort of a rank that had less
        work.wait(SECOND / 2)
    dist.distributed_c10d._abort_process_group()
    with raises(CommError):
        work.wait()
    join(rank, 3, attempt=1)
    check_sum(None, [0, 1, 2], "afterwards")
    dist.destroy_process_group()


@on_ranks(2, fresh=True)
def test_detail_debugging(rank: int, size: int) -> None:
    """TORCH_DISTRIBUTED_DEBUG=DETAIL wraps groups in torch's own checks."""
    dist.set_debug_level(dist.DebugLevel.DETAIL)
    join(rank, size)
    check_sum(None, [0, 1], "in the world")
    group = dist.new_group([0, 1])
    check_sum(group, [0, 1], "in a group")
    gathered = torch.zeros(size, 3)
    dist.all_gather_into_tensor(gathered, torch.full((3,), float(rank)))
    same(gathered, torch.tensor([[0.0] * 3, [1.0] * 3]), "gathered")
    with raises(RuntimeError, "2", "3"):
        dist.all_reduce(torch.ones(2 + rank))
    dist.destroy_process_group()


@on_ranks(2, fresh=True)
def test_options(rank: int, size: int) -> None:
    join(rank, size, pg_options=pycomm.torch.Options(fuse_below=1))
    tensors = [torch.ones(3), torch.ones(4)]
    with dist._coalescing_manager():
        for tensor in tensors:
            dist.all_reduce(tensor)
    same(torch.cat(tensors), torch.full((7,), 2.0), "not fused")
    assert dist.new_group().options == dist.group.WORLD.options
    with raises(UsageError, "pg_options"):
        dist.new_group(pg_options=object())


@on_ranks(2, fresh=True)
def test_beside_gloo(rank: int, size: int) -> None:
    """pycomm and Gloo in one job: whichever serves the CPU does the work, in both orders."""
    for attempt, backend in enumerate(
        ("cpu:pycomm,cuda:gloo", "cpu:gloo,cuda:pycomm", "cuda:gloo,cpu:pycomm")
    ):
        join(rank, size, attempt=attempt, backend=backend)
        check_sum(None, [0, 1], backend)
        served = dist.group.WORLD._get_backend(torch.device("cpu"))
        ours = "cpu:pycomm" in backend
        assert served.name() == ("pycomm" if ours else "gloo"), backend
        dist.barrier()
        group = dist.new_group([0, 1])
        check_sum(group, [0, 1], f"group of {backend}")
        dist.destroy_process_group()
    join(rank, size, attempt=9, backend="gloo")
    group = dist.new_group(backend="pycomm")
    check_sum(group, [0, 1], "a group of pycomm in a world of Gloo")
    dist.destroy_process_group()


@on_ranks(2, fresh=True)
def test_rendezvous_by_environment(rank: int, size: int) -> None:
    """As under torchrun: MASTER_ADDR, MASTER_PORT, RANK, WORLD_SIZE."""
    import os

    store = dist.FileStore(os.environ["TEAM_STORE"])
    if rank == 0:
        server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        store.set("port", str(server.port))
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=store.get("port").decode(), TORCHELASTIC_USE_AGENT_STORE="True"
    )
    dist.init_process_group("pycomm", timeout=SECOND * 20)
    check_sum(None, [0, 1], "sum")
    dist.destroy_process_group()


@on_ranks(2, fresh=True)
def test_a_rank_that_never_comes(rank: int, size: int) -> None:
    if rank == 0:
        with raises((DeadlineExceeded, dist.DistStoreError), within_s=10):
            join(rank, size, timeout=SECOND)


@on_ranks(1)
def test_alone(rank: int, size: int) -> None:
    check_sum(None, [0], "sum")
    dist.all_reduce(torch.ones(3), async_op=True).get_future().wait()
    gathered = [torch.zeros(2)]
    dist.all_gather(gathered, torch.ones(2))
    same(gathered[0], torch.ones(2), "gathered")
    dist.barrier()


@on_ranks(2)
def test_the_meta_device_is_refused(rank: int, size: int) -> None:
    there, here = torch.ones(4, device="meta"), torch.ones(4)
    calls = [
        lambda: dist.all_reduce(there),
        lambda: dist.all_reduce(there, async_op=True),
        lambda: dist.all_gather_into_tensor(there, here[: 4 // size]),
        lambda: dist.all_gather(list(there.chunk(size)), here[: 4 // size]),
        lambda: dist.reduce_scatter(there[:2], list(here.chunk(size))),
        lambda: dist.send(there, 1 - rank),
        lambda: dist.recv(there, 1 - rank),
    ]
    for call in calls:
        with raises(Unsupported, "meta device", "make it on a device that has them"):
            call()
    check_sum(None, range(size), "the group goes on")
