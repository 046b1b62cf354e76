"""Which planner, and why: the closed forms of all that fit the request, evaluated on the machine's links.

Choosing is deterministic: ranks that ask the same get the same schedule. Ties go to the planner that the
registry lists first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from pycomm.cost import Links, chunk_nbytes, time_s
from pycomm.errors import UsageError
from pycomm.planner import registry
from pycomm.planner.base import Planner, PlanRequest
from pycomm.schedule import Schedule
from pycomm.schedule.passes import synchronise
from pycomm.units import format_size_rounded, format_time

__all__ = ["Choice", "Estimate", "choose", "estimates"]

PIECES = (1, 2, 4, 8, 16, 32, 64)
"""Pipeline pieces that are tried where a planner can use them and the request leaves the number open."""
MIN_PIECE_NBYTES = 4096
"""Pieces are not made smaller than this."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """One way to serve a request: planner, pieces asked for, and the time by the closed form."""

    seconds: float
    planner: str
    pieces: int


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen.

    Parameters
    ----------
    planner
        Name of the planner.
    schedule
        Its schedule; for rooted collectives synchronised, so that no rank leaves before all agree.
    why
        One line for people.
    runner_up
        Name of the next best planner, ``""`` when there is none.
    """

    planner: str
    schedule: Schedule
    why: str
    runner_up: str


def choose(
    request: PlanRequest, nbytes: int, links: Links | None = None, algorithm: str | None = None
) -> Choice:
    """Choose a planner and plan.

    Parameters
    ----------
    request
        What is to be planned. ``pieces=0`` lets the tuner try several.
    nbytes
        Bytes of the whole array: of one rank for allreduce, broadcast and reduce, all blocks of all ranks for
        the others; for alltoall the blocks of one rank.
    links
        The machine; ``None`` means the defaults of :class:`pycomm.cost.Links`.
    algorithm
        Name of the planner to use whatever it costs.

    Raises
    ------
    PlanningError
        No planner can serve the request, or the one asked for cannot.
    UsageError
        The request contradicts itself.
    """
    if nbytes < 0:
        raise UsageError(f"cannot choose a plan for {nbytes} bytes: the size must not be negative")
    if algorithm is not None:
        return Choice(algorithm, _planned(algorithm, request), f"{algorithm}: asked for by name", "")
    ranked = estimates(request, nbytes, links or Links())
    best = ranked[0]
    schedule = _planned(best.planner, replace(request, pieces=best.pieces))
    size = format_size_rounded(nbytes)
    why = f"{best.planner}: {format_time(best.seconds)} for {size} on {request.nranks} ranks"
    if len(ranked) == 1:
        return Choice(best.planner, schedule, f"{why}, the only planner that can", "")
    second = ranked[1]
    why += f", {second.planner} would take {format_time(second.seconds)}"
    return Choice(best.planner, schedule, why, second.planner)


@lru_cache(maxsize=4096)
def estimates(request: PlanRequest, nbytes: int, links: Links) -> tuple[Estimate, ...]:
    """Evaluate every planner that can serve the request, each at its best number of pieces; fastest first."""
    found = [_estimate(planner, request, nbytes, links) for planner in registry.candidates(request)]
    return tuple(
        sorted(found, key=lambda estimate: estimate.seconds)
    )  # stable: ties keep the registry's order


def _estimate(planner: Planner, request: PlanRequest, nbytes: int, links: Links) -> Estimate:
    crowd = max((request.hosts.count(host) for host in set(request.hosts)), default=request.nranks)
    found: dict[int, Estimate] = {}  # by the pieces that come of it: not every planner has a use for pieces
    for pieces in (request.pieces,) if request.pieces else PIECES:
        if found and nbytes < pieces * MIN_PIECE_NBYTES:
            break
        cost = planner.cost(replace(request, pieces=pieces))
        if cost.pieces in found:
            break
        chunk = chunk_nbytes(request.kind, request.nranks, cost.pieces, nbytes)
        seconds = time_s(cost, chunk, links, request.hosts, crowd)
        found[cost.pieces] = Estimate(seconds, planner.name, pieces)
    return min(found.values(), key=lambda estimate: estimate.seconds)


@lru_cache(maxsize=64)
def _planned(name: str, request: PlanRequest) -> Schedule:
    schedule = registry.plan(name, request)
    return synchronise(schedule) if request.kind.is_rooted else schedule
