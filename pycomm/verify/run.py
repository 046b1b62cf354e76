"""One run of all programs on symbols, in the core: evidence for meaning (V3), progress (V4) and metrics."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pycomm.core import native
from pycomm.schedule import Schedule
from pycomm.types import CollectiveKind
from pycomm.verify.layout import Layout

__all__ = ["Evidence", "Finding", "Pairs", "run"]


class Pairs(NamedTuple):
    """Which messages belong together: per op its lane and its counterpart's row, -1 for local ops."""

    lane: npt.NDArray[np.int32]
    partner: npt.NDArray[np.int32]


class Finding(NamedTuple):
    """What the core noticed; ``op`` and ``place`` are -1 where they do not apply."""

    problem: str
    rank: int
    op: int
    place: int
    numbers: list[int]


class Evidence(NamedTuple):
    """Result of a run.

    Parameters
    ----------
    findings
        What went wrong.
    steps
        Messages on the longest chain of messages that wait for one another.
    traffic
        One row per rank: messages sent, messages received, chunks sent, chunks received, chunks combined.
    enough
        When ranks got stuck: the capacity with which they would not have, -1 if there is none. Else 0.
    """

    findings: list[Finding]
    steps: int
    traffic: npt.NDArray[np.int64]
    enough: int


def run(schedule: Schedule, layout: Layout, pairs: Pairs) -> Evidence:
    """Run a schedule that has passed the structural checks. Releases the GIL."""
    findings, steps, traffic, enough = native.verify_run(
        schedule.ops,
        schedule.offsets,
        pairs.lane,
        pairs.partner,
        layout.bases,
        layout.initial,
        layout.wanted,
        layout.source,
        schedule.capacity,
        schedule.kind is CollectiveKind.BARRIER,
    )
    return Evidence([Finding(*f) for f in findings], steps, traffic.reshape(-1, 5), enough)
