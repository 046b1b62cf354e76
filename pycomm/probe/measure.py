"""The network between the hosts of a job, measured through the job's own communicator, within a time limit.

::

    1  alone      each pair of hosts: time of a small message there and back, rate of a long one each way
    2  ends       each host to all others at once, all others to it at once
    3  together   everybody to everybody
    4  racks      what leaves and enters each group of hosts that 1 and 3 suggest
    5  cables     where there is no switch: pairs of flows from one host, and to one host

What the rates mean is decided by :mod:`pycomm.topology.inference`. One rank of each host measures; where the
ranks of each host use different interfaces, each interface is a rail, and rails are measured one by one. What
a rank sends leaves its host on the rail of the receiver. Every rank ends up with the same topology.

Long messages are sent for a set time; a rate is what arrives in the last three quarters of it, without the
time in which flows find their speed and queues fill.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from pycomm.backends.base import Work
from pycomm.communicator import Communicator
from pycomm.errors import UsageError
from pycomm.group_network import Place, Placed
from pycomm.probe.build import Found, build
from pycomm.topology.inference import cables, fair, is_switchless, racks
from pycomm.topology.model import Topology

__all__ = ["measure_network", "probe", "rounds_of"]

log = logging.getLogger("pycomm.probe")

Rates = npt.NDArray[np.float64]
Flow = tuple[int, int]

TAG = 2**31 - 8
"""The measurement's own tags are this and the next few; it runs before the user has the communicator."""
PINGS = 8
WINDOW = 3
"""Messages under way of a flow."""
PARTS = 5
"""Rates are measured in so many parts of the time. The second best counts: others were held up by chance."""
MESSAGE_S = 0.003
"""A message of a flow is as long as its pair sends in this time, alone."""
LEAST_NBYTES, MOST_NBYTES = 16 * 1024, 4 * 2**20
PAUSE_S = 0.1
"""Until queues are empty again."""
TRIES = 2
"""How often a message that took long is sent again: it may have been held up by chance."""
LONG_S = 0.03
"""The rate of a pair alone is taken from messages that take at least this long."""
MOST_FLOWS = 6
"""A host sends to at most so many others at once."""
HELD_UP = 0.5
"""Two flows share a cable if together they lack this part of the slower one's rate alone."""
DUPLEX = 1.5
"""What leaves and what enters a host at rates that differ by less goes through one cable of one speed."""
TRUNK = 0.85
"""What leaves a rack is limited by a trunk if it is less than this part of what its hosts could send."""


def probe(comm: Communicator, time_limit_s: float = 10.0) -> Topology:
    """Measure the network between a group's hosts. Collective, and alone: nothing else may be under way.

    Parameters
    ----------
    comm
        The group; not of one host only.
    time_limit_s
        About how long it may take. Less time means shorter measurements, and fewer of them: what is not
        measured is taken to be as it is elsewhere, and a note of the topology says so.

    Returns
    -------
    Topology
        The same on all ranks. Its devices are the ranks, in their order.

    Raises
    ------
    UsageError
        All ranks are on one host.
    """
    return measure_network(comm, time_limit_s).topology


def measure_network(comm: Communicator, time_limit_s: float = 10.0) -> Placed:
    """Measure, as :func:`probe`; returns the vertices of the ranks, too."""
    if not time_limit_s > 0:
        raise UsageError(f"time_limit_s={time_limit_s:g}: a measurement takes some time")
    places = comm.places()
    hosts = list(dict.fromkeys(place.identity for place in places))
    if len(hosts) < 2:
        raise UsageError("all ranks are on one host; there is no network between them to measure")
    rails = _rails(places, hosts)
    found = [_Probe(comm, leaders, time_limit_s / len(rails)).run() for leaders in rails.values()]
    topology = build(places, hosts, list(rails), found)
    return Placed(topology, topology.devices)


def _rails(places: Sequence[Place], hosts: Sequence[str]) -> dict[str, list[int]]:
    """Leaders of the hosts by interface; one rail of all hosts unless each host has all of the interfaces."""
    named = list(dict.fromkeys(place.interface for place in places))
    by_rail = {
        interface: [
            next((r for r, p in enumerate(places) if (p.identity, p.interface) == (host, interface)), -1)
            for host in hosts
        ]
        for interface in named
    }
    if len(named) > 1 and all(-1 not in leaders for leaders in by_rail.values()):
        return by_rail
    identities = [place.identity for place in places]
    return {"": [identities.index(host) for host in hosts]}


