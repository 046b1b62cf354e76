"""Long runs that must stay flat: descriptors, threads and memory of every rank, and no hang.

    python tests/torch/soak.py groups --groups 1000 --operations 100000    groups come and go; operations
    python tests/torch/soak.py train --minutes 30                          DDP and FSDP2, ranks pausing

``--ranks`` is 2 unless said otherwise. The exit code is 1 when something grew or hung; every tenth of the way
a line says how things are.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from team import Team, join

PAGE = os.sysconf("SC_PAGE_SIZE")
Usage = tuple[int, int, int]  # descriptors, threads, resident bytes


def usage() -> Usage:
    """What this process holds."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    descriptors, threads = (len(list(Path(f"/proc/self/{what}").iterdir())) for what in ("fd", "task"))
    return descriptors, threads, resident


class Watch:
    """Takes a rank's usage now and then.

    Parameters
    ----------
    rank
        Of this process; rank 0 says how things are.
    """

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._taken: list[Usage] = []

    def take(self, done: str) -> None:
        self._taken.append(usage())
        descriptors, threads, resident = self._taken[-1]
        if self._rank == 0:
            print(
                f"{done}: {descriptors} descriptors, {threads} threads, {resident / 2**20:.1f} MiB",
                flush=True,
            )

    def growth(self) -> Usage:
        """Return how much each has grown since the first fifth, which warms up."""
        early, late = self._taken[len(self._taken) // 5], self._taken[-1]
        return late[0] - early[0], late[1] - early[1], late[2] - early[2]


def settle() -> None:
    """Let threads that have nothing to do end: they wait for five seconds."""
    deadline = time.monotonic() + 8
    while threading.active_count() > 1 and time.monotonic() < deadline:
        time.sleep(0.1)


def churn(rank: int, size: int, groups: int, operations: int) -> Usage:
    """Make and destroy groups, each used; then do operations of all kinds."""
    import torch
    import torch.distributed as dist

    warnings.simplefilter("ignore", FutureWarning)  # newer names of calls are not in older versions
    join(rank, size)
    watch = Watch(rank)
    for i in range(groups):
        if i % max(1, groups // 10) == 0:
            watch.take(f"{i} groups")
        group = dist.new_group()
        dist.all_reduce(torch.ones(3), group=group)
        dist.all_reduce(torch.ones(3), group=group, async_op=True).get_future().wait()
        dist.destroy_process_group(group)
    settle()
    watch.take(f"{groups} groups")
    of_groups = watch.growth()
    watch = Watch(rank)
    tensor, large, gathered = torch.ones(3), torch.ones(20_000), torch.zeros(3 * size)
    steps: list[Callable[[], object]] = [
        lambda: dist.all_reduce(tensor.fill_(1.0)),
        lambda: dist.all_reduce(large.fill_(1.0), async_op=True).wait(),
        lambda: dist.all_gather_into_tensor(gathered, tensor),
        lambda: (
            dist.all_reduce(tensor.fill_(1.0), async_op=True)
            .get_future()
            .then(lambda done: done.value())
            .wait()
        ),
        lambda: dist.broadcast(tensor, 0),
        lambda: dist.send(tensor, 1) if rank == 0 else dist.recv(tensor, 0) if rank == 1 else None,
        lambda: dist.reduce_scatter_tensor(tensor, gathered),
        lambda: dist.barrier(),
    ]
    for i in range(operations):
        if i % max(1, operations // 10) == 0:
            watch.take(f"{i} operations")
        steps[i % len(steps)]()
    dist.barrier()
    settle()
    watch.take(f"{operations} operations")
    of_operations = watch.growth()
    dist.destroy_process_group()
    return tuple(max(pair) for pair in zip(of_groups, of_operations, strict=True))


def train(rank: int, size: int, minutes: float) -> Usage:
    """Train a DDP and an FSDP2 model in turn; ranks pause at random between steps, up to a second."""
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    def model() -> nn.Sequential:
        torch.manual_seed(7)
        return nn.Sequential(*(nn.Linear(64, 64) for _ in range(6)))

    join(rank, size)
    replicated, sharded = DistributedDataParallel(model(), bucket_cap_mb=0.02), model()
    for layer in sharded:
        fully_shard(layer, mesh=init_device_mesh("cpu", (size,)))
    fully_shard(sharded, mesh=init_device_mesh("cpu", (size,)))
    pairs = [(each, torch.optim.SGD(each.parameters(), lr=0.05)) for each in (replicated, sharded)]
    chance, watch = random.Random(rank), Watch(rank)
    data = torch.Generator().manual_seed(rank)
    start, step, samples = time.monotonic(), 0, 0
    while True:
        past = torch.tensor(time.monotonic() - start)
        dist.broadcast(past, 0)  # ranks must agree when to stop
        if float(past) >= minutes * 6 * samples:
            watch.take(f"{float(past) / 60:.1f} min, {step} steps")
            samples += 1
        if float(past) >= minutes * 60:
            break
        x = torch.randn(8, 64, generator=data)
        losses = []
        for each, optimizer in pairs:
            if chance.random() < 0.02:
                time.sleep(chance.expovariate(10) if chance.random() < 0.9 else 1.0)
            optimizer.zero_grad()
            loss = (each(x) - 1).pow(2).mean()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        if abs(losses[0] - losses[1]) > 1e-3 * max(losses):
            raise AssertionError(f"step {step}: DDP's loss is {losses[0]}, FSDP2's {losses[1]}")
        step += 1
    settle()
    watch.take(f"{step} steps")
    growth = watch.growth()
    dist.destroy_process_group()
    return growth


def judge(growths: list[Usage]) -> list[str]:
    """Say what is not flat: any descriptor, any thread, more than 8 MiB of memory."""
    return [
        f"rank {rank} grew by {descriptors} descriptors, {threads} threads, {resident / 2**20:.1f} MiB"
        for rank, (descriptors, threads, resident) in enumerate(growths)
        if descriptors > 0 or threads > 0 or resident > 8 * 2**20
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["groups", "train"])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--groups", type=int, default=1000)
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=30)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    team = Team(given.ranks, joins=False, is_quiet=False)
    try:
        if given.what == "groups":
            limit_s = 120 + 0.5 * given.groups + 0.02 * given.operations
            growths = team.run(churn, given.groups, given.operations, limit_s=limit_s)
        else:
            growths = team.run(train, given.minutes, limit_s=given.minutes * 60 + 120)
    finally:
        team.close()
    for rank, (descriptors, threads, resident) in enumerate(growths):
        print(f"rank {rank}: {descriptors:+d} descriptors, {threads:+d} threads, {resident / 2**20:+.1f} MiB")
    wrong = judge(growths)
    print("\n".join(wrong) or "flat")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
