"""Mixture of experts: each rank has some of them; a character goes to the rank of the one it chose.

How many characters an expert gets is known only when they have chosen, so the ranks first tell each other the
counts and then exchange as many rows: ``all_to_all_single`` with uneven splits, forward and backward.

``torchrun --nproc-per-node 2 examples/moe.py --backend pycomm``
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from common import Job, Step, options, train
from model import Block, FeedForward, Shape, loss_of
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters


class Exchange(torch.autograd.Function):
    """Send ``send[r]`` rows to rank r and receive ``receive[r]`` from it; gradients travel the other way."""

    @staticmethod
    def forward(context: Any, rows: Tensor, send: list[int], receive: list[int]) -> Tensor:
        """Exchange rows."""
        context.splits = send, receive
        received = rows.new_empty(sum(receive), rows.size(1))
        dist.all_to_all_single(received, rows.contiguous(), receive, send)
        return received

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return each row's gradient to where the row came from."""
        send, receive = context.splits
        return Exchange.apply(gradient, receive, send), None, None


class Experts(nn.Module):
    """Stands in for a block's feed-forward network: each character is computed by the one expert it chose."""

    def __init__(self, shape: Shape, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(shape.width, experts, bias=False)
        everybody = [FeedForward(shape) for _ in range(experts)]
        self.here = experts // dist.get_world_size()
        first = dist.get_rank() * self.here
        self.experts = nn.ModuleList(everybody[first : first + self.here])

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, length, width) to the same shape."""
        rows = x.flatten(0, 1)
        weights, chosen = self.router(rows).softmax(-1).max(-1)
        order = chosen.argsort(stable=True)  # rows by expert, and thereby by rank
        counts = chosen.bincount(minlength=self.router.out_features)
        their_counts = torch.empty_like(counts)
        dist.all_to_all_single(their_counts, counts)
        their_counts = their_counts.view(-1, self.here)  # [rank, expert of mine]
        send, receive = counts.view(-1, self.here).sum(1).tolist(), their_counts.sum(1).tolist()

        arrived = Exchange.apply(rows[order], send, receive)
        mine = torch.arange(self.here).repeat(len(receive))
        by_expert = mine.repeat_interleave(their_counts.flatten()).argsort(stable=True)
        parts = arrived[by_expert].split(their_counts.sum(0).tolist())
        computed = torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True)])
        back = Exchange.apply(computed[by_expert.argsort()], receive, send)
        return (back[order.argsort()] * weights.unsqueeze(1)).view_as(x)


def setup(job: Job) -> Step:
    """Give every second block experts; they see all ranks' rows, so only the rest is to be averaged."""
    model = job.model()
    for number, block in model.blocks.items():
        if isinstance(block, Block) and int(number) % 2:
            block.feed_forward = Experts(job.shape, job.arguments.experts)
    optimizer = job.optimizer(model)
    shared = [p for name, p in model.named_parameters() if ".experts." not in name]

    def step(tokens: Tensor, targets: Tensor) -> Tensor:
        tokens, targets = tokens.chunk(job.size)[job.rank], targets.chunk(job.size)[job.rank]
        loss = loss_of(model(tokens), targets) / job.size
        optimizer.zero_grad()
        loss.backward()
        gradients = [p.grad for p in shared]
        flat = parameters_to_vector(gradients)
        dist.all_reduce(flat)
        vector_to_parameters(flat, gradients)
        optimizer.step()
        return loss

    return step


if __name__ == "__main__":
    parser = options("mixture of experts with all_to_all_single")
    parser.add_argument("--experts", type=int, default=8, help="experts of all ranks together")
    train(setup, parser)
