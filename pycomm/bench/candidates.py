"""Measures every algorithm that can serve a collective, and makes a table of the fastest.

For each size all candidates take turns; a candidate's time is the median over its turns of what the slowest
rank took. Results are compared with the oracle before anything is timed and after: an algorithm that is wrong
once is disqualified for that size, and told of, however fast it was.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf, isqrt
from typing import Any

import numpy as np

from pycomm.bench.calls import Point, bind, count_wrong, expected
from pycomm.bench.scenario import block_elements, total_nbytes
from pycomm.collectives.spec import equal_form
from pycomm.communicator import Communicator
from pycomm.errors import PlanningError, Unsupported
from pycomm.tuner.table import NO_END, OWN, Entry, Key, Table
from pycomm.types import CollectiveKind, DType, ReduceOp

__all__ = ["Trial", "measure_candidates", "table_of"]

TURN_S = 0.002
"""Calls shorter than this are repeated within a turn, and their mean counts."""
MOST_CALLS = 20


@dataclass(frozen=True, slots=True)
class Trial:
    """One algorithm at one size.

    Parameters
    ----------
    kind, nbytes
        What was called, in bytes of the whole array.
    algorithm, pieces, order
        As in :class:`~pycomm.tuner.table.Entry`.
    seconds
        Median of the turns; infinite when it was not timed.
    predicted
        What the tuner predicts; infinite for what it cannot.
    wrong
        Elements that differed from the oracle's, on all ranks together.
    problem
        Why it could not be run, ``""`` when it could.
    """

    kind: CollectiveKind
    nbytes: int
    algorithm: str
    pieces: int = 0
    order: tuple[int, ...] = ()
    seconds: float = inf
    predicted: float = inf
    wrong: int = 0
    problem: str = ""

    @property
    def counts(self) -> bool:
        """Whether its time may be used."""
        return not self.wrong and not self.problem and self.seconds < inf


def measure_candidates(
    comm: Communicator,
    kinds: Sequence[CollectiveKind],
    sizes: Sequence[int],
    *,
    repeats: int = 5,
    dtype: DType = DType.FLOAT32,
    root: int = 0,
    on_size: Callable[[list[Trial]], None] | None = None,
) -> list[Trial]:
    """Measure. Collective: every rank calls it alike, and gets the same trials.

    Parameters
    ----------
    comm
        The group.
    kinds, sizes
        Collectives, and bytes of the whole array.
    repeats
        Turns of each candidate.
    dtype, root
        Of every call; reductions are sums.
    on_size
        Called with the trials of each size as soon as they are done, fastest first.
    """
    done: list[Trial] = []
    for kind in kinds:
        counts = {block_elements(kind, nbytes, dtype.itemsize, comm.size) for nbytes in sizes}
        for count in sorted({0} if kind is CollectiveKind.BARRIER else counts):
            point = Point.make(kind, dtype, ReduceOp.SUM, root, count, comm.rank, comm.size, False)
            trials = _measure(comm, point, repeats)
            trials.sort(key=lambda trial: (not trial.counts, trial.seconds))
            done += trials
            if on_size is not None:
                on_size(trials)
    return done


def _candidates(comm: Communicator, point: Point, nbytes: int) -> list[Trial]:
    explained = comm.explain(point.kind, nbytes, root=max(point.root, 0), dtype=point.dtype)
    found = [
        Trial(point.kind, nbytes, e.planner, e.pieces, e.order, predicted=e.seconds)
        for e in explained.candidates
    ]
    return [Trial(point.kind, nbytes, OWN), *found]


def _measure(comm: Communicator, point: Point, repeats: int) -> list[Trial]:
    nbytes = total_nbytes(point.kind, point.count, point.dtype.itemsize, comm.size)
    wanted = expected(point)
    run = bind(comm, point, comm.timeout_s)
    trials: list[Trial] = []
    able: list[tuple[Trial, int]] = []
    for trial in _candidates(comm, point, nbytes):
        try:
            wrong, took_s = _checked(comm, point, wanted, run, trial.algorithm)
        except Unsupported:
            continue  # on every rank alike: the backend has no such collective of its own
        except PlanningError as error:  # on every rank alike, too
            trials.append(replace(trial, problem=str(error)))
            continue
        if wrong:
            trials.append(replace(trial, wrong=wrong))
        else:
            able.append((trial, min(MOST_CALLS, max(1, round(TURN_S / max(took_s, 1e-6))))))
    times: list[list[float]] = [[] for _ in able]
    for _ in range(repeats):
        for (trial, calls), found in zip(able, times, strict=True):
            found.append(_turn(comm, run, trial.algorithm, calls))
    for (trial, _), found in zip(able, times, strict=True):
        wrong, _ = _checked(comm, point, wanted, run, trial.algorithm)
        trials.append(replace(trial, wrong=wrong, seconds=statistics.median(found)))
    return trials


def _checked(comm: Communicator, point: Point, wanted: Any, run: Any, name: str) -> tuple[int, float]:
    """Call once on fresh memory; returns how many elements were wrong on all ranks, and the time it took."""
    point.fill()
    began = time.perf_counter()
    run(algorithm=name)
    took_s = time.perf_counter() - began
    wrong, slowest = np.array([count_wrong(point, wanted)]), np.array([took_s])
    comm.allreduce(wrong)
    comm.allreduce(slowest, op="max")
    return int(wrong[0]), float(slowest[0])


def _turn(comm: Communicator, run: Any, name: str, calls: int) -> float:
    """Call a few times; returns the mean time of a call on the slowest rank."""
    comm.barrier()
    began = time.perf_counter()
    for _ in range(calls):
        run(algorithm=name)
    slowest = np.array([(time.perf_counter() - began) / calls])
    comm.allreduce(slowest, op="max")
    return float(slowest[0])


def table_of(trials: Iterable[Trial], key: Key) -> Table:
    """Make a table of the fastest right algorithm of each size; it serves up to half way to the next size.

    Parameters
    ----------
    trials
        As measured; a size at which nothing was right has no entry, and its neighbours do not serve it.
    key
        Of the group that was measured.
    """
    by_size: dict[CollectiveKind, dict[int, Trial | None]] = {}
    for trial in trials:
        sizes = by_size.setdefault(equal_form(trial.kind), {})
        best = sizes.setdefault(trial.nbytes, None)
        if trial.counts and (best is None or trial.seconds < best.seconds):
            sizes[trial.nbytes] = trial
    entries: list[Entry] = []
    for kind, sizes in by_size.items():
        ordered = sorted(sizes)
        low = 0
        for size, following in zip(ordered, [*ordered[1:], None], strict=True):
            high = NO_END if following is None else isqrt(size * following)
            best = sizes[size]
            if best is not None:
                _append(
                    entries, Entry(key, kind, low, high, *_how(best), seconds=float(f"{best.seconds:.4g}"))
                )
            low = high + 1
    return Table(tuple(entries))


def _how(trial: Trial) -> tuple[str, int, tuple[int, ...]]:
    return trial.algorithm, trial.pieces, trial.order


def _append(entries: list[Entry], entry: Entry) -> None:
    """Add an entry, or lengthen the last one when it says the same for the sizes just below."""
    last = entries[-1] if entries else None
    if (
        last is not None
        and (last.kind, last.high + 1) == (entry.kind, entry.low)
        and (last.algorithm, last.pieces, last.order) == (entry.algorithm, entry.pieces, entry.order)
    ):
        entries[-1] = replace(last, high=entry.high, seconds=0.0)
    else:
        entries.append(entry)
