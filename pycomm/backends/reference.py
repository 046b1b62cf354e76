"""The reference backend: ranks are threads of one process, collectives are the oracle. Slow, obviously right.

All ranks of a group meet in one :class:`_Hub`. An operation is a *slot* of the hub, numbered in each rank's
order of launches. The last rank to arrive compares the calls; when they agree it computes everybody's result
and writes it. A call with a schedule is instead handed to one thread per rank that runs the program over the
hub's message box.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pycomm.backends.base import Bytes, Call, Capabilities, GroupConfig, Work
from pycomm.backends.runner import combine_numpy, run_schedule
from pycomm.collectives.reference import block_counts, evaluate
from pycomm.collectives.spec import equal_form, input_chunks, output_chunks
from pycomm.errors import Aborted, BackendUnavailable, CommError, DeadlineExceeded, Mismatch, PeerLost
from pycomm.store import MemoryStore
from pycomm.types import CollectiveKind, DType, ReduceOp

__all__ = ["BACKEND", "ReferenceBackend"]

_COLLECTIVES = [k for k in CollectiveKind if k not in (CollectiveKind.SEND, CollectiveKind.RECV)]
_REDUCTIONS = {d: frozenset(op for op in ReduceOp if d.supports(op)) for d in DType}
_HUBS_LOCK = threading.Lock()


@dataclass(slots=True)
class _Slot:
    """One collective operation of the group."""

    calls: dict[int, Call] = field(default_factory=dict)
    agreed: bool = False
    finished: set[int] = field(default_factory=set)
    error: Exception | None = None


@dataclass(slots=True)
class _Message:
    """A point-to-point message that no receive has matched yet."""

    source: int
    tag: int
    dtype: DType
    content: bytes


class _Hub:
    """What the ranks of one group share. One lock guards everything."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size
        self.changed = threading.Condition()
        self.failure: CommError | None = None
        self.slots: dict[int, _Slot] = {}
        self.mail: dict[tuple[int, int, int, int, int], bytes] = {}
        self.inbox: list[list[_Message]] = [[] for _ in range(size)]
        self.posted: list[list[_ReceiveWork]] = [[] for _ in range(size)]
        self.closed: set[int] = set()

    def fail(self, cause: CommError) -> None:
        with self.changed:
            if self.failure is None:
                self.failure = cause
            self.changed.notify_all()

    def wait(self, ready: Callable[[], bool], deadline: float | None, late: Callable[[], CommError]) -> None:
        """Wait until ``ready``; call with the lock held."""
        while not ready():
            if self.failure is not None:
                raise self.failure
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                self.fail(late())
                continue
            self.changed.wait(left)


def _describe(call: Call) -> str:
    parts = [call.kind.label, f"dtype={call.dtype.label}", f"count={call.count}"]
    if call.kind.reduces:
        parts.append(f"op={call.op.label}")
    if call.kind.is_rooted:
        parts.append(f"root={call.root}")
    if call.counts is not None:
        parts.append(f"counts={call.counts.tolist()}")
    if call.schedule is not None:
        parts.append(f"schedule={call.schedule.name}:{call.schedule.digest().hex()[:12]}")
    return " ".join(parts)


class _SlotWork:
    """A rank's side of a collective."""

    def __init__(self, hub: _Hub, slot: _Slot, rank: int, seq: int, timeout_s: float) -> None:
        self._hub, self._slot, self._rank, self._seq = hub, slot, rank, seq
        self._deadline = time.monotonic() + timeout_s
        self._label = slot.calls[rank].kind.label

    def _ended(self) -> bool:
        return self._slot.error is not None or self._rank in self._slot.finished

    def done(self) -> bool:
        with self._hub.changed:
            return self._ended() or self._hub.failure is not None

    def _late(self) -> CommError:
        missing = sorted(set(range(self._hub.size)) - set(self._slot.calls))
        gone = sorted(self._hub.closed & set(missing))
        kind = PeerLost if gone else DeadlineExceeded
        ranks = gone or missing
        what = "left the group" if gone else "did not come in time"
        return kind(
            f"{self._label} (operation {self._seq} of group {self._hub.name!r}): rank "
            f"{', '.join(map(str, ranks))} {what}",
            group=self._hub.name,
            operation=self._label,
            seq=self._seq,
            ranks=ranks,
        )

    def wait(self, timeout_s: float | None = None) -> int:
        hub = self._hub
        deadline = self._deadline if timeout_s is None else time.monotonic() + timeout_s
        with hub.changed:
            if not self._ended() and hub.closed - set(self._slot.calls):
                hub.fail(self._late())
            hub.wait(self._ended, deadline, self._late)
            if self._slot.error is not None:
                raise self._slot.error
        return -1


class _Sent:
    """A send: the message was copied when it was launched."""

    def done(self) -> bool:
        return True

    def wait(self, timeout_s: float | None = None) -> int:  # noqa: ARG002 (part of the interface)
        return -1


