"""What torch asks a process group besides its operations: names, devices, deadlines, its end."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist

from pycomm.communicator import Communicator
from pycomm.errors import UsageError
from pycomm.torch.backend_view import BackendView
from pycomm.torch.options import Options, seconds
from pycomm.torch.register import BACKEND_NAME
from pycomm.torch.work import Completer, PycommWork

__all__ = ["GroupBase"]

_GRACE_S: Final = 5.0


class GroupBase(dist.ProcessGroup):  # type: ignore[misc] # torch has no types for it
    """A process group without its operations; :class:`~pycomm.torch.ProcessGroupPycomm` adds them."""

    def __init__(self, comm: Communicator, options: Options, store: Any) -> None:
        super().__init__(comm.rank, comm.size)
        self.communicator, self.options = comm, options
        self.others: dict[str, Any] = {}
        self._store = store
        self._timeout_s: float | None = None
        self._sequence = 0
        self._completer = Completer(comm.name)
        self._coalescing: list[PycommWork] | None = None
        self._group_name, self._group_desc = comm.name, "undefined"
        self._barriers = 0
        self.splits = 0

    def getBackendName(self) -> str:
        """Name of the backend."""
        return BACKEND_NAME

    def name(self) -> str:
        """Name of the backend."""
        return BACKEND_NAME

    def getGroupName(self) -> str:
        """Name that torch gave the group."""
        return self._group_name

    def setGroupName(self, name: str) -> None:
        """Take the name that torch gives the group."""
        self._group_name = name

    def getGroupDesc(self) -> str:
        """Describe the group, in the words of whoever made it."""
        return self._group_desc

    def setGroupDesc(self, description: str) -> None:
        """Take the description."""
        self._group_desc = description

    _set_group_name, _set_group_desc = setGroupName, setGroupDesc
    group_name = property(getGroupName, setGroupName)
    pg_name = group_name
    group_desc = property(getGroupDesc, setGroupDesc)

    @property
    def _device_types(self) -> list[torch.device]:
        """Devices whose tensors the group takes: the host's and the accelerator's that is here."""
        types = {"cpu": None, **dict.fromkeys(self.others)}
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        if accelerator is not None:
            types[accelerator.type] = None
        return [torch.device(kind) for kind in types]

    def _get_backend(self, device: torch.device | str) -> Any:
        """Return what serves a device: another backend in a mixed group, else a view of this group."""
        return self.others.get(torch.device(device).type) or BackendView(self)

    def _get_sequence_number_for_group(self) -> int:
        """Return how many collectives this rank has started."""
        return self._sequence

    def _set_sequence_number_for_group(self) -> None:
        """Do nothing: pycomm's sequence numbers begin at the same value everywhere."""

    def get_group_store(self) -> Any:
        """Return torch's store, below this group's prefix."""
        return self._store

    def set_timeout(self, timeout: timedelta) -> None:
        """Change the deadline of operations that name none."""
        given = seconds(timeout)
        if given is None:
            raise UsageError(f"timeout={timeout} is not a positive span of time")
        self._timeout_s = given
        for other in self.others.values():
            other._set_default_timeout(timeout)

    _set_default_timeout = set_timeout

    def next_barrier(self) -> int:
        """Return the number of the next monitored barrier."""
        self._barriers += 1
        return self._barriers

    def abort(self) -> None:
        """End every operation of the group on every rank, then release it."""
        self.communicator.abort("torch.distributed aborted the process group")
        self._release()
        for other in self.others.values():
            other.abort()

    def shutdown(self) -> None:
        """Release the group. Operations under way get a moment to end; then they are aborted."""
        deadline = time.monotonic() + _GRACE_S
        while self.communicator.is_busy and time.monotonic() < deadline:
            time.sleep(0.001)
        if self.communicator.is_busy:
            self.communicator.abort("the process group was destroyed with operations under way")
        self._release()
        for other in self.others.values():
            other.shutdown()

    def _release(self) -> None:
        self.communicator.close()
        self._completer.close()
