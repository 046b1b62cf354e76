"""Which planner, and why: all that fit the request, each with its predicted time, and the best of them.

Where the network is known, plans are priced on its links (:mod:`pycomm.tuner.pricing`); elsewhere the closed
forms of the planners are evaluated. A measured table (:mod:`pycomm.tuner.table`) overrides both. Choosing is
deterministic: ranks that ask the same get the same schedule. Ties go to the planner that the registry lists
first.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from pycomm.collectives.spec import equal_form
from pycomm.cost import Links, chunk_nbytes, time_s
from pycomm.errors import PlanningError, UsageError
from pycomm.planner import registry
from pycomm.planner.base import Planner, PlanRequest
from pycomm.schedule import Schedule
from pycomm.schedule.passes import synchronise
from pycomm.types import CollectiveKind
from pycomm.units import format_size_rounded, format_time

if TYPE_CHECKING:
    from pycomm.tuner.table import Entry, Table

__all__ = ["Choice", "Estimate", "choose", "estimate_of", "estimates"]

log = logging.getLogger("pycomm.tuner")

PIECES = (1, 2, 4, 8, 16, 32, 64)
"""Pipeline pieces that are tried where a planner can use them and the request leaves the number open."""
PIECES_ON_NETWORK = (1, 4, 16, 64)
"""The same where plans have to be made to be priced."""
MIN_PIECE_NBYTES = 4096
"""Pieces are not made smaller than this."""
WORTH = 1.02
"""Plans that are predicted to differ by less are equals. Of those the one that keeps links busy for less time
is taken, since what else uses them is never known in full; then the one with fewer messages."""
MAX_PRICED_RANKS = 128
"""In larger groups plans are not made to be priced: closed forms are evaluated, on the narrowest links."""
_RINGS = ("ring", "bidirectional_ring")
_ON_GRAPHS = ("tree_packing", "free_root", "flow_alltoall")


@dataclass(frozen=True, slots=True)
class Estimate:
    """One way to serve a request.

    Parameters
    ----------
    seconds
        Predicted or, from a measured table, measured.
    planner, pieces, order
        Name of the planner, and what the request asks it for; ``()`` is the order of the ranks.
    work, messages
        Seconds for which all links together are busy, and messages of the busiest rank, where they are known:
        they decide between equals.
    is_least
        Whether ``seconds`` is only what it takes at least, which is more than another takes.
    """

    seconds: float
    planner: str
    pieces: int
    order: tuple[int, ...] = ()
    work: float = 0.0
    messages: int = 0
    is_least: bool = False

    def label(self) -> str:
        """Name it, for people: ``"ring, 4 pieces, placed"``."""
        pieces = f", {self.pieces} pieces" if self.pieces > 1 else ""
        return f"{self.planner}{pieces}{', placed' if self.order else ''}"

    def request(self, request: PlanRequest) -> PlanRequest:
        """Return what the planner is asked."""
        return replace(request, pieces=self.pieces, order=self.order or request.order)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen.

    Parameters
    ----------
    planner
        Name of the planner.
    schedule
        Its schedule; for rooted collectives synchronised, so that no rank leaves before all agree.
    why
        One line for people.
    runner_up
        Name of the next best planner, ``""`` when there is none.
    """

    planner: str
    schedule: Schedule
    why: str
    runner_up: str


def choose(
    request: PlanRequest,
    nbytes: int,
    links: Links | None = None,
    algorithm: str | None = None,
    table: Table | None = None,
) -> Choice:
    """Choose a planner and plan.

    Parameters
    ----------
    request
        What is to be planned. ``pieces=0`` lets the tuner try several.
    nbytes
        Bytes of the whole array: of one rank for allreduce, broadcast and reduce, all blocks of all ranks for
        the others; for alltoall the blocks of one rank.
    links
        What messages cost; ``None`` means the defaults of :class:`pycomm.cost.Links` for processes, and
        :data:`pycomm.cost.ACCELERATORS` for other devices of a topology.
    algorithm
        Name of the planner to use whatever it costs; its pieces and order are still the best predicted.
    table
        What was measured; it overrides what is predicted.

    Raises
    ------
    PlanningError
        No planner can serve the request, or the one asked for cannot.
    UsageError
        The request contradicts itself.
    """
    if nbytes < 0:
        raise UsageError(f"cannot choose a plan for {nbytes} bytes: the size must not be negative")
    if algorithm is not None:
        return _named(request, nbytes, links or _links_of(request), algorithm)
    measured = None if table is None else _measured(request, nbytes, table)
    if measured is not None:
        return _from_table(request, nbytes, measured)
    ranked = estimates(request, nbytes, links or _links_of(request), only_best=True)
    best = ranked[0]
    schedule = _planned(best.planner, best.request(request))
    size = format_size_rounded(nbytes)
    why = f"{best.planner}: {format_time(best.seconds)} for {size} on {request.nranks} ranks"
    if len(ranked) == 1:
        return Choice(best.planner, schedule, f"{why}, the only planner that can", "")
    second = ranked[1]
    least = " at least" if second.is_least else ""
    why += f", {second.planner} would take{least} {format_time(second.seconds)}"
    return Choice(best.planner, schedule, why, second.planner)


