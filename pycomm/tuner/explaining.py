"""What the tuner would do and why, in one record; and at which sizes that changes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from pycomm.collectives.spec import equal_form
from pycomm.cost import Links
from pycomm.errors import PlanningError, PycommError
from pycomm.planner.base import PlanRequest
from pycomm.planner.registry import planner
from pycomm.tuner import pricing
from pycomm.tuner.choosing import WORTH, Estimate, choose, estimate_of, estimates
from pycomm.tuner.table import OWN, Table, key_of
from pycomm.types import CollectiveKind
from pycomm.units import format_rate, format_size_rounded, format_time

__all__ = ["Crossover", "Explanation", "Limit", "crossovers", "explain"]


@dataclass(frozen=True, slots=True)
class Limit:
    """What no schedule can beat on the network.

    Parameters
    ----------
    bytes_per_s
        Rate of the data; the bound of the links alone, without latency.
    exact
        The same as a fraction, in bytes per second.
    limited_by
        The links that limit it.
    seconds
        Time of the request's size at that rate.
    """

    bytes_per_s: float
    exact: str
    limited_by: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a request is served.

    Parameters
    ----------
    collective, nranks, nbytes
        The request.
    network
        Name of the topology, ``""`` when there is none.
    source
        Where the figures come from: ``"network"``, ``"closed form"``, ``"measured"``, ``"asked for"``, or
        ``"backend"`` for a backend's own collective, which has no prediction.
    chosen, runner_up
        The choice, and the next best planner.
    why
        Reason, as one sentence.
    candidates
        All that can serve it, fastest first.
    limit
        The bound on the network; ``None`` without one, or where none is known for the collective.
    """

    collective: str
    nranks: int
    nbytes: int
    network: str
    source: str
    chosen: str
    runner_up: str
    why: str
    candidates: tuple[Estimate, ...]
    limit: Limit | None

    @property
    def seconds(self) -> float:
        """Predicted time of the choice; infinite when there is no prediction."""
        name = self.chosen
        return next((e.seconds for e in self.candidates if name in (e.planner, e.label())), math.inf)

    def facts(self) -> dict[str, Any]:
        """All of it, for programs."""
        return asdict(self)

    def text(self) -> str:
        """All of it, for people."""
        on = f" on {self.network}" if self.network else ""
        lines = [
            f"{self.collective} of {format_size_rounded(self.nbytes)} on {self.nranks} ranks{on}",
            f"  choice   {self.chosen}: {self.why}",
        ]
        if self.limit is not None:
            part = self.limit.seconds / self.seconds if self.seconds > 0 else 1.0
            lines.append(
                f"  bound    {format_rate(self.limit.bytes_per_s)}, so {format_time(self.limit.seconds)} at "
                f"least ({part:.1%} of it reached), limited by {self.limit.limited_by}"
            )
        lines += [
            f"  {'>' if e.label() == self.chosen else ' '} {format_time(e.seconds):>10}  {e.label()}"
            for e in self.candidates
        ]
        return "\n".join(lines)


def explain(
    request: PlanRequest,
    nbytes: int,
    links: Links | None = None,
    *,
    table: Table | None = None,
    algorithm: str | None = None,
) -> Explanation:
    """Say what :func:`~pycomm.tuner.choosing.choose` does, and why.

    Parameters
    ----------
    request, nbytes, links, table
        As of :func:`~pycomm.tuner.choosing.choose`.
    algorithm
        What is used whatever the tuner says; ``"own"`` for the backend's own collective.
    """
    links = links or pricing.links_of(request)
    try:
        ranked = estimates(request, nbytes, links)
    except PlanningError:
        if algorithm is None:
            raise
        ranked = ()
    source, chosen, why = _decision(request, nbytes, links, table, algorithm, ranked)
    others = [e for e in ranked if e.planner not in (chosen.partition(",")[0], chosen)]
    return Explanation(
        equal_form(request.kind).label,
        request.nranks,
        nbytes,
        request.topology.name if request.topology else "",
        source,
        chosen,
        others[0].label() if others else "",
        why,
        ranked,
        _limit(request, nbytes),
    )


