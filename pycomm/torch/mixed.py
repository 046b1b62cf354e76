"""What torch is making when it asks for a group: which other backends it has, and its own device.

torch hands a group over to the first backend that is a whole ``ProcessGroup``, as ours is, and forgets the
others of ``"cpu:pycomm,cuda:nccl"``. So we look up what was asked for, take the backends that torch has
already made, and make those that it will not. torch tells a backend nothing of all this: it is read from the
frame that calls us.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import torch
import torch.distributed as dist

from pycomm.errors import Unsupported
from pycomm.torch.process_group import ProcessGroupPycomm
from pycomm.torch.register import BACKEND_NAME

__all__ = ["complete"]

_LOG = logging.getLogger("pycomm.torch")
_MAKER = "_new_process_group_helper"


def complete(group: ProcessGroupPycomm, asked: Any) -> ProcessGroupPycomm:
    """Give a group what torch forgets: the backends that serve its other devices, and its own device.

    Parameters
    ----------
    group
        The group that torch will get; changed and returned.
    asked
        Torch's description of it.
    """
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_name != _MAKER:
        frame = frame.f_back
    if frame.f_code.co_name != _MAKER:
        return group  # it is not torch that makes it
    config, made = frame.f_locals.get("backend_config"), frame.f_locals.get("pg")
    if config is None or made is None:
        _LOG.warning(
            "this version of torch does not show which backends a group has; pycomm serves all its devices"
        )
        return group
    for device, name in config.get_device_backend_map().items():
        if name != BACKEND_NAME:
            group.others[device] = _made(made, device) or _make(name, device, asked)
    bound = frame.f_locals.get("device_id")
    if bound is not None:
        group.bound_device_id = bound
    return group


def _made(group: Any, device: str) -> Any:
    try:
        return group._get_backend(torch.device(device))
    except RuntimeError:  # torch has not come to this device
        return None


def _make(name: str, device: str, asked: Any) -> Any:
    store = dist.PrefixStore(f"{device}/", asked.store.underlying_store)
    if name == dist.Backend.GLOO:
        return dist.ProcessGroupGloo(store, asked.group_rank, asked.group_size, timeout=asked.timeout)
    if name == dist.Backend.NCCL:
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = asked.timeout
        options.global_ranks_in_group = asked.global_ranks_in_group
        options.group_name = asked.group_id
        return dist.ProcessGroupNCCL(store, asked.group_rank, asked.group_size, options)
    plugin = dist.Backend._plugins.get(name.upper())
    if plugin is None:
        raise Unsupported(
            f"backend {name!r} for device {device!r} cannot be combined with pycomm; name it before pycomm, "
            f"e.g. '{device}:{name},cpu:pycomm'"
        )
    if not plugin.extended_api:
        return plugin.creator_fn(store, asked.group_rank, asked.group_size, asked.timeout)
    described = type(asked)()
    for field in ("group_rank", "group_size", "timeout", "group_id", "global_ranks_in_group"):
        setattr(described, field, getattr(asked, field))
    described.store = store
    return plugin.creator_fn(described, None)
