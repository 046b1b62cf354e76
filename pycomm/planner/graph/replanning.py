"""From a repaired plan to one within 1% of the optimum: exact bound, more moves, or a plan from nothing.

All of it may take seconds, and goes on in the background where that is wanted; the repaired plan
(:mod:`~pycomm.planner.graph.repair`) is valid meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from pycomm.errors import DeadlineExceeded, PlanningError
from pycomm.planner.graph.faults import Fault
from pycomm.planner.graph.one_way_plans import CLOSE
from pycomm.planner.graph.repair import repair
from pycomm.planner.graph.reports import AnyBound
from pycomm.planner.graph.synthesis import Plan, plan_on
from pycomm.types import CollectiveKind

__all__ = ["Replanning", "replan", "replan_in_background"]

MOST_MOVES, MOST_REFUSALS = 4096, 256
"""Trees that are moved to relieve the busiest links, and that may find no other way before one is left."""


def replan(plan: Plan, *, is_wanted: Callable[[], bool] = lambda: True) -> Plan:
    """Give a repaired plan its exact bound, or plan anew where it is more than 1% below; the better of both.

    Parameters
    ----------
    plan
        Repaired, or any other.
    is_wanted
        Asked between the steps; when it says no, what there is by then is the answer.

    Notes
    -----
    First the exact bound; then many more moves of single trees; then, if the plan is still more than 1% below
    the bound, one that is made from nothing.
    """
    started = time.perf_counter()
    plan = replace(plan, bound=_exact_bound(plan))
    if plan.ratio < CLOSE and is_wanted():
        moved = replace(repair(plan, Fault(), moves=MOST_MOVES, refusals=MOST_REFUSALS), bound=plan.bound)
        plan = moved if moved.algbw > plan.algbw else plan
    if plan.ratio < CLOSE and is_wanted():
        try:
            anew = plan_on(plan.network, plan.kind, plan.root)
        except PlanningError:  # such as weights too fine; the plan that there is stays good
            return replace(plan, seconds=time.perf_counter() - started)
        plan = anew if anew.algbw > plan.algbw else plan
    return replace(plan, seconds=time.perf_counter() - started)


def _exact_bound(plan: Plan) -> AnyBound:
    if plan.kind is CollectiveKind.ALLREDUCE:
        from pycomm.planner.graph.free_roots import allreduce_bound

        return allreduce_bound(plan.network)
    from pycomm.planner.graph.balance import tree_bound

    return tree_bound(plan.network, plan.kind, plan.root)


class Replanning:
    """A search for a better plan that goes on beside other work; see :func:`replan_in_background`."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._found: Plan | None = None
        self._error: BaseException | None = None
        self._cancelled = False
        # Not a daemon: what ends while a solver's C++ is on its stack takes the whole program down.
        self._thread = threading.Thread(target=self._run, name="pycomm-replan")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = replan(self._plan, is_wanted=self._is_wanted)
        except BaseException as error:  # result() raises it where somebody hears
            self._error = error

    def _is_wanted(self) -> bool:
        return not self._cancelled and threading.main_thread().is_alive()

    def done(self) -> bool:
        """Whether the search has ended; does not block."""
        return self._cancelled or not self._thread.is_alive()

    def cancel(self) -> None:
        """Give up: the result is the plan that there was. What is being computed ends by itself, unheard."""
        self._cancelled = True

    def result(self, timeout_s: float | None = None) -> Plan:
        """Wait for the better plan, or the one that there was when the search was cancelled.

        Raises
        ------
        DeadlineExceeded
            The search goes on; ask again.
        PycommError
            Planning failed; the plan that there was stays valid.
        """
        if not self._cancelled:
            self._thread.join(timeout_s)
        if self._cancelled:
            return self._plan
        if self._thread.is_alive():
            raise DeadlineExceeded(f"replanning has not ended after {timeout_s} s; ask again, or cancel it")
        if self._error is not None:
            raise self._error
        assert self._found is not None  # noqa: S101 (it ended without an error)
        return self._found


def replan_in_background(plan: Plan) -> Replanning:
    """Look for a plan within 1% of the optimum in a thread; the interpreter is free for most of the time.

    A program that ends waits for the step that the search is at, seconds on large networks.

    Parameters
    ----------
    plan
        Repaired; it stays valid and can be used meanwhile.
    """
    return Replanning(plan)