class _ReceiveWork:
    """A posted receive."""

    def __init__(self, hub: _Hub, rank: int, call: Call, timeout_s: float) -> None:
        self._hub, self._rank, self.call = hub, rank, call
        self._deadline = time.monotonic() + timeout_s
        self._source = -1
        self._error: Exception | None = None

    def matches(self, message: _Message) -> bool:
        return self.call.tag == message.tag and self.call.peer in (-1, message.source)

    def deliver(self, message: _Message) -> None:
        view = self.call.recv
        self._source = message.source
        if view is None or view.nbytes != len(message.content) or self.call.dtype != message.dtype:
            had = 0 if view is None else view.nbytes // self.call.dtype.itemsize
            sent = len(message.content) // message.dtype.itemsize
            self._error = Mismatch(
                f"recv on rank {self._rank} expects {had} x {self.call.dtype.label}, but rank "
                f"{message.source} "
                f"sent {sent} x {message.dtype.label} with tag {message.tag} (group {self._hub.name!r})"
            )
        else:
            view[...] = np.frombuffer(message.content, np.uint8)

    def done(self) -> bool:
        with self._hub.changed:
            return self._source >= 0 or self._hub.failure is not None

    def _late(self) -> CommError:
        peer = "any rank" if self.call.peer < 0 else f"rank {self.call.peer}"
        return DeadlineExceeded(
            f"recv from {peer} with tag {self.call.tag} on rank {self._rank} of group {self._hub.name!r}: "
            "no message came in time",
            group=self._hub.name,
            operation="recv",
            ranks=() if self.call.peer < 0 else (self.call.peer,),
        )

    def wait(self, timeout_s: float | None = None) -> int:
        deadline = self._deadline if timeout_s is None else time.monotonic() + timeout_s
        with self._hub.changed:
            self._hub.wait(lambda: self._source >= 0, deadline, self._late)
        if self._error is not None:
            raise self._error
        return self._source


class ReferenceComm:
    """One rank's side of a group."""

    direct = None
    direct_at = None
    launch_at = None

    def __init__(self, config: GroupConfig, hub: _Hub) -> None:
        self._rank, self._hub, self._timeout_s = config.rank, hub, config.timeout_s
        self._seq = 0
        self._lock = threading.Lock()

    def launch(self, call: Call, *, blocking: bool = False) -> Work:
        """Start an operation."""
        del blocking  # a wait costs no more than performing it here
        hub = self._hub
        timeout_s = self._timeout_s if call.timeout_s is None else call.timeout_s
        with self._lock, hub.changed:
            if hub.failure is not None:
                raise hub.failure
            if call.kind is CollectiveKind.SEND:
                return self._send(call)
            if call.kind is CollectiveKind.RECV:
                return self._recv(call, timeout_s)
            seq, self._seq = self._seq, self._seq + 1
            slot = hub.slots.setdefault(seq, _Slot())
            slot.calls[self._rank] = call
            work = _SlotWork(hub, slot, self._rank, seq, timeout_s)
            if len(slot.calls) == hub.size:
                del hub.slots[seq]
                self._meet(slot, seq)
                hub.changed.notify_all()
            if call.schedule is not None:
                deadline = time.monotonic() + timeout_s
                threading.Thread(
                    target=self._run,
                    args=(slot, call, seq, work, deadline),
                    daemon=True,
                    name=f"pycomm-ref-{seq}",
                ).start()
            return work

    def _meet(self, slot: _Slot, seq: int) -> None:
        """Compare the calls of all ranks; when they agree and need no schedule, perform them."""
        said = [_describe(slot.calls[r]) for r in range(self._hub.size)]
        odd = next((r for r, text in enumerate(said) if text != said[0]), None)
        if odd is not None:
            slot.error = Mismatch(
                f"operation {seq} of group {self._hub.name!r}: rank 0 called {said[0]}, rank {odd} called "
                f"{said[odd]}; make the same call on every rank"
            )
            return
        slot.agreed = True
        if slot.calls[0].schedule is None:
            try:
                _perform([slot.calls[r] for r in range(self._hub.size)])
            except Exception as error:  # a bug: every rank must hear of it, not only the last one to come
                slot.error = error
            slot.finished.update(range(self._hub.size))

    def _send(self, call: Call) -> Work:
        content = b"" if call.send is None else call.send.tobytes()
        message = _Message(self._rank, call.tag, call.dtype, content)
        waiting = self._hub.posted[call.peer]
        for index, posted in enumerate(waiting):
            if posted.matches(message):
                del waiting[index]
                posted.deliver(message)
                self._hub.changed.notify_all()
                return _Sent()
        self._hub.inbox[call.peer].append(message)
        return _Sent()

    def _recv(self, call: Call, timeout_s: float) -> Work:
        work = _ReceiveWork(self._hub, self._rank, call, timeout_s)
        inbox = self._hub.inbox[self._rank]
        for index, message in enumerate(inbox):
            if work.matches(message):
                del inbox[index]
                work.deliver(message)
                return work
        self._hub.posted[self._rank].append(work)
        return work

    def _run(self, slot: _Slot, call: Call, seq: int, work: _SlotWork, deadline: float) -> None:
        """Run this rank's program of a schedule on a thread of its own."""
        hub, rank = self._hub, self._rank
        sent: dict[tuple[int, int], int] = {}
        asked: dict[tuple[int, int], int] = {}

        def isend(dst: int, channel: int, view: Bytes) -> None:
            index = sent[dst, channel] = sent.get((dst, channel), -1) + 1
            with hub.changed:
                hub.mail[seq, rank, dst, channel, index] = view.tobytes()
                hub.changed.notify_all()

        def irecv(src: int, channel: int, view: Bytes) -> tuple[tuple[int, int, int, int, int], Bytes]:
            index = asked[src, channel] = asked.get((src, channel), -1) + 1
            return (seq, src, rank, channel, index), view

        def wait(handle: tuple[tuple[int, int, int, int, int], Bytes] | None, deadline: float | None) -> None:
            if handle is None:
                return
            key, view = handle
            with hub.changed:
                hub.wait(lambda: key in hub.mail, deadline, work._late)
                view[...] = np.frombuffer(hub.mail.pop(key), np.uint8)

        try:
            with hub.changed:
                hub.wait(lambda: slot.agreed or slot.error is not None, deadline, work._late)
            if slot.agreed:
                run_schedule(call, rank, isend, irecv, wait, deadline=deadline, combine=combine_numpy)
        except Exception as error:
            with hub.changed:
                slot.error = slot.error or error
        with hub.changed:
            slot.finished.add(rank)
            hub.changed.notify_all()

    def abort(self, reason: str) -> None:
        """End every wait of the group on every rank."""
        self._hub.fail(
            Aborted(
                f"group {self._hub.name!r} was aborted by rank {self._rank}: {reason}", group=self._hub.name
            )
        )

    def close(self) -> None:
        """Leave; whoever still waits for this rank fails."""
        hub = self._hub
        with hub.changed:
            hub.closed.add(self._rank)
            for seq, slot in hub.slots.items():
                if self._rank not in slot.calls:
                    hub.fail(
                        PeerLost(
                            f"rank {self._rank} left group {hub.name!r} while others wait for it in "
                            "operation "
                            f"{seq}",
                            group=hub.name,
                            seq=seq,
                            ranks=(self._rank,),
                        )
                    )
            hub.changed.notify_all()


