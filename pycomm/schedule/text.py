"""The text form of a schedule: what people read, write and compare.

::

    schedule 1
    name ring
    collective reduce_scatter
    ranks 2
    pieces 1
    capacity 1

    rank 0 scratch 1
      recv scratch[0] from 1
      send input[1] to 1
      recv_reduce output[0] with input[0] from 1 on 2
      copy input[0:2] to output[0:2]
      reduce scratch[0] into output[0]
    rank 1
      send nothing to 0
      ...

A span is ``space[index]`` or ``space[start:end]`` in chunks. ``on`` names the channel, 0 where it is missing;
``with`` names the local operand of recv_reduce, the destination where it is missing. ``nothing`` is a message
of no chunks. ``scratch`` lists the global chunk of each slot, ``a:b`` for a run. Of the head, ``root``,
``in_place``, ``channels`` and ``capacity`` may be left out (none, no, 1, 1). Text after ``#`` is a comment. A
row that says something no sentence can say (only a wrong schedule has one) is written as ``row`` and its
eight numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pycomm.errors import UsageError
from pycomm.schedule.codec import assemble, malformed
from pycomm.schedule.ir import FORMAT_VERSION, NCOLUMNS, OpKind, Schedule, Space
from pycomm.types import CollectiveKind

__all__ = ["format_op", "format_schedule", "format_span", "parse_schedule"]

Row = list[int]

_SPACES: Final = tuple(space.name.lower() for space in Space)
_VERBS: Final = {kind.name.lower(): kind for kind in OpKind}
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_.+-]+")
_SPAN: Final = re.compile(r"([a-z]+)\[([0-9]{1,10})(?::([0-9]{1,10}))?\]")
_RUN: Final = re.compile(r"(-?[0-9]{1,10})(?::([0-9]{1,10}))?")
_NUMBER: Final = re.compile(r"-?[0-9]{1,10}")
_NOTHING: Final = (-1, -1, 0)
_LONGEST_RUN: Final = 2**24
_LOW: Final = -(2**31)
_HIGH: Final = 2**31 - 1


def format_span(space: int, start: int, count: int) -> str:
    """Print a span, e.g. ``output[0:4]``; ``nothing`` for a message of no chunks."""
    if space < 0:
        return "nothing"
    return f"{_SPACES[space]}[{start}]" if count == 1 else f"{_SPACES[space]}[{start}:{start + count}]"


def format_op(row: Row) -> str:
    """Print one row of a program as a sentence."""
    if not _is_sayable(row):
        return "row " + " ".join(map(str, row))
    kind, peer, channel, src_space, src_start, dst_space, dst_start, count = row
    src, dst = format_span(src_space, src_start, count), format_span(dst_space, dst_start, count)
    on = f" on {channel}" if channel else ""
    match OpKind(kind):
        case OpKind.COPY:
            return f"copy {src} to {dst}"
        case OpKind.SEND:
            return f"send {src} to {peer}{on}"
        case OpKind.RECV:
            return f"recv {dst} from {peer}{on}"
        case OpKind.REDUCE:
            return f"reduce {src} into {dst}"
        case OpKind.RECV_REDUCE:
            operand = "" if src == dst else f" with {src}"
            return f"recv_reduce {dst}{operand} from {peer}{on}"


def format_schedule(schedule: Schedule) -> str:
    """Print a whole schedule; :func:`parse_schedule` reads it back.

    Raises
    ------
    UsageError
        If the schedule's tables do not fit together.
    """
    if problem := malformed(schedule):
        raise UsageError(f"the schedule's tables do not fit together: {problem}")
    name = schedule.name
    lines = [
        f"schedule {FORMAT_VERSION}",
        f"name {name if _PLAIN_NAME.fullmatch(name) else json.dumps(name)}",
        f"collective {schedule.kind.label}",
        f"ranks {schedule.nranks}",
        *([f"root {schedule.root}"] if schedule.root != -1 else []),
        f"pieces {schedule.pieces}",
        *(["in_place yes"] if schedule.in_place else []),
        *([f"channels {schedule.channels}"] if schedule.channels != 1 else []),
        f"capacity {schedule.capacity}",
        "",
    ]
    for rank in range(schedule.nranks):
        slots = _format_runs(schedule.scratch_slots(rank).tolist())
        lines.append(f"rank {rank}{slots and ' scratch ' + slots}")
        lines.extend(f"  {format_op(row)}" for row in schedule.program(rank).tolist())
    return "\n".join(lines) + "\n"


def parse_schedule(text: str) -> Schedule:
    """Read the text form.

    Raises
    ------
    UsageError
        If a line does not fit; the message has its number, what was expected and what was found.
    """
    lines = _lines(text)
    head, first = _parse_head(lines)
    nranks = head["ranks"]
    programs: list[npt.NDArray[np.int32]] = []
    scratch: list[npt.NDArray[np.int32]] = []
    line: _Line | None = first
    while line is not None:
        if len(programs) == nranks:
            raise line.error(f"nothing after rank {nranks - 1}, the last of {nranks}")
        scratch.append(_parse_rank(line, len(programs)))
        rows, line = _parse_rows(lines)
        programs.append(rows)
    if len(programs) != nranks:
        raise UsageError(
            f"the text ends after rank {len(programs) - 1}; expected the programs of {nranks} ranks"
        )
    return assemble(
        name=head["name"],
        kind=head["collective"],
        nranks=nranks,
        root=head["root"],
        pieces=head["pieces"],
        in_place=head["in_place"],
        channels=head["channels"],
        capacity=head["capacity"],
        programs=programs,
        scratch=scratch,
    )


def _is_sayable(row: Row) -> bool:
    kind, peer, channel, src_space, src_start, dst_space, dst_start, count = row
    if not 0 <= kind < len(OpKind):
        return False
    is_message = kind in (OpKind.SEND, OpKind.RECV, OpKind.RECV_REDUCE)
    if (is_message and min(peer, channel) < 0) or (not is_message and (peer, channel) != (-1, -1)):
        return False
    if is_message and (src_space, src_start, dst_space, dst_start, count) == (-1, -1, -1, -1, 0):
        return True
    for space, start, is_used in (
        (src_space, src_start, kind != OpKind.RECV),
        (dst_space, dst_start, kind != OpKind.SEND),
    ):
        if is_used and not (0 <= space < len(Space) and start >= 0 and 0 < count <= _HIGH - start):
            return False
        if not is_used and (space, start) != (-1, -1):
            return False
    return True


def _format_runs(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] and number >= 0:
            runs[-1][1] += 1
        else:
            runs.append([number, number + 1])
    return " ".join(str(start) if end == start + 1 else f"{start}:{end}" for start, end in runs)


class _Line:
    """The words of one line, taken one after the other; knows how to complain."""

    __slots__ = ("_next", "_words", "number", "text")

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        self.text = text
        self._words = text.split("#", 1)[0].split()
        self._next = 0

    def peek(self) -> str:
        return self._words[self._next] if self._next < len(self._words) else ""

    def take(self) -> str:
        word = self.peek()
        self._next += 1
        return word

    def error(self, expected: str, found: str | None = None) -> UsageError:
        found = self.peek() if found is None else found
        shown = repr(found) if found else "the end of the line"
        return UsageError(f"line {self.number}: expected {expected}, found {shown}")

    def literal(self, word: str) -> None:
        if self.peek() != word:
            raise self.error(repr(word))
        self._next += 1

    def integer(self, what: str, low: int = 0, high: int = _HIGH) -> int:
        word = self.peek()
        if not _NUMBER.fullmatch(word) or not low <= int(word) <= high:
            raise self.error(f"{what}, a number from {low} to {high}")
        self._next += 1
        return int(word)

    def span(self, may_be_nothing: bool) -> tuple[int, int, int]:
        word = self.peek()
        if word == "nothing" and may_be_nothing:
            self._next += 1
            return _NOTHING
        match = _SPAN.fullmatch(word)
        if match is None or match[1] not in _SPACES:
            raise self.error(f"a span such as output[3] or scratch[0:4]{' or nothing' * may_be_nothing}")
        start = int(match[2])
        end = start + 1 if match[3] is None else int(match[3])
        if not start < end <= _HIGH:
            raise self.error("a span that ends after it starts")
        self._next += 1
        return _SPACES.index(match[1]), start, end - start

    def end(self) -> None:
        if self.peek():
            raise self.error("the end of the line")


def _lines(text: str) -> Iterator[_Line]:
    for number, content in enumerate(text.split("\n"), 1):
        line = _Line(number, content)
        if line.peek():
            yield line


def _parse_head(lines: Iterator[_Line]) -> tuple[dict[str, Any], _Line | None]:
    """Read up to the first rank; returns the head and that rank's line."""
    head: dict[str, Any] = {}
    line = next(lines, _Line(1, ""))
    line.literal("schedule")
    line.integer("the version of the text form", FORMAT_VERSION, FORMAT_VERSION)
    line.end()
    for line in lines:
        key = line.peek()
        if key == "rank":
            break
        if key not in _HEAD:
            raise line.error(f"one of {', '.join(_HEAD)} or rank")
        if key in head:
            raise line.error(f"{key} once only")
        line.take()
        head[key] = _HEAD[key](line)
        line.end()
    missing = [key for key in ("name", "collective", "ranks", "pieces") if key not in head]
    if missing:
        raise UsageError(f"line {line.number}: the head lacks {' and '.join(missing)}")
    return {**_HEAD_DEFAULTS, **head}, line if line.peek() == "rank" else None


