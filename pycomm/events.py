"""What happened and when: fixed event records, a recorder that keeps the last of them, and logging.

Whoever does something worth knowing tells an :class:`Observer`. The :class:`Recorder` is the observer that is
always there: it keeps the last 4,096 records and writes them out when a communicator fails. The same records
feed traces and tests.

A dump is JSON lines: a head that names the format and its version, then one record per line, oldest first.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TextIO

import msgspec

from pycomm.errors import UsageError
from pycomm.types import CollectiveKind

__all__ = [
    "CAPACITY",
    "DUMP_VERSION",
    "Dump",
    "Event",
    "Observer",
    "Phase",
    "Recorder",
    "configure_logging",
    "event",
    "logger",
    "read_dump",
    "write_dump",
]

CAPACITY: Final = 4096
"""Records that a recorder keeps."""

DUMP_VERSION: Final = 1
"""Version of the dump's file form."""

_FORMAT: Final = "pycomm-events"
_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "off": logging.CRITICAL + 1,
}


class Phase(IntEnum):
    """What an event says about an operation or, inside it, a message."""

    QUEUED = 0
    STARTED = 1
    SENT = 2
    RECEIVED = 3
    DONE = 4
    FAILED = 5
    ABORTED = 6
    OPENED = 7
    CLOSED = 8

    @property
    def label(self) -> str:
        """Lower-case name, as dumps spell it."""
        return self.name.lower()


_KINDS: Final = {kind.label: kind for kind in CollectiveKind}
_PHASES: Final = {phase.label: phase for phase in Phase}


class Event(NamedTuple):
    """One record. ``-1`` where a number does not apply.

    Attributes
    ----------
    time_ns
        Monotonic clock of this host (``time.monotonic_ns``).
    rank
        Rank in the communicator.
    comm
        Name of the communicator.
    seq
        Number of the operation in the communicator.
    kind
        What was asked of the group.
    phase
        What happened.
    op
        Index of the op in the rank's program.
    peer
        The other rank of a message.
    channel
        Channel of a message, or tag of a send or recv.
    nbytes
        Bytes of the message, or of the operation.
    """

    time_ns: int
    rank: int
    comm: str
    seq: int
    kind: CollectiveKind
    phase: Phase
    op: int = -1
    peer: int = -1
    channel: int = -1
    nbytes: int = -1


def event(
    rank: int,
    comm: str,
    seq: int,
    kind: CollectiveKind,
    phase: Phase,
    *,
    op: int = -1,
    peer: int = -1,
    channel: int = -1,
    nbytes: int = -1,
) -> Event:
    """Make a record of this moment."""
    return Event(time.monotonic_ns(), rank, comm, seq, kind, phase, op, peer, channel, nbytes)


class Observer(Protocol):
    """Whoever wants to know. Called on the thread where things happen: be quick, never raise."""

    def record(self, event: Event, /) -> None:
        """Take note of one event."""