def _named(request: PlanRequest, nbytes: int, links: Links, name: str) -> Choice:
    found = estimate_of(name, request, nbytes, links) if name in registry.planners() else None
    asked = request if found is None else found.request(request)
    return Choice(name, _planned(name, asked), f"{name}: asked for by name", "")


def _measured(request: PlanRequest, nbytes: int, table: Table) -> Entry | None:
    """Look up which planner was the fastest when it was measured; ``None`` where it was no planner."""
    from pycomm.tuner.table import OWN, key_of  # deferred: few have a table

    entry = table.find(key_of(request), equal_form(request.kind), nbytes)
    return None if entry is None or entry.algorithm == OWN else entry


def _links_of(request: PlanRequest) -> Links:
    if request.topology is None:
        return Links()
    from pycomm.tuner import pricing  # deferred: groups on one host never price on a network

    return pricing.links_of(request)


def _from_table(request: PlanRequest, nbytes: int, entry: Entry) -> Choice:
    size = format_size_rounded(nbytes)
    asked = replace(request, pieces=entry.pieces, order=entry.order or request.order)
    return Choice(
        entry.algorithm,
        _planned(entry.algorithm, asked),
        f"{entry.algorithm}: the measured table says so for {size} on {request.nranks} ranks",
        "",
    )


@lru_cache(maxsize=4096)
def estimates(
    request: PlanRequest, nbytes: int, links: Links, *, only_best: bool = False
) -> tuple[Estimate, ...]:
    """Evaluate every planner that can serve the request, each at its best; the choice first.

    Parameters
    ----------
    request, nbytes, links
        As of :func:`choose`.
    only_best
        Do not find out by how much those are slower that cannot be the best.

    Raises
    ------
    PlanningError
        No planner can serve the request.
    """
    every = registry.candidates(request)
    found: dict[str, Estimate] = {}
    least = math.inf
    # plans made for the network are often the best: others need not be priced further than that
    for planner in sorted(every, key=lambda planner: planner.name not in _ON_GRAPHS):
        estimate = _estimate(planner, request, nbytes, links, least if only_best else math.inf)
        if estimate is not None:
            found[planner.name] = estimate
            least = min(least, estimate.seconds)
    able = [found[planner.name] for planner in every if planner.name in found]
    if not able:
        names = ", ".join(planner.name for planner in every)
        raise PlanningError(
            f"{request.kind.label} on {request.nranks} ranks: none of {names} can be planned on "
            "the topology; see the log of PYCOMM_LOG=tuner=info"
        )
    able.sort(key=lambda estimate: estimate.seconds)  # stable: ties keep the registry's order
    equals = sum(estimate.seconds <= able[0].seconds * WORTH for estimate in able)
    work = min(estimate.work for estimate in able[:equals]) * WORTH
    first = sorted(able[:equals], key=lambda estimate: (estimate.work > work, estimate.messages))
    return (*first, *able[equals:])


def estimate_of(name: str, request: PlanRequest, nbytes: int, links: Links) -> Estimate | None:
    """Price one planner at its best; ``None`` when it cannot serve the request."""
    planner = registry.planner(name)
    if planner.rejects(request) is not None:
        return None
    return _estimate(planner, request, nbytes, links, math.inf)


def _estimate(
    planner: Planner, request: PlanRequest, nbytes: int, links: Links, enough_s: float
) -> Estimate | None:
    """Price a planner at its best pieces and order; ``None`` when it finds no plan on the topology.

    It need not be priced exactly if it takes longer than ``enough_s`` anyway.
    """
    if request.topology is None or request.nranks == 1:
        return _closed(planner, request, nbytes, links)
    try:
        if request.nranks > MAX_PRICED_RANKS:
            return _large(planner, request, nbytes, links)
        return _on_network(planner, request, nbytes, links, enough_s)
    except PlanningError as error:
        log.info("planner left out planner=%s reason=%s", planner.name, error)
        return None