def _parse_name(line: _Line) -> str:
    if not line.peek():
        raise line.error("a name")
    if not line.peek().startswith('"'):
        return line.take()
    start = line.text.index('"')
    try:
        name, end = json.JSONDecoder().raw_decode(line.text, start)
    except json.JSONDecodeError:
        raise line.error("a name in quotes, written as in JSON") from None
    while line.peek():
        line.take()
    if line.text[end:].split("#", 1)[0].strip():
        raise line.error("the end of the line", line.text[end:].strip())
    return str(name)


def _parse_collective(line: _Line) -> CollectiveKind:
    labels = {kind.label: kind for kind in CollectiveKind}
    if line.peek() not in labels:
        raise line.error("a collective such as allreduce")
    return labels[line.take()]


def _parse_yes_no(line: _Line) -> bool:
    if line.peek() not in ("yes", "no"):
        raise line.error("yes or no")
    return line.take() == "yes"


_HEAD: Final[dict[str, Callable[[_Line], Any]]] = {
    "name": _parse_name,
    "collective": _parse_collective,
    "ranks": lambda line: line.integer("the number of ranks", 1),
    "root": lambda line: line.integer("the root", _LOW),
    "pieces": lambda line: line.integer("the number of pieces", _LOW),
    "in_place": _parse_yes_no,
    "channels": lambda line: line.integer("the number of channels", _LOW),
    "capacity": lambda line: line.integer("the capacity", _LOW),
}
_HEAD_DEFAULTS: Final = {"root": -1, "in_place": False, "channels": 1, "capacity": 1}


