"""V3: every result holds each contribution exactly once, whether posted memory is read at once or late."""

from __future__ import annotations

from collections.abc import Iterator

from pycomm.errors import Diagnostic
from pycomm.schedule import Schedule
from pycomm.types import CollectiveKind
from pycomm.verify.findings import describe, span_text
from pycomm.verify.layout import EVERY_RANK, Layout
from pycomm.verify.run import Evidence, Finding

__all__ = ["meaning"]

_SHOWN = 6


def meaning(schedule: Schedule, layout: Layout, evidence: Evidence) -> Iterator[Diagnostic]:
    """Put what the run found about contents into words."""
    for finding in evidence.findings:
        if finding.problem == "deadlock":
            continue
        rank, space, index = layout.locate(finding.place)
        span = span_text(space, index, 1)
        if finding.problem == "reads_nothing":
            yield Diagnostic(
                "V301", rank, finding.op, f"{_op(schedule, finding)}: nothing has written {span} before"
            )
        elif finding.problem == "overwrites_lent":
            send, peer = finding.numbers
            text = (
                f"{_op(schedule, finding)}: {span} is lent to op {send}, a send to rank {peer}, and nothing "
                f"tells this rank that rank {peer} has received it"
            )
            yield Diagnostic("V305", rank, finding.op, text)
        elif layout.kept[rank]:
            yield Diagnostic(
                "V304", rank, -1, f"{span}: {schedule.kind.label} must leave this buffer as it was"
            )
        elif finding.problem == "no_result":
            yield Diagnostic(
                "V303", rank, -1, f"{span} must hold {_wanted(layout, finding)}, but is never written"
            )
        else:
            text = (
                f"{span} must hold {_wanted(layout, finding)}, but {_difference(schedule, layout, finding)}"
            )
            yield Diagnostic("V302", rank, -1, text)


def _op(schedule: Schedule, finding: Finding) -> str:
    return describe(schedule.program(finding.rank)[finding.op])


def _wanted(layout: Layout, finding: Finding) -> str:
    source = int(layout.source[finding.place])
    chunk = int(layout.wanted[finding.place])
    return f"chunk {chunk} of {'every rank' if source == EVERY_RANK else f'rank {source}'} once"


def _difference(schedule: Schedule, layout: Layout, finding: Finding) -> str:
    """Compare what is there, exactly, with what should be."""
    numbers = finding.numbers
    held = {(numbers[i], numbers[i + 1]): numbers[i + 2] for i in range(0, len(numbers), 3)}
    chunk, source = int(layout.wanted[finding.place]), int(layout.source[finding.place])
    ranks = range(schedule.nranks) if source == EVERY_RANK else (source,)
    if schedule.kind is CollectiveKind.BARRIER:
        heard = {rank for rank, _ in held}
        return f"nothing of {_some([f'rank {r}' for r in ranks if r not in heard])} has arrived"
    missing = [f"rank {r}" for r in ranks if (r, chunk) not in held]
    repeated = [f"rank {r} {held[r, chunk]} times" for r in ranks if held.get((r, chunk), 1) > 1]
    foreign = [f"chunk {c} of rank {r}" for r, c in held if c != chunk or r not in ranks]
    parts = [
        f"{label} {_some(listed)}"
        for label, listed in (("lacks", missing), ("counts", repeated), ("also holds", foreign))
        if listed
    ]
    return ", ".join(parts)


def _some(listed: list[str]) -> str:
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
