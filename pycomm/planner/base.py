"""The planner's waist: a request in, a schedule out, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from pycomm.cost import PlanCost
from pycomm.schedule import Schedule
from pycomm.topology.model import Topology
from pycomm.types import CollectiveKind

__all__ = ["PlanCost", "PlanRequest", "Planner"]


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What a planner may know. Equal requests give equal schedules, byte for byte.

    Parameters
    ----------
    kind, nranks, root
        The collective; ``root`` is ``-1`` where it has none.
    in_place
        Whether INPUT and OUTPUT are one buffer (see :mod:`pycomm.schedule.ir`).
    hosts
        Host number of each rank, for hierarchical algorithms; ``()`` means one host.
    channels
        How many independent lanes to use; planners without a use for more take one.
    order
        Rank order for rings; ``()`` means 0, 1, 2, ...
    pieces
        Pipeline pieces for algorithms that cut blocks further; 0 lets the planner choose.
    topology
        The network, for planners that look at its links; ``None`` when it is not known.
    devices
        Vertex of ``topology`` that each rank is; ``()`` means its devices in their order.
    """

    kind: CollectiveKind
    nranks: int
    root: int = -1
    in_place: bool = False
    hosts: tuple[int, ...] = ()
    channels: int = 1
    order: tuple[int, ...] = ()
    pieces: int = 0
    topology: Topology | None = field(default=None, repr=False)
    devices: tuple[int, ...] = ()


class Planner(Protocol):
    """An algorithm: pure functions of the request."""

    @property
    def name(self) -> str:
        """Name of the algorithm, e.g. ``"ring"``."""

    def rejects(self, request: PlanRequest) -> str | None:
        """Why this planner cannot serve the request, as one sentence; ``None`` when it can."""

    def plan(self, request: PlanRequest) -> Schedule:
        """Make the schedule. Only called when ``rejects`` returned ``None``."""

    def cost(self, request: PlanRequest) -> PlanCost:
        """Evaluate the stated formulas; tests compare them with counts made on the schedule itself."""
