"""From table rows to diagnostics: where a row is, and what it does in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from pycomm.errors import Diagnostic
from pycomm.schedule import OpKind, Schedule, Space

__all__ = ["MOST", "describe", "owners", "rows_at_fault", "span_text"]

MOST = 100
"""Findings of one code that are reported; more would say nothing new."""

# Columns of the table.
KIND, PEER, CHANNEL, SRC_SPACE, SRC_START, DST_SPACE, DST_START, COUNT = range(8)

_VERBS = {
    OpKind.COPY: "COPY {src} to {dst}",
    OpKind.SEND: "SEND {src} to rank {peer} on channel {channel}",
    OpKind.RECV: "RECV {dst} from rank {peer} on channel {channel}",
    OpKind.REDUCE: "REDUCE {src} into {dst}",
    OpKind.RECV_REDUCE: "RECV_REDUCE {src} with rank {peer} on channel {channel} into {dst}",
}


def owners(schedule: Schedule) -> npt.NDArray[np.int32]:
    """Rank of each row."""
    return np.repeat(np.arange(schedule.nranks, dtype=np.int32), np.diff(schedule.offsets))


def span_text(space: int, start: int, count: int) -> str:
    """Spell a span: ``OUTPUT[3:5]``, or ``nothing`` for a signal's."""
    if space not in tuple(Space):
        return "nothing" if space == -1 else f"space {space}"
    return f"{Space(space).name}[{start}]" if count == 1 else f"{Space(space).name}[{start}:{start + count}]"


def describe(row: npt.NDArray[np.int32]) -> str:
    """One op in words, however wrong its columns are."""
    kind, peer, channel, src_space, src_start, dst_space, dst_start, count = row.tolist()
    if kind not in tuple(OpKind):
        return f"op of kind {kind}"
    src, dst = span_text(src_space, src_start, count), span_text(dst_space, dst_start, count)
    return _VERBS[OpKind(kind)].format(src=src, dst=dst, peer=peer, channel=channel)


def rows_at_fault(
    schedule: Schedule, code: str, wrong: npt.NDArray[np.bool_], why: str | Callable[[int], str]
) -> Iterator[Diagnostic]:
    """One diagnostic per row marked in ``wrong``; ``why`` may be a function of the row's index."""
    for row in np.flatnonzero(wrong)[:MOST].tolist():
        rank = int(np.searchsorted(schedule.offsets, row, side="right")) - 1
        text = f"{describe(schedule.ops[row])}: {why if isinstance(why, str) else why(row)}"
        yield Diagnostic(code, rank, row - int(schedule.offsets[rank]), text)
