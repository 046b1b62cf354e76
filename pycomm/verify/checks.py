"""All families of checks, in the order in which they may rely on one another."""

from __future__ import annotations

from typing import NamedTuple

from pycomm.errors import Diagnostic, ScheduleError
from pycomm.schedule import Schedule
from pycomm.verify.layout import Layout, layout
from pycomm.verify.meaning import meaning
from pycomm.verify.progress import progress
from pycomm.verify.resources import Limits, addressable, resources
from pycomm.verify.routes import Reachability, routes
from pycomm.verify.run import Pairs, run
from pycomm.verify.structure import header, messages, rows, scratch, shapes

__all__ = ["Sound", "check", "structural", "verify"]


class Sound(NamedTuple):
    """What the structural checks leave for the others."""

    layout: Layout
    pairs: Pairs


def structural(schedule: Schedule) -> tuple[list[Diagnostic], Sound | None]:
    """Run the checks that all others rely on; these can go on only when nothing is found."""
    found = list(header(schedule)) or list(addressable(schedule)) or list(scratch(schedule))
    if found:
        return found, None
    places = layout(schedule)
    found = list(rows(schedule, places))
    if found:
        return found, None
    found, pairs = messages(schedule)
    found = found or list(shapes(schedule, places, pairs))
    return found, None if found else Sound(places, pairs)


def verify(
    schedule: Schedule, topology: Reachability | None = None, limits: Limits | None = None
) -> list[Diagnostic]:
    """Check everything that can be checked without running the schedule on data.

    Structure (V1) comes first; when it fails, nothing else is looked at. Then routes (V2, with a topology
    only), meaning (V3), progress (V4) and resources (V5). Never raises on a bad schedule. Takes seconds for
    millions of ops.

    Parameters
    ----------
    schedule
        What to check.
    topology
        Anything with ``reachable(src, dst) -> bool``; without it every rank can reach every other.
    limits
        What the schedule may ask for.

    Returns
    -------
    list of Diagnostic
        Sorted; empty when the schedule is right. At most a hundred of each code.

    Examples
    --------
    >>> from pycomm.planner.base import PlanRequest
    >>> from pycomm.schedule.builder import ScheduleBuilder, inp, out
    >>> from pycomm.types import CollectiveKind
    >>> pair = ScheduleBuilder(PlanRequest(CollectiveKind.BROADCAST, 2, root=0), "pair")
    >>> pair.copy(0, inp(0), out(0))
    >>> for diagnostic in verify(pair.finish()):
    ...     print(diagnostic)
    V303 rank 1: OUTPUT[0] must hold chunk 0 of rank 0 once, but is never written
    """
    found, sound = structural(schedule)
    if sound is None:
        return sorted(found)
    places = sound.layout
    if topology is not None:
        found.extend(routes(schedule, topology))
    evidence = run(schedule, places, sound.pairs)
    found.extend(meaning(schedule, places, evidence))
    found.extend(progress(schedule, evidence))
    found.extend(resources(schedule, places, limits or Limits()))
    return sorted(found)


def check(schedule: Schedule, topology: Reachability | None = None, limits: Limits | None = None) -> None:
    """Raise when :func:`verify` finds anything.

    Raises
    ------
    ScheduleError
        The schedule is wrong; carries every diagnostic.
    """
    found = verify(schedule, topology, limits)
    if found:
        what = f"{schedule.name!r}, {schedule.kind.label} on {schedule.nranks} ranks"
        raise ScheduleError(f"schedule {what}, failed verification with {len(found)} findings:", found)