def _decision(
    request: PlanRequest,
    nbytes: int,
    links: Links,
    table: Table | None,
    algorithm: str | None,
    ranked: tuple[Estimate, ...],
) -> tuple[str, str, str]:
    """Source, choice and reason."""
    if algorithm == OWN:
        return "backend", OWN, "the backend performs it itself, without a schedule"
    if algorithm is not None:
        found = estimate_of(algorithm, request, nbytes, links)
        return "asked for", found.label() if found else algorithm, "asked for by name"
    entry = None if table is None else table.find(key_of(request), equal_form(request.kind), nbytes)
    if entry is not None and entry.algorithm == OWN:
        return "measured", OWN, "the measured table says that the backend's own collective is the fastest"
    if entry is not None:
        measured = Estimate(entry.seconds, entry.algorithm, entry.pieces, entry.order)
        took = f", which took {format_time(entry.seconds)}" if entry.seconds else ""
        return "measured", measured.label(), f"the measured table says so{took}"
    source = "network" if request.topology is not None and request.nranks > 1 else "closed form"
    return source, ranked[0].label(), _reason(request, nbytes, ranked)


def _reason(request: PlanRequest, nbytes: int, ranked: tuple[Estimate, ...]) -> str:
    """Compare the first two: by steps where bytes hardly count, else by what the links carry."""
    best = ranked[0]
    took = f"{format_time(best.seconds)} predicted"
    if len(ranked) == 1:
        return f"{took}, the only planner that can"
    second = ranked[1]
    more = second.seconds / best.seconds - 1 if best.seconds > 0 else 0.0
    if more < WORTH - 1 and (best.work, best.messages) == (second.work, second.messages):
        return f"{took}, as {second.label()}; the first of the registry is taken"
    if more < WORTH - 1:
        less = (
            "links are busy for less time" if best.work < second.work / WORTH else "it needs fewer messages"
        )
        return f"{took}, about as {second.label()}, but {less}"
    steps = [planner(e.planner).cost(e.request(request)).steps for e in (best, second)]
    then = f"{took}, {second.label()} takes {more:.0%} longer"
    if steps[0] < steps[1] and nbytes < _TURN_NBYTES:
        return f"{then}: {steps[1]} messages one after the other instead of {steps[0]}"
    if request.topology is not None:
        return f"{then}: its busiest links carry more, or its steps wait for one another"
    return f"{then}: it moves more data, or in more steps"


_TURN_NBYTES = 64 * 1024
"""Above it the reason is sought in the links, not in the number of messages."""


def _limit(request: PlanRequest, nbytes: int) -> Limit | None:
    form = equal_form(request.kind)
    if request.topology is None or request.nranks < 2 or form not in _BOUNDED:
        return None
    from pycomm.planner.graph.planners import plan_of

    try:
        bound = plan_of(request).bound
    except PycommError:
        return None  # the planners have said why, in the log
    return Limit(float(bound.algbw), str(bound.algbw), bound.limited_by(), float(nbytes / bound.algbw))


_BOUNDED = (
    CollectiveKind.ALLREDUCE,
    CollectiveKind.ALLGATHER,
    CollectiveKind.REDUCE_SCATTER,
    CollectiveKind.BROADCAST,
    CollectiveKind.REDUCE,
    CollectiveKind.ALLTOALL,
)


@dataclass(frozen=True, slots=True)
class Crossover:
    """From this size on, this is the choice.

    Parameters
    ----------
    nbytes
        First size.
    chosen
        The choice from there to the next row.
    seconds
        Predicted for the first size.
    """

    nbytes: int
    chosen: str
    seconds: float


def crossovers(
    request: PlanRequest,
    links: Links | None = None,
    *,
    low: int = 1,
    high: int = 2**30,
    table: Table | None = None,
) -> tuple[Crossover, ...]:
    """Find the sizes at which the choice changes, to within 1 part in 16.

    Parameters
    ----------
    request, links, table
        As of :func:`explain`.
    low, high
        First and last size in bytes.
    """
    links = links or pricing.links_of(request)

    def at(nbytes: int) -> Crossover:
        if table is not None:
            choice = choose(request, nbytes, links, None, table)
            if "measured" in choice.why:
                return Crossover(nbytes, choice.planner, math.nan)
        best = estimates(request, nbytes, links, only_best=True)[0]
        return Crossover(nbytes, best.label(), best.seconds)

    sizes = sorted(
        {low, high, *(1 << k for k in range(low.bit_length(), high.bit_length()) if low < 1 << k < high)}
    )
    rows = [at(sizes[0])]
    for size in sizes[1:]:
        here = at(size)
        if here.chosen != rows[-1].chosen:
            rows.append(_first_of(at, here, max(rows[-1].nbytes, size // 2)))
    return tuple(rows)


def _first_of(at: Any, here: Crossover, before: int) -> Crossover:
    """Halve the interval in which the choice becomes the one of ``here``."""
    found = here
    while found.nbytes - before > max(1, found.nbytes // 16):
        middle = at((before + found.nbytes) // 2)
        if middle.chosen == here.chosen:
            found = middle
        else:
            before = middle.nbytes
    return found
