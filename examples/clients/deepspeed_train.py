"""DeepSpeed's ZeRO over pycomm: see docs/clients/deepspeed.md."""

from __future__ import annotations

import deepspeed
import torch.distributed as dist
from common import Job, batches, options
from model import loss_of

parser = options("DeepSpeed")
parser.add_argument("--stage", type=int, default=2, help="stage of ZeRO: 1, 2 or 3")
arguments = parser.parse_args()
# DeepSpeed would compile an all-reduce of its own for CPUs, which bypasses every backend but its own.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
deepspeed.init_distributed(dist_backend=arguments.backend)
job = Job(arguments, dist.get_rank(), dist.get_world_size())
settings = {
    "train_batch_size": arguments.batch,
    "train_micro_batch_size_per_gpu": arguments.batch // job.size,
    "optimizer": {
        "type": "AdamW",
        "params": {"lr": arguments.rate, "weight_decay": 0.01, "torch_adam": True},
    },
    "zero_optimization": {"stage": arguments.stage, "stage3_param_persistence_threshold": 0},
}
model = job.model()
engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=settings)
if job.rank == 0:
    print(f"ZeRO {engine.zero_optimization_stage()}, {job.size} processes, {dist.get_backend()}")
for number, (tokens, targets) in enumerate(batches(job)):
    loss = loss_of(engine(tokens.chunk(job.size)[job.rank]), targets.chunk(job.size)[job.rank])
    engine.backward(loss)
    engine.step()
    mean = loss.detach() / job.size
    dist.all_reduce(mean)
    if job.rank == 0:
        print(f"step {number:4d}  loss {mean.item():.6f}", flush=True)
dist.destroy_process_group()
