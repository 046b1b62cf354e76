"""V5: the schedule keeps within what executors and the wire format can hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pycomm.errors import Diagnostic
from pycomm.schedule import Schedule
from pycomm.verify.layout import Layout, chunk_count

__all__ = ["Limits", "resources"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a schedule may ask for.

    Parameters
    ----------
    channels
        Channel numbers travel in 16 bits.
    capacity
        Unmatched messages per lane that an executor can be asked to hold.
    ops_per_rank
        Length of one program.
    scratch_arrays
        Scratch of a rank, in units of the largest INPUT or OUTPUT of any rank: in a gather along a tree, a
        rank holds many blocks though it owns one.
    """

    channels: int = 1 << 16
    capacity: int = 1 << 16
    ops_per_rank: int = 1 << 24
    scratch_arrays: int = 16


_LARGEST = 2**31 - 1


def addressable(schedule: Schedule) -> Iterator[Diagnostic]:
    """Check, before anything is laid out, that chunks can be numbered at all."""
    chunks = chunk_count(schedule)
    if chunks > _LARGEST:
        yield Diagnostic(
            "V501", -1, -1, f"{chunks} global chunks cannot be numbered in 32 bits; use fewer pieces"
        )


def resources(schedule: Schedule, layout: Layout, limits: Limits) -> Iterator[Diagnostic]:
    """Compare what the schedule declares and uses with the limits."""
    if schedule.channels > limits.channels:
        yield Diagnostic(
            "V502", -1, -1, f"{schedule.channels} channels; at most {limits.channels} are possible"
        )
    if schedule.capacity > limits.capacity:
        text = f"channels must hold {schedule.capacity} unmatched messages; executors hold {limits.capacity}"
        yield Diagnostic("V503", -1, -1, text)
    lengths = np.diff(schedule.offsets)
    for rank in np.flatnonzero(lengths > limits.ops_per_rank).tolist():
        yield Diagnostic(
            "V504", rank, -1, f"{int(lengths[rank])} ops; at most {limits.ops_per_rank} are possible"
        )
    sizes = np.diff(layout.bases).reshape(-1, 3)
    own = sizes[:, :2].max(axis=1)
    allowed = limits.scratch_arrays * int(own.max())
    for rank in np.flatnonzero(sizes[:, 2] > allowed).tolist():
        most = f"at most {allowed}, that is {limits.scratch_arrays} arrays"
        text = f"{int(sizes[rank, 2])} scratch slots; {most}"
        yield Diagnostic("V505", rank, -1, text)
