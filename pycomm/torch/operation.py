"""Where a call of the process group goes: to the backend of its tensors' device, seen by the profiler."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor
from torch._C._autograd import _record_function_with_args_enter
from torch.autograd import _profiler_enabled

from pycomm.torch.register import BACKEND_NAME

if TYPE_CHECKING:
    from pycomm.torch.process_group import ProcessGroupPycomm

__all__ = ["operation"]


def operation(title: str, sends: int = 0) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a method an operation of the group: routed by its tensors' device, and shown to torch's profiler.

    Parameters
    ----------
    title
        What the profiler calls it, behind the backend's name; as torch's own backends do.
    sends
        Index of the argument with the tensors that the profiler is to see: those that the rank contributes.
    """

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        name = method.__name__

        @functools.wraps(method)
        def perform(self: ProcessGroupPycomm, *args: Any, **options: Any) -> Any:
            if self.others:
                other = self.others.get(_device_in(args))
                if other is not None:
                    return getattr(other, _OLD_NAMES.get(name, name))(*args, **options)
            if not _profiler_enabled():
                return method(self, *args, **options)
            tensors = _tensors_in(args[sends : sends + 1])
            span = _record_function_with_args_enter(f"{BACKEND_NAME}:{title}", *tensors)
            try:
                work = method(self, *args, **options)
            except BaseException:
                torch.ops.profiler._record_function_exit._RecordFunction(span)
                raise
            return self.shown(work, span)

        return perform

    return decorate


# What ``torch.distributed``'s own backends call some of the operations.
_OLD_NAMES: Final = {
    "all_gather_single": "_allgather_base",
    "reduce_scatter_single": "_reduce_scatter_base",
    "all_to_all_single": "alltoall_base",
    "all_gather_single_coalesced": "allgather_into_tensor_coalesced",
    "reduce_scatter_single_coalesced": "reduce_scatter_tensor_coalesced",
}


def _tensors_in(args: Sequence[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for arg in args:
        if isinstance(arg, Tensor):
            found.append(arg)
        elif isinstance(arg, (list, tuple)):
            found.extend(_tensors_in(arg))
    return found


def _device_in(args: Sequence[Any]) -> str:
    tensors = _tensors_in(args)
    if tensors:
        return str(tensors[0].device.type)
    device = getattr(args[0], "device", None) if args else None  # a barrier's options
    return "cpu" if device is None else str(device.type)
