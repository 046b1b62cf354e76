"""Chrome trace events, which Perfetto (ui.perfetto.dev) and chrome://tracing show: one process per rank.

One step of unit time is drawn as one millisecond. Each rank has a line per direction, peer and channel; a
message is a bar on both ends with an arrow between them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pycomm.export.timeline import Message, unit_timeline
from pycomm.schedule import Schedule

__all__ = ["chrome_trace"]

_STEP_US = 1000

_Event = dict[str, Any]


def chrome_trace(schedule: Schedule) -> bytes:
    """Write the schedule's unit-time run as Chrome trace JSON.

    Raises
    ------
    ScheduleError
        If the schedule does not run to its end.
    """
    messages = unit_timeline(schedule).messages
    lanes = sorted({lane for message in messages for lane in _lanes(message)})
    lines: dict[tuple[int, int, int, int], int] = {}
    events: list[_Event] = []
    for rank in range(schedule.nranks):
        events.append(_named("process_name", rank, 0, f"rank {rank}"))
        events.append({"ph": "M", "name": "process_sort_index", "pid": rank, "args": {"sort_index": rank}})
    for lane in lanes:
        rank, is_recv, peer, channel = lane
        line = lines[lane] = sum(other[0] == rank for other in lines) + 1
        way = "from" if is_recv else "to"
        events.append(
            _named("thread_name", rank, line, f"{way} {peer}{f' channel {channel}' if channel else ''}")
        )
    for number, message in enumerate(messages):
        events.extend(_bars(number, message, *(lines[lane] for lane in _lanes(message))))
    other = {"schedule": schedule.name, "collective": schedule.kind.label, "digest": schedule.digest().hex()}
    return msgspec.json.encode({"displayTimeUnit": "ms", "otherData": other, "traceEvents": events}) + b"\n"


def _lanes(message: Message) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """(rank, is_recv, peer, channel) of the sender's and of the receiver's line."""
    return (message.src, 0, message.dst, message.channel), (message.dst, 1, message.src, message.channel)


def _named(what: str, rank: int, line: int, name: str) -> _Event:
    return {"ph": "M", "name": what, "pid": rank, "tid": line, "args": {"name": name}}


def _bars(number: int, message: Message, send_line: int, recv_line: int) -> tuple[_Event, ...]:
    begin, end = message.start * _STEP_US, (message.start + 1) * _STEP_US
    verb = "recv_reduce" if message.reduces else "recv"
    facts = {"chunks": message.chunks, "send_op": message.send_op, "recv_op": message.recv_op}
    sender = {"pid": message.src, "tid": send_line}
    receiver = {"pid": message.dst, "tid": recv_line}
    bar = {"ph": "X", "ts": begin, "dur": end - begin, "args": facts}
    # Each end of the arrow must lie inside its bar.
    arrow = {"id": number, "cat": "message", "name": "message"}
    return (
        {**bar, **sender, "name": f"send {message.what} to {message.dst}"},
        {**bar, **receiver, "name": f"{verb} from {message.src}"},
        {**arrow, **sender, "ph": "s", "ts": begin + _STEP_US // 10},
        {**arrow, **receiver, "ph": "f", "bp": "e", "ts": end - _STEP_US // 10},
    )
