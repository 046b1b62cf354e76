"""Hugging Face accelerate over pycomm: see docs/clients/accelerate.md."""

from __future__ import annotations

import torch.distributed as dist
from accelerate import Accelerator
from common import Job, batches, options
from model import loss_of

arguments = options("accelerate").parse_args()
dist.init_process_group(arguments.backend)  # accelerate takes over a group that stands
accelerator = Accelerator(cpu=True)
job = Job(arguments, accelerator.process_index, accelerator.num_processes)
model = job.model()
model, optimizer = accelerator.prepare(model, job.optimizer(model))
accelerator.print(f"{type(model).__name__}, {accelerator.num_processes} processes, {dist.get_backend()}")
for number, (tokens, targets) in enumerate(batches(job)):
    loss = loss_of(model(tokens.chunk(job.size)[job.rank]), targets.chunk(job.size)[job.rank])
    accelerator.backward(loss)
    optimizer.step()
    optimizer.zero_grad()
    mean = accelerator.reduce(loss.detach(), reduction="mean")
    accelerator.print(f"step {number:4d}  loss {mean.item():.6f}")
accelerator.end_training()
