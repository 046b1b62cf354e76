"""Data parallelism: each rank has the whole model and a part of the batch; gradients are averaged.

``torchrun --nproc-per-node 2 examples/ddp.py --backend pycomm``

``python examples/ddp.py --reference 2`` trains the same in one process, without any backend: it computes each
rank's gradients in turn and adds them in the order of the ranks. Where all ranks share memory, pycomm adds in
that order too, so that the losses are equal bit by bit.
"""

from __future__ import annotations

import torch
from common import Job, Step, options, run, train
from model import loss_of
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from pycomm import CollectiveKind, DType, ReduceOp
from pycomm.collectives.reference import evaluate


def setup(job: Job) -> Step:
    """Wrap the model: DDP averages gradients while the backward pass goes on."""
    model = DistributedDataParallel(job.model())
    optimizer = job.optimizer(model)

    def step(tokens: Tensor, targets: Tensor) -> Tensor:
        tokens, targets = tokens.chunk(job.size)[job.rank], targets.chunk(job.size)[job.rank]
        loss = loss_of(model(tokens), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss / job.size

    return step


def reference(job: Job, ranks: int) -> Step:
    """Train as ``ranks`` ranks would, one after the other."""
    model = job.model()
    optimizer = job.optimizer(model)
    parameters = list(model.parameters())

    def total(shares: list[Tensor]) -> Tensor:
        arrays = [share.detach().numpy() for share in shares]
        return torch.from_numpy(evaluate(CollectiveKind.ALLREDUCE, DType.FLOAT32, ReduceOp.SUM, arrays)[0])

    def step(tokens: Tensor, targets: Tensor) -> Tensor:
        losses, gradients = [], []
        for some_tokens, some_targets in zip(tokens.chunk(ranks), targets.chunk(ranks), strict=True):
            loss = loss_of(model(some_tokens), some_targets)
            gradients.append(parameters_to_vector(torch.autograd.grad(loss, parameters)) / ranks)
            losses.append(loss / ranks)
        optimizer.zero_grad()
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        vector_to_parameters(total(gradients), [parameter.grad for parameter in parameters])
        optimizer.step()
        return total(losses)

    return step


if __name__ == "__main__":
    parser = options("data parallelism with DistributedDataParallel")
    parser.add_argument(
        "--reference", type=int, metavar="RANKS", help="train as so many ranks, in one process"
    )
    arguments = parser.parse_args()
    if arguments.reference:
        arguments.backend = f"reference of {arguments.reference}"
        alone = Job(arguments, rank=0, size=1)
        run(alone, reference(alone, arguments.reference))
    else:
        train(setup, parser)
