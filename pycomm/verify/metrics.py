"""What a schedule costs, counted on the schedule itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pycomm.errors import ScheduleError
from pycomm.schedule import Schedule
from pycomm.verify.checks import structural
from pycomm.verify.run import Evidence, run

__all__ = ["Metrics", "metrics"]


@dataclass(frozen=True, slots=True, eq=False)
class Metrics:
    """Counts in messages and chunks; the names are those of :class:`pycomm.planner.base.PlanCost`.

    Parameters
    ----------
    steps
        Messages on the longest chain of messages that wait for one another.
    sent, received, reduced
        Chunks sent, received and combined by the busiest rank.
    total
        Chunks sent by all ranks together.
    messages
        Messages sent or received by the busiest rank, whichever is more.
    per_rank
        int64 of shape ``(nranks, 5)``: messages sent, messages received, chunks sent, chunks received, chunks
        combined.
    """

    steps: int
    sent: int
    received: int
    total: int
    reduced: int
    messages: int
    per_rank: npt.NDArray[np.int64]


def metrics(schedule: Schedule) -> Metrics:
    """Count what each rank does and the longest chain of messages.

    Raises
    ------
    ScheduleError
        The table is malformed (V1); counts of a schedule that is merely wrong are still given.
    """
    found, sound = structural(schedule)
    if sound is None:
        raise ScheduleError(f"schedule {schedule.name!r} is malformed and cannot be measured", found)
    return of_evidence(run(schedule, sound.layout, sound.pairs))


def of_evidence(evidence: Evidence) -> Metrics:
    """Summarise a run that has been made anyway."""
    per_rank = evidence.traffic
    busiest = per_rank.max(axis=0).tolist()
    return Metrics(
        steps=evidence.steps,
        sent=busiest[2],
        received=busiest[3],
        total=int(per_rank[:, 2].sum()),
        reduced=busiest[4],
        messages=max(busiest[0], busiest[1]),
        per_rank=per_rank,
    )
