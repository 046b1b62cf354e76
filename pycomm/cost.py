"""What plans cost: exact counts of chunks, the time that links make of them, and what no plan can beat.

A plan's closed form is a :class:`PlanCost`. Its time on a machine is the sum of four terms::

    steps * latency + messages * overhead + (chunks + fill) * chunk / rate + reduced * chunk / reduce rate

with the link inside a host for what stays there and the link between hosts for what does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from pycomm.collectives.spec import equal_form
from pycomm.types import CollectiveKind

__all__ = ["ACCELERATORS", "Bound", "Link", "Links", "PlanCost", "chunk_nbytes", "lower_bound", "time_s"]


@dataclass(frozen=True, slots=True)
class PlanCost:
    """A schedule's cost in exact chunk arithmetic.

    Parameters
    ----------
    steps
        Messages on the longest chain of messages that wait for one another (alpha term).
    sent
        Chunks sent by the busiest rank (beta term); ``sent / chunks_per_array`` is in units of the array.
    received
        Chunks received by the busiest rank.
    total
        Chunks sent by all ranks together.
    reduced
        Chunks combined by the busiest rank (gamma term).
    messages
        Messages sent or received by the busiest rank, whichever is more: each costs its own overhead even
        when they do not wait for one another. This and all below is not part of equality.
    fill
        Chunks that pass on the longest path besides those of the busiest rank: what it takes to fill a
        pipeline.
    pieces
        Chunks per block, as in the schedule.
    far_steps
        How many of the steps may lead from host to host; -1 means all.
    far
        Chunks that leave the busiest host; -1 means all that its ranks send.
    """

    steps: int
    sent: int
    received: int
    total: int
    reduced: int
    messages: int = field(default=0, compare=False)
    fill: int = field(default=0, compare=False)
    pieces: int = field(default=1, compare=False)
    far_steps: int = field(default=-1, compare=False)
    far: int = field(default=-1, compare=False)


@dataclass(frozen=True, slots=True)
class Link:
    """A way between two ranks.

    Parameters
    ----------
    latency_s
        From the start of a send to the end of its receive, for an empty message.
    overhead_s
        What a rank spends on each message even when it waits for none.
    bytes_per_s
        Rate of long messages in one direction.
    header_nbytes
        What each message takes of the links besides its data: headers of frames and packets, and what
        acknowledges them. Not part of the closed form, where it is in the overhead.
    stretch
        Bytes on the wire for each byte of a long message. Not part of the closed form, either.
    """

    latency_s: float
    overhead_s: float
    bytes_per_s: float
    header_nbytes: int = 0
    stretch: float = 1.0


@dataclass(frozen=True, slots=True)
class Links:
    """A machine in the closed form.

    Parameters
    ----------
    inside, between
        The links inside a host, of each rank, and between hosts, shared by a host's ranks.
    reduce_bytes_per_s
        Rate at which a rank combines two arrays.
    """

    inside: Link = Link(2e-6, 0.5e-6, 6e9)
    between: Link = Link(30e-6, 4e-6, 1.2e9, 200, 1514 / 1448)  # TCP with its usual options on Ethernet
    reduce_bytes_per_s: float = 8e9


ACCELERATORS: Final = Links(Link(3e-6, 0.5e-6, 1e12), Link(8e-6, 1e-6, 1e12), 1e12)
"""Messages that accelerators send themselves, whose rates a topology tells: between what NCCL's tuning model
(src/graph/tuning.cc) says of its fast protocols, 0.6 to 4 us a hop, and of its plain one, 3.4 to 14 us."""


def chunk_nbytes(kind: CollectiveKind, nranks: int, pieces: int, nbytes: int) -> float:
    """Mean bytes of a chunk.

    ``nbytes`` is the whole array: of one rank for allreduce, broadcast and reduce, all blocks of all ranks
    for the others; for alltoall the blocks of one rank.
    """
    form = equal_form(kind)
    whole = (
        CollectiveKind.ALLREDUCE,
        CollectiveKind.BROADCAST,
        CollectiveKind.REDUCE,
        CollectiveKind.BARRIER,
    )
    if form is CollectiveKind.BARRIER:
        return 0.0
    return nbytes / (pieces * (1 if form in whole else nranks))


def time_s(
    cost: PlanCost, chunk: float, links: Links, hosts: tuple[int, ...] = (), per_host: int | None = None
) -> float:
    """Evaluate the closed form.

    Parameters
    ----------
    cost
        The plan's counts.
    chunk
        Bytes of a chunk, see :func:`chunk_nbytes`.
    links
        The machine.
    hosts
        Host of each rank; ``()`` means one host.
    per_host
        Ranks of the largest host, when the caller has counted them already.
    """
    volume = max(cost.sent, cost.received) + cost.fill
    local = cost.steps * links.inside.latency_s + cost.messages * links.inside.overhead_s
    moving = volume * chunk / links.inside.bytes_per_s
    combining = cost.reduced * chunk / links.reduce_bytes_per_s
    if len(set(hosts)) > 1:
        far_steps = cost.steps if cost.far_steps < 0 else cost.far_steps
        crowd = per_host or max(hosts.count(host) for host in set(hosts))
        far = cost.far if cost.far >= 0 else crowd * volume * (len(hosts) - crowd) / (len(hosts) - 1)
        far_messages = cost.messages * min(1.0, far / (crowd * volume)) if volume else cost.messages
        local += far_steps * (links.between.latency_s - links.inside.latency_s)
        local += far_messages * (links.between.overhead_s - links.inside.overhead_s)
        moving = max(moving, far * chunk / links.between.bytes_per_s)
    return local + moving + combining


@dataclass(frozen=True, slots=True)
class Bound:
    """What every plan of a collective needs at least.

    Parameters
    ----------
    rounds
        Rounds in which each rank sends and receives one message.
    moved
        Part of the array that some rank must send or receive.
    reduced
        Part of the array that some rank must combine, n-1 parts counted one by one.
    """

    rounds: int
    moved: Fraction
    reduced: Fraction


def lower_bound(kind: CollectiveKind, nranks: int) -> Bound:
    """State what no plan for ``nranks`` ranks can beat.

    A round can at most double who knows something, so all need ``ceil(log2 n)``. Whoever has everything must
    receive all that it had not; in an allreduce each rank must also part with its own contribution to all
    that others combine. The arithmetic, n-1 combinations of every element, is at best spread evenly.

    References
    ----------
    E. Chan, M. Heimlich, A. Purkayastha, R. van de Geijn, "Collective communication: theory, practice, and
    experience", Concurrency and Computation: Practice and Experience 19(13), 2007.
    """
    form, n = equal_form(kind), nranks
    rounds = (n - 1).bit_length()
    others = Fraction(n - 1, n)
    if form is CollectiveKind.BARRIER or n == 1:
        return Bound(rounds, Fraction(0), Fraction(0))
    if form is CollectiveKind.ALLREDUCE:
        return Bound(rounds, 2 * others, others)
    if form is CollectiveKind.BROADCAST:
        return Bound(rounds, Fraction(1), Fraction(0))
    if form is CollectiveKind.REDUCE:
        return Bound(rounds, Fraction(1), others)
    return Bound(rounds, others, others if form is CollectiveKind.REDUCE_SCATTER else Fraction(0))
