"""All planners by name: this package's own, and plug-ins registered as entry points ``pycomm.planners``."""

from __future__ import annotations

import logging
from functools import cache
from importlib.metadata import entry_points

from pycomm.errors import PlanningError
from pycomm.planner import (
    bruck,
    direct,
    double_tree,
    halving_doubling,
    hierarchical,
    knomial,
    pairwise,
    pat,
    recursive_doubling,
    ring,
)
from pycomm.planner.algorithm import check_request
from pycomm.planner.base import Planner, PlanRequest
from pycomm.planner.graph import planners as graph_planners
from pycomm.schedule import Schedule

__all__ = ["candidates", "names", "plan", "planner", "planners"]

log = logging.getLogger("pycomm.planner")

OWN: tuple[Planner, ...] = (
    ring.PLANNER,
    ring.BIDIRECTIONAL,
    double_tree.PLANNER,
    knomial.BINOMIAL,
    knomial.FOUR_ARY,
    recursive_doubling.PLANNER,
    halving_doubling.PLANNER,
    bruck.PLANNER,
    pat.PLANNER,
    pairwise.PLANNER,
    direct.PLANNER,
    hierarchical.PLANNER,
    graph_planners.TREE_PACKING,
    graph_planners.FREE_ROOT,
    graph_planners.FLOW_ALLTOALL,
)


@cache
def planners() -> dict[str, Planner]:
    """Every planner by name: own ones first, then plug-ins in order of their names.

    A plug-in that fails to load is left out with a warning; one that takes an existing name is an error.
    """
    found: dict[str, Planner] = {own.name: own for own in OWN}
    for entry in sorted(entry_points(group="pycomm.planners"), key=lambda e: (e.name, e.value)):
        try:
            plugin: Planner = entry.load()
        except (ImportError, AttributeError) as error:
            log.warning("planner plug-in left out name=%s value=%s reason=%s", entry.name, entry.value, error)
            continue
        if plugin.name in found:
            raise PlanningError(
                f"planner plug-in {entry.value} is called {plugin.name!r}, a name that is taken; "
                "rename or uninstall it"
            )
        found[plugin.name] = plugin
    return found


def names() -> tuple[str, ...]:
    """Names of all planners."""
    return tuple(planners())


def planner(name: str) -> Planner:
    """Find the planner called ``name``; raises :class:`PlanningError` when there is none."""
    found = planners().get(name)
    if found is None:
        raise PlanningError(f"there is no planner called {name!r}; there are: {', '.join(planners())}")
    return found


def plan(name: str, request: PlanRequest) -> Schedule:
    """Plan ``request`` with the planner called ``name``.

    Raises
    ------
    PlanningError
        No such planner, or it rejects the request; the message has its reason.
    UsageError
        The request contradicts itself.
    """
    chosen = planner(name)
    check_request(request)
    reason = chosen.rejects(request)
    if reason is not None:
        raise PlanningError(f"{name} cannot plan {request.kind.label} on {request.nranks} ranks: {reason}")
    return chosen.plan(request)


def candidates(request: PlanRequest) -> tuple[Planner, ...]:
    """Every planner that can serve ``request``, in the registry's order.

    Raises
    ------
    PlanningError
        When there is none; the message lists each planner's reason.
    """
    check_request(request)
    reasons = {name: found.rejects(request) for name, found in planners().items()}
    able = tuple(found for name, found in planners().items() if reasons[name] is None)
    if not able:
        listed = "".join(f"\n  {name}: {reason}" for name, reason in reasons.items())
        raise PlanningError(f"no planner can serve {request.kind.label} on {request.nranks} ranks:{listed}")
    return able
