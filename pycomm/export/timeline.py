"""When each message moves, if every message takes one step and everything else takes none.

A message that a rank sends at its time t arrives at t + 1; receiving it moves the receiver's time to that
arrival if it was earlier. The last arrival is the schedule's number of steps. Pictures, traces and tables are
drawn from this; prices are the business of cost and simulation.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import NamedTuple

from pycomm.errors import ScheduleError
from pycomm.schedule import OpKind, Schedule
from pycomm.schedule.text import format_span

__all__ = ["Message", "Timeline", "unit_timeline"]

_Lane = tuple[int, int, int]


class Message(NamedTuple):
    """One message, from op ``send_op`` of ``src`` to op ``recv_op`` of ``dst``.

    It leaves at ``start`` and arrives at ``start + 1``; ``taken`` is the receiver's time once it has it.
    ``chunks`` is how many chunks it carries, ``what`` their span at the sender.
    """

    start: int
    src: int
    dst: int
    channel: int
    send_op: int
    recv_op: int
    taken: int
    chunks: int
    what: str
    reduces: bool


class Timeline(NamedTuple):
    """A schedule in unit time.

    Attributes
    ----------
    steps
        Time of the last arrival.
    messages
        Every message, by start, source, destination, channel.
    times
        ``times[rank][op]``: the rank's time when it was done with that op.
    """

    steps: int
    messages: tuple[Message, ...]
    times: tuple[tuple[int, ...], ...]


def unit_timeline(schedule: Schedule) -> Timeline:
    """Run the schedule in unit time; channels hold any number of messages.

    Raises
    ------
    ScheduleError
        If a rank waits for a message that never comes, or a message is never received.
    """
    programs = [schedule.program(rank).tolist() for rank in range(schedule.nranks)]
    times: list[list[int]] = [[] for _ in programs]
    clocks = [0] * schedule.nranks
    lanes: defaultdict[_Lane, deque[tuple[int, int, str]]] = defaultdict(deque)
    waiting: dict[_Lane, int] = {}
    messages: list[Message] = []
    ready = list(reversed(range(schedule.nranks)))
    while ready:
        rank = ready.pop()
        program = programs[rank]
        while (op := len(times[rank])) < len(program):
            kind, peer, channel, src_space, src_start, _, _, count = program[op]
            if kind == OpKind.SEND:
                lane = (rank, peer, channel)
                lanes[lane].append((clocks[rank], op, format_span(src_space, src_start, count)))
                if lane in waiting:
                    ready.append(waiting.pop(lane))
            elif kind in (OpKind.RECV, OpKind.RECV_REDUCE):
                lane = (peer, rank, channel)
                if not lanes[lane]:
                    waiting[lane] = rank
                    break
                start, send_op, what = lanes[lane].popleft()
                clocks[rank] = taken = max(clocks[rank], start + 1)
                reduces = kind == OpKind.RECV_REDUCE
                messages.append(Message(start, peer, rank, channel, send_op, op, taken, count, what, reduces))
            times[rank].append(clocks[rank])
    _require_ended(programs, times, lanes)
    messages.sort()
    steps = max((message.start + 1 for message in messages), default=0)
    return Timeline(steps, tuple(messages), tuple(map(tuple, times)))


def _require_ended(
    programs: list[list[list[int]]],
    times: list[list[int]],
    lanes: dict[_Lane, deque[tuple[int, int, str]]],
) -> None:
    for rank, (program, done) in enumerate(zip(programs, times, strict=True)):
        if len(done) < len(program):
            source = program[len(done)][1]
            problem = f"rank {rank} waits in op {len(done)} for a message from rank {source} for ever"
            break
    else:
        left = [lane for lane, queue in sorted(lanes.items()) if queue]
        if not left:
            return
        problem = f"rank {left[0][1]} never receives a message that rank {left[0][0]} sends it"
    raise ScheduleError(f"the schedule does not run to its end: {problem}; verify it to see every finding")
