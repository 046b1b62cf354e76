"""V4: all programs end when every lane holds no more unmatched messages than the schedule declares."""

from __future__ import annotations

from collections.abc import Iterator

from pycomm.errors import Diagnostic
from pycomm.schedule import Schedule
from pycomm.verify.findings import describe
from pycomm.verify.run import Evidence, Finding

__all__ = ["progress"]

_SHOWN = 8


def progress(schedule: Schedule, evidence: Evidence) -> Iterator[Diagnostic]:
    """Put each cycle of ranks that wait for one another into words."""
    for finding in evidence.findings:
        if finding.problem != "deadlock":
            continue
        if evidence.enough > 0:
            held = f"lanes hold {schedule.capacity} unmatched messages, {evidence.enough} are needed"
            yield Diagnostic("V402", finding.rank, finding.op, f"{held}: {_cycle(schedule, finding)}")
        else:
            yield Diagnostic("V401", finding.rank, finding.op, f"deadlock: {_cycle(schedule, finding)}")


def _cycle(schedule: Schedule, finding: Finding) -> str:
    steps = [
        f"rank {rank} waits in op {op}, {describe(schedule.program(rank)[op])}"
        for rank, op in zip(finding.numbers[::2], finding.numbers[1::2], strict=True)
    ]
    more = len(steps) - _SHOWN
    return "; ".join(steps[:_SHOWN]) + (f"; and {more} more ranks of the cycle" if more > 0 else "")
