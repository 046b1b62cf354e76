"""Tensor and sequence parallelism: each rank has some heads and some of each layer's rows and columns.

Between the layers each rank keeps a part of the sequence: activations are gathered before attention and
feed-forward networks, and their partial sums are reduced and scattered behind them.

``torchrun --nproc-per-node 2 examples/tensor_parallel.py --backend pycomm``
"""

from __future__ import annotations

from common import Job, Step, options, train
from model import Transformer, loss_of
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

_SEQUENCE = Shard(1)


def parallelize(model: Transformer, mesh: DeviceMesh) -> None:
    """Divide the layers that a model, or its pipeline stage, has."""

    def gathered() -> PrepareModuleInput:
        return PrepareModuleInput(input_layouts=(_SEQUENCE,), desired_input_layouts=(Replicate(),))

    for block in model.blocks.values():
        plan = {
            "attention_norm": SequenceParallel(),
            "attention": gathered(),
            "attention.query": ColwiseParallel(),
            "attention.key": ColwiseParallel(),
            "attention.value": ColwiseParallel(),
            "attention.out": RowwiseParallel(output_layouts=_SEQUENCE),
            "feed_forward_norm": SequenceParallel(),
            "feed_forward": gathered(),
            "feed_forward.up": ColwiseParallel(),
            "feed_forward.down": RowwiseParallel(output_layouts=_SEQUENCE),
        }
        parallelize_module(block, mesh, plan)
    plan = {}
    if model.characters is not None:
        for name in ("characters", "positions"):
            plan[name] = RowwiseParallel(input_layouts=Replicate(), output_layouts=_SEQUENCE)
    if model.head is not None:
        plan["norm"] = SequenceParallel()
        plan["head"] = ColwiseParallel(input_layouts=_SEQUENCE, output_layouts=Replicate())
    parallelize_module(model, mesh, plan)


def setup(job: Job) -> Step:
    """Parallelize the model; every rank computes the same loss of the whole batch."""
    mesh = init_device_mesh("cpu", (job.size,), mesh_dim_names=("tensor",))
    model = job.model()
    parallelize(model, mesh)
    optimizer = job.optimizer(model)

    def step(tokens: Tensor, targets: Tensor) -> Tensor:
        loss = loss_of(model(tokens), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss / job.size

    return step


if __name__ == "__main__":
    train(setup, options("tensor and sequence parallelism with parallelize_module"))
