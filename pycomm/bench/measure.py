"""Measures a scenario on the ranks of a job. Every rank calls :func:`measure`; rank 0 gets the records."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from pycomm.bench.calls import Point, bind, bind_barrier, bind_copy, count_wrong, expected
from pycomm.bench.scenario import COPY, Scenario, block_elements, forms, total_nbytes
from pycomm.bench.statistics import Record, record, spread, with_ratios
from pycomm.communicator import Communicator
from pycomm.errors import Unsupported
from pycomm.types import CollectiveKind

__all__ = ["measure"]

_TRIALS = 2
_MAX_CALLS = 2000
_LONG_S = 0.01

Run = Callable[[], object]


def measure(
    scenario: Scenario,
    comms: Mapping[str, Communicator],
    *,
    on_point: Callable[[list[Record]], None] | None = None,
) -> list[Record]:
    """Measure every point of a scenario. Collective: blocks, and every rank calls it with an equal scenario.

    Parameters
    ----------
    scenario
        What to measure.
    comms
        A communicator of all ranks per library of the scenario, in its order.
    on_point
        Called on rank 0 with the records of each point (both forms, all backends) as soon as they are known.

    Returns
    -------
    list of Record
        All records on rank 0, none elsewhere.

    Raises
    ------
    CommError
        If a call fails or does not end before the scenario's deadline.

    Notes
    -----
    Backends take turns of a few calls each on the same memory. A turn begins and ends with the backend's own
    barrier and has one call that is not timed first. Times are kept by each rank and collected when the point
    is done; a call counts as long as its slowest rank took.
    """
    scenario.validate()
    control = next(iter(comms.values()))
    done: list[Record] = []
    for kind in scenario.kinds:
        for count in _counts(kind, scenario, control.size):
            found: list[Record] = []
            for in_place in forms(kind, scenario):
                point = Point.make(
                    kind,
                    scenario.dtype,
                    scenario.op,
                    scenario.root,
                    count,
                    control.rank,
                    control.size,
                    in_place,
                )
                found += _measure_point(scenario, point, comms, control)
            if control.rank == 0:
                found = with_ratios(found, scenario.backends[0])
                done += found
                if on_point is not None:
                    on_point(found)
    return done


def _counts(kind: CollectiveKind, scenario: Scenario, nranks: int) -> list[int]:
    """List the counts of a sweep, without those that small sizes round to twice."""
    if kind is CollectiveKind.BARRIER:
        return [0]
    itemsize = scenario.dtype.itemsize
    counts = (block_elements(kind, nbytes, itemsize, nranks) for nbytes in scenario.sizes)
    return sorted({count: total_nbytes(kind, count, itemsize, nranks) for count in counts})


class _Turns:
    """One backend at one point."""

    def __init__(self, run: Run, settle: Run) -> None:
        self.run, self.settle = run, settle
        self.calls = 0
        self.is_long = False
        self.times_ns: list[int] = []

    def warm_up(self, calls: int) -> int:
        """Call a few times; returns how long a call takes, in nanoseconds."""
        self.settle()
        for _ in range(calls):
            self.run()
        self.settle()
        begin = time.perf_counter_ns()
        for _ in range(_TRIALS):
            self.run()
        self.settle()
        return (time.perf_counter_ns() - begin) // _TRIALS

    def take(self, calls: int) -> None:
        """Take one turn of ``calls`` timed calls."""
        run, times, clock = self.run, self.times_ns, time.perf_counter_ns
        self.settle()
        if not self.is_long:
            run()
        for _ in range(calls):
            begin = clock()
            run()
            times.append(clock() - begin)
        self.settle()


def _measure_point(
    scenario: Scenario, point: Point, comms: Mapping[str, Communicator], control: Communicator
) -> list[Record]:
    turns: dict[str, _Turns] = {}
    for name in scenario.backends:
        comm = comms.get(name, control)
        try:
            run = bind_copy(point) if name == COPY else bind(comm, point, scenario.timeout_s)
        except Unsupported:
            continue  # on every rank alike: what a backend offers does not depend on the rank
        turns[name] = _Turns(run, bind_barrier(comm, scenario.timeout_s))
    point.fill()
    for one in turns.values():
        estimate_ns = _agree(control, one.warm_up(scenario.warmup))
        one.is_long = estimate_ns > _LONG_S * 1e9
        fitting = int(scenario.budget_s * 1e9) // max(1, estimate_ns)
        one.calls = scenario.iterations or min(_MAX_CALLS, max(scenario.rounds, fitting))
    for turn in range(scenario.rounds):
        for one in turns.values():
            one.take(one.calls * (turn + 1) // scenario.rounds - one.calls * turn // scenario.rounds)
    wanted = expected(point) if scenario.check else None
    found = []
    for name, one in turns.items():
        wrong = 0
        is_checked = scenario.check and name != COPY
        if is_checked:
            point.fill()
            one.settle()
            one.run()
            one.settle()
            wrong = count_wrong(point, wanted)
        times, total_wrong = _collect(control, one.times_ns, wrong)
        if control.rank == 0:
            found.append(
                record(
                    point.kind,
                    point.nranks,
                    name,
                    point.in_place,
                    point.count,
                    point.dtype,
                    point.op,
                    point.root,
                    spread(times),
                    total_wrong if is_checked else -1,
                )
            )
    return found


def _agree(control: Communicator, value: int) -> int:
    """Return the largest value of any rank, on every rank."""
    largest = np.array([value], np.int64)
    control.allreduce(largest, op="max")
    return int(largest[0])


def _collect(control: Communicator, times_ns: list[int], wrong: int) -> tuple[npt.NDArray[np.int64], int]:
    """Bring everybody's times together: an array of shape (ranks, calls), and the sum of wrong elements."""
    mine = np.array([*times_ns, wrong], np.int64)
    every = np.empty((control.size, mine.size), np.int64)
    control.allgather(mine, every.reshape(-1))
    return every[:, :-1], int(every[:, -1].sum())
