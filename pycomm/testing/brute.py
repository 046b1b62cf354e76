"""A third opinion on schedules, by brute force: run it on exact multisets under one timing of everything.

Nothing is inferred: ranks take turns as a seed says, each message is copied out of its sender's memory at
once, as late as possible or at some moment in between, and at the end the results are compared. A schedule
that is right is right under every timing; one that is wrong shows it under some. Meant for small schedules.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from pycomm.collectives.spec import buffer_chunks, equal_form, input_chunks, output_chunks
from pycomm.schedule import Op, OpKind, Schedule, Space, Span
from pycomm.types import CollectiveKind

__all__ = ["Timing", "fails_under", "fault"]

Timing = Literal["early", "late", "random"]
Value = Counter[tuple[int, int]]  # (rank, chunk) -> how often
_INPUT_NAMED = (CollectiveKind.REDUCE_SCATTER, CollectiveKind.SCATTER)
_EVERYWHERE = {
    CollectiveKind.ALLREDUCE,
    CollectiveKind.REDUCE,
    CollectiveKind.REDUCE_SCATTER,
    CollectiveKind.BARRIER,
}


class _Wrong(Exception):
    """A verdict on its way to the caller."""


@dataclass(eq=False)
class _Message:
    sender: int
    span: Span | None
    values: list[Value | None] | None = None


@dataclass
class _World:
    schedule: Schedule
    memory: list[dict[Space, list[Value | None]]]
    lanes: dict[tuple[int, int, int], deque[_Message]] = field(default_factory=lambda: defaultdict(deque))
    unread: list[_Message] = field(default_factory=list)

    def read(self, rank: int, span: Span | None) -> list[Value | None]:
        if span is None:
            return []
        cells = self.memory[rank][span.space]
        if span.start < 0 or span.count < 1 or span.start + span.count > len(cells):
            raise _Wrong("a span reaches out of its space")
        return cells[span.start : span.start + span.count]

    def write(self, rank: int, span: Span | None, values: list[Value | None]) -> None:
        if len(self.read(rank, span)) != len(values):
            raise _Wrong("lengths differ")
        if span is not None:
            if span.space is Space.INPUT and not self.schedule.in_place:
                raise _Wrong("INPUT is written")
            self.memory[rank][span.space][span.start : span.start + span.count] = values

    def take(self, message: _Message) -> list[Value | None]:
        if message.values is None:
            message.values = self.read(message.sender, message.span)
            if message in self.unread:
                self.unread.remove(message)
        return message.values


def _buffer(schedule: Schedule) -> Space:
    return Space.INPUT if equal_form(schedule.kind) in _INPUT_NAMED else Space.OUTPUT


def _own_block(schedule: Schedule, rank: int, *kinds: CollectiveKind) -> int:
    """Index of the rank's block in an in-place buffer that holds the blocks of all ranks."""
    form = equal_form(schedule.kind)
    holds_all = form in kinds and (not form.is_rooted or rank == schedule.root)
    return rank * schedule.pieces if holds_all else 0


def _start(schedule: Schedule, rank: int) -> dict[Space, list[Value | None]]:
    where = (schedule.kind, schedule.nranks, schedule.root, schedule.pieces, rank)
    given: list[Value | None] = [Counter({(rank, int(c)): 1}) for c in input_chunks(*where)]
    memory: dict[Space, list[Value | None]] = {
        Space.INPUT: given,
        Space.OUTPUT: [None] * len(output_chunks(*where)),
        Space.SCRATCH: [None] * len(schedule.scratch_slots(rank)),
    }
    if schedule.in_place:
        whole: list[Value | None] = [None] * len(buffer_chunks(*where))
        start = _own_block(schedule, rank, CollectiveKind.ALLGATHER, CollectiveKind.GATHER)
        whole[start : start + len(given)] = given
        memory[Space.INPUT] = memory[Space.OUTPUT] = []
        memory[_buffer(schedule)] = whole
    return memory


def _added(a: Iterable[Value | None], b: Iterable[Value | None]) -> list[Value | None]:
    return [None if x is None or y is None else x + y for x, y in zip(a, b, strict=True)]


