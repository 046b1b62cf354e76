"""One rank whose tensors lie on a device that this program makes up; its memory is not the host's.

torch lets Python play a device (``PrivateUse1``). This one keeps the elements of each storage in an array of
its own, which only the copies below reach, so that pycomm has to stage: it could read nothing from the
tensor's own address.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import pycomm.torch  # registers the backend where no entry point does

DEVICE = "slate"
HELD: dict[int, Any] = {}


def held(tensor: torch.Tensor) -> Any:
    """Return the device's elements of a tensor."""
    return HELD[tensor.untyped_storage()._cdata]


def make(size: Any, dtype: torch.dtype) -> torch.Tensor:
    """Allocate on the device, which has contiguous tensors only."""
    tensor = torch._C._acc.create_empty_tensor(size, dtype)
    HELD[tensor.untyped_storage()._cdata] = torch.zeros(*size, dtype=dtype).numpy()
    return tensor


@torch.library.impl("aten::empty.memory_format", "privateuseone")
def empty(size: Any, dtype: Any = None, **_: Any) -> torch.Tensor:
    """Allocate."""
    return make(size, dtype or torch.float32)


@torch.library.impl("aten::empty_strided", "privateuseone")
def empty_strided(size: Any, stride: Any, dtype: Any = None, **_: Any) -> torch.Tensor:
    """Allocate."""
    del stride
    return make(size, dtype or torch.float32)


@torch.library.impl("aten::_copy_from", "privateuseone")
def copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """Copy to, from or on the device."""
    del non_blocking
    values = held(source) if source.device.type == DEVICE else source.numpy()
    if target.device.type == DEVICE:
        held(target)[...] = values
    else:
        target.copy_(torch.from_numpy(np.array(values)))
    return target


def main() -> None:
    _setup_privateuseone_for_python_backend(DEVICE)
    dist.init_process_group(pycomm.torch.BACKEND_NAME, device_id=torch.device(DEVICE, 0))
    rank, size = dist.get_rank(), dist.get_world_size()
    mine = torch.arange(6.0) + 10 * rank

    on_device = mine.to(DEVICE)
    dist.all_reduce(on_device)
    assert on_device.cpu().tolist() == (2 * torch.arange(6.0) + 10).tolist()
    work = dist.all_reduce(on_device, op=dist.ReduceOp.MAX, async_op=True)
    doubled = work.get_future().then(lambda future: future.value()[0].cpu() * 2)
    assert doubled.wait().tolist() == (4 * torch.arange(6.0) + 20).tolist()

    parts = [torch.zeros(6).to(DEVICE) for _ in range(size)]
    dist.all_gather(parts, mine.to(DEVICE))
    assert [part.cpu()[0].item() for part in parts] == [0.0, 10.0]
    if rank == 0:
        dist.send(mine.to(DEVICE), 1)
    else:
        received = torch.zeros(6).to(DEVICE)
        dist.recv(received, 0)
        assert received.cpu().tolist() == torch.arange(6.0).tolist()
    objects: list[Any] = [None] * size
    dist.all_gather_object(objects, {"rank": rank})
    assert objects == [{"rank": 0}, {"rank": 1}]
    part = dist.split_group(split_ranks=[[1], [0]])
    alone = mine.to(DEVICE)
    dist.all_reduce(alone, group=part)
    assert (part.size(), dist.get_backend(part)) == (1, "pycomm")
    assert alone.cpu().tolist() == mine.tolist()
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.write(f"rank {os.environ['RANK']}: ok\n")


if __name__ == "__main__":
    main()
