"""pycomm as a backend of ``torch.distributed``: ``init_process_group("pycomm")``.

Importing this module registers the backend. An installed pycomm is also found by torch itself, through the
entry point group ``torch.backends``, so that programs need no import; what moves bytes is loaded by the first
group.

>>> import torch.distributed as dist
>>> dist.init_process_group("pycomm")  # doctest: +SKIP
"""

from typing import TYPE_CHECKING

import torch  # noqa: F401 (first of all: at its end it loads our entry point, which needs all of register)

from pycomm.lazy import later
from pycomm.torch.register import BACKEND_NAME, register

if TYPE_CHECKING:
    from pycomm.torch.groups import monitored_barrier, shrink_group
    from pycomm.torch.options import Options
    from pycomm.torch.process_group import ProcessGroupPycomm

__all__ = [
    "BACKEND_NAME",
    "Options",
    "ProcessGroupPycomm",
    "monitored_barrier",
    "register",
    "shrink_group",
]

__getattr__, __dir__ = later(
    __name__,
    {
        "Options": "pycomm.torch.options",
        "ProcessGroupPycomm": "pycomm.torch.process_group",
        "monitored_barrier": "pycomm.torch.groups",
        "shrink_group": "pycomm.torch.groups",
    },
)


register()
