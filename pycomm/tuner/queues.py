"""Messages that share links: everything starts as early as it can, and links serve flows by turns.

A *server* is a link, or a rank that combines. Messages of one rank to another form a lane; a server that has
messages of several lanes waiting takes one of each by turns, as connections share a link fairly. A message is
with all of its servers at once, and through when the last one is done with it: bytes flow on while more come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from pycomm.tuner.dataflow import Dataflow

__all__ = ["SEGMENT_NBYTES", "Way", "finished_s"]

SEGMENT_NBYTES = 256 * 1024
"""The engine hands on messages in parts of this size (kMaxFramePayload in native/include/pycomm)."""

_THROUGH = 0
_QUEUE, _SERVED, _FIRST, _LAST = range(4)


class Way(NamedTuple):
    """What a message from one rank to another needs.

    Attributes
    ----------
    servers
        Number of each server that it passes, and the seconds for which a byte keeps it busy.
    latency_s, overhead_s
        From its start to its end besides that, and what it costs its sender.
    header_nbytes
        Bytes that it carries besides its own.
    """

    servers: tuple[tuple[int, float], ...]
    latency_s: float
    overhead_s: float
    header_nbytes: int


class _Server:
    """What waits for one server, by lane, and whose turn it is."""

    __slots__ = ("busy", "lanes", "turns")

    def __init__(self) -> None:
        self.busy = False
        self.lanes: dict[int, deque[tuple[int, float]]] = {}
        self.turns: deque[int] = deque()

    def put(self, lane: int, message: int, work: float) -> None:
        waiting = self.lanes.get(lane)
        if waiting is None:
            waiting = self.lanes[lane] = deque()
        if not waiting:
            self.turns.append(lane)
        waiting.append((message, work))

    def take(self) -> tuple[int, float]:
        lane = self.turns.popleft()
        waiting = self.lanes[lane]
        if len(waiting) > 1:
            self.turns.append(lane)
        return waiting.popleft()


class _Run:
    """One run of a schedule's events in time."""

    def __init__(
        self,
        flow: Dataflow,
        users: Sequence[Sequence[int]],
        way: Callable[[int, int], Way],
        nservers: int,
        chunk: float,
        combine_s: float,
    ) -> None:
        count = len(flow.src)
        self.flow, self.users, self.way = flow, users, way
        self.servers = [_Server() for _ in range(nservers)]
        self.sending: dict[int, float] = {}
        self.missing = [len(waits) for waits in flow.waits]  # whose first segment is not there yet
        self.unfinished = list(self.missing)  # which are not through yet
        self.unserved, self.unstarted = [-1] * count, [0] * count
        self.work, self.latency, self.part = [0.0] * count, [0.0] * count, [1.0] * count
        self.events: list[tuple[float, int, int, int]] = []
        self.number, self.end = 0, 0.0
        self.chunk, self.combine_s = chunk, combine_s

    def push(self, time: float, what: int, which: int) -> None:
        self.number += 1
        heappush(self.events, (time, self.number, what, which))

    def run(self) -> float:
        for i in [i for i, missing in enumerate(self.missing) if not missing]:
            self.begin(0.0, i)
        events = self.events
        while events:
            now, _, what, which = heappop(events)
            if what == _SERVED:
                self.served(now, which)
            elif what == _QUEUE:
                self.queue(now, which)
            elif what == _FIRST:
                self.first(now, which)
            else:
                self.last(now, which)
        return self.end

    def begin(self, now: float, i: int) -> None:
        flow = self.flow
        rank, nbytes = flow.src[i], flow.chunks[i] * self.chunk
        if nbytes > SEGMENT_NBYTES:
            self.part[i] = SEGMENT_NBYTES / nbytes
        if flow.combines[i]:
            self.offer(now, i, ((len(self.servers) - 1 - rank, self.combine_s),), nbytes)
            return
        way = self.way(rank, flow.dst[i])
        self.latency[i] = way.latency_s
        ready = max(self.sending.get(rank, 0.0), now) + way.overhead_s
        self.sending[rank] = ready
        self.push(ready, _QUEUE, i)

    def queue(self, now: float, i: int) -> None:
        way = self.way(self.flow.src[i], self.flow.dst[i])
        self.offer(now, i, way.servers, self.flow.chunks[i] * self.chunk + way.header_nbytes)

    def offer(self, now: float, i: int, needs: Sequence[tuple[int, float]], nbytes: float) -> None:
        """Queue a message at all of its servers."""
        self.unserved[i] = self.unstarted[i] = len(needs)
        self.work[i] = nbytes * max((seconds for _, seconds in needs), default=0.0)
        if not needs:
            self.started(now, i)
            self.through(now, i)
            return
        lane = self.flow.src[i] * len(self.servers) + self.flow.dst[i]
        for number, seconds in needs:
            server = self.servers[number]
            if server.busy:
                server.put(lane, i, nbytes * seconds)
            else:
                self.serve(now, number, i, nbytes * seconds)

    def serve(self, now: float, number: int, i: int, work: float) -> None:
        self.servers[number].busy = True
        self.push(now + work, _SERVED, number * len(self.missing) + i)
        self.unstarted[i] -= 1
        if not self.unstarted[i]:
            self.started(now, i)

    def started(self, now: float, i: int) -> None:
        """All servers are at it: its first segment arrives soon."""
        if self.part[i] < 1.0:
            self.push(now + self.work[i] * self.part[i] + self.latency[i], _FIRST, i)

    def served(self, now: float, which: int) -> None:
        number, i = divmod(which, len(self.missing))
        server = self.servers[number]
        server.busy = False
        if server.turns:
            self.serve(now, number, *server.take())
        self.unserved[i] -= 1
        if not self.unserved[i]:
            self.through(now, i)

    def through(self, now: float, i: int) -> None:
        """All servers are done with it; it ends when what it hands on has come, too."""
        if not self.unfinished[i]:
            self.push(now + self.latency[i], _LAST, i)

    def first(self, now: float, i: int) -> None:
        for j in self.users[i]:
            self.missing[j] -= 1
            if not self.missing[j]:
                self.begin(now, j)

    def last(self, now: float, i: int) -> None:
        self.end = max(self.end, now)
        for j in self.users[i]:
            self.unfinished[j] -= 1
        if self.part[i] == 1.0:
            self.first(now, i)
        for j in self.users[i]:
            if not self.unfinished[j] and self.unserved[j] == _THROUGH:
                self.push(now + self.work[j] * self.part[j] + self.latency[j], _LAST, j)


def finished_s(
    flow: Dataflow,
    users: Sequence[Sequence[int]],
    way: Callable[[int, int], Way],
    nservers: int,
    chunk: float,
    combine_s: float,
) -> float:
    """Run a schedule's events; returns the time of the last one.

    Parameters
    ----------
    flow, users
        What happens, and what waits for each thing.
    way
        Servers and latency of a message, by source and destination.
    nservers
        How many servers there are; the last ones, one for each rank from the end, combine.
    chunk
        Bytes of a chunk.
    combine_s
        Seconds for which combining a byte keeps its rank busy.
    """
    return _Run(flow, users, way, nservers, chunk, combine_s).run()