def _carry_out(world: _World, rank: int, op: Op, timing: Timing, rng: random.Random) -> bool:
    """Do one op; ``False`` when it has to wait."""
    schedule = world.schedule
    if op.kind is OpKind.SEND:
        lane = world.lanes[rank, op.peer, op.channel]
        if len(lane) >= schedule.capacity:
            return False
        message = _Message(rank, op.src)
        lane.append(message)
        world.unread.append(message)
        if timing == "early" or (timing == "random" and rng.random() < 0.3):
            world.take(message)
        return True
    if op.kind in (OpKind.RECV, OpKind.RECV_REDUCE):
        lane = world.lanes[op.peer, rank, op.channel]
        if not lane:
            return False
        arrived = world.take(lane.popleft())
        if op.kind is OpKind.RECV_REDUCE:
            own = world.read(rank, op.src)
            if len(own) != len(arrived):
                raise _Wrong("lengths differ")
            arrived = _added(own, arrived)
        world.write(rank, op.dst, arrived)
        return True
    values = world.read(rank, op.src)
    if op.kind is OpKind.REDUCE:
        own = world.read(rank, op.dst)
        if len(own) != len(values):
            raise _Wrong("lengths differ")
        values = _added(own, values)
    world.write(rank, op.dst, values)
    return True


def _judge(world: _World) -> str | None:
    schedule = world.schedule
    if any(world.lanes.values()):
        return "a message is left over"
    form = equal_form(schedule.kind)
    everyone = range(schedule.nranks)
    for rank in everyone:
        where = (schedule.kind, schedule.nranks, schedule.root, schedule.pieces, rank)
        wanted = output_chunks(*where).tolist()
        start, space = 0, Space.OUTPUT
        if schedule.in_place:
            space = _buffer(schedule)
            start = _own_block(schedule, rank, CollectiveKind.REDUCE_SCATTER, CollectiveKind.SCATTER)
            if not wanted and world.memory[rank][space] != _start(schedule, rank)[space]:
                return f"rank {rank} has no result, but its buffer changed"
        for i, chunk in enumerate(wanted, start):
            value = world.memory[rank][space][i]
            if value is None:
                return f"rank {rank} lacks chunk {chunk}"
            if form is CollectiveKind.BARRIER:
                if {r for r, _ in value} != set(everyone):
                    return f"rank {rank} leaves the barrier too early"
            elif value != Counter({(r, chunk): 1 for r in _contributors(schedule, chunk)}):
                return f"rank {rank} holds a wrong chunk {chunk}"
    return None


def _contributors(schedule: Schedule, chunk: int) -> Iterable[int]:
    form = equal_form(schedule.kind)
    if form in _EVERYWHERE:
        return range(schedule.nranks)
    if form in (CollectiveKind.BROADCAST, CollectiveKind.SCATTER):
        return (schedule.root,)
    block = chunk // schedule.pieces
    return (block // schedule.nranks if form is CollectiveKind.ALLTOALL else block,)


def fault(schedule: Schedule, timing: Timing, seed: int = 0, lazy: int = -1) -> str | None:
    """Run once.

    Parameters
    ----------
    schedule
        Its table must be well formed.
    timing
        When messages are copied out of their sender's memory.
    seed
        Decides who takes the next turn (0: as in a round) and, with ``"random"``, when messages are read.
    lazy
        A rank that does nothing while any other can go on, -1 for none.

    Returns
    -------
    str or None
        What is wrong at the end, ``None`` when all is right.
    """
    rng = random.Random(seed)
    world = _World(schedule, [_start(schedule, r) for r in range(schedule.nranks)])
    programs = [list(schedule.ops_of(r)) for r in range(schedule.nranks)]
    at = [0] * schedule.nranks

    def turn(rank: int, budget: int) -> bool:
        before = at[rank]
        while at[rank] < min(len(programs[rank]), before + budget):
            if not _carry_out(world, rank, programs[rank][at[rank]], timing, rng):
                break
            at[rank] += 1
        if timing == "random" and world.unread and rng.random() < 0.5:
            world.take(rng.choice(world.unread))
        return at[rank] > before

    try:
        moved = True
        while moved:
            order = [r for r in range(schedule.nranks) if r != lazy]
            if seed:
                rng.shuffle(order)
            moved = any([turn(r, rng.choice((1, 1, 2, 5, 1000)) if seed else 1) for r in order])
            if not moved and lazy >= 0:
                moved = turn(lazy, 1)
    except _Wrong as verdict:
        return str(verdict)
    if any(at[r] < len(programs[r]) for r in range(schedule.nranks)):
        return "some rank waits forever"
    return _judge(world)


def fails_under(schedule: Schedule, tries: int = 6) -> str | None:
    """Try both extreme timings, each rank as the laziest, and random ones; the first fault, or ``None``."""
    plans: list[tuple[Timing, int, int]] = [("early", 0, -1), ("late", 0, -1)]
    plans += [("late", 0, lazy) for lazy in range(schedule.nranks)]
    plans += [(timing, seed, -1) for seed in range(1, tries + 1) for timing in ("random", "late")]
    for timing, seed, lazy in plans:
        found = fault(schedule, timing, seed, lazy)
        if found is not None:
            return f"{found} (messages read {timing}, seed {seed}, laziest rank {lazy})"
    return None
