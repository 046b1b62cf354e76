"""DDP with uneven inputs: ranks that have run out of them shadow the others' operations."""

from __future__ import annotations

import torch
import torch.distributed as dist
from team import on_ranks
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@on_ranks(2, 4)
def test_gradients_are_averaged_over_those_who_have_inputs(rank: int, size: int) -> None:
    # DDP hands the work of "who is still there" to its C++ part, which waits for it and asks for its future.
    model = DistributedDataParallel(nn.Linear(1, 1, bias=False))
    steps = rank + 1
    with model.join(divide_by_initial_world_size=False):
        for step in range(steps):
            model.zero_grad()
            model(torch.full((1, 1), float(rank))).sum().backward()
            active = [other for other in range(size) if other >= step]
            assert model.module.weight.grad is not None
            assert model.module.weight.grad.item() == sum(active) / len(active)


@on_ranks(2)
def test_gradients_are_averaged_over_all(rank: int, size: int) -> None:
    model = DistributedDataParallel(nn.Linear(1, 1, bias=False))
    with model.join():
        for step in range(rank + 1):
            model.zero_grad()
            model(torch.full((1, 1), float(rank + 1))).sum().backward()
            active = [other for other in range(size) if other >= step]
            assert model.module.weight.grad is not None
            assert model.module.weight.grad.item() == sum(other + 1 for other in active) / size
    dist.barrier()
