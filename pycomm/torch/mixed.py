"""Groups in which pycomm serves some devices and another backend serves others: ``"cpu:pycomm,cuda:nccl"``.

torch hands a group over to the first backend that is a whole ``ProcessGroup``, as ours is, and forgets the
others. So we look up what was asked for, take the backends that torch has already made, and make those that
it will not. torch tells a backend nothing about its neighbours: the request is read from the frame that calls
us.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import torch
import torch.distributed as dist

from pycomm.errors import Unsupported
from pycomm.torch.register import BACKEND_NAME

__all__ = ["other_backends"]

_LOG = logging.getLogger("pycomm.torch")
_MAKER = "_new_process_group_helper"


def other_backends(asked: Any) -> dict[str, Any]:
    """Return the backends that serve other devices of the group that torch is making, by type of device.

    Parameters
    ----------
    asked
        Torch's description of the group.
    """
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_name != _MAKER:
        frame = frame.f_back
    if frame.f_code.co_name != _MAKER:
        return {}  # the group is not being made by torch
    config, made = frame.f_locals.get("backend_config"), frame.f_locals.get("pg")
    if config is None or made is None:
        _LOG.warning(
            "this version of torch does not show which backends a group has; pycomm serves all its devices"
        )
        return {}
    wanted = config.get_device_backend_map()
    return {
        device: _made(made, device) or _make(name, device, asked)
        for device, name in wanted.items()
        if name != BACKEND_NAME
    }


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
