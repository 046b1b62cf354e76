"""Bad input and faults: who is told, what, and when."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from team import Team, join, on_ranks, raises
from values import same

from pycomm.errors import Mismatch, PeerLost, UsageError

LIMIT_S = 1.0  # from a rank's death, or Ctrl-C, to the exception

Case = tuple[Callable[[], Any], tuple[str, ...]]


def disagreements(rank: int, size: int) -> dict[str, Case]:
    """Calls in which the last rank differs from the others, with words of both sides for the error."""
    odd = rank == size - 1
    count = 5 if odd else 4
    ones = torch.ones

    def blocks(count: int) -> list[torch.Tensor]:
        return list(ones(size, count))

    def all_to_all_splits() -> Any:
        sent = [3 if odd and r == 0 else 2 for r in range(size)]  # rank 0 expects two rows of everybody
        return dist.all_to_all_single(ones(2 * size), ones(sum(sent)), [2] * size, sent)

    op = dist.ReduceOp.MAX if odd else dist.ReduceOp.SUM
    kind = torch.float64 if odd else torch.float32
    root = 1 if odd else 0
    return {
        "shapes": (lambda: dist.all_reduce(ones(count)), ("4", "5")),
        "large shapes": (lambda: dist.all_reduce(ones(200_000 + count)), ("200004", "200005")),
        "types": (lambda: dist.all_reduce(ones(4, dtype=kind)), ("float32", "float64")),
        "types of one size": (
            lambda: dist.all_reduce(ones(4).view(torch.int32 if odd else kind)), ("int32", "float32"),
        ),
        "ops": (lambda: dist.all_reduce(ones(4), op), ("sum", "max")),
        "roots of broadcast": (lambda: dist.broadcast(ones(4), root), ("root=0", "root=1")),
        "shapes of broadcast": (lambda: dist.broadcast(ones(count), 0), ("4", "5")),
        "roots of reduce": (lambda: dist.reduce(ones(4), root), ("root=0", "root=1")),
        "ops of reduce": (lambda: dist.reduce(ones(4), 0, op), ("sum", "max")),
        "shapes of all_gather": (lambda: dist.all_gather(blocks(count), ones(count)), ("4", "5")),
        "shapes of all_gather_into_tensor": (
            lambda: dist.all_gather_into_tensor(ones(size * count), ones(count)), ("4", "5"),
        ),
        "shapes of reduce_scatter": (lambda: dist.reduce_scatter(ones(count), blocks(count)), ("4", "5")),
        "ops of reduce_scatter": (
            lambda: dist.reduce_scatter_tensor(ones(4), ones(size * 4), op), ("sum", "max"),
        ),
        "shapes of all_to_all": (lambda: dist.all_to_all(blocks(count), blocks(count)), ("4", "5")),
        "splits of all_to_all": (all_to_all_splits, ("2", "3")),
        "calls": (
            lambda: dist.barrier() if odd else dist.all_reduce(ones(4)), ("barrier", "allreduce"),
        ),
        "coalesced shapes": (
            lambda: dist.group.WORLD.allreduce_coalesced([ones(2), ones(count)]).wait(), ("6", "7"),
        ),
    }  # fmt: skip


@on_ranks(2, 4)
def test_ranks_disagree(rank: int, size: int) -> None:
    """Everybody hears of it from a blocking call, with both sides, and the group goes on."""
    for name, (call, words) in disagreements(rank, size).items():
        try:
            with raises(Mismatch, *words, within_s=10):
                call()
        except BaseException as error:
            raise AssertionError(f"{name}: {error}") from error
        tensor = torch.ones(3)
        dist.all_reduce(tensor)
        same(tensor, torch.full((3,), float(size)), f"after disagreeing about {name}")


@on_ranks(2)
def test_calls_that_can_never_work(rank: int, size: int) -> None:
    """Refused on the spot, without the other ranks."""
    kinds = (UsageError, ValueError, RuntimeError)
    with raises(kinds, "2"):
        dist.group.WORLD.allgather([[torch.ones(1)]], [torch.ones(1)])  # one output for two ranks
    with raises(kinds):
        dist.all_gather_into_tensor(torch.ones(3), torch.ones(2))
    with raises(kinds):
        dist.reduce_scatter_tensor(torch.ones(2), torch.ones(3))
    with raises(kinds, "split"):
        dist.all_to_all_single(torch.ones(4), torch.ones(4), [1, 2], [2, 2])
    with raises(kinds, "type"):
        dist.group.WORLD.allgather([[torch.ones(1), torch.ones(1).double()]], [torch.ones(1)])
    with raises(kinds):
        dist.group.WORLD.broadcast([torch.ones(1)], 2)
    with raises(kinds):
        dist.group.WORLD.allreduce([torch.ones(1), torch.ones(1)])
    dist.barrier()


def die_in_all_reduce(rank: int, size: int, victim: int, how: str) -> tuple[str, list[int], float] | None:
    """Be killed, or report what the others' waits raised and when."""
    join(rank, size)
    tensor = torch.ones(100_000)
    model = (
        torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(300, 300)) if how == "backward" else None
    )
    dist.all_reduce(tensor)
    if rank == victim:
        time.sleep(0.3)  # the others are waiting by now
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        if how == "blocking":
            dist.all_reduce(tensor)
        elif how == "work":
            dist.all_reduce(tensor, async_op=True).wait()
        elif how == "future":
            dist.all_reduce(tensor, async_op=True).get_future().then(lambda done: done.value()).wait()
        elif how == "message":
            dist.recv(tensor, victim)
        elif how == "backward":
            model(torch.ones(2, 300)).sum().backward()
        elif how == "object":
            dist.all_gather_object([None] * size, "x")
    except RuntimeError as error:
        return str(error), list(getattr(error, "ranks", ())), time.monotonic()
    return None


