"""Building schedules: whole rounds of all ranks at once, or one op of one rank, in the same words.

Every argument that names a rank, a peer or a place may be one integer or an array with one entry per op, so
that ``builder.send(ranks, (ranks + 1) % n, inp(0))`` is a send of every rank. The ops of one rank come in the
order of the calls that make them; ``when`` reorders them, stably, where an algorithm is easier to say lane by
lane than in time.

Planners always write INPUT and OUTPUT as if they were two buffers; for an in-place request
:meth:`ScheduleBuilder.finish` renames them and drops the copies that this makes void.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, overload

import numpy as np
import numpy.typing as npt

from pycomm.collectives.spec import equal_form
from pycomm.schedule.ir import NCOLUMNS, OpKind, Schedule, Space
from pycomm.types import CollectiveKind

__all__ = ["NOWHERE", "Ints", "Place", "Request", "ScheduleBuilder", "inp", "out", "scr", "smallest_capacity"]

Array = npt.NDArray[np.int64]
Ints = int | Array


class Request(Protocol):
    """What the builder reads of a :class:`pycomm.planner.base.PlanRequest`."""

    @property
    def kind(self) -> CollectiveKind:
        """The collective."""

    @property
    def nranks(self) -> int:
        """Number of ranks."""

    @property
    def root(self) -> int:
        """The root, ``-1`` where there is none."""

    @property
    def in_place(self) -> bool:
        """Whether INPUT and OUTPUT are one buffer."""


class Place(NamedTuple):
    """One span per op: ``count`` chunks from ``start`` in ``space``, each an integer or an array."""

    space: Ints
    start: Ints
    count: Ints = 1  # type: ignore[assignment]  # hides tuple.count, which nobody needs here


def inp(start: Ints, count: Ints = 1) -> Place:
    """Chunks of INPUT."""
    return Place(Space.INPUT, start, count)


def out(start: Ints, count: Ints = 1) -> Place:
    """Chunks of OUTPUT."""
    return Place(Space.OUTPUT, start, count)


def scr(start: Ints, count: Ints = 1) -> Place:
    """Slots of SCRATCH, as :meth:`ScheduleBuilder.scratch` handed them out."""
    return Place(Space.SCRATCH, start, count)


NOWHERE = Place(-1, -1, 0)
"""The place of a signal: a message that moves nothing."""


class ScheduleBuilder:
    """Collects ops and turns them into a :class:`~pycomm.schedule.Schedule`.

    Parameters
    ----------
    request
        What is being planned; gives kind, nranks, root and in_place.
    name
        Name of the algorithm.
    pieces
        Chunks per block.
    channels
        Channel numbers are below this.

    Examples
    --------
    >>> from pycomm.planner.base import PlanRequest
    >>> from pycomm.types import CollectiveKind
    >>> builder = ScheduleBuilder(PlanRequest(CollectiveKind.BROADCAST, 2, root=0), "pair")
    >>> builder.copy(0, inp(0), out(0))
    >>> builder.send(0, 1, inp(0))
    >>> builder.recv(1, 0, out(0))
    >>> builder.finish().ops.shape
    (3, 8)
    """

    def __init__(self, request: Request, name: str, *, pieces: int = 1, channels: int = 1) -> None:
        self.request = request
        self.name = name
        self.pieces = pieces
        self.channels = channels
        self._single: list[tuple[int, ...]] = []
        self._batches: list[
            tuple[npt.NDArray[np.signedinteger], npt.NDArray[np.signedinteger], npt.NDArray[np.int32]]
        ] = []
        self._length: Array = np.zeros(request.nranks, np.int64)
        self._timed = False
        self._slots: list[tuple[Array, Array]] = []
        self._next_slot: Array = np.zeros(request.nranks, np.int64)

    @overload
    def scratch(self, rank: int, chunks: npt.ArrayLike) -> int: ...
    @overload
    def scratch(self, rank: Array, chunks: npt.ArrayLike) -> Array: ...
    def scratch(self, rank: Ints, chunks: npt.ArrayLike) -> Ints:
        """Reserve a run of scratch slots.

        Parameters
        ----------
        rank
            One rank, or an array of ranks that are all different.
        chunks
            The global chunk that each slot has the size of: a sequence for one rank, one row per rank for an
            array.

        Returns
        -------
        int or array
            The first slot of the run (of each rank's run).
        """
        named = np.asarray(chunks, np.int64)
        if isinstance(rank, np.ndarray):
            named = named.reshape(rank.size, -1 if rank.size else 0)
            start = self._next_slot[rank]
            self._next_slot[rank] += named.shape[1]
            self._slots.append((np.repeat(rank, named.shape[1]), named.reshape(-1)))
            return start
        named = named.reshape(-1)
        first = int(self._next_slot[rank])
        self._next_slot[rank] += named.size
        self._slots.append((np.full(named.size, rank, np.int64), named))
        return first

    def scratch_spans(self, rank: Array, chunk: Array, count: Array) -> Array:
        """Reserve many runs of scratch slots at once, also several for one rank.

        Parameters
        ----------
        rank
            Whose run each is.
        chunk, count
            The global chunks that the slots of a run have the size of: ``count`` of them from ``chunk``.

        Returns
        -------
        array
            The first slot of each run.
        """
        order = np.argsort(rank, kind="stable")
        owner, length = rank[order], count[order]
        before = np.cumsum(length) - length  # slots of all runs before, of whatever rank
        used = np.bincount(owner, length, self._next_slot.size).astype(np.int64)
        start = np.empty_like(rank)
        start[order] = before - (np.cumsum(used) - used)[owner] + self._next_slot[owner]
        self._next_slot += used
        within = np.arange(length.sum()) - np.repeat(before, length)
        self._slots.append((np.repeat(owner, length), np.repeat(chunk[order], length) + within))
        return start

    def copy(self, rank: Ints, src: Place, dst: Place, *, when: Ints = 0) -> None:
        """``dst := src``."""
        self.rows(rank, OpKind.COPY, -1, -1, src, dst, when)

    def reduce(self, rank: Ints, src: Place, dst: Place, *, when: Ints = 0) -> None:
        """``dst := dst (op) src``."""
        self.rows(rank, OpKind.REDUCE, -1, -1, src, dst, when)

    def send(self, rank: Ints, peer: Ints, src: Place, *, channel: Ints = 0, when: Ints = 0) -> None:
        """Hand ``src`` to ``peer``."""
        self.rows(rank, OpKind.SEND, peer, channel, src, NOWHERE, when)

    def recv(self, rank: Ints, peer: Ints, dst: Place, *, channel: Ints = 0, when: Ints = 0) -> None:
        """``dst :=`` the next message from ``peer``."""
        self.rows(rank, OpKind.RECV, peer, channel, NOWHERE, dst, when)

    def recv_reduce(
        self, rank: Ints, peer: Ints, src: Place, dst: Place, *, channel: Ints = 0, when: Ints = 0
    ) -> None:
        """``dst := src (op)`` the next message from ``peer``."""
        self.rows(rank, OpKind.RECV_REDUCE, peer, channel, src, dst, when)

    def rows(
        self, rank: Ints, kind: int, peer: Ints, channel: Ints, src: Place, dst: Place, when: Ints = 0
    ) -> None:
        """Add ops of one kind by their columns; all the verbs above end here."""
        count = dst.count if isinstance(src.space, int) and src.space < 0 else src.count
        fields = (kind, peer, channel, src.space, src.start, dst.space, dst.start, count)
        size = -1
        for column in (rank, when, *fields):
            if isinstance(column, np.ndarray):
                size = max(size, column.size)
                if column.size == 0:
                    return
        if size < 0:
            self._single.append((*fields, rank, when))  # type: ignore[arg-type]  # no array among them
            return
        self._flush()
        body = np.empty((size, NCOLUMNS), np.int32)
        for index, column in enumerate(fields):
            body[:, index] = column
        self._add(np.broadcast_to(np.asarray(rank), size), np.broadcast_to(np.asarray(when), size), body)

    def finish(self, capacity: int | None = 1) -> Schedule:
        """Make the schedule.

        Parameters
        ----------
        capacity
            Unmatched messages per (source, destination, channel) that the programs need; ``None`` finds the
            smallest number by running them, which takes a time linear in the ops for each number tried.
        """
        self._flush()
        request = self.request
        ops, offsets = self._by_rank()
        if request.in_place:
            rename_in_place(ops, offsets, request, self.pieces)
            kept = (ops[:, 0] != OpKind.COPY) | (ops[:, 3] != ops[:, 5]) | (ops[:, 4] != ops[:, 6])
            ops, offsets = ops[kept], np.concatenate([[0], np.cumsum(kept)])[offsets]
        owner = np.concatenate([r for r, _ in self._slots]) if self._slots else np.empty(0, np.int64)
        named = np.concatenate([c for _, c in self._slots]) if self._slots else np.empty(0, np.int64)
        schedule = Schedule(
            name=self.name,
            kind=request.kind,
            nranks=request.nranks,
            root=request.root,
            pieces=self.pieces,
            in_place=request.in_place,
            channels=self.channels,
            capacity=1 if capacity is None else capacity,
            ops=ops,
            offsets=offsets,
            scratch=named[np.argsort(owner, kind="stable")].astype(np.int32),
            scratch_offsets=_offsets(np.bincount(owner, minlength=request.nranks)),
        )
        if capacity is None:
            return replace(schedule, capacity=smallest_capacity(schedule))
        return schedule

    def _flush(self) -> None:
        if self._single:
            table = np.array(self._single, np.int32).reshape(-1, NCOLUMNS + 2)
            self._add(table[:, NCOLUMNS], table[:, NCOLUMNS + 1], table[:, :NCOLUMNS])
            self._single = []

    def _add(
        self,
        rank: npt.NDArray[np.signedinteger],
        when: npt.NDArray[np.signedinteger],
        body: npt.NDArray[np.int32],
    ) -> None:
        self._length += np.bincount(rank, minlength=self._length.size)
        self._timed = self._timed or bool(when.any())
        self._batches.append((rank, when, body))

    def _by_rank(self) -> tuple[npt.NDArray[np.int32], Array]:
        """Put all rows in the order of ranks, each rank's in the order of its program."""
        offsets = _offsets(self._length)
        ops = np.empty((int(offsets[-1]), NCOLUMNS), np.int32)
        if self._timed:
            rank = np.concatenate([rank for rank, _, _ in self._batches])
            when = np.concatenate([when for _, when, _ in self._batches])
            order = np.lexsort((when, rank))
            np.take(np.concatenate([body for _, _, body in self._batches]), order, axis=0, out=ops)
            return ops, offsets
        end = offsets[:-1].copy()  # of what each rank's program has so far
        for rank, _, body in self._batches:
            number = np.bincount(rank, minlength=end.size)
            if number.max() == 1:
                ops[end[rank]] = body
            else:
                order = np.argsort(rank, kind="stable")
                first = np.repeat(end + number - np.cumsum(number), number)
                ops[first + np.arange(rank.size)] = body[order]
            end += number
        return ops, offsets


def _offsets(length: Array) -> Array:
    offsets = np.zeros(length.size + 1, np.int64)
    np.cumsum(length, out=offsets[1:])
    return offsets


def rename_in_place(ops: npt.NDArray[np.int32], offsets: Array, request: Request, pieces: int) -> None:
    """Rename, in ``ops`` itself, the buffer that an in-place schedule does not speak of."""
    kind = equal_form(request.kind)
    old, new = Space.INPUT, Space.OUTPUT
    if kind in (CollectiveKind.REDUCE_SCATTER, CollectiveKind.SCATTER):
        old, new = new, old
    rank = np.repeat(np.arange(request.nranks), np.diff(offsets))
    natural = np.zeros(request.nranks, np.int32)
    if kind in (CollectiveKind.ALLGATHER, CollectiveKind.REDUCE_SCATTER):
        natural[:] = np.arange(request.nranks) * pieces
    elif kind in (CollectiveKind.GATHER, CollectiveKind.SCATTER):
        natural[request.root] = request.root * pieces
    for space, start in ((3, 4), (5, 6)):
        hit = ops[:, space] == old
        if natural.any():
            ops[hit, start] += natural[rank[hit]]
        ops[hit, space] = new


def smallest_capacity(schedule: Schedule) -> int:
    """Fewest unmatched messages per (source, destination, channel) with which the programs still end."""
    low, high = 1, 1
    while not _ends(schedule, high):
        low, high = high + 1, 2 * high
        if high > 2 * len(schedule.ops) + 2:
            raise ValueError(f"schedule {schedule.name!r} never ends, whatever its channels hold; verify it")
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _ends(schedule, middle) else (middle + 1, high)
    return low


def _ends(schedule: Schedule, capacity: int) -> bool:
    """Whether the programs end when every channel holds at most ``capacity`` messages."""
    programs: Sequence[list[list[int]]] = [
        schedule.program(r)[:, :3].tolist() for r in range(schedule.nranks)
    ]
    at = [0] * schedule.nranks
    held: dict[tuple[int, int, int], int] = defaultdict(int)
    ready = deque(range(schedule.nranks))
    queued = [True] * schedule.nranks
    while ready:
        rank = ready.popleft()
        queued[rank] = False
        program = programs[rank]
        while at[rank] < len(program):
            kind, peer, channel = program[at[rank]]
            if kind == OpKind.SEND:
                lane = (rank, peer, channel)
                if held[lane] == capacity:
                    break
                held[lane] += 1
            elif kind in (OpKind.RECV, OpKind.RECV_REDUCE):
                lane = (peer, rank, channel)
                if not held[lane]:
                    break
                held[lane] -= 1
            at[rank] += 1
            if peer >= 0 and not queued[peer]:
                queued[peer] = True
                ready.append(peer)
    return all(at[r] == len(programs[r]) for r in range(schedule.nranks))
