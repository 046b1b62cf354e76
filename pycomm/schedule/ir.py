"""The Schedule: what every rank does, in units of chunks.

A schedule is a table. Each row is one *op* of one rank; the rows of a rank, in order, are its *program*. A
program means what it says when it is run one op after the other; an executor may overlap whatever does not
touch the same memory.

======  ======================================================================================================
kind    meaning
======  ======================================================================================================
COPY    ``dst := src`` (both local)
SEND    hands ``src`` to ``peer`` on ``channel``, goes on; the memory stays lent until the peer has it all
RECV    waits for the next message from ``peer`` on ``channel``; ``dst := message``
REDUCE  ``dst := dst (op) src`` (both local)
RECV_REDUCE
        waits for the next message from ``peer`` on ``channel``; ``dst := src (op) message``; src may be dst
======  ======================================================================================================

The k-th message sent from a to b on a channel is the k-th received there. A *span* is a run of ``count``
chunks of one *space*: INPUT (what the caller sends), OUTPUT (what the caller receives) or SCRATCH. INPUT is
never written.

Chunks have identities, so that bytes can be bound to them when the count is known (also for ragged
collectives): the *global chunks* of a collective (see :mod:`pycomm.collectives.spec`) and, per rank, which of
them each index of INPUT and OUTPUT is. A scratch slot names the global chunk that it has the size of.

A SEND and a RECV may also move nothing: a *signal*, with count 0 and ``-1`` in the columns of its span. It
says that the sender has come this far: it leaves only when every receive that stands before it in the program
has ended.

In an *in-place* schedule INPUT and OUTPUT are one buffer and ops name OUTPUT only (``reduce_scatter``,
``scatter``: INPUT only); the initial content is the caller's input at its natural place, and the result is
expected at its natural place (``allgather``: block ``rank`` of OUTPUT holds the input; ``reduce_scatter``:
block ``rank`` of INPUT holds the result). The chunks of that buffer are
:func:`pycomm.collectives.spec.buffer_chunks`. A rank without result (``reduce`` and ``gather``, not the root)
keeps its buffer as it was; what else lies in the buffer besides the result is undefined.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pycomm.types import CollectiveKind

__all__ = ["FORMAT_VERSION", "NCOLUMNS", "Op", "OpKind", "Schedule", "Space", "Span"]

FORMAT_VERSION = 1
NCOLUMNS = 8


class OpKind(IntEnum):
    """What an op does."""

    COPY = 0
    SEND = 1
    RECV = 2
    REDUCE = 3
    RECV_REDUCE = 4


class Space(IntEnum):
    """Which buffer a span lies in."""

    INPUT = 0
    OUTPUT = 1
    SCRATCH = 2


class Span(NamedTuple):
    """A run of ``count`` chunks from ``start`` in ``space``."""

    space: Space
    start: int
    count: int = 1  # type: ignore[assignment]  # hides tuple.count, which no span needs


class Op(NamedTuple):
    """One row, for people; the table itself is ``Schedule.ops``. ``-1`` where a field does not apply."""

    kind: OpKind
    peer: int
    channel: int
    src: Span | None
    dst: Span | None


@dataclass(frozen=True, eq=False)
class Schedule:
    """All programs of one collective on ``nranks`` ranks.

    Parameters
    ----------
    name
        The algorithm, e.g. ``"ring"``.
    kind, nranks, root
        The collective; ``root`` is ``-1`` where it has none.
    pieces
        Chunks per block (see :mod:`pycomm.collectives.spec`); allreduce, broadcast and reduce have one block.
    in_place
        Whether INPUT and OUTPUT are one buffer.
    channels
        Channel numbers are below this.
    capacity
        Unmatched messages that each (source, destination, channel) must be able to hold for the programs to
        end.
    ops
        int32 array of shape ``(nops, 8)``, read-only. Columns: kind, peer, channel, src space, src start, dst
        space, dst start, count; ``-1`` where a column does not apply.
    offsets
        int64 array of shape ``(nranks + 1,)``: rank r's program is ``ops[offsets[r]:offsets[r + 1]]``.
    scratch
        int32 array: the global chunk that each scratch slot has the size of, all ranks one after the other.
    scratch_offsets
        int64 array of shape ``(nranks + 1,)``: rank r's slots are
        ``scratch[scratch_offsets[r]:scratch_offsets[r + 1]]``.
    """

    name: str
    kind: CollectiveKind
    nranks: int
    root: int
    pieces: int
    in_place: bool
    channels: int
    capacity: int
    ops: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    scratch: npt.NDArray[np.int32]
    scratch_offsets: npt.NDArray[np.int64]
    _digest: list[bytes] = field(default_factory=list, repr=False, compare=False)

    def __post_init__(self) -> None:
        for array in (self.ops, self.offsets, self.scratch, self.scratch_offsets):
            array.setflags(write=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())

    def program(self, rank: int) -> npt.NDArray[np.int32]:
        """Rank ``rank``'s rows, a view of shape ``(nops, 8)``."""
        return self.ops[self.offsets[rank] : self.offsets[rank + 1]]

    def scratch_slots(self, rank: int) -> npt.NDArray[np.int32]:
        """Global chunks that rank ``rank``'s scratch slots have the size of."""
        return self.scratch[self.scratch_offsets[rank] : self.scratch_offsets[rank + 1]]

    def ops_of(self, rank: int) -> Iterator[Op]:
        """Rank ``rank``'s ops as records."""
        rows = self.program(rank).tolist()
        for kind, peer, channel, src_space, src_start, dst_space, dst_start, count in rows:
            yield Op(
                OpKind(kind),
                peer,
                channel,
                Span(Space(src_space), src_start, count) if src_space >= 0 else None,
                Span(Space(dst_space), dst_start, count) if dst_space >= 0 else None,
            )

    def digest(self) -> bytes:
        """SHA-256 over all that has meaning (every field but the name); compared before the first run."""
        if not self._digest:
            head = (FORMAT_VERSION, self.kind, self.nranks, self.root, self.pieces, int(self.in_place))
            h = hashlib.sha256(repr((*map(int, head), self.channels, self.capacity)).encode())
            for array, dtype in (
                (self.offsets, "<i8"),
                (self.ops, "<i4"),
                (self.scratch_offsets, "<i8"),
                (self.scratch, "<i4"),
            ):
                h.update(np.ascontiguousarray(array, dtype=dtype).data)
            self._digest.append(h.digest())
        return self._digest[0]
