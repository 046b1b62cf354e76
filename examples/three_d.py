"""Three dimensions: data x pipeline x tensor parallelism, each along its own direction of one mesh of ranks.

``torchrun --nproc-per-node 8 examples/three_d.py --mesh 2 2 2 --backend pycomm``
"""

from __future__ import annotations

import math

import torch
from common import Job, Step, options, train
from model import loss_of
from tensor_parallel import parallelize
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, Schedule1F1B


def setup(job: Job) -> Step:
    """Cut the model to this rank's stage, divide its layers, shard what remains."""
    sizes = tuple(job.arguments.mesh)
    if math.prod(sizes) != job.size:
        raise SystemExit(f"--mesh {sizes} needs {math.prod(sizes)} ranks, and there are {job.size}")
    mesh = init_device_mesh("cpu", sizes, mesh_dim_names=("data", "pipeline", "tensor"))
    part, parts = mesh["data"].get_local_rank(), mesh["data"].size()
    model = job.model()
    model.keep(mesh["pipeline"].get_local_rank(), mesh["pipeline"].size())
    parallelize(model, mesh["tensor"])
    for block in model.blocks.values():
        fully_shard(block, mesh=mesh["data"])
    fully_shard(model, mesh=mesh["data"])
    optimizer = job.optimizer(model)
    stage = PipelineStage(
        model,
        mesh["pipeline"].get_local_rank(),
        mesh["pipeline"].size(),
        torch.device("cpu"),
        group=mesh["pipeline"].get_group(),
    )
    schedule = Schedule1F1B(stage, n_microbatches=job.arguments.micro_batches, loss_fn=loss_of)

    def step(tokens: Tensor, targets: Tensor) -> Tensor:
        tokens, targets = tokens.chunk(parts)[part], targets.chunk(parts)[part]
        losses: list[Tensor] = []
        optimizer.zero_grad()
        schedule.step(
            *([tokens] if stage.is_first else []), target=targets if stage.is_last else None, losses=losses
        )
        optimizer.step()
        return torch.stack(losses).mean() / (parts * sizes[2]) if stage.is_last else torch.zeros(())

    return step


if __name__ == "__main__":
    parser = options("data, pipeline and tensor parallelism together")
    parser.add_argument(
        "--mesh", type=int, nargs=3, default=[2, 2, 2], metavar=("DATA", "PIPELINE", "TENSOR")
    )
    parser.add_argument("--micro-batches", type=int, default=2, help="parts of a rank's batch")
    train(setup, parser)
