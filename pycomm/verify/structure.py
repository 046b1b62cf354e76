"""V1: the table is well formed, spans stay in their spaces, every message has a counterpart of its shape."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pycomm.collectives.spec import equal_form
from pycomm.core import native
from pycomm.errors import Diagnostic
from pycomm.schedule import NCOLUMNS, OpKind, Schedule, Space
from pycomm.types import CollectiveKind
from pycomm.verify.findings import (
    CHANNEL,
    COUNT,
    DST_SPACE,
    DST_START,
    KIND,
    MOST,
    PEER,
    SRC_SPACE,
    SRC_START,
    owners,
    rows_at_fault,
)
from pycomm.verify.layout import Layout, buffer_space, chunk_count
from pycomm.verify.run import Pairs

__all__ = ["header", "messages", "rows", "scratch", "shapes"]

Mask = npt.NDArray[np.bool_]
_LARGEST = 2**31 - 1


def header(schedule: Schedule) -> Iterator[Diagnostic]:
    """Check what describes the table: fields, shapes and types of the arrays."""
    s = schedule

    def wrong(code: str, text: str) -> Diagnostic:
        return Diagnostic(code, -1, -1, text)

    if s.kind in (CollectiveKind.SEND, CollectiveKind.RECV):
        yield wrong("V101", f"{s.kind.label} is no collective; schedules are made for collectives only")
    for field, least in (("nranks", 1), ("pieces", 1), ("channels", 1), ("capacity", 1)):
        value = getattr(s, field)
        if not least <= value <= _LARGEST:
            yield wrong("V101", f"{field} is {value}; it must be between {least} and {_LARGEST}")
    if s.kind.is_rooted and not 0 <= s.root < s.nranks:
        yield wrong("V101", f"root is {s.root}; {s.kind.label} needs one of the ranks 0 to {s.nranks - 1}")
    if not s.kind.is_rooted and s.root != -1:
        yield wrong("V101", f"root is {s.root}; {s.kind.label} has none, which is written -1")
    if (
        s.ops.dtype != np.int32
        or s.ops.ndim != 2
        or s.ops.shape[1] != NCOLUMNS
        or not s.ops.flags.c_contiguous
    ):
        shape = f"{s.ops.dtype} of shape {s.ops.shape}"
        yield wrong("V102", f"ops is {shape}; it must be a contiguous int32 table with {NCOLUMNS} columns")
    if s.scratch.dtype != np.int32 or s.scratch.ndim != 1:
        yield wrong("V102", f"scratch is {s.scratch.dtype} of shape {s.scratch.shape}; it must be flat int32")
    for name, bounds, end in (
        ("offsets", s.offsets, len(s.ops)),
        ("scratch_offsets", s.scratch_offsets, len(s.scratch)),
    ):
        if bounds.dtype != np.int64 or bounds.shape != (s.nranks + 1,):
            yield wrong("V102", f"{name} must hold nranks + 1 = {s.nranks + 1} int64 values")
        elif bounds[0] != 0 or bounds[-1] != end or (np.diff(bounds) < 0).any():
            yield wrong("V102", f"{name} must rise from 0 to {end}, the length of what it divides")


def scratch(schedule: Schedule) -> Iterator[Diagnostic]:
    """Check that scratch slots name chunks of the collective."""
    chunks = chunk_count(schedule)
    for slot in np.flatnonzero((schedule.scratch < 0) | (schedule.scratch >= chunks))[:MOST].tolist():
        rank = int(np.searchsorted(schedule.scratch_offsets, slot, side="right")) - 1
        index = slot - int(schedule.scratch_offsets[rank])
        named = int(schedule.scratch[slot])
        yield Diagnostic(
            "V114", rank, -1, f"SCRATCH[{index}] has the size of chunk {named}; there are {chunks} chunks"
        )


def rows(schedule: Schedule, layout: Layout) -> Iterator[Diagnostic]:
    """Check each op on its own."""
    ops = schedule.ops
    kind, peer, channel, count = ops[:, KIND], ops[:, PEER], ops[:, CHANNEL], ops[:, COUNT]
    known = (kind >= OpKind.COPY) & (kind <= OpKind.RECV_REDUCE)
    yield from rows_at_fault(schedule, "V103", ~known, f"there are kinds 0 to {int(max(OpKind))}")
    local = (kind == OpKind.COPY) | (kind == OpKind.REDUCE)
    message = known & ~local
    rank = owners(schedule)
    yield from rows_at_fault(
        schedule, "V104", local & ((peer != -1) | (channel != -1)), "a local op has no peer or channel"
    )
    yield from rows_at_fault(
        schedule,
        "V105",
        message & ((peer < 0) | (peer >= schedule.nranks) | (peer == rank)),
        f"the peer must be another of the {schedule.nranks} ranks",
    )
    yield from rows_at_fault(
        schedule,
        "V106",
        message & ((channel < 0) | (channel >= schedule.channels)),
        f"the schedule declares channels 0 to {schedule.channels - 1}",
    )
    yield from _spans(schedule, layout, known, rank)
    if not (equal_form(schedule.kind).reduces or schedule.kind is CollectiveKind.BARRIER):
        combines = (kind == OpKind.REDUCE) | (kind == OpKind.RECV_REDUCE)
        yield from rows_at_fault(schedule, "V115", combines, f"{schedule.kind.label} combines nothing")
    same = (ops[:, SRC_SPACE] == ops[:, DST_SPACE]) & (ops[:, SRC_SPACE] >= 0) & (kind != OpKind.SEND)
    distance = np.abs(ops[:, SRC_START].astype(np.int64) - ops[:, DST_START])
    overlap = same & (distance < count) & (local | ((kind == OpKind.RECV_REDUCE) & (distance > 0)))
    yield from rows_at_fault(schedule, "V110", overlap, "source and destination overlap")


def _spans(
    schedule: Schedule, layout: Layout, known: Mask, rank: npt.NDArray[np.int32]
) -> Iterator[Diagnostic]:
    ops = schedule.ops
    kind, count = ops[:, KIND], ops[:, COUNT]
    signal = ((kind == OpKind.SEND) | (kind == OpKind.RECV)) & (count == 0)
    buffer = buffer_space(schedule.kind)
    for side, space_column, start_column, absent_in in (
        ("source", SRC_SPACE, SRC_START, OpKind.RECV),
        ("destination", DST_SPACE, DST_START, OpKind.SEND),
    ):
        space, start = ops[:, space_column], ops[:, start_column]
        absent = (kind == absent_in) | signal
        stray = known & absent & ((space != -1) | (start != -1))
        yield from rows_at_fault(schedule, "V104", stray, f"it has no {side}, which is written -1")
        present = known & ~absent
        unknown = present & ((space < Space.INPUT) | (space > Space.SCRATCH))
        yield from rows_at_fault(schedule, "V104", unknown, f"its {side} must be in INPUT, OUTPUT or SCRATCH")
        present &= ~unknown
        where = 3 * rank.astype(np.int64) + np.where(present, space, 0)
        size = layout.bases[where + 1] - layout.bases[where]
        beyond = present & ((count < 1) | (start < 0) | (start.astype(np.int64) + count > size))

        def reach(i: int, side: str = side, column: int = space_column) -> str:
            where = 3 * int(rank[i]) + int(ops[i, column])
            size = int(layout.bases[where + 1] - layout.bases[where])
            space = Space(ops[i, column]).name
            return f"its {side} must be at least one chunk and lie within the {size} of {space}"

        if schedule.in_place:
            other = present & (space == (Space.OUTPUT if buffer is Space.INPUT else Space.INPUT))
            beyond &= ~other
            yield from rows_at_fault(
                schedule, "V109", other, f"in place, the one buffer is called {buffer.name}"
            )
        elif side == "destination":
            yield from rows_at_fault(
                schedule, "V108", present & (space == Space.INPUT), "INPUT is never written"
            )
        yield from rows_at_fault(schedule, "V107", beyond, reach)


def messages(
    schedule: Schedule,
) -> tuple[list[Diagnostic], Pairs]:
    """Pair the k-th send of each lane with its k-th receive.

    Returns
    -------
    list of Diagnostic
        Lanes with a message too many or too few, pairs that differ in length.
    Pairs
        Lane and counterpart of each op.
    """
    lane, partner, uneven = native.verify_match(schedule.ops, schedule.offsets)
    found = [
        Diagnostic(
            "V111",
            src if sent > received else dst,
            -1,
            f"rank {src} sends {sent} messages to rank {dst} on channel {channel}, which receives {received}",
        )
        for src, dst, channel, sent, received in uneven[:MOST]
    ]
    receives = (schedule.ops[:, KIND] == OpKind.RECV) | (schedule.ops[:, KIND] == OpKind.RECV_REDUCE)
    count = schedule.ops[:, COUNT]
    differs = receives & (partner >= 0) & (count != count[partner])

    def explain(i: int) -> str:
        rank, op = _place_of(schedule, int(partner[i]))
        return f"the message, op {op} of rank {rank}, has {count[partner[i]]} chunks instead of {count[i]}"

    found.extend(rows_at_fault(schedule, "V112", differs, explain))
    return found, Pairs(lane, partner)


def shapes(schedule: Schedule, layout: Layout, pairs: Pairs) -> Iterator[Diagnostic]:
    """Check that data goes only where chunks have its size, chunk by chunk."""
    ops = schedule.ops
    kind = ops[:, KIND]
    base = 3 * owners(schedule).astype(np.int64)
    src = layout.bases[base + np.maximum(ops[:, SRC_SPACE], 0)] + ops[:, SRC_START]
    dst = layout.bases[base + np.maximum(ops[:, DST_SPACE], 0)] + ops[:, DST_START]
    receives = ((kind == OpKind.RECV) | (kind == OpKind.RECV_REDUCE)) & (ops[:, COUNT] > 0)
    for what, chosen, source in (
        ("source", (kind != OpKind.SEND) & (kind != OpKind.RECV), src),
        ("message", receives, src[pairs.partner]),
    ):
        wrong = np.zeros(len(ops), np.bool_)
        picked = np.flatnonzero(chosen)
        wrong[picked] = _differ(layout.shape, source[picked], dst[picked], ops[picked, COUNT])

        def explain(i: int, source: npt.NDArray[np.int64] = source, what: str = what) -> str:
            count = int(ops[i, COUNT])
            from_, to = (int(a[i]) for a in (source, dst))
            k = int(np.argmax(layout.shape[from_ : from_ + count] != layout.shape[to : to + count]))
            has, takes = layout.names[from_ + k], layout.names[to + k]
            return f"chunk {k} of the {what} has the size of chunk {has}, its place that of chunk {takes}"

        yield from rows_at_fault(schedule, "V113", wrong, explain)


def _differ(
    shape: npt.NDArray[np.int32],
    a: npt.NDArray[np.int64],
    b: npt.NDArray[np.int64],
    count: npt.NDArray[np.int32],
) -> Mask:
    """Whether ``shape[a : a + count]`` and ``shape[b : b + count]`` differ, for each row."""
    result: Mask = np.zeros(a.size, np.bool_)
    if not a.size:
        return result
    result[:] = shape[a] != shape[b]
    long = np.flatnonzero(count > 1)
    # In parts, so that the expanded arrays stay small.
    ends = np.cumsum(count[long], dtype=np.int64)
    cuts = (
        np.searchsorted(ends, np.arange(1 << 20, ends[-1], 1 << 20)) if long.size else np.empty(0, np.int64)
    )
    for part in np.split(long, cuts):
        repeats = count[part].astype(np.int64)
        row = np.repeat(np.arange(part.size), repeats)
        k = np.arange(row.size) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        unequal = shape[a[part][row] + k] != shape[b[part][row] + k]
        result[part[row[unequal]]] = True
    return result


def _place_of(schedule: Schedule, row: int) -> tuple[int, int]:
    rank = int(np.searchsorted(schedule.offsets, row, side="right")) - 1
    return rank, row - int(schedule.offsets[rank])
