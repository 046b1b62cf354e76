"""A schedule as the messages and combinations that wait for one another, whatever the bytes and the links.

::

    rank 0   SEND a -> 1                       message 0 -> 1 (a)
    rank 1   RECV_REDUCE a from 0      =>          |
             SEND a -> 2                       combination at 1
    rank 2   RECV a from 1                         |
                                               message 1 -> 2 (a)

A send waits for whatever wrote the chunks that it reads; that it stands behind another send in its program
does not hold it up, since the engine overlaps what touches different memory. Writes do not wait for earlier
reads here: planners use new memory for new data, so such waits are rare, and short.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import NamedTuple

from pycomm.errors import ScheduleError
from pycomm.schedule import OpKind, Schedule

__all__ = ["Dataflow", "dataflow"]

_Lane = tuple[int, int, int]


class Dataflow(NamedTuple):
    """What happens, each thing after all that it waits for.

    Attributes
    ----------
    src, dst
        Ends of each message; equal where a rank combines or copies.
    chunks
        How many it moves; 0 for a signal.
    combines
        Whether the rank combines two arrays.
    waits
        What has to come before.
    """

    src: list[int]
    dst: list[int]
    chunks: list[int]
    combines: list[bool]
    waits: list[tuple[int, ...]]


class _Ranks:
    """Who wrote each chunk of each rank last."""

    def __init__(self, schedule: Schedule) -> None:
        self.flow = Dataflow([], [], [], [], [])
        self.writers: list[dict[int, list[int]]] = [{} for _ in range(schedule.nranks)]
        self.arrived: list[list[int]] = [[] for _ in range(schedule.nranks)]

    def add(self, src: int, dst: int, chunks: int, combines: bool, waits: set[int]) -> int:
        flow = self.flow
        flow.src.append(src)
        flow.dst.append(dst)
        flow.chunks.append(chunks)
        flow.combines.append(combines)
        flow.waits.append(tuple(sorted(waits)))
        return len(flow.src) - 1

    def wrote(self, rank: int, space: int, start: int, count: int) -> set[int]:
        known = self.writers[rank].get(space)
        if known is None:
            return set()
        found = set(known[start : start + count])
        found.discard(-1)
        return found

    def write(self, rank: int, space: int, start: int, count: int, by: int) -> None:
        known = self.writers[rank].setdefault(space, [])
        if len(known) < start + count:
            known.extend([-1] * (start + count - len(known)))
        known[start : start + count] = [by] * count

    def copy(self, rank: int, row: list[int]) -> None:
        """Perform a COPY: what its source waited for, its target does."""
        _, _, _, src_space, src_start, dst_space, dst_start, count = row
        known = self.writers[rank].get(src_space, [])[src_start : src_start + count]
        known += [-1] * (count - len(known))
        self.write(rank, dst_space, dst_start, count, -1)
        self.writers[rank][dst_space][dst_start : dst_start + count] = known


def dataflow(schedule: Schedule) -> Dataflow:
    """Follow a schedule's chunks.

    Raises
    ------
    ScheduleError
        A rank waits for a message that never comes.
    """
    programs = [schedule.program(rank).tolist() for rank in range(schedule.nranks)]
    at = [0] * schedule.nranks
    ranks = _Ranks(schedule)
    lanes: defaultdict[_Lane, deque[int]] = defaultdict(deque)
    waiting: dict[_Lane, int] = {}
    ready = list(reversed(range(schedule.nranks)))
    while ready:
        rank = ready.pop()
        program = programs[rank]
        while at[rank] < len(program):
            row = program[at[rank]]
            kind, peer, channel = row[:3]
            if kind == OpKind.SEND:
                lane = (rank, peer, channel)
                lanes[lane].append(_send(ranks, rank, row))
                if lane in waiting:
                    ready.append(waiting.pop(lane))
            elif kind in (OpKind.RECV, OpKind.RECV_REDUCE):
                lane = (peer, rank, channel)
                if not lanes[lane]:
                    waiting[lane] = rank
                    break
                _receive(ranks, rank, row, lanes[lane].popleft())
            else:
                _work(ranks, rank, row)
            at[rank] += 1
    for rank, program in enumerate(programs):
        if at[rank] < len(program):
            raise ScheduleError(f"rank {rank} waits in op {at[rank]} for a message that never comes")
    return ranks.flow


def _send(ranks: _Ranks, rank: int, row: list[int]) -> int:
    _, peer, _, space, start, _, _, count = row
    waits = ranks.wrote(rank, space, start, count) if count else set(ranks.arrived[rank])
    return ranks.add(rank, peer, count, False, waits)


def _receive(ranks: _Ranks, rank: int, row: list[int], message: int) -> None:
    kind, _, _, src_space, src_start, dst_space, dst_start, count = row
    if not count:
        ranks.arrived[rank].append(message)
        return
    done = message
    if kind == OpKind.RECV_REDUCE:
        waits = ranks.wrote(rank, src_space, src_start, count)
        done = ranks.add(rank, rank, count, True, {message, *waits})
    ranks.write(rank, dst_space, dst_start, count, done)
    ranks.arrived[rank].append(done)


def _work(ranks: _Ranks, rank: int, row: list[int]) -> None:
    kind, _, _, src_space, src_start, dst_space, dst_start, count = row
    if kind == OpKind.COPY:
        ranks.copy(rank, row)
        return
    waits = ranks.wrote(rank, src_space, src_start, count) | ranks.wrote(rank, dst_space, dst_start, count)
    done = ranks.add(rank, rank, count, True, waits)
    ranks.write(rank, dst_space, dst_start, count, done)
