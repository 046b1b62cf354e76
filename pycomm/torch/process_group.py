"""The process group: torch's collectives in terms of a communicator's.

A Python subclass of ``torch.distributed.ProcessGroup``, so that one wheel serves every version of torch
(decision 6 in ``docs/decisions``). torch calls its methods from Python and, through the base class, from C++:
DDP's reducer, functional collectives, code compiled by ``torch.compile``. Where torch has renamed a method
both names are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from pycomm.backends.base import Work as CoreWork
from pycomm.communicator import ANY
from pycomm.errors import UsageError
from pycomm.torch.group_base import GroupBase
from pycomm.torch.operation import operation
from pycomm.torch.options import Options, is_async, listed, only, op_of, root_of, seconds
from pycomm.torch.tensors import (
    DTYPES,
    Memory,
    Packed,
    copied_to,
    in_rows,
    is_plain,
    memory_of,
    packed,
    sorted_by_size,
)
from pycomm.torch.work import DONE, PycommWork, complete_alone
from pycomm.types import ReduceOp

__all__ = ["ProcessGroupPycomm"]

_ALLREDUCE, _ALLGATHER, _REDUCE_SCATTER, _ALLTOALL, _BROADCAST = (int(kind) for kind in range(5))
_SUM: Final = int(ReduceOp.SUM)


class ProcessGroupPycomm(GroupBase):
    """A process group of torch whose bytes are moved by pycomm.

    Made by ``init_process_group("pycomm")``, ``new_group(backend="pycomm")`` and
    :func:`pycomm.torch.groups.create_group`. Operations raise pycomm's exceptions, which are
    ``RuntimeError``: they name the ranks at fault. A blocking call has ended when it returns; the others
    return a :class:`PycommWork`.

    Parameters
    ----------
    comm
        The communicator; the group closes it.
    options
        Settings.
    store
        Torch's store, below this group's prefix.

    Attributes
    ----------
    communicator : Communicator
        What moves the bytes.
    options : Options
        Settings.
    others : dict of str to torch.distributed.Backend
        Backends that serve other devices of this group, as in ``"cpu:pycomm,cuda:nccl"``.
    """

    # --------------------------------------------------------------------------------------------------------
    # collectives

    @operation("all_reduce")
    def allreduce(self, tensors: Any, opts: Any = None, timeout: timedelta | None = None) -> dist.Work:
        """Combine everybody's tensor into everybody's tensor."""
        tensor = only(tensors)
        op, factor = op_of(opts)
        how = self._how(opts, timeout)
        plain = self._plain(_ALLREDUCE, tensor, tensor, how, op)
        if plain is not None:
            return plain
        memory = memory_of(tensor, op, writes=True)
        work = self.communicator.allreduce(memory.array, op=op, factor=factor, dtype=memory.dtype, **how)
        return self._work([work], [tensor], memory)

    @operation("all_reduce")
    def allreduce_coalesced(self, tensors: list[Tensor], opts: Any = None) -> dist.Work:
        """Combine each of several tensors; small ones travel together."""
        op, factor = op_of(opts)
        small, large = sorted_by_size(tensors, self.options.fuse_below)
        calls: list[Memory | Packed] = [memory_of(tensors[i], op, writes=True) for i in large]
        calls += [packed([tensors[i] for i in some], op, writes=True) for some in small]
        how = self._how(opts)
        works = [
            self.communicator.allreduce(call.array, op=op, factor=factor, dtype=call.dtype, **how)
            for call in calls
        ]
        return self._work(works, list(tensors), *calls)

    @operation("broadcast")
    def broadcast(self, tensors: Any, opts: Any = 0, timeout: timedelta | None = None) -> dist.Work:
        """Copy the root's tensor into everybody's."""
        tensor, root = only(tensors), root_of(opts)
        how = self._how(opts, timeout)
        plain = self._plain(_BROADCAST, tensor, tensor, how, root=root)
        if plain is not None:
            return plain
        memory = memory_of(tensor, writes=root != self.communicator.rank)
        work = self.communicator.broadcast(memory.array, root, dtype=memory.dtype, **how)
        return self._work([work], [tensor], memory)

    @operation("reduce")
    def reduce(
        self, tensors: Any, opts: Any = 0, op: Any = None, timeout: timedelta | None = None
    ) -> dist.Work:
        """Combine everybody's tensor into the root's."""
        tensor, root = only(tensors), root_of(opts)
        reduce_op, factor = op_of(opts if op is None else op)
        memory = memory_of(tensor, reduce_op, writes=root == self.communicator.rank)
        work = self.communicator.reduce(
            memory.array, None, reduce_op, root, factor=factor, dtype=memory.dtype, **self._how(opts, timeout)
        )
        return self._work([work], [tensor], memory)

    @operation("all_gather", sends=1)
    def allgather(
        self, output_tensors: Any, input_tensors: Any, opts: Any = None, timeout: timedelta | None = None
    ) -> dist.Work:
        """Collect everybody's tensor, of any shape each, into everybody's list."""
        return self._allgather(listed(output_tensors), only(input_tensors), self._how(opts, timeout))

    @operation("_all_gather_base", sends=1)
    def all_gather_single(
        self, output: Tensor, input: Tensor, opts: Any = None, timeout: timedelta | None = None
    ) -> dist.Work:
        """Collect everybody's tensor into one tensor on everybody."""
        how = self._how(opts, timeout)
        plain = self._plain(_ALLGATHER, input, output, how)
        if plain is not None:
            return plain
        send, recv = memory_of(input), memory_of(output, writes=True, reads=False)
        work = self.communicator.allgather(send.array, recv.array, dtype=send.dtype, **how)
        return self._work([work], [output], send, recv)

    @operation("all_gather", sends=1)
    def all_gather_single_coalesced(
        self, outputs: list[Tensor], inputs: list[Tensor], opts: Any = None
    ) -> dist.Work:
        """Do several of :meth:`all_gather_single`; small ones travel together."""
        comm, how = self.communicator, self._how(opts)
        small, large = sorted_by_size(inputs, self.options.fuse_below)
        works: list[CoreWork] = []
        memories: list[Memory | Packed] = []
        for i in large:
            send, recv = memory_of(inputs[i]), memory_of(outputs[i], writes=True, reads=False)
            works.append(comm.allgather(send.array, recv.array, dtype=send.dtype, **how))
            memories += [send, recv]
        for some in small:
            fused = packed([inputs[i] for i in some])
            gathered = np.empty((comm.size, fused.array.size), fused.array.dtype)
            works.append(comm.allgather(fused.array, gathered, dtype=fused.dtype, **how))
            columns = np.split(gathered, np.cumsum(fused.counts)[:-1], axis=1)
            memories.append(fused)
            for i, column in zip(some, columns, strict=True):
                memories.append(copied_to(memory_of(outputs[i], writes=True, reads=False), column))
        return self._work(works, list(outputs), *memories)

    @operation("all_gather", sends=1)
    def allgather_coalesced(
        self, output_lists: list[list[Tensor]], input_list: list[Tensor], opts: Any = None
    ) -> dist.Work:
        """Collect everybody's list of tensors: ``output_lists[rank][i]`` is rank's ``input_list[i]``."""
        works = [
            self._allgather([outputs[i] for outputs in output_lists], tensor, self._how(opts))
            for i, tensor in enumerate(input_list)
        ]
        return PycommWork.of(works, self._completer.watch)

    @operation("gather", sends=1)
    def gather(
        self, output_tensors: Any, input_tensors: Any, opts: Any = 0, timeout: timedelta | None = None
    ) -> dist.Work:
        """Collect everybody's tensor into the root's list."""
        tensor, root = only(input_tensors), root_of(opts)
        outputs, send = listed(output_tensors), memory_of(tensor)
        how = self._how(opts, timeout)
        if root != self.communicator.rank:
            return self._work(
                [self.communicator.gather(send.array, None, root, dtype=send.dtype, **how)], [], send
            )
        recv = self._per_rank(outputs, "output", writes=True, reads=False)
        work = self.communicator.gather(send.array, recv.array, root, dtype=send.dtype, **how)
        return self._work([work], outputs, send, recv)

    @operation("scatter", sends=1)
    def scatter(
        self, output_tensors: Any, input_tensors: Any, opts: Any = 0, timeout: timedelta | None = None
    ) -> dist.Work:
        """Hand each rank its tensor of the root's list."""
        tensor, root = only(output_tensors), root_of(opts)
        recv = memory_of(tensor, writes=True, reads=False)
        how = self._how(opts, timeout)
        if root != self.communicator.rank:
            work = self.communicator.scatter(None, recv.array, root, dtype=recv.dtype, **how)
            return self._work([work], [tensor], recv)
        send = self._per_rank(listed(input_tensors), "input")
        work = self.communicator.scatter(send.array, recv.array, root, dtype=recv.dtype, **how)
        return self._work([work], [tensor], send, recv)

    @operation("reduce_scatter", sends=1)
    def reduce_scatter(
        self,
        output_tensors: Any,
        input_tensors: Any,
        opts: Any = None,
        timeout: timedelta | None = None,
    ) -> dist.Work:
        """Combine everybody's list, whose tensors may differ in shape; each rank gets its own entry."""
        tensor, inputs = only(output_tensors), listed(input_tensors)
        op, factor = op_of(opts)
        send, recv = self._per_rank(inputs, "input", op), memory_of(tensor, op, writes=True, reads=False)
        how = {"factor": factor, "dtype": send.dtype, **self._how(opts, timeout)}
        comm = self.communicator
        if len(set(send.counts)) == 1:
            work = comm.reduce_scatter(send.array, recv.array, op, **how)
        else:
            work = comm.reduce_scatterv(send.array, recv.array, send.counts, op, **how)
        return self._work([work], [tensor], send, recv)

    @operation("_reduce_scatter_base", sends=1)
    def reduce_scatter_single(
        self, output: Tensor, input: Tensor, opts: Any = None, timeout: timedelta | None = None
    ) -> dist.Work:
        """Combine everybody's tensor; rank r gets block r of it."""
        op, factor = op_of(opts)
        how = self._how(opts, timeout)
        plain = self._plain(_REDUCE_SCATTER, input, output, how, op)
        if plain is not None:
            return plain
        send, recv = memory_of(input, op), memory_of(output, op, writes=True, reads=False)
        work = self.communicator.reduce_scatter(
            send.array, recv.array, op, factor=factor, dtype=send.dtype, **how
        )
        return self._work([work], [output], send, recv)

    @operation("reduce_scatter", sends=1)
    def reduce_scatter_single_coalesced(
        self, outputs: list[Tensor], inputs: list[Tensor], opts: Any = None
    ) -> dist.Work:
        """Do several of :meth:`reduce_scatter_single`; small ones travel together."""
        comm, (op, factor) = self.communicator, op_of(opts)
        how = {"factor": factor, **self._how(opts)}
        small, large = sorted_by_size(inputs, self.options.fuse_below)
        works, memories = [], []
        for i in large:
            send, recv = memory_of(inputs[i], op), memory_of(outputs[i], op, writes=True, reads=False)
            works.append(comm.reduce_scatter(send.array, recv.array, op, dtype=send.dtype, **how))
            memories += [send, recv]
        for some in small:
            blocks = [memory_of(inputs[i], op) for i in some]
            rows = np.concatenate([block.array.reshape(comm.size, -1) for block in blocks], axis=1)
            fused = np.empty(rows.shape[1], rows.dtype)
            works.append(comm.reduce_scatter(rows, fused, op, dtype=blocks[0].dtype, **how))
            parts = np.split(fused, np.cumsum([block.array.size // comm.size for block in blocks])[:-1])
            for i, part in zip(some, parts, strict=True):
                memories.append(copied_to(memory_of(outputs[i], op, writes=True, reads=False), part))
        return self._work(works, list(outputs), *memories)

    @operation("all_to_all", sends=1)
    def all_to_all_single(
        self,
        output: Tensor,
        input: Tensor,
        output_split_sizes: Sequence[int] = (),
        input_split_sizes: Sequence[int] = (),
        opts: Any = None,
        timeout: timedelta | None = None,
    ) -> dist.Work:
        """Send block r of ``input`` to rank r; blocks are equal, or as many rows as the split sizes say."""
        comm = self.communicator
        if output_split_sizes or input_split_sizes:
            send = in_rows(memory_of(input), input, input_split_sizes, comm.size, "input")
            recv = in_rows(
                memory_of(output, writes=True, reads=False), output, output_split_sizes, comm.size, "output"
            )
            return self._exchange(send, recv, [output], opts, timeout)
        for tensor, role in ((input, "input"), (output, "output")):
            if tensor.dim() and tensor.size(0) % comm.size:
                raise UsageError(
                    f"all_to_all_single: {tensor.size(0)} rows of {role} cannot be divided equally among "
                    f"{comm.size} ranks; pass split sizes"
                )
        how = self._how(opts, timeout)
        plain = self._plain(_ALLTOALL, input, output, how)
        if plain is not None:
            return plain
        sent, received = memory_of(input), memory_of(output, writes=True, reads=False)
        work = comm.alltoall(sent.array, received.array, dtype=sent.dtype, **how)
        return self._work([work], [output], sent, received)

    @operation("all_to_all", sends=1)
    def alltoall(
        self,
        output_tensors: list[Tensor],
        input_tensors: list[Tensor],
        opts: Any = None,
        timeout: timedelta | None = None,
    ) -> dist.Work:
        """Send tensor r of the list to rank r; shapes may differ."""
        send = self._per_rank(input_tensors, "input")
        recv = self._per_rank(output_tensors, "output", writes=True, reads=False)
        return self._exchange(send, recv, list(output_tensors), opts, timeout)

    @operation("barrier")
    def barrier(self, opts: Any = None, timeout: timedelta | None = None) -> dist.Work:
        """Wait until every rank has come here."""
        return self._work([self.communicator.barrier(**self._how(opts, timeout))], [])

    # The names of other versions of torch.
    _allgather_base = all_gather_single
    allgather_into_tensor_coalesced = all_gather_single_coalesced
    _reduce_scatter_base = reduce_scatter_single
    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced
    alltoall_base = all_to_all_single

    def monitored_barrier(self, timeout: timedelta | None = None, wait_all_ranks: bool = False) -> None:
        """Wait until every rank has come here, or say which did not. See :mod:`pycomm.torch.groups`."""
        from pycomm.torch.groups import monitored_barrier  # deferred: it imports this module

        monitored_barrier(self, timeout, wait_all_ranks)

    # --------------------------------------------------------------------------------------------------------
    # messages

    @operation("send")
    def send(self, tensors: Any, dst: int, tag: int = 0) -> dist.Work:
        """Send a tensor to one rank."""
        memory = memory_of(only(tensors))
        work = self.communicator.send(
            memory.array, dst, tag, dtype=memory.dtype, async_op=True, timeout_s=self._timeout_s
        )
        return self._message(work, [], memory)

    @operation("recv")
    def recv(self, tensors: Any, src: int, tag: int = 0) -> dist.Work:
        """Receive a tensor from one rank."""
        return self._receive(only(tensors), src, tag)

    @operation("recvAnySource")
    def recv_anysource(self, tensors: Any, tag: int = 0) -> dist.Work:
        """Receive a tensor from whoever sends first; the work's ``source_rank`` says who it was."""
        return self._receive(only(tensors), ANY, tag)

    def _receive(self, tensor: Tensor, src: int, tag: int) -> dist.Work:
        memory = memory_of(tensor, writes=True, reads=False)
        work = self.communicator.recv(
            memory.array, src, tag, dtype=memory.dtype, async_op=True, timeout_s=self._timeout_s
        )
        return self._message(work, [tensor], memory)

    # --------------------------------------------------------------------------------------------------------
    # several operations as one

    def _start_coalescing(self, device: torch.device) -> None:
        """Begin to collect operations."""
        del device
        self._coalescing = []

    def _end_coalescing(self, device: torch.device) -> dist.Work:
        """Return the operations made since :meth:`_start_coalescing` as one work."""
        del device
        collected, self._coalescing = self._coalescing or [], None
        return PycommWork.of(collected, self._completer.watch)

    # --------------------------------------------------------------------------------------------------------
    # the group itself

    def shown(self, work: PycommWork, span: Any) -> PycommWork:
        """Let torch's profiler see the operation until it ends."""
        if work is DONE:
            work = PycommWork((), [], watch=self._completer.watch)
        work.show(span)
        return work

    def split_group(
        self,
        new_ranks: Sequence[int],
        timeout: timedelta | None = None,
        opts: Any = None,
        group_name: str | None = None,
        group_desc: str | None = None,
        device_types: Any = None,
    ) -> ProcessGroupPycomm | None:
        """Make a group of some of this group's ranks; every rank of ``new_ranks`` calls this.

        Other ranks may call it too, and get ``None``.
        """
        del device_types
        ranks = sorted(int(rank) for rank in new_ranks)
        if self.communicator.rank not in ranks:
            return None
        from pycomm.torch.groups import subgroup  # deferred: it imports this module

        self.splits += 1
        options = opts if isinstance(opts, Options) else self.options
        name = group_name or f"{self._group_name}:split:{','.join(map(str, ranks))}"
        group = subgroup(self, ranks, name, seconds(timeout), options)
        group._group_name, group._group_desc = name, group_desc or f"{self._group_desc}:split"
        return group

    # --------------------------------------------------------------------------------------------------------
    # internals

    def _plain(
        self, kind: int, send: Tensor, recv: Tensor, how: dict[str, Any], op: int = _SUM, root: int = -1
    ) -> PycommWork | None:
        """Perform or start an operation on plain memory; ``None`` when it is not that simple."""
        dtype = DTYPES.get(send.dtype)
        if (
            dtype is None
            or recv.dtype is not send.dtype
            or not (is_plain(send) and (recv is send or is_plain(recv)))
        ):
            return None
        comm, sent, received = self.communicator, send.data_ptr(), recv.data_ptr()
        call = (kind, dtype, sent, send.numel(), received, recv.numel(), op, root, how["timeout_s"])
        if how["async_op"] and comm.size > 1:
            part = comm.launch_at((send, recv), *call)
            return None if part is None else self._work([part], [recv])
        direct = comm.direct_at
        if direct is None or not direct(*call):
            return None
        if how["async_op"]:
            return self._work((), [recv])
        self._sequence += 1
        return DONE

    def _how(self, opts: Any, timeout: timedelta | None = None) -> dict[str, Any]:
        """Return the keywords that every collective of the communicator takes."""
        timeout_s = seconds(getattr(opts, "timeout", timeout))
        return {
            "async_op": is_async(opts) or self._coalescing is not None,
            "timeout_s": self._timeout_s if timeout_s is None else timeout_s,
        }

    def _work(
        self, works: Sequence[CoreWork], outputs: list[Tensor], *memories: Memory | Packed
    ) -> PycommWork:
        """Wrap a collective of one or several operations; one that has ended is finished at once."""
        self._sequence += 1
        finishes = [memory.finish for memory in memories if memory.finish is not None]
        work = PycommWork(works, outputs, finishes, memories, self._completer.watch)
        if self._coalescing is not None:
            self._coalescing.append(work)
        return work

    def _message(self, part: CoreWork, outputs: list[Tensor], memory: Memory) -> PycommWork:
        work = PycommWork([part], outputs, [memory.finish] if memory.finish else [], memory, complete_alone)
        if self._coalescing is not None:
            self._coalescing.append(work)
        return work

    def _allgather(self, outputs: list[Tensor], tensor: Tensor, how: dict[str, Any]) -> PycommWork:
        """Collect tensors of any shape each."""
        send, recv = memory_of(tensor), self._per_rank(outputs, "output", writes=True, reads=False)
        if len(set(recv.counts)) == 1:
            work = self.communicator.allgather(send.array, recv.array, dtype=send.dtype, **how)
        else:
            work = self.communicator.allgatherv(send.array, recv.array, recv.counts, dtype=send.dtype, **how)
        return self._work([work], outputs, send, recv)

    def _per_rank(
        self,
        tensors: Sequence[Tensor],
        role: str,
        op: ReduceOp | None = None,
        *,
        writes: bool = False,
        reads: bool = True,
    ) -> Packed:
        """View a list that has one tensor for each rank as one array."""
        if len(tensors) != self.communicator.size:
            raise UsageError(
                f"the {role} list has {len(tensors)} tensors; it must have one for each of the group's "
                f"{self.communicator.size} ranks"
            )
        return packed(tensors, op, writes=writes, reads=reads)

    def _exchange(
        self, send: Packed, recv: Packed, outputs: list[Tensor], opts: Any, timeout: timedelta | None
    ) -> PycommWork:
        """Perform an all-to-all of blocks of any size."""
        work = self.communicator.alltoallv(
            send.array, send.counts, recv.array, recv.counts, dtype=send.dtype, **self._how(opts, timeout)
        )
        return self._work([work], outputs, send, recv)