@pytest.fixture
def four() -> Iterator[Team]:
    team = Team(4, joins=False)
    yield team
    team.kill()


@pytest.mark.usefixtures("teams")
@pytest.mark.parametrize("victim", [1, 3])
@pytest.mark.parametrize("how", ["blocking", "work", "future", "message", "backward", "object"])
def test_a_rank_is_killed(four: Team, how: str, victim: int) -> None:
    """Every other rank, neighbour or not, hears of it within a second, and who it was."""
    four.start(die_in_all_reduce, victim, how)
    four.processes[victim].join(30)
    died = time.monotonic()
    others = [rank for rank in range(4) if rank != victim]
    for rank, outcome in zip(others, four.results(others, limit_s=15), strict=True):
        assert outcome is not None, f"rank {rank} got a result"
        text, _, at = outcome
        assert f"rank {victim}" in text, f"rank {rank} was told: {text}"
        assert at - died < LIMIT_S, f"rank {rank} heard of it after {at - died:.2f} s: {text}"


def wait_for_ever(rank: int, size: int, how: str) -> tuple[str, float] | None:
    """Wait for rank 1, which does not come; report what ended the wait."""
    join(rank, size)
    dist.all_reduce(torch.ones(1))
    if rank == 1:
        time.sleep(3)
        return None
    tensor = torch.ones(100_000)
    try:
        if how == "blocking":
            dist.all_reduce(tensor)
        elif how == "work":
            dist.all_reduce(tensor, async_op=True).wait()
        elif how == "recv":
            dist.recv(tensor, 1)
        elif how == "barrier":
            dist.barrier()
        elif how == "monitored":
            import pycomm.torch

            pycomm.torch.monitored_barrier(timeout=timedelta(seconds=10))
        elif how == "new group":
            dist.new_group()
    except KeyboardInterrupt:
        return "interrupted", time.monotonic()
    except BaseException as error:
        return f"{type(error).__name__}: {error}", time.monotonic()
    return "ended", time.monotonic()


@pytest.mark.usefixtures("teams")
@pytest.mark.parametrize("how", ["blocking", "work", "recv", "barrier", "monitored", "new group"])
def test_control_c(how: str) -> None:
    """Ctrl-C ends a wait within a second."""
    team = Team(2, joins=False)
    try:
        team.start(wait_for_ever, how)
        time.sleep(1.5)
        os.kill(team.pid(0), signal.SIGINT)
        sent = time.monotonic()
        (outcome,) = team.results([0], limit_s=15)
        assert outcome is not None
        assert outcome[0] == "interrupted", outcome
        assert outcome[1] - sent < LIMIT_S, f"{outcome[1] - sent:.2f} s"
    finally:
        team.kill()


@on_ranks(2, fresh=True)
def test_a_rank_leaves_early(rank: int, size: int) -> None:
    """Exiting without a word is told from hanging."""
    join(rank, size)
    dist.all_reduce(torch.ones(1))
    if rank == 1:
        dist.destroy_process_group()
        return
    with raises((PeerLost, RuntimeError), "rank 1", within_s=5):
        dist.all_reduce(torch.ones(1))


@on_ranks(2, fresh=True)
def test_an_exception_reaches_ddp(rank: int, size: int) -> None:
    """DDP compares its models at the start and in every backward pass; pycomm's words come through."""
    join(rank, size)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 3))

    def hook(state, bucket):  # DDP wants the annotations to be classes, and here they would be text
        wrong = torch.ones(3 + rank)
        future = dist.all_reduce(wrong, async_op=True).get_future()
        return future.then(lambda done: done.value()[0])

    model.register_comm_hook(None, hook)
    with raises(RuntimeError, "3", "4", "rank"):
        model(torch.ones(2, 3)).sum().backward()