def _parse_rank(line: _Line, rank: int) -> npt.NDArray[np.int32]:
    """Read ``rank K scratch ...``; returns the scratch slots."""
    line.literal("rank")
    line.integer("the rank", rank, rank)
    slots: list[npt.NDArray[np.int32]] = []
    if line.peek():
        line.literal("scratch")
        while line.peek():
            match = _RUN.fullmatch(line.peek())
            start = int(match[1]) if match else 0
            end = int(match[2]) if match and match[2] else start + 1
            if match is None or not _LOW <= start < end <= min(_HIGH + 1, start + _LONGEST_RUN):
                raise line.error(f"a chunk or a run of at most {_LONGEST_RUN} chunks such as 0:4")
            line.take()
            slots.append(np.arange(start, end, dtype=np.int32))
    return np.concatenate([np.empty(0, np.int32), *slots])


def _parse_rows(lines: Iterator[_Line]) -> tuple[npt.NDArray[np.int32], _Line | None]:
    """Read one rank's ops; returns them and the next rank's line."""
    rows: list[Row] = []
    following: _Line | None = None
    for line in lines:
        if line.peek() == "rank":
            following = line
            break
        rows.append(_parse_op(line))
        line.end()
    return np.array(rows, np.int32).reshape(-1, NCOLUMNS), following


def _parse_op(line: _Line) -> Row:
    verb = line.peek()
    if verb == "row":
        line.take()
        return [line.integer("a number of the row", _LOW) for _ in range(NCOLUMNS)]
    if verb not in _VERBS:
        raise line.error(f"one of {', '.join(_VERBS)}")
    line.take()
    kind = _VERBS[verb]
    first = line.span(may_be_nothing=kind not in (OpKind.COPY, OpKind.REDUCE))
    if kind in (OpKind.COPY, OpKind.REDUCE):
        line.literal("to" if kind is OpKind.COPY else "into")
        second = _same_length(line, first)
        return [kind, -1, -1, *first[:2], *second[:2], first[2]]
    src, dst = first, first
    if kind is OpKind.SEND:
        dst = _NOTHING
    elif kind is OpKind.RECV:
        src = _NOTHING
    elif line.peek() == "with":
        line.take()
        src = _same_length(line, first)
    line.literal("to" if kind is OpKind.SEND else "from")
    peer = line.integer("the peer's rank")
    channel = 0
    if line.peek():
        line.literal("on")
        channel = line.integer("the channel")
    return [kind, peer, channel, *src[:2], *dst[:2], first[2]]


def _same_length(line: _Line, other: tuple[int, int, int]) -> tuple[int, int, int]:
    word = line.peek()
    span = line.span(may_be_nothing=False)
    if span[2] != other[2]:
        raise line.error(f"a span of {other[2]} chunks as on the left", word)
    return span
