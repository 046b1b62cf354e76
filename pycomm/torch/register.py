"""Tells torch of the backend. Kept light: torch runs it at the end of ``import torch``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch.distributed as dist

if TYPE_CHECKING:
    from pycomm.torch.process_group import ProcessGroupPycomm

__all__ = ["BACKEND_NAME", "register"]

BACKEND_NAME: Final = "pycomm"

# Device types whose tensors a group takes: torch's own, and the names that makers of other accelerators give
# theirs. Those that this torch does not know are never asked for.
DEVICES: Final = (
    "cpu", "cuda", "xpu", "hpu", "mtia", "mps", "npu", "mlu", "musa", "maca", "gcu", "sdaa", "privateuseone",
)  # fmt: skip


def register() -> None:
    """Register ``"pycomm"`` with ``torch.distributed``, if this torch has that. Twice is fine."""
    if not dist.is_available() or BACKEND_NAME.upper() in dist.Backend._plugins:
        return
    # Registering makes a backend the default of devices that had none. Which backend such a device gets when
    # nobody names one is for the device's maker to say, not for us.
    defaults = dict(dist.Backend.default_device_backend_map)
    dist.Backend.register_backend(BACKEND_NAME, _create, extended_api=True, devices=list(DEVICES))
    # torch 2.15 would attach its flight recorder, which knows no groups in Python; pycomm has its own.
    recorded_by_themselves: set[str] = getattr(dist.distributed_c10d, "_FR_SELF_RECORDING_BACKENDS", set())
    recorded_by_themselves.add(BACKEND_NAME)
    dist.Backend.default_device_backend_map.clear()
    dist.Backend.default_device_backend_map.update(defaults)


def _create(options: Any, backend_options: Any) -> ProcessGroupPycomm:
    """Make a process group; torch calls this on every member."""
    from pycomm.torch.groups import create  # deferred: programs that use another backend need none of it

    return create(options, backend_options)
