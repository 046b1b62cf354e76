"""Small changes to a right schedule, most of which make it wrong: one generator per kind of change."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pycomm.schedule import OpKind, Schedule, Space
from pycomm.verify.structure import messages

__all__ = ["KINDS", "mutants"]

Rows = npt.NDArray[np.int32]
Change = Callable[[Schedule, random.Random], Schedule | None]

KIND, PEER, CHANNEL, SRC_SPACE, SRC_START, DST_SPACE, DST_START, COUNT = range(8)
_MESSAGES = (OpKind.SEND, OpKind.RECV, OpKind.RECV_REDUCE)


def _with_rows(schedule: Schedule, ops: Rows, owner: npt.NDArray[np.int64]) -> Schedule:
    order = np.argsort(owner, kind="stable")
    offsets = np.zeros(schedule.nranks + 1, np.int64)
    np.cumsum(np.bincount(owner, minlength=schedule.nranks), out=offsets[1:])
    return replace(schedule, ops=np.ascontiguousarray(ops[order]), offsets=offsets, _digest=[])


def _owners(schedule: Schedule) -> npt.NDArray[np.int64]:
    return np.repeat(np.arange(schedule.nranks), np.diff(schedule.offsets))


def _pick(schedule: Schedule, rng: random.Random, *kinds: OpKind, least: int = 0) -> int | None:
    """Row of one of the kinds (any kind when none is named) with at least ``least`` chunks."""
    ops = schedule.ops
    chosen = np.isin(ops[:, KIND], kinds or tuple(OpKind)) & (ops[:, COUNT] >= least)
    rows = np.flatnonzero(chosen)
    return int(rng.choice(rows)) if rows.size else None


def _edited(schedule: Schedule, row: int, **columns: int) -> Schedule:
    ops = schedule.ops.copy()
    for name, value in columns.items():
        ops[row, globals()[name.upper()]] = value
    return _with_rows(schedule, ops, _owners(schedule))


def _partner(schedule: Schedule, row: int) -> int:
    return int(messages(schedule)[1].partner[row])


def _drop(schedule: Schedule, rng: random.Random) -> Schedule | None:
    row = _pick(schedule, rng)
    if row is None:
        return None
    return _with_rows(schedule, np.delete(schedule.ops, row, axis=0), np.delete(_owners(schedule), row))


def _drop_message(schedule: Schedule, rng: random.Random) -> Schedule | None:
    row = _pick(schedule, rng, OpKind.SEND)
    if row is None:
        return None
    both = [row, _partner(schedule, row)]
    return _with_rows(schedule, np.delete(schedule.ops, both, axis=0), np.delete(_owners(schedule), both))


def _repeated(schedule: Schedule, rows: list[int]) -> Schedule:
    times = np.ones(len(schedule.ops), np.int64)
    times[rows] = 2
    return _with_rows(schedule, np.repeat(schedule.ops, times, axis=0), np.repeat(_owners(schedule), times))


def _duplicate(schedule: Schedule, rng: random.Random) -> Schedule | None:
    row = _pick(schedule, rng)
    return None if row is None else _repeated(schedule, [row])


def _duplicate_message(schedule: Schedule, rng: random.Random) -> Schedule | None:
    row = _pick(schedule, rng, OpKind.SEND)
    return None if row is None else _repeated(schedule, [row, _partner(schedule, row)])


def _swapped(schedule: Schedule, rng: random.Random, farthest: int) -> Schedule | None:
    row = _pick(schedule, rng)
    if row is None:
        return None
    rank = int(_owners(schedule)[row])
    last = min(row + farthest, int(schedule.offsets[rank + 1]) - 1)
    if last <= row:
        return None
    other = rng.randint(row + 1, last)
    ops = schedule.ops.copy()
    ops[[row, other]] = ops[[other, row]]
    return _with_rows(schedule, ops, _owners(schedule))


def _swap(schedule: Schedule, rng: random.Random) -> Schedule | None:
    return _swapped(schedule, rng, 1)


def _swap_far(schedule: Schedule, rng: random.Random) -> Schedule | None:
    return _swapped(schedule, rng, len(schedule.ops))


def _retarget_peer(schedule: Schedule, rng: random.Random) -> Schedule | None:
    row = _pick(schedule, rng, *_MESSAGES)
    return None if row is None else _edited(schedule, row, peer=rng.randrange(-1, schedule.nranks + 1))


def _widened(schedule: Schedule) -> Schedule:
    """One more channel, so that there always is another one."""
    return replace(schedule, channels=schedule.channels + 1, _digest=[])


def _other_channel(schedule: Schedule, row: int, rng: random.Random) -> int:
    return rng.choice([c for c in range(schedule.channels + 1) if c != schedule.ops[row, CHANNEL]])


def _retarget_channel(schedule: Schedule, rng: random.Random) -> Schedule | None:
    row = _pick(schedule, rng, *_MESSAGES)
    if row is None:
        return None
    return _edited(_widened(schedule), row, channel=_other_channel(schedule, row, rng))


def _move_message(schedule: Schedule, rng: random.Random) -> Schedule | None:
    """Both ends of a message on another channel."""
    row = _pick(schedule, rng, OpKind.SEND)
    if row is None:
        return None
    partner = _partner(schedule, row)
    channel = _other_channel(schedule, row, rng)
    return _edited(_edited(_widened(schedule), row, channel=channel), partner, channel=channel)


def _shift_source(schedule: Schedule, rng: random.Random) -> Schedule | None:
    row = _pick(schedule, rng, OpKind.COPY, OpKind.SEND, OpKind.REDUCE, OpKind.RECV_REDUCE, least=1)
    if row is None:
        return None
    return _edited(schedule, row, src_start=int(schedule.ops[row, SRC_START]) + rng.choice((-1, 1)))


def _shift_destination(schedule: Schedule, rng: random.Random) -> Schedule | None:
    row = _pick(schedule, rng, OpKind.COPY, OpKind.RECV, OpKind.REDUCE, OpKind.RECV_REDUCE, least=1)
    if row is None:
        return None
    return _edited(schedule, row, dst_start=int(schedule.ops[row, DST_START]) + rng.choice((-1, 1)))


def _shift_message(schedule: Schedule, rng: random.Random) -> Schedule | None:
    """Both ends of a message by one chunk."""
    row = _pick(schedule, rng, OpKind.SEND, least=1)
    if row is None:
        return None
    partner, by = _partner(schedule, row), rng.choice((-1, 1))
    ops = schedule.ops
    changed = _edited(schedule, row, src_start=int(ops[row, SRC_START]) + by)
    changed = _edited(changed, partner, dst_start=int(ops[partner, DST_START]) + by)
    if ops[partner, KIND] == OpKind.RECV_REDUCE:
        changed = _edited(changed, partner, src_start=int(ops[partner, SRC_START]) + by)
    return changed


def _other_space(schedule: Schedule, rng: random.Random) -> Schedule | None:
    row = _pick(schedule, rng, least=1)
    if row is None:
        return None
    column = rng.choice([c for c in (SRC_SPACE, DST_SPACE) if schedule.ops[row, c] >= 0])
    space = rng.choice([int(s) for s in Space if s != schedule.ops[row, column]])
    return _edited(schedule, row, **{"src_space" if column == SRC_SPACE else "dst_space": space})


def _forget_own_part(schedule: Schedule, rng: random.Random) -> Schedule | None:
    """REDUCE becomes COPY, RECV_REDUCE becomes RECV."""
    row = _pick(schedule, rng, OpKind.REDUCE, OpKind.RECV_REDUCE)
    if row is None:
        return None
    if schedule.ops[row, KIND] == OpKind.REDUCE:
        return _edited(schedule, row, kind=OpKind.COPY)
    return _edited(schedule, row, kind=OpKind.RECV, src_space=-1, src_start=-1)


def _combine_instead(schedule: Schedule, rng: random.Random) -> Schedule | None:
    """COPY becomes REDUCE, RECV becomes RECV_REDUCE with what was there."""
    row = _pick(schedule, rng, OpKind.COPY, OpKind.RECV, least=1)
    if row is None:
        return None
    ops = schedule.ops
    if ops[row, KIND] == OpKind.COPY:
        return _edited(schedule, row, kind=OpKind.REDUCE)
    where = {"src_space": int(ops[row, DST_SPACE]), "src_start": int(ops[row, DST_START])}
    return _edited(schedule, row, kind=OpKind.RECV_REDUCE, **where)


def _change_count(schedule: Schedule, rng: random.Random) -> Schedule | None:
    row = _pick(schedule, rng, least=1)
    if row is None:
        return None
    return _edited(schedule, row, count=int(schedule.ops[row, COUNT]) + rng.choice((-1, 1)))


def _change_message_count(schedule: Schedule, rng: random.Random) -> Schedule | None:
    row = _pick(schedule, rng, OpKind.SEND, least=1)
    if row is None:
        return None
    partner, count = _partner(schedule, row), int(schedule.ops[row, COUNT]) + rng.choice((-1, 1))
    return _edited(_edited(schedule, row, count=count), partner, count=count)


def _shrink_scratch(schedule: Schedule, rng: random.Random) -> Schedule | None:
    if not schedule.scratch.size:
        return None
    slot = rng.randrange(schedule.scratch.size)
    offsets = schedule.scratch_offsets - (schedule.scratch_offsets > slot)
    return replace(schedule, scratch=np.delete(schedule.scratch, slot), scratch_offsets=offsets, _digest=[])


def _rename_scratch(schedule: Schedule, rng: random.Random) -> Schedule | None:
    if not schedule.scratch.size:
        return None
    scratch = schedule.scratch.copy()
    scratch[rng.randrange(scratch.size)] += rng.choice((-1, 1))
    return replace(schedule, scratch=scratch, _digest=[])


def _lower_capacity(schedule: Schedule, rng: random.Random) -> Schedule | None:
    if schedule.capacity == 1:
        return None
    return replace(schedule, capacity=rng.randrange(1, schedule.capacity), _digest=[])


def _other_root(schedule: Schedule, rng: random.Random) -> Schedule | None:
    if not schedule.kind.is_rooted:
        return None
    return replace(
        schedule, root=rng.choice([r for r in range(schedule.nranks) if r != schedule.root]), _digest=[]
    )


KINDS: dict[str, Change] = {
    "drop op": _drop,
    "drop message": _drop_message,
    "duplicate op": _duplicate,
    "duplicate message": _duplicate_message,
    "swap neighbours": _swap,
    "swap far apart": _swap_far,
    "retarget peer": _retarget_peer,
    "retarget channel": _retarget_channel,
    "move message to channel": _move_message,
    "shift source": _shift_source,
    "shift destination": _shift_destination,
    "shift message": _shift_message,
    "other space": _other_space,
    "reduce -> copy": _forget_own_part,
    "copy -> reduce": _combine_instead,
    "change count": _change_count,
    "change message count": _change_message_count,
    "shrink scratch": _shrink_scratch,
    "rename scratch": _rename_scratch,
    "lower capacity": _lower_capacity,
    "other root": _other_root,
}


def mutants(schedule: Schedule, kind: str, number: int, seed: int = 0) -> Iterator[Schedule]:
    """Up to ``number`` different mutants of one kind, always the same for the same seed."""
    rng = random.Random(f"{seed} {kind}")
    seen = {schedule.digest()}
    for _ in range(3 * number):
        mutant = KINDS[kind](schedule, rng)
        if mutant is None:
            return
        if mutant.digest() not in seen:
            seen.add(mutant.digest())
            yield mutant
            if len(seen) > number:
                return
