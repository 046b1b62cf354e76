"""What a communicator says of the network between its ranks, and of how it chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pycomm.agreement import Agreement
from pycomm.backends.base import Call
from pycomm.buffers import as_dtype
from pycomm.calls import as_op, check_timeout
from pycomm.collectives.spec import block_count, equal_form
from pycomm.group_network import GroupNetwork, Place, Placed
from pycomm.selection import Selector
from pycomm.types import CollectiveKind, ReduceOp

if TYPE_CHECKING:
    from pycomm.tuner import Explanation

__all__ = ["NetworkCalls"]


class NetworkCalls:
    """Mixed into the communicator."""

    size: int
    _agreement: Agreement
    _network: GroupNetwork
    _selector: Selector

    def network(self, timeout_s: float | None = None) -> Placed | None:
        """Return the network between the ranks, and the vertex of each rank. Collective when first needed.

        Parameters
        ----------
        timeout_s
            Deadline; this communicator's when ``None``.

        Returns
        -------
        Placed or None
            As ``PYCOMM_TOPOLOGY`` asks for; ``None`` when all ranks share a host and it names no topology.
        """
        return self._network.find(check_timeout(timeout_s))

    def hosts(self, timeout_s: float | None = None) -> tuple[int, ...]:
        """Return the host number of each rank; ``()`` when all share one. Collective when first needed.

        Parameters
        ----------
        timeout_s
            Deadline; this communicator's when ``None``.
        """
        return self._agreement.hosts(check_timeout(timeout_s))

    def places(self, timeout_s: float | None = None) -> list[Place]:
        """Return what each rank tells of its host and interface. Collective when first needed.

        Parameters
        ----------
        timeout_s
            Deadline; this communicator's when ``None``.
        """
        return self._network.places(check_timeout(timeout_s))

    def adopt_network(self, placed: Placed) -> None:
        """Plan on this network from now on. Collective: all ranks give the same, e.g. what they measured."""
        self._network.adopt(placed)
        self._selector.forget()

    def explain(
        self,
        kind: CollectiveKind | str,
        nbytes: int,
        *,
        root: int = 0,
        dtype: Any = "float32",
        op: ReduceOp | str = "sum",
    ) -> Explanation:
        """Say which algorithm a collective takes for a size, what else there is, and why. Starts nothing.

        Collective as long as no schedule was needed, like :meth:`network`.

        Parameters
        ----------
        kind
            The collective or its name.
        nbytes
            Size of the whole array, as ``pycomm bench`` counts it: all blocks of all ranks for allgather and
            reduce_scatter.
        root, dtype, op
            As in the call; the root counts only where the collective has one.
        """
        wanted = CollectiveKind[kind.upper()] if isinstance(kind, str) else kind
        element = as_dtype(dtype)
        blocks = block_count(wanted, self.size)
        if equal_form(wanted) is CollectiveKind.ALLTOALL:
            blocks = self.size
        count = max(0, int(nbytes)) // (element.itemsize * blocks)
        call = Call(equal_form(wanted), element, as_op(op), root if wanted.is_rooted else -1, count)
        return self._selector.explain(call)
