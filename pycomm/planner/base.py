"""The planner's waist: a request in, a schedule out, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from pycomm.schedule import Schedule
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
    """

    kind: CollectiveKind
    nranks: int
    root: int = -1
    in_place: bool = False
    hosts: tuple[int, ...] = ()
    channels: int = 1
    order: tuple[int, ...] = ()
    pieces: int = 0


@dataclass(frozen=True, slots=True)
class PlanCost:
    """A schedule's cost in exact chunk arithmetic.

    Parameters
    ----------
    steps
        Messages on the longest chain of messages that wait for one another (alpha term).
    sent
        Chunks sent by the busiest rank (beta term); ``sent / chunks_per_array`` is in units of the array.
    received
        Chunks received by the busiest rank.
    total
        Chunks sent by all ranks together.
    reduced
        Chunks combined by the busiest rank (gamma term).
    messages
        Messages sent or received by the busiest rank, whichever is more: each costs its own overhead even when
        they do not wait for one another. Not part of equality.
    fill
        Chunks that pass on the longest path besides those of the busiest rank: what it takes to fill a pipeline.
        Not part of equality.
    """

    steps: int
    sent: int
    received: int
    total: int
    reduced: int
    messages: int = field(default=0, compare=False)
    fill: int = field(default=0, compare=False)


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
        """The stated formulas, evaluated; tests compare them with counts made on the schedule itself."""
