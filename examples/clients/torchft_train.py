"""torchft over pycomm: replicas come and go while the others train on. See docs/clients/torchft.md."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from common import Job, batches, options
from model import loss_of
from torchft import DistributedDataParallel, Manager, Optimizer
from torchft.process_group import ProcessGroupWrapper

from pycomm.torch.groups import create_group


class ProcessGroupPycomm(ProcessGroupWrapper):
    """A group over pycomm for every set of replicas that torchft agrees on."""

    def _create_pg(self, store: dist.Store, rank: int, world_size: int) -> dist.ProcessGroup:
        return create_group(store, rank, world_size, timeout_s=self._timeout.total_seconds(), name="replicas")

    def getBackendName(self) -> str:
        """Return the name that torchft shows."""
        return "torchft-pycomm"

    def shutdown(self) -> None:
        """Release the group."""
        self.abort(errored=False)


parser = options("torchft")
parser.add_argument("--die-at", type=int, help="step at which this replica ends without a word")
arguments = parser.parse_args()
replica, replicas = int(os.environ["REPLICA_GROUP_ID"]), int(os.environ["NUM_REPLICA_GROUPS"])
job = Job(arguments, replica, replicas)
model = job.model()
group = ProcessGroupPycomm(timeout=timedelta(seconds=10))


def load(state: dict[str, Any]) -> None:
    """Take over the state of a replica that is ahead."""
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])


manager = Manager(
    pg=group,
    min_replica_size=1,
    load_state_dict=load,
    state_dict=lambda: {"model": model.state_dict(), "optimizer": optimizer.state_dict()},
    replica_id=f"replica{replica}",
    timeout=timedelta(seconds=10),
)
parallel = DistributedDataParallel(manager, model)
optimizer = Optimizer(manager, job.optimizer(parallel))
data = list(batches(job))
while (number := manager.current_step()) < arguments.steps:
    if number == arguments.die_at:
        os._exit(1)
    tokens, targets = data[number]
    optimizer.zero_grad()  # the replicas agree on who takes part
    loss = loss_of(parallel(tokens.chunk(replicas)[replica]), targets.chunk(replicas)[replica])
    loss.backward()
    optimizer.step()  # only if all went well
    print(
        f"replica {replica}  step {number:4d}  loss of its part {loss.item():.6f}  "
        f"replicas {manager.num_participants()}  step counts {manager.current_step() > number}",
        flush=True,
    )
manager.shutdown(wait=False)
sys.stdout.flush()
os._exit(0)
