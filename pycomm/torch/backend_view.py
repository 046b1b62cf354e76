"""What torch sees where it expects a C++ backend behind a process group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from pycomm.torch.group_base import GroupBase

__all__ = ["BackendView"]


class BackendView:
    """What torch looks at where it expects a backend behind the group: names, abilities, the same operations.

    Parameters
    ----------
    group
        The group that it shows.
    """

    supports_splitting: Final = True
    supports_coalescing: Final = False
    supports_shrinking: Final = (
        False  # torch builds the smaller group from C++ parts; use pycomm.torch.shrink_group
    )
    supports_time_estimate: Final = False

    def __init__(self, group: GroupBase) -> None:
        self._group = group

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group, name)

    def eager_connect_single_device(self, device: torch.device | None) -> None:
        """Do nothing: the group is connected from the start."""

    def perform_nocolor_split(self, device: torch.device | None) -> None:
        """Do nothing: a rank outside a new group has no part in making it."""

    def comm_split_count(self) -> int:
        """Return how many groups have been split from this one."""
        return self._group.splits

    def supports_tensor_alloc(self, device: torch.device) -> bool:
        """Whether the group allocates tensors: no."""
        del device
        return False