def _closed(planner: Planner, request: PlanRequest, nbytes: int, links: Links) -> Estimate:
    crowd = max((request.hosts.count(host) for host in set(request.hosts)), default=request.nranks)
    found: dict[int, Estimate] = {}  # by the pieces that come of it: not every planner has a use for pieces
    for pieces in (request.pieces,) if request.pieces else PIECES:
        if found and nbytes < pieces * MIN_PIECE_NBYTES:
            break
        cost = planner.cost(replace(request, pieces=pieces))
        if cost.pieces in found:
            break
        chunk = chunk_nbytes(request.kind, request.nranks, cost.pieces, nbytes)
        seconds = time_s(cost, chunk, links, request.hosts, crowd)
        found[cost.pieces] = Estimate(seconds, planner.name, pieces)
    return min(found.values(), key=lambda estimate: estimate.seconds)


def _on_network(
    planner: Planner, request: PlanRequest, nbytes: int, links: Links, enough_s: float
) -> Estimate:
    # what a plan costs hardly depends on whether two of its buffers are one
    plain = replace(request, in_place=False)
    if planner.rejects(plain) is not None:
        plain = request
    found = [
        _in_order(planner, replace(plain, order=order or request.order), nbytes, links, enough_s, order)
        for order in _orders(planner, request, links)
    ]
    return min(found, key=lambda estimate: estimate.seconds)


def _in_order(
    planner: Planner,
    request: PlanRequest,
    nbytes: int,
    links: Links,
    enough_s: float,
    order: tuple[int, ...],
) -> Estimate:
    """Price a planner at its best pieces: the fewest of those that are as good as the best."""
    from pycomm.tuner.pricing import priced  # deferred: groups on one host never price on a network

    seen: set[int] = set()
    found: list[Estimate] = []
    for pieces in (request.pieces,) if request.pieces else PIECES_ON_NETWORK:
        asked = replace(request, pieces=pieces)
        cost = planner.cost(asked)
        chunk = chunk_nbytes(request.kind, request.nranks, cost.pieces, nbytes)
        if found and (chunk < MIN_PIECE_NBYTES or cost.pieces in seen):
            break
        seen.add(cost.pieces)
        price = priced(planner.name, asked, links)
        is_enough = price.least_s(nbytes) > enough_s * WORTH  # more pieces carry no less
        seconds = price.least_s(nbytes) if is_enough else price.seconds(nbytes)
        work = price.work_s * nbytes
        found.append(Estimate(seconds, planner.name, pieces, order, work, cost.messages, is_enough))
        if is_enough:
            break
    least = min(estimate.seconds for estimate in found)
    return next(estimate for estimate in found if estimate.seconds <= least * WORTH)


def _orders(planner: Planner, request: PlanRequest, links: Links) -> tuple[tuple[int, ...], ...]:
    """List the orders of ranks worth a try: the given one, and for rings one placed on the network."""
    if planner.name not in _RINGS or request.order:
        return ((),)
    return ((), *_placed(replace(request, kind=CollectiveKind.ALLGATHER, root=-1, in_place=False), links))


@lru_cache(maxsize=64)
def _placed(request: PlanRequest, links: Links) -> tuple[tuple[int, ...], ...]:
    from pycomm.planner.graph.embedding import ring_order
    from pycomm.tuner import pricing

    assert request.topology is not None  # noqa: S101 (the caller has looked)
    machine = pricing.machine_of(request.topology, request.devices, request.hosts, links)
    order = ring_order(machine.network, machine.hosts, machine.ways)
    return () if order == tuple(range(request.nranks)) else (order,)


def _large(planner: Planner, request: PlanRequest, nbytes: int, links: Links) -> Estimate:
    from pycomm.tuner import pricing

    assert request.topology is not None  # noqa: S101 (the caller has looked)
    machine = pricing.machine_of(request.topology, request.devices, request.hosts, links)
    if planner.name not in _ON_GRAPHS:
        return _closed(planner, replace(request, hosts=machine.hosts), nbytes, machine.narrowest())
    from pycomm.planner.graph.planners import plan_of

    plan = plan_of(request)
    far = links.between if len(set(machine.hosts)) > 1 else links.inside
    seconds = plan.height * (far.latency_s + far.overhead_s) + float(nbytes / plan.algbw)
    return Estimate(seconds, planner.name, 0)


@lru_cache(maxsize=64)
def _planned(name: str, request: PlanRequest) -> Schedule:
    schedule = registry.plan(name, request)
    return synchronise(schedule) if request.kind.is_rooted else schedule
