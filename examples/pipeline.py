"""Pipeline parallelism: each rank has some layers; micro-batches go forward and back in turn (1F1B).

``torchrun --nproc-per-node 2 examples/pipeline.py --backend pycomm``
"""

from __future__ import annotations

import torch
from common import Job, Step, options, train
from model import loss_of
from torch import Tensor
from torch.distributed.pipelining import PipelineStage, Schedule1F1B


def setup(job: Job) -> Step:
    """Keep this rank's layers and let the schedule exchange activations and their gradients."""
    model = job.model()
    model.keep(job.rank, job.size)
    optimizer = job.optimizer(model)
    stage = PipelineStage(model, job.rank, job.size, torch.device("cpu"))
    schedule = Schedule1F1B(stage, n_microbatches=job.arguments.micro_batches, loss_fn=loss_of)

    def step(tokens: Tensor, targets: Tensor) -> Tensor:
        losses: list[Tensor] = []
        optimizer.zero_grad()
        schedule.step(
            *([tokens] if stage.is_first else []), target=targets if stage.is_last else None, losses=losses
        )
        optimizer.step()
        return torch.stack(losses).mean() if stage.is_last else torch.zeros(())

    return step


if __name__ == "__main__":
    parser = options("pipeline parallelism with Schedule1F1B")
    parser.add_argument("--micro-batches", type=int, default=4, help="parts of a batch")
    train(setup, parser)
