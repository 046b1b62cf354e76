"""Graphviz DOT: who talks to whom, how often, how much and when."""

from __future__ import annotations

from collections import defaultdict

from pycomm.export.timeline import Message, unit_timeline
from pycomm.schedule import Schedule

__all__ = ["dot"]


def dot(schedule: Schedule) -> bytes:
    """Write a directed graph: ranks, and an edge per source, destination and channel.

    An edge is labelled with its messages, their chunks and the steps of its first and last.

    Raises
    ------
    ScheduleError
        If the schedule does not run to its end.
    """
    edges: defaultdict[tuple[int, int, int], list[Message]] = defaultdict(list)
    for message in unit_timeline(schedule).messages:
        edges[message.src, message.dst, message.channel].append(message)
    title = f"{schedule.name} {schedule.kind.label}, {schedule.nranks} ranks"
    lines = [
        "digraph schedule {",
        f"  label={_quoted(title)};",
        "  node [shape=circle];",
        *(
            f"  {rank}{' [shape=doublecircle]' if rank == schedule.root else ''};"
            for rank in range(schedule.nranks)
        ),
    ]
    for (src, dst, channel), messages in sorted(edges.items()):
        first, last = messages[0].start, messages[-1].start
        label = (
            f"{_counted(len(messages), 'message')}, {_counted(sum(m.chunks for m in messages), 'chunk')}\n"
            f"step {first}{f' to {last}' if last > first else ''}{f', channel {channel}' if channel else ''}"
        )
        lines.append(f"  {src} -> {dst} [label={_quoted(label)}];")
    return ("\n".join(lines) + "\n}\n").encode()


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