def _blocks(
    call: Call, chunks: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], view: Bytes | None
) -> Any:
    """Find the elements of a rank's INPUT or OUTPUT; ``None`` where it has none."""
    if view is None or len(chunks) == 0:
        return None
    whole = view.view(call.dtype.storage)
    wanted = int(sizes[chunks].sum())
    if whole.size == wanted:
        return whole
    # In place: the whole array is there, this rank's block lies at its natural place.
    begin = int(sizes[: chunks[0]].sum())
    return whole[begin : begin + wanted]


def _perform(calls: list[Call]) -> None:
    """Compute every rank's result by the oracle and write it."""
    n, first = len(calls), calls[0]
    kind, root = equal_form(first.kind), first.root
    sizes = block_counts(first.kind, n, first.count, first.counts)
    inputs, outputs = [], []
    for rank, call in enumerate(calls):
        reads = input_chunks(kind, n, root, 1, rank)
        writes = output_chunks(kind, n, root, 1, rank)
        inputs.append(_blocks(call, reads, sizes, call.send))
        outputs.append(_blocks(call, writes, sizes, call.recv))
    factors = [call.factor for call in calls]
    results = evaluate(kind, first.dtype, first.op, inputs, root=root, counts=first.counts, factors=factors)
    for output, result in zip(outputs, results, strict=True):
        if output is not None and result is not None:
            output[...] = result


class ReferenceBackend:
    """Ranks as threads, collectives by the oracle."""

    name = "reference"

    def available(self) -> str | None:
        """Whether it can be used here: always."""
        return None

    def capabilities(self) -> Capabilities:
        """Everything: all collectives, types and ops, and any schedule."""
        return Capabilities(
            own={k: frozenset(DType) for k in _COLLECTIVES},
            reductions=_REDUCTIONS,
            runs_schedules=True,
            schedule_reductions=_REDUCTIONS,
            compares_calls=True,
        )

    def open(self, config: GroupConfig) -> ReferenceComm:
        """Join the group: all ranks must be threads of this process and share one ``MemoryStore``."""
        store = config.store
        if config.size > 1 and not isinstance(store, MemoryStore):
            raise BackendUnavailable(
                "backend 'reference' runs ranks as threads of one process; start them with "
                "pycomm.testing.run_threads, or choose another backend"
            )
        if not isinstance(store, MemoryStore):
            return ReferenceComm(config, _Hub(config.name, 1))
        with _HUBS_LOCK:
            hub = store.shared.setdefault(config.name, _Hub(config.name, config.size))
        return ReferenceComm(config, hub)


BACKEND = ReferenceBackend()
