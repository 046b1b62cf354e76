"""Fully sharded data parallelism: each rank has a part of every layer, and gathers the rest when needed.

``torchrun --nproc-per-node 2 examples/fsdp2.py --backend pycomm``
"""

from __future__ import annotations

from common import Job, Step, options, train
from model import loss_of
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def setup(job: Job) -> Step:
    """Shard each block and then the rest: a block is gathered as one, just before it computes."""
    mesh = init_device_mesh("cpu", (job.size,), mesh_dim_names=("data",))
    model = job.model()
    for block in model.blocks.values():
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = job.optimizer(model)

    def step(tokens: Tensor, targets: Tensor) -> Tensor:
        tokens, targets = tokens.chunk(job.size)[job.rank], targets.chunk(job.size)[job.rank]
        loss = loss_of(model(tokens), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss / job.size

    return step


if __name__ == "__main__":
    train(setup, options("fully sharded data parallelism with fully_shard"))