class Recorder:
    """Keeps the last records; the oldest make room. Any number of threads may record at once.

    Parameters
    ----------
    capacity
        Records kept.

    Examples
    --------
    >>> recorder = Recorder(capacity=2)
    >>> for seq in range(3):
    ...     recorder.record(event(0, "world", seq, CollectiveKind.ALLREDUCE, Phase.DONE))
    >>> [record.seq for record in recorder.events()]
    [1, 2]
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        if capacity < 1:
            raise UsageError(f"a recorder keeps at least one record, asked for {capacity}")
        # Taking the next number and storing into a slot are each atomic, so recording needs no lock; the
        # numbers put the records back in order.
        self._numbers = itertools.count()
        self._slots: list[tuple[int, Event] | None] = [None] * capacity

    def record(self, event: Event, /) -> None:
        """Keep one record."""
        number = next(self._numbers)
        self._slots[number % len(self._slots)] = (number, event)

    def events(self) -> tuple[Event, ...]:
        """Return the records kept, oldest first."""
        kept = [slot for slot in self._slots.copy() if slot is not None]
        return tuple(record for _, record in sorted(kept, key=lambda slot: slot[0]))

    def dump(self, path: str | Path, reason: str = "") -> None:
        """Write the records kept to a file; ``reason`` says why."""
        write_dump(path, self.events(), reason)


class Dump(NamedTuple):
    """A dump read back."""

    reason: str
    events: tuple[Event, ...]


class _Head(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    format_version: int
    reason: str


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    time_ns: int
    rank: int
    comm: str
    seq: int
    kind: str
    phase: str
    op: int
    peer: int
    channel: int
    nbytes: int


def write_dump(path: str | Path, events: Iterable[Event], reason: str = "") -> None:
    """Write events as JSON lines, a versioned head first."""
    encode = msgspec.json.encode
    lines = [encode(_Head(_FORMAT, DUMP_VERSION, reason))]
    for time_ns, rank, comm, seq, kind, phase, *rest in events:
        lines.append(encode(_Line(time_ns, rank, comm, seq, kind.label, phase.label, *rest)))
    Path(path).write_bytes(b"\n".join(lines) + b"\n")


def read_dump(path: str | Path) -> Dump:
    """Read a dump.

    Raises
    ------
    UsageError
        If the file is no dump, or of another version, or damaged; the message names the line.
    """
    lines = Path(path).read_bytes().splitlines()
    number = 1
    try:
        head = msgspec.json.decode(lines[0] if lines else b"", type=_Head)
        if (head.format, head.format_version) != (_FORMAT, DUMP_VERSION):
            raise UsageError(
                f"{path} is {head.format!r} version {head.format_version}, "
                f"not {_FORMAT!r} version {DUMP_VERSION}"
            )
        events: list[Event] = []
        for number, text in enumerate(lines[1:], 2):  # noqa: B007 (the number is used when a line is bad)
            events.append(_event(msgspec.json.decode(text, type=_Line)))
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
        raise UsageError(f"{path}, line {number}: not an event dump: {error}") from error
    return Dump(head.reason, tuple(events))


def _event(line: _Line) -> Event:
    kind, phase = _KINDS[line.kind], _PHASES[line.phase]
    return Event(
        line.time_ns,
        line.rank,
        line.comm,
        line.seq,
        kind,
        phase,
        line.op,
        line.peer,
        line.channel,
        line.nbytes,
    )


logging.getLogger("pycomm").addHandler(logging.NullHandler())


def logger(part: str) -> logging.Logger:
    """Return the logger of one part of pycomm, e.g. ``logger("planner")`` for ``pycomm.planner``."""
    return logging.getLogger(f"pycomm.{part}")


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that it can be found again: pycomm never touches a handler that somebody else installed."""

    loggers: Sequence[logging.Logger] = ()


def configure_logging(spec: str, rank: int = -1) -> None:
    """Show log lines on stderr as ``PYCOMM_LOG`` asks. Calling again replaces the earlier set-up.

    Parameters
    ----------
    spec
        Levels, separated by commas: ``"info"`` for all of pycomm, ``"planner=debug"`` for one part; ``""``
        leaves logging to the application.
    rank
        This process's rank, shown in every line; ``-1`` before it is known.

    Raises
    ------
    UsageError
        If the text names no such level.
    """
    root = logging.getLogger("pycomm")
    wanted = _levels(spec)
    for earlier in [h for h in root.handlers if isinstance(h, _Handler)]:
        root.removeHandler(earlier)
        for changed in earlier.loggers:
            changed.setLevel(logging.NOTSET)
    if not wanted:
        return
    handler = _Handler()
    place = f"rank={rank} " if rank >= 0 else ""
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)-7s {place}%(name)s: %(message)s"))
    root.addHandler(handler)
    handler.loggers = [logger(part) if part else root for part, _ in wanted]
    for changed, (_, level) in zip(handler.loggers, wanted, strict=True):
        changed.setLevel(level)


def _levels(spec: str) -> Sequence[tuple[str, int]]:
    wanted = []
    for item in filter(None, (item.strip() for item in spec.split(","))):
        part, _, level = item.rpartition("=")
        if level.strip().lower() not in _LEVELS:
            raise UsageError(f"{item!r} names no log level; write e.g. 'info' or 'planner=debug'")
        wanted.append((part.strip(), _LEVELS[level.strip().lower()]))
    return wanted
