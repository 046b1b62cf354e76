"""A second opinion on schedules: a slow interpreter that tracks every contribution exactly.

It shares nothing with the verifier but the definition of the table. Ranks run one op after the other, sends
are posted, channels are queues of bounded length. A chunk's value is the global chunk that it stands for and
how often each rank's contribution is in it, as digits of one long integer. What it refuses, it names in one
sentence.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pycomm.collectives.spec import buffer_chunks, equal_form, input_chunks, output_chunks
from pycomm.planner.base import PlanCost
from pycomm.schedule import OpKind, Schedule, Space
from pycomm.types import CollectiveKind

__all__ = ["Refused", "interpret"]

DIGIT = 32
_INPUT_NAMED = (CollectiveKind.REDUCE_SCATTER, CollectiveKind.SCATTER)
_WRITES = (OpKind.COPY, OpKind.RECV, OpKind.REDUCE, OpKind.RECV_REDUCE)
_RECEIVES = (OpKind.RECV, OpKind.RECV_REDUCE)


class Refused(Exception):
    """The schedule does not do what its collective means."""


class Value(NamedTuple):
    """What lies in a chunk: which global chunk, and the contributions in it."""

    chunk: int
    ranks: int


@dataclass(eq=False)
class Message:
    """A message under way, and who read it when."""

    values: list[Value | None]
    clock: npt.NDArray[np.int64]
    time: int
    reader: tuple[int, int] | None = None


@dataclass
class Rank:
    """One rank while it runs."""

    memory: dict[int, list[Value | None]]
    names: dict[int, list[int]]
    clock: npt.NDArray[np.int64]
    at: int = 0
    time: int = 0
    sent: int = 0
    received: int = 0
    reduced: int = 0
    messages_out: int = 0
    messages_in: int = 0
    lent: dict[tuple[int, int], list[Message]] = field(default_factory=lambda: defaultdict(list))


def interpret(schedule: Schedule) -> PlanCost:
    """Run the schedule on symbols.

    Returns
    -------
    PlanCost
        Counted on the run: steps, chunks and messages (``fill`` is not counted).

    Raises
    ------
    Refused
        At the first thing that is wrong: a span out of range, a read of nothing, lent memory overwritten,
        contributions missing or counted twice, messages nobody takes, programs that do not end.
    """
    ranks = [_start(schedule, r) for r in range(schedule.nranks)]
    programs = [schedule.program(r).tolist() for r in range(schedule.nranks)]
    channels: dict[tuple[int, int, int], deque[Message]] = defaultdict(deque)
    moved = True
    while moved:
        moved = False
        for r, state in enumerate(ranks):
            while state.at < len(programs[r]) and _run(schedule, r, programs[r][state.at], ranks, channels):
                state.at += 1
                moved = True
    for r, state in enumerate(ranks):
        if state.at < len(programs[r]):
            raise Refused(f"rank {r} never gets past op {state.at}: {programs[r][state.at]}")
    left = [lane for lane, queue in channels.items() if queue]
    if left:
        raise Refused(f"messages that nobody takes on (source, destination, channel) {left[:3]}")
    for r, state in enumerate(ranks):
        _judge(schedule, r, state)
    return PlanCost(
        steps=max(state.time for state in ranks),
        sent=max(state.sent for state in ranks),
        received=max(state.received for state in ranks),
        total=sum(state.sent for state in ranks),
        reduced=max(state.reduced for state in ranks),
        messages=max(max(state.messages_out, state.messages_in) for state in ranks),
    )


def _start(schedule: Schedule, rank: int) -> Rank:
    where = (schedule.kind, schedule.nranks, schedule.root, schedule.pieces, rank)
    given = [Value(int(c), 1 << (DIGIT * rank)) for c in input_chunks(*where)]
    inputs, outputs = input_chunks(*where).tolist(), output_chunks(*where).tolist()
    if schedule.in_place:
        named = Space.INPUT if equal_form(schedule.kind) in _INPUT_NAMED else Space.OUTPUT
        buffer = buffer_chunks(*where).tolist()
        inputs, outputs = (buffer, []) if named is Space.INPUT else ([], buffer)
        start = _natural(schedule, rank, schedule.kind, CollectiveKind.ALLGATHER, CollectiveKind.GATHER)
        whole: list[Value | None] = [None] * len(buffer)
        whole[start : start + len(given)] = given
        memory = {Space.INPUT: whole, Space.OUTPUT: []}
        if named is Space.OUTPUT:
            memory = {Space.INPUT: [], Space.OUTPUT: whole}
    else:
        memory = {Space.INPUT: list(given), Space.OUTPUT: [None] * len(outputs)}
    slots = schedule.scratch_slots(rank).tolist()
    memory[Space.SCRATCH] = [None] * len(slots)
    names = {Space.INPUT: inputs, Space.OUTPUT: outputs, Space.SCRATCH: slots}
    return Rank(
        {int(k): v for k, v in memory.items()},
        {int(k): v for k, v in names.items()},
        np.zeros(schedule.nranks, np.int64),
    )


def _natural(schedule: Schedule, rank: int, kind: CollectiveKind, every: object, rooted: object) -> int:
    """Index where block ``rank`` starts in the one buffer of an in-place schedule."""
    form = equal_form(kind)
    if form is every or (form is rooted and rank == schedule.root):
        return rank * schedule.pieces
    return 0


def _run(
    schedule: Schedule,
    r: int,
    row: list[int],
    ranks: list[Rank],
    channels: dict[tuple[int, int, int], deque[Message]],
) -> bool:
    """Run one op; False when it has to wait."""
    kind, peer, channel, src_space, src_start, dst_space, dst_start, count = row
    state = ranks[r]
    where = f"rank {r} op {state.at} {row}"
    if kind in (OpKind.SEND, *_RECEIVES):
        if not (0 <= peer < schedule.nranks and peer != r and 0 <= channel < schedule.channels):
            raise Refused(f"{where}: no such peer or channel")
        queue = channels[(r, peer, channel) if kind == OpKind.SEND else (peer, r, channel)]
        if len(queue) == schedule.capacity if kind == OpKind.SEND else not queue:
            return False
    state.clock[r] += 1
    source = _read(state, src_space, src_start, count, where) if src_space >= 0 else []
    if kind == OpKind.SEND:
        message = Message(source, state.clock.copy(), state.time + 1)
        for i in range(src_start, src_start + count):
            state.lent[src_space, i].append(message)
        queue.append(message)
        state.sent += count
        state.messages_out += 1
        return True
    if kind in _RECEIVES:
        message = queue.popleft()
        message.reader = (r, int(state.clock[r]))
        np.maximum(state.clock, message.clock, out=state.clock)
        state.time = max(state.time, message.time)
        state.received += count
        state.messages_in += 1
        if len(message.values) != count:
            raise Refused(f"{where}: the message has {len(message.values)} chunks")
        source = (
            message.values
            if kind == OpKind.RECV
            else [_add(a, b, where) for a, b in zip(source, message.values, strict=True)]
        )
    elif kind == OpKind.REDUCE:
        old = _read(state, dst_space, dst_start, count, where)
        source = [_add(a, b, where) for a, b in zip(old, source, strict=True)]
    state.reduced += count if kind in (OpKind.REDUCE, OpKind.RECV_REDUCE) else 0
    if count:
        _write(schedule, state, dst_space, dst_start, source, where)
    return True


def _add(a: Value | None, b: Value | None, where: str) -> Value:
    if a is None or b is None or a.chunk != b.chunk:
        raise Refused(f"{where}: combines {a} with {b}")
    return Value(a.chunk, a.ranks + b.ranks)


def _read(state: Rank, space: int, start: int, count: int, where: str) -> list[Value | None]:
    memory = state.memory[space]
    if start < 0 or count < 1 or start + count > len(memory):
        raise Refused(f"{where}: reads chunks {start}..{start + count} of {len(memory)}")
    values = memory[start : start + count]
    if None in values:
        raise Refused(f"{where}: reads what was never written")
    return values


def _write(
    schedule: Schedule, state: Rank, space: int, start: int, values: list[Value | None], where: str
) -> None:
    names = state.names[space]
    if start < 0 or start + len(values) > len(names):
        raise Refused(f"{where}: writes chunks {start}..{start + len(values)} of {len(names)}")
    if space == Space.INPUT and not schedule.in_place:
        raise Refused(f"{where}: writes INPUT")
    for i, value in enumerate(values, start):
        if value is None or value.chunk != names[i]:
            raise Refused(f"{where}: {value} does not fit where chunk {names[i]} belongs")
        for message in state.lent.pop((space, i), ()):
            reader = message.reader
            if reader is None or state.clock[reader[0]] < reader[1]:
                raise Refused(f"{where}: overwrites memory that is lent to a send")
    state.memory[space][start : start + len(values)] = values


def _judge(schedule: Schedule, rank: int, state: Rank) -> None:
    where = (schedule.kind, schedule.nranks, schedule.root, schedule.pieces, rank)
    form = equal_form(schedule.kind)
    wanted = output_chunks(*where).tolist()
    space, start = Space.OUTPUT, 0
    if schedule.in_place:
        if form in _INPUT_NAMED:
            space = Space.INPUT
        start = _natural(schedule, rank, schedule.kind, CollectiveKind.REDUCE_SCATTER, CollectiveKind.SCATTER)
        if not wanted and form in (CollectiveKind.REDUCE, CollectiveKind.GATHER):
            kept = [Value(int(c), 1 << (DIGIT * rank)) for c in input_chunks(*where)]
            if state.memory[space] != kept:
                raise Refused(f"rank {rank} has no result but its buffer changed")
    everyone = sum(1 << (DIGIT * r) for r in range(schedule.nranks))
    for i, chunk in enumerate(wanted):
        value = state.memory[space][start + i]
        if form is CollectiveKind.BARRIER:
            heard = 0 if value is None else value.ranks
            missing = [r for r in range(schedule.nranks) if not (heard >> (DIGIT * r)) % (1 << DIGIT)]
            if missing:
                raise Refused(f"rank {rank} leaves the barrier without {missing}")
            continue
        if form.reduces:
            right = everyone
        elif form is CollectiveKind.ALLTOALL:
            right = 1 << (DIGIT * (chunk // (schedule.nranks * schedule.pieces)))
        elif form.is_rooted and form is not CollectiveKind.GATHER:
            right = 1 << (DIGIT * schedule.root)
        else:
            right = 1 << (DIGIT * (chunk // schedule.pieces))
        if value != Value(chunk, right):
            raise Refused(f"rank {rank} result chunk {chunk}: {value}, wanted {Value(chunk, right)}")
