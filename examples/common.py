"""What the examples share: their options, the text, the loop and the report. They differ in one function.

That function, ``setup``, gets a :class:`Job` and returns a *step*: a function that trains on one batch and
returns this rank's share of the loss. The shares of all ranks add up to the mean loss of the batch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from model import Shape, Transformer
from torch import Tensor

__all__ = ["Job", "Step", "batches", "options", "report", "run", "train"]

Step = Callable[[Tensor, Tensor], Tensor]
_TEXT = Path(__file__).with_name("text.txt")
_WARM_UP = 2  # steps that the speed leaves out


def options(about: str) -> argparse.ArgumentParser:
    """Describe the options that every example takes."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--backend", default="pycomm", help="backend of torch.distributed")
    parser.add_argument("--steps", type=int, default=40, help="steps to train")
    parser.add_argument("--batch", type=int, default=16, help="sequences per step, on all ranks together")
    parser.add_argument("--rate", type=float, default=3e-3, help="learning rate")
    parser.add_argument("--seed", type=int, default=0, help="of the model and of the order of the text")
    parser.add_argument("--report", type=Path, help="file for losses and speed, as JSON")
    return parser


@dataclass(frozen=True, slots=True)
class Job:
    """What an example is told.

    Attributes
    ----------
    arguments
        Values of the options.
    rank, size
        This process among all.
    shape
        Sizes of the model.
    """

    arguments: argparse.Namespace
    rank: int
    size: int
    shape: Shape = field(default_factory=Shape)

    def model(self) -> Transformer:
        """Make the whole model, the same on every rank."""
        torch.manual_seed(self.arguments.seed)
        return Transformer(self.shape)

    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Make the optimizer that all examples use."""
        return torch.optim.AdamW(model.parameters(), lr=self.arguments.rate)


def batches(job: Job) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of the text, the same on every rank: characters and, one place later, what to predict."""
    text = torch.frombuffer(bytearray(_TEXT.read_bytes()), dtype=torch.uint8).long()
    order = torch.Generator().manual_seed(job.arguments.seed)
    length = job.shape.length
    for _ in range(job.arguments.steps):
        starts = torch.randint(len(text) - length, (job.arguments.batch,), generator=order)
        rows = torch.stack([text[start : start + length + 1] for start in starts])
        yield rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def train(setup: Callable[[Job], Step], parser: argparse.ArgumentParser) -> None:
    """Run an example under torchrun: join the job, train, report, leave."""
    arguments = parser.parse_args()
    dist.init_process_group(arguments.backend)
    job = Job(arguments, dist.get_rank(), dist.get_world_size())
    step = setup(job)

    def whole_step(tokens: Tensor, targets: Tensor) -> Tensor:
        loss = step(tokens, targets).detach()
        dist.all_reduce(loss)
        return loss

    run(job, whole_step)
    dist.destroy_process_group()


def run(job: Job, step: Step) -> None:
    """Train on every batch and report; ``step`` returns the mean loss of all ranks."""
    losses, seconds = [], []
    for tokens, targets in batches(job):
        start = time.perf_counter()
        losses.append(step(tokens, targets).item())
        seconds.append(time.perf_counter() - start)
    if job.rank == 0:
        report(job, losses, seconds)


def report(job: Job, losses: list[float], seconds: list[float]) -> None:
    """Print the loss curve and the speed, and write them to the file that was asked for."""
    every = max(1, len(losses) // 10)
    for number, loss in enumerate(losses):
        if number % every == 0 or number == len(losses) - 1:
            print(f"step {number:4d}  loss {loss:.6f}")
    tokens = job.arguments.batch * job.shape.length
    speed = tokens / statistics.median(seconds[_WARM_UP:] or seconds)
    name = Path(sys.argv[0]).stem
    print(f"{name}: {job.size} ranks, {job.arguments.backend}, {speed:.0f} tokens/s")
    if job.arguments.report is not None:
        job.arguments.report.write_text(
            json.dumps({"losses": losses, "tokens_per_s": speed, "ranks": job.size})
        )
