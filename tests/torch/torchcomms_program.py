"""One rank that uses pycomm through torchcomms; a stand-in plays torchcomms.

The stand-in has the interface that torchcomms gives backends written in Python. torchcomms itself cannot be
installed from a package index yet; when it can, the stand-in goes.
"""

from __future__ import annotations

import enum
import sys
from datetime import timedelta
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch


class RedOpType(enum.Enum):
    """Kinds of reduction."""

    SUM = enum.auto()
    MAX = enum.auto()
    PREMUL_SUM = enum.auto()


def stand_in() -> dict[str, Any]:
    """Install the stand-in; returns where it keeps the backends that register."""
    registered: dict[str, Any] = {}
    module = ModuleType("torchcomms")
    module.TorchCommBackend = type("TorchCommBackend", (), {})
    module.register_backend = registered.__setitem__
    sys.modules["torchcomms"] = module
    return registered


def main() -> None:
    registered = stand_in()
    import pycomm.torch.comms
    from pycomm.errors import Unsupported, UsageError

    total, largest = SimpleNamespace(type=RedOpType.SUM), SimpleNamespace(type=RedOpType.MAX)
    comm = registered["pycomm"]()
    comm.init(torch.device("cpu"), "world", SimpleNamespace(store=None, timeout=timedelta(seconds=60)))
    rank, size = comm.get_rank(), comm.get_size()
    assert (comm.get_backend_name(), comm.get_comm_name(), size) == ("pycomm", "world", 2)
    ones, mine = torch.ones(4), torch.full((3,), float(rank))

    assert comm.all_reduce(ones, total, False) is None
    assert ones.tolist() == [2.0] * 4
    work = comm.all_reduce(mine.clone(), largest, True)
    work.wait()
    assert work.result()[0].tolist() == [1.0] * 3
    buffer = mine.clone()
    comm.broadcast(buffer, 1, False)
    assert buffer.tolist() == [1.0] * 3
    comm.reduce(buffer, 0, total, False)
    assert buffer.tolist() == [2.0 if rank == 0 else 1.0] * 3
    gathered = [torch.empty(3) for _ in range(size)]
    comm.all_gather(gathered, mine, False)
    assert [part[0].item() for part in gathered] == [0.0, 1.0]
    uneven = [torch.empty(1), torch.empty(2)]
    comm.all_gather_v(uneven, torch.full((rank + 1,), float(rank)), False)
    assert torch.cat(uneven).tolist() == [0.0, 1.0, 1.0]
    whole = torch.empty(6)
    comm.all_gather_single(whole, mine, False)
    assert whole.tolist() == [0.0] * 3 + [1.0] * 3
    block = torch.empty(3)
    comm.reduce_scatter_single(block, whole, total, False)
    assert block.tolist() == [2.0 * rank] * 3
    comm.reduce_scatter_v(block[: rank + 1], [torch.ones(1), torch.ones(2)], total, False)
    assert block[: rank + 1].tolist() == [2.0] * (rank + 1)
    swapped = torch.empty(2)
    comm.all_to_all_single(swapped, torch.tensor([0.0, 1.0]) + 10 * rank, False)
    assert swapped.tolist() == [float(rank), 10.0 + rank]
    splits = [1, 2] if rank == 0 else [2, 1]
    received = torch.empty(3)
    comm.all_to_all_v_single(received, mine, splits, splits, False)
    assert sorted(received.tolist()) == sorted([0.0] * splits[0] + [1.0] * splits[1])
    parts = [torch.empty(1), torch.empty(1)]
    comm.all_to_all(parts, [mine[:1], mine[:1]], False)
    assert torch.cat(parts).tolist() == [0.0, 1.0]
    comm.scatter(block, [torch.zeros(3), torch.ones(3)] if rank == 0 else [], 0, False)
    assert block.tolist() == [float(rank)] * 3
    comm.gather(gathered if rank == 1 else [], mine, 1, False)
    comm.send(mine, 1, False) if rank == 0 else comm.recv(block, 0, False)
    assert rank == 0 or block.tolist() == [0.0] * 3
    comm.barrier(False)
    with pytest.raises(Unsupported, match="factor"):
        comm.all_reduce(ones, SimpleNamespace(type=RedOpType.PREMUL_SUM), False)
    child = comm.split([1], "child", SimpleNamespace(timeout=timedelta(seconds=60)))
    assert (child is not None) == (rank == 1)
    if child is not None:
        child.all_reduce(mine, total, False)
        assert mine.tolist() == [1.0] * 3
        child.finalize()
    comm.finalize()
    with pytest.raises(UsageError, match="make a new one"):
        comm.barrier(False)
    assert pycomm.torch.comms.PycommBackend is registered["pycomm"]
    sys.stdout.write(f"rank {rank}: ok\n")


if __name__ == "__main__":
    main()
