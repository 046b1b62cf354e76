"""pycomm as a backend of torchcomms: ``torchcomms.new_comm("pycomm", torch.device("cpu"), name="world")``.

torchcomms finds this module through the entry point group ``torchcomms.backends`` and loads it when the
backend is first asked for. It is an adapter and nothing more: every operation is the process group's. Written
against torchcomms' public source (meta-pytorch/torchcomms, August 2026: Python backends, ABI version 1.3);
pycomm does not depend on it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist
import torchcomms
from torch import Tensor

from pycomm.errors import Unsupported, UsageError
from pycomm.torch.groups import create_group
from pycomm.torch.options import seconds
from pycomm.torch.process_group import ProcessGroupPycomm
from pycomm.torch.register import BACKEND_NAME
from pycomm.torch.work import PycommWork

__all__ = ["PycommBackend"]


@dataclass(frozen=True, slots=True)
class _How:
    """A call's options, under the names that the process group reads."""

    asyncOp: bool
    reduceOp: Any = dist.ReduceOp.SUM
    rootRank: int = 0
    timeout: timedelta | None = None


class PycommBackend(torchcomms.TorchCommBackend):  # type: ignore[misc] # not installed where types are checked
    """One communicator of torchcomms."""

    def __init__(self) -> None:
        super().__init__()
        self._group: ProcessGroupPycomm | None = None
        self._name = ""

    @property
    def group(self) -> ProcessGroupPycomm:
        """The process group that does the work."""
        if self._group is None:
            raise UsageError("the communicator has not been initialised, or was finalised; make a new one")
        return self._group

    def init(self, device: Any, name: str, options: Any) -> None:
        """Join the ranks of the job; they meet at ``options.store``, or where the environment says."""
        del device  # tensors say themselves where they are
        rank, size = _from_environment("RANK"), _from_environment("WORLD_SIZE", "SIZE")
        store = options.store
        if store is None:
            address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            store = dist.TCPStore(address, port, size, is_master=rank == 0, timeout=options.timeout)
        store = dist.PrefixStore(f"pycomm/{name}/", store)
        self._group = create_group(store, rank, size, timeout_s=seconds(options.timeout), name=name)
        self._name = name

    def finalize(self) -> None:
        """Release everything."""
        group, self._group = self._group, None
        if group is not None:
            group.shutdown()

    def abort(self) -> None:
        """End every operation on every rank."""
        self.group.abort()

    def get_rank(self) -> int:
        """Return this process's number."""
        return self.group.communicator.rank

    def get_size(self) -> int:
        """Return how many ranks there are."""
        return self.group.communicator.size

    def get_backend_name(self) -> str:
        """Return the name of the backend."""
        return BACKEND_NAME

    def get_comm_name(self) -> str:
        """Return the name that torchcomms gave the communicator."""
        return self._name

    def set_timeout(self, timeout: timedelta) -> None:
        """Change the deadline of operations."""
        self.group.set_timeout(timeout)

    def split(self, ranks: Sequence[int], name: str, options: Any) -> PycommBackend | None:
        """Make a communicator of some ranks; ``None`` on the others."""
        timeout = getattr(options, "timeout", None)
        group = self.group.split_group(ranks, timeout, group_name=name)
        if group is None:
            return None
        child = PycommBackend()
        child._group, child._name = group, name
        return child

    def send(self, tensor: Tensor, dst: int, async_op: bool) -> PycommWork | None:
        """Send a tensor."""
        return _ended(self.group.send([tensor], dst), async_op)

    def recv(self, tensor: Tensor, src: int, async_op: bool) -> PycommWork | None:
        """Receive a tensor."""
        return _ended(self.group.recv([tensor], src), async_op)

    def broadcast(self, tensor: Tensor, root: int, async_op: bool) -> PycommWork | None:
        """Copy the root's tensor into everybody's."""
        return _ended(self.group.broadcast([tensor], _How(async_op, rootRank=root)), async_op)

    def all_reduce(self, tensor: Tensor, op: Any, async_op: bool) -> PycommWork | None:
        """Combine everybody's tensor into everybody's."""
        return _ended(self.group.allreduce([tensor], _How(async_op, _op(op))), async_op)

    def reduce(self, tensor: Tensor, root: int, op: Any, async_op: bool) -> PycommWork | None:
        """Combine everybody's tensor into the root's."""
        return _ended(self.group.reduce([tensor], _How(async_op, _op(op), root)), async_op)

    def all_gather(self, tensor_list: list[Tensor], tensor: Tensor, async_op: bool) -> PycommWork | None:
        """Collect everybody's tensor, of any shape each."""
        return _ended(self.group.allgather([tensor_list], [tensor], _How(async_op)), async_op)

    all_gather_v = all_gather

    def all_gather_single(self, output: Tensor, input: Tensor, async_op: bool) -> PycommWork | None:
        """Collect everybody's tensor into one."""
        return _ended(self.group.all_gather_single(output, input, _How(async_op)), async_op)

    def reduce_scatter(
        self, output: Tensor, input_list: list[Tensor], op: Any, async_op: bool
    ) -> PycommWork | None:
        """Combine everybody's list, of any shapes; each rank gets its entry."""
        return _ended(self.group.reduce_scatter([output], [input_list], _How(async_op, _op(op))), async_op)

    reduce_scatter_v = reduce_scatter

    def reduce_scatter_single(
        self, output: Tensor, input: Tensor, op: Any, async_op: bool
    ) -> PycommWork | None:
        """Combine everybody's tensor; each rank gets its block."""
        return _ended(self.group.reduce_scatter_single(output, input, _How(async_op, _op(op))), async_op)

    def all_to_all_single(self, output: Tensor, input: Tensor, async_op: bool) -> PycommWork | None:
        """Send block r to rank r."""
        return _ended(self.group.all_to_all_single(output, input, (), (), _How(async_op)), async_op)

    def all_to_all_v_single(
        self,
        output: Tensor,
        input: Tensor,
        output_split_sizes: Sequence[int],
        input_split_sizes: Sequence[int],
        async_op: bool,
    ) -> PycommWork | None:
        """Send blocks of as many rows as the split sizes say."""
        work = self.group.all_to_all_single(
            output, input, output_split_sizes, input_split_sizes, _How(async_op)
        )
        return _ended(work, async_op)

    def all_to_all(
        self, output_tensor_list: list[Tensor], input_tensor_list: list[Tensor], async_op: bool
    ) -> PycommWork | None:
        """Send tensor r to rank r; shapes may differ."""
        return _ended(self.group.alltoall(output_tensor_list, input_tensor_list, _How(async_op)), async_op)

    def barrier(self, async_op: bool) -> PycommWork | None:
        """Wait until every rank has come here."""
        return _ended(self.group.barrier(_How(async_op)), async_op)

    def scatter(
        self, output: Tensor, input_tensor_list: list[Tensor], root: int, async_op: bool
    ) -> PycommWork | None:
        """Hand each rank its tensor of the root's list."""
        how = _How(async_op, rootRank=root)
        return _ended(self.group.scatter([output], [input_tensor_list], how), async_op)

    def gather(
        self, output_tensor_list: list[Tensor], input: Tensor, root: int, async_op: bool
    ) -> PycommWork | None:
        """Collect everybody's tensor into the root's list."""
        how = _How(async_op, rootRank=root)
        return _ended(self.group.gather([output_tensor_list], [input], how), async_op)


def _ended(work: PycommWork, async_op: bool) -> PycommWork | None:
    """Return a work to wait for, or wait and return nothing, as torchcomms wants it."""
    if async_op:
        return work
    work.wait()
    return None


def _op(op: Any) -> Any:
    name = op.type.name
    if name == "PREMUL_SUM":
        raise Unsupported(
            "torchcomms does not tell a Python backend the factor of PREMUL_SUM; scale the tensor first"
        )
    return getattr(dist.ReduceOp, name)


def _from_environment(*names: str) -> int:
    for variable in (*(f"TORCHCOMM_{name}" for name in names), *names):
        if variable in os.environ:
            return int(os.environ[variable])
    raise UsageError(f"set TORCHCOMM_{names[-1]} (or {names[0]}, as torchrun does)")


torchcomms.register_backend(BACKEND_NAME, PycommBackend)