class _Probe:
    """The measurements of one rail. Every rank makes the same calls; leaders send."""

    def __init__(self, comm: Communicator, leaders: Sequence[int], limit_s: float) -> None:
        self.comm, self.leaders = comm, list(leaders)
        self.n = len(leaders)
        self.me = self.leaders.index(comm.rank) if comm.rank in self.leaders else -1
        self.end = time.monotonic() + limit_s
        # ends, everything together and racks take about 2n + 8 measurements, each with a pause behind it
        self.flow_s = min(0.4, max(0.06, limit_s / 2 / (2 * self.n + 8) - PAUSE_S))

    def run(self) -> Found:
        n = self.n
        alone, latency = self._pairs()
        self._tell("pairs")
        sizes = np.clip(alone * MESSAGE_S, LEAST_NBYTES, MOST_NBYTES)
        self.sizes = 2 ** np.rint(np.log2(sizes)).astype(np.int64)
        everybody = range(n)
        leaving, entering = np.zeros(n), np.zeros(n)
        for i in everybody:
            leaving[i] = self.total([(i, j) for j in self._others(i)])
            entering[i] = self.total([(j, i) for j in self._others(i)])
        self._tell("ends")
        leaving = np.maximum(leaving, alone.max(axis=1))
        entering = np.maximum(entering, alone.max(axis=0))
        both = np.maximum(leaving, entering)  # a cable has one speed both ways, unless the two differ by much
        leaving = np.where(leaving * DUPLEX > both, both, leaving)
        entering = np.where(entering * DUPLEX > both, both, entering)
        found = Found(alone, latency, leaving, entering)
        if n < 3 or not self._has_time(found, "what flows share"):
            return found
        if is_switchless(alone, leaving, entering):
            found.joined = self._cables(found)
            self._tell("cables")
            if found.joined:
                return found
        self._racks(found)
        self._tell("racks")
        return found

    def _tell(self, what: str) -> None:
        if self.me == 0:
            log.info(
                "measured what=%s left_s=%.2f flow_s=%.3f", what, self.end - time.monotonic(), self.flow_s
            )

    def _others(self, i: int) -> list[int]:
        """At most a few others, spread out evenly."""
        others = [(i + 1 + k) % self.n for k in range(self.n - 1)]
        step = -(-len(others) // MOST_FLOWS)
        return others[::step]

    def _has_time(self, found: Found, what: str) -> bool:
        """Whether rank 0 finds that there is time left; if not, the topology will say what was left out."""
        left = np.array([self.end - time.monotonic()])
        self.comm.broadcast(left, self.leaders[0])
        if left[0] <= 0:
            found.notes.append(f"the time limit was reached before {what} could be measured")
        return bool(left[0] > 0)

    def _share(self, mine: Rates) -> Rates:
        """Collect a row of every leader."""
        rows = np.empty((self.comm.size, mine.size))
        self.comm.allgather(np.ascontiguousarray(mine), rows)
        return rows[self.leaders]

    def _pairs(self) -> tuple[Rates, Rates]:
        """Measure pairs: one at a time while there is time for that, else in rounds of disjoint pairs."""
        n = self.n
        rate, latency = np.zeros(n), np.zeros(n)
        rounds = rounds_of(n)
        pairs = sum(map(len, rounds))
        budget = (self.end - time.monotonic()) / 3
        began, done = time.monotonic(), 0
        one_by_one = True
        for found in rounds:
            steps = [[pair] for pair in found] if one_by_one else [found]
            for step in steps:
                self.comm.barrier()
                for i, j in step:
                    if self.me in (i, j):
                        other = j if self.me == i else i
                        latency[other], rate[other] = self._pair(i, j)
            done += len(found)
            spent = np.array([time.monotonic() - began])
            self.comm.broadcast(spent, self.leaders[0])
            one_by_one = bool(spent[0] / done * pairs < budget)
        # row i of the leaders' rows: what i has received from each other
        return self._share(rate).T.copy(), self._share(latency)

    def _pair(self, i: int, j: int) -> tuple[float, float]:
        """Ping, then send both ways by turns; returns latency and the rate of what this rank receives."""
        comm, peer = self.comm, self.leaders[j if self.me == i else i]
        small = np.zeros(1, np.uint8)
        times = []
        for _ in range(PINGS):
            began = time.perf_counter()
            if self.me == i:
                comm.send(small, peer, TAG)
                comm.recv(small, peer, TAG)
            else:
                comm.recv(small, peer, TAG)
                comm.send(small, peer, TAG)
            times.append(time.perf_counter() - began)
        latency = min(times) / 2
        rate = 0.0
        for sender in (i, j):
            told = self._one_way(peer, self.me == sender)
            if self.me != sender:
                rate = told
        return latency, rate

    def _one_way(self, peer: int, sends: bool) -> float:
        """Send messages of growing length until one takes long each time; the receiver tells its best rate.

        The receiver asks for each message by its length; the time of the shortest is taken off, as latency.
        """
        comm, asked = self.comm, np.zeros(2)
        if sends:
            while True:
                comm.recv(asked, peer, TAG + 2)
                if not asked[0]:
                    return float(asked[1])
                comm.send(np.zeros(int(asked[0]), np.uint8), peer, TAG + 1)

        def ask(nbytes: int) -> float:
            buffer = np.empty(nbytes, np.uint8)
            asked[0] = nbytes
            began = time.perf_counter()
            comm.send(asked, peer, TAG + 2)
            comm.recv(buffer, peer, TAG + 1)
            return time.perf_counter() - began

        least_s = min(ask(1), ask(1))
        nbytes, took_s = LEAST_NBYTES, 0.0
        while took_s < LONG_S and nbytes < 8 * MOST_NBYTES:
            nbytes *= 4
            took_s = ask(nbytes)
            for _ in range(TRIES if took_s >= LONG_S else 0):
                took_s = min(took_s, ask(nbytes))
        asked[:] = 0, nbytes / max(took_s - least_s, 1e-9)
        comm.send(asked, peer, TAG + 2)
        return float(asked[1])

    def flows(self, flows: Sequence[Flow]) -> Rates:
        """Send on all of the flows at once; returns the rate of each in each part of the time. Collective."""
        self.comm.barrier()
        mine = np.zeros((self.n, PARTS))
        if self.me >= 0:
            lanes = [_Lane(self, flow) for flow in flows if self.me in flow]
            with ThreadPoolExecutor(max(1, len(lanes))) as pool:  # a thread each: they wait, and hardly work
                for lane, rates in zip(lanes, pool.map(_Lane.run, lanes), strict=True):
                    if lane.receives:
                        mine[lane.other] = rates
        received = self._share(mine.ravel()).reshape(self.n, self.n, PARTS)
        return np.array([received[j, i] for i, j in flows])

    def total(self, flows: Sequence[Flow]) -> float:
        """Send on all of the flows at once; returns what they carry together. Collective."""
        return float(np.sort(self.flows(flows).sum(axis=0))[-2])

    def _racks(self, found: Found) -> None:
        """Find racks, and measure what leaves and enters each; no racks if none is held up by a trunk."""
        n = self.n
        flows = [(i, j) for i in range(n) for j in self._others(i)]
        got = np.zeros((n, n))
        wanted = fair(flows, found.leaving, found.entering)
        times = 2 if self.flow_s >= 0.1 else 1
        for _ in range(times):
            for (i, j), rate, share in zip(flows, self.flows(flows).mean(axis=1), wanted, strict=True):
                got[i, j] += rate / share / times
        full = fair([(i, j) for i in range(n) for j in range(n) if i != j], found.leaving, found.entering)
        together = np.zeros((n, n))
        every = [(i, j) for i in range(n) for j in range(n) if i != j]
        for (i, j), share in zip(every, full, strict=True):
            together[i, j] = share * (got[i, j] or 1.0)
        groups = racks(found.alone, together, found.leaving, found.entering)
        if len(groups) < 2 or not self._has_time(found, "trunks"):
            return
        rates, is_held_up = [], False
        for group in groups:
            outside = [i for i in range(n) if i not in group]
            pairs = [
                (group[k % len(group)], outside[k % len(outside)])
                for k in range(max(len(group), len(outside)))
            ]
            ways = []
            for way in (pairs, [(b, a) for a, b in pairs]):
                sent = self.total(way)
                could = float(fair(way, found.leaving, found.entering).sum())
                is_held_up = is_held_up or sent < TRUNK * could
                ways.append(sent)
            rates.append((ways[0], ways[1]))
        if is_held_up:
            found.groups, found.group_rates = groups, rates

    def _cables(self, found: Found) -> tuple[Flow, ...]:
        """Measure which flows from a host share a cable, then which of those share another one at their ends.

        Sharing the first cable divides the others into classes, so each is compared with one of each class.
        """
        n = self.n
        # of n - 1 others all but the first are compared with about two classes; those that share again
        self.flow_s = min(self.flow_s, max(0.06, (self.end - time.monotonic()) / (3 * n * n) - PAUSE_S))
        out, into = dict[tuple[int, int, int], bool](), dict[tuple[int, int, int], bool]()
        for end in range(n):
            classes: list[list[int]] = []
            for other in (i for i in range(n) if i != end):
                if not self._has_time(found, "which flows share a cable"):
                    return ()
                same = next((c for c in classes if self._held_up(found, (end, c[0]), (end, other))), None)
                if same is None:
                    classes.append([other])
                else:
                    out |= {(end, member, other): True for member in same}
                    same.append(other)
        for end, a, b in out:
            for far, other in ((a, b), (b, a)):
                key = (far, min(end, other), max(end, other))
                if key not in into:
                    if not self._has_time(found, "which flows share a cable"):
                        return ()
                    into[key] = self._held_up(found, (end, far), (other, far))
        joined = cables(n, out, into)
        for i in range(n):
            if sum(found.alone[a, b] for a, b in joined if a == i) > DUPLEX * found.leaving[i]:
                return ()  # these are not cables: no host can send on all of them at once
        return joined

    def _held_up(self, found: Found, a: Flow, b: Flow) -> bool:
        alone = float(found.alone[a]), float(found.alone[b])
        lacking = (sum(alone) - self.total([a, b])) / min(alone)
        if abs(lacking - HELD_UP) < HELD_UP / 2:  # not clear: once more
            lacking = min(lacking, (sum(alone) - self.total([a, b])) / min(alone))
        return lacking > HELD_UP


class _Lane:
    """A rank's side of a flow: messages one after the other, as fast as the network takes them."""

    def __init__(self, probe: _Probe, flow: Flow) -> None:
        self.comm, self.flow_s = probe.comm, probe.flow_s
        self.receives = probe.me == flow[1]
        self.other = flow[0] if self.receives else flow[1]
        self.peer = probe.leaders[self.other]
        self.nbytes = int(probe.sizes[flow])
        self.began = time.perf_counter()

    def run(self) -> Rates:
        """Send or receive until the time is over; returns what was received in each part of it."""
        return self._receive() if self.receives else self._send()

    def _send(self) -> Rates:
        buffers = [np.zeros(self.nbytes, np.uint8) for _ in range(WINDOW)]
        works: list[Work] = []
        ended = False
        while not ended:
            if len(works) == WINDOW:
                works.pop(0).wait()
            buffer = buffers[0]
            buffers = [*buffers[1:], buffer]
            ended = time.perf_counter() - self.began > self.flow_s
            buffer[0] = ended  # the last message says so
            works.append(self.comm.send(buffer, self.peer, TAG + 3, async_op=True))
        for work in works:
            work.wait()
        return np.zeros(PARTS)

    def _receive(self) -> Rates:
        buffer, arrivals = np.zeros(self.nbytes, np.uint8), []
        while not buffer[0]:
            self.comm.recv(buffer, self.peer, TAG + 3)
            arrivals.append(time.perf_counter() - self.began)
        part_s = self.flow_s * 0.75 / PARTS
        edges = self.flow_s / 4 + part_s * np.arange(PARTS + 1)
        return np.histogram(arrivals, edges)[0] * self.nbytes / part_s


def rounds_of(n: int) -> list[list[Flow]]:
    """All pairs of n, in rounds of disjoint ones.

    References
    ----------
    E. Lucas, "Recreations mathematiques" II, 1883: the schoolgirls' walks, as tournaments are drawn up.
    """
    seats = [*range(n), *([-1] if n % 2 else [])]
    rounds = []
    for _ in range(len(seats) - 1):
        half = len(seats) // 2
        pairs = zip(seats[:half], reversed(seats[half:]), strict=True)
        rounds.append([(min(a, b), max(a, b)) for a, b in pairs if -1 not in (a, b)])
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return rounds
