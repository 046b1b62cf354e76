"""What the planners of this package are made of: per collective, a function that plans and one that prices.

A module of this package writes its algorithm as plain functions over a
:class:`~pycomm.schedule.builder.ScheduleBuilder` and ends with ``PLANNER = Algorithm(...)``. One rank alone
never reaches those functions: it copies its input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pycomm.collectives.spec import block_count, equal_form
from pycomm.errors import UsageError
from pycomm.planner.base import PlanCost, PlanRequest
from pycomm.schedule import Schedule
from pycomm.schedule.builder import ScheduleBuilder, inp, out
from pycomm.types import CollectiveKind

__all__ = ["Algorithm", "Form", "check_request", "ranks_of"]


class Form(NamedTuple):
    """One collective of an algorithm."""

    plan: Callable[[PlanRequest], Schedule]
    cost: Callable[[PlanRequest], PlanCost]


@dataclass(frozen=True)
class Algorithm:
    """A planner made of functions.

    Parameters
    ----------
    name
        Name of the algorithm.
    forms
        What it offers, by the equal form of the collective; the ragged form moves the same chunks.
    refuses
        Why it cannot serve a request of a kind that it offers; ``None`` when it can.
    """

    name: str
    forms: Mapping[CollectiveKind, Form]
    refuses: Callable[[PlanRequest], str | None] = lambda _: None

    def rejects(self, request: PlanRequest) -> str | None:
        """Why this planner cannot serve the request; ``None`` when it can."""
        check_request(request)
        if equal_form(request.kind) not in self.forms:
            offered = ", ".join(kind.label for kind in self.forms)
            return f"{self.name} does not offer {request.kind.label}, only {offered}"
        return None if request.nranks == 1 else self.refuses(request)

    def plan(self, request: PlanRequest) -> Schedule:
        """Make the schedule."""
        if request.nranks == 1:
            builder = ScheduleBuilder(request, self.name)
            whole = block_count(request.kind, 1)
            builder.copy(0, inp(0, whole), out(0, whole))
            return builder.finish()
        return self.forms[equal_form(request.kind)].plan(request)

    def cost(self, request: PlanRequest) -> PlanCost:
        """Evaluate the formulas that the algorithm states."""
        if request.nranks == 1:
            return PlanCost(0, 0, 0, 0, 0)
        return self.forms[equal_form(request.kind)].cost(request)


def check_request(request: PlanRequest) -> None:
    """Raise :class:`UsageError` for a request that no planner could serve because it contradicts itself."""
    n = request.nranks
    problem = ""
    if n < 1:
        problem = f"nranks must be at least 1, got {n}"
    elif request.kind in (CollectiveKind.SEND, CollectiveKind.RECV):
        problem = f"{request.kind.label} is not a collective and needs no plan"
    elif request.kind.is_rooted and not 0 <= request.root < n:
        problem = f"{request.kind.label} needs a root between 0 and {n - 1}, got {request.root}"
    elif not request.kind.is_rooted and request.root != -1:
        problem = f"{request.kind.label} has no root, pass root=-1 instead of {request.root}"
    elif request.hosts and len(request.hosts) != n:
        problem = f"hosts must name the host of each of the {n} ranks, got {len(request.hosts)} entries"
    elif request.order and sorted(request.order) != list(range(n)):
        problem = f"order must be a permutation of 0..{n - 1}, got {request.order}"
    elif request.channels < 1:
        problem = f"channels must be at least 1, got {request.channels}"
    elif request.pieces < 0:
        problem = f"pieces must be positive, or 0 for the planner's choice, got {request.pieces}"
    elif request.devices and len(request.devices) != n:
        problem = f"devices must name the vertex of each of the {n} ranks, got {len(request.devices)} entries"
    elif request.devices and request.topology is None:
        problem = "devices are vertices of a topology; pass it too"
    if problem:
        raise UsageError(f"cannot plan: {problem}")


def ranks_of(request: PlanRequest) -> npt.NDArray[np.int64]:
    """All ranks, 0 to n-1."""
    return np.arange(request.nranks, dtype=np.int64)
